import { StoreError, toStoreError } from '../../../src/errors.ts'
import { inodeOid, oidKind, oidVid } from '../../../src/protocol/oid.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../../../src/sheep/object-format.ts'
import type {
  BlockContents,
  BlockRange,
  BlockRun,
  ObjectContents,
  ObjectLayout,
  ReplicatedObjects,
  WriteOptions,
} from '../../../src/sheep/replicated/replicated-objects.ts'
import type { SimClock } from '../../sim/clock.ts'
import type { SeededRandom } from '../../sim/random.ts'

/** A way to break a rule that the owner relies on, or that it keeps by what it asks. */
export interface ObjectsBreak {
  /** The making of an object is answered before it is there: the map may name what is not. */
  answersMakingEarly?: boolean
  /** A write of a map is answered before it is there. */
  answersMapEarly?: boolean
  /** Objects that are made are not on the disk when that is answered. */
  makesInMemory?: boolean
  /** Maps are not on the disk when that is answered. */
  mapsInMemory?: boolean
  /** New objects are of zeros, whatever they were to inherit. */
  forgetsBases?: boolean
  /** Whoever asks is the owner. */
  confirmsAnybody?: boolean
  /** Nobody knows whether it was done, and NoSpace is said. */
  saysNothingWasDone?: boolean
}

/** What is in a block: its bytes, or null for zeros. A block that is not there is inherited. */
type Blocks = ReadonlyMap<number, Buffer | null>

interface SimObject {
  /** The highest generation that has asked for it. */
  generation: number
  base: bigint | null
  /** What it was since it was last durable, the newest at the end; null for no object. */
  states: (Blocks | null)[]
}

const LATENCY_MS = 10

/** Objects as ReplicatedObjects promises them and no better: all in one, with requests and answers that take their time. */
export class SimObjects {
  readonly #random: SeededRandom
  readonly #broken: ObjectsBreak
  readonly #objects = new Map<bigint, SimObject>()
  /** How many of the writes that need space find none. */
  fullness = 0
  /** How many questions end without a certain answer. */
  unsureness = 0
  readonly counts = { made: 0, removed: 0, noSpace: 0, unsure: 0, oldEpoch: 0, lost: 0 }

  constructor(random: SeededRandom, broken: ObjectsBreak = {}) {
    this.#random = random
    this.#broken = broken
  }

  /** What is there now, by oid. */
  *all(): Generator<{ oid: bigint; base: bigint | null; blocks: Blocks }> {
    for (const [oid, { base, states }] of this.#objects) {
      const blocks = states.at(-1)
      if (blocks) yield { oid, base, blocks }
    }
  }

  /** All disks lose power: of each object some of what was not durable is left. */
  losePower(): void {
    for (const object of this.#objects.values()) {
      const kept = this.#random.below(object.states.length)
      this.counts.lost += object.states.length - 1 - kept
      object.states = [object.states[kept]!]
    }
  }

