import { createHash } from 'node:crypto'
import type { VolumeData } from '../../drivers/driver.ts'
import type { ChunkMemory, ChunkSlots } from './chunk-slots.ts'
import { pack, unpack } from './compression.ts'
import {
  type BackupLocation,
  CHUNK_BYTES,
  type ChunkRecord,
  chunkName,
  damaged,
  existing,
  PAGE_BYTES,
  PAGE_CHUNKS,
  type PageRecord,
  readPage,
  writePage,
  writtenPages,
} from './format.ts'
import { eachInParallel, inParallel } from './in-parallel.ts'
import { type MarkedPage, markedPages, pageCount } from './marked-pages.ts'
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
/** A chunk of more pieces than this is read in one. */
const PIECES_MAX = 16

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

/** Where a chunk of a volume has data: pieces of it, in order. */
interface SourceChunk {
  index: number
  mark: string | null
  pieces: { offset: number; lengthBytes: number }[]
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
    const read = await inParallel(await chunksWithData(source, toRead), slots.count, (chunk) =>
      slots.with((memory) => backUpChunk(source, batch, location, chunk, known.get(chunk.index), memory)),
    )
    await batch.commit()
    records.push(...read)
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
  const pages: PageRecord[] = []
  const own: PageRecord[] = []
  for await (const marked of markedPages(source, 0)) {
    const { page, mark } = marked
    const shared = unchanged(marked, before)
    if (shared !== null) pages.push(shared)
    else if (await hasData(source, page)) own.push({ page, backup: location.id, mark })
  }
  const written = new Set(
    await writtenPages(
      target,
      location,
      own.map(({ page }) => page),
    ),
  )
  return [...pages, ...own.filter(({ page }) => written.has(page))].sort((a, b) => a.page - b.page)
}

const byPage = (parent: Parent | null) => new Map(parent?.pages.map((record) => [record.page, record]))

/** The page of an earlier backup that has the same. */
function unchanged({ page, mark }: MarkedPage, before: ReadonlyMap<number, PageRecord>): PageRecord | null {
  const record = before.get(page)
  return mark !== null && record?.mark === mark ? record : null
}

async function backUpChunk(
  source: VolumeData,
  batch: Batch,
  location: BackupLocation,
  chunk: SourceChunk,
  known: ChunkRecord | undefined,
  memory: ChunkMemory,
): Promise<ChunkRecord> {
  const { index, mark } = chunk
  const bytes = await readChunk(source, chunk, memory.chunk)
  const sha256 = digestOfChunk(bytes)
  if (known?.sha256 === sha256) return { ...known, mark }
  const { encoding, stored } = await pack(bytes, memory.stored)
  await batch.put(chunkName(location, index), stored)
  return { index, sha256, encoding, backup: location.id, mark }
}

/** Reads what has data, and knows the rest. */
async function readChunk(source: VolumeData, { index, pieces }: SourceChunk, buffer: Buffer): Promise<Buffer> {
  const start = index * CHUNK_BYTES
  const bytes = buffer.subarray(0, Math.min(CHUNK_BYTES, source.sizeBytes - start))
  if (pieces.length > PIECES_MAX) {
    await source.read(start, bytes)
    return bytes
  }
  let filled = 0
  for (const { offset, lengthBytes } of pieces) {
    bytes.fill(0, filled, offset - start)
    filled = offset - start + lengthBytes
    await source.read(offset, bytes.subarray(offset - start, filled))
  }
  return bytes.fill(0, filled)
}

interface MarkedChunk {
  index: number
  mark: string | null
}

/** Those of the chunks, which ascend, that have data. */
async function chunksWithData(source: VolumeData, chunks: readonly MarkedChunk[]): Promise<SourceChunk[]> {
  const found: SourceChunk[] = []
  for (const run of runsOf(chunks)) {
    const start = run[0]!.index * CHUNK_BYTES
    const pieces = dataIn(source, start, Math.min(run.length * CHUNK_BYTES, source.sizeBytes - start))
    for await (const piece of pieces) {
      const { index, mark } = run[Math.floor((piece.offset - start) / CHUNK_BYTES)]!
      const last = found.at(-1)
      if (last?.index === index) last.pieces.push(piece)
      else found.push({ index, mark, pieces: [piece] })
    }
  }
  return found
}

/** What lies side by side is asked for together. */
function runsOf(chunks: readonly MarkedChunk[]): MarkedChunk[][] {
  const runs: MarkedChunk[][] = []
  for (const chunk of chunks) {
    if (runs.at(-1)?.at(-1)?.index === chunk.index - 1) runs.at(-1)!.push(chunk)
    else runs.push([chunk])
  }
  return runs
}

/** Pieces of a range with data, none of which is in two chunks. */
async function* dataIn(source: VolumeData, start: number, lengthBytes: number) {
  let offset = start
  for (const { kind, lengthBytes: extentBytes } of await source.extents(start, lengthBytes)) {
    const end = offset + extentBytes
    while (offset < end) {
      const pieceBytes = Math.min(end, (Math.floor(offset / CHUNK_BYTES) + 1) * CHUNK_BYTES) - offset
      if (kind === 'data') yield { offset, lengthBytes: pieceBytes }
      offset += pieceBytes
    }
  }
}

async function hasData(source: VolumeData, page: number): Promise<boolean> {
  const start = page * PAGE_BYTES
  const extents = await source.extents(start, Math.min(PAGE_BYTES, source.sizeBytes - start))
  return extents.some(({ kind }) => kind === 'data')
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
    for (const [offset, length] of rangesWithout(chunks, start, Math.min(PAGE_BYTES, sizeBytes - start))) {
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
  const offset = record.index * CHUNK_BYTES
  const lengthBytes = Math.min(CHUNK_BYTES, sizeBytes - offset)
  if (bytes?.length !== lengthBytes || digestOfChunk(bytes) !== record.sha256) throw damaged(name)
  await volume.write(offset, bytes)
}

/** On this thread: to hand the bytes to another one, as webcrypto does, is to copy them to fresh memory, which costs as much again. */
const digestOfChunk = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

/** What of a range no chunk covers, as [offset, length]. */
function rangesWithout(records: readonly ChunkRecord[], start: number, lengthBytes: number): [number, number][] {
  const ranges: [number, number][] = []
  const end = start + lengthBytes
  let offset = start
  for (const { index } of records) {
    if (index * CHUNK_BYTES > offset) ranges.push([offset, index * CHUNK_BYTES - offset])
    offset = (index + 1) * CHUNK_BYTES
  }
  if (offset < end) ranges.push([offset, end - offset])
  return ranges
}
