import { StoreError, toStoreError } from '../errors.ts'
import { oidVid } from '../protocol/oid.ts'
import type { HistogramData } from '../runtime/histogram.ts'
import type { Accounts } from './accounts.ts'
import { BlockReader } from './block-reader.ts'
import type { AccountChange, Change, StoreDone } from './change.ts'
import { ChangeApplier } from './change-applier.ts'
import { Checkpointer } from './checkpoint.ts'
import type { CopyRecord } from './copies/copy-records.ts'
import type { CopyTable } from './copies/copy-table.ts'
import type { DiskArray } from './disks/disk-array.ts'
import { MemberFailed } from './disks/member.ts'
import { StoreDisks } from './disks/store-disks.ts'
import type { LoggedEntry } from './entry-log.ts'
import { Journal } from './journal.ts'
import { KeptSlots } from './kept-slots.ts'
import { ObjectCache } from './object-cache.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, type BlockState, type InheritRun, OBJECT_TAIL_BYTES } from './object-format.ts'
import { PlacedWrites, type Placement } from './placed-writes.ts'
import { SlotPunches } from './slot-punches.ts'
import { type ObjectStoreOptions, openStoreFiles, type StoreFiles } from './store-files.ts'
import type { StoredObject } from './stored-object.ts'
import { punchStraySlots } from './stray-slots.ts'

export type { AccountChange, Change, StoreDone } from './change.ts'
export type { ObjectStoreOptions } from './store-files.ts'

export interface StoreStats {
  objects: number
  totalBytes: number
  freeBytes: number
  checkpoints: number
  corruptBlocks: number
  disks: number
  failedDisks: number
}

/** What operators watch, beyond `StoreStats`; counted since the start. */
export interface StoreMeasures {
  loadedObjects: number
  reserveBytes: number
  /** Of slots that overwriting has freed, and that wait for the next write; they count as free. */
  keptBytes: number
  journal: {
    frames: number
    bytes: number
    syncSeconds: HistogramData
    waiting: number
    activeBytes: number
    activePayloadBytes: number
    segmentBytes: number
  }
  checkpoints: { seconds: HistogramData; bytes: number }
  /** Bytes of large writes, which pass the journal by. */
  placedBytes: number
}

export interface CommitOptions {
  durable: boolean
  /** What its blocks are stamped with, if not with the epoch of the store. */
  epoch?: number
}

const LOADED_OBJECTS_DEFAULT = 4096
/** Objects that a checkpoint keeps loaded at a time. */
const CHECKPOINT_BATCH_MAX = 1024
const OPEN_FILES_DEFAULT = 16384
/** Below this the journal's one write for many requests costs less than a write for each. */
const PLACED_MIN_BYTES_DEFAULT = 64 * 1024
/**
 * From so many segments' worth of placed bytes on a generation is checkpointed, though its segment is not full, so that what
 * has to be looked at after a crash has a bound; beyond twice as many the journal takes them, and slows them down.
 */
const PLACED_SEGMENTS_MAX = 64
/**
 * The share of all files that what is placed in one generation may keep open until that is checkpointed early; beyond twice as many
 * the journal takes what comes. As many may be open of the generation before, and of what is being synced; the rest is for objects
 * that are loaded.
 */
const PLACED_FILES_SHARE = 0.1
const LOADED_FILES_SHARE = 0.25
const CHECKPOINT_FILES_SHARE = 1 / 16

/**
 * The objects of one node. How to use it:
 *
 * 1. Changes go through `commit`, which makes several of them one transaction: all or none after a crash. They are
 *    visible to reads at once and acknowledged by `done`.
 * 2. An object must be loaded before it is changed or looked into. `loadedNow` answers without waiting, and what it
 *    answers stays loaded until the caller awaits something; `hold` loads it and keeps it loaded until `release`.
 * 3. What a read returns has survived the end of this process, and with durability `write` also loss of power: a read
 *    that meets a write in flight waits for it. Each block is verified against its checksum.
 * 4. After a failure of the first disk everything is answered with DiskFailed; the node must leave. After that of another one
 *    this goes for its objects alone; see `disks`.
 */
