import assert from 'node:assert'
import { StoreError, toStoreError } from '../errors.ts'
import { oidVid } from '../protocol/oid.ts'
import type { Disk } from '../runtime/disk.ts'
import { BlockReader } from './block-reader.ts'
import { Checkpointer } from './checkpoint.ts'
import type { LoggedEntry } from './entry-log.ts'
import { Journal } from './journal.ts'
import type { JournalRecord } from './journal-format.ts'
import { ObjectCache } from './object-cache.ts'
import {
  BLOCK_BYTES,
  BLOCKS_PER_OBJECT,
  type BlockState,
  blockCrc,
  dataWord1,
  type InheritRun,
  newTable,
  OBJECT_TAIL_BYTES,
  zeroWord0,
  zeroWord1,
} from './object-format.ts'
import { type ObjectStoreOptions, openStoreFiles, type StoreFiles } from './store-files.ts'
import { NO_PAYLOAD, NOT_WRITTEN, type OverlayEntry, PENDING, StoredObject } from './stored-object.ts'

export type { ObjectStoreOptions } from './store-files.ts'

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

export interface StoreStats {
  objects: number
  totalBytes: number
  freeBytes: number
  checkpoints: number
  corruptBlocks: number
}

const LOADED_OBJECTS_DEFAULT = 4096

export class ObjectStore {
  readonly #options: ObjectStoreOptions
  readonly #disk: Disk
  readonly #files: StoreFiles
  readonly #cache: ObjectCache
  readonly #journal: Journal
  readonly #reader: BlockReader
  readonly #checkpointer: Checkpointer
  #closed = false

  /** The epoch that new blocks are stamped with; the sheep sets it with each view. */
  epoch = 1

  private constructor(options: ObjectStoreOptions, files: StoreFiles) {
    this.#options = options
    this.#disk = options.disk
    this.#files = files
    this.#cache = new ObjectCache({
      disk: options.disk,
      log: options.log,
      storeId: files.superblock.content.storeId,
      objects: files.objects,
      loadedMax: options.loadedObjectsMax ?? LOADED_OBJECTS_DEFAULT,
    })
    this.#journal = new Journal({
      segments: files.segments,
      segmentBytes: options.segmentBytes,
      clock: options.clock,
      state: files.journalState,
      onSealed: (generation, nextSequence) => this.#checkpointer.start(generation, nextSequence),
      onFailed: (error) => options.onFailed(error),
    })
    const { log, durability } = options
    this.#reader = new BlockReader({ cache: this.#cache, journal: this.#journal, log, durability })
    this.#checkpointer = new Checkpointer({
      disk: options.disk,
      log: options.log,
      clock: options.clock,
      files,
      journal: this.#journal,
      cache: this.#cache,
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
    try {
      await store.#checkpointer.recover()
    } catch (error) {
      await store.#closeFiles()
      throw error
    }
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
    return this.#cache.exists(oid)
  }

  oids(): IterableIterator<bigint> {
    return this.#cache.oids()
  }

  async stats(): Promise<StoreStats> {
    const space = await this.#disk.space()
    return {
      objects: this.#cache.size,
      totalBytes: space.totalBytes,
      freeBytes: Math.max(0, space.freeBytes - this.#options.reserveBytes),
      checkpoints: this.#checkpointer.completed,
      corruptBlocks: this.#reader.corruptBlocks + this.#cache.corruptHeaders,
    }
  }

  /** The object if it is loaded, null if it must be loaded first, undefined if there is none. */
  loadedNow(oid: bigint): StoredObject | null | undefined {
    return this.#cache.loadedNow(oid)
  }

  /** Loads an object and keeps it loaded until `release`. Throws NoObject or CorruptBlock; then nothing is held. */
  hold(oid: bigint): Promise<StoredObject> {
    return this.#cache.hold(oid)
  }

  release(object: StoredObject): void {
    this.#cache.release(object)
  }

  /** Holds an object while `use` runs. */
  using<T>(oid: bigint, use: (object: StoredObject) => T | Promise<T>): Promise<T> {
    return this.#cache.using(oid, use)
  }

  /** Whether `bytes` more may be allocated; asked before a change, so that a full disk refuses and breaks nothing. */
  hasRoom(bytes: number): boolean {
    return this.#checkpointer.hasRoom(bytes, this.#options.reserveBytes)
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
          if (!this.#cache.exists(change.oid)) break
          const object = this.#cache.find(change.oid)
          object.version++
          object.removed = true
          this.#cache.remove(object)
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
        const tails = changes.filter((change) => change.kind === 'create').length * (OBJECT_TAIL_BYTES / BLOCK_BYTES)
        this.#checkpointer.note(generation, touched, loggedEntries, at - location + tails)
      },
      done,
    })
  }

  /** Changes of a transaction may name an object by its oid, because an earlier change of the same makes it. */
  #objectOf(object: StoredObject | bigint): StoredObject {
    return typeof object === 'bigint' ? this.#cache.find(object) : object
  }

  #create(oid: bigint, runs: readonly InheritRun[]): StoredObject {
    assert(!this.#cache.exists(oid), `object ${oid.toString(16)} exists`)
    const object = new StoredObject(oid)
    object.version = 1
    object.fresh = true
    object.table = newTable(object.words, this.epoch, runs)
    this.#cache.add(object)
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

  /** What a block is, without reading it; see BlockReader. */
  blockState(object: StoredObject, block: number): { state: BlockState; holderVid: number } | null {
    return this.#reader.blockState(object, block)
  }

  /** The runs with which a new object inherits all that this one holds or inherits itself. */
  inheritRuns(object: StoredObject): InheritRun[] {
    const ownVid = oidVid(object.oid)
    const runs: InheritRun[] = []
    for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
      const found = this.blockState(object, block)
      if (!found) throw this.#reader.corrupt(object, block)
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
    if (count === 1 && this.#reader.readNow(object, first, target)) return done(null)
    this.#reader.readRange(object, first, count, target).then(
      () => done(null),
      (error) => done(toStoreError(error)),
    )
  }

  /** As `read`, for callers that may wait. `target` is whole blocks long. */
  readBlocks(object: StoredObject, first: number, target: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.read(object, first, target.length / BLOCK_BYTES, target, (error) => (error ? reject(error) : resolve()))
    })
  }

  /** Reads one block if that needs no waiting. */
  readNow(object: StoredObject, block: number, target: Buffer): boolean {
    return this.#reader.readNow(object, block, target)
  }

  /** Moves what the journal holds into the object files, in the background: space of removed objects comes back by that. */
  startCheckpoint(): void {
    this.#journal.seal()
  }

  /** Brings everything into the object files, so that the next start has nothing to replay, and closes the files. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#checkpointer.finish()
    await this.#closeFiles()
  }

  async #closeFiles(): Promise<void> {
    await this.#cache.close()
    await this.#files.close()
  }
}
