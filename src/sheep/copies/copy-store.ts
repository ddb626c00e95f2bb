import type { StoreError } from '../../errors.ts'
import type { Generation, Version } from './version.ts'

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
   * The last epoch in which this node may have accepted something that a loss of power took: 0 when there has been none. Durable
   * until a clean epoch passes it.
   */
  readonly lostThroughEpoch: number
  stateOf(oid: bigint): CopyState | null
  /** The objects of a VDI that there are copies of, whatever their state. */
  objectsOf(vid: number): readonly bigint[]
  /** Sets blocks, version and tail. The caller has compared `previous` with `stateOf`; the store asserts it. */
  apply(write: CopyWrite, durable: boolean, done: CopyDone): void
  /**
   * Gives a copy another version without a write, as one of several that were made equal: `valid` is what it has of that version.
   * It has no tail then; nothing is left of the object's old one. Makes an object of zeros, of which nothing is valid, when there is none.
   */
  adopt(adoption: Adoption, durable: boolean, done: CopyDone): void
  /** Puts blocks into a copy that were not valid, and makes them so; the version remains. Others are left alone. */
  fill(oid: bigint, version: Version, blocks: readonly BlockRun[], done: CopyDone): void
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
  /** The blocks last written in `epoch` or later. Zeros have been written too. */
  blocksSince(oid: bigint, epoch: number): readonly BlockRange[]
  /** Calls back when the mark is on the disk. A stale copy is good for nothing until it is adopted. */
  markStale(oid: bigint, done: CopyDone): void
  /** Sets space aside for writing these blocks; false when there is not enough. What is not used is given back by `release`. */
  reserve(oid: bigint, blocks: readonly BlockRange[]): boolean
  release(oid: bigint): void
  read(oid: bigint, range: BlockRange, done: (error: StoreError | null, bytes: Buffer) => void): void
  remove(oid: bigint, durable: boolean, done: CopyDone): void
  /** Calls back when all that was accepted before is on the disk. */
  sync(done: CopyDone): void
}

export type CopyDone = (error: StoreError | null) => void

/** Blocks of 4 KiB within an object. Lists of ranges are in order, without overlaps. */
export interface BlockRange {
  first: number
  count: number
}

export interface BlockRun {
  first: number
  /** Whole blocks. */
  bytes: Buffer
}

export interface CopyState {
  version: Version
  /** `partial`: only some blocks are what they are in this version. */
  kind: 'full' | 'partial' | 'stale'
  /** All blocks of a full copy, none of a stale one. */
  valid: readonly BlockRange[]
}

export interface CopyWrite {
  oid: bigint
  version: Version
  /** What the object must have; null makes it, of zeros, whatever there was before. */
  previous: Version | null
  blocks: readonly BlockRun[]
  zeros: readonly BlockRange[]
}

export interface Adoption {
  oid: bigint
  version: Version
  /** All blocks make it a full copy. */
  valid: readonly BlockRange[]
}

export interface TailEntry extends BlockRange {
  version: Version
  /** The version before it. */
  previous: Version | null
}

/** What a watermark speaks of. */
export function isOfGeneration({ generation }: Version, { epoch, index }: Generation): boolean {
  return generation.epoch === epoch && generation.index === index
}
