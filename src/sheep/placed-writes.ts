import type { DiskFile, FileRange } from '../runtime/disk.ts'
import type { DiskArray } from './disks/disk-array.ts'
import type { Journal } from './journal.ts'
import type { ObjectCache } from './object-cache.ts'
import {
  BLOCK_BYTES,
  blockPosition,
  dataWord1,
  type OidWords,
  objectDirectory,
  objectPath,
  oidWords,
  type Slot,
  slotOf,
} from './object-format.ts'
import { type WrittenBlocks, writtenCrc } from './run-crc.ts'
import type { SlotPunches } from './slot-punches.ts'
import { NOT_WRITTEN, type OverlayEntry, PLACED, type StoredObject } from './stored-object.ts'

/** Where the bytes of a large write were put. */
export interface Placement {
  oid: bigint
  /** The write's. */
  bytes: Buffer
  /** The file of a new object, and the tag that its name bears; null and 0 for an object that has its file. */
  file: DiskFile | null
  tag: number
  /** Two words for each block: its entry. */
  words: Uint32Array
  /** Blocks that take room. */
  newBlocks: number
  /** Writes what may be written only after the journal says so; null when there is nothing of the kind. */
  finish: (() => void) | null
}

/**
 * What a block's new bytes may be written over: a slot, and whether it holds what it held before, not yet synced, so that the journal
 * has to say first what it will hold. Numbers, since there is one for each block.
 */
const FREE_SLOT = [0, 1] as const
const REWRITTEN_SLOT = [2, 3] as const
const NO_SLOT = 4

const slotOfChoice = (choice: number) => (choice & 1) as Slot
const isRewrite = (choice: number) => choice >= REWRITTEN_SLOT[0]

/** 16 MiB: enough for the device to write in long runs. */
const WRITEBACK_BLOCKS = 4096
const TAG_COUNT = 0xffff

/**
 * Large writes: the bytes go into the object's file at once, and the journal gets only their checksums. So they are written
 * once and not twice. What makes that safe:
 *
 * 1. Of the two slots of a block, one holds what must survive loss of power: what the table names, or what was placed and
 *    synced after it. It is never touched; the bytes go to the other. Where that is not clear, or a checkpoint or a sync is at
 *    work on the slot, the block is not placed (`chooseSlot`).
 * 2. If the other slot holds a write that nobody has synced, it is written over in place (a rewrite). The journal says so
 *    first, and a process that ends between the two leaves either write or a mix of them, as on any disk; a replay in the same
 *    page cache takes it as it is. After loss of power neither was durable, and the replay ends before them.
 * 3. The file, and the name of a new one, are synced before the journal is (`sync`), so a frame that is known to be durable
 *    has its bytes. Of other frames a replay proves it (placed-replay.ts).
 * 4. The file of a new object gets its own name from the checkpoint; until then it bears a tag, because a removed object of
 *    that name may still be wanted by a replay. The record of the object says which disk it is on.
 * 5. A disk other than the first that fails takes with it what was placed there: the journal has no bytes to give to another one.
 *    The list of disks says that it has failed before a frame that names such bytes is known to be durable (`sync`): so no start
 *    takes what is left on it for good, and a replay does not ask for what is not there. Its objects are lost as a whole.
 * 6. Nothing is placed in the file of an object that is being moved to another disk: both its files stay the same. Nor while
 *    slots of it are given back, which takes another thread its time: one of them might be the one.
 */
export class PlacedWrites {
  readonly #disks: DiskArray
  readonly #cache: ObjectCache
  readonly #punches: SlotPunches
  #lastTag = 0
  bytesWritten = 0
  /** Written since the last sync; held, so that their files stay open. */
  #unsynced = new Set<StoredObject>()
  /** Written since the kernel was last told to begin with it. */
  readonly #recent = new Set<StoredObject>()
  #recentBlocks = 0
  /** Of the unsynced ones, those whose names are new as well. */
  #newNames = new Set<StoredObject>()
  #discarding: Promise<unknown> = Promise.resolve()

  constructor(options: { disks: DiskArray; cache: ObjectCache; punches: SlotPunches }) {
    this.#disks = options.disks
    this.#cache = options.cache
    this.#punches = options.punches
  }

