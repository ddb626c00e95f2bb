import assert from 'node:assert'
import { StoreError } from '../../../src/errors.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import {
  ALL_BLOCKS,
  type Blocks,
  blocksOf,
  countBlocks,
  intersect,
  rangeOf,
  subtract,
  toBlocks,
} from '../../../src/sheep/copies/block-ranges.ts'
import type {
  Adoption,
  BlockContents,
  BlockRange,
  CopyDone,
  CopyKind,
  CopyLayout,
  CopyState,
  CopyStore,
  CopyWrite,
  Inherited,
  TailEntry,
} from '../../../src/sheep/copies/copy-store.ts'
import {
  compareVersions,
  endsAfter,
  firstLacking,
  formatVersion,
  isSameVersion,
  type Version,
} from '../../../src/sheep/copies/version.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import type { SeededRandom } from '../../sim/random.ts'

/** Never changed: each change of an object makes another one. */
interface StoredCopy {
  version: Version
  kind: CopyKind
  valid: Blocks
  /** Those that are not zeros. */
  blocks: ReadonlyMap<number, Buffer>
  inherited: Inherited | null
  /** In which epoch blocks were written last; the others in `madeEpoch`. */
  epochs: ReadonlyMap<number, number>
  madeEpoch: number
  tail: readonly TailEntry[]
  ends: readonly Version[]
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
  /** Blocks whose bytes are not what was written. */
  readonly rotten = new WeakSet<Buffer>()
  /** As if there were no checksums. */
  readsRot = false
  /** As if every checksum matched. */
  matchesAnything = false
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

  /** Nothing would go with the power. */
  get isSynced(): boolean {
    return this.#undo.length === 0
  }

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

  bytesOf(oid: bigint, block: number): Buffer | undefined {
    return this.copies.get(oid)?.blocks.get(block)
  }

  hasObject(oid: bigint): boolean {
    const copy = this.copies.get(oid)
    return copy !== undefined && copy.kind !== 'removed'
  }

  /** For comparing: all that a reader could see of a copy. */
  describe(oid: bigint): string {
    const copy = this.copies.get(oid)
    if (!copy || copy.kind === 'removed') return 'none'
    const blocks = [...copy.blocks]
      .sort(([a], [b]) => a - b)
      .map(([block, bytes]) => `${block}=${bytes.toString('hex', 0, 8)}`)
    const { base, ranges = [] } = copy.inherited ?? {}
    const inherited = ranges.length > 0 ? `${base} has ${JSON.stringify(ranges)}` : ''
    return `${copy.kind} ${JSON.stringify(copy.valid)} ${formatVersion(copy.version)} ${blocks.join(' ')} ${inherited}`
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
    return { version: copy.version, kind: copy.kind, valid: copy.kind === 'stale' ? [] : copy.valid }
  }

