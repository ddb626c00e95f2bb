import { StoreError } from '../../../src/errors.ts'
import { dataOid, inodeOid, oidIndex, withVid } from '../../../src/protocol/oid.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import { bringHome } from '../../../src/sheep/copies/copy-recovery.ts'
import { CopySequencer } from '../../../src/sheep/copies/copy-sequencer.ts'
import type { BlockContents, BlockRange, BlockRun } from '../../../src/sheep/copies/copy-store.ts'
import type { Member, View } from '../../../src/sheep/membership/view.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import type { CopyModel, Node } from './copy-model.ts'

/** The one that all is about. */
export const VID = 7
/** What its objects may inherit from. */
const BASE_VID = 6
const INODE = inodeOid(VID)
/** No client writes this. */
const POISON = -1
/** How fast copies are made for those that lack them. */
const BYTES_PER_SECOND = 64 << 20

/** What the map says of an object. */
interface Entry {
  exists: boolean
  /** What all blocks are since the object was removed last, as far as they were not written. */
  value: number
}

/** Half of all objects inherit; each does or not from its making to its removal. */
const baseOf = (oid: bigint, { value }: Entry) => ((oidIndex(oid) + value) % 2 === 0 ? withVid(oid, BASE_VID) : null)

/** An owner of the VDI: the map of its objects in the first block of the inode, and what clients ask. */
export class ModelOwner {
  readonly #model: CopyModel
  readonly #sequencer: CopySequencer
  readonly #clock: Clock
  readonly #loaded: Promise<void>
  #map = new Map<bigint, Entry>()
  /** Which the map may soon name. */
  readonly #making = new Set<bigint>()
  /** What changes the map comes one after the other. */
  #changing: Promise<unknown> = Promise.resolve()

