import type { StoreError } from '../../errors.ts'
import type { BlockRange, BlockRun } from '../block-range.ts'
import type { Version } from './version.ts'

export type { BlockRange, BlockRun } from '../block-range.ts'

/**
 * What the copies of objects ask of the disks of one node.
 *
 * 1. Changes of one object are applied in the order of the calls. What `stateOf`, `tailOf`, `read` and the other questions say
 *    includes all that was accepted before, whether it is on the disk yet or not.
 * 2. A change is atomic: bytes, version, tail and mark, all or nothing.
 * 3. A loss of power keeps the changes of the node up to some point and nothing after it, and all that was durable. The end of
 *    the process alone loses nothing that was accepted.
 * 4. An error of `apply` other than NoSpace means that the disk failed: nothing that waits is done any more.
 */
export interface CopyStore {
  /**
   * The last epoch in which this node accepted a write that was not to be durable and that a loss of power may have taken; 0 when
   * there is none. So that a start can know it, the first such write of an epoch waits until that epoch is on the disk. Disks that are
   * new in an old node have lost everything through the view before.
   */
  readonly lostThroughEpoch: number
  stateOf(oid: bigint): CopyState | null
  /**
   * The version of a plain copy: one that is full, with all blocks valid, no tail, and nothing set aside for it. Null for any other, and when
   * there is none.
   */
  plainVersionOf(oid: bigint): Version | null
  /** Whether the copy is one that can be written to, and has this version, which may have been forgotten as clean since it got it. */
  isAt(oid: bigint, version: Version): boolean
  /** The blocks that have space on the disk: to write them again takes none. */
  allocatedOf(oid: bigint): readonly BlockRange[]
  /** The objects of a VDI that there are copies or tombstones of. */
  objectsOf(vid: number): readonly bigint[]
  /** Those of all VDIs, each as it is found; those that come meanwhile may be left out. */
  objects(): Iterable<bigint>
  /** Sets blocks, version and tail. The caller has compared `previous` with `stateOf`; the store asserts it. */
  apply(write: CopyWrite, durable: boolean, done: CopyDone): void
  /**
   * Gives a copy another version without a write, durably, as one of several that are made equal: `valid` is what it has of that
   * version, and it is no longer stale. Makes an empty copy when there is none, which never fails for want of space. The tail stays, and gets an entry without blocks:
   * until the copies are equal, what this one had before still counts.
   */
  adopt(adoption: Adoption, done: CopyDone): void
  /** Puts in blocks that are not valid, and makes them so; the version remains. Blocks that are valid are left alone. */
  fill(oid: bigint, contents: BlockContents, done: CopyDone): void
  /** What was written above the watermark, oldest first. */
  tailOf(oid: bigint): readonly TailEntry[]
  /**
   * All writes of this generation up to the version's sequence are on all copies: they leave the tails. Those of other generations
   * stay, since this one knows nothing of them. Need not be durable: a tail that is too long costs a few blocks.
   */
  setWatermark(vid: number, watermark: Version): void
  /** The copies of the object were found equal: it has no tail. Need not be durable. */
  settle(oid: bigint): void
  /** The objects written in `epoch` or later, with those epochs. */
  touchedSince(vid: number, epoch: number): readonly { oid: bigint; epochs: readonly number[] }[]
  /**
   * Blocks in which a copy may differ that has version `since` and nothing in its tail: those last written in its epoch or later, or
   * later only when this copy was at `since` when that epoch ended. Zeros have been written too.
   */
  blocksSince(oid: bigint, since: Version): readonly BlockRange[]
  /** Calls back when the mark is on the disk. A stale copy is good for nothing until it adopts a version. */
  markStale(oid: bigint, done: CopyDone): void
  /** These blocks cannot be read any more: they are not valid, and the copy is otherwise what it was. Calls back when that is on the disk. */
  markRotten(oid: bigint, blocks: readonly BlockRange[], done: CopyDone): void
  /** Sets space aside for blocks that have none; false, and nothing is, when there is not enough. Not durable. */
  reserve(oid: bigint, blocks: readonly BlockRange[]): boolean
  /** Gives back what was set aside and not used. */
  release(oid: bigint): void
  /** Valid blocks. CorruptBlock when one of them does not match its checksum, NoObject when they are not valid any more. */
  read(oid: bigint, range: BlockRange, done: (error: StoreError | null, contents: BlockContents) => void): void
  /**
   * As `read`, into `target`, of blocks that are all valid and have bytes of their own. False, and nothing is begun, when it is not so or
   * something has to be waited for first. `done(false)`: they could not be read. May be called before this returns.
   */
  readNow(oid: bigint, first: number, target: Buffer, done: (isRead: boolean) => void): boolean
  /** As `read`, of which blocks there are bytes, without the bytes. */
  layoutOf(oid: bigint, range: BlockRange, done: (error: StoreError | null, layout: CopyLayout) => void): void
  /** Of any blocks those that have bytes here which match their checksums, whether they are valid or not. */
  remainsOf(oid: bigint, range: BlockRange, done: (error: StoreError | null, contents: BlockContents) => void): void
  /**
   * Puts in blocks of a full copy that are not valid, which are rotten ones, durably: if all of them match the checksums that the copy has of
   * them. What it was sent otherwise changes nothing.
   */
  mend(oid: bigint, contents: BlockContents, done: (error: StoreError | null, hasMatched: boolean) => void): void
  /**
   * The object is gone as of this version; a tombstone says so until the epoch is clean. Need not be durable: no map names the object,
   * so what a loss of power brings back is found and removed again.
   */
  remove(oid: bigint, version: Version, done: CopyDone): void
  /** The copy does not belong here: all of it is forgotten, and that is durable. */
  drop(oid: bigint, done: CopyDone): void
  /** All that was written in epochs up to this one is on all copies, and the one in effect is a later one: tombstones go, and epochs. */
  clean(upToEpoch: number, done: CopyDone): void
  /** Calls back when all that was accepted before is on the disk. */
  sync(done: CopyDone): void
}

