import { StoreError } from '../../src/errors.ts'
import { BLOCK_BYTES, type InheritRun, TABLE_OFFSET } from '../../src/sheep/object-format.ts'
import type { Change } from '../../src/sheep/object-store.ts'
import { blocksOf, StoreBench } from './store-bench.ts'

const BLOCKS = 6
const VIDS = [1, 2, 3]

/** Object → what its first blocks are filled with. */
type Image = Map<bigint, number[]>

const oidOf = (vid: number, index: number) => (BigInt(vid) << 32n) | BigInt(index)

/**
 * One seed of rot: a store with some objects, holes, inherited blocks and entries of the log is closed or killed, one bit of
 * one file flips, and the store starts again. It may refuse to start; if it starts, each read gives what was written or an
 * error. Then it is written to, checkpointed and read once more: rot must not turn into good data by that.
 */
export class RotModel {
  readonly bench: StoreBench
  #image: Image = new Map()
  /** The image before the last transaction, which a flip in its own frame may take for a torn tail. */
  #previous: Image = new Map()
  #entries = 0
  #fill = 0
  /** What the flip led to. */
  outcome: 'refused' | 'errors' | 'nothing' = 'nothing'
  path = ''

  constructor(seed: number) {
    this.bench = new StoreBench({ seed, segmentBlocks: 24 })
  }

  async run(): Promise<void> {
    const { bench } = this
    const { random } = bench
    await bench.open()
    for (let i = 5 + random.below(20); i > 0; i--) await this.#commit()
    const closed = random.chance(0.5)
    if (closed) await bench.close()
    else bench.disk.kill()
    this.#flip()
    try {
      await bench.open()
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.outcome = 'refused'
      return
    }
    if (!closed && !(await this.#matches(this.#image)) && (await this.#matches(this.#previous))) {
      this.#image = this.#previous
    }
    this.#expect(await this.#matches(this.#image))
    for (let i = 0; i < 12; i++) await this.#commit()
    await bench.settle()
    this.#expect(await this.#matches(this.#image))
  }

  #expect(matches: boolean): void {
    if (!matches) throw new Error(`a bit of ${this.path} flipped, and a read gives what was never written`)
  }

  /** A bit somewhere in a page that holds something. */
  #flip(): void {
    const { random, disk } = this.bench
    const paths = disk.paths().filter((path) => disk.sizeOf(path) > 0)
    this.path = random.pick(paths)
    const pages = Math.ceil(disk.sizeOf(this.path) / BLOCK_BYTES)
    const held = Array.from({ length: pages }, (_, page) => page).filter((page) => disk.hasPage(this.path, page))
    const page = random.pick(held)
    // The head of a page, where headers and the entries of the first blocks are, as often as all the rest.
    const inTable = this.path.startsWith('obj/') && page === TABLE_OFFSET / BLOCK_BYTES
    const limit = random.chance(0.5) ? (inTable ? BLOCKS * 8 : 100) : BLOCK_BYTES
    disk.flipBit(this.path, Math.min(page * BLOCK_BYTES + random.below(limit), disk.sizeOf(this.path) - 1))
  }

  async #commit(): Promise<void> {
    const { random } = this.bench
    const oid = oidOf(random.pick(VIDS), random.below(2))
    const next = new Map(this.#image)
    const blocks = this.#image.get(oid)
    const changes: Change[] = []
    if (!blocks) {
      const base = VIDS.find(
        (vid) => this.#image.has(oidOf(vid, Number(oid & 1n))) && oidOf(vid, Number(oid & 1n)) !== oid,
      )
      const runs: InheritRun[] =
        base !== undefined && random.chance(0.5) ? [{ first: 1, count: 3, holderVid: base }] : []
      changes.push({ kind: 'create', oid, runs })
      const from = base === undefined ? [] : this.#image.get(oidOf(base, Number(oid & 1n)))!
      next.set(
        oid,
        Array.from({ length: BLOCKS }, (_, block) => (runs.length > 0 && block >= 1 && block < 4 ? from[block]! : 0)),
      )
      // Whoever is inherited from must not change any more: that is what snapshots are.
      if (runs.length > 0) this.#frozen.add(oidOf(base!, Number(oid & 1n)))
    } else if (this.#frozen.has(oid)) {
      changes.push({ kind: 'entry', index: ++this.#entries, bytes: Buffer.from(`entry ${this.#entries}`) })
    } else {
      const first = random.below(BLOCKS - 1)
      const object = await this.#load(oid)
      if (!object) return
      const isZero = random.chance(0.2)
      const fill = isZero ? 0 : (this.#fill = (this.#fill % 255) + 1)
      changes.push(
        isZero
          ? { kind: 'zero', object, first, count: 2 }
          : { kind: 'blocks', object, first, bytes: blocksOf(fill, fill) },
      )
      next.set(oid, blocks.with(first, fill).with(first + 1, fill))
    }
    await this.bench.commit(changes)
    this.#previous = this.#image
    this.#image = next
  }
  readonly #frozen = new Set<bigint>()

  /** The object, held for good; null when its header is rotten. */
  async #load(oid: bigint) {
    try {
      return await this.bench.clock.run(this.bench.store.hold(oid))
    } catch (error) {
      if (error instanceof StoreError && error.code === 'CorruptBlock') return null
      throw error
    }
  }

  /** Whether everything that can be read is as in the image. */
  async #matches(image: Image): Promise<boolean> {
    const { bench } = this
    const found = new Set(bench.store.oids())
    if (found.size !== image.size || [...image.keys()].some((oid) => !found.has(oid))) return false
    for (const [oid, blocks] of image) {
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
