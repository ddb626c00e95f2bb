import { StoreError } from '../errors.ts'
import { withVid } from '../protocol/oid.ts'
import { type DiskFile, WOULD_BLOCK } from '../runtime/disk.ts'
import type { Log } from '../runtime/log.ts'
import { Journal, type JournalTransaction } from './journal.ts'
import type { ObjectCache } from './object-cache.ts'
import { BLOCK_BYTES, type BlockState, blockCrc, blockPosition, entryState, slotOf } from './object-format.ts'
import { isRunSound } from './run-crc.ts'
import { NOT_WRITTEN, type OverlayEntry, PENDING, type StoredObject } from './stored-object.ts'

export interface BlockReaderOptions {
  cache: ObjectCache
  journal: Journal
  log: Log
  durability: 'flush' | 'write'
}

const READ_ATTEMPTS_MAX = 5

/**
 * Reads blocks from wherever they are: the journal, the object's file, the object that they are inherited from, or nowhere.
 *
 * 1. What is read has survived the end of this process, and with durability `write` also loss of power: a read that meets a
 *    write in flight waits for it.
 * 2. Each block is verified against its entry. A mismatch counts as rot only if the entry is still the same: a checkpoint
 *    may have moved the block, or reused its page of the journal, while it was read.
 */
export class BlockReader {
  readonly #cache: ObjectCache
  readonly #journal: Journal
  readonly #log: Log
  readonly #durability: 'flush' | 'write'
  corruptBlocks = 0

  constructor({ cache, journal, log, durability }: BlockReaderOptions) {
    this.#cache = cache
    this.#journal = journal
    this.#log = log
    this.#durability = durability
  }

  /**
   * What a block is, without reading it. `holderVid` is 0 unless the block is inherited. Null when the entry does not
   * match its check.
   */
  blockState(object: StoredObject, block: number): { state: BlockState; holderVid: number } | null {
    const overlay = object.overlay.get(block)
    const word0 = overlay ? overlay.word0 : object.table![block * 2]!
    const word1 = overlay ? overlay.word1 : object.table![block * 2 + 1]!
    const state = entryState(object.words, block, word0, word1)
    return state === null ? null : { state, holderVid: state === 'inherit' ? word0 : 0 }
  }

  /** The hot path: one block from memory. False when it has to wait for anything, or does not match. */
  readNow(object: StoredObject, block: number, target: Buffer): boolean {
    if (!object.loaded) return false
    let entry = object.overlay.get(block)
    if (entry) {
      if (entry.location === PENDING) this.#journal.flush()
      if (!this.#mayBeSeen(entry)) return false
    }
    let word0 = entry ? entry.word0 : object.table![block * 2]!
    let word1 = entry ? entry.word1 : object.table![block * 2 + 1]!
    let source = object
    let state = entryState(object.words, block, word0, word1)
    if (state === 'inherit') {
      const holder = this.#cache.loadedNow(withVid(object.oid, word0))
      if (!holder) return false
      entry = holder.overlay.get(block)
      if (entry && !this.#mayBeSeen(entry)) return false
      word0 = entry ? entry.word0 : holder.table![block * 2]!
      word1 = entry ? entry.word1 : holder.table![block * 2 + 1]!
      source = holder
      state = entryState(holder.words, block, word0, word1)
    }
    if (state === 'zero') {
      target.fill(0)
      return true
    }
    if (state !== 'data') return false
    const isJournaled = entry !== undefined && entry.location >= 0
    const file = isJournaled ? this.#journal.fileOf(entry!.location) : source.file
    const position = isJournaled ? Journal.positionOf(entry!.location) : blockPosition(block, slotOf(word1)!)
    if (!file || file.readNow(target, position) !== BLOCK_BYTES) return false
    return blockCrc(source.words, block, word1, target) === word0
  }

  /** Whether a block that the journal holds may be read: written, and with durability `write` also synced. */
  #mayBeSeen(entry: OverlayEntry): boolean {
    if (entry.sequence === NOT_WRITTEN) return false
    return this.#durability === 'flush' || entry.sequence < this.#journal.syncedSequence
  }

  /** As `readNow`, for any number of blocks, waiting for whatever it has to. Throws CorruptBlock. */
  readRange(object: StoredObject, first: number, count: number, target: Buffer): Promise<void> {
    return this.#readRuns(object, first, count, target, true)
  }

  /** Inheritance is one hop: a holder that inherits itself is rot, which may even lead in a circle. */
  async #readRuns(
    object: StoredObject,
    first: number,
    count: number,
    target: Buffer,
    mayInherit: boolean,
  ): Promise<void> {
    await this.#cache.holdObject(object)
    try {
      for (let block = first; block < first + count; ) {
        const left = first + count - block
        const at = (block - first) * BLOCK_BYTES
        block += await this.#readRun(object, block, left, target.subarray(at, at + left * BLOCK_BYTES), mayInherit)
      }
    } finally {
      this.#cache.release(object)
    }
  }

