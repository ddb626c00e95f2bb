import type { StoreError } from '../errors.ts'

/** Told exactly once, with null on success; may be called before the method that takes it returns. */
export type Done = (error: StoreError | null) => void

export interface Extent {
  lengthBytes: number
  /** `data` may hold anything, `zero` reads as zeros but is allocated, `hole` reads as zeros and uses no space. */
  kind: 'data' | 'zero' | 'hole'
}

export interface Mark {
  lengthBytes: number
  mark: string | null
}

/** A device keeps its bytes in blocks of this size: zeroing or discarding whole ones touches no bytes. */
export const DEVICE_BLOCK_BYTES = 4096

export interface WriteOptions {
  fua: boolean
  /**
   * CRC-32 of each block of the source, from 0, by somebody who had the bytes at hand. Only for whole blocks at a multiple of
   * DEVICE_BLOCK_BYTES. The device believes it: what does not match is damaged when it is read.
   */
  crcs?: Uint32Array | undefined
}

/**
 * A block device that a session has opened, as exports and drivers use it.
 *
 * 1. Offsets and lengths are bytes of any alignment. A range beyond the end of the VDI, as long as it is now, is
 *    InvalidParameters, never a short count, and changes nothing.
 * 2. A read that was submitted after a write was done returns that write. Requests in flight together are not ordered.
 * 3. A write that is done survives the end of every process. After `flush` is done, or when `fua` was set, it also
 *    survives loss of power. With the setting `durability: write` each write is as if `fua` were set.
 * 4. Buffers belong to the device from the call until `done`: it neither copies nor changes a source.
 * 5. A request that fails may have been done, or some of it: NoSpace too, because a long one goes in parts, and one that a change of
 *    the owner has interrupted is made again. Nothing of it is done after `done`.
 * 6. After `close`, or once the right it was opened under is revoked, every request is answered with Fenced.
 *
 * Methods take callbacks instead of returning promises because a promise for each 4 KiB costs as much as the I/O itself.
 */
export interface Device {
  /** As last heard. A VDI grows while it is open: a request beyond this asks anew. */
  readonly sizeBytes: number
  readonly readOnly: boolean
  read(offset: number, target: Buffer, done: Done): void
  write(offset: number, source: Buffer, options: WriteOptions, done: Done): void
  /** Gives the space of a range back as far as it can; the range reads as zeros. */
  discard(offset: number, lengthBytes: number, done: Done): void
  /** Makes a range read as zeros. With `mayDiscard: false` its space stays charged to the volume. */
  zero(offset: number, lengthBytes: number, options: { fua: boolean; mayDiscard: boolean }, done: Done): void
  flush(done: Done): void
  /**
   * What a range holds, in order, without gaps, adjacent kinds merged. Once there are `extentsMax` of them it may stop
   * short of the end of the range.
   */
  extents(offset: number, lengthBytes: number, extentsMax?: number): Promise<Extent[]>
  /**
   * Names for what a range of whole objects of a snapshot holds, in order, without gaps: what has the same mark at the same offset, of this
   * or any VDI, now or years later, holds the same bytes. Null where there is no telling, as of a VDI that is no snapshot.
   */
  marks(offset: number, lengthBytes: number): Promise<Mark[]>
  /** Waits for what is in flight, then ends the session. */
  close(): Promise<void>
}
