import type { StoreError } from '../errors.ts'
import type { DiskFile } from '../runtime/disk.ts'
import type { AccountImages } from './accounts.ts'
import type { CopyChanges } from './copies/copy-table.ts'
import type { LoggedEntry } from './entry-log.ts'
import {
  BLOCKS_PER_OBJECT,
  blockCrc,
  entryState,
  findHolders,
  type InheritRun,
  newTable,
  type OidWords,
  oidWords,
  type Slot,
  slotOf,
  writtenEpoch,
} from './object-format.ts'
import { Overlay } from './overlay.ts'

/** A block that has changed since the last checkpoint: the journal holds it, the object file does not. */
export interface OverlayEntry {
  word0: number
  word1: number
  /** Where the journal has the bytes, or one of the three below. */
  location: number
  /** The other slot of the block is not wanted any more once this entry is in the object file. */
  freesOtherSlot: boolean
  /**
   * Slots, a bit for each, in which this generation has placed the block, by this entry or by one that it replaced and that may be
   * all that is durable: the checkpoint of an older generation leaves them alone.
   */
  placedSlots: number
  generation: number
  sequence: number
  /**
   * What this entry replaced, if that may still be wanted: the checkpoint of an older generation applies the block as that
   * generation left it, because this entry may not be durable yet. At most one entry for each generation is kept.
   */
  previous: OverlayEntry | null
}

/** The journal has not written the frame yet. */
export const PENDING = -1
/** Zeros. */
export const NO_PAYLOAD = -2
/** In the object's file, in the slot that `word1` names. */
export const PLACED = -3
/** The sequence of an entry whose frame has not been written. */
export const NOT_WRITTEN = Number.MAX_SAFE_INTEGER

/** Of `placedSlots`. */
export const slotBit = (slot: Slot): number => 1 << slot

/** What one generation of the journal changed. */
export interface DirtyGeneration {
  /** With the version that each object had after its last change of this generation. */
  objects: Map<StoredObject, number>
  entries: LoggedEntry[]
  accounts: AccountImages
  copies: CopyChanges
  /** Blocks that are in object files already. */
  placedBlocks: number
  /** New files of theirs, which are open until the checkpoint has named them. */
  placedFiles: number
}

/**
 * One object of this node in memory. `table` is what the file says (or will say, for one that is `fresh`); `overlay` is
 * newer. An object that is neither dirty nor in use may lose its table and file handle at any time and is loaded again.
 * A new object is told by its runs, in a hundred bytes; it gets a table of 8 KiB when somebody looks into it.
 */
export class StoredObject {
  readonly oid: bigint
  readonly words: OidWords
  version = 0
  #table: Uint32Array | null = null
  #origin: { epoch: number; runs: readonly InheritRun[] } | null = null
  file: DiskFile | null = null
  /** Created since the last checkpoint: no file holds it yet, or one that bears a tag. */
  fresh = false
  /** Of the name of a fresh object's file; 0 when there is none, or it has its own name. */
  tag = 0
  /** Removed by a transaction; `removedIn` is its generation, once the journal has it. */
  removed = false
  removedIn = Number.POSITIVE_INFINITY
  /** Its file is unlinked; whoever still reads it closes the handle. */
  unlinked = false
  /** Set when its disk has failed and the journal does not have all of it. */
  loss: StoreError | null = null
  /** Files that it has moved away from, or that are lost with their disk, and that somebody may still be at work on. */
  retired: DiskFile[] = []
  readonly overlay = new Overlay()
  /** Held by so many; the table and the file stay until they let go. */
  holders = 0
  /** So many are giving slots that hold nothing back to the file system: nothing may be placed meanwhile. */
  givingBack = 0
  /** Used since the last look of the eviction. */
  touched = false
  /** Set while the table is being read; everyone who needs it waits for the same promise. */
  loading: Promise<void> | null = null

  constructor(oid: bigint) {
    this.oid = oid
    this.words = oidWords(oid)
  }

  /** Two words for each block; null when the object is not loaded. */
  get table(): Uint32Array | null {
    if (this.#origin) this.table = newTable(this.words, this.#origin.epoch, this.#origin.runs)
    return this.#table
  }

  set table(table: Uint32Array | null) {
    this.#table = table
    this.#origin = null
  }

  /** It is new: zeros, but for the runs that it inherits. */
  begin(epoch: number, runs: readonly InheritRun[]): void {
    this.#origin = { epoch, runs }
  }

  /** The slot in which the file has a block, as its table says; null for a block without data there. */
  tableSlot(block: number): Slot | null {
    return this.#origin ? null : slotOf(this.#table![block * 2 + 1]!)
  }

  /** As `tableSlot`, once all that has changed is in the file. */
  slotToCome(block: number): Slot | null {
    const entry = this.overlay.get(block)
    return entry === undefined ? this.tableSlot(block) : slotOf(entry.word1)
  }

  /** Whether it has the bytes of all these blocks itself: writing them is an overwrite. It has to be loaded. */
  hasData(first: number, count: number): boolean {
    for (let block = first; block < first + count; block++) if (this.slotToCome(block) === null) return false
    return true
  }

  /**
   * Of each block the vid whose object has its bytes, which is this one's `ownVid` for data of its own, or 0 for zeros; the
   * array is good until the next call for any object. A number instead of it is the first block that does not match its check.
   */
  holderVids(ownVid: number): Uint32Array | number {
    if (this.#origin) {
      holderVids.fill(0)
      for (const { first, count, holderVid } of this.#origin.runs) holderVids.fill(holderVid, first, first + count)
    } else {
      let bad = findHolders(this.words, this.#table!, ownVid, holderVids)
      for (; bad >= 0; bad = findHolders(this.words, this.#table!, ownVid, holderVids, bad + 1)) {
        if (!this.overlay.has(bad)) return bad
      }
    }
    for (const [block, { word0, word1 }] of this.overlay) {
      const state = entryState(this.words, block, word0, word1)
      if (state === null) return block
      holderVids[block] = state === 'data' ? ownVid : state === 'inherit' ? word0 : 0
    }
    return holderVids
  }

  /** When a block was written, which is null for one that is inherited. It has to be loaded. */
  writtenEpoch(block: number): number | null {
    return writtenEpoch(this.overlay.get(block)?.word1 ?? this.table![block * 2 + 1]!)
  }

  /** Whether these are the bytes that a block was written with, by its checksum. It has to be loaded. */
  matches(block: number, bytes: Uint8Array): boolean {
    const { word0, word1 } = this.overlay.get(block) ?? {
      word0: this.table![block * 2]!,
      word1: this.table![block * 2 + 1]!,
    }
    return slotOf(word1) !== null && blockCrc(this.words, block, word1, bytes) === word0
  }

  get lost(): boolean {
    return this.loss !== null
  }

  get loaded(): boolean {
    return (this.#table !== null || this.#origin !== null) && !this.lost
  }
}

const holderVids = new Uint32Array(BLOCKS_PER_OBJECT)
