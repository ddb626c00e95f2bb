import assert from 'node:assert'
import { crc32 } from 'node:zlib'
import { StoreError } from '../../src/errors.ts'
import { BLOCK_BYTES, HEADER_OFFSET, objectPath, TABLE_OFFSET } from '../../src/sheep/object-format.ts'
import { mutatePage, randomWord, ZERO_PAGE } from './page-mutations.ts'
import { blocksOf, StoreBench } from './store-bench.ts'

const BLOCKS = 5
const HEADER_PAGE = HEADER_OFFSET / BLOCK_BYTES
const TABLE_PAGE = TABLE_OFFSET / BLOCK_BYTES
/** The base, two that inherit from it, and one by itself. */
const OIDS = [5n << 32n, 6n << 32n, 7n << 32n, (5n << 32n) | 1n]
const [BASE, HEIR, LATE_HEIR, ALONE] = OIDS as [bigint, bigint, bigint, bigint]

interface Image {
  pages: ReadonlyMap<number, Buffer>
  sizeBytes: number
}

/**
 * A store at rest whose object files are damaged in ever new ways. For each input it starts, and every block of the
 * object and of its heirs is read: it is what was written, or CorruptBlock. Now and then it is written to, which works or says CorruptBlock too, and must not
 * make anything else of what is damaged. One input in four has the header's CRC put right after the damage.
 */
export class ObjectFuzz {
  readonly #bench: StoreBench
  /** What each object's blocks are filled with. */
  readonly #fills = new Map<bigint, number[]>()
  readonly #rest = new Map<string, Image>()
  /** The file of an object is gone: whoever asks for it is told that there is none. */
  #isRemoved = false
  readonly outcomes = { right: 0, corrupt: 0 }

  constructor(seed: number) {
    this.#bench = new StoreBench({ seed, segmentBlocks: 8, placedMinBytes: 2 * BLOCK_BYTES })
  }

  async run(inputs: number): Promise<void> {
    await this.#prepare()
    for (let i = 0; i < inputs; i++) await this.#input()
  }

