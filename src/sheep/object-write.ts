import type { Copy, DiskFile } from '../runtime/disk.ts'
import { Journal } from './journal.ts'
import {
  BLOCK_BYTES,
  BLOCKS_PER_OBJECT,
  blockPosition,
  encodeHeader,
  HEADER_OFFSET,
  OBJECT_TAIL_BYTES,
  slotOf,
  TABLE_OFFSET,
} from './object-format.ts'
import { NO_PAYLOAD, type OverlayEntry, PLACED, type StoredObject, slotBit } from './stored-object.ts'
import { writeWords } from './words.ts'

/** What the checkpoint of a generation writes to the file of one object. */
export interface ObjectWrite {
  object: StoredObject
  /** The object's after its last change of the generation. */
  version: number
  /** In the order of the blocks. */
  blocks: BlockWrite[]
}

export interface BlockWrite {
  block: number
  location: number
  word0: number
  word1: number
  freesOtherSlot: boolean
  /** That slot has bytes, by the table as it was or by a large write of this generation: it is not a hole. */
  fillsOtherSlot: boolean
}

/** The blocks of an object that a generation changed, in order, as it left them. The object has to be loaded. */
export function blocksOf(object: StoredObject, generation: number): BlockWrite[] {
  const blocks: BlockWrite[] = []
  object.overlay.forEach((block, newest) => {
    let entry: OverlayEntry | null = newest
    while (entry && entry.generation !== generation) entry = entry.previous
    if (!entry) return
    const { location, word0, word1, freesOtherSlot } = entry
    blocks.push({ block, location, word0, word1, freesOtherSlot, fillsOtherSlot: fillsOtherSlot(object, block, entry) })
  })
  return blocks
}

function fillsOtherSlot(object: StoredObject, block: number, newest: OverlayEntry): boolean {
  const slot = slotOf(newest.word1)
  if (slot === null) return false
  const other = slot === 0 ? 1 : 0
  if (object.tableSlot(block) === other) return true
  // Of entries that one transaction has made of a block the earlier may still be there.
  for (let entry: OverlayEntry | null = newest; entry; entry = entry.previous) {
    if (entry.placedSlots & slotBit(other)) return true
  }
  return false
}

/** What the journal has of it, and where that goes: neighbours in one go. */
export function* copiesOf(write: ObjectWrite, file: DiskFile, journal: Journal): Iterable<Copy> {
  let open: Copy | null = null
  for (const { block, location, word1 } of write.blocks) {
    if (location === NO_PAYLOAD || location === PLACED) continue
    const from = journal.fileOf(location)
    const fromPosition = Journal.positionOf(location)
    const toPosition = blockPosition(block, slotOf(word1)!)
    if (
      open &&
      open.from === from &&
      open.fromPosition + open.length === fromPosition &&
      open.toPosition + open.length === toPosition
    ) {
      open.length += BLOCK_BYTES
      continue
    }
    if (open) yield open
    open = { from, fromPosition, to: file, toPosition, length: BLOCK_BYTES }
  }
  if (open) yield open
}

/** What was placed had been written before. */
export function writtenBytes({ blocks }: ObjectWrite): number {
  return blocks.filter(({ location }) => location >= 0).length * BLOCK_BYTES + OBJECT_TAIL_BYTES
}

/** A table that is being encoded. */
const tableToCome = new Uint32Array(BLOCKS_PER_OBJECT * 2)

/** Table and header as they are after the generation. */
export function encodeTail(tail: Buffer, write: ObjectWrite, table: Uint32Array, storeId: Buffer): void {
  tableToCome.set(table)
  for (const { block, word0, word1 } of write.blocks) {
    tableToCome[block * 2] = word0
    tableToCome[block * 2 + 1] = word1
  }
  writeWords(tail, tableToCome)
  encodeHeader({ storeId, oid: write.object.oid, version: write.version }, tail.subarray(HEADER_OFFSET - TABLE_OFFSET))
}

/** The file holds the generation now: the table says so, if it is in memory, and the overlay keeps only what is newer. */
export function settle({ object, blocks }: ObjectWrite, generation: number): void {
  const { overlay, table } = object
  for (const { block, word0, word1 } of blocks) {
    if (table) {
      table[block * 2] = word0
      table[block * 2 + 1] = word1
    }
    let entry = overlay.get(block)
    if (entry?.generation === generation) overlay.delete(block)
    while (entry) {
      if (entry.previous?.generation === generation) entry.previous = null
      entry = entry.previous ?? undefined
    }
  }
  object.fresh = false
  object.tag = 0
}
