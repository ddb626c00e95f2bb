import { crc32 } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import type { DiskFile } from '../../src/runtime/disk.ts'
import { LOCATION_SEGMENT } from '../../src/sheep/journal.ts'
import { encodeMeta, type JournalRecord, metaPagesFor, recordBytes } from '../../src/sheep/journal-format.ts'
import { scanJournal } from '../../src/sheep/journal-scan.ts'
import { BLOCK_BYTES, blockCrc, dataWord1, oidWords } from '../../src/sheep/object-format.ts'

const STORE = Buffer.alloc(16, 7)
const OID = 5n << 32n
const PAGES = 24

interface FrameFields {
  generation: number
  sequence: number
  synced: number
  payloadPages: number
  incarnation?: number
  storeId?: Buffer
}

/** One frame with a `blocks` record, byte for byte as the journal writes it. */
function frame({ generation, sequence, synced, payloadPages, incarnation = 1, storeId = STORE }: FrameFields): Buffer {
  const payload = Buffer.alloc(payloadPages * BLOCK_BYTES, sequence)
  const words = new Uint32Array(payloadPages * 2)
  for (let i = 0; i < payloadPages; i++) {
    words[i * 2 + 1] = dataWord1(1)
    const bytes = payload.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)
    words[i * 2] = blockCrc(oidWords(OID), i, words[i * 2 + 1]!, bytes)
  }
  const record: JournalRecord = { kind: 'blocks', oid: OID, version: sequence, first: 0, count: payloadPages, words }
  const metaPages = metaPagesFor(recordBytes(record))
  const header = { storeId, incarnation, generation, sequence, syncedSequence: synced, metaPages, payloadPages }
  return Buffer.concat([encodeMeta(header, [record]), payload])
}

function memoryFile(bytes: Buffer): DiskFile {
  const unused = () => expect.unreachable('a scan only reads')
  return {
    read: async (target, position) => bytes.copy(target, 0, position, position + target.length),
    readNow: unused,
    write: unused,
    writeNow: unused,
    sync: unused,
    truncate: unused,
    size: async () => bytes.length,
    dataRanges: unused,
    close: unused,
  }
}

/** Both segments from their frames, the rest zeros; `damage` may change them before they are read. */
function segments(first: Buffer[], second: Buffer[], damage: (segments: [Buffer, Buffer]) => void = () => {}) {
  const bytes: [Buffer, Buffer] = [
    Buffer.concat(first, PAGES * BLOCK_BYTES),
    Buffer.concat(second, PAGES * BLOCK_BYTES),
  ]
  damage(bytes)
  return [memoryFile(bytes[0]), memoryFile(bytes[1])] as const
}

const scan = (files: readonly [DiskFile, DiskFile], checkpointed = { generation: 4, sequence: 50, synced: 50 }) =>
  scanJournal(files, STORE, checkpointed)

const sequencesOf = ({ frames }: Awaited<ReturnType<typeof scan>>) => frames.map(({ header }) => header.sequence)

/** Generation 5 from page 0: frames 50, 51, 52, 53 of 2, 3, 1 and 4 pages. Nothing was synced when they were written. */
const LIVE = [
  { payloadPages: 1, sequence: 50 },
  { payloadPages: 2, sequence: 51 },
  { payloadPages: 0, sequence: 52 },
  { payloadPages: 3, sequence: 53 },
].map((fields) => ({ generation: 5, synced: 50, ...fields }))
const ENDS = [2, 5, 6, 10]

