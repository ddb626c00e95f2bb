import assert from 'node:assert'
import { StoreError, toStoreError } from '../../errors.ts'
import { dataOid } from '../../protocol/oid.ts'
import { eachObject, isInRange, partialBlocks, roundUp, wholeBlocks } from '../block-range.ts'
import type { StoreDone } from '../change.ts'
import { Gate } from '../gate.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../object-format.ts'
import type { Owner, OwnerExtent } from '../owner-contract.ts'
import type { FamilyAccounts } from './family-accounts.ts'
import type { Grace } from './grace.ts'
import { IndexCounts, isUndone } from './index-counts.ts'
import { flattened, readEdges, runsOf, withZerosOf } from './object-contents.ts'
import { ObjectTurns } from './object-turns.ts'
import { coverOf, type HeldView, type ObjectView, type ObjectViews, putInto, readThrough } from './object-view.ts'
import { ReplicatedMap } from './replicated-map.ts'
import type { BlockContents, BlockRange, BlockRun } from './replicated-objects.ts'
import type { Tenure } from './tenure.ts'

/** What the owners of a family have in common. */
export interface OwnerContext {
  objects: Tenure
  views: ObjectViews
  accounts: FamilyAccounts
  /** All who look at objects of the family are in it. */
  grace: Grace
  pagesMax: number
  /** An object may be left that no map names. */
  onGarbage(vid: number): void
  /** The accounts are not what they should be. */
  onMiscount(): void
}

/**
 * Objects that inherit from one another, at most: what would make the chain longer is copied. So a read takes a bounded number of
 * hops at any depth of snapshots, and one snapshot in so many copies what it would not have to.
 */
const CHAIN_MAX = 8

/**
 * The owner of a VDI whose objects are on several nodes. Byte ranges come in, whole blocks go out.
 *
 * 1. An object is made, durably, before its entry is written to the map, and the entry, durably, before the write is answered. A new
 *    object inherits what it does not get from the one that it takes the place of.
 * 2. The entry of an object that is dropped leaves the map first; the object goes when all reads have ended that may have seen it.
 * 3. Changes of one object that say what whole blocks become go at the same time. One that depends on what there is goes alone: it reads
 *    first, or makes the object, or drops it.
 * 4. After a failure nobody can tell what there is: that object, and its entry, are asked for again before they are used. So what a
 *    client repeats is done as if it came for the first time.
 */
export class ReplicatedOwner implements Owner {
  readonly #context: OwnerContext
  #map: ReplicatedMap
  readonly #turns = new ObjectTurns()
  /** Closed while the VDI is frozen. */
  readonly #gate = new Gate()
  readonly #counts: IndexCounts
  vid: number
  sizeBytes: number

  constructor(context: OwnerContext, vid: number, sizeBytes: number) {
    this.#context = context
    this.#counts = new IndexCounts(context.accounts)
    this.#map = new ReplicatedMap(context.objects, vid, context.pagesMax)
    this.vid = vid
    this.sizeBytes = sizeBytes
  }

  get map(): ReplicatedMap {
    return this.#map
  }

