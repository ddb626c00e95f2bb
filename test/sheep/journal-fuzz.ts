import assert from 'node:assert'
import { crc32 } from 'node:zlib'
import { pino } from 'pino'
import { StoreError } from '../../src/errors.ts'
import { oidVid } from '../../src/protocol/oid.ts'
import { type CopyRecord, isCopyRecord } from '../../src/sheep/copies/copy-records.ts'
import type { TailEntry } from '../../src/sheep/copies/copy-store.ts'
import { Journal, LOCATION_SEGMENT } from '../../src/sheep/journal.ts'
import { encodeMeta, type JournalRecord, metaPagesFor, recordBytes } from '../../src/sheep/journal-format.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, blockCrc, dataWord1, oidWords } from '../../src/sheep/object-format.ts'
import { openStoreFiles, type StoreFiles } from '../../src/sheep/store-files.ts'
import type { StoredObject } from '../../src/sheep/stored-object.ts'
import { Superblock } from '../../src/sheep/superblock.ts'
import { SimClock } from '../sim/clock.ts'
import { SimDisk } from '../sim/disk.ts'
import { SeededRandom } from '../sim/random.ts'
import { mutatePage, randomWord, ZERO_PAGE } from './page-mutations.ts'

const SEGMENT_PAGES = 10
const OIDS = [5n << 32n, (5n << 32n) | 1n, 6n << 32n]
const BLOCKS = 6
const SILENT = pino({ level: 'silent' })

interface Frame {
  sequence: number
  synced: number
  records: JournalRecord[]
  segment: 0 | 1
  /** Its pages, by their number in the segment. */
  pages: [number, Buffer][]
}

/** What a start must find, as far as the fuzzer can know it without the code that it tests. */
type Image = Map<bigint, { version: number; words: Map<number, string> }>

/**
 * A journal in two small segments, damaged in ever new ways and opened. Each input is opened as a start does it:
 *
 * 1. It opens, or throws a StoreError; nothing else, and in bounded time.
 * 2. What it replays is a prefix of what was written, and every block of it matches its CRC.
 * 3. If a frame that is whole says that others had been synced, then those are replayed, or it does not open.
 * 4. Damage behind everything that was synced does not keep it from opening, unless a frame turned up in another place.
 *
 * One input in four has the CRC put right after the damage, to reach what stands behind that door. Only 1 holds for those,
 * and the second half of 2.
 */
export class JournalFuzz {
  readonly #random: SeededRandom
  readonly #clock: SimClock
  readonly #disk: SimDisk
  #frames: Frame[] = []
  #segments: [Buffer[], Buffer[]] = [[], []]
  #firstSequence = 1
  /** Objects that there are after the last frame: only others are created, and only these are changed. */
  #live = new Set<bigint>()
  readonly outcomes = { open: 0, cut: 0, refused: 0 }

  constructor(seed: number) {
    this.#random = new SeededRandom(seed)
    this.#clock = new SimClock(this.#random)
    this.#disk = new SimDisk(this.#random, this.#clock)
  }

  async run(inputs: number): Promise<void> {
    await this.#prepare()
    for (let i = 0; i < inputs; i++) await this.#input()
  }

  async #prepare(): Promise<void> {
    const random = this.#random
    const storeId = random.bytes(16)
    const mark = { generation: 1 + random.below(5), sequence: 20 + random.below(100) }
    const disk = this.#disk.mount()
    const superblock = await this.#clock.run(Superblock.create(disk, storeId))
    await this.#clock.run(superblock.write({ ...mark, synced: mark.sequence, logNumber: 0, logBytes: 0 }))
    this.#disk.place('log.0', [])
    this.#firstSequence = mark.sequence

