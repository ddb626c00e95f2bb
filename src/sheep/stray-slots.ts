import type { FileRange } from '../runtime/disk.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, blockPosition, type Slot } from './object-format.ts'
import type { SlotPunches } from './slot-punches.ts'
import type { StoredObject } from './stored-object.ts'

/**
 * Gives back the slots of an object that hold nothing: those of large writes whose frame a crash has cut off, or that no frame was
 * written for. Returns how many blocks that were. The caller holds the object.
 *
 * A slot is wanted if the table names it, or if the block has changed since the last checkpoint: then the overlay has the block,
 * from the turn on in which it was written. What has left the overlay is in the file's table durably. So one look at both is enough, and
 * what changes after it waits (slot-punches.ts). A file that is made only now has a table in memory alone, and is left to its checkpoint.
 */
export async function punchStraySlots(object: StoredObject, punches: SlotPunches): Promise<number> {
  const { file } = object
  if (!file || object.fresh) return 0
  const ranges = await file.dataRanges()
  if (object.file !== file || object.fresh || object.lost || object.removed) return 0
  const stray: FileRange[] = []
  for (const slot of [0, 1] as const) {
    for (const { position, length } of ranges) {
      const start = Math.floor((position - blockPosition(0, slot)) / BLOCK_BYTES)
      const end = Math.ceil((position + length - blockPosition(0, slot)) / BLOCK_BYTES)
      for (let block = Math.max(0, start); block < Math.min(end, BLOCKS_PER_OBJECT); block++) {
        const first = block
        while (block < Math.min(end, BLOCKS_PER_OBJECT) && isStray(object, block, slot)) block++
        if (block === first) continue
        stray.push({ file, position: blockPosition(first, slot), length: (block - first) * BLOCK_BYTES })
      }
    }
  }
  if (stray.length > 0) await punches.give(object, stray)
  return stray.reduce((sum, { length }) => sum + length / BLOCK_BYTES, 0)
}

function isStray(object: StoredObject, block: number, slot: Slot): boolean {
  return !object.overlay.has(block) && object.tableSlot(block) !== slot
}
