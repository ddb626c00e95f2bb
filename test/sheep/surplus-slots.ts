import { BLOCK_BYTES, BLOCKS_PER_OBJECT, blockPosition, slotOf, TABLE_OFFSET } from '../../src/sheep/object-format.ts'
import type { SimDisk } from '../sim/disk.ts'

/** The slots of object files that take room though no table names them, on the disk of a store that was closed: `path block/slot`. */
export function surplusSlots(disk: SimDisk): string[] {
  const surplus: string[] = []
  for (const path of disk.paths().filter((name) => name.startsWith('obj/'))) {
    const pages = disk.pagesOf(path)
    for (const page of pages.keys()) {
      for (const slot of [0, 1] as const) {
        const block = page - blockPosition(0, slot) / BLOCK_BYTES
        if (block < 0 || block >= BLOCKS_PER_OBJECT) continue
        const at = TABLE_OFFSET + block * 8 + 4
        const word1 = pages.get(Math.floor(at / BLOCK_BYTES))!.readUInt32LE(at % BLOCK_BYTES)
        if (slotOf(word1) !== slot) surplus.push(`${path} ${block}/${slot}`)
      }
    }
  }
  return surplus
}