  /**
   * Puts whole blocks into the file of an object, or of one that is about to be created; null when they have to go through
   * the journal. The transaction has to be appended at once, and flushed when there is something to finish. Throws what
   * writing throws; then nothing has changed.
   */
  place(object: StoredObject | bigint, blocks: WrittenBlocks, epoch: number, journal: Journal): Placement | null {
    if (typeof object === 'bigint') return this.#placeNew(object, blocks, epoch)
    const { file } = object
    const { first, bytes } = blocks
    // A replay would make the file of an untagged new object anew.
    if (!file || object.givingBack > 0 || (object.fresh && object.tag === 0)) return null
    const count = bytes.length / BLOCK_BYTES
    if (object.overlay.size > 0) journal.flush()
    const choices = choose(object, first, count, journal)
    if (!choices) return null
    let rewrites = 0
    for (const choice of choices) if (isRewrite(choice)) rewrites++
    if (rewrites > 0 && !journal.canWriteNow(choices.length * ENTRY_BYTES + OTHER_RECORDS_BYTES)) return null
    const words = entriesOf(object.words, blocks, epoch, choices)
    const isFree = (i: number) => !isRewrite(choices[i]!)
    try {
      writeRuns(file, first, words, bytes, isFree)
    } catch (error) {
      // What a full disk has taken of it is wanted by nobody; the journal will have the bytes.
      if (object.loaded) this.#giveBack(object, file, first, words, isFree)
      throw error
    }
    const finish = rewrites > 0 ? () => writeRuns(file, first, words, bytes, (i) => isRewrite(choices[i]!)) : null
    this.bytesWritten += bytes.length
    return { oid: object.oid, bytes, file: null, tag: 0, words, newBlocks: count - rewrites, finish }
  }

  #giveBack(
    object: StoredObject,
    file: DiskFile,
    first: number,
    words: Uint32Array,
    wanted: (i: number) => boolean,
  ): void {
    const ranges: FileRange[] = []
    forRuns(first, words, wanted, (start, end, position) => {
      ranges.push({ file, position, length: (end - start) * BLOCK_BYTES })
    })
    this.#punches.give(object, ranges).catch(() => {}) // the next checkpoint is told
  }

  #placeNew(oid: bigint, blocks: WrittenBlocks, epoch: number): Placement | null {
    const { first, bytes } = blocks
    const tag = (this.#lastTag % TAG_COUNT) + 1
    const path = objectPath(oid, tag)
    const file = this.#createNow(path)
    if (!file) return null
    this.#lastTag = tag
    const words = entriesOf(oidWords(oid), blocks, epoch, null)
    try {
      writeRuns(file, first, words, bytes, () => true)
    } catch (error) {
      this.#discard(path, file)
      throw error
    }
    this.bytesWritten += bytes.length
    return { oid, bytes, file, tag, words, newBlocks: words.length / 2, finish: null }
  }

  /** Files that were there before, and stay open until the next sync. */
  get heldFiles(): number {
    return this.#unsynced.size - this.#newNames.size
  }

  /** The file of an object that is not going to be: its room is wanted now. If it stays, the next start removes it. */
  #discard(path: string, file: DiskFile): void {
    const discarding = file.close().then(() => this.#disks.unlink(path))
    // Without what it came to: that would be kept, with what the one before came to, and so on.
    this.#discarding = Promise.allSettled([this.#discarding, discarding]).then(() => {})
  }

  /** Resolves when nothing is at work on the files any more. */
  async close(): Promise<void> {
    await this.#discarding
  }

  #createNow(path: string): DiskFile | null {
    try {
      return this.#disks.createNow(path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null // the checkpoint will make the directory
      throw error
    }
  }

  /** The object has placed blocks in a transaction that is being appended to the journal. */
  note(object: StoredObject, isNew: boolean, blocks: number): void {
    if (isNew) this.#newNames.add(object)
    if (!this.#unsynced.has(object)) {
      this.#unsynced.add(object)
      this.#cache.holdLoaded(object)
    }
    this.#recent.add(object)
    this.#recentBlocks += blocks
    if (this.#recentBlocks >= WRITEBACK_BLOCKS) this.#startWriteback()
  }

  /** A sync, and with it the next checkpoint, must not find all of it unwritten. */
  #startWriteback(): void {
    this.#disks.startWriteback([...this.#recent].map((object) => object.file).filter((file) => file !== null))
    this.#recent.clear()
    this.#recentBlocks = 0
  }

  get hasUnsynced(): boolean {
    return this.#unsynced.size > 0
  }

  /** Makes all blocks placed so far durable, but for those on disks that are known to have failed by then. */
  async sync(): Promise<void> {
    if (this.#unsynced.size === 0) return
    this.#recent.clear()
    this.#recentBlocks = 0
    const objects = [...this.#unsynced]
    const isNewName = this.#newNames
    this.#unsynced = new Set()
    this.#newNames = new Set()
    try {
      await this.#disks.syncPlaced(
        objects.flatMap((object) => {
          const directory = isNewName.has(object) ? objectDirectory(object.oid) : null
          return object.file ? [{ file: object.file, directory }] : []
        }),
      )
    } finally {
      for (const object of objects) this.#cache.release(object)
    }
  }
}

