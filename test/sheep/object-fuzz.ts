import assert from 'node:assert'
import { crc32 } from 'node:zlib'
import { StoreError } from '../../src/errors.ts'
import { BLOCK_BYTES, HEADER_OFFSET, objectPath, TABLE_OFFSET } from '../../src/sheep/object-format.ts'
import { mutatePage, randomWord, ZERO_PAGE } from './page-mutations.ts'
import { blocksOf, StoreBench } from './store-bench.ts'

const BLOCKS = 5
const OVERWRITTEN = 0xa5
const HEADER_PAGE = HEADER_OFFSET / BLOCK_BYTES
const TABLE_PAGE = TABLE_OFFSET / BLOCK_BYTES
const BASE_VID = 5
/** Four objects each: the base, two that inherit from it, and one by itself. A start is dearer than all that it reads. */
const FAMILIES = Array.from({ length: 4 }, (_, index) => {
  const oid = (vid: number) => (BigInt(vid) << 32n) | BigInt(index)
  return { base: oid(BASE_VID), heir: oid(6), lateHeir: oid(7), alone: oid(8) }
})
const OIDS = FAMILIES.flatMap(({ base, heir, lateHeir, alone }) => [base, heir, lateHeir, alone])
/** The base of whoever inherits, and of itself. */
const BASES = new Map(FAMILIES.flatMap(({ base, heir, lateHeir }) => [base, heir, lateHeir].map((oid) => [oid, base])))
const isBase = (oid: bigint) => BASES.get(oid) === oid

interface Image {
  pages: ReadonlyMap<number, Buffer>
  sizeBytes: number
}

/**
 * A store at rest whose object files are damaged in ever new ways. An input is one file that is damaged; there are as many
 * to a start as there are objects. Every block is then read: it is what was written, or CorruptBlock. Now and then an object
 * is written to, which works or says CorruptBlock too, and must not make anything else of what is damaged. One input in four
 * has the header's CRC put right after the damage.
 */
export class ObjectFuzz {
  readonly #bench: StoreBench
  /** What each object's blocks are filled with. */
  readonly #fills = new Map<bigint, number[]>()
  readonly #rest = new Map<string, Image>()
  /** Pages of all objects, which may land anywhere; those of the same place in an earlier time may not, which nothing could tell. */
  readonly #strays: Buffer[] = [ZERO_PAGE]
  /** Their files are gone: whoever asks for them is told that there is none. */
  readonly #removed = new Set<bigint>()
  /** Objects that read as all of what was written, and blocks that did not. */
  readonly outcomes = { right: 0, corrupt: 0 }

  constructor(seed: number) {
    this.#bench = new StoreBench({ seed, segmentBlocks: 8, placedMinBytes: 2 * BLOCK_BYTES })
  }

  async run(inputs: number): Promise<void> {
    await this.#prepare()
    for (let left = inputs; left > 0; left -= OIDS.length) await this.#start(OIDS.slice(0, left))
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
    for (const { base, heir, lateHeir, alone } of FAMILIES) {
      await create(base, 0, [])
      await create(heir, 3, [{ first: 0, count: 3, holderVid: BASE_VID }])
      await create(lateHeir, 4, [{ first: 1, count: 2, holderVid: BASE_VID }])
      await create(alone, bench.random.below(3), [])
    }
    await bench.settle()
    // Large writes over what is there: these blocks lie in the other slot now.
    for (const oid of FAMILIES.flatMap(({ heir, alone }) => [heir, alone])) {
      const own = fills().slice(0, 2)
      await bench.write(oid, BLOCKS - 3, ...own)
      this.#fills.get(oid)!.splice(BLOCKS - 3, own.length, ...own)
    }
    await bench.close()
    for (const path of bench.disk.paths())
      this.#rest.set(path, { pages: bench.disk.pagesOf(path), sizeBytes: bench.disk.sizeOf(path) })
    for (const oid of OIDS) this.#strays.push(...this.#rest.get(objectPath(oid))!.pages.values())
  }