    const write = (segment: 0 | 1, generation: number, sequence: number, pagesMax: number): Frame[] => {
      const frames: Frame[] = []
      let synced = sequence
      for (let page = 0; ; sequence++) {
        const live = new Set(this.#live)
        const { records, payload } = this.#records(sequence)
        const metaPages = metaPagesFor(records.reduce((sum, record) => sum + recordBytes(record), 0))
        const payloadPages = payload.length
        if (page + metaPages + payloadPages > pagesMax) {
          this.#live = live
          return frames
        }
        if (random.chance(0.4)) synced += random.below(sequence - synced + 1)
        const header = {
          storeId,
          incarnation: 7,
          generation,
          sequence,
          syncedSequence: synced,
          metaPages,
          payloadPages,
        }
        const pages = [...split(encodeMeta(header, records)), ...payload].map((bytes, i): [number, Buffer] => [
          page + i,
          bytes,
        ])
        frames.push({ sequence, synced, records, segment, pages })
        page += pages.length
      }
    }
    const first = random.below(2) as 0 | 1
    const old = [0, 1].flatMap((segment) =>
      write(segment as 0 | 1, mark.generation - segment, mark.sequence - SEGMENT_PAGES, SEGMENT_PAGES),
    )
    this.#live.clear()
    const older = write(first, mark.generation + 1, mark.sequence, 1 + random.below(SEGMENT_PAGES))
    const newer = write(
      (1 - first) as 0 | 1,
      mark.generation + 2,
      mark.sequence + older.length,
      older.length === 0 ? 0 : random.below(SEGMENT_PAGES + 1),
    )
    this.#frames = [...older, ...newer]
    this.#segments = [0, 1].map(() => Array.from({ length: SEGMENT_PAGES }, () => ZERO_PAGE)) as [Buffer[], Buffer[]]
    for (const frame of [...(random.chance(0.5) ? old : []), ...this.#frames]) {
      for (const [page, bytes] of frame.pages) this.#segments[frame.segment][page] = bytes
    }
    await this.#check(this.#segments, false)
  }

  /** One to three changes, and the blocks that they bring. */
  #records(sequence: number): { records: JournalRecord[]; payload: Buffer[] } {
    const random = this.#random
    const payload: Buffer[] = []
    const records = Array.from({ length: 1 + random.below(3) }, (_, i): JournalRecord => {
      const oid = random.pick(OIDS)
      const version = sequence * 4 + i
      const first = random.below(BLOCKS)
      if (random.chance(0.3)) return this.#copyRecord(oid, sequence * 4 + i)
      if (random.chance(0.2)) return { kind: 'entry', index: sequence, bytes: Buffer.from(`entry ${sequence}`) }
      if (!this.#live.has(oid)) {
        this.#live.add(oid)
        return { kind: 'create', oid, version, epoch: 1, tag: 0, disk: 0, runs: [{ first, count: 2, holderVid: 9 }] }
      }
      switch (random.below(5)) {
        case 0: {
          const count = 1 + random.below(2)
          if (random.chance(0.5)) return { kind: 'inherit', oid, version, first, count, holderVid: 9 }
          return { kind: 'zero', oid, version, epoch: 1, first, count }
        }
        case 1:
          this.#live.delete(oid)
          return { kind: 'remove', oid, version }
        default: {
          const count = 1 + random.below(2)
          const words = new Uint32Array(count * 2)
          for (let block = 0; block < count; block++) {
            const bytes = Buffer.alloc(BLOCK_BYTES, random.bytes(8))
            words[block * 2 + 1] = dataWord1(1)
            words[block * 2] = blockCrc(oidWords(oid), first + block, words[block * 2 + 1]!, bytes)
            payload.push(bytes)
          }
          return { kind: 'blocks', oid, version, first, count, words }
        }
      }
    })
    return { records, payload }
  }