/** More than the records take that come with a large write: an object, a page of the map, the words of what is placed. */
const OTHER_RECORDS_BYTES = 4096
const ENTRY_BYTES = 8

/** Where each block may go; null when one of them has to go through the journal. */
function choose(object: StoredObject, first: number, count: number, journal: Journal): Uint8Array | null {
  const choices = new Uint8Array(count)
  for (let i = 0; i < count; i++) {
    const choice = chooseSlot(object, first + i, journal)
    if (choice === NO_SLOT) return null
    choices[i] = choice
  }
  return choices
}

/**
 * Where a block may go, by what the newest of its entries leaves free:
 *
 * - no entry: the slot that the table does not name;
 * - a durable one: all that was before is superseded, and the slot that it does not have, or will not get, is free;
 * - one in the journal, not durable: the same slot, if nothing but the journal has changed the block since the table;
 * - one in its slot, not durable, of this generation: over it, unless a sync is at work on it.
 *
 * The checkpoint of an older generation copies what the journal had of it; a slot that is about to get such a copy is not free.
 */
function chooseSlot(object: StoredObject, block: number, journal: Journal): number {
  const entry = object.overlay.get(block)
  if (!entry) return FREE_SLOT[object.tableSlot(block) === 0 ? 1 : 0]
  const isPlaced = entry.location === PLACED
  if (entry.sequence === NOT_WRITTEN || !(isPlaced || entry.location >= 0)) return NO_SLOT
  const itsSlot = slotOf(entry.word1)!
  const otherSlot = itsSlot === 0 ? 1 : 0
  if (entry.sequence < journal.syncedSequence || (!isPlaced && !entry.freesOtherSlot)) {
    return willBeCopied(entry.previous, otherSlot) ? NO_SLOT : FREE_SLOT[otherSlot]
  }
  if (!isPlaced || entry.generation !== journal.generation || entry.sequence < journal.coveredSequence) return NO_SLOT
  return REWRITTEN_SLOT[itsSlot]
}

/** Whether one of these entries is in the journal and its checkpoint will write it to `slot`. */
function willBeCopied(newest: OverlayEntry | null, slot: Slot): boolean {
  for (let entry = newest; entry; entry = entry.previous) {
    if (entry.location >= 0 && slotOf(entry.word1) === slot) return true
  }
  return false
}

/** The entries of blocks that go where `choices` says, or all to the first slot. */
function entriesOf(object: OidWords, blocks: WrittenBlocks, epoch: number, choices: Uint8Array | null): Uint32Array {
  const count = blocks.bytes.length / BLOCK_BYTES
  const words = new Uint32Array(count * 2)
  for (let i = 0; i < count; i++) {
    const word1 = dataWord1(epoch, choices === null ? 0 : slotOfChoice(choices[i]!))
    words[i * 2] = writtenCrc(object, blocks, i, word1)
    words[i * 2 + 1] = word1
  }
  return words
}

/** Writes the blocks that are `wanted` to their slots, neighbours in one go. */
function writeRuns(
  file: DiskFile,
  first: number,
  words: Uint32Array,
  bytes: Buffer,
  wanted: (i: number) => boolean,
): void {
  forRuns(first, words, wanted, (start, end, position) => {
    file.writeNow([bytes.subarray(start * BLOCK_BYTES, end * BLOCK_BYTES)], position)
  })
}

/** Neighbours among the `wanted` blocks of a write that go to the same slot: from index to index in the write, and where to. */
function forRuns(
  first: number,
  words: Uint32Array,
  wanted: (i: number) => boolean,
  use: (start: number, end: number, position: number) => void,
): void {
  const count = words.length / 2
  for (let start = 0; start < count; start++) {
    if (!wanted(start)) continue
    const slot = slotOf(words[start * 2 + 1]!)!
    let end = start + 1
    while (end < count && wanted(end) && slotOf(words[end * 2 + 1]!) === slot) end++
    use(start, end, blockPosition(first + start, slot))
    start = end - 1
  }
}