  async #start(oids: readonly bigint[]): Promise<void> {
    const { random, disk } = this.#bench
    this.#removed.clear()
    for (const oid of oids) this.#damage(oid, random.chance(0.25))
    await this.#bench.open()
    for (const oid of OIDS) await this.#readAll(oid)
    await this.#writeAndRead(oids.filter((oid) => !isBase(oid) && random.chance(0.07)))
    // What others inherit is never written in a real store; but whoever did it would be told of damage, too.
    for (const oid of oids) if (isBase(oid) && random.chance(0.05)) await this.#overwrite(oid)
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
    if (isForged) {
      changed.set(HEADER_PAGE, forgeHeader(pages.get(HEADER_PAGE)!, random.below(52) & ~3, randomWord(random)))
      if (random.chance(0.5)) return disk.placeSparse(path, changed, sizeBytes)
    }
    if (random.chance(0.05)) {
      if (random.chance(0.3)) {
        this.#removed.add(oid)
        return disk.remove(path)
      }
      const length = random.chance(0.5) ? random.below(sizeBytes) : HEADER_OFFSET + random.below(BLOCK_BYTES)
      for (const page of changed.keys()) if (page * BLOCK_BYTES >= length) changed.delete(page)
      return disk.placeSparse(path, changed, length)
    }
    for (let damages = 1 + random.below(3); damages > 0; damages--) {
      const page = random.pick([...changed.keys(), TABLE_PAGE, TABLE_PAGE, HEADER_PAGE])
      changed.set(page, mutatePage(random, changed.get(page) ?? ZERO_PAGE, this.#strays))
    }
    disk.placeSparse(path, changed, sizeBytes)
  }

  async #readAll(oid: bigint): Promise<void> {
    const fills = this.#fills.get(oid)!
    try {
      const bytes = await this.#bench.read(oid, 0, BLOCKS)
      assert(bytes.equals(blocksOf(...fills)), `${oid.toString(16)} reads as what was never written`)
      this.outcomes.right++
    } catch (error) {
      this.#mustBeCorrupt(oid, error)
      for (const [block, fill] of fills.entries()) await this.#readOne(oid, block, fill)
    }
  }

  async #readOne(oid: bigint, block: number, fill: number): Promise<void> {
    try {
      const bytes = await this.#bench.read(oid, block)
      assert(bytes.equals(blocksOf(fill)), `block ${block} of ${oid.toString(16)} reads as what was never written`)
    } catch (error) {
      this.#mustBeCorrupt(oid, error)
      this.outcomes.corrupt++
    }
  }

  /** Blocks are overwritten, checkpointed and read by another start; what was damaged beside them stays so, or is right. */
  async #writeAndRead(oids: readonly bigint[]): Promise<void> {
    const written = new Map<bigint, number>()
    for (const oid of oids) {
      const block = await this.#overwrite(oid)
      if (block !== null) written.set(oid, block)
    }
    if (written.size === 0) return
    await this.#bench.settle()
    for (const [oid, block] of written) {
      const before = this.#fills.get(oid)!
      this.#fills.set(oid, before.with(block, OVERWRITTEN))
      await this.#readAll(oid)
      this.#fills.set(oid, before)
    }
  }

  /** Which block was written; null when the store said that it could not be. */
  async #overwrite(oid: bigint): Promise<number | null> {
    const block = this.#bench.random.below(BLOCKS)
    try {
      await this.#bench.write(oid, block, OVERWRITTEN)
      return block
    } catch (error) {
      this.#mustBeCorrupt(oid, error)
      return null
    }
  }

  #mustBeCorrupt(oid: bigint, error: unknown): void {
    const isRemoved = [oid, BASES.get(oid)].some((each) => each !== undefined && this.#removed.has(each))
    const isExpected =
      error instanceof StoreError && (error.code === 'CorruptBlock' || (isRemoved && error.code === 'NoObject'))
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
