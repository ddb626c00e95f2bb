import assert from 'node:assert'
import { StoreError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Copy, DiskFile, Write } from '../runtime/disk.ts'
import { Histogram } from '../runtime/histogram.ts'
import type { Log } from '../runtime/log.ts'
import { AccountImages } from './accounts.ts'
import type { CopyRecord } from './copies/copy-records.ts'
import { CopyChanges } from './copies/copy-table.ts'
import type { DiskArray } from './disks/disk-array.ts'
import { MemberFailed, memberOfFile } from './disks/member.ts'
import type { RoomComing } from './disks/placement.ts'
import type { LoggedEntry } from './entry-log.ts'
import { giveBack } from './give-back.ts'
import type { Journal } from './journal.ts'
import type { AccountImage } from './journal-format.ts'
import type { KeptSlots } from './kept-slots.ts'
import type { ObjectCache } from './object-cache.ts'
import { BLOCK_BYTES, OBJECT_TAIL_BYTES, objectDirectory, objectPath, TABLE_OFFSET } from './object-format.ts'
import { blocksOf, copiesOf, encodeTail, type ObjectWrite, settle, writtenBytes } from './object-write.ts'
import type { SlotPunches } from './slot-punches.ts'
import type { StoreFiles } from './store-files.ts'
import type { DirtyGeneration, StoredObject } from './stored-object.ts'
import { punchStraySlots } from './stray-slots.ts'

const COPIES_PER_BATCH = 512
/** Tables that wait to be written, at 12 KiB each. */
const TAILS_PER_BATCH = 128
const NO_SPACE_RETRY_MS = 1000
const LOG_SLACK_ENTRIES = 1000
const DURATION_BOUNDS_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]

/**
 * Moves what a sealed generation of the journal holds into the object files and the ordered log. The order is what makes
 * it safe:
 *
 * 1. sync the journal, and say in the superblock that it is synced: an object file is never changed in place before the
 *    record that says so is durable, and no replay asks whether it is;
 * 2. remove, create and write files; sync them and their directories; append to the logs and the accounts and sync them;
 * 3. write the superblock: only now the generation does not need its segment any more; release it;
 * 4. give the slots back that nothing names any more (give-back.ts), or keep them for the next write (kept-slots.ts).
 *
 * The files get every block as this generation left it, also where a newer one has replaced it since: what is newer may not
 * be durable, and may never be. A crash anywhere in between repeats everything from the journal: records are post-images.
 *
 * When a disk other than the first fails meanwhile, all of it is repeated without that disk: what only the journal has of
 * objects that were new there goes to others. The list of disks says that it has failed before the superblock lets go of
 * what the journal held for its other objects.
 */
export class Checkpointer {
  readonly #disk: DiskArray
  readonly #log: Log
  readonly #clock: Clock
  readonly #files: StoreFiles
  readonly #journal: Journal
  readonly #cache: ObjectCache
  readonly #punches: SlotPunches
  readonly #kept: KeptSlots
  readonly #batchMax: number
  readonly #dirty = new Map<number, DirtyGeneration>()
  #running: Promise<void> = Promise.resolve()
  #isSoon = false
  /** The node is stopping: what finds no room stays in the journal. */
  #finishing = false
  /** It is the first attempt, on files that this process knows: so it is known of each slot whether it is a hole. */
  #knowsHoles = false
  /** When to look for room at the earliest, if there is none. */
  #nextLookMs = 0
  /** Index of the last entry of the ordered log that the journal has. */
  #writtenIndex: number
  completed = 0
  /** Of those that completed, without waiting for room. */
  readonly seconds = new Histogram(DURATION_BOUNDS_SECONDS)
  /** Written to object files: blocks, tables and headers. */
  bytesWritten = 0
  logSnapshot: (() => { index: number; liveEntries: number; entries(): Buffer[] }) | null = null

  constructor(options: {
    log: Log
    clock: Clock
    files: StoreFiles
    journal: Journal
    cache: ObjectCache
    punches: SlotPunches
    kept: KeptSlots
    /** How many objects are written, and so open, at the same time. */
    batchMax: number
  }) {
    this.#disk = options.files.disks
    this.#log = options.log
    this.#clock = options.clock
    this.#files = options.files
    this.#journal = options.journal
    this.#cache = options.cache
    this.#punches = options.punches
    this.#kept = options.kept
    this.#batchMax = options.batchMax
    this.#writtenIndex = options.files.replayed?.dirty.entries.at(-1)?.index ?? options.files.log.lastIndex
  }

