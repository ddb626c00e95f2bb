import type { FileRange } from '../runtime/disk.ts'
import type { DiskArray } from './disks/disk-array.ts'
import type { ObjectCache } from './object-cache.ts'
import { BLOCK_BYTES, blockPosition, type Slot, slotOf } from './object-format.ts'
import type { BlockWrite, ObjectWrite } from './object-write.ts'
import { type StoredObject, slotBit } from './stored-object.ts'

/** Holes that are made in one go, with the rest of the last object's. */
const PUNCHES_PER_BATCH = 64

/**
 * Gives the slots back to the file system that hold nothing any more, now that a checkpoint is complete. Its segment is free
 * already, so nobody waits for this; it has to end before the next checkpoint, which writes to the same files. What a crash leaves
 * of it the scrub finds (stray-slots.ts). Of each object `keeps` is asked first whether what overwriting has freed stays (kept-slots.ts).
 *
 * A few objects at a time, because large writes to them go through the journal meanwhile: the slot that they would take might be one
 * of these, and the copying thread takes its time.
 */
export async function giveBack(
  writes: readonly ObjectWrite[],
  disk: DiskArray,
  cache: ObjectCache,
  keeps: (write: ObjectWrite) => boolean,
): Promise<void> {
  for (let next = 0; next < writes.length; ) {
    const ranges: FileRange[] = []
    const objects: StoredObject[] = []
    try {
      while (next < writes.length && ranges.length < PUNCHES_PER_BATCH) {
        const write = writes[next++]!
        const { object } = write
        const freed = keeps(write) ? write.blocks.filter(({ word1 }) => slotOf(word1) === null) : write.blocks
        if (!freed.some(({ freesOtherSlot }) => freesOtherSlot) || !(await isHeld(object, cache))) continue
        objects.push(object)
        object.givingBack++
        ranges.push(...freeRanges(object, freed))
      }
      await disk.punchMany(ranges)
    } finally {
      for (const object of objects) {
        object.givingBack--
        cache.release(object)
      }
    }
  }
}

/** Holds an object; false for one that is gone since, or cannot be read: whoever wants to read it is told why. */
async function isHeld(object: StoredObject, cache: ObjectCache): Promise<boolean> {
  if (object.removed || object.lost) return false
  try {
    await cache.holdObject(object)
    return true
  } catch {
    return false
  }
}

/** The slots that hold nothing any more, in runs. */
function* freeRanges(object: StoredObject, blocks: readonly BlockWrite[]): Iterable<FileRange> {
  const { file } = object
  if (!file) return // its disk has failed
  for (const slot of [0, 1] as const) {
    let first = -1
    let end = -1
    const run = () => ({ file, position: blockPosition(first, slot), length: (end - first) * BLOCK_BYTES })
    for (const { block, word1, freesOtherSlot } of blocks) {
      if (!freesOtherSlot || slotOf(word1) === slot || isReused(object, block, slot)) continue
      if (block !== end) {
        if (first >= 0) yield run()
        first = block
      }
      end = block + 1
    }
    if (first >= 0) yield run()
  }
}

/** Whether a newer write has been placed in a slot. */
function isReused(object: StoredObject, block: number, slot: Slot): boolean {
  for (let entry = object.overlay.get(block) ?? null; entry; entry = entry.previous) {
    if (entry.placedSlots & slotBit(slot)) return true
  }
  return false
}