  /** Reads as many blocks from `block` on as lie together, and returns how many. */
  async #readRun(
    object: StoredObject,
    block: number,
    max: number,
    target: Buffer,
    mayInherit: boolean,
  ): Promise<number> {
    for (let attempt = 1; ; ) {
      const run = this.#locate(object, block, max)
      if (run.kind === 'wait') {
        await this.#settle()
        continue
      }
      if (run.kind === 'zero') {
        target.fill(0, 0, run.count * BLOCK_BYTES)
        return run.count
      }
      if (run.kind === 'inherit') {
        if (!mayInherit) throw this.corrupt(object, block)
        const holder = this.#cache.find(withVid(object.oid, run.holderVid))
        await this.#readRuns(holder, block, run.count, target.subarray(0, run.count * BLOCK_BYTES), false)
        return run.count
      }
      const { count } = run
      const bytes = target.subarray(0, count * BLOCK_BYTES)
      let length = run.file.readNow(bytes, run.position)
      if (length === WOULD_BLOCK) length = await run.file.read(bytes, run.position)
      const bad = length === bytes.length ? firstMismatch(object, block, run.words, bytes) : 0
      if (bad < 0) return count
      // A checkpoint may have moved the block, or reused its page, while it was read: then the entry is another now.
      const overlay = run.overlays[bad] ?? null
      if (this.#isSame(object, block + bad, overlay, run.words[bad * 2]!) || attempt++ === READ_ATTEMPTS_MAX)
        throw this.corrupt(object, block + bad)
    }
  }

  /** Whether a block is still what it was found to be. */
  #isSame(object: StoredObject, block: number, overlay: OverlayEntry | null, word0: number): boolean {
    if (object.removed || (object.overlay.get(block) ?? null) !== overlay) return false
    return overlay !== null || object.table?.[block * 2] === word0
  }

  /** Where a block is, and how many of those that follow are in the same place, one behind the other. */
  #locate(object: StoredObject, first: number, max: number): Located {
    if (object.loss) throw object.loss
    const start = this.#find(object, first)
    if (start.overlay?.location === PENDING) this.#journal.flush()
    if (start.overlay && !this.#mayBeSeen(start.overlay)) return { kind: 'wait' }
    if (start.state === 'data') return this.#locateData(object, first, max)
    let count = 1
    while (count < max) {
      const next = this.#find(object, first + count)
      const isAlike = next.state === start.state && next.holderVid === start.holderVid
      if (!isAlike || (next.overlay && !this.#mayBeSeen(next.overlay))) break
      count++
    }
    if (start.state === 'inherit') return { kind: 'inherit', holderVid: start.holderVid, count }
    return { kind: 'zero', count }
  }

  /** As many blocks of data as lie one behind the other: large reads come here, so nothing is made for each block. */
  #locateData(object: StoredObject, first: number, max: number): Located {
    if (object.overlay.size === 0) return locateInFile(object, first, max)
    const words = new Uint32Array(max * 2)
    const overlays: (OverlayEntry | null)[] = []
    let file: DiskFile | null = null
    let position = 0
    for (let i = 0; i < max; i++) {
      const block = first + i
      const overlay = object.overlay.get(block) ?? null
      const word0 = overlay ? overlay.word0 : object.table![block * 2]!
      const word1 = overlay ? overlay.word1 : object.table![block * 2 + 1]!
      const slot = slotOf(word1)
      if (slot === null || (overlay && !this.#mayBeSeen(overlay))) break
      const isJournaled = overlay !== null && overlay.location >= 0
      const itsFile = isJournaled ? this.#journal.fileOf(overlay.location) : object.file
      const itsPosition = isJournaled ? Journal.positionOf(overlay.location) : blockPosition(block, slot)
      if (i === 0) {
        file = itsFile
        position = itsPosition
      } else if (itsFile !== file || itsPosition !== position + i * BLOCK_BYTES) break
      words[i * 2] = word0
      words[i * 2 + 1] = word1
      overlays.push(overlay)
    }
    const count = overlays.length
    return file
      ? { kind: 'data', file, position, count, words: words.subarray(0, count * 2), overlays }
      : { kind: 'wait' }
  }

  /** Throws CorruptBlock when the entry does not match its check. */
  #find(object: StoredObject, block: number): FoundBlock {
    const overlay = object.overlay.get(block) ?? null
    const word0 = overlay ? overlay.word0 : object.table![block * 2]!
    const word1 = overlay ? overlay.word1 : object.table![block * 2 + 1]!
    const state = entryState(object.words, block, word0, word1)
    if (state === null) throw this.corrupt(object, block)
    return { overlay, state, holderVid: state === 'inherit' ? word0 : 0 }
  }

  /** Waits until what was appended so far is acknowledged. */
  #settle(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#journal.append(emptyTransaction(this.#durability === 'write', (e) => (e ? reject(e) : resolve())))
    })
  }

  /** Counts a block that does not match and logs where it is. */
  corrupt(object: StoredObject, block: number): StoreError {
    this.corruptBlocks++
    const error = new StoreError('CorruptBlock', `object ${object.oid.toString(16)}, block ${block}`)
    this.#log.error({ oid: object.oid.toString(16), block }, 'a block does not match its checksum')
    return error
  }
}