describe('a scan of the journal', () => {
  it('returns the frames after the checkpoint, in order, with their places', async () => {
    const found = await scan(segments(LIVE.map(frame), []))
    expect(sequencesOf(found)).toEqual([50, 51, 52, 53])
    expect(found.frames.map(({ payload }) => payload)).toEqual([1, 3, 6, 7])
    expect(found).toMatchObject({ usedPages: [10, 0], generation: 5 })
  })

  it('goes on in the other segment, whichever came first', async () => {
    const next = [frame({ generation: 6, sequence: 54, synced: 54, payloadPages: 1 })]
    for (const swapped of [false, true]) {
      const live = LIVE.map(frame)
      const found = await scan(swapped ? segments(next, live) : segments(live, next))
      expect(sequencesOf(found)).toEqual([50, 51, 52, 53, 54])
      expect(found.frames.at(-1)!.payload).toBe(swapped ? 1 : LOCATION_SEGMENT + 1)
      expect(found.usedPages).toEqual(swapped ? [2, 10] : [10, 2])
    }
  })

  it('cuts the torn tail of a crash at any page', async () => {
    for (let cut = 0; cut <= 10; cut++) {
      const files = segments(LIVE.map(frame), [], ([first]) => first.fill(0, cut * BLOCK_BYTES))
      const whole = ENDS.filter((end) => end <= cut).length
      const found = await scan(files)
      expect(sequencesOf(found)).toEqual([50, 51, 52, 53].slice(0, whole))
      expect(found.usedPages[0]).toBe(ENDS[whole - 1] ?? 0)
    }
  })

  it('cuts before a page of which any sector was lost, though later frames are whole', async () => {
    for (let page = 0; page < 10; page++) {
      const files = segments(LIVE.map(frame), [], ([first]) =>
        first.fill(0xdd, page * BLOCK_BYTES + 512, page * BLOCK_BYTES + 1024),
      )
      const found = await scan(files)
      // The records of these frames fit into the first sector of their page: the rest is padding that the CRC covers.
      const hit = ENDS.findIndex((end) => page < end)
      expect(sequencesOf(found)).toEqual([50, 51, 52, 53].slice(0, hit))
      expect(found.generation).toBe(5)
    }
  })

  it('refuses damage anywhere below what a later frame says was synced', async () => {
    const proof = frame({ generation: 6, sequence: 54, synced: 53, payloadPages: 1 })
    for (let page = 0; page < 6; page++) {
      const files = segments(LIVE.map(frame), [proof], ([first]) => {
        first[page * BLOCK_BYTES + 40]! ^= 4
      })
      await expect(scan(files)).rejects.toMatchObject({ code: 'CorruptBlock' })
    }
    const above = segments(LIVE.map(frame), [proof], ([first]) => {
      first[6 * BLOCK_BYTES + 40]! ^= 4
    })
    expect(sequencesOf(await scan(above))).toEqual([50, 51, 52]) // 53 was not synced: a torn tail
  })

  it('refuses a journal that begins after a gap that was synced', async () => {
    const late = frame({ generation: 6, sequence: 54, synced: 54, payloadPages: 0 })
    await expect(scan(segments([], [late]))).rejects.toMatchObject({ code: 'CorruptBlock' })
  })

  it('leaves out what the checkpoint has, and what an earlier filling or life left behind the end', async () => {
    const old = [40, 41].map((sequence) => frame({ generation: 4, sequence, synced: 40, payloadPages: 1 }))
    const stale = [52, 53].map((sequence) =>
      frame({ generation: 5, sequence, synced: 50, payloadPages: 1, incarnation: 9 }),
    )
    const live = LIVE.slice(0, 2).map(frame)
    expect(sequencesOf(await scan(segments([...live, ...stale], old)))).toEqual([50, 51])
    const older = [54, 55].map((sequence) => frame({ generation: 3, sequence, synced: 20, payloadPages: 1 }))
    expect(sequencesOf(await scan(segments([...live, ...older], old)))).toEqual([50, 51])
  })

  it('knows the highest generation, also of frames that it does not replay', async () => {
    const lost = frame({ generation: 9, sequence: 80, synced: 50, payloadPages: 0 })
    const found = await scan(segments([lost], []))
    expect(found).toMatchObject({ frames: [], generation: 9, usedPages: [0, 0] })
  })

  it('does not look at frames of another store', async () => {
    const foreign = LIVE.map((fields) => frame({ ...fields, storeId: Buffer.alloc(16, 8) }))
    expect(await scan(segments(foreign, []))).toMatchObject({ frames: [], generation: 4 })
  })

  it('refuses whole frames of a format that it does not know', async () => {
    const files = segments(LIVE.map(frame), [], ([first]) => {
      const meta = first.subarray(2 * BLOCK_BYTES, 3 * BLOCK_BYTES)
      meta.writeUInt32LE(5, 4)
      meta.writeUInt32LE(crc32(Buffer.concat([meta.subarray(0, 68), meta.subarray(72)])), 68)
    })
    await expect(scan(files)).rejects.toMatchObject({ code: 'DiskFailed' })
  })

  it('is not misled by a header that claims more pages than there are', async () => {
    for (const offset of [52, 56]) {
      const files = segments(LIVE.map(frame), [], ([first]) =>
        first.writeUInt32LE(0xfffffff0, 2 * BLOCK_BYTES + offset),
      )
      expect(sequencesOf(await scan(files))).toEqual([50])
    }
  })
})
