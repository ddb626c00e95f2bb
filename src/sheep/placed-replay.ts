import { StoreError } from '../errors.ts'
import type { Disk, DiskFile } from '../runtime/disk.ts'
import type { JournalRecord } from './journal-format.ts'
import type { ScannedFrame } from './journal-scan.ts'
import { BLOCK_BYTES, blockCrc, blockPosition, objectDirectory, objectPath, oidWords, slotOf } from './object-format.ts'
import { PLACED, type StoredObject } from './stored-object.ts'

/**
 * The frames that may be replayed: all up to the first one whose placed blocks are not what the frame says. Such a frame was
 * in the page cache when the power went, and reached the disk before the object file did; it was acknowledged to nobody
 * as durable, and neither was what follows it. Frames below `provenSynced` are not looked at: their blocks were durable, and
 * may have been replaced in the meantime by the checkpoint that the crash interrupted.
 */
export async function cutUnprovenFrames(
  disk: Disk,
  frames: readonly ScannedFrame[],
  provenSynced: number,
): Promise<readonly ScannedFrame[]> {
  const tags = new Map<bigint, number>()
  for (const [index, { header, records }] of frames.entries()) {
    for (const record of records) {
      if (record.kind === 'create') tags.set(record.oid, record.tag)
      const isProven = header.sequence < provenSynced || record.kind !== 'placed'
      if (!isProven && !(await holds(disk, record, tags.get(record.oid) ?? 0))) return frames.slice(0, index)
    }
  }
  return frames
}

async function holds(disk: Disk, record: JournalRecord & { kind: 'placed' | 'blocks' }, tag: number): Promise<boolean> {
  const file = await openPlaced(disk, record.oid, tag)
  if (!file) return false
  try {
    const object = oidWords(record.oid)
    const bytes = Buffer.alloc(BLOCK_BYTES)
    for (let i = 0; i < record.count; i++) {
      const word1 = record.words[i * 2 + 1]!
      const length = await file.read(bytes, blockPosition(record.first + i, slotOf(word1)!))
      if (length !== BLOCK_BYTES) return false
      if (blockCrc(object, record.first + i, word1, bytes) !== record.words[i * 2]) return false
    }
    return true
  } finally {
    await file.close()
  }
}

/**
 * Writes what the replayed frames have placed once more, and syncs it and the names of new files: the process before may have left it in the page cache
 * only, where a failed sync could even have marked it clean.
 */
export async function rewritePlaced(disk: Disk, objects: Iterable<StoredObject>): Promise<void> {
  for (const object of objects) {
    const placed = [...object.overlay].filter(([, entry]) => entry.location === PLACED)
    if (object.removed || (placed.length === 0 && object.tag === 0)) continue
    const file = await openPlaced(disk, object.oid, object.tag)
    if (!file) throw new StoreError('CorruptBlock', `${objectPath(object.oid)} is missing`)
    try {
      const bytes = Buffer.alloc(BLOCK_BYTES)
      for (const [block, { word1 }] of placed) {
        const position = blockPosition(block, slotOf(word1)!)
        await file.read(bytes, position)
        await file.write(bytes, position)
      }
      await disk.syncMany([file], [objectDirectory(object.oid)])
    } finally {
      await file.close()
    }
  }
}

/** The file under its name with the tag, or under its own, which an interrupted checkpoint may have given it already. */
async function openPlaced(disk: Disk, oid: bigint, tag: number): Promise<DiskFile | null> {
  const tagged = tag === 0 ? null : await openIfThere(disk, objectPath(oid, tag))
  return tagged ?? openIfThere(disk, objectPath(oid))
}

async function openIfThere(disk: Disk, path: string): Promise<DiskFile | null> {
  try {
    return await disk.open(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}
