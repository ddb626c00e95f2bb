import { StoreError } from '../errors.ts'
import { withVid } from '../protocol/oid.ts'
import { type DiskFile, WOULD_BLOCK } from '../runtime/disk.ts'
import type { Log } from '../runtime/log.ts'
import { Journal, type JournalTransaction } from './journal.ts'
import type { ObjectCache } from './object-cache.ts'
import { BLOCK_BYTES, type BlockState, blockCrc, entryState } from './object-format.ts'
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
    const file = entry ? this.#journal.fileOf(entry.location) : source.file
    const position = entry ? Journal.positionOf(entry.location) : block * BLOCK_BYTES
    if (!file || file.readNow(target, position) !== BLOCK_BYTES) return false
    return blockCrc(source.words, block, word1, target) === word0
  }

  /** Whether a block that the journal holds may be read: written, and with durability `write` also synced. */
  #mayBeSeen(entry: OverlayEntry): boolean {
    if (entry.sequence === NOT_WRITTEN) return false
    return this.#durability === 'flush' || entry.sequence < this.#journal.syncedSequence
  }

  /** As `readNow`, for any number of blocks, waiting for whatever it has to. Throws CorruptBlock. */
  async readRange(object: StoredObject, first: number, count: number, target: Buffer): Promise<void> {
    await this.#cache.holdObject(object)
    try {
      for (let block = first; block < first + count; ) {
        const left = first + count - block
        const at = (block - first) * BLOCK_BYTES
        block += await this.#readRun(object, block, left, target.subarray(at, at + left * BLOCK_BYTES))
      }
    } finally {
      this.#cache.release(object)
    }
  }

  /** Reads as many blocks from `block` on as lie together, and returns how many. */
  async #readRun(object: StoredObject, block: number, max: number, target: Buffer): Promise<number> {
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
        const holder = this.#cache.find(withVid(object.oid, run.holderVid))
        await this.readRange(holder, block, run.count, target.subarray(0, run.count * BLOCK_BYTES))
        return run.count
      }
      const bytes = target.subarray(0, run.count * BLOCK_BYTES)
      let length = run.file.readNow(bytes, run.position)
      if (length === WOULD_BLOCK) length = await run.file.read(bytes, run.position)
      const bad = length === bytes.length ? firstMismatch(object, block, run.words, bytes) : 0
      if (bad < 0) return run.count
      // A checkpoint may have moved the block, or reused its page, while it was read: then the entry is another now.
      if (!this.#moved(object, block, bad, run) || attempt++ === READ_ATTEMPTS_MAX)
        throw this.corrupt(object, block + bad)
    }
  }

  #moved(object: StoredObject, first: number, index: number, run: Located & { kind: 'data' }): boolean {
    const block = first + index
    if (object.removed || (object.overlay.get(block) ?? null) !== run.overlay) return true
    return run.overlay === null && object.table?.[block * 2] !== run.words[index * 2]
  }

  #locate(object: StoredObject, first: number, max: number): Located {
    const overlay = object.overlay.get(first)
    if (overlay?.location === PENDING) this.#journal.flush()
    if (overlay && !this.#mayBeSeen(overlay)) return { kind: 'wait' }
    const found = this.blockState(object, first)
    if (!found) throw this.corrupt(object, first)
    const { state } = found
    if (state === 'data' && overlay) {
      const words = Uint32Array.of(overlay.word0, overlay.word1)
      const file = this.#journal.fileOf(overlay.location)
      return { kind: 'data', file, position: Journal.positionOf(overlay.location), count: 1, words, overlay }
    }
    let count = 1
    while (count < max && !object.overlay.has(first + count)) {
      const next = this.blockState(object, first + count)
      if (next?.state !== state || next.holderVid !== found.holderVid) break
      count++
    }
    if (state === 'inherit') return { kind: 'inherit', holderVid: found.holderVid, count }
    if (state === 'zero') return { kind: 'zero', count: overlay ? 1 : count }
    if (!object.file) return { kind: 'wait' }
    const words = object.table!.slice(first * 2, (first + count) * 2)
    return { kind: 'data', file: object.file, position: first * BLOCK_BYTES, count, words, overlay: null }
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

type Located =
  | { kind: 'wait' }
  | { kind: 'zero'; count: number }
  | { kind: 'inherit'; holderVid: number; count: number }
  | {
      kind: 'data'
      file: DiskFile
      position: number
      count: number
      words: Uint32Array
      overlay: OverlayEntry | null
    }

function emptyTransaction(durable: boolean, done: (error: StoreError | null) => void): JournalTransaction {
  return { records: [], payload: [], durable, placed: () => {}, done }
}

/** Index of the first block that does not match its entry, or -1. */
function firstMismatch(object: StoredObject, first: number, words: Uint32Array, bytes: Buffer): number {
  for (let i = 0; i * BLOCK_BYTES < bytes.length; i++) {
    const block = bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)
    if (blockCrc(object.words, first + i, words[i * 2 + 1]!, block) !== words[i * 2]) return i
  }
  return -1
}