  /** Brings the replayed journal into the files, before anything new is written. Throws NoSpace when they have no room. */
  async recover(): Promise<void> {
    const { replayed } = this.#files
    if (!replayed) return
    this.#dirty.set(replayed.generation, replayed.dirty)
    for (;;) {
      try {
        const written = await this.#apply(replayed.generation, replayed.nextSequence)
        return await this.#complete(replayed.generation, written)
      } catch (error) {
        if (!isNoSpace(error)) throw error
        // The room that it was promised may have been that of kept slots, which nobody knows of any more.
        if ((await this.#giveStraysBack()) > 0) continue
        throw new StoreError('NoSpace', 'what the journal holds does not fit into the object files', { cause: error })
      }
    }
  }

  /** What a crash has left in slots that nothing names, in any object; returns how many blocks that were. */
  async #giveStraysBack(): Promise<number> {
    let blocks = 0
    for (const oid of [...this.#cache.oids()]) {
      const given = this.#cache.using(oid, (object) => punchStraySlots(object, this.#punches))
      blocks += await given.catch(() => 0) // whoever wants to read it is told why
    }
    return blocks
  }

  /** Remembers what a transaction of this generation changed. */
  note(
    generation: number,
    changed: {
      objects: readonly StoredObject[]
      entries: readonly LoggedEntry[]
      accounts: readonly AccountImage[]
      copies: readonly CopyRecord[] | null
      placedBlocks: number
      placedFiles: number
    },
  ): void {
    const { objects, entries } = changed
    const dirty = this.#dirtyOf(generation)
    for (const image of changed.accounts) dirty.accounts.put(image)
    for (const object of objects) dirty.objects.set(object, object.version)
    dirty.entries.push(...entries)
    if (changed.copies) for (const record of changed.copies) dirty.copies.put(record)
    dirty.placedBlocks += changed.placedBlocks
    dirty.placedFiles += changed.placedFiles
    this.#writtenIndex = entries.at(-1)?.index ?? this.#writtenIndex
  }

  #dirtyOf(generation: number): DirtyGeneration {
    let dirty = this.#dirty.get(generation)
    if (!dirty) {
      dirty = {
        objects: new Map(),
        entries: [],
        accounts: new AccountImages(),
        copies: new CopyChanges(),
        placedBlocks: 0,
        placedFiles: 0,
      }
      this.#dirty.set(generation, dirty)
    }
    return dirty
  }

  /** The checkpoint of this generation will say so; until then a crash may take it. */
  noteCopies(generation: number, record: CopyRecord): void {
    this.#dirtyOf(generation).copies.put(record)
  }

  /** Bytes that transactions of a generation have put into object files. */
  placedBytes(generation: number): number {
    return (this.#dirty.get(generation)?.placedBlocks ?? 0) * BLOCK_BYTES
  }

  /** Files of new objects that transactions of a generation have made, and that are open. */
  placedFiles(generation: number): number {
    return this.#dirty.get(generation)?.placedFiles ?? 0
  }

  /** Whether an object may take `bytes` more; see ObjectStore. */
  hasRoom(oid: bigint, bytes: number): boolean {
    const fits = (comingOn?: RoomComing) => this.#disk.placement.hasRoomFor(oid, bytes, comingOn)
    return fits() || this.#kept.makeRoom(fits) || this.#lookForRoom()
  }

  /** Whether a new data object of `bytes` fits somewhere, and `mapBytes` of its map on the first disk. */
  hasRoomForNew(bytes: number, mapBytes: number): boolean {
    const fits = (comingOn?: RoomComing) => this.#disk.placement.hasRoomForNew(bytes, mapBytes, comingOn)
    return fits() || this.#kept.makeRoom(fits) || this.#lookForRoom()
  }

  /** Checkpoints what there is, since only that gives the space of removed objects back, and asks the disk again. */
  #lookForRoom(): false {
    const now = this.#clock.monotonicMs()
    if (now < this.#nextLookMs) return false
    this.#nextLookMs = now + NO_SPACE_RETRY_MS
    this.#clock.afterInput(() => {
      if (this.#journal.seal()) return
      this.#running = this.#running.then(() => this.#askForSpace())
    })
    return false
  }

  async #askForSpace(): Promise<void> {
    try {
      await this.#disk.membership.refresh()
    } catch (error) {
      this.#journal.fail('asking for the free space', error)
    }
  }

