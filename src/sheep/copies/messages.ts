import type { Adoption, BlockContents, BlockRange, CopyLayout, CopyState, CopyWrite, TailEntry } from './copy-store.ts'
import type { Generation, Version } from './version.ts'
import type { VersionArray } from './version-array.ts'

/**
 * What the owner of a VDI asks of the nodes that have copies. Every request bears the owner's generation. Requests of one generation
 * to one holder arrive in the order in which they were sent; when one is lost, all that were sent after it are. So a connection that
 * breaks is the end of it: what is sent over another one needs another view.
 */
export type CopyRequest = { vid: number; generation: Generation } & (
  | { type: 'open'; oids: readonly bigint[] }
  /** As `open`, of many objects: which of them are plain, and at which version. What is set aside for them stays. */
  | { type: 'look'; oids: readonly bigint[] }
  | { type: 'blocks-since'; oid: bigint; since: Version }
  | { type: 'adopt'; adoption: Adoption }
  | { type: 'fill'; oid: bigint; contents: BlockContents }
  /** All holders have what was open before this. */
  | { type: 'settle'; oid: bigint }
  | { type: 'reserve'; oid: bigint; blocks: readonly BlockRange[] }
  | { type: 'write'; write: CopyWrite; durable: boolean; watermark: Version | null }
  | { type: 'read'; oid: bigint; range: BlockRange }
  | { type: 'sync' }
  | { type: 'watermark'; watermark: Version }
  | { type: 'remove'; oid: bigint; version: Version }
  /** Of which objects of the VDI there are copies. */
  | { type: 'list' }
  /** As `read`, without the bytes. */
  | { type: 'layout'; oid: bigint; range: BlockRange }
  /** As `read`, of blocks that are not valid: what has bytes that match their checksum here. */
  | { type: 'remains'; oid: bigint; range: BlockRange }
  /** Puts in what a whole copy cannot read any more, durably, if it matches the checksum that the copy has of it. */
  | { type: 'mend'; oid: bigint; contents: BlockContents }
)

export type RequestType = CopyRequest['type']
export type RequestOf<T extends RequestType> = Extract<CopyRequest, { type: T }>

export interface OpenedCopy {
  oid: bigint
  /** Null when there is none. */
  state: CopyState | null
  /** The blocks that have space on the holder's disk. */
  allocated: readonly BlockRange[]
  tail: readonly TailEntry[]
}

/** Why a holder did not do what it was asked. */
export type Refusal =
  /** A newer view or owner is known here. Nothing was done, and nothing will be for this generation. */
  | 'old generation'
  /** The copy is stale, by this request or before, and this is on the disk; or there is no copy. */
  | 'stale'
  /** Nothing was done. */
  | 'no space'
  /** Blocks do not match their checksums. They are not valid any more, by this request, and this is on the disk. */
  | 'rotten'

export interface CopyResults {
  open: { copies: readonly OpenedCopy[]; lostThroughEpoch: number }
  /** In the order of the objects; none of what is not plain. */
  look: VersionArray
  'blocks-since': readonly BlockRange[]
  adopt: null
  fill: null
  settle: null
  reserve: null
  write: null
  read: BlockContents
  sync: null
  watermark: null
  remove: null
  list: readonly bigint[]
  layout: CopyLayout
  remains: BlockContents
  /** Whether it matched. */
  mend: boolean
}

export type CopyAnswer<T extends RequestType = RequestType> =
  | { refused: Refusal }
  | { refused: null; result: CopyResults[T] }