  /** As an owner of this generation has them, on a node with this clock. */
  port(generation: number, clock: SimClock): ReplicatedObjects {
    const ask = <T>(oids: readonly bigint[], question: () => T): Promise<T> =>
      this.#ask(generation, clock, oids, question)
    return {
      write: (oid, contents, options) => this.#write(generation, clock, oid, contents, options),
      writeNow: (oid, contents, durable, done) => {
        if (this.#random.chance(0.5)) return false
        const written = this.#write(generation, clock, oid, contents, { exists: true, durable })
        written.then(
          () => done(null),
          (error) => done(toStoreError(error)),
        )
        return true
      },
      read: (oid, range) => ask([oid], () => this.#read(oid, range)),
      readNow: (oid, first, target, done) => {
        if (this.#random.chance(0.5)) return false
        const range = { first, count: target.length / BLOCK_BYTES }
        const read = ask([oid], () => this.#read(oid, range)).then(({ blocks }) => {
          for (const run of blocks) run.bytes.copy(target, (run.first - first) * BLOCK_BYTES)
          return blocks.length === range.count
        })
        read.then(done, () => done(false))
        return true
      },
      layoutOf: (oid) => ask([oid], () => this.#layoutOf(oid)),
      remove: (oid) => ask([oid], () => this.#remove(oid)),
      flush: () => ask([], () => this.#flush()),
      confirm: (vid) => ask(this.#broken.confirmsAnybody ? [] : [inodeOid(vid)], () => {}),
      making: () => () => {},
      objectsOf: (vid) => ask([], () => ({ oids: this.#objectsOf(vid), areAll: true })),
    }
  }

  async #ask<T>(generation: number, clock: SimClock, oids: readonly bigint[], question: () => T): Promise<T> {
    await clock.latency(LATENCY_MS)
    this.#seal(generation, oids)
    const isUnsure = this.#random.chance(this.unsureness)
    const isDone = !isUnsure || this.#random.chance(0.5)
    const result = isDone ? question() : undefined
    await clock.latency(LATENCY_MS)
    if (!isUnsure) return result as T
    this.counts.unsure++
    throw new StoreError('Unsure')
  }

  #seal(generation: number, oids: readonly bigint[]): void {
    for (const oid of oids) {
      const object = this.#object(oid)
      if (object.generation > generation) {
        this.counts.oldEpoch++
        throw new StoreError('OldEpoch')
      }
      object.generation = generation
    }
  }

  #object(oid: bigint): SimObject {
    const object = this.#objects.get(oid) ?? { generation: 0, base: null, states: [null] }
    this.#objects.set(oid, object)
    return object
  }

  #blocksOf(oid: bigint): Blocks {
    const blocks = this.#object(oid).states.at(-1)
    if (!blocks) throw new StoreError('NoObject', oid.toString(16))
    return blocks
  }

  async #write(
    generation: number,
    clock: SimClock,
    oid: bigint,
    contents: BlockContents,
    options: WriteOptions,
  ): Promise<void> {
    const isMap = oidKind(oid) === 'inode'
    const { answersMakingEarly, answersMapEarly } = this.#broken
    const isEarly = isMap ? answersMapEarly && options.exists : answersMakingEarly && !options.exists
    const kept = {
      ...contents,
      blocks: contents.blocks.map(({ first, bytes }) => ({ first, bytes: Buffer.from(bytes) })),
    }
    if (this.#random.chance(this.fullness) && contents.blocks.length > 0) {
      await clock.latency(LATENCY_MS)
      this.#seal(generation, [oid])
      this.counts.noSpace++
      throw new StoreError('NoSpace')
    }
    const written = this.#ask(generation, clock, [oid], () => this.#put(oid, kept, options, isMap)).catch(
      (error: StoreError) => {
        throw error.code === 'Unsure' && this.#broken.saysNothingWasDone ? new StoreError('NoSpace') : error
      },
    )
    if (isEarly) written.catch(() => {})
    else await written
  }

  #put(oid: bigint, contents: BlockContents, { exists, durable, base = null }: WriteOptions, isMap: boolean): void {
    const object = this.#object(oid)
    if (!exists) {
      this.counts.made++
      object.base = this.#broken.forgetsBases ? null : base
    }
    const blocks = new Map(exists ? this.#blocksOf(oid) : [])
    for (const run of contents.blocks) {
      for (let i = 0; i * BLOCK_BYTES < run.bytes.length; i++)
        blocks.set(run.first + i, run.bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES))
    }
    for (const { first, count } of contents.zeros)
      for (let block = first; block < first + count; block++) blocks.set(block, null)
    const inMemory = isMap ? this.#broken.mapsInMemory : this.#broken.makesInMemory && !exists
    if (durable && !inMemory) object.states = [blocks]
    else object.states.push(blocks)
  }

  #read(oid: bigint, { first, count }: BlockRange): ObjectContents {
    const blocks: BlockRun[] = []
    const zeros: BlockRange[] = []
    const inherited: BlockRange[] = []
    const held = this.#blocksOf(oid)
    const { base } = this.#object(oid)
    for (let block = first; block < first + count; block++) {
      const bytes = held.get(block)
      if (bytes) blocks.push({ first: block, bytes: Buffer.from(bytes) })
      else extend(bytes === undefined && base !== null ? inherited : zeros, block)
    }
    return { blocks, zeros, inherited, base }
  }

  #layoutOf(oid: bigint): ObjectLayout {
    const data: BlockRange[] = []
    const inherited: BlockRange[] = []
    const held = this.#blocksOf(oid)
    const { base } = this.#object(oid)
    for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
      const bytes = held.get(block)
      if (bytes) extend(data, block)
      else if (bytes === undefined && base !== null) extend(inherited, block)
    }
    return { data, inherited, base }
  }

  #remove(oid: bigint): void {
    const object = this.#object(oid)
    if (object.states.at(-1)) this.counts.removed++
    object.states = [null]
  }

  #flush(): void {
    for (const object of this.#objects.values()) object.states = [object.states.at(-1)!]
  }

  #objectsOf(vid: number): bigint[] {
    return [...this.all()].filter(({ oid }) => oidVid(oid) === vid).map(({ oid }) => oid)
  }
}

function extend(ranges: BlockRange[], block: number): void {
  const last = ranges.at(-1)
  if (last && last.first + last.count === block) last.count++
  else ranges.push({ first: block, count: 1 })
}