  async #prepare(): Promise<void> {
    const bench = this.#bench
    await bench.open()
    const fills = () => Array.from({ length: 3 }, () => 1 + bench.random.below(255))
    const create = async (oid: bigint, first: number, runs: { first: number; count: number; holderVid: number }[]) => {
      await bench.commit([{ kind: 'create', oid, runs }])
      const blocks = Array.from({ length: BLOCKS }, () => 0)
      for (const { first, count, holderVid } of runs) {
        const holder = this.#fills.get((BigInt(holderVid) << 32n) | (oid & 0xffffffffn))!
        blocks.splice(first, count, ...holder.slice(first, first + count))
      }
      const own = fills().slice(0, BLOCKS - first)
      await bench.write(oid, first, ...own)
      blocks.splice(first, own.length, ...own)
      this.#fills.set(oid, blocks)
    }
    await create(BASE, 0, [])
    await create(HEIR, 3, [{ first: 0, count: 3, holderVid: 5 }])
    await create(LATE_HEIR, 4, [{ first: 1, count: 2, holderVid: 5 }])
    await create(ALONE, bench.random.below(3), [])
    await bench.settle()
    // Large writes over what is there: these blocks lie in the other slot now.
    for (const oid of [HEIR, ALONE]) {
      const own = fills().slice(0, 2)
      await bench.write(oid, BLOCKS - 3, ...own)
      this.#fills.get(oid)!.splice(BLOCKS - 3, own.length, ...own)
    }
    await bench.close()
    for (const path of bench.disk.paths())
      this.#rest.set(path, { pages: bench.disk.pagesOf(path), sizeBytes: bench.disk.sizeOf(path) })
  }

  async #input(): Promise<void> {
    const { random, disk } = this.#bench
    const oid = random.pick(OIDS)
    this.#damage(oid, random.chance(0.25))
    await this.#bench.open()
    const corruptBefore = this.outcomes.corrupt
    for (const each of oid === BASE ? [BASE, HEIR, LATE_HEIR] : [oid]) await this.#readAll(each)
    if (this.outcomes.corrupt === corruptBefore) this.outcomes.right++
    if (random.chance(0.05)) await this.#writeAndRead(oid)
    disk.kill()
    this.#restore()
  }

  #restore(): void {
    const { disk } = this.#bench
    for (const path of disk.paths()) if (!this.#rest.has(path)) disk.remove(path)
    for (const [path, { pages, sizeBytes }] of this.#rest) disk.placeSparse(path, pages, sizeBytes)
  }

  #damage(oid: bigint, isForged: boolean): void {
    const { random, disk } = this.#bench
    const path = objectPath(oid)
    const { pages, sizeBytes } = this.#rest.get(path)!
    const changed = new Map(pages)
    this.#isRemoved = false
    if (isForged) {
      changed.set(HEADER_PAGE, forgeHeader(pages.get(HEADER_PAGE)!, random.below(52) & ~3, randomWord(random)))
      if (random.chance(0.5)) return disk.placeSparse(path, changed, sizeBytes)
    }
    if (random.chance(0.05)) {
      if (random.chance(0.3)) {
        this.#isRemoved = true
        return disk.remove(path)
      }
      const length = random.chance(0.5) ? random.below(sizeBytes) : HEADER_OFFSET + random.below(BLOCK_BYTES)
      for (const page of changed.keys()) if (page * BLOCK_BYTES >= length) changed.delete(page)
      return disk.placeSparse(path, changed, length)
    }
    // Pages of all objects may land here; those of the same place in an earlier time may not, which nothing could tell.
    const others = [ZERO_PAGE, ...OIDS.flatMap((other) => [...this.#rest.get(objectPath(other))!.pages.values()])]
    for (let damages = 1 + random.below(3); damages > 0; damages--) {
      const page = random.pick([...changed.keys(), TABLE_PAGE, TABLE_PAGE, HEADER_PAGE])
      changed.set(page, mutatePage(random, changed.get(page) ?? ZERO_PAGE, others))
    }
    disk.placeSparse(path, changed, sizeBytes)
  }

  async #readAll(oid: bigint): Promise<void> {
    const fills = this.#fills.get(oid)!
    try {
      const bytes = await this.#bench.read(oid, 0, BLOCKS)
      assert(bytes.equals(blocksOf(...fills)), `${oid.toString(16)} reads as what was never written`)
    } catch (error) {
      this.#mustBeCorrupt(error)
      for (const [block, fill] of fills.entries()) await this.#readOne(oid, block, fill)
    }
  }

  async #readOne(oid: bigint, block: number, fill: number): Promise<void> {
    try {
      const bytes = await this.#bench.read(oid, block)
      assert(bytes.equals(blocksOf(fill)), `block ${block} of ${oid.toString(16)} reads as what was never written`)
    } catch (error) {
      this.#mustBeCorrupt(error)
      this.outcomes.corrupt++
    }
  }

  /** A block is overwritten, checkpointed and read by another start; what was damaged beside it stays so, or is right. */
  async #writeAndRead(oid: bigint): Promise<void> {
    const block = this.#bench.random.below(BLOCKS)
    const before = this.#fills.get(oid)!
    try {
      await this.#bench.write(oid, block, 0xa5)
    } catch (error) {
      this.#mustBeCorrupt(error)
      return
    }
    if (oid === BASE) return // what others inherit is never written in a real store
    await this.#bench.settle()
    this.#fills.set(oid, before.with(block, 0xa5))
    await this.#readAll(oid)
    this.#fills.set(oid, before)
  }

  #mustBeCorrupt(error: unknown): void {
    const isExpected =
      error instanceof StoreError && (error.code === 'CorruptBlock' || (this.#isRemoved && error.code === 'NoObject'))
    if (!isExpected) throw error
  }
}

/** A word of a header changed, under a CRC that is right. */
function forgeHeader(page: Buffer, at: number, word: number): Buffer {
  const forged = Buffer.from(page)
  forged.writeUInt32LE(word, at)
  forged.writeUInt32LE(crc32(forged.subarray(0, 52)), 52)
  return forged
}