export type CopyDone = (error: StoreError | null) => void

/** What some blocks of an object are. Lists of ranges are in order, without overlaps. */
export interface BlockContents {
  blocks: readonly BlockRun[]
  zeros: readonly BlockRange[]
  /** Blocks that were never written in this object: what they are stands in another one, whose copies may be with other nodes. */
  inherited?: Inherited
}

/** What some blocks of an object are, without their bytes: what is neither here nor inherited is zeros. */
export interface CopyLayout {
  data: readonly BlockRange[]
  inherited?: Inherited
}

export interface Inherited {
  /** The object of the same index of another VDI. */
  base: bigint
  ranges: readonly BlockRange[]
}

export interface CopyState {
  version: Version
  kind: CopyKind
  /** The blocks that can be read: of a full copy all but rotten ones, none of one that is stale or removed. */
  valid: readonly BlockRange[]
}

/**
 * `full`: it has all that was written up to its version. `partial`: it lacks some of that, and knows which blocks it has.
 * `stale`: it lacks something, and does not know what. `removed`: there is no object as of its version.
 */
export type CopyKind = 'full' | 'partial' | 'stale' | 'removed'

export interface CopyWrite extends BlockContents {
  oid: bigint
  version: Version
  /** What the object must have; null makes it, of zeros and of what the write says is inherited, whatever there was before. */
  previous: Version | null
}

/** Of few shapes, as it is on the way of every write. */
export function copyWrite(
  { oid, version, previous }: Pick<CopyWrite, 'oid' | 'version' | 'previous'>,
  { blocks, zeros, inherited }: BlockContents,
): CopyWrite {
  if (inherited) return { oid, version, previous, blocks, zeros, inherited }
  return { oid, version, previous, blocks, zeros }
}

export interface Adoption {
  oid: bigint
  version: Version
  kind: 'full' | 'partial'
  valid: readonly BlockRange[]
}

export interface TailEntry extends BlockRange {
  version: Version
  /** The version before it. */
  previous: Version | null
}
