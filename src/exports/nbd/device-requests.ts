import { StoreError } from '../../errors.ts'
import type { Device, Done, WriteOptions } from '../../vdi/device.ts'
import type { InFlight } from './in-flight.ts'
import { CACHE_BYTES_MAX, CACHE_PIECE_BYTES } from './request-cost.ts'
import type { NbdRequest } from './request-reader.ts'

/** Commands that a device does not know as such. Each calls the record's `done` once. */

/** BLOCK_STATUS: puts the answer into the record. */
export function askExtents(device: Device, record: InFlight, extentsMax: number): void {
  device.extents(record.offset, record.lengthBytes, extentsMax).then(
    (extents) => {
      record.extents = extents
      record.done(null)
    },
    (error: unknown) => {
      if (!(error instanceof StoreError)) throw error
      record.done(error)
    },
  )
}

/** CACHE: reads and drops, piece by piece, for as long as somebody waits for the answer. */
export function readAhead(
  device: Device,
  { offset, lengthBytes, done }: InFlight,
  scratch: Buffer,
  isWanted: () => boolean,
): void {
  const end = offset + Math.min(lengthBytes, CACHE_BYTES_MAX)
  let at = offset
  const next: Done = (error) => {
    if (error !== null || at === end || !isWanted()) {
      done(error)
      return
    }
    const start = at
    at = Math.min(end, at + CACHE_PIECE_BYTES)
    device.read(start, scratch.subarray(0, at - start), next)
  }
  // The last byte first: only that shows whether the export reaches so far.
  device.read(offset + lengthBytes - 1, scratch.subarray(0, 1), next)
}

/** A discard knows no FUA; a flush covers it as well. */
export function flushBefore(device: Device, done: Done): Done {
  return (error) => {
    if (error === null) device.flush(done)
    else done(error)
  }
}

const FUA = { fua: true }
const NO_FUA = { fua: false }

/** Of a write; an object is made only for one that has checksums. */
export function writeOptions({ crcs }: NbdRequest, fua: boolean): WriteOptions {
  if (crcs !== undefined) return { fua, crcs }
  return fua ? FUA : NO_FUA
}
