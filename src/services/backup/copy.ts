import { isDeepStrictEqual } from 'node:util'
import type { VolumeData } from '../../drivers/driver.ts'
import { type Checksum, isAsChecked } from './checksum.ts'
import type { ChunkMemory, ChunkSlots } from './chunk-slots.ts'
import { pack, unpack } from './compression.ts'
import {
  type BackupLocation,
  CHUNK_BYTES,
  type ChunkPiece,
  type ChunkRecord,
  chunkName,
  damaged,
  existing,
  hasPage,
  PAGE_BYTES,
  PAGE_CHUNKS,
  type PageRecord,
  readPage,
  writePage,
  writtenPages,
} from './format.ts'
import { eachInParallel, inParallel } from './in-parallel.ts'
import { type MarkedPage, markedPages, pageCount } from './marked-pages.ts'
import { chunkBytes, chunksWithData, hasData, type MarkedChunk, readChunk, type SourceChunk } from './source-chunks.ts'
import type { BackupTarget, Batch } from './target.ts'

/**
 * Copies between a volume and a target, a few pages of 128 MiB at a time, and of all pages as many chunks as there are slots. Both ways do
 * the same when they are repeated from a page that was begun, so that a position in pages is all that has to be remembered.
 */
export interface Progress {
  /** The page to go on with. */
  nextPage: number
  /** Chunks that were written to the target. */
  chunksWritten: number
}

/** Whether a call is to come to its end: it begins no more pages, but goes on with at least one. */
export type IsTimeUp = () => boolean

/** Pages that are under way together, so that the slots are not idle while one is made durable. */
const PAGES_AT_ONCE = 2

/** The backup that an incremental one is based on. */
export interface Parent {
  location: BackupLocation
  pages: readonly PageRecord[]
}

interface Copy {
  source: VolumeData
  target: BackupTarget
  slots: ChunkSlots
  location: BackupLocation
}

export async function backUpSome(
  options: Copy & { parent: Parent | null; page: number; isTimeUp: IsTimeUp },
): Promise<Progress> {
  const { source, parent, isTimeUp } = options
  const before = byPage(parent)
  const progress = { nextPage: options.page, chunksWritten: 0 }
  async function* changed() {
    for await (const marked of markedPages(source, options.page)) {
      if (marked.page > options.page && isTimeUp()) return
      progress.nextPage = marked.page + 1
      if (unchanged(marked, before) === null) yield marked
    }
  }
  await eachInParallel(changed(), PAGES_AT_ONCE, async (marked) => {
    const chunksWritten = await backUpPage(options, marked, before.get(marked.page))
    progress.chunksWritten += chunksWritten
  })
  return progress
}

/** Answers how many chunks it has written to the target. */
async function backUpPage(
  { source, target, slots, location }: Copy,
  { page, chunkMarks }: MarkedPage,
  parentPage: PageRecord | undefined,
): Promise<number> {
  const { container } = location
  const before = parentPage ? await readPage(target, { container, id: parentPage.backup }, page) : []
  const known = new Map(before.map((record) => [record.index, record]))
  const first = page * PAGE_CHUNKS
  const records: ChunkRecord[] = []
  const toRead: MarkedChunk[] = []
  for (const [at, mark] of chunkMarks.entries()) {
    const record = known.get(first + at)
    if (mark !== null && record?.mark === mark) records.push(record)
    else toRead.push({ index: first + at, mark })
  }
  const batch = target.batch()
  try {
    const kept = await inParallel(await chunksWithData(source, toRead), slots.count, (chunk) =>
      slots.fill(
        ({ chunk: memory }) => readChunk(source, chunk, memory, known.get(chunk.index)?.checksum),
        (read, { stored }) => keepChunk(batch, location, chunk, known.get(chunk.index), read, stored),
      ),
    )
    await batch.commit()
    records.push(...kept)
  } finally {
    await batch.discard()
  }
  if (records.length === 0) return 0
  records.sort((a, b) => a.index - b.index)
  await writePage(target, location, page, records)
  return records.filter(({ backup }) => backup === location.id).length
}

/**
 * The pages of a backup of which all chunks are on the target, ascending: those that another one has, and its own, as far as they have
 * data.
 */