  plainVersionOf(oid: bigint): Version | null {
    const copy = this.#disk.copies.get(oid)
    const isWhole = copy?.kind === 'full' && subtract(ALL_BLOCKS, copy.valid).length === 0
    const isReserved = (this.#reserved.get(oid) ?? []).length > 0
    return isWhole && copy.tail.length === 0 && !isReserved ? copy.version : null
  }

  isAt(oid: bigint, version: Version): boolean {
    const state = this.stateOf(oid)
    const isUsable = state !== null && state.kind !== 'stale' && state.kind !== 'removed'
    return isUsable && isSameVersion(state.version, version)
  }

  allocatedOf(oid: bigint): Blocks {
    return toBlocks([...(this.#disk.copies.get(oid)?.blocks.keys() ?? [])].map((first) => ({ first, count: 1 })))
  }

  objects(): readonly bigint[] {
    return [...this.#disk.copies.keys()]
  }

  objectsOf(vid: number): readonly bigint[] {
    return [...this.#disk.copies.keys()].filter((oid) => Number((oid >> 32n) & 0xffffffn) === vid)
  }

  apply(write: CopyWrite, durable: boolean, done: CopyDone): void {
    const { oid, version, previous } = write
    const before = previous === null ? null : this.#disk.copies.get(oid)!
    if (before) assert(isSameVersion(before.version, previous) && before.kind !== 'stale' && before.kind !== 'removed')
    const copy = before ?? emptyCopy(version, ALL_BLOCKS)
    const written = contentsOf(write)
    const blocks = blocksAfter(copy.blocks, write)
    const inherited = inheriting(copy.inherited, write)
    const epochs = new Map([
      ...copy.epochs,
      ...[...written.keys()].map((block) => [block, version.generation.epoch] as const),
    ])
    if (!this.#take(oid, blocks.size - (this.#disk.copies.get(oid)?.blocks.size ?? 0), [...written.keys()]))
      return this.#later(() => done(new StoreError('NoSpace')))
    const ranges = blocksOf(write)
    const tail = [...copy.tail, ...ranges.map((range) => ({ ...range, version, previous }))]
    const ends = before ? endsAfter(before.ends, before.version, version) : []
    const changed = grown({ ...copy, version, blocks, inherited, epochs, tail, ends }, ranges)
    this.#set(oid, changed, durable, done, !durable)
  }

  adopt({ oid, version, kind, valid }: Adoption, done: CopyDone): void {
    const found = this.#disk.copies.get(oid)
    const before = found?.kind === 'removed' ? undefined : found
    const copy = before ?? emptyCopy(version, [])
    const entry = { first: 0, count: 0, version, previous: before?.version ?? null }
    const ends = before && before.kind !== 'stale' ? endsAfter(before.ends, before.version, version) : []
    this.#set(oid, { ...copy, version, kind, valid, tail: [...copy.tail, entry], ends }, true, done)
  }

  fill(oid: bigint, contents: BlockContents, done: CopyDone): void {
    const copy = this.#disk.copies.get(oid)!
    const missing = subtract(ALL_BLOCKS, copy.valid)
    const isMissing = (block: number) => missing.some(({ first, count }) => block >= first && block < first + count)
    const said = contents.inherited
    const filled: BlockContents = {
      blocks: [...contentsOf(contents)].flatMap(([first, bytes]) =>
        bytes && isMissing(first) ? [{ first, bytes }] : [],
      ),
      zeros: intersect(toBlocks(contents.zeros), missing),
      ...(said && { inherited: { ...said, ranges: intersect(said.ranges, missing) } }),
    }
    const ranges = blocksOf(filled)
    const blocks = blocksAfter(copy.blocks, filled)
    const { epoch } = copy.version.generation
    const inherited = inheriting(copy.inherited, filled)
    const epochs = new Map([...copy.epochs, ...[...contentsOf(filled).keys()].map((block) => [block, epoch] as const)])
    if (!this.#take(oid, blocks.size - copy.blocks.size, [])) return this.#later(() => done(new StoreError('NoSpace')))
    this.#set(oid, grown({ ...copy, blocks, inherited, epochs }, ranges), false, done)
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

  blocksSince(oid: bigint, since: Version): readonly BlockRange[] {
    const copy = this.#disk.copies.get(oid)!
    const epoch = firstLacking(copy.ends, since)
    if (copy.madeEpoch >= epoch) return ALL_BLOCKS
    const written = [...copy.epochs].filter(([, writtenIn]) => writtenIn >= epoch)
    return toBlocks([...written.map(([first]) => ({ first, count: 1 })), ...(copy.inherited?.ranges ?? [])])
  }

  markStale(oid: bigint, done: CopyDone): void {
    this.#set(oid, { ...this.#disk.copies.get(oid)!, kind: 'stale', ends: [] }, true, done)
  }

  markRotten(oid: bigint, blocks: readonly BlockRange[], done: CopyDone): void {
    const copy = this.#disk.copies.get(oid)!
    this.#set(oid, { ...copy, valid: subtract(copy.valid, blocks) }, true, done)
  }

  reserve(oid: bigint, wanted: readonly BlockRange[]): boolean {
    const more = subtract(subtract(toBlocks(wanted), this.allocatedOf(oid)), this.#reserved.get(oid) ?? [])
    if (countBlocks(more) > this.#unreserved) return false
    this.#reserved.set(oid, toBlocks([...(this.#reserved.get(oid) ?? []), ...more]))
    return true
  }

  release(oid: bigint): void {
    this.#reserved.delete(oid)
  }

  layoutOf(oid: bigint, range: BlockRange, done: (error: StoreError | null, layout: CopyLayout) => void): void {
    this.#later(() => {
      const copy = this.#disk.copies.get(oid)
      if (!copy || subtract([range], copy.valid).length > 0) return done(new StoreError('NoObject'), { data: [] })
      const data = intersect([range], toBlocks([...copy.blocks.keys()].map((first) => ({ first, count: 1 }))))
      const ranges = subtract(intersect([range], copy.inherited?.ranges ?? []), data)
      done(null, { data, ...(ranges.length > 0 && { inherited: { base: copy.inherited!.base, ranges } }) })
    })
  }

  readNow(oid: bigint, first: number, target: Buffer, done: (isRead: boolean) => void): boolean {
    const range = { first, count: target.length / BLOCK_BYTES }
    const state = this.stateOf(oid)
    if (!state || state.kind === 'removed' || subtract([range], state.valid).length > 0) return false
    if (subtract([range], this.allocatedOf(oid)).length > 0) return false
    this.read(oid, range, (error, { blocks }) => {
      const isAll = error === null && subtract([range], blocks.map(rangeOf)).length === 0
      if (isAll) for (const run of blocks) run.bytes.copy(target, (run.first - first) * BLOCK_BYTES)
      done(isAll)
    })
    return true
  }

  read(
    oid: bigint,
    { first, count }: BlockRange,
    done: (error: StoreError | null, contents: BlockContents) => void,
  ): void {
    assert(
      subtract([{ first, count }], this.stateOf(oid)?.valid ?? []).length === 0,
      'a block is read that is not valid',
    )
    this.#later(() => {
      const copy = this.#disk.copies.get(oid)
      if (!copy || subtract([{ first, count }], copy.valid).length > 0)
        return done(new StoreError('NoObject'), { blocks: [], zeros: [] })
      const all = Array.from({ length: count }, (_, index) => first + index)
      const blocks = all.flatMap((block) => {
        const bytes = copy.blocks.get(block)
        return bytes ? [{ first: block, bytes }] : []
      })
      if (blocks.some(({ bytes }) => this.#disk.rotten.has(bytes))) {
        if (!this.#disk.readsRot) return done(new StoreError('CorruptBlock'), { blocks: [], zeros: [] })
        for (const run of blocks) if (this.#disk.rotten.has(run.bytes)) run.bytes = Buffer.alloc(BLOCK_BYTES, 0xbd)
      }
      const others = subtract([{ first, count }], blocks.map(rangeOf))
      const inherited = intersect(others, copy.inherited?.ranges ?? [])
      const zeros = subtract(others, inherited)
      if (inherited.length === 0) return done(null, { blocks, zeros })
      done(null, { blocks, zeros, inherited: { base: copy.inherited!.base, ranges: inherited } })
    })
  }

  remainsOf(oid: bigint, range: BlockRange, done: (error: StoreError | null, contents: BlockContents) => void): void {
    this.#later(() => {
      const isWanted = (block: number) => block >= range.first && block < range.first + range.count
      const found = [...(this.#disk.copies.get(oid)?.blocks ?? [])]
      const blocks = found.filter(([block, bytes]) => isWanted(block) && !this.#disk.rotten.has(bytes))
      done(null, { blocks: blocks.map(([first, bytes]) => ({ first, bytes })), zeros: [] })
    })
  }

  mend(oid: bigint, contents: BlockContents, done: (error: StoreError | null, hasMatched: boolean) => void): void {
    const copy = this.#disk.copies.get(oid)
    const ranges = blocksOf(contents)
    const isRotten = copy?.kind === 'full' && intersect(ranges, copy.valid).length === 0
    const hasMatched = [...contentsOf(contents)].every(([block, bytes]) => {
      return this.#disk.matchesAnything || copy?.blocks.get(block)?.equals(bytes!)
    })
    if (!isRotten || !hasMatched) return this.#later(() => done(null, false))
    const blocks = blocksAfter(copy.blocks, contents)
    this.#set(oid, grown({ ...copy, blocks }, ranges), true, (error) => done(error, error === null))
  }

  remove(oid: bigint, version: Version, done: CopyDone): void {
    this.release(oid)
    if (!this.#disk.copies.has(oid)) return this.#later(() => done(null))
    this.#set(oid, { ...emptyCopy(version, []), kind: 'removed' }, false, done)
  }

  drop(oid: bigint, done: CopyDone): void {
    this.#set(oid, null, true, done)
  }

  clean(upToEpoch: number, done: CopyDone): void {
    for (const [oid, { kind, version }] of this.#disk.copies)
      if (kind === 'removed' && version.generation.epoch <= upToEpoch) this.#disk.set(oid, null, false)
    if (this.#disk.lostThroughEpoch <= upToEpoch) this.#disk.lostThroughEpoch = 0
    this.#later(() => done(null))
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
  kind: subtract(ALL_BLOCKS, valid).length === 0 ? 'full' : 'partial',
  valid,
  blocks: new Map(),
  inherited: null,
  epochs: new Map(),
  madeEpoch: version.generation.epoch,
  tail: [],
  ends: [],
})

/** With these blocks, which may have been the last that it lacked. */
function grown(copy: StoredCopy, ranges: Blocks): StoredCopy {
  const valid = toBlocks([...copy.valid, ...ranges])
  return { ...copy, valid, kind: subtract(ALL_BLOCKS, valid).length === 0 ? 'full' : copy.kind }
}

/** The blocks that are not zeros after these contents. */
function blocksAfter(before: ReadonlyMap<number, Buffer>, contents: BlockContents): Map<number, Buffer> {
  const gone = blocksOf(contents)
  const isGone = (block: number) => gone.some(({ first, count }) => block >= first && block < first + count)
  const blocks = new Map([...before].filter(([block]) => !isGone(block)))
  for (const [block, bytes] of contentsOf(contents)) if (bytes) blocks.set(block, bytes)
  return blocks
}

/** What is inherited after these contents. */
function inheriting(before: Inherited | null, contents: BlockContents): Inherited | null {
  const { inherited } = contents
  const base = inherited?.base ?? before?.base
  if (base === undefined) return null
  const left = subtract(before?.ranges ?? [], blocksOf(contents))
  return { base, ranges: toBlocks([...left, ...(inherited?.ranges ?? [])]) }
}

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
