import { BLOCK_BYTES, BLOCKS_PER_OBJECT, blockPosition, type Slot } from './object-format.ts'
import type { StoredObject } from './stored-object.ts'

/**
 * Gives back the slots of an object that hold nothing: those of large writes whose frame a crash has cut off, or that no frame was
 * written for. Returns how many blocks that were. The caller holds the object.
 *
 * A slot is wanted if the table names it, or if the block has changed since the last checkpoint: then the overlay has the block,
 * from the turn on in which it was written. What has left the overlay is in the file's table durably. So one look at both, in the turn
 * of the punch, is enough; the copying thread would come too late, when a checkpoint may write the block there. A file that is made only now has a table in memory alone, and is left to its checkpoint.
 */
export async function punchStraySlots(object: StoredObject): Promise<number> {
  const { file } = object
  if (!file || object.fresh) return 0
  const ranges = await file.dataRanges()
  if (object.file !== file || object.fresh || object.lost || object.removed) return 0
  let punched = 0
  for (const slot of [0, 1] as const) {
    for (const { position, length } of ranges) {
      const start = Math.floor((position - blockPosition(0, slot)) / BLOCK_BYTES)
      const end = Math.ceil((position + length - blockPosition(0, slot)) / BLOCK_BYTES)
      for (let block = Math.max(0, start); block < Math.min(end, BLOCKS_PER_OBJECT); block++) {
        const first = block
        while (block < Math.min(end, BLOCKS_PER_OBJECT) && isStray(object, block, slot)) block++
        if (block === first) continue
        file.punch(blockPosition(first, slot), (block - first) * BLOCK_BYTES)
        punched += block - first
      }
    }
  }
  return punched
}

function isStray(object: StoredObject, block: number, slot: Slot): boolean {
  return !object.overlay.has(block) && object.tableSlot(block) !== slot
}