export async function pagesOfBackup(
  { source, target, location }: Omit<Copy, 'slots'>,
  parent: Parent | null,
): Promise<PageRecord[]> {
  const before = byPage(parent)
  const listed = await writtenPages(target, location)
  const isThere = async (page: number) => (await hasData(source, page)) && hasPage(target, location, page)
  const pages: PageRecord[] = []
  for await (const marked of markedPages(source, 0)) {
    const { page, mark } = marked
    const shared = unchanged(marked, before)
    if (shared !== null) pages.push(shared)
    else if (listed.has(page) || (await isThere(page))) pages.push({ page, backup: location.id, mark })
  }
  return pages
}

const byPage = (parent: Parent | null) => new Map(parent?.pages.map((record) => [record.page, record]))

/** The page of an earlier backup that has the same. */
function unchanged({ page, mark }: MarkedPage, before: ReadonlyMap<number, PageRecord>): PageRecord | null {
  const record = before.get(page)
  return mark !== null && record?.mark === mark ? record : null
}

async function keepChunk(
  batch: Batch,
  location: BackupLocation,
  { index, mark, pieces }: SourceChunk,
  known: ChunkRecord | undefined,
  { bytes, checksum }: { bytes: Buffer; checksum: Checksum },
  memory: Buffer,
): Promise<ChunkRecord> {
  if (known?.checksum === checksum && isDeepStrictEqual(known.pieces, pieces)) return { ...known, mark }
  const { encoding, stored } = await pack(bytes, memory)
  await batch.put(chunkName(location, index), stored)
  return { index, pieces, checksum, encoding, backup: location.id, mark }
}

/** Makes pages of the volume what the backup says, and answers the one to go on with. Durable when it resolves. */
export async function restoreSome(options: {
  volume: VolumeData
  target: BackupTarget
  slots: ChunkSlots
  container: string
  pages: readonly PageRecord[]
  /** Of the volume that was backed up; what a larger one has behind it stays. */
  sizeBytes: number
  page: number
  isTimeUp: IsTimeUp
}): Promise<number> {
  const { volume, target, slots, container, sizeBytes, isTimeUp } = options
  const withData = new Map(options.pages.map((record) => [record.page, record]))
  const end = pageCount(sizeBytes)
  let nextPage = options.page
  function* some() {
    do yield nextPage++
    while (nextPage < end && !isTimeUp())
  }
  await eachInParallel(some(), PAGES_AT_ONCE, async (page) => {
    const start = page * PAGE_BYTES
    const record = withData.get(page)
    const chunks = record ? await readPage(target, { container, id: record.backup }, page) : []
    for (const [offset, length] of rangesWithout(chunks, start, Math.min(start + PAGE_BYTES, sizeBytes))) {
      await volume.discard(offset, length)
    }
    await inParallel(chunks, slots.count, (chunk) =>
      slots.with((memory) => restoreChunk(volume, target, container, chunk, sizeBytes, memory)),
    )
  })
  await volume.flush()
  return nextPage
}

async function restoreChunk(
  volume: VolumeData,
  target: BackupTarget,
  container: string,
  record: ChunkRecord,
  sizeBytes: number,
  memory: ChunkMemory,
): Promise<void> {
  const name = chunkName({ container, id: record.backup }, record.index)
  const bytes = await unpack(record.encoding, await existing(target, name, memory.stored), memory.chunk)
  const pieces = piecesOf(record, sizeBytes)
  const lengthBytes = pieces.reduce((sum, [, pieceBytes]) => sum + pieceBytes, 0)
  if (bytes?.length !== lengthBytes || !isAsChecked(bytes, record.checksum)) throw damaged(name)
  let written = 0
  for (const [offset, pieceBytes] of pieces) {
    await volume.write(record.index * CHUNK_BYTES + offset, bytes.subarray(written, written + pieceBytes))
    written += pieceBytes
  }
}

const piecesOf = ({ pieces, index }: ChunkRecord, sizeBytes: number): readonly ChunkPiece[] =>
  pieces ?? [[0, chunkBytes(sizeBytes, index)]]

/** What of a range no chunk has data for, as [offset, length]. */
function rangesWithout(records: readonly ChunkRecord[], start: number, end: number): [number, number][] {
  const ranges: [number, number][] = []
  let filled = start
  for (const record of records) {
    for (const [offset, lengthBytes] of piecesOf(record, end)) {
      const pieceStart = record.index * CHUNK_BYTES + offset
      if (pieceStart > filled) ranges.push([filled, pieceStart - filled])
      filled = pieceStart + lengthBytes
    }
  }
  if (filled < end) ranges.push([filled, end - filled])
  return ranges
}