export class ObjectStore {
  readonly #options: ObjectStoreOptions
  readonly #disk: DiskArray
  readonly #files: StoreFiles
  readonly #cache: ObjectCache
  readonly #journal: Journal
  readonly #reader: BlockReader
  readonly #checkpointer: Checkpointer
  readonly #punches: SlotPunches
  readonly #kept: KeptSlots
  readonly #placedWrites: PlacedWrites
  readonly #applier: ChangeApplier
  readonly #placedMinBytes: number
  readonly #placedFilesMax: number
  #sealScheduled = false
  /** Which disks there are; how they come and go. */
  readonly disks: StoreDisks
  #closed = false

  /** Told that there is something in the journal again that no checkpoint is at work on. */
  onJournalBegun: () => void = () => {}

  private constructor(options: ObjectStoreOptions, files: StoreFiles) {
    this.#options = options
    this.#disk = files.disks
    this.#files = files
    const openFilesMax = options.openFilesMax ?? OPEN_FILES_DEFAULT
    this.#placedFilesMax = openFilesMax * PLACED_FILES_SHARE
    this.#cache = new ObjectCache({
      disk: files.disks,
      log: options.log,
      storeId: files.superblock.content.storeId,
      objects: files.objects,
      loadedMax:
        options.loadedObjectsMax ?? Math.min(LOADED_OBJECTS_DEFAULT, Math.floor(openFilesMax * LOADED_FILES_SHARE)),
    })
    this.#placedMinBytes = options.placedMinBytes ?? PLACED_MIN_BYTES_DEFAULT
    this.#punches = new SlotPunches({ disk: files.disks, cache: this.#cache })
    this.#kept = new KeptSlots({
      disks: files.disks,
      cache: this.#cache,
      punches: this.#punches,
      clock: options.clock,
      bytesMax: options.keptBytesMax,
    })
    this.#placedWrites = new PlacedWrites({ disks: files.disks, cache: this.#cache, punches: this.#punches })
    this.#applier = new ChangeApplier({
      cache: this.#cache,
      disks: files.disks,
      accounts: files.accounts,
      placedWrites: this.#placedWrites,
    })
    this.#journal = new Journal({
      segments: files.segments,
      segmentBytes: options.segmentBytes,
      clock: options.clock,
      state: files.journalState,
      outside: this.#placedWrites,
      onBegun: () => this.onJournalBegun(),
      onSealed: (generation, nextSequence) => this.#checkpointer.start(generation, nextSequence),
      onFailed: (error) => options.onFailed(error),
    })
    const { log, durability } = options
    this.#reader = new BlockReader({ cache: this.#cache, journal: this.#journal, log, durability })
    this.#checkpointer = new Checkpointer({
      log: options.log,
      clock: options.clock,
      files,
      journal: this.#journal,
      cache: this.#cache,
      punches: this.#punches,
      kept: this.#kept,
      batchMax: Math.min(CHECKPOINT_BATCH_MAX, Math.ceil(openFilesMax * CHECKPOINT_FILES_SHARE)),
    })
    this.disks = new StoreDisks({
      disks: files.disks,
      cache: this.#cache,
      journal: this.#journal,
      checkpointer: this.#checkpointer,
      kept: this.#kept,
      log: options.log,
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
      // Frames that were cut must stay cut, also when the next start finds this page cache.
      const { generation, sequence } = files.journalState
      // The accounts have to name the same generation, though all frames of it may have been cut.
      await files.accountLog.append(generation - 1, [])
      const { horizon } = files.copies
      // That power was lost has to last as long as the name of the page cache that it is known by.
      if (horizon.lost > 0) await files.copyLog.append(generation - 1, [{ kind: 'horizon', ...horizon }])
      const copies = files.copyLog.position
      const mark = { generation: generation - 1, sequence, synced: sequence, cache: files.cache, ...copies }
      await files.superblock.write(mark)
      await files.copyLog.named()
      await files.disks.membership.adoptCaches()
      for (const path of files.leftovers) await files.disks.unlink(path)
      store.disks.resume()
    } catch (error) {
      await store.#closeFiles()
      throw error
    }
    return { store, entries }
  }

  /** The epoch that new blocks are stamped with; the sheep sets it with each view. */
  get epoch(): number {
    return this.#applier.epoch
  }

  set epoch(epoch: number) {
    this.#applier.epoch = epoch
  }

  /** Who is to be told of bytes that the next checkpoint gives back; see ChangeApplier. */
  set onFreed(onFreed: (bytes: number) => void) {
    this.#applier.onFreed = onFreed
  }

  /** Told of each change of an account, in the turn in which it is committed. */
  get accountListeners(): Set<(change: AccountChange) => void> {
    return this.#applier.accountListeners
  }

  get accounts(): Accounts {
    return this.#files.accounts
  }

  /** False when a start has found no accounts, or damaged ones: somebody has to count, `commit` that, and call `trustAccounts`. */
  get accountsKnown(): boolean {
    return this.#files.accountsKnown
  }

  /** The accounts have been set; resolves when the journal has all of them. */
  trustAccounts(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#journal.append({
        records: [],
        payload: [],
        durable: true,
        placed: () => {
          this.#files.accountsKnown = true
          this.#files.accountLog.trust(this.#journal.generation)
        },
        done: (error) => (error ? reject(error) : resolve()),
      })
    })
  }

  /** What this node knows of its copies; whoever commits changes of it applies them to this first. */
  get copies(): CopyTable {
    return this.#files.copies
  }

  /** Has the next checkpoint say so, without a transaction: for what costs little when a crash takes it. */
  noteCopies(record: CopyRecord): void {
    this.#checkpointer.noteCopies(this.#journal.generation, record)
  }

  get durability(): 'flush' | 'write' {
    return this.#options.durability
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

  /** Those of a VDI. */
  oidsOf(vid: number): Iterable<bigint> {
    return this.#cache.oidsOf(vid)
  }

  /** Of all disks that have not failed, as of the last checkpoint. What is kept for the next write is free: see KeptSlots. */
  get room(): { totalBytes: number; freeBytes: number } {
    const { totalBytes, freeBytes } = this.#disk.placement.room()
    return { totalBytes, freeBytes: freeBytes + this.#kept.bytes }
  }

  async stats(): Promise<StoreStats> {
    const disks = await this.disks.list()
    return {
      objects: this.#cache.size,
      ...this.room,
      checkpoints: this.#checkpointer.completed,
      corruptBlocks: this.#reader.corruptBlocks + this.#cache.corruptHeaders,
      disks: disks.length,
      failedDisks: disks.filter((disk) => disk.state === 'failed').length,
    }
  }

  measures(): StoreMeasures {
    const journal = this.#journal
    return {
      loadedObjects: this.#cache.loaded,
      reserveBytes: this.#options.reserveBytes,
      keptBytes: this.#kept.bytes,
      journal: {
        frames: journal.framesWritten,
        bytes: journal.bytesWritten,
        syncSeconds: journal.syncSeconds,
        waiting: journal.waiting,
        activeBytes: journal.activeBytes,
        activePayloadBytes: journal.activePayloadBytes,
        segmentBytes: this.#options.segmentBytes,
      },
      checkpoints: { seconds: this.#checkpointer.seconds, bytes: this.#checkpointer.bytesWritten },
      placedBytes: this.#placedWrites.bytesWritten,
    }
  }

  /** The object if it is loaded, null if it must be loaded first, undefined if there is none. */
  loadedNow(oid: bigint): StoredObject | null | undefined {
    return this.#cache.loadedNow(oid)
  }

  /** Whether `loadedNow` has nothing to do. */
  isLoaded(oid: bigint): boolean {
    return this.#cache.peek(oid)?.loaded ?? false
  }

  /** Whether it exists, and `lossOf` has nothing to say of it. */
  isSound(oid: bigint): boolean {
    return this.#cache.peek(oid)?.loss === null
  }

  /** Why an object cannot be read any more: its disk has failed. */
  lossOf(oid: bigint): StoreError | null {
    return this.#cache.peek(oid)?.loss ?? null
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

  /** Whether an object may take `bytes` more; asked before a change, so that a full disk refuses and breaks nothing. */
  hasRoom(object: Pick<StoredObject, 'oid'>, bytes: number): boolean {
    return this.#checkpointer.hasRoom(object.oid, bytes)
  }

  /** As `hasRoom`, for a new data object of `bytes` and `mapBytes` of the map that names it. */
  hasRoomForNew(bytes: number, mapBytes: number): boolean {
    return this.#checkpointer.hasRoomForNew(bytes, mapBytes)
  }

  /**
   * Applies the changes in memory, appends them to the journal as one transaction, and calls `done` when they are
   * acknowledged: with `durable`, or durability `write`, after a sync. Buffers must not change until then.
   */
  commit(changes: readonly Change[], options: CommitOptions, done: StoreDone): void {
    const epoch = options.epoch ?? this.#applier.epoch
    if (this.#closed) return done(new StoreError('Stopping'))
    const loss = this.#lossOf(changes)
    if (loss) return done(loss)
    const made = changes.filter((change) => change.kind === 'create')
    for (const { oid } of made) this.#disk.placement.place(oid, bytesOf(changes, oid))
    let placement: Placement | null
    try {
      placement = this.#place(changes, epoch)
    } catch (error) {
      if (!(error instanceof MemberFailed)) {
        for (const { oid } of made) this.#disk.placement.unplace(oid)
        return done(this.#journal.fail('writing an object file', error))
      }
      // The disk is taken out: what was on it is lost, and what is new goes elsewhere, through the journal.
      for (const { oid } of made) this.#disk.placement.unplace(oid)
      return this.commit(changes, options, done)
    }
    const transaction = this.#applier.apply(changes, placement, epoch)
    this.#journal.append({
      records: transaction.records,
      payload: transaction.payload,
      durable: options.durable || this.#options.durability === 'write',
      placed: (location) => {
        this.#finish(placement)
        const { generation, lastSequence } = this.#journal
        transaction.stamp(location, generation, lastSequence)
        this.#promise(generation, changes, placement)
        this.#checkpointer.note(generation, transaction)
      },
      done: (error) => done(error ?? lossOfAny(transaction.objects)),
    })
    if (placement?.finish) this.#journal.flush()
    if (placement) this.#limitPlaced()
  }

  /** Charges what these changes allocate at most: their checkpoint, or what has placed them already. */
  #promise(generation: number, changes: readonly Change[], placement: Placement | null): void {
    for (const change of changes) {
      if (change.kind === 'create') this.#disk.placement.promise(generation, change.oid, OBJECT_TAIL_BYTES)
      if (change.kind !== 'blocks') continue
      const oid = typeof change.object === 'bigint' ? change.object : change.object.oid
      const isPlaced = placement?.bytes === change.bytes
      this.#disk.placement.promise(generation, oid, isPlaced ? placement.newBlocks * BLOCK_BYTES : change.bytes.length)
    }
  }

  /** The journal says what the rest of a large write will replace. */
  #finish(placement: Placement | null): void {
    try {
      placement?.finish?.()
    } catch (error) {
      // An object that is lost with its disk is not acknowledged.
      if (!(error instanceof MemberFailed)) this.#journal.fail('writing an object file', error)
    }
  }

  /**
   * Writes the bytes of a transaction that has one large write to where they will stay, if that may be done. Beside it the
   * transaction of a new object may have small ones, such as a page of the map: nothing of it waits to be replaced.
   */
  #place(changes: readonly Change[], epoch: number): Placement | null {
    const writes = changes.filter((change) => change.kind === 'blocks')
    const [write, another] = writes.filter((change) => change.bytes.length >= this.#placedMinBytes)
    if (!write || another) return null
    if (this.#placedShare >= 2) return null
    const { object } = write
    const oid = typeof object === 'bigint' ? object : object.oid
    if (!this.#disk.placement.takesPlaced(oid) || !this.#checkpointer.hasRoom(oid, write.bytes.length)) return null
    const isNew = changes.some((change) => change.kind === 'create' && change.oid === object)
    if (writes.length > 1 && !isNew) return null
    const target = typeof object === 'bigint' && !isNew ? this.#cache.find(object) : object
    try {
      return this.#placedWrites.place(target, write, epoch, this.#journal)
    } catch (error) {
      // Others have used the room up. The journal has its own, and its checkpoint waits until there is some.
      if ((error as NodeJS.ErrnoException).code === 'ENOSPC') return null
      throw error
    }
  }

  /** What is placed takes no room in the journal; a checkpoint in time keeps a replay short, and the open files few. */
  #limitPlaced(): void {
    if (this.#sealScheduled) return
    if (this.#placedShare < 1) return
    this.#sealScheduled = true
    this.#options.clock.afterInput(() => {
      this.#sealScheduled = false
      this.#journal.seal()
    })
  }

  /** Of what a generation may have placed before it is checkpointed early. */
  get #placedShare(): number {
    const { generation } = this.#journal
    const bytes = this.#checkpointer.placedBytes(generation) / (PLACED_SEGMENTS_MAX * this.#options.segmentBytes)
    const files = this.#checkpointer.placedFiles(generation) + this.#placedWrites.heldFiles
    return Math.max(bytes, files / this.#placedFilesMax)
  }

  /** A change of an object that is lost with its disk is refused; removing it is not. */
  #lossOf(changes: readonly Change[]): StoreError | null {
    for (const change of changes) {
      if (change.kind !== 'blocks' && change.kind !== 'zero' && change.kind !== 'inherit') continue
      const object = typeof change.object === 'bigint' ? this.#cache.peek(change.object) : change.object
      if (object?.loss) return object.loss
    }
    return null
  }

  /** Makes everything acknowledged so far durable. */
  sync(done: StoreDone): void {
    this.#journal.sync(done)
  }

  /** What a block is, without reading it; see BlockReader. */
  blockState(object: StoredObject, block: number): { state: BlockState; holderVid: number } | null {
    return this.#reader.blockState(object, block)
  }

  /** The vid whose object has the bytes of a block: the object's own, another that it is inherited from, or 0 for zeros. */
  holderOf(object: StoredObject, block: number): number {
    const found = this.blockState(object, block)
    if (!found || found.state === 'zero') return 0
    return found.state === 'data' ? oidVid(object.oid) : found.holderVid
  }

  /** The runs with which a new object inherits all that this one holds or inherits itself. */
  inheritRuns(object: StoredObject): InheritRun[] {
    const holders = object.holderVids(oidVid(object.oid))
    if (typeof holders === 'number') throw this.#reader.corrupt(object, holders)
    const runs: InheritRun[] = []
    for (let first = 0; first < BLOCKS_PER_OBJECT; ) {
      const holderVid = holders[first]!
      let end = first + 1
      while (end < BLOCKS_PER_OBJECT && holders[end] === holderVid) end++
      if (holderVid !== 0) runs.push({ first, count: end - first, holderVid })
      first = end
    }
    return runs
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

  /** Gives back what a crash has left in the file of an object of large writes that it cut off; returns how many blocks. */
  punchStraySlots(oid: bigint): Promise<number> {
    return this.#cache.using(oid, (object) => punchStraySlots(object, this.#punches))
  }

  /** Moves what the journal holds into the object files, in the background: space of removed objects comes back by that. */
  startCheckpoint(): void {
    this.#checkpointer.startSoon()
  }

  /** Brings everything into the object files, so that the next start has nothing to replay, and closes the files. */
  async close(): Promise<void> {
    this.#closed = true
    await this.disks.stop()
    await this.#checkpointer.finish()
    await this.#kept.close()
    await this.#placedWrites.close()
    await Promise.allSettled([this.#punches.settled(), this.#journal.settled()])
    await this.#closeFiles()
  }

  async #closeFiles(): Promise<void> {
    await this.#cache.close()
    await this.#files.close()
  }
}

/** What a transaction writes to an object that it makes. */
function bytesOf(changes: readonly Change[], oid: bigint): number {
  let bytes = OBJECT_TAIL_BYTES
  for (const change of changes) if (change.kind === 'blocks' && change.object === oid) bytes += change.bytes.length
  return bytes
}

/** The disk of an object may have failed while its change was on the way: that is not acknowledged. */
function lossOfAny(objects: readonly StoredObject[]): StoreError | null {
  for (const object of objects) if (object.loss && !object.removed) return object.loss
  return null
}
