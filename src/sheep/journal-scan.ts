import { StoreError } from '../errors.ts'
import type { DiskFile } from '../runtime/disk.ts'
import { LOCATION_SEGMENT } from './journal.ts'
import { decodeMeta, type FrameHeader, type JournalRecord, peekHeader } from './journal-format.ts'
import { BLOCK_BYTES, blockCrc, oidWords } from './object-format.ts'

/** A whole frame found in a segment. */
export interface ScannedFrame {
  header: FrameHeader
  records: JournalRecord[]
  /** Of its first page in the segment. */
  page: number
  /** Location of the first payload page. */
  payload: number
}

export interface JournalScan {
  /** Frames to replay, in order, without a gap. */
  frames: ScannedFrame[]
  /** Pages of each segment that hold replayed frames. */
  usedPages: [number, number]
  /** Frames below this sequence number are known to have been durable. */
  provenSynced: number
  /** The highest generation seen anywhere, replayed or not. */
  generation: number
}

/**
 * Reads both segments after a start and returns what must be replayed: the frames of generations above
 * `checkpointedGeneration`, from the first up to the first gap. What lies beyond the gap is the torn tail of a crash and was
 * acknowledged to nobody as durable - unless a later frame proves that it had been synced: then it is rot, and with
 * one copy there is nothing to take its place. Throws CorruptBlock in that case; nothing is ever cut silently.
 */
export async function scanJournal(
  segments: readonly [DiskFile, DiskFile],
  storeId: Buffer,
  checkpointed: { generation: number; sequence: number; synced: number },
): Promise<JournalScan> {
  const scans = await Promise.all(segments.map((file, index) => scanSegment(file, index, storeId)))
  const generation = Math.max(checkpointed.generation, ...scans.map((scan) => scan.generationSeen))
  const live = scans
    .filter((scan) => (scan.frames[0]?.header.generation ?? -1) > checkpointed.generation)
    .sort((a, b) => a.frames[0]!.header.generation - b.frames[0]!.header.generation)

  const frames: ScannedFrame[] = []
  const usedPages: [number, number] = [0, 0]
  let expected = checkpointed.sequence
  for (const scan of live) {
    for (const frame of scan.frames) {
      if (frame.header.sequence !== expected) break
      frames.push(frame)
      expected++
      usedPages[scan.segment] = (frame.payload % LOCATION_SEGMENT) + frame.header.payloadPages
    }
  }
  const provenSynced = Math.max(checkpointed.synced, ...scans.map((scan) => scan.syncedSeen))
  if (provenSynced > expected) {
    throw new StoreError(
      'CorruptBlock',
      `journal record ${expected} is damaged although records up to ${provenSynced - 1} had been synced`,
    )
  }
  return { frames, usedPages, provenSynced, generation }
}

interface SegmentScan {
  segment: number
  /** Frames of one life and generation, from page 0, without a gap. */
  frames: ScannedFrame[]
  generationSeen: number
  /** The highest syncedSequence in any intact frame, also beyond damage and of earlier lives. */
  syncedSeen: number
}

async function scanSegment(file: DiskFile, segment: number, storeId: Buffer): Promise<SegmentScan> {
  const reader = new PageReader(file, Math.floor((await file.size()) / BLOCK_BYTES))
  const scan: SegmentScan = { segment, frames: [], generationSeen: 0, syncedSeen: 0 }
  let broken = false
  for (let page = 0; page < reader.pages; ) {
    const frame = await readFrame(reader, segment, page, storeId)
    if (!frame) {
      broken = true
      page++
      continue
    }
    const first = scan.frames[0]?.header ?? frame.header
    broken ||= frame.header.generation !== first.generation || frame.header.incarnation !== first.incarnation
    if (!broken) scan.frames.push(frame)
    scan.syncedSeen = Math.max(scan.syncedSeen, frame.header.syncedSequence)
    scan.generationSeen = Math.max(scan.generationSeen, frame.header.generation)
    page += frame.header.metaPages + frame.header.payloadPages
  }
  return scan
}

async function readFrame(
  reader: PageReader,
  segment: number,
  page: number,
  storeId: Buffer,
): Promise<ScannedFrame | null> {
  const firstPage = await reader.read(page, 1)
  const header = peekHeader(firstPage)
  if (!header?.storeId.equals(storeId) || header.metaPages < 1) return null
  if (page + header.metaPages + header.payloadPages > reader.pages) return null
  const records = decodeMeta(await reader.read(page, header.metaPages))
  if (!records) return null
  const payload = await reader.read(page + header.metaPages, header.payloadPages)
  if (!payloadMatches(records, payload)) return null
  return { header, records, page, payload: segment * LOCATION_SEGMENT + page + header.metaPages }
}

function payloadMatches(records: readonly JournalRecord[], payload: Buffer): boolean {
  let at = 0
  for (const record of records) {
    if (record.kind !== 'blocks') continue
    const words = oidWords(record.oid)
    for (let i = 0; i < record.count; i++, at += BLOCK_BYTES) {
      const bytes = payload.subarray(at, at + BLOCK_BYTES)
      if (blockCrc(words, record.first + i, record.words[i * 2 + 1]!, bytes) !== record.words[i * 2]) return false
    }
  }
  return true
}

/** Reads pages through a window, so that a scan costs one read for each MiB. */
class PageReader {
  static readonly #WINDOW_PAGES = 256
  readonly pages: number
  readonly #file: DiskFile
  #window: Buffer = Buffer.alloc(0)
  #windowPage = 0

  constructor(file: DiskFile, pages: number) {
    this.#file = file
    this.pages = pages
  }

  /** The bytes of `count` pages; they belong to the caller only until the next read. */
  async read(page: number, count: number): Promise<Buffer> {
    const inWindow = page >= this.#windowPage && (page + count - this.#windowPage) * BLOCK_BYTES <= this.#window.length
    if (!inWindow) {
      this.#window = Buffer.alloc(Math.min(Math.max(count, PageReader.#WINDOW_PAGES), this.pages - page) * BLOCK_BYTES)
      this.#windowPage = page
      await this.#file.read(this.#window, page * BLOCK_BYTES)
    }
    const start = (page - this.#windowPage) * BLOCK_BYTES
    return this.#window.subarray(start, start + count * BLOCK_BYTES)
  }
}
