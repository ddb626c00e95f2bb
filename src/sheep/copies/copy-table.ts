import { oidVid } from '../../protocol/oid.ts'
import { toBlocks } from './block-ranges.ts'
import type { CopyImage, CopyRecord, Horizon } from './copy-records.ts'
import type { BlockRange, TailEntry } from './copy-store.ts'
import { type EpochRuns, epochsAfter } from './epoch-runs.ts'
import { compareGenerations, type Generation, type Version } from './version.ts'

/** A write above the watermark. */
export interface TailWrite {
  oid: bigint
  version: Version
  previous: Version | null
  ranges: readonly BlockRange[]
}

/** More writes than these become one for the object: the blocks of all, at the last version. */
export const TAIL_WRITES_MAX = 256

/** The writes of one generation of an owner, in the order in which they came; null for those that are gone out of turn. */
interface GenerationTail {
  readonly generation: Generation
  readonly writes: (TailWrite | null)[]
  /** Where the first one is. */
  first: number
  /** The last number; not in order is what comes below that, as adoptions do. */
  last: number
  isInOrder: boolean
}

/** So many places that nothing is in are kept, before what is left moves up. */
const UNUSED_MAX = 64

/**
 * What all writes of one VDI have in their tails. A watermark comes with nearly every write, so it looks at no more than it takes
 * away, and one. Lists stay when they are empty, as long as they are not many, since a Map that takes and loses an entry for each write
 * costs more than all else (under-way.ts).
 */
class Tails {
  #objects = new Map<bigint, TailWrite[]>()
  readonly #generations: GenerationTail[] = []
  #count = 0

  get isEmpty(): boolean {
    return this.#count === 0
  }

  of(oid: bigint): readonly TailWrite[] {
    return this.#objects.get(oid) ?? []
  }

  add(write: TailWrite): void {
    const { oid, version } = write
    let writes = this.#objects.get(oid)
    if (writes?.length === TAIL_WRITES_MAX) {
      const all = joined([...writes, write])
      this.settle(oid)
      return this.add(all)
    }
    if (!writes) {
      writes = []
      this.#objects.set(oid, writes)
    }
    writes.push(write)
    this.#count++
    const tail = this.#ofGeneration(version.generation)
    if (version.sequence < tail.last) tail.isInOrder = false
    tail.last = version.sequence
    tail.writes.push(write)
  }

  settle(oid: bigint): void {
    const writes = this.#objects.get(oid)
    if (!writes) return
    this.#objects.delete(oid)
    this.#count -= writes.length
    for (const { generation, writes: all } of this.#generations)
      for (const write of writes) if (write.version.generation.epoch === generation.epoch) forget(all, write)
    this.#tidyUp()
  }

  passed({ generation, sequence }: Version): void {
    const tail = this.#generations.find((each) => compareGenerations(each.generation, generation) === 0)
    if (!tail) return
    const { writes } = tail
    for (let at = tail.first; at < writes.length; at++) {
      const write = writes[at]!
      if (write !== null && write.version.sequence > sequence) {
        if (tail.isInOrder) break
        continue
      }
      if (write !== null) this.#drop(write)
      writes[at] = null
      if (at === tail.first) tail.first++
    }
    this.#tidyUp()
  }

  clean(upToEpoch: number): void {
    for (const { generation, writes } of this.#generations) {
      if (generation.epoch > upToEpoch) continue
      for (const write of writes) if (write !== null) this.#drop(write)
      writes.length = 0
    }
    this.#tidyUp()
  }

  #drop(write: TailWrite): void {
    const writes = this.#objects.get(write.oid)!
    if (writes[0] === write) writes.shift()
    else writes.splice(writes.indexOf(write), 1)
    this.#count--
  }

  #ofGeneration(generation: Generation): GenerationTail {
    const known = this.#generations.find((each) => compareGenerations(each.generation, generation) === 0)
    if (known) return known
    const tail: GenerationTail = { generation, writes: [], first: 0, last: 0, isInOrder: true }
    this.#generations.push(tail)
    return tail
  }

  /** What takes memory and says nothing goes, now and then. */
  #tidyUp(): void {
    for (const tail of this.#generations) {
      const { writes, first } = tail
      if (first === 0 || (first < writes.length && first < Math.max(UNUSED_MAX, writes.length / 2))) continue
      writes.splice(0, first)
      tail.first = 0
      if (writes.length === 0) Object.assign(tail, { last: 0, isInOrder: true })
    }
    const isUsed = ({ writes }: GenerationTail) => writes.some((write) => write !== null)
    if (this.#generations.length > 1 && !this.#generations.every(isUsed)) {
      const used = this.#generations.filter(isUsed)
      this.#generations.splice(0, this.#generations.length, ...used)
    }
    if (this.#objects.size > UNUSED_MAX + 4 * this.#count)
      this.#objects = new Map([...this.#objects].filter(([, writes]) => writes.length > 0))
  }

  *[Symbol.iterator](): Generator<CopyRecord> {
    for (const writes of this.#objects.values()) for (const write of writes) yield { kind: 'wrote', ...write }
  }
}

