import assert from 'node:assert'
import { StoreError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import { type Disk, type DiskFile, WOULD_BLOCK } from '../runtime/disk.ts'
import type { Log } from '../runtime/log.ts'
import type { Random } from '../runtime/random.ts'
import { Checkpointer } from './checkpoint.ts'
import type { LoggedEntry } from './entry-log.ts'
import { Journal, type JournalTransaction } from './journal.ts'
import type { JournalRecord } from './journal-format.ts'
import {
  BLOCK_BYTES,
  BLOCKS_PER_OBJECT,
  blockCrc,
  dataWord1,
  decodeHeader,
  entryState,
  HEADER_OFFSET,
  type InheritRun,
  newTable,
  objectPath,
  TABLE_BYTES,
  TABLE_OFFSET,
  zeroWord0,
  zeroWord1,
} from './object-format.ts'
import { openStoreFiles, type StoreFiles } from './store-files.ts'
import { NO_PAYLOAD, type OverlayEntry, PENDING, StoredObject } from './stored-object.ts'

/**
 * The objects of one node on one disk. How to use it:
 *
 * 1. Changes go through `commit`, which makes several of them one transaction: all or none after a crash. They are
 *    visible to reads at once and acknowledged by `done`.
 * 2. An object must be loaded before it is changed or looked into. `loadedNow` answers without waiting, and what it
 *    answers stays loaded until the caller awaits something; `hold` loads it and keeps it loaded until `release`.
 * 3. What a read returns has survived the end of this process, and with durability `write` also loss of power: a read
 *    that meets a write in flight waits for it. Each block is verified against its checksum.
 * 4. After a failure of the disk everything is answered with DiskFailed; the node must leave.
 */
export type Change =
  | { kind: 'create'; oid: bigint; runs: readonly InheritRun[] }
  | { kind: 'blocks'; object: StoredObject | bigint; first: number; bytes: Buffer }
  | { kind: 'zero'; object: StoredObject | bigint; first: number; count: number }
  | { kind: 'remove'; oid: bigint }
  | { kind: 'entry'; index: number; bytes: Buffer }

export type StoreDone = (error: StoreError | null) => void

export interface ObjectStoreOptions {
  disk: Disk
  clock: Clock
  random: Random
  log: Log
  /** Size of each of the two journal segments. */
  segmentBytes: number
  durability: 'flush' | 'write'
  /** Free space that writes leave alone, so that deletes, checkpoints and the log always have room. */
  reserveBytes: number
  /** How many objects keep their table (8 KiB) and an open file. */
  loadedObjectsMax?: number
  /** Told once when the disk has failed. */
  onFailed(error: StoreError): void
}

export interface StoreStats {
  objects: number
  totalBytes: number
  freeBytes: number
  checkpoints: number
  corruptBlocks: number
}

const LOADED_OBJECTS_DEFAULT = 4096
const READ_ATTEMPTS_MAX = 5
const EVICTION_LOOKS_MAX = 64
/** The sequence of an entry whose frame has not been written. */
const NOT_WRITTEN = Number.MAX_SAFE_INTEGER

export class ObjectStore {
  readonly #options: ObjectStoreOptions
  readonly #disk: Disk
  readonly #files: StoreFiles
  readonly #objects: Map<bigint, StoredObject>
  readonly #journal: Journal
  readonly #checkpointer: Checkpointer
  /** Objects that have a table or a file handle and may be asked to give them up, in order of loading. */
  readonly #loaded = new Set<StoredObject>()
  #corruptBlocks = 0
  #closed = false

  /** The epoch that new blocks are stamped with; the sheep sets it with each view. */
  epoch = 1

  private constructor(options: ObjectStoreOptions, files: StoreFiles) {
    this.#options = options
    this.#disk = options.disk
    this.#files = files
    this.#objects = files.objects
    this.#journal = new Journal({
      segments: files.segments,
      segmentBytes: options.segmentBytes,
      clock: options.clock,
      state: files.journalState,
      onSealed: (generation, nextSequence) => this.#checkpointer.start(generation, nextSequence),
      onFailed: (error) => options.onFailed(error),
    })
    this.#checkpointer = new Checkpointer({
      disk: options.disk,
      log: options.log,
      clock: options.clock,
      files,
      journal: this.#journal,
      hold: (object) => this.#holdObject(object),
      release: (object) => this.release(object),
    })
  }

  /**
   * Opens the store, formatting an empty directory. Replays the journal and ends with everything in the object files.
   * Also returns the ordered log's entries. Throws DiskFailed when another process has the directory or the format is
   * unknown, CorruptBlock when what was durable cannot be read any more.
   */
  static async open(options: ObjectStoreOptions): Promise<{ store: ObjectStore; entries: LoggedEntry[] }> {
    const { files, entries } = await openStoreFiles(options)
    const store = new ObjectStore(options, files)
    await store.#checkpointer.recover()
    return { store, entries }
  }

  get storeId(): Buffer {
    return this.#files.superblock.content.storeId
  }

  /** Called by a checkpoint that finds the log too long: returns the state as entries and the index it stands for. */
  set logSnapshot(snapshot: () => { index: number; liveEntries: number; entries(): Buffer[] }) {
    this.#checkpointer.logSnapshot = snapshot
  }

  exists(oid: bigint): boolean {
    return this.#objects.has(oid)
  }

  oids(): IterableIterator<bigint> {
    return this.#objects.keys()
  }

  async stats(): Promise<StoreStats> {
    const space = await this.#disk.space()
    return {
      objects: this.#objects.size,
      totalBytes: space.totalBytes,
      freeBytes: Math.max(0, space.freeBytes - this.#options.reserveBytes),
      checkpoints: this.#checkpointer.completed,
      corruptBlocks: this.#corruptBlocks,
    }
  }

  /** The object if it is loaded, null if it must be loaded first, undefined if there is none. */
  loadedNow(oid: bigint): StoredObject | null | undefined {
    const object = this.#objects.get(oid)
    if (object === undefined) return undefined
    if (!object.loaded) return null
    object.touched = true
    return object
  }

  /**
   * Loads an object and keeps it loaded until `release`. Throws NoObject, or CorruptBlock when the object's header is
   * damaged; then nothing is held.
   */
  async hold(oid: bigint): Promise<StoredObject> {
    const object = this.#objects.get(oid)
    if (!object) throw new StoreError('NoObject', oid.toString(16))
    await this.#holdObject(object)
    return object
  }

  async #holdObject(object: StoredObject): Promise<void> {
    object.holders++
    object.touched = true
    try {
      if (object.loaded) return
      object.loading ??= this.#readTable(object).finally(() => {
        object.loading = null
      })
      await object.loading
    } catch (error) {
      this.release(object)
      throw error
    }
  }

  /** Holds an object while `use` runs. */
  async using<T>(oid: bigint, use: (object: StoredObject) => T | Promise<T>): Promise<T> {
    const object = await this.hold(oid)
    try {
      return await use(object)
    } finally {
      this.release(object)
    }
  }

  release(object: StoredObject): void {
    object.holders--
    if (object.unlinked && object.holders === 0) this.#closeFile(object)
  }

  async #readTable(object: StoredObject): Promise<void> {
    const path = objectPath(object.oid)
    const file = await this.#disk.open(path)
    const tail = Buffer.alloc(TABLE_BYTES + BLOCK_BYTES)
    await file.read(tail, TABLE_OFFSET)
    const header = decodeHeader(tail.subarray(HEADER_OFFSET - TABLE_OFFSET))
    const problem =
      'problem' in header
        ? header.problem
        : header.oid !== object.oid || !header.storeId.equals(this.storeId)
          ? 'it belongs to another object or store'
          : null
    if (problem !== null) {
      await file.close()
      this.#corruptBlocks++
      throw new StoreError('CorruptBlock', `${path}: ${problem}`)
    }
    const table = new Uint32Array(BLOCKS_PER_OBJECT * 2)
    for (let i = 0; i < table.length; i++) table[i] = tail.readUInt32LE(i * 4)
    object.file = file
    object.table = table
    if (!('problem' in header)) object.version = Math.max(object.version, header.version)
    this.#loaded.add(object)
    this.#evict()
  }

  /**
   * Second chance: an object that was not used since the last look gives up its table and file handle. One that is dirty may:
   * its overlay stays, and the checkpoint loads it again. A bounded number of looks, so that no load waits for them.
   */
  #evict(): void {
    for (
      let looks = 0;
      this.#loaded.size > (this.#options.loadedObjectsMax ?? LOADED_OBJECTS_DEFAULT) && looks < EVICTION_LOOKS_MAX;
      looks++
    ) {
      const object = this.#loaded.values().next().value!
      this.#loaded.delete(object)
      if (object.touched || object.holders > 0 || object.fresh) {
        object.touched = false
        this.#loaded.add(object)
        continue
      }
      object.table = null
      this.#closeFile(object)
    }
  }

  #closeFile(object: StoredObject): void {
    const file = object.file
    object.file = null
    file?.close().catch((error) => this.#options.log.warn({ err: error }, 'closing an object file failed'))
  }

  /** Whether `bytes` more may be allocated; asked before a change, so that a full disk refuses and breaks nothing. */
  hasRoom(bytes: number): boolean {
    return this.#checkpointer.unallocatedBytes(this.#options.reserveBytes) >= bytes
  }

  /**
   * Applies the changes in memory, appends them to the journal as one transaction, and calls `done` when they are
   * acknowledged: with `durable`, or durability `write`, after a sync. Buffers must not change until then.
   */
  commit(changes: readonly Change[], options: { durable: boolean }, done: StoreDone): void {
    if (this.#closed) return done(new StoreError('Stopping'))
    const records: JournalRecord[] = []
    const payload: Buffer[] = []
    const touched: StoredObject[] = []
    const placements: { entries: OverlayEntry[]; payload: boolean }[] = []
    const removed: StoredObject[] = []
    const loggedEntries: LoggedEntry[] = []

    for (const change of changes) {
      switch (change.kind) {
        case 'create': {
          const object = this.#create(change.oid, change.runs)
          records.push({
            kind: 'create',
            oid: change.oid,
            version: object.version,
            epoch: this.epoch,
            runs: change.runs,
          })
          touched.push(object)
          break
        }
        case 'blocks': {
          const object = this.#objectOf(change.object)
          const record = this.#writeBlocks(object, change.first, change.bytes)
          records.push(record.record)
          placements.push({ entries: record.entries, payload: true })
          payload.push(change.bytes)
          touched.push(object)
          break
        }
        case 'zero': {
          const { first, count } = change
          const object = this.#objectOf(change.object)
          const entries = this.#zeroBlocks(object, first, count)
          records.push({ kind: 'zero', oid: object.oid, version: object.version, epoch: this.epoch, first, count })
          placements.push({ entries, payload: false })
          touched.push(object)
          break
        }
        case 'remove': {
          const object = this.#objects.get(change.oid)
          if (!object) break
          object.version++
          object.removed = true
          this.#objects.delete(change.oid)
          this.#loaded.delete(object)
          removed.push(object)
          records.push({ kind: 'remove', oid: change.oid, version: object.version })
          touched.push(object)
          break
        }
        case 'entry':
          records.push(change)
          loggedEntries.push(change)
          break
      }
    }

    this.#journal.append({
      records,
      payload,
      durable: options.durable || this.#options.durability === 'write',
      placed: (location) => {
        const { generation, lastSequence } = this.#journal
        let at = location
        for (const placement of placements) {
          for (const entry of placement.entries) {
            if (placement.payload) entry.location = at++
            entry.generation = generation
            entry.sequence = lastSequence
            if (entry.previous?.generation === generation) entry.previous = entry.previous.previous
          }
        }
        for (const object of removed) object.removedIn = generation
        this.#checkpointer.note(generation, touched, loggedEntries, at - location)
      },
      done,
    })
  }

  /** Changes of a transaction may name an object by its oid, because an earlier change of the same makes it. */
  #objectOf(object: StoredObject | bigint): StoredObject {
    if (typeof object !== 'bigint') return object
    const found = this.#objects.get(object)
    assert(found, `object ${object.toString(16)} does not exist`)
    return found
  }

  #create(oid: bigint, runs: readonly InheritRun[]): StoredObject {
    assert(!this.#objects.has(oid), `object ${oid.toString(16)} exists`)
    const object = new StoredObject(oid)
    object.version = 1
    object.fresh = true
    object.touched = true
    object.table = newTable(object.words, this.epoch, runs)
    this.#objects.set(oid, object)
    this.#loaded.add(object)
    return object
  }

  #writeBlocks(object: StoredObject, first: number, bytes: Buffer) {
    const count = bytes.length / BLOCK_BYTES
    assert(object.table && Number.isInteger(count) && first + count <= BLOCKS_PER_OBJECT)
    object.version++
    const word1 = dataWord1(this.epoch)
    const words = new Uint32Array(count * 2)
    const entries: OverlayEntry[] = []
    for (let i = 0; i < count; i++) {
      const block = count === 1 ? bytes : bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)
      const word0 = blockCrc(object.words, first + i, word1, block)
      words[i * 2] = word0
      words[i * 2 + 1] = word1
      entries.push(this.#overlay(object, first + i, word0, word1, PENDING))
    }
    const record: JournalRecord = { kind: 'blocks', oid: object.oid, version: object.version, first, count, words }
    return { record, entries }
  }

  #zeroBlocks(object: StoredObject, first: number, count: number): OverlayEntry[] {
    assert(object.table && first + count <= BLOCKS_PER_OBJECT)
    object.version++
    const word1 = zeroWord1(this.epoch)
    const entries: OverlayEntry[] = []
    for (let block = first; block < first + count; block++) {
      entries.push(this.#overlay(object, block, zeroWord0(object.words, block, word1), word1, NO_PAYLOAD))
    }
    return entries
  }

  #overlay(object: StoredObject, block: number, word0: number, word1: number, location: number): OverlayEntry {
    const previous = object.overlay.get(block) ?? null
    const entry = { word0, word1, location, generation: 0, sequence: NOT_WRITTEN, previous }
    object.overlay.set(block, entry)
    return entry
  }

  /** Makes everything acknowledged so far durable. */
  sync(done: StoreDone): void {
    this.#journal.sync(done)
  }

  /**
   * What a block is, without reading it. `holderVid` is 0 unless the block is inherited. Null when the entry does not
   * match its check.
   */
  blockState(object: StoredObject, block: number): { state: 'data' | 'zero' | 'inherit'; holderVid: number } | null {
    const overlay = object.overlay.get(block)
    const word0 = overlay ? overlay.word0 : object.table![block * 2]!
    const word1 = overlay ? overlay.word1 : object.table![block * 2 + 1]!
    const state = entryState(object.words, block, word0, word1)
    return state === null ? null : { state, holderVid: state === 'inherit' ? word0 : 0 }
  }

  /** The runs with which a new object inherits all that this one holds or inherits itself. */
  inheritRuns(object: StoredObject): InheritRun[] {
    const ownVid = vidOf(object.oid)
    const runs: InheritRun[] = []
    for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
      const found = this.blockState(object, block)
      if (!found) throw this.#corrupt(object, block)
      const holderVid = found.state === 'data' ? ownVid : found.holderVid
      const last = runs.at(-1)
      if (last && last.holderVid === holderVid) last.count++
      else runs.push({ first: block, count: 1, holderVid })
    }
    return runs.filter((run) => run.holderVid !== 0)
  }

  /**
   * Reads whole blocks into `target`, which is `count` blocks long. `done` may be called before this returns. CorruptBlock
   * when a block does not match its checksum: its bytes are never handed out as good.
   */
  read(object: StoredObject, first: number, count: number, target: Buffer, done: StoreDone): void {
    if (count === 1 && this.readNow(object, first, target)) return done(null)
    this.#readRange(object, first, count, target).then(
      () => done(null),
      (error) => done(asStoreError(error)),
    )
  }

  /** As `read`, for callers that may wait. `target` is whole blocks long. */
  readBlocks(object: StoredObject, first: number, target: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.read(object, first, target.length / BLOCK_BYTES, target, (error) => (error ? reject(error) : resolve()))
    })
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
      const holder = this.loadedNow(withVid(object.oid, word0))
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
    return this.#options.durability === 'flush' || entry.sequence < this.#journal.syncedSequence
  }

  async #readRange(object: StoredObject, first: number, count: number, target: Buffer): Promise<void> {
    await this.#holdObject(object)
    try {
      for (let block = first; block < first + count; ) {
        const left = first + count - block
        const at = (block - first) * BLOCK_BYTES
        block += await this.#readRun(object, block, left, target.subarray(at, at + left * BLOCK_BYTES))
      }
    } finally {
      this.release(object)
    }
  }

  /** Reads as many blocks from `block` on as lie together, and returns how many. */
  async #readRun(object: StoredObject, block: number, max: number, target: Buffer): Promise<number> {
    for (let attempt = 1; ; attempt++) {
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
        const holder = this.#objects.get(withVid(object.oid, run.holderVid))
        if (!holder) throw new StoreError('NoObject', withVid(object.oid, run.holderVid).toString(16))
        await this.#readRange(holder, block, run.count, target.subarray(0, run.count * BLOCK_BYTES))
        return run.count
      }
      const bytes = target.subarray(0, run.count * BLOCK_BYTES)
      let length = run.file.readNow(bytes, run.position)
      if (length === WOULD_BLOCK) length = await run.file.read(bytes, run.position)
      const bad = length === bytes.length ? firstMismatch(object, block, run.words, bytes) : 0
      if (bad < 0) return run.count
      // A checkpoint may have moved the block, or reused its page, while it was read: then the entry is another now.
      if (!this.#moved(object, block, bad, run) || attempt === READ_ATTEMPTS_MAX)
        throw this.#corrupt(object, block + bad)
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
    if (!found) throw this.#corrupt(object, first)
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
      this.#journal.append(emptyTransaction(this.#options.durability === 'write', (e) => (e ? reject(e) : resolve())))
    })
  }

  #corrupt(object: StoredObject, block: number): StoreError {
    this.#corruptBlocks++
    const error = new StoreError('CorruptBlock', `object ${object.oid.toString(16)}, block ${block}`)
    this.#options.log.error({ oid: object.oid.toString(16), block }, 'a block does not match its checksum')
    return error
  }

  /** Brings everything into the object files, so that the next start has nothing to replay, and closes the files. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#checkpointer.finish()
    for (const object of this.#loaded) await object.file?.close()
    await this.#files.close()
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

function emptyTransaction(durable: boolean, done: StoreDone): JournalTransaction {
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

const VID_MASK = 0xffffffn << 32n

function vidOf(oid: bigint): number {
  return Number((oid & VID_MASK) >> 32n)
}

/** The object of another vid with the same kind and index. */
function withVid(oid: bigint, vid: number): bigint {
  return (oid & ~VID_MASK) | (BigInt(vid) << 32n)
}

function asStoreError(error: unknown): StoreError {
  if (error instanceof StoreError) return error
  return new StoreError('DiskFailed', error instanceof Error ? error.message : String(error), { cause: error })
}
