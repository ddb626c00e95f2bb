import assert from 'node:assert'
import { StoreError, toStoreError } from '../errors.ts'
import { dataOid, oidVid } from '../protocol/oid.ts'
import { BlockMap } from './block-map.ts'
import { type Edges, eachObject, isInRange, partialBlocks, roundUp, wholeBlocks } from './block-range.ts'
import type { Change, StoreDone } from './change.ts'
import { MemberFailed } from './disks/member.ts'
import { Gate } from './gate.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, OBJECT_BYTES, OBJECT_TAIL_BYTES } from './object-format.ts'
import type { ObjectStore } from './object-store.ts'
import type { Owner, OwnerExtent, OwnerMaker } from './owner-contract.ts'
import type { StoredObject } from './stored-object.ts'
import { Tally } from './tally.ts'

/**
 * The owner of one VDI on a single node: it alone maps and allocates. Byte ranges come in, transactions on objects go out.
 *
 * 1. A write to an object of its own is one transaction; one that needs a new object is one transaction of the object, its
 *    bytes and the map entry. A new object inherits block by block from the object that it replaces, so the first write
 *    after a snapshot copies nothing.
 * 2. Writes of less than a block read the block first. While that has to wait, further changes of the same object wait too.
 * 3. What a change does to the account of the VDI is in the same transaction. A steady overwrite does nothing to it.
 * 4. `freeze` lets everything received be answered and holds what comes after; `thaw` goes on, under a new vid if
 *    `moveTo` has named one.
 */
export class VdiOwner implements Owner {
  readonly #store: ObjectStore
  #map: BlockMap
  /** Changes that wait for an object on which an asynchronous one is at work. */
  readonly #waiting = new Map<number, (() => void)[]>()
  /** Objects by index as they were last found; checked at use. */
  #objects: (StoredObject | undefined)[] = []
  /** Objects too damaged to be loaded, as found by a discard of all of them: they go, uncounted. */
  readonly #unreadable = new Set<bigint>()
  /** Closed while the VDI is frozen. */
  readonly #gate = new Gate()
  vid: number
  sizeBytes: number

  constructor(store: ObjectStore, vid: number, sizeBytes: number) {
    this.#store = store
    this.#map = new BlockMap(store, vid)
    this.vid = vid
    this.sizeBytes = sizeBytes
  }

  get map(): BlockMap {
    return this.#map
  }

  read(offset: number, target: Buffer, done: StoreDone): void {
    this.#admit(offset, target.length, done, (finish) => this.#read(offset, target, finish))
  }

