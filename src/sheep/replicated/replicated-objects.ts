import type { BlockRange, BlockRun } from '../block-range.ts'
import type { StoreDone } from '../change.ts'

export type { BlockRange, BlockRun } from '../block-range.ts'

/**
 * What the owner of a family of VDIs asks of the copies of its objects. Whole blocks of 4 KiB only.
 *
 * 1. What is asked of one object at the same time is done in any order; what is asked after an answer sees what was answered.
 * 2. A write is atomic, and so is a removal: all or nothing, on every copy.
 * 3. Errors: NoSpace, nothing was done. Unsure, it may have been done; a later question says whether it was, and that stays so.
 *    OldEpoch, there is another owner: this one has no say any more, in anything. NoObject.
 * 4. What an owner reads is what there was while it still was the owner.
 */
export interface ReplicatedObjects {
  /**
   * `exists` says whether the block map names the object. One that does not is made, whatever is left of an attempt to make it, and
   * durably: of zeros, or with a `base` of what that object has. The base does not change as long as somebody reads through it.
   */
  write(oid: bigint, contents: BlockContents, options: WriteOptions): Promise<void>
  /** As `write` of an object that exists. False, and nothing is begun, when anything has to be waited for before it can be. */
  writeNow(oid: bigint, contents: BlockContents, durable: boolean, done: StoreDone): boolean
  read(oid: bigint, range: BlockRange): Promise<ObjectContents>
  /**
   * As `read`, into `target`, of blocks that all have bytes here. False, and nothing is begun, when anything has to be waited for before
   * that is known. `done(false)`: they have to be read as `read` does after all.
   */
  readNow(oid: bigint, first: number, target: Buffer, done: (isRead: boolean) => void): boolean
  /**
   * An object is about to be written that no map names, and named by one afterwards. What is answered is to be called when that is over,
   * however it ended: meanwhile nobody can tell by the map what has to be where it belongs.
   */
  making(oid: bigint): () => void
  /** What the blocks of an object are, without their bytes. */
  layoutOf(oid: bigint): Promise<ObjectLayout>
  /** Durable, and does nothing to an object that is not there. */
  remove(oid: bigint): Promise<void>
  /** Makes durable all writes that were answered before. */
  flush(): Promise<void>
  /** Resolves when nobody else was the owner of the VDI at a moment after this was asked. */
  confirm(vid: number): Promise<void>
  /** The objects of a VDI that there are copies of, whoever names them: its inode, data and machine state. */
  objectsOf(vid: number): Promise<FoundObjects>
}

export interface FoundObjects {
  oids: readonly bigint[]
  /** Nodes that are away can have no others. */
  areAll: boolean
}

export interface WriteOptions {
  exists: boolean
  durable: boolean
  base?: bigint | null
}

/** Ranges do not overlap; what is in none of them is not spoken of. */
export interface BlockContents {
  blocks: readonly BlockRun[]
  zeros: readonly BlockRange[]
}

export interface ObjectContents extends BlockContents {
  /** Never written here: they are what the same blocks of `base` are. */
  inherited: readonly BlockRange[]
  base: bigint | null
}

export interface ObjectLayout {
  /** The blocks with bytes of their own. What is neither here nor inherited is zeros. */
  data: readonly BlockRange[]
  inherited: readonly BlockRange[]
  base: bigint | null
}