function forget(writes: (TailWrite | null)[], write: TailWrite): void {
  const place = writes.indexOf(write)
  if (place >= 0) writes[place] = null
}

/** An empty range goes on saying that there was an adoption among them. */
function joined(writes: readonly TailWrite[]): TailWrite {
  const blocks = toBlocks(writes.flatMap((write) => write.ranges))
  const ranges = writes.some(isAdoption) ? [...blocks, ...NO_BLOCKS] : blocks
  return { oid: writes[0]!.oid, version: writes.at(-1)!.version, previous: writes[0]!.previous, ranges }
}

/** The tails of all VDIs. */
class TailTable {
  readonly #vdis = new Map<number, Tails>()

  of(oid: bigint): readonly TailWrite[] {
    return this.#vdis.get(oidVid(oid))?.of(oid) ?? []
  }

  add(write: TailWrite): void {
    const vid = oidVid(write.oid)
    let tails = this.#vdis.get(vid)
    if (!tails) {
      tails = new Tails()
      this.#vdis.set(vid, tails)
    }
    tails.add(write)
  }

  settle(oid: bigint): void {
    const vid = oidVid(oid)
    const tails = this.#vdis.get(vid)
    tails?.settle(oid)
    if (tails?.isEmpty) this.#vdis.delete(vid)
  }

  passed(vid: number, version: Version): void {
    const tails = this.#vdis.get(vid)
    tails?.passed(version)
    if (tails?.isEmpty) this.#vdis.delete(vid)
  }

  clean(upToEpoch: number): void {
    for (const [vid, tails] of this.#vdis) {
      tails.clean(upToEpoch)
      if (tails.isEmpty) this.#vdis.delete(vid)
    }
  }

  *[Symbol.iterator](): Generator<CopyRecord> {
    for (const tails of this.#vdis.values()) yield* tails
  }
}

/**
 * What one generation of the journal changed in the copies, as it left them: what its checkpoint appends to their log.
 */
export class CopyChanges {
  readonly #images = new Map<bigint, CopyImage | null>()
  readonly #settled = new Set<bigint>()
  /** Of each VDI, one for each generation of its owners. */
  readonly #watermarks = new Map<number, Version[]>()
  readonly #tails = new TailTable()
  #horizon: Horizon | null = null

  put(record: CopyRecord): void {
    switch (record.kind) {
      case 'copy':
        this.#images.set(record.oid, record.image)
        if (record.image === null) this.#settle(record.oid)
        return
      case 'wrote':
        this.#tails.add(record)
        return
      case 'settled':
        this.#settle(record.oid)
        return
      case 'watermark':
        this.#pass(record.vid, record.version)
        return
      case 'horizon':
        this.#horizon = this.#horizon ? later(this.#horizon, record) : record
    }
  }

  #settle(oid: bigint): void {
    this.#tails.settle(oid)
    this.#settled.add(oid)
  }