/** What a block was found to be. `holderVid` is 0 unless it is inherited. */
interface FoundBlock {
  overlay: OverlayEntry | null
  state: BlockState
  holderVid: number
}

type Located =
  | { kind: 'wait' }
  | { kind: 'zero'; count: number }
  | { kind: 'inherit'; holderVid: number; count: number }
  /** `words` has two for each block; `overlays` one, or none at all when there are none. */
  | {
      kind: 'data'
      file: DiskFile
      position: number
      count: number
      words: Uint32Array
      overlays: readonly (OverlayEntry | null)[]
    }

function emptyTransaction(durable: boolean, done: (error: StoreError | null) => void): JournalTransaction {
  return { records: [], payload: [], durable, placed: () => {}, done }
}

const NO_OVERLAYS: readonly null[] = []

/** As `#locateData`, of an object of which the journal holds nothing: neighbours in the same slot lie together. */
function locateInFile({ table, file }: StoredObject, first: number, max: number): Located {
  if (!table || !file) return { kind: 'wait' }
  const slot = slotOf(table[first * 2 + 1]!)!
  let count = 1
  while (count < max && slotOf(table[(first + count) * 2 + 1]!) === slot) count++
  const words = table.slice(first * 2, (first + count) * 2)
  return { kind: 'data', file, position: blockPosition(first, slot), count, words, overlays: NO_OVERLAYS }
}

/** Index of the first block that does not match its entry, or -1. */
function firstMismatch(object: StoredObject, first: number, words: Uint32Array, bytes: Buffer): number {
  if (isRunSound(object.words, first, words, bytes)) return -1
  for (let i = 0; i * BLOCK_BYTES < bytes.length; i++) {
    const block = bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)
    if (blockCrc(object.words, first + i, words[i * 2 + 1]!, block) !== words[i * 2]) return i
  }
  return -1
}
