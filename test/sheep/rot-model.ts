import { StoreError } from '../../src/errors.ts'
import { BLOCK_BYTES, TABLE_OFFSET } from '../../src/sheep/object-format.ts'
import type { Change } from '../../src/sheep/object-store.ts'
import { blocksOf, StoreBench } from './store-bench.ts'

const BLOCKS = 6
const VIDS = [1, 2, 3]
/** What an object takes from another one. */
const INHERITED = { first: 1, count: 3 }

interface Image {
  /** Object → what its first blocks are filled with. */
  objects: Map<bigint, number[]>
  /** Entries of the ordered log. */
  entries: number
}

const oidOf = (vid: number, index: number) => (BigInt(vid) << 32n) | BigInt(index)

/**
 * One seed of rot: a store with some objects, holes, inherited blocks and entries of the log is closed or killed, one bit of
 * one file flips, and the store starts again. It may refuse to start; if it starts, each read gives what was written or an
 * error. Then it is written to, checkpointed and read once more: rot must not turn into good data by that.
 */
export class RotModel {
  readonly #bench: StoreBench
  #image: Image = { objects: new Map(), entries: 0 }
  /** The image before the last transaction: a flip in the last frame of the journal makes it a torn tail. */
  #previous: Image = this.#image
  /** Objects that others inherit from: like those of a snapshot, they do not change any more. */
  readonly #frozen = new Set<bigint>()
  readonly #heirs = new Set<bigint>()
  #fill = 0
  #path = ''
  /** What the flip led to. */
  outcome: 'refused' | 'errors' | 'nothing' = 'nothing'

  constructor(seed: number) {
    this.#bench = new StoreBench({ seed, segmentBlocks: 24 })
  }

  async run(): Promise<void> {
    const bench = this.#bench
    await bench.open()
    for (let i = 5 + bench.random.below(20); i > 0; i--) await this.#commit()
    const isClosed = bench.random.chance(0.5)
    if (isClosed) await bench.close()
    else bench.disk.kill()
    this.#flip()
    try {
      await bench.open()
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.outcome = 'refused'
      return
    }
    if (!isClosed && !(await this.#matches(this.#image))) this.#image = this.#previous
    await this.#check()
    for (let i = 0; i < 12; i++) await this.#commit()
    await bench.settle()
    await this.#check()
  }

  /** A bit somewhere in a page that holds something. */
  #flip(): void {
    const { random, disk } = this.#bench
    this.#path = random.pick(disk.paths().filter((path) => disk.sizeOf(path) > 0))
    const sizeBytes = disk.sizeOf(this.#path)
    const pages = Array.from({ length: Math.ceil(sizeBytes / BLOCK_BYTES) }, (_, page) => page)
    const start = random.pick(pages.filter((page) => disk.hasPage(this.#path, page))) * BLOCK_BYTES
    // The head of a page, where headers and the entries of the first blocks are, as often as all the rest.
    const headBytes = start === TABLE_OFFSET ? BLOCKS * 8 : 100
    const at = random.below(random.chance(0.5) ? headBytes : BLOCK_BYTES)
    disk.flipBit(this.#path, Math.min(start + at, sizeBytes - 1))
  }

  async #commit(): Promise<void> {
    const { random } = this.#bench
    const next = { ...this.#image, objects: new Map(this.#image.objects) }
    const oid = oidOf(random.pick(VIDS), random.below(2))
    const change = random.chance(0.15)
      ? this.#addEntry(next)
      : this.#image.objects.has(oid)
        ? await this.#change(next, oid)
        : this.#create(next, oid)
    if (!change) return
    await this.#bench.commit([change])
    this.#previous = this.#image
    this.#image = next
  }

  #addEntry(next: Image): Change {
    next.entries++
    return { kind: 'entry', index: next.entries, bytes: Buffer.from(`entry ${next.entries}`) }
  }

  /** A new object, empty or with blocks of the same one of another vid, if that holds them itself. */
  #create(next: Image, oid: bigint): Change {
    const holderVid = this.#bench.random.pick(VIDS)
    const holder = oidOf(holderVid, Number(oid & 1n))
    const blocks = Array.from({ length: BLOCKS }, () => 0)
    const source = next.objects.get(holder)
    if (!source || this.#heirs.has(holder)) {
      next.objects.set(oid, blocks)
      return { kind: 'create', oid, runs: [] }
    }
    const { first, count } = INHERITED
    this.#frozen.add(holder)
    this.#heirs.add(oid)
    next.objects.set(oid, blocks.toSpliced(first, count, ...source.slice(first, first + count)))
    return { kind: 'create', oid, runs: [{ first, count, holderVid }] }
  }

  async #change(next: Image, oid: bigint): Promise<Change | null> {
    const { random, store, clock } = this.#bench
    if (this.#frozen.has(oid)) return null
    try {
      const object = await clock.run(store.hold(oid))
      const first = random.below(BLOCKS - 1)
      const isZero = random.chance(0.2)
      if (!isZero) this.#fill = (this.#fill % 255) + 1
      const fill = isZero ? 0 : this.#fill
      next.objects.set(oid, next.objects.get(oid)!.toSpliced(first, 2, fill, fill))
      if (isZero) return { kind: 'zero', object, first, count: 2 }
      return { kind: 'blocks', object, first, bytes: blocksOf(fill, fill) }
    } catch (error) {
      if (error instanceof StoreError && error.code === 'CorruptBlock') return null // its header is rotten
      throw error
    }
  }

  async #check(): Promise<void> {
    if (await this.#matches(this.#image)) return
    throw new Error(`a bit of ${this.#path} flipped, and the store holds what was never written`)
  }

  /** Whether everything that can be read is as in the image. */
  async #matches({ objects, entries }: Image): Promise<boolean> {
    const bench = this.#bench
    const found = bench.entries.map(({ index, bytes }) => `${index} ${bytes}`)
    const expected = Array.from({ length: entries }, (_, i) => `${i + 1} entry ${i + 1}`)
    if (found.join() !== expected.join() || [...bench.store.oids()].length !== objects.size) return false
    for (const [oid, blocks] of objects) {
      if (!bench.store.exists(oid)) return false
      for (const [block, fill] of blocks.entries()) {
        try {
          if (!(await bench.read(oid, block)).equals(blocksOf(fill))) return false
        } catch (error) {
          if (!(error instanceof StoreError) || error.code !== 'CorruptBlock') throw error
          this.outcome = 'errors'
        }
      }
    }
    return true
  }
}