  #pass(vid: number, version: Version): void {
    this.#tails.passed(vid, version)
    const others = this.#watermarks.get(vid) ?? []
    const rest = others.filter((other) => compareGenerations(other.generation, version.generation) !== 0)
    this.#watermarks.set(vid, [...rest, version])
  }

  /** What the tails lose comes before what they gain, and what is clean after what has been so since. */
  *[Symbol.iterator](): Generator<CopyRecord> {
    for (const oid of this.#settled) yield { kind: 'settled', oid }
    for (const [vid, versions] of this.#watermarks)
      for (const version of versions) yield { kind: 'watermark', vid, version }
    for (const [oid, image] of this.#images) yield { kind: 'copy', oid, image }
    yield* this.#tails
    if (this.#horizon) yield { ...this.#horizon, kind: 'horizon' }
  }
}

/**
 * What this node knows of its copies beside their bytes: all in memory, known without waiting.
 *
 * An object that was written since the last clean epoch, or is not whole, takes about 170 bytes (250 more while it is partial), as
 * long as objects share generations and epochs; a write above the watermark takes about 280. What is clean takes nothing.
 */
export class CopyTable {
  readonly #vdis = new Map<number, Map<bigint, CopyImage>>()
  readonly #tails = new TailTable()
  #horizon: Horizon = { clean: 0, accepted: 0, lost: 0 }
  /** Equal ones are kept once: objects that are written under the same owner, or in the same epochs, share them. */
  #generation: Generation | null = null
  readonly #epochs = new Map<string, EpochRuns>()

  get horizon(): Readonly<Horizon> {
    return this.#horizon
  }

  /** Null for one that is clean: written in no epoch since, and whole. */
  imageOf(oid: bigint): CopyImage | null {
    return this.#vdis.get(oidVid(oid))?.get(oid) ?? null
  }

  /** All that have one. */
  *oids(): Generator<bigint> {
    for (const images of this.#vdis.values()) yield* images.keys()
  }

  imagesOf(vid: number): ReadonlyMap<bigint, CopyImage> {
    return this.#vdis.get(vid) ?? NO_IMAGES
  }

  /** What was written above the watermark, oldest first. */
  tailOf(oid: bigint): TailEntry[] {
    return this.#tails.of(oid).flatMap(({ version, previous, ranges }) => {
      const some = ranges.length > 0 ? ranges : NO_BLOCKS
      return some.map(({ first, count }) => ({ first, count, version, previous }))
    })
  }

  apply(record: CopyRecord): void {
    switch (record.kind) {
      case 'copy':
        this.#setImage(record.oid, record.image)
        return
      case 'wrote': {
        const { oid, version, previous, ranges } = record
        if (version.generation.epoch <= this.#horizon.clean) return
        this.#tails.add({ oid, version: this.#shared(version), previous: previous && this.#shared(previous), ranges })
        return
      }
      case 'settled':
        this.#tails.settle(record.oid)
        return
      case 'watermark':
        this.#tails.passed(record.vid, record.version)
        return
      case 'horizon': {
        const { clean } = this.#horizon
        this.#horizon = later(this.#horizon, record)
        if (record.clean > clean) this.#clean(record.clean)
      }
    }
  }

  #setImage(oid: bigint, said: CopyImage | null): void {
    const image = said && { ...said, epochs: epochsAfter(said.epochs, this.#horizon.clean) }
    const vid = oidVid(oid)
    let images = this.#vdis.get(vid)
    if (image === null) this.#tails.settle(oid)
    if (image === null || isClean(image)) {
      images?.delete(oid)
      if (images?.size === 0) this.#vdis.delete(vid)
      return
    }
    if (!images) {
      images = new Map()
      this.#vdis.set(vid, images)
    }
    const isKnown = images.get(oid)?.epochs === image.epochs
    const epochs = isKnown ? image.epochs : this.#sharedEpochs(image.epochs)
    images.set(oid, { ...image, version: this.#shared(image.version), epochs })
  }

  #shared(version: Version): Version {
    const { generation, sequence } = version
    const known = this.#generation
    if (known === generation) return version
    if (known && compareGenerations(known, generation) === 0 && known.incarnation === generation.incarnation)
      return { generation: known, sequence }
    this.#generation = generation
    return version
  }

  #sharedEpochs(epochs: EpochRuns): EpochRuns {
    const key = epochs.join()
    const known = this.#epochs.get(key) ?? epochs
    this.#epochs.set(key, known)
    return known
  }

  /** Forgets what was written in epochs up to this one, and objects that were written in no other, unless they are not whole. */
  #clean(upToEpoch: number): void {
    this.#epochs.clear()
    this.#tails.clean(upToEpoch)
    for (const [vid, images] of this.#vdis) {
      for (const [oid, image] of images) {
        const epochs = this.#sharedEpochs(epochsAfter(image.epochs, upToEpoch))
        if (isClean({ ...image, epochs })) images.delete(oid)
        else images.set(oid, { ...image, epochs })
      }
      if (images.size === 0) this.#vdis.delete(vid)
    }
  }

  /** All that there is. */
  *[Symbol.iterator](): Generator<CopyRecord> {
    for (const images of this.#vdis.values()) for (const [oid, image] of images) yield { kind: 'copy', oid, image }
    yield* this.#tails
    yield { ...this.#horizon, kind: 'horizon' }
  }
}

/** A tombstone of an epoch that is clean has nobody left to tell. */
const isClean = ({ epochs, kind, valid }: CopyImage) =>
  epochs.length === 0 && !valid && (kind === 'full' || kind === 'removed')

function later(a: Horizon, b: Horizon): Horizon {
  return {
    clean: Math.max(a.clean, b.clean),
    accepted: Math.max(a.accepted, b.accepted),
    lost: Math.max(a.lost, b.lost),
  }
}

const isAdoption = ({ ranges }: TailWrite) => ranges.length === 0 || ranges.some(({ count }) => count === 0)

/** An adoption changes none. */
const NO_BLOCKS: readonly BlockRange[] = [{ first: 0, count: 0 }]

const NO_IMAGES: ReadonlyMap<bigint, CopyImage> = new Map()
