import assert from 'node:assert'
import { StoreError } from '../errors.ts'
import { type Disk, type DiskFile, WOULD_BLOCK } from '../runtime/disk.ts'
import type { Log } from '../runtime/log.ts'
import {
  BLOCK_BYTES,
  BLOCKS_PER_OBJECT,
  decodeHeader,
  HEADER_OFFSET,
  objectPath,
  TABLE_BYTES,
  TABLE_OFFSET,
} from './object-format.ts'
import { ObjectsByVdi } from './objects-by-vdi.ts'
import type { StoredObject } from './stored-object.ts'
import { readWords } from './words.ts'

export interface ObjectCacheOptions {
  disk: Pick<Disk, 'open' | 'openNow'>
  log: Log
  storeId: Buffer
  /** Every object of this node, loaded or not. */
  objects: Map<bigint, StoredObject>
  /** How many may be loaded before those not in use are asked to give way. */
  loadedMax: number
}

const EVICTION_LOOKS_MAX = 64
/** Those that are loaded without waiting give way to each other in batches, since closing one file wakes up a thread. */
const EVICTION_BATCH_MAX = 32

/** What is read and looked at without waiting. */
const tailNow = Buffer.alloc(TABLE_BYTES + BLOCK_BYTES)

/**
 * Which objects there are, and which of them are loaded: have their table in memory and their file open. What `loadedNow`
 * answers stays loaded until the caller awaits something; `hold` loads an object and keeps it loaded until `release`.
 */
export class ObjectCache {
  readonly #options: ObjectCacheOptions
  readonly #objects: Map<bigint, StoredObject>
  /** Null until somebody asks for it: a store of one node has no use for it. */
  #byVdi: ObjectsByVdi | null = null
  /** Those that may be asked to give up table and file, in order of loading. */
  readonly #loaded = new Set<StoredObject>()
  #evictionIsDue = false
  /**
   * Whom to ask next. It stays in the set: to start anew means to pass by all places of those that have left. One that stands
   * still keeps all that the set held since, so it moves also when nobody has to be asked.
   */
  #hand = this.#loaded.values()
  /** Headers that were found damaged. */
  corruptHeaders = 0

  constructor(options: ObjectCacheOptions) {
    this.#options = options
    this.#objects = options.objects
    // What a start has found in the journal alone is loaded from the start.
    for (const object of options.objects.values()) if (object.loaded) this.#loaded.add(object)
  }

  get size(): number {
    return this.#objects.size
  }

  /** How many have their table in memory and their file open. */
  get loaded(): number {
    return this.#loaded.size
  }

  exists(oid: bigint): boolean {
    return this.#objects.has(oid)
  }

  oids(): IterableIterator<bigint> {
    return this.#objects.keys()
  }

  /** The objects of a VDI. Only the first call looks at all that there are. */
  oidsOf(vid: number): Iterable<bigint> {
    this.#byVdi ??= new ObjectsByVdi(this.#objects.keys())
    return this.#byVdi.of(vid)
  }

  /** Throws NoObject. */
  find(oid: bigint): StoredObject {
    const object = this.#objects.get(oid)
    if (!object) throw new StoreError('NoObject', oid.toString(16))
    return object
  }

  /** The object, loaded or not; undefined when there is none. */
  peek(oid: bigint): StoredObject | undefined {
    return this.#objects.get(oid)
  }

  /** A new object, loaded from the start. */
  add(object: StoredObject): void {
    object.touched = true
    this.#objects.set(object.oid, object)
    this.#byVdi?.add(object.oid)
    this.#loaded.add(object)
  }

  /** The object is removed; whoever holds it goes on with it until the checkpoint has unlinked its file and they release it. */
  remove(object: StoredObject): void {
    this.#objects.delete(object.oid)
    this.#byVdi?.remove(object.oid)
    if (this.#loaded.delete(object)) this.#hand.next()
  }

  /** The object if it is loaded, or can be without waiting; null if it must be loaded first, undefined if there is none. */
  loadedNow(oid: bigint): StoredObject | null | undefined {
    const object = this.#objects.get(oid)
    if (object === undefined) return undefined
    if (!object.loaded && !this.#loadNow(object)) return null
    object.touched = true
    return object
  }

  /**
   * Loads an object and keeps it loaded until `release`. Throws NoObject, or CorruptBlock when the object's header is
   * damaged; then nothing is held.
   */
  async hold(oid: bigint): Promise<StoredObject> {
    const object = this.find(oid)
    await this.holdObject(object)
    return object
  }

  /** As `hold`, for an object that may be removed already. */
  async holdObject(object: StoredObject): Promise<void> {
    object.holders++
    object.touched = true
    try {
      if (object.loaded) return
      if (object.loss) throw object.loss
      object.loading ??= this.#readTable(object).finally(() => {
        object.loading = null
      })
      await object.loading
    } catch (error) {
      this.release(object)
      throw error
    }
  }

