import assert from 'node:assert'
import { StoreError } from '../../../src/errors.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import { ALL_BLOCKS, type Blocks, countBlocks, subtract, toBlocks } from '../../../src/sheep/copies/block-ranges.ts'
import type {
  Adoption,
  BlockContents,
  BlockRange,
  CopyDone,
  CopyState,
  CopyStore,
  CopyWrite,
  TailEntry,
} from '../../../src/sheep/copies/copy-store.ts'
import { compareVersions, formatVersion, isSameVersion, type Version } from '../../../src/sheep/copies/version.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import type { SeededRandom } from '../../sim/random.ts'

/** Never changed: each change of an object makes another one. */
interface StoredCopy {
  version: Version
  isStale: boolean
  valid: Blocks
  /** Those that are not zeros. */
  blocks: ReadonlyMap<number, Buffer>
  /** In which epoch blocks were written last; the others in `madeEpoch`. */
  epochs: ReadonlyMap<number, number>
  madeEpoch: number
  tail: readonly TailEntry[]
}

/**
 * The copies on one simulated disk, as a journal of changes: the end of a process keeps what it accepted, a loss of power all that
 * was durable and some of what came after, without gaps.
 */
export class SimCopyDisk {
  readonly copies = new Map<bigint, StoredCopy>()
  /** What undoes the changes that are not on the disk. */
  #undo: (() => void)[] = []
  lostThroughEpoch = 0
  /** The last one in which a write was accepted that need not be durable. */
  #looseEpoch = 0
  /** Blocks that can still be taken. */
  freeBlocks = Number.POSITIVE_INFINITY
  readonly #random: SeededRandom

  constructor(random: SeededRandom) {
    this.#random = random
  }

  set(oid: bigint, copy: StoredCopy | null, isLoose: boolean): void {
    const before = this.copies.get(oid) ?? null
    this.#put(oid, copy)
    this.#undo.push(() => this.#put(oid, before))
    this.accepted++
    if (isLoose && copy) this.#looseEpoch = Math.max(this.#looseEpoch, copy.version.generation.epoch)
  }

  /** Counts changes. */
  accepted = 0

  /** The changes up to here are on the disk. */
  synced(upTo: number): void {
    const before = this.accepted - this.#undo.length
    if (upTo > before) this.#undo.splice(0, upTo - before)
  }

  powerLoss(): void {
    const kept = this.#random.below(this.#undo.length + 1)
    for (const undo of this.#undo.splice(kept).reverse()) undo()
    this.accepted = 0
    this.#undo = []
    this.lostThroughEpoch = this.#looseEpoch
  }

  #put(oid: bigint, copy: StoredCopy | null): void {
    this.freeBlocks += (this.copies.get(oid)?.blocks.size ?? 0) - (copy?.blocks.size ?? 0)
    if (copy) this.copies.set(oid, copy)
    else this.copies.delete(oid)
  }

  /** For comparing: all that a reader could see of a copy. */
  describe(oid: bigint): string {
    const copy = this.copies.get(oid)
    if (!copy) return 'none'
    const blocks = [...copy.blocks]
      .sort(([a], [b]) => a - b)
      .map(([block, bytes]) => `${block}=${bytes.toString('hex', 0, 8)}`)
    return `${copy.isStale ? 'stale' : JSON.stringify(copy.valid)} ${formatVersion(copy.version)} ${blocks.join(' ')}`
  }
}

/** The copies as a process that starts on the disk has them. */
export class SimCopyStore implements CopyStore {
  readonly #disk: SimCopyDisk
  readonly #clock: Clock
  readonly #random: SeededRandom
  readonly #reserved = new Map<bigint, Blocks>()
  readonly #syncMsMax: number

  constructor(disk: SimCopyDisk, clock: Clock, random: SeededRandom, syncMsMax: number) {
    this.#disk = disk
    this.#clock = clock
    this.#random = random
    this.#syncMsMax = syncMsMax
  }

  get lostThroughEpoch(): number {
    return this.#disk.lostThroughEpoch
  }