  #copyRecord(oid: bigint, number: number): CopyRecord {
    const random = this.#random
    const version = { generation: { epoch: 3, index: 1 + random.below(2), incarnation: 'a' }, sequence: number }
    switch (random.below(4)) {
      case 0: {
        const valid = random.chance(0.5) ? null : new Uint32Array(32).fill(number)
        const kind = random.pick(['full', 'partial', 'stale', 'removed'] as const)
        return { kind: 'copy', oid, image: { version, epochs: [3, 3], kind, valid } }
      }
      case 1:
        return { kind: 'settled', oid }
      case 2:
        return { kind: 'watermark', vid: oidVid(oid), version: { ...version, sequence: number - random.below(20) } }
      default:
        return { kind: 'wrote', oid, version, previous: null, ranges: [{ first: random.below(1000), count: 3 }] }
    }
  }

  async #input(): Promise<void> {
    const random = this.#random
    const segments = this.#segments.map((pages) => [...pages]) as [Buffer[], Buffer[]]
    const all = [...segments[0], ...segments[1]]
    const isForged = random.chance(0.25)
    for (let damages = 1 + random.below(3); damages > 0; damages--) {
      const pages = random.pick(segments)
      const at = random.below(pages.length)
      pages[at] = isForged ? this.#forge(pages[at]!) : mutatePage(random, pages[at]!, all)
    }
    if (!isForged && random.chance(0.05)) random.pick(segments).length = random.below(SEGMENT_PAGES)
    if (!isForged && random.chance(0.02)) {
      for (const pages of segments)
        for (const at of pages.keys()) pages[at] = Buffer.alloc(BLOCK_BYTES, random.bytes(512))
    }
    await this.#check(segments, isForged)
  }

  /** Words of a meta page changed, under a CRC that is right for one page. Other pages stay as they are. */
  #forge(page: Buffer): Buffer {
    const random = this.#random
    if (page.readUInt32LE(0) !== this.#frames[0]?.pages[0]?.[1].readUInt32LE(0)) return page
    const forged = Buffer.from(page)
    for (let words = 1 + random.below(3); words > 0; words--) {
      const at = random.chance(0.4) ? 24 + 4 * random.below(11) : 72 + 4 * random.below(40)
      if (random.chance(0.2)) forged.writeUInt32LE(random.below(6), at)
      else forged.writeUInt32LE(randomWord(random), at)
    }
    forged.writeUInt32LE(crc32(forged.subarray(72), crc32(forged.subarray(0, 68))), 68)
    return forged
  }

  async #check(segments: readonly [Buffer[], Buffer[]], isForged: boolean): Promise<void> {
    for (const index of [0, 1] as const) this.#disk.place(`journal.${index}`, segments[index])
    const files = await this.#open()
    this.#disk.kill()
    if (files !== null) this.#checkBlocks(files, segments)
    if (!isForged) this.#checkFrames(files, segments)
    if (files === null) this.outcomes.refused++
    else if (files.journalState.sequence < this.#firstSequence + this.#frames.length) this.outcomes.cut++
    else this.outcomes.open++
  }

  /** Null when the store refuses to start. */
  async #open(): Promise<StoreFiles | null> {
    const options = {
      disk: this.#disk.mount(),
      clock: this.#clock.mount(),
      random: this.#random,
      log: SILENT,
      segmentBytes: SEGMENT_PAGES * BLOCK_BYTES,
      durability: 'flush' as const,
      reserveBytes: 0,
      onFailed: (error: StoreError) => assert.fail(error),
    }
    try {
      return (await this.#clock.run(openStoreFiles(options))).files
    } catch (error) {
      if (error instanceof StoreError) return null
      throw error
    }
  }

  /** Whatever was replayed, each block of it is there and matches. */
  #checkBlocks(files: StoreFiles, segments: readonly [Buffer[], Buffer[]]): void {
    for (const object of files.replayed?.dirty.objects.keys() ?? []) {
      for (const [block, { word0, word1, location }] of object.overlay) {
        assert(block < BLOCKS_PER_OBJECT, 'a block outside of its object')
        if (location < 0) continue
        const page = segments[location >= LOCATION_SEGMENT ? 1 : 0][Journal.positionOf(location) / BLOCK_BYTES]
        assert(page && blockCrc(oidWords(object.oid), block, word1, page) === word0, 'a block that does not match')
      }
    }
  }

  #checkFrames(files: StoreFiles | null, segments: readonly [Buffer[], Buffer[]]): void {
    const isWhole = (frame: Frame) => frame.pages.every(([page, bytes]) => segments[frame.segment][page]?.equals(bytes))
    if (files === null) {
      const synced = Math.max(0, ...this.#frames.map((frame) => frame.synced))
      const lost = this.#frames.filter((frame) => frame.sequence < synced && !isWhole(frame))
      assert(lost.length > 0 || this.#hasStray(segments), 'refused, although nothing is lost that was synced')
      return
    }
    const count = files.journalState.sequence - this.#firstSequence
    assert(count >= 0 && count <= this.#frames.length, `a journal that goes on at ${files.journalState.sequence}`)
    const proven = Math.max(0, ...this.#frames.filter(isWhole).map((frame) => frame.synced))
    assert(files.journalState.sequence >= proven, `frames below ${proven} were synced, and are lost without a word`)
    const replayed = files.replayed?.dirty.objects.keys() ?? []
    const records = this.#frames.slice(0, count).flatMap((frame) => frame.records)
    assert.deepStrictEqual(imageOf(replayed), imageAfter(records))
    for (const oid of OIDS) {
      const copies = records.filter(isCopyRecord)
      const images = copies.flatMap((record) => (record.kind === 'copy' && record.oid === oid ? [record.image] : []))
      assert.deepStrictEqual(files.copies.imageOf(oid), images.at(-1) ?? null)
      assert.deepStrictEqual(files.copies.tailOf(oid), tailAfter(copies, oid))
    }
  }

  /** Whether a page has become the start of a frame that stands elsewhere. */
  #hasStray(segments: readonly [Buffer[], Buffer[]]): boolean {
    const starts = this.#segments.flat().filter((page) => page.readUInt32LE(0) !== 0)
    return segments.some((pages, segment) =>
      pages.some((page, at) => {
        const isChanged = !page.equals(this.#segments[segment as 0 | 1][at]!)
        return isChanged && starts.some((start) => start.equals(page))
      }),
    )
  }
}

/** What the frames leave in each object that they name, by a dumb replay. */
function imageAfter(records: readonly JournalRecord[]): Image {
  const image: Image = new Map()
  for (const record of records) {
    if (record.kind === 'entry' || record.kind === 'account' || isCopyRecord(record)) continue
    const { oid, version } = record
    const words = record.kind === 'create' ? new Map<number, string>() : (image.get(oid)?.words ?? new Map())
    if (record.kind === 'remove') {
      image.delete(oid)
      continue
    }
    if (record.kind === 'blocks')
      for (let i = 0; i < record.count; i++)
        words.set(record.first + i, `${record.words[i * 2]} ${record.words[i * 2 + 1]}`)
    if (record.kind === 'zero' || record.kind === 'inherit')
      for (let i = 0; i < record.count; i++) words.set(record.first + i, 'zeros')
    image.set(oid, { version, words })
  }
  return image
}

function tailAfter(records: readonly CopyRecord[], oid: bigint): TailEntry[] {
  let tail: TailEntry[] = []
  for (const record of records) {
    if (record.kind === 'settled' && record.oid === oid) tail = []
    if (record.kind === 'wrote' && record.oid === oid) {
      const { version, previous } = record
      for (const range of record.ranges) tail.push({ ...range, version, previous })
    }
    if (record.kind !== 'watermark' || record.vid !== oidVid(oid)) continue
    const { generation, sequence } = record.version
    tail = tail.filter(({ version }) => version.generation.index !== generation.index || version.sequence > sequence)
  }
  return tail
}

function imageOf(objects: Iterable<StoredObject>): Image {
  const image: Image = new Map()
  for (const { oid, version, overlay, removed } of objects) {
    if (removed) continue
    const words = new Map<number, string>()
    for (const [block, { word0, word1, location }] of overlay)
      words.set(block, location < 0 ? 'zeros' : `${word0} ${word1}`)
    image.set(oid, { version, words })
  }
  return image
}

function split(bytes: Buffer): Buffer[] {
  return Array.from({ length: bytes.length / BLOCK_BYTES }, (_, i) =>
    bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES),
  )
}