  /** As `holdObject`, for one that is loaded. */
  holdLoaded(object: StoredObject): void {
    assert(object.loaded)
    object.holders++
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
    if (object.retired.length > 0 && object.holders === 0) {
      for (const file of object.retired) this.#close(file)
      object.retired = []
    }
    this.#evict()
  }

  /**
   * The object is in another file now, or will be. The one that it had stays open until nobody holds the object: somebody may read it,
   * and the copying thread knows it by a number that is another file's as soon as it is closed.
   */
  exchangeFile(object: StoredObject, file: DiskFile | null): void {
    const before = object.file
    object.file = file
    if (before && object.holders > 0) object.retired.push(before)
    else if (before) this.#close(before)
  }

  /** What was on a disk that has failed. No file there stays open longer than it is held: the disk is to be taken out. */
  lose(object: StoredObject, failure: StoreError | null): void {
    object.loss = failure
    object.overlay.clear()
    this.exchangeFile(object, null)
  }

  async #readTable(object: StoredObject): Promise<void> {
    const path = objectPath(object.oid)
    const file = this.#options.disk.openNow(path) ?? (await this.#openFile(object, path))
    const tail = Buffer.alloc(TABLE_BYTES + BLOCK_BYTES)
    if (file.readNow(tail, TABLE_OFFSET) === WOULD_BLOCK) await file.read(tail, TABLE_OFFSET)
    const problem = this.#adopt(object, file, tail)
    if (problem !== null) {
      await file.close()
      this.corruptHeaders++
      throw new StoreError('CorruptBlock', `${path}: ${problem}`)
    }
    this.#evict()
  }

  /** False when the object has to be loaded by `hold`, which may wait, and says what is wrong with it. */
  #loadNow(object: StoredObject): boolean {
    if (object.loading || object.loss) return false
    const file = this.#options.disk.openNow(objectPath(object.oid))
    if (!file) return false
    if (file.readNow(tailNow, TABLE_OFFSET) === WOULD_BLOCK || this.#adopt(object, file, tailNow) !== null) {
      this.#close(file)
      return false
    }
    this.#evictLater()
    return true
  }

  /** The object is loaded now, unless there is a problem with its header, which is returned. */
  #adopt(object: StoredObject, file: DiskFile, tail: Buffer): string | null {
    const header = decodeHeader(tail.subarray(HEADER_OFFSET - TABLE_OFFSET))
    const problem =
      'problem' in header
        ? header.problem
        : header.oid !== object.oid || !header.storeId.equals(this.#options.storeId)
          ? 'it belongs to another object or store'
          : null
    if (problem !== null) return problem
    object.file = file
    object.table = readWords(tail, BLOCKS_PER_OBJECT * 2)
    if (!('problem' in header)) object.version = Math.max(object.version, header.version)
    this.#loaded.add(object)
    return null
  }

  async #openFile(object: StoredObject, path: string): Promise<DiskFile> {
    try {
      return await this.#options.disk.open(path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      if (object.removed) throw new StoreError('NoObject', object.oid.toString(16))
      throw new StoreError('CorruptBlock', `${path} is missing`)
    }
  }

  /**
   * Second chance: an object that was not used since the last look gives up its table and file handle. One that is dirty may:
   * its overlay stays, and the checkpoint loads it again. A bounded number of looks, so that no load waits for them.
   */
  #evict(): void {
    for (let looks = 0; this.#loaded.size > this.#options.loadedMax && looks < EVICTION_LOOKS_MAX; looks++) {
      const object = this.#nextInTurn()
      if (object.touched || object.holders > 0 || object.fresh) {
        object.touched = false
        continue
      }
      this.#loaded.delete(object)
      object.table = null
      this.#closeFile(object)
    }
  }

  /** Once whoever runs now has awaited something: it may have been told of others that they stay. */
  #evictLater(): void {
    const { loadedMax } = this.#options
    const excess = this.#loaded.size - loadedMax
    if (this.#evictionIsDue || excess < Math.min(EVICTION_BATCH_MAX, loadedMax / 8)) return
    this.#evictionIsDue = true
    queueMicrotask(() => {
      this.#evictionIsDue = false
      this.#evict()
    })
  }

  /** Goes round among those that are loaded; there must be one. */
  #nextInTurn(): StoredObject {
    let next = this.#hand.next()
    if (next.done) {
      this.#hand = this.#loaded.values()
      next = this.#hand.next()
    }
    assert(!next.done)
    return next.value
  }

  #closeFile(object: StoredObject): void {
    const file = object.file
    object.file = null
    if (file) this.#close(file)
  }

  #close(file: DiskFile): void {
    file.close().catch((error) => this.#options.log.warn({ err: error }, 'closing an object file failed'))
  }

  /** Closes all files. */
  async close(): Promise<void> {
    for (const object of this.#loaded) await object.file?.close()
  }
}