  stateOf(oid: bigint): CopyState | null {
    const copy = this.#disk.copies.get(oid)
    if (!copy) return null
    const isFull = subtract(ALL_BLOCKS, copy.valid).length === 0
    const allocated = toBlocks([...copy.blocks.keys()].map((first) => ({ first, count: 1 })))
    const kind = copy.isStale ? 'stale' : isFull ? 'full' : 'partial'
    return { version: copy.version, kind, valid: copy.isStale ? [] : copy.valid, allocated }
  }

  objectsOf(vid: number): readonly bigint[] {
    return [...this.#disk.copies.keys()].filter((oid) => Number((oid >> 32n) & 0xffffffn) === vid)
  }

  apply(write: CopyWrite, durable: boolean, done: CopyDone): void {
    const { oid, version, previous } = write
    const before = previous === null ? null : this.#disk.copies.get(oid)!
    if (before) assert(isSameVersion(before.version, previous) && !before.isStale)
    const copy = before ?? emptyCopy(version, ALL_BLOCKS)
    const written = contentsOf(write)
    const blocks = new Map(copy.blocks)
    for (const [block, bytes] of written) {
      if (bytes) blocks.set(block, bytes)
      else blocks.delete(block)
    }
    const epochs = new Map([
      ...copy.epochs,
      ...[...written.keys()].map((block) => [block, version.generation.epoch] as const),
    ])
    if (!this.#take(oid, blocks.size - (this.#disk.copies.get(oid)?.blocks.size ?? 0), [...written.keys()]))
      return this.#later(() => done(new StoreError('NoSpace')))
    const ranges = toBlocks([...written.keys()].map((first) => ({ first, count: 1 })))
    const tail = [...copy.tail, ...ranges.map((range) => ({ ...range, version, previous }))]
    const valid = toBlocks([...copy.valid, ...ranges])
    this.#set(oid, { ...copy, version, blocks, epochs, valid, tail }, durable, done, !durable)
  }

  adopt({ oid, version, valid }: Adoption, done: CopyDone): void {
    const before = this.#disk.copies.get(oid)
    const copy = before ?? emptyCopy(version, [])
    const entry = { first: 0, count: 0, version, previous: before?.version ?? null }
    this.#set(oid, { ...copy, version, isStale: false, valid, tail: [...copy.tail, entry] }, true, done)
  }

  fill(oid: bigint, contents: BlockContents, done: CopyDone): void {
    const copy = this.#disk.copies.get(oid)!
    const missing = subtract(ALL_BLOCKS, copy.valid)
    const isMissing = (block: number) => missing.some(({ first, count }) => block >= first && block < first + count)
    const filled = [...contentsOf(contents)].filter(([block]) => isMissing(block))
    const blocks = new Map(copy.blocks)
    const { epoch } = copy.version.generation
    for (const [block, bytes] of filled) {
      if (bytes) blocks.set(block, bytes)
      else blocks.delete(block)
    }
    const epochs = new Map([...copy.epochs, ...filled.map(([block]) => [block, epoch] as const)])
    if (!this.#take(oid, blocks.size - copy.blocks.size, [])) return this.#later(() => done(new StoreError('NoSpace')))
    const valid = toBlocks([...copy.valid, ...filled.map(([first]) => ({ first, count: 1 }))])
    this.#set(oid, { ...copy, blocks, epochs, valid }, false, done)
  }

  tailOf(oid: bigint): readonly TailEntry[] {
    return this.#disk.copies.get(oid)?.tail ?? []
  }

  setWatermark(vid: number, watermark: Version): void {
    const isBelow = ({ version }: TailEntry) =>
      version.generation.epoch === watermark.generation.epoch &&
      version.generation.index === watermark.generation.index &&
      compareVersions(version, watermark) <= 0
    for (const oid of this.objectsOf(vid)) {
      const copy = this.#disk.copies.get(oid)!
      const open = copy.tail.findIndex((entry) => !isBelow(entry))
      const tail = open < 0 ? [] : copy.tail.slice(open)
      if (tail.length < copy.tail.length) this.#disk.set(oid, { ...copy, tail }, false)
    }
  }

  settle(oid: bigint): void {
    const copy = this.#disk.copies.get(oid)
    if (copy) this.#disk.set(oid, { ...copy, tail: [] }, false)
  }

  touchedSince(vid: number, epoch: number): { oid: bigint; epochs: number[] }[] {
    return this.objectsOf(vid).flatMap((oid) => {
      const epochs = [...new Set([...this.#disk.copies.get(oid)!.epochs.values()])].filter(
        (written) => written >= epoch,
      )
      return epochs.length > 0 ? [{ oid, epochs: epochs.sort((a, b) => a - b) }] : []
    })
  }

  blocksSince(oid: bigint, epoch: number): readonly BlockRange[] {
    const copy = this.#disk.copies.get(oid)!
    if (copy.madeEpoch >= epoch) return ALL_BLOCKS
    const written = [...copy.epochs].filter(([, writtenIn]) => writtenIn >= epoch)
    return toBlocks(written.map(([first]) => ({ first, count: 1 })))
  }

  markStale(oid: bigint, done: CopyDone): void {
    this.#set(oid, { ...this.#disk.copies.get(oid)!, isStale: true }, true, done)
  }

  reserve(oid: bigint, wanted: readonly BlockRange[]): boolean {
    const allocated = this.stateOf(oid)?.allocated ?? []
    const more = subtract(subtract(toBlocks(wanted), allocated), this.#reserved.get(oid) ?? [])
    if (countBlocks(more) > this.#unreserved) return false
    this.#reserved.set(oid, toBlocks([...(this.#reserved.get(oid) ?? []), ...more]))
    return true
  }

  release(oid: bigint): void {
    this.#reserved.delete(oid)
  }

  read(
    oid: bigint,
    { first, count }: BlockRange,
    done: (error: StoreError | null, contents: BlockContents) => void,
  ): void {
    this.#later(() => {
      const copy = this.#disk.copies.get(oid)
      assert(copy && subtract([{ first, count }], copy.valid).length === 0, 'a block is read that is not valid')
      const all = Array.from({ length: count }, (_, index) => first + index)
      const isData = (block: number) => copy.blocks.has(block)
      done(null, {
        blocks: all.filter(isData).map((block) => ({ first: block, bytes: copy.blocks.get(block)! })),
        zeros: toBlocks(all.filter((block) => !isData(block)).map((block) => ({ first: block, count: 1 }))),
      })
    })
  }

  remove(oid: bigint, done: CopyDone): void {
    this.#set(oid, null, true, done)
  }

  sync(done: CopyDone): void {
    const upTo = this.#disk.accepted
    this.#clock.timer(this.#random.next() * this.#syncMsMax, () => {
      this.#disk.synced(upTo)
      done(null)
    })
  }

  /** Nobody else can have these. */
  get reservedBlocks(): number {
    return [...this.#reserved.values()].reduce((sum, blocks) => sum + countBlocks(blocks), 0)
  }

  get #unreserved(): number {
    return this.#disk.freeBlocks - this.reservedBlocks
  }

  /** Takes from what is reserved for these blocks, and from the rest. */
  #take(oid: bigint, count: number, blocks: readonly number[]): boolean {
    const reserved = this.#reserved.get(oid) ?? []
    const left = subtract(reserved, toBlocks(blocks.map((first) => ({ first, count: 1 }))))
    if (count > this.#unreserved + countBlocks(reserved) - countBlocks(left)) return false
    this.#reserved.set(oid, left)
    return true
  }

  #set(oid: bigint, copy: StoredCopy | null, durable: boolean, done: CopyDone, isLoose = false): void {
    this.#disk.set(oid, copy, isLoose)
    if (durable) this.sync(done)
    else this.#later(() => done(null))
  }

  #later(fire: () => void): void {
    this.#clock.timer(this.#random.next() * 2, fire)
  }
}

const emptyCopy = (version: Version, valid: Blocks): StoredCopy => ({
  version,
  isStale: false,
  valid,
  blocks: new Map(),
  epochs: new Map(),
  madeEpoch: version.generation.epoch,
  tail: [],
})

/** Block → its bytes, null for zeros. */
function contentsOf({ blocks, zeros }: BlockContents): Map<number, Buffer | null> {
  const contents = new Map<number, Buffer | null>()
  for (const { first, bytes } of blocks) {
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES)
      contents.set(first + at / BLOCK_BYTES, bytes.subarray(at, at + BLOCK_BYTES))
  }
  for (const { first, count } of zeros)
    for (let block = first; block < first + count; block++) contents.set(block, null)
  return contents
}