  constructor(
    model: CopyModel,
    node: Node,
    { views, owner }: { views: readonly View[]; owner: { index: number; member: Member } },
  ) {
    this.#model = model
    const { index } = owner
    const { clock } = node.process!
    this.#clock = clock
    this.#sequencer = new CopySequencer({
      vid: VID,
      index,
      incarnation: owner.member.incarnation,
      views,
      targetsOf: (oid, view) => model.targetsOf(oid, view),
      copiesMinIn: () => 2,
      send: (to, request, done) => void model.ask(node, to, request).then(done, done),
      readNow: (request, done) => node.process?.holder.readNow(request, done) ?? false,
      mayAct: () => model.mayAct(node),
      suspect: (member) => model.suspect(node, member),
      clock: model.retryClock(clock),
      idleObjectsMax: model.idleObjectsMax,
    })
    this.#loaded = this.#load()
    this.#loaded.catch(() => {})
    this.#keepClean(node, index).catch((error: Error) => {
      if (!(error instanceof StoreError)) model.failed(error)
    })
  }

  async #keepClean(node: Node, index: number): Promise<never> {
    await this.#loaded
    for (;;) {
      try {
        const epoch = await this.#recover()
        if (epoch !== null) this.#model.proposeClean(node, epoch, index)
      } catch (error) {
        if (!(error instanceof StoreError) || error.code === 'OldEpoch') throw error
      }
      await this.#clock.sleep(1000)
      this.#sequencer.spreadWatermark()
    }
  }

  /** The epoch in which nothing was missing, and all of it was on the disks. */
  async #recover(): Promise<number | null> {
    const { epoch, setbacks } = this.#sequencer
    const isHome = await bringHome({
      oids: [...this.#named],
      sequencerOf: () => this.#sequencer,
      isNamed: async (oid) => this.maps(oid),
      goesOn: () => true,
      look: (look) => look(),
      step: async (copy) => {
        const bytes = await copy()
        if (bytes) await this.#clock.sleep((1000 * bytes) / BYTES_PER_SECOND)
        return bytes
      },
      done: () => {},
    })
    if (!isHome || this.#sequencer.isMakingSinceBefore) return null
    const isMaking = (oid: bigint) => this.#model.keepsUnnamed || this.#making.has(oid)
    await this.#sequencer.removeUnnamed((oid) => this.maps(oid) || isMaking(oid))
    await this.#sequencer.flush()
    return epoch === this.#sequencer.epoch && setbacks === this.#sequencer.setbacks ? epoch : null
  }

  viewsChanged(views: readonly View[]): void {
    this.#sequencer.viewsChanged(views)
  }

  end(): void {
    this.#sequencer.end()
  }

  maps(oid: bigint): boolean {
    return oid === INODE || this.#map.get(oid)?.exists === true
  }

  get #named(): bigint[] {
    return [INODE, ...[...this.#map].filter(([, { exists }]) => exists).map(([oid]) => oid)]
  }

  #entry(oid: bigint): Entry {
    return this.#map.get(oid) ?? { exists: false, value: 0 }
  }

  async write(index: number, run: BlockRun): Promise<void> {
    const oid = dataOid(VID, index)
    await this.#loaded
    const contents = { blocks: [run], zeros: [] }
    if (this.maps(oid)) return this.#overwrite(oid, contents)
    return this.#change(() => this.#make(oid, contents))
  }

  /** At once, if that can be. */
  #overwrite(oid: bigint, contents: BlockContents): Promise<void> {
    const durable = this.#model.isDurable
    return new Promise((resolve, reject) => {
      const done = (error: StoreError | null) => (error ? reject(error) : resolve())
      if (this.#sequencer.writeNow(oid, contents, durable, done)) return
      this.#sequencer.write(oid, contents, { durable }).then(resolve, reject)
    })
  }

  /** From the copy of this node, if that can be. */
  async #readOwn(oid: bigint, { first, count }: BlockRange): Promise<BlockContents | null> {
    const bytes = Buffer.alloc(count * BLOCK_BYTES)
    const isRead = await new Promise((resolve) => {
      if (!this.#sequencer.readNow(oid, first, bytes, resolve)) resolve(false)
    })
    return isRead ? { blocks: [{ first, bytes }], zeros: [] } : null
  }

  /** What each block of a range is. */
  async read(index: number, range: BlockRange): Promise<number[]> {
    const oid = dataOid(VID, index)
    await this.#loaded
    const entry = this.#map.get(oid)
    if (entry?.exists) {
      const contents = (await this.#readOwn(oid, range)) ?? (await this.#sequencer.read(oid, range))
      if (this.#map.get(oid) !== entry) throw new StoreError('Unsure')
      return valuesOf(contents, range, entry, baseOf(oid, entry))
    }
    await this.#sequencer.read(INODE, { first: 0, count: 1 }) // that nobody else has made it
    if (this.#map.get(oid) !== entry) throw new StoreError('Unsure')
    return Array.from({ length: range.count }, () => entry?.value ?? 0)
  }

  /** Removes an object, and lets all of its blocks be `value`. */
  async discard(index: number, value: number): Promise<void> {
    const oid = dataOid(VID, index)
    await this.#loaded
    return this.#change(async () => {
      await this.#setEntry(oid, { exists: false, value })
      const remove = () => this.#sequencer.remove(oid).catch(() => {})
      if (this.#model.removesLate) void this.#clock.sleep(500).then(remove)
      else void remove()
    })
  }

  async flush(): Promise<void> {
    await this.#loaded
    return this.#sequencer.flush()
  }

  #change<T>(change: () => Promise<T>): Promise<T> {
    const changed = this.#changing.then(change)
    this.#changing = changed.catch(() => {})
    return changed
  }

  /** The object first, then its place in the map. */
  async #make(oid: bigint, contents: BlockContents): Promise<void> {
    if (this.maps(oid)) return this.#overwrite(oid, contents)
    const { value } = this.#entry(oid)
    this.#making.add(oid)
    const isOver = this.#model.forgetsMakings ? () => {} : this.#sequencer.making()
    try {
      await this.#sequencer.write(oid, contents, { exists: false, base: baseOf(oid, this.#entry(oid)) })
      await this.#setEntry(oid, { exists: true, value })
    } finally {
      this.#making.delete(oid)
      isOver()
    }
  }

  /** What was written once may be there for good: so it is written until that is certain. */
  async #setEntry(oid: bigint, entry: Entry): Promise<void> {
    const map = new Map(this.#map).set(oid, entry)
    const bytes = Buffer.alloc(BLOCK_BYTES)
    bytes.write([...map].map(([each, { exists, value }]) => `${each}:${Number(exists)}:${value}`).join(' '))
    for (;;) {
      try {
        await this.#sequencer.write(INODE, { blocks: [{ first: 0, bytes }], zeros: [] })
        this.#map = map
        return
      } catch (error) {
        if (!(error instanceof StoreError) || error.code === 'OldEpoch')
          throw new StoreError('Unsure', '', { cause: error })
        await this.#clock.sleep(100)
      }
    }
  }

  async #load(): Promise<void> {
    const inode = await this.#sequencer.read(INODE, { first: 0, count: 1 }).catch((error: StoreError) => {
      if (error.code === 'OldEpoch') throw error
    })
    if (!inode) {
      await this.#clock.sleep(100) // there is no lease yet
      return this.#load()
    }
    const text = inode.blocks[0]?.bytes.toString().replaceAll('\0', '') ?? ''
    for (const entry of text.split(' ').filter(Boolean)) {
      const [oid, exists, value] = entry.split(':')
      this.#map.set(BigInt(oid!), { exists: exists === '1', value: Number(value) })
    }
  }
}

/** What was never written is the value of the entry: zeros in one that inherits nothing, inherited in the others. */
function valuesOf(
  { blocks, zeros, inherited }: BlockContents,
  { first, count }: BlockRange,
  { value }: Entry,
  base: bigint | null,
): number[] {
  const values: number[] = Array.from({ length: count }, () => POISON)
  const set = (range: BlockRange, said: number) => {
    for (let block = range.first; block < range.first + range.count; block++) values[block - first] = said
  }
  for (const range of zeros) set(range, base === null ? value : POISON)
  for (const range of inherited?.ranges ?? []) set(range, inherited?.base === base ? value : POISON)
  for (const run of blocks)
    for (let at = 0; at < run.bytes.length; at += BLOCK_BYTES)
      set({ first: run.first + at / BLOCK_BYTES, count: 1 }, run.bytes.readUInt32LE(at))
  return values
}