  /** Checkpoints what the journal holds now, as soon as the checkpoint that may be running is done. */
  startSoon(): void {
    if (this.#isSoon) return
    this.#isSoon = true
    this.#running = this.#running.then(() => {
      this.#isSoon = false
      this.#journal.seal()
    })
  }

  /** Runs work between two checkpoints, so that no file is written by one meanwhile. */
  between<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#running.then(work)
    const ended = () => {}
    this.#running = result.then(ended, ended)
    return result
  }

  /** Starts the checkpoint of a generation that the journal has sealed. */
  start(generation: number, nextSequence: number): void {
    this.#running = this.#running.then(async () => {
      try {
        this.#knowsHoles = true
        const written = await this.#applyWithRoom(generation, nextSequence)
        this.#journal.release()
        await this.#complete(generation, written)
      } catch (error) {
        this.#journal.fail('checkpoint', error)
      }
    })
  }

  /** Checkpoints everything; resolves when nothing is left in the journal, or when a full disk or a failed one keeps it there. */
  async finish(): Promise<void> {
    this.#finishing = true
    for (let running: Promise<void> | null = null; running !== this.#running; this.#journal.seal()) {
      running = this.#running
      await running
    }
  }

  async #applyWithRoom(generation: number, nextSequence: number): Promise<ObjectWrite[]> {
    for (;;) {
      try {
        return await this.#apply(generation, nextSequence)
      } catch (error) {
        if (!isNoSpace(error)) throw error
        this.#knowsHoles = false
        if ((await this.#kept.giveAllBack()) > 0) continue
        if (this.#finishing) throw error
        this.#disk.placement.assumeFull(error)
        this.#log.error({ retryMs: NO_SPACE_RETRY_MS }, 'the disk is full: writes stop until there is room again')
        await this.#clock.sleep(NO_SPACE_RETRY_MS)
      }
    }
  }

  async #apply(generation: number, nextSequence: number): Promise<ObjectWrite[]> {
    const startedMs = this.#clock.monotonicMs()
    let written: ObjectWrite[] = []
    for (let failures = -1; failures !== this.#disk.membership.failures; ) {
      failures = this.#disk.membership.failures
      try {
        written = await this.#applyOnce(generation, nextSequence)
      } catch (error) {
        if (!(error instanceof MemberFailed) || failures === this.#disk.membership.failures) throw error
        this.#knowsHoles = false
      }
    }
    for (const write of written) settle(write, generation)
    for (const write of written) this.bytesWritten += writtenBytes(write)
    this.seconds.observe((this.#clock.monotonicMs() - startedMs) / 1000)
    for (const object of this.#dirty.get(generation)?.objects.keys() ?? []) {
      if (object.removedIn > generation) continue
      this.#disk.placement.removed(object)
      this.#kept.forget(object)
    }
    this.#dirty.delete(generation)
    return written
  }

  /** What may come after the segment is released: nothing of it is wanted after a crash. */
  async #complete(generation: number, written: readonly ObjectWrite[]): Promise<void> {
    try {
      const mayKeep = this.#knowsHoles && !this.#finishing
      await giveBack(written, this.#disk, this.#cache, (write) => this.#kept.settle(write, mayKeep))
    } catch (error) {
      if (!(error instanceof MemberFailed)) throw error
    }
    this.#disk.placement.settle(generation) // what was promised to it counts as taken until the disk is asked anew
    await this.#disk.membership.refresh()
    this.completed++
  }

  async #applyOnce(generation: number, nextSequence: number): Promise<ObjectWrite[]> {
    await this.#punches.settled()
    await this.#syncJournal()
    await this.#files.superblock.write({ synced: this.#journal.syncedSequence })
    // An object that was made anew elsewhere, because the disk with its name had failed, is about to take that name.
    await this.#disk.membership.save()
    const dirty = this.#dirty.get(generation)
    const written: ObjectWrite[] = []
    if (dirty) {
      const changedDirectories = new Set<string>()
      const removed = [...dirty.objects.keys()].filter((object) => object.removedIn <= generation)
      const live = [...dirty.objects].filter(([object]) => object.removedIn > generation && !object.lost)
      await this.#removeFiles(removed, new Set(live.map(([object]) => object)), changedDirectories)
      for (let first = 0; first < live.length; first += this.#batchMax) {
        const batch = live.slice(first, first + this.#batchMax)
        written.push(...(await this.#writeObjects(batch, generation, changedDirectories)))
      }
      await this.#disk.syncMany([], [...changedDirectories])
      await this.#files.log.append(dirty.entries)
    }
    await this.#files.accountLog.append(generation, dirty?.accounts ?? [])
    if (dirty) await this.#files.copyLog.append(generation, dirty.copies)
    await this.#compactLog()
    await this.#disk.membership.prove()
    await this.#disk.membership.save()
    const positions = { ...this.#files.log.position, ...this.#files.copyLog.position }
    await this.#files.superblock.write({ generation, sequence: nextSequence, ...positions })
    await this.#files.copyLog.named()
    return written
  }

  async #removeFiles(
    removed: readonly StoredObject[],
    live: ReadonlySet<StoredObject>,
    changedDirectories: Set<string>,
  ): Promise<void> {
    // The name of an object that was created anew, and has its file, may be that file's already, if this is repeated.
    const reused = new Set([...live].filter((object) => object.tag !== 0).map((object) => object.oid))
    for (const object of removed) {
      changedDirectories.add(objectDirectory(object.oid))
      if (object.unlinked) continue // the name may be that of a new object already
      if (object.tag !== 0) await this.#disk.unlink(objectPath(object.oid, object.tag))
      if (reused.has(object.oid)) await this.#disk.unlinkStranded(object, objectPath(object.oid))
      else await this.#disk.unlink(objectPath(object.oid))
      object.holders++
      object.unlinked = true
      this.#cache.release(object) // closes the file, unless somebody still reads
    }
  }

  /** Writes what a generation changed in these objects, durably; they are held while that goes on. */
  async #writeObjects(
    batch: readonly [StoredObject, number][],
    generation: number,
    changedDirectories: Set<string>,
  ): Promise<ObjectWrite[]> {
    const held: StoredObject[] = []
    const writes: ObjectWrite[] = []
    const files: DiskFile[] = []
    try {
      for (const [object] of batch) {
        await this.#cache.holdObject(object)
        held.push(object)
      }
      await this.#makeFiles(held, changedDirectories)
      let copies: Copy[] = []
      const tails = Buffer.alloc(Math.min(batch.length, TAILS_PER_BATCH) * OBJECT_TAIL_BYTES)
      let tailWrites: Write[] = []
      for (const [object, version] of batch) {
        const { file, table } = object
        assert(file && table)
        const write = { object, version, blocks: blocksOf(object, generation) }
        writes.push(write)
        files.push(file)
        copies.push(...copiesOf(write, file, this.#journal))
        if (copies.length >= COPIES_PER_BATCH) {
          await this.#disk.copyMany(copies)
          copies = []
        }
        const at = tailWrites.length * OBJECT_TAIL_BYTES
        const bytes = tails.subarray(at, at + OBJECT_TAIL_BYTES)
        encodeTail(bytes, write, table, this.#files.superblock.content.storeId)
        tailWrites.push({ to: file, position: TABLE_OFFSET, bytes })
        if (tailWrites.length === TAILS_PER_BATCH) {
          await this.#disk.writeMany(tailWrites)
          tailWrites = []
        }
      }
      await this.#disk.copyMany(copies)
      await this.#disk.writeMany(tailWrites)
      await this.#disk.syncMany(files)
    } finally {
      for (const object of held) this.#cache.release(object)
    }
    return writes
  }

  /** Every object has a file under its own name from now on. */
  async #makeFiles(objects: readonly StoredObject[], changedDirectories: Set<string>): Promise<void> {
    const fresh = objects.filter((object) => object.fresh)
    for (const object of fresh) {
      changedDirectories.add(objectDirectory(object.oid))
      if (object.tag !== 0) await this.#giveName(object)
    }
    const bare = fresh.filter((object) => !object.file)
    // Empty, whatever a removed object of this name has left; writing the header gives it its size.
    const files = await this.#disk.createMany(bare.map((object) => objectPath(object.oid)))
    // A disk may have failed while the files of another were made: what was to have a file there has another place by now.
    const failure = files.map((file) => memberOfFile(file)?.failure).find((found) => found)
    if (failure) {
      for (const file of files) await file.close()
      throw failure
    }
    bare.forEach((object, i) => {
      object.file = files[i]!
    })
  }

  /** The file of placed blocks becomes the object's, unless that was done before a crash. */
  async #giveName(object: StoredObject): Promise<void> {
    const path = objectPath(object.oid)
    try {
      await this.#disk.rename(objectPath(object.oid, object.tag), path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
    object.file ??= await this.#disk.open(path)
  }

  async #compactLog(): Promise<void> {
    const snapshot = this.logSnapshot?.()
    const log = this.#files.log
    if (!snapshot || log.entryCount <= 2 * snapshot.liveEntries + LOG_SLACK_ENTRIES) return
    // The snapshot holds entries that only the active segment has, and they must not last without what they change in
    // objects: those that wait for a segment come with a later compaction, the others are synced first.
    if (snapshot.index > this.#writtenIndex) return
    const entries = snapshot.entries()
    await this.#syncJournal()
    await log.compact(snapshot.index, entries)
  }

  #syncJournal(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#journal.syncWritten((error) => (error ? reject(error) : resolve()))
    })
  }
}

const isNoSpace = (error: unknown) => (error as NodeJS.ErrnoException).code === 'ENOSPC'