  read(offset: number, target: Buffer, done: StoreDone): void {
    this.#admit(offset, target.length, done, (finish) => {
      if (this.#readNow(offset, target, finish)) return
      this.#eachObject(offset, target.length, finish, (index, at, from, length) =>
        this.#readObject(index, at, target.subarray(from, from + length)),
      )
    })
  }

  write(offset: number, source: Buffer, durable: boolean, done: StoreDone): void {
    this.#admit(offset, source.length, done, (finish) => {
      if (this.#writeNow(offset, source, durable, finish)) return
      this.#eachObject(offset, source.length, finish, (index, at, from, length) =>
        this.#writeObject(index, at, source.subarray(from, from + length), durable),
      )
    })
  }

  discard(offset: number, lengthBytes: number, durable: boolean, done: StoreDone): void {
    this.#admit(offset, lengthBytes, done, (finish) => {
      this.#eachObject(offset, lengthBytes, finish, (index, at, _from, length) =>
        length === OBJECT_BYTES ? this.#dropObject(index) : this.#zeroObject(index, at, length, durable),
      )
    })
  }

  flush(done: StoreDone): void {
    this.#admit(0, 0, done, (finish) => answer(this.#context.objects.flush(), finish))
  }

  whenCurrent(vid: number, range: BlockRange, late: StoreDone, run: () => void): void {
    if (this.#gate.holds(() => this.whenCurrent(vid, range, late, run))) return
    if (vid !== this.vid) return late(new StoreError('ReadOnly'))
    let isLate = false
    const use = () => {
      if (this.#gate.isClosed || vid !== this.vid) isLate = true
      else run()
    }
    this.#map.withRange(range, use).then(
      () => {
        if (isLate) this.whenCurrent(vid, range, late, run)
      },
      (error) => late(toStoreError(error)),
    )
  }

  async holders({ first, count }: BlockRange): Promise<Uint32Array> {
    const vids = new Uint32Array(count)
    for (let i = 0; i < count; i++) vids[i] = this.#map.lookupNow(first + i) ?? (await this.#map.lookup(first + i))
    await this.#context.objects.confirm(this.vid)
    return vids
  }

  async extents(offset: number, lengthBytes: number): Promise<OwnerExtent[]> {
    if (!isInRange(offset, lengthBytes, this.sizeBytes))
      throw new StoreError('InvalidParameters', 'beyond the end of the VDI')
    const extents: OwnerExtent[] = []
    const end = offset + lengthBytes
    for (let start = offset; start < end; ) {
      const index = Math.floor(start / OBJECT_BYTES)
      const objectEnd = Math.min(end, (index + 1) * OBJECT_BYTES)
      // Alone: a write under way may have been read already, and is not in the view before it is answered.
      await this.#alone(index, async (held) => addExtents(extents, held?.view ?? null, start, objectEnd))
      start = objectEnd
    }
    await this.#context.objects.confirm(this.vid)
    return extents
  }

  /** With the account as exact as it can be. */
  async freeze(): Promise<void> {
    await this.#gate.close()
    await this.settle().catch(() => {})
  }

  get isInDoubt(): boolean {
    return this.#counts.inDoubt.length > 0
  }

  /** Finds out what there is wherever something failed. */
  async settle(): Promise<void> {
    await Promise.all(this.#counts.inDoubt.map((index) => this.#turns.alone(index, () => this.#settle(index))))
  }

  get frozen(): boolean {
    return this.#gate.isClosed
  }

  /** The inode object of the new vid has the same map. */
  moveTo(newVid: number): void {
    assert(this.frozen)
    if (this.isInDoubt) this.#context.onMiscount()
    this.vid = newVid
    this.#map.moveTo(newVid)
  }

  rollTo(newVid: number): void {
    assert(this.frozen)
    this.vid = newVid
    this.#map = new ReplicatedMap(this.#context.objects, newVid, this.#context.pagesMax)
    this.#counts.forget()
  }

  thaw(): void {
    this.#gate.open()
  }

  /** Whether the map names an object of this VDI, at a moment at which nothing is done to it. */
  isNamed(index: number): Promise<boolean> {
    return this.#turns.alone(index, async () => (await this.#map.lookup(index)) === this.vid)
  }

  /** At a moment at which nothing is done to the object of an index, and what failed there before is found out. */
  quietly<T>(index: number, work: () => Promise<T>): Promise<T> {
    return this.#turns.alone(index, async () => {
      await this.#settle(index)
      return work()
    })
  }

  /** Removes an object of this VDI unless the map names it. */
  async removeGarbage(index: number): Promise<void> {
    const { vid } = this
    const { objects, views, grace } = this.#context
    await this.#turns.alone(index, async () => {
      if (vid !== this.vid) return this.#context.onGarbage(vid)
      if ((await this.#map.lookup(index)) === vid) return
      await grace.passed()
      views.drop(dataOid(vid, index))
      await objects.remove(dataOid(vid, index))
    })
  }

  #admit(offset: number, length: number, done: StoreDone, run: (finish: StoreDone) => void): void {
    if (this.#gate.holds(() => this.#admit(offset, length, done, run))) return
    const { ended } = this.#context.objects
    if (ended) return done(ended)
    if (!isInRange(offset, length, this.sizeBytes))
      return done(new StoreError('InvalidParameters', 'beyond the end of the VDI'))
    run(this.#gate.pass(done))
  }

  #eachObject(
    offset: number,
    length: number,
    finish: StoreDone,
    run: (index: number, at: number, from: number, length: number) => Promise<void>,
  ): void {
    eachObject(offset, length, finish, (index, at, from, part, partDone) => {
      answer(run(index, at, from, part), partDone)
    })
  }

  /** Whole blocks of one object that are here, with nothing to wait for first. False, and nothing is begun, when it is not so. */
  #readNow(offset: number, target: Buffer, finish: StoreDone): boolean {
    const index = wholeBlocksAt(offset, target.length)
    const vid = index === null ? 0 : this.#map.lookupNow(index)
    if (index === null || !vid) return false
    const { objects, grace } = this.#context
    const lookers = grace.enter()
    const first = (offset % OBJECT_BYTES) / BLOCK_BYTES
    const isBegun = objects.readNow(dataOid(vid, index), first, target, (isRead) => {
      grace.leave(lookers)
      if (isRead) finish(null)
      else answer(this.#readObject(index, offset % OBJECT_BYTES, target), finish)
    })
    if (!isBegun) grace.leave(lookers)
    return isBegun
  }

  async #readObject(index: number, at: number, target: Buffer): Promise<void> {
    const start = at - (at % BLOCK_BYTES)
    const end = roundUp(at + target.length)
    if (end - start === target.length) return this.#readBlocks(index, at / BLOCK_BYTES, target)
    const blocks = Buffer.allocUnsafe(end - start)
    await this.#readBlocks(index, start / BLOCK_BYTES, blocks)
    blocks.copy(target, 0, at - start, at - start + target.length)
  }

  #readBlocks(index: number, first: number, target: Buffer): Promise<void> {
    const { objects, grace } = this.#context
    return grace.during(async () => {
      const vid = await this.#map.lookup(index)
      if (vid !== 0) return readThrough(objects, dataOid(vid, index), first, target)
      target.fill(0)
      await objects.confirm(this.vid) // or another owner may have put something there
    })
  }

  /** As `#overwrite`, with nothing to wait for first. False, and nothing is begun, when it is not so. */
  #writeNow(offset: number, source: Buffer, durable: boolean, finish: StoreDone): boolean {
    const index = wholeBlocksAt(offset, source.length)
    const { vid } = this
    if (index === null || this.#map.lookupNow(index) !== vid || this.#counts.isInDoubt(index)) return false
    const oid = dataOid(vid, index)
    const held = this.#context.views.holdNow(oid)
    if (!held || !this.#turns.beginShared(index)) {
      held?.release()
      return false
    }
    const contents = { blocks: [{ first: (offset % OBJECT_BYTES) / BLOCK_BYTES, bytes: source }], zeros: [] }
    const ended = () => {
      held.release()
      this.#turns.end(index)
    }
    const isBegun = this.#context.objects.writeNow(oid, contents, durable, (error) => {
      this.#counts.wrote(this.vid, index, held.view, contents, error)
      ended()
      finish(error)
    })
    if (!isBegun) ended()
    return isBegun
  }

  #writeObject(index: number, at: number, source: Buffer, durable: boolean): Promise<void> {
    const isWhole = at % BLOCK_BYTES === 0 && source.length % BLOCK_BYTES === 0
    if (!isWhole || this.#map.lookupNow(index) !== this.vid) return this.#writeAlone(index, at, source, durable)
    return this.#turns
      .shared(index, () => this.#overwrite(index, { first: at / BLOCK_BYTES, bytes: source }, durable))
      .then((isWritten) => {
        if (!isWritten) return this.#writeAlone(index, at, source, durable)
      })
  }

  /** Writes whole blocks to an object of its own. False, and nothing is done, when it has to go alone. */
  async #overwrite(index: number, run: BlockRun, durable: boolean): Promise<boolean> {
    if (this.#counts.isInDoubt(index) || (await this.#map.lookup(index)) !== this.vid) return false
    const held = await this.#context.views.hold(dataOid(this.vid, index))
    try {
      if (this.#counts.isInDoubt(index)) return false
      await this.#writeOwn(index, held.view, { blocks: [run], zeros: [] }, durable)
      return true
    } finally {
      held.release()
    }
  }

  #writeAlone(index: number, at: number, source: Buffer, durable: boolean): Promise<void> {
    return this.#alone(index, async (held) => {
      const edges = await readEdges(this.#context, index, held?.view ?? null, partialBlocks(at, source.length))
      const bytes = wholeBlocks(at, source, edges)!
      const contents = { blocks: [{ first: Math.floor(at / BLOCK_BYTES), bytes }], zeros: [] }
      await this.#put(index, held?.view ?? null, contents, durable)
    })
  }

  /** Zeros in a part of an object. What reads as zeros already is left alone. */
  #zeroObject(index: number, at: number, length: number, durable: boolean): Promise<void> {
    return this.#alone(index, async (held) => {
      const view = held?.view ?? null
      const hasData = (block: number) => view !== null && view.layers[block] !== 0
      const partial = partialBlocks(at, length).filter(hasData)
      const edges = await readEdges(this.#context, index, view, partial)
      for (const [block, bytes] of edges) {
        const start = block * BLOCK_BYTES
        bytes.fill(0, Math.max(0, at - start), Math.min(BLOCK_BYTES, at + length - start))
      }
      const first = Math.ceil(at / BLOCK_BYTES)
      const end = Math.floor((at + length) / BLOCK_BYTES)
      const blocks = [...edges].map(([block, bytes]) => ({ first: block, bytes }))
      const zeros = runsOf(first, end, hasData)
      if (blocks.length > 0 || zeros.length > 0) return this.#put(index, view, { blocks, zeros }, durable)
      const { objects } = this.#context
      await (durable ? objects.flush() : objects.confirm(this.vid))
    })
  }

  /** A whole object reads as zeros from now on: the map forgets it, and it goes if it is this VDI's own. */
  #dropObject(index: number): Promise<void> {
    const { vid } = this
    const { objects, views, grace } = this.#context
    return new Promise((resolve, reject) => {
      const dropped = this.#alone(index, async (held) => {
        if (!held) return objects.confirm(vid).then(resolve)
        const oid = dataOid(held.view.chain[0]!, index)
        try {
          await this.#map.set(index, 0)
        } catch (error) {
          this.#counts.failed(vid, index, held.view, error)
          if (!isUndone(error)) this.#tidyUp(index)
          throw error
        }
        this.#counts.changed(vid, index, held.view, null)
        resolve()
        if (held.view.chain[0] !== vid) return
        views.drop(oid)
        await grace.passed()
        await objects.remove(oid).catch(() => this.#context.onGarbage(vid))
      })
      dropped.catch(reject)
    })
  }

  /** Runs a change of an object alone, with what the VDI sees there; null for nothing. */
  #alone(index: number, change: (held: HeldView | null) => Promise<void>): Promise<void> {
    return this.#turns.alone(index, async () => {
      await this.#settle(index)
      const held = await this.#viewAt(index)
      try {
        await change(held)
      } finally {
        held?.release()
      }
    })
  }

  #viewAt(index: number): Promise<HeldView | null> {
    const { views, grace } = this.#context
    return grace.during(async () => {
      const vid = await this.#map.lookup(index)
      return vid === 0 ? null : views.hold(dataOid(vid, index))
    })
  }

  /** Writes whole blocks; makes the object first if it is not this VDI's own. */
  #put(index: number, view: ObjectView | null, contents: BlockContents, durable: boolean): Promise<void> {
    if (view?.chain[0] === this.vid) return this.#writeOwn(index, view, contents, durable)
    return this.#make(index, view, contents)
  }

  async #writeOwn(index: number, view: ObjectView, contents: BlockContents, durable: boolean): Promise<void> {
    const oid = dataOid(this.vid, index)
    try {
      await this.#context.objects.write(oid, contents, { exists: true, durable })
    } catch (error) {
      this.#counts.wrote(this.vid, index, view, contents, error)
      throw error
    }
    this.#counts.wrote(this.vid, index, view, contents, null)
  }

  async #make(index: number, base: ObjectView | null, contents: BlockContents): Promise<void> {
    const { objects, views } = this.#context
    const oid = dataOid(this.vid, index)
    const isTooLong = base !== null && base.chain.length >= CHAIN_MAX
    const all = isTooLong ? await flattened(this.#context, index, base, contents) : withZerosOf(base, contents)
    const baseOid = base && !isTooLong ? dataOid(base.chain[0]!, index) : null
    const view = coverOf(this.vid, baseOid === null ? null : base)
    putInto(view, all)
    let isMade = false
    const isOver = objects.making(oid)
    try {
      await objects.write(oid, all, { exists: false, durable: true, base: baseOid })
      isMade = true
      views.put(oid, view)
      await this.#map.set(index, this.vid)
    } catch (error) {
      this.#counts.failed(this.vid, index, base, error)
      if (isMade || !isUndone(error)) this.#tidyUp(index)
      throw error
    } finally {
      isOver()
    }
    this.#counts.changed(this.vid, index, base, view)
  }

  /** Removes what no map may name after a failure, before anything else is done there. */
  #tidyUp(index: number): void {
    const { vid } = this
    this.removeGarbage(index).catch(() => this.#context.onGarbage(vid))
  }

  /** Finds out what there is where something failed. */
  async #settle(index: number): Promise<void> {
    if (!this.#counts.isInDoubt(index)) return
    this.#context.views.drop(dataOid(this.vid, index))
    const held = await this.#viewAt(index)
    held?.release()
    // Who still reads what the map named before must not meet it while it is made anew.
    if (held?.view.chain[0] !== this.vid) await this.#context.grace.passed()
    this.#counts.settle(this.vid, index, held?.view ?? null)
  }
}

