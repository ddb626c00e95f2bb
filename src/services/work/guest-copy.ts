import type { VolumeData } from '../../drivers/driver.ts'
import type { PlainVolume } from '../../luks/plain-data.ts'
import { nonZeroRuns } from '../../runtime/zeros.ts'

/**
 * Copies what a guest sees of a volume to one that is encrypted in another way, or not at all.
 *
 * 1. What reads as zeros goes on to: to a volume in the clear nothing is written for that, so its holes stay holes; to an encrypted one
 *    zeros are, since there a hole decrypts to noise.
 * 2. What nobody ever wrote of an encrypted volume reads as noise, which nobody relies on. It is left out, and reads as zeros, or as other noise.
 * 3. A copy that is larger than what there is to copy ends with zeros; one that is smaller takes a source that does.
 * 4. A repeat writes what is there already: nobody else writes to either.
 */

const GIB = 1024 ** 3
/** So much is encrypted at a time, while nothing else is done on this thread. */
const BUFFER_BYTES = 1024 ** 2
/** What one step writes at most, so that it ends well before an attempt has to, and a crash repeats little. */
const STEP_DATA_BYTES = 64 * 1024 ** 2
const STEP_RANGE_BYTES = 64 * GIB

/** In the clear, whichever way it lies. */
export type GuestData = VolumeData | PlainVolume

interface Part {
  lengthBytes: number
  holds: 'data' | 'zeros' | 'noise'
}

/** Copies on from `offset` and answers how far it came. What it copied is durable then. */
export async function copyGuestData(source: GuestData, copy: GuestData, offset: number): Promise<number> {
  const reached = await copySome(source, copy, offset)
  await copy.flush()
  return reached
}

/** Whether a copy of `lengthBytes` would leave nothing out. */
export async function fitsInto(source: GuestData, lengthBytes: number): Promise<boolean> {
  const rest = Buffer.alloc(BUFFER_BYTES)
  let offset = lengthBytes
  while (offset < source.sizeBytes) {
    for (const part of await partsOf(source, offset, Math.min(BUFFER_BYTES, source.sizeBytes - offset))) {
      const bytes = rest.subarray(0, part.lengthBytes)
      if (part.holds === 'data') {
        await source.read(offset, bytes)
        if (!nonZeroRuns(bytes).next().done) return false
      }
      offset += part.lengthBytes
    }
  }
  return true
}

async function copySome(source: GuestData, copy: GuestData, start: number): Promise<number> {
  const end = Math.min(copy.sizeBytes, start + STEP_RANGE_BYTES)
  const keepsHoles = copy.startsAsZeros !== false
  const buffer = Buffer.alloc(BUFFER_BYTES)
  let offset = start
  let leftBytes = STEP_DATA_BYTES
  while (offset < end) {
    for (const { lengthBytes, holds } of await partsOf(source, offset, Math.min(GIB, end - offset))) {
      const partEnd = offset + lengthBytes
      if (holds === 'noise' || (holds === 'zeros' && keepsHoles)) offset = partEnd
      while (offset < partEnd) {
        if (leftBytes <= 0) return offset
        const bytes = buffer.subarray(0, Math.min(BUFFER_BYTES, partEnd - offset))
        if (holds === 'data') await source.read(offset, bytes)
        else bytes.fill(0)
        const runs = keepsHoles ? nonZeroRuns(bytes) : [{ offset: 0, lengthBytes: bytes.length }]
        for (const run of runs) {
          await copy.write(offset + run.offset, bytes.subarray(run.offset, run.offset + run.lengthBytes))
        }
        offset += bytes.length
        leftBytes -= bytes.length
      }
    }
  }
  return offset
}

/** What a range holds, in order, without gaps; also beyond the end. */
async function partsOf(source: GuestData, offset: number, lengthBytes: number): Promise<Part[]> {
  const insideBytes = Math.max(0, Math.min(lengthBytes, source.sizeBytes - offset))
  const isEncrypted = 'written' in source
  const extents =
    insideBytes === 0 ? [] : await (isEncrypted ? source.written : source.extents).call(source, offset, insideBytes)
  const parts = extents.map(({ kind, lengthBytes }): Part => {
    return { lengthBytes, holds: kind === 'data' ? 'data' : isEncrypted ? 'noise' : 'zeros' }
  })
  const beyondBytes = lengthBytes - insideBytes
  return beyondBytes === 0 ? parts : [...parts, { lengthBytes: beyondBytes, holds: 'zeros' }]
}