  write(offset: number, source: Buffer, durable: boolean, done: StoreDone, crcs?: Uint32Array): void {
    this.#admit(offset, source.length, done, (finish) => {
      eachObject(offset, source.length, finish, (index, at, from, length, partDone) => {
        const bytes = length === source.length ? source : source.subarray(from, from + length)
        const part = { bytes, crcs: crcs?.subarray(from / BLOCK_BYTES, (from + length) / BLOCK_BYTES) }
        this.#change(
          index,
          partDone,
          (edges) => this.#writeObject(index, at, part, durable, edges, partDone),
          at,
          length,
        )
      })
    })
  }

  discard(offset: number, length: number, durable: boolean, done: StoreDone): void {
    this.#admit(offset, length, done, (finish) => {
      eachObject(offset, length, finish, (index, at, _from, part, partDone) => {
        this.#change(
          index,
          partDone,
          (edges) => this.#discardObject(index, at, part, durable, edges, partDone),
          at,
          part,
        )
      })
    })
  }

  flush(done: StoreDone): void {
    this.#admit(0, 0, done, (finish) => this.#store.sync(finish))
  }

  whenCurrent(vid: number, range: { first: number; count: number }, late: StoreDone, run: () => void): void {
    if (this.#gate.holds(() => this.whenCurrent(vid, range, late, run))) return
    if (vid !== this.vid) return late(new StoreError('ReadOnly'))
    if (this.#map.isLoaded(range)) return run()
    this.#map.loadRange(range).then(
      () => this.whenCurrent(vid, range, late, run),
      (error) => late(toStoreError(error)),
    )
  }

  async holders(range: { first: number; count: number }): Promise<Uint32Array> {
    await this.#map.loadRange(range)
    return Uint32Array.from({ length: range.count }, (_, i) => this.#map.lookupNow(range.first + i)!)
  }

  async extents(offset: number, length: number): Promise<OwnerExtent[]> {
    if (!isInRange(offset, length, this.sizeBytes))
      throw new StoreError('InvalidParameters', 'beyond the end of the VDI')
    const extents: OwnerExtent[] = []
    const end = offset + length
    while (offset < end) {
      const index = Math.floor(offset / OBJECT_BYTES)
      const objectEnd = Math.min(end, (index + 1) * OBJECT_BYTES)
      const start = offset
      await this.#withObject(
        index,
        (object) => this.#addExtents(extents, object, start, objectEnd),
        () => addExtent(extents, 'hole', objectEnd - start),
      )
      offset = objectEnd
    }
    return extents
  }

  #addExtents(extents: OwnerExtent[], object: StoredObject, start: number, end: number): void {
    for (let offset = start; offset < end; ) {
      const block = Math.floor((offset % OBJECT_BYTES) / BLOCK_BYTES)
      const next = Math.min(end, offset - (offset % BLOCK_BYTES) + BLOCK_BYTES)
      const state = this.#store.blockState(object, block)?.state
      addExtent(extents, state === 'zero' ? 'hole' : 'data', next - offset)
      offset = next
    }
  }

  freeze(): Promise<void> {
    return this.#gate.close()
  }

  get frozen(): boolean {
    return this.#gate.isClosed
  }

  /** The inode object of the new vid has inherited the map. */
  moveTo(newVid: number): void {
    assert(this.frozen)
    this.vid = newVid
    this.#map.moveTo(newVid)
    this.#objects = []
  }

  rollTo(newVid: number): void {
    assert(this.frozen)
    this.vid = newVid
    this.#map = new BlockMap(this.#store, newVid)
    this.#objects = []
  }

  thaw(): void {
    this.#gate.open()
  }

  #admit(offset: number, length: number, done: StoreDone, run: (finish: StoreDone) => void): void {
    if (this.#gate.holds(() => this.#admit(offset, length, done, run))) return
    if (!isInRange(offset, length, this.sizeBytes)) {
      done(new StoreError('InvalidParameters', 'beyond the end of the VDI'))
      return
    }
    run(this.#gate.pass(done))
  }

  #read(offset: number, target: Buffer, finish: StoreDone): void {
    if (offset % BLOCK_BYTES === 0 && target.length % BLOCK_BYTES === 0) {
      this.#readBlocks(offset, target, finish)
      return
    }
    const start = offset - (offset % BLOCK_BYTES)
    const end = roundUp(offset + target.length)
    const blocks = Buffer.allocUnsafe(end - start)
    this.#readBlocks(start, blocks, (error) => {
      if (!error) blocks.copy(target, 0, offset - start, offset - start + target.length)
      finish(error)
    })
  }

  #readBlocks(offset: number, target: Buffer, finish: StoreDone): void {
    eachObject(offset, target.length, finish, (index, at, from, length, partDone) => {
      const bytes = length === target.length ? target : target.subarray(from, from + length)
      const object = this.#objectNow(index)
      if (object === null) {
        this.#readLater(index, at, bytes, partDone)
      } else if (object) {
        this.#store.read(object, at / BLOCK_BYTES, length / BLOCK_BYTES, bytes, (error) => {
          if (error?.code === 'NoObject') this.#readLater(index, at, bytes, partDone)
          else partDone(error)
        })
      } else {
        bytes.fill(0)
        partDone(null)
      }
    })
  }

  /** The object that holds an index, if it is loaded; undefined when there is none, null when it must be loaded. */
  #objectNow(index: number): StoredObject | null | undefined {
    const cached = this.#objects[index]
    if (cached?.loaded && !cached.removed) {
      cached.touched = true
      return cached
    }
    const vid = this.#map.lookupNow(index)
    if (vid === null) return null
    if (vid === 0) return undefined
    const object = this.#store.loadedNow(dataOid(vid, index))
    if (object === undefined) return null // loading it says what is wrong
    this.#objects[index] = object ?? undefined
    return object
  }

  #readLater(index: number, at: number, bytes: Buffer, done: StoreDone): void {
    const read = (object: StoredObject) => this.#store.readBlocks(object, at / BLOCK_BYTES, bytes)
    this.#withObject(index, read, () => void bytes.fill(0)).then(
      () => done(null),
      (error) => done(toStoreError(error)),
    )
  }

  /** Looks up and holds the object of an index while `use` runs, or answers with `useHole` when there is none. */
  async #withObject(
    index: number,
    use: (object: StoredObject) => void | Promise<void>,
    useHole: () => void,
  ): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      await this.#map.load(index)
      const vid = this.#map.lookupNow(index)
      if (!vid) return useHole()
      try {
        return await this.#store.using(dataOid(vid, index), use)
      } catch (error) {
        // Dropped meanwhile, and with it perhaps what it inherited from: the map knows what there is now.
        const isGone = error instanceof StoreError && error.code === 'NoObject'
        if (!isGone) throw error
        if (attempt === LOOKUP_ATTEMPTS_MAX) throw this.#store.disks.lossOf(dataOid(vid, index)) ?? error
      }
    }
  }

  /**
   * Runs a change of one object: at once if nothing has to be loaded, else after loading, while further changes of the same
   * object wait. `attempt` answers false, without having done anything, when it needs something that is not loaded; `edges`
   * holds the blocks at the ends of the range that it changes only in part.
   */
  #change(index: number, done: StoreDone, attempt: (edges: Edges) => boolean, at: number, length: number): void {
    const queue = this.#waiting.get(index)
    if (queue) {
      queue.push(() => this.#change(index, done, attempt, at, length))
      return
    }
    try {
      if (attempt(this.#edgesNow(index, at, length))) return
    } catch (error) {
      done(toStoreError(error))
      return
    }
    this.#waiting.set(index, [])
    this.#changeLater(index, attempt, at, length).then((error) => {
      const next = this.#waiting.get(index) ?? []
      this.#waiting.delete(index)
      if (error) done(error)
      for (const run of next) run()
    })
  }

  async #changeLater(
    index: number,
    attempt: (edges: Edges) => boolean,
    at: number,
    length: number,
  ): Promise<StoreError | null> {
    // Once is enough, unless a change next to it has just made the inode object, and that was evicted already.
    for (let tries = 0; tries < PREPARE_ATTEMPTS_MAX; tries++) {
      const held: StoredObject[] = []
      try {
        if (attempt(await this.#prepare(index, at, length, held))) return null
      } catch (error) {
        return toStoreError(error)
      } finally {
        for (const object of held) this.#store.release(object)
      }
    }
    return new StoreError('DiskFailed', `object ${index} of VDI ${this.vid.toString(16)} does not stay loaded`)
  }

  /** Loads all that a change of the object may need, and holds it. */
  async #prepare(index: number, at: number, length: number, held: StoredObject[]): Promise<Edges> {
    await this.#map.load(index)
    const inode = await this.#map.holdInode()
    if (inode) held.push(inode)
    const vid = this.#map.lookupNow(index)
    const object = vid ? await this.#holdUnlessDropped(dataOid(vid, index), length) : null
    if (object) held.push(object)
    const edges: Edges = new Map()
    for (const block of partialBlocks(at, length)) {
      const bytes = Buffer.alloc(BLOCK_BYTES)
      if (object) await this.#store.readBlocks(object, block, bytes)
      edges.set(block, bytes)
    }
    return edges
  }

  /** What is discarded as a whole need not be readable: that is how a user gets rid of a damaged object. */
  async #holdUnlessDropped(oid: bigint, length: number): Promise<StoredObject | null> {
    try {
      return await this.#store.hold(oid)
    } catch (error) {
      const isLost = error instanceof MemberFailed || (error instanceof StoreError && error.code === 'NoObject')
      const isDamaged = isLost || (error instanceof StoreError && error.code === 'CorruptBlock')
      if (!isDamaged || length !== OBJECT_BYTES) throw error
      this.#unreadable.add(oid)
      return null
    }
  }

  /** The partial blocks of a range, as far as they can be had without waiting. */
  #edgesNow(index: number, at: number, length: number): Edges {
    const edges: Edges = new Map()
    if (at % BLOCK_BYTES === 0 && length % BLOCK_BYTES === 0) return edges
    const object = this.#objectNow(index)
    if (object === null) return edges
    for (const block of partialBlocks(at, length)) {
      const bytes = Buffer.alloc(BLOCK_BYTES)
      if (!object || this.#store.readNow(object, block, bytes)) edges.set(block, bytes)
    }
    return edges
  }

  #writeObject(index: number, at: number, source: Source, durable: boolean, edges: Edges, done: StoreDone): boolean {
    const bytes = wholeBlocks(at, source.bytes, edges)
    const target = bytes && this.#writable(index)
    if (!target) return false
    const first = Math.floor(at / BLOCK_BYTES)
    const count = bytes.length / BLOCK_BYTES
    const isOverwrite = target.object?.hasData(first, count) === true
    if (!isOverwrite && !this.#hasRoom(target.object, bytes.length)) {
      done(new StoreError('NoSpace'))
      return true
    }
    const crcs = bytes === source.bytes ? source.crcs : undefined
    const write: Change = { kind: 'blocks', object: target.object ?? dataOid(this.vid, index), first, bytes, crcs }
    if (isOverwrite) {
      this.#store.commit([write], { durable }, done)
      return true
    }
    const tally = this.#tallyOf(target)
    this.#tallyBlocks(tally, target.view, first, count, this.vid)
    this.#store.commit([...target.changes(), write, ...tally.changes(this.vid, index)], { durable }, done)
    return true
  }

  #discardObject(index: number, at: number, length: number, durable: boolean, edges: Edges, done: StoreDone): boolean {
    const vid = this.#map.lookupNow(index)
    if (vid === null) return false
    if (vid === 0) {
      done(null)
      return true
    }
    if (length === OBJECT_BYTES) return this.#dropObject(index, vid, durable, done)
    const target = this.#writable(index)
    if (!target) return false
    const changes: Change[] = []
    const object = target.object
    const tally = this.#tallyOf(target)
    const first = Math.ceil(at / BLOCK_BYTES)
    const end = Math.floor((at + length) / BLOCK_BYTES)
    for (const block of partialBlocks(at, length)) {
      if (!this.#holdsData(target.view, block, 1)) continue
      const bytes = edges.get(block)
      if (!bytes) return false
      bytes.fill(0, Math.max(0, at - block * BLOCK_BYTES), Math.min(BLOCK_BYTES, at + length - block * BLOCK_BYTES))
      changes.push({ kind: 'blocks', object: object ?? dataOid(this.vid, index), first: block, bytes })
      this.#tallyBlocks(tally, target.view, block, 1, this.vid)
    }
    if (end > first && this.#holdsData(target.view, first, end - first)) {
      this.#tallyBlocks(tally, target.view, first, end - first, 0)
      changes.push({ kind: 'zero', object: object ?? dataOid(this.vid, index), first, count: end - first })
    }
    if (changes.length === 0 && !durable) {
      done(null)
      return true
    }
    // Zeros take nothing from an object of its own; after a snapshot there has to be one first.
    if (!object && !this.#hasRoom(null, changes.length * BLOCK_BYTES)) {
      done(new StoreError('NoSpace'))
      return true
    }
    const all = changes.length > 0 ? [...target.changes(), ...changes, ...tally.changes(this.vid, index)] : []
    this.#store.commit(all, { durable }, done)
    return true
  }

  /** Whether any of these blocks is not stated to be zeros: only those have to be changed by a discard. */
  #holdsData(view: StoredObject | null, first: number, count: number): boolean {
    for (let block = first; view && block < first + count; block++) {
      if (this.#store.blockState(view, block)?.state !== 'zero') return true
    }
    return false
  }

  /** A whole object reads as zeros from now on: the map forgets it, and it goes if it is this VDI's own. */
  #dropObject(index: number, vid: number, durable: boolean, done: StoreDone): boolean {
    const oid = dataOid(vid, index)
    const view = this.#store.loadedNow(oid)
    if (!this.#map.changeable(index) || (!view && !this.#unreadable.delete(oid))) return false
    const tally = new Tally()
    tally.moveObject(vid, 0)
    if (view) this.#tallyBlocks(tally, view, 0, BLOCKS_PER_OBJECT, 0)
    const changes = [...this.#map.change(index, 0), ...tally.changes(this.vid, index)]
    if (vid === this.vid) changes.push({ kind: 'remove', oid: dataOid(vid, index) })
    this.#objects[index] = undefined
    this.#store.commit(changes, { durable }, done)
    return true
  }

  /** The VDI's own object of an index, or the changes that make one; null when something must be loaded first. */
  #writable(index: number): Writable | null {
    const vid = this.#map.lookupNow(index)
    if (vid === null) return null
    if (vid === this.vid) {
      const object = this.#objectNow(index)
      return object ? { object, view: object, changes: () => [] } : null
    }
    if (!this.#map.changeable(index)) return null
    const base = vid === 0 ? undefined : this.#store.loadedNow(dataOid(vid, index))
    if (vid !== 0 && !base) return null
    return {
      object: null,
      view: base ?? null,
      changes: () => {
        const runs = base ? this.#store.inheritRuns(base) : []
        this.#objects[index] = undefined
        return [{ kind: 'create', oid: dataOid(this.vid, index), runs }, ...this.#map.change(index, this.vid)]
      },
    }
  }

  /** For a change of this target: a new object takes the place in the map of the one that it replaces. */
  #tallyOf({ object, view }: Writable): Tally {
    const tally = new Tally()
    if (!object) tally.moveObject(view ? oidVid(view.oid) : 0, this.vid)
    return tally
  }

  /** Blocks of an object go to another holder, or to none (0). */
  #tallyBlocks(tally: Tally, view: StoredObject | null, first: number, count: number, holder: number): void {
    for (let block = first; block < first + count; block++) {
      tally.move(view ? this.#store.holderOf(view, block) : 0, holder)
    }
  }

  /** For what is not an overwrite: that needs none. */
  #hasRoom(object: StoredObject | null, bytes: number): boolean {
    if (!object) return this.#store.hasRoomForNew(bytes + OBJECT_TAIL_BYTES, NEW_MAP_BYTES)
    return this.#store.hasRoom(object, bytes)
  }
}

/** The owners of VDIs whose objects are all on this node. */
export const localOwners = (store: ObjectStore): OwnerMaker => ({
  ownerOf: (vid, sizeBytes) => new VdiOwner(store, vid, sizeBytes),
  mapOf: (vid) => new BlockMap(store, vid),
})

/** What is written to one object. */
interface Source {
  bytes: Buffer
  crcs: Uint32Array | undefined
}

interface Writable {
  /** The VDI's own object, if there is one already. */
  object: StoredObject | null
  /** What the VDI sees at the index now: its own object, or one that it inherits, or nothing. */
  view: StoredObject | null
  /** What has to be committed for there to be one of its own. */
  changes: () => Change[]
}

const PREPARE_ATTEMPTS_MAX = 10
/** What a new object takes of its map at most: a page, and the tail of the object that holds it. */
const NEW_MAP_BYTES = OBJECT_TAIL_BYTES + BLOCK_BYTES
const LOOKUP_ATTEMPTS_MAX = 5

function addExtent(extents: OwnerExtent[], kind: OwnerExtent['kind'], lengthBytes: number): void {
  const last = extents.at(-1)
  if (last?.kind === kind) last.lengthBytes += lengthBytes
  else extents.push({ kind, lengthBytes })
}