/** The index of the one object in which all of these bytes are whole blocks; null when it is not so. */
function wholeBlocksAt(offset: number, length: number): number | null {
  if (offset % BLOCK_BYTES !== 0 || length % BLOCK_BYTES !== 0 || length === 0) return null
  const index = Math.floor(offset / OBJECT_BYTES)
  return offset + length <= (index + 1) * OBJECT_BYTES ? index : null
}

function answer(work: Promise<void>, done: StoreDone): void {
  work.then(
    () => done(null),
    (error) => done(toStoreError(error)),
  )
}

function addExtents(extents: OwnerExtent[], view: ObjectView | null, start: number, end: number): void {
  if (!view) return addExtent(extents, 'hole', end - start)
  for (let offset = start; offset < end; ) {
    const block = Math.floor((offset % OBJECT_BYTES) / BLOCK_BYTES)
    const next = Math.min(end, offset - (offset % BLOCK_BYTES) + BLOCK_BYTES)
    addExtent(extents, view.layers[block] === 0 ? 'hole' : 'data', next - offset)
    offset = next
  }
}

function addExtent(extents: OwnerExtent[], kind: OwnerExtent['kind'], lengthBytes: number): void {
  const last = extents.at(-1)
  if (last?.kind === kind) last.lengthBytes += lengthBytes
  else extents.push({ kind, lengthBytes })
}
