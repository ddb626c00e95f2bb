import { webcrypto } from 'node:crypto'
import type { VolumeData } from '../../drivers/driver.ts'
import type { ChunkSlots } from './chunk-slots.ts'
import { pack, unpack } from './compression.ts'
import {
  type BackupLocation,
  CHUNK_BYTES,
  type ChunkRecord,
  chunkName,
  damaged,
  existing,
  PAGE_BYTES,
  readPage,
  writePage,
} from './format.ts'
import { inParallel } from './in-parallel.ts'
import type { BackupTarget, Batch } from './target.ts'

/**
 * Copies between a volume and a target, a page of 128 MiB after the other, and of a page as many chunks at a time as there are slots.
 * Both ways do the same when they are repeated from a page that was begun, so that a position in pages is all that has to be remembered.
 */
export interface Progress {
  /** The page to go on with. */
  nextPage: number
  /** Chunks that were written to the target. */
  chunksWritten: number
}

/** How much one call does, so that it ends in time: a page of data, or so many without any. */
const EMPTY_PAGES_MAX = 1024
/** Pages whose extents are asked for together where no bytes are wanted. */
const LISTED_PAGES = 16
/** A chunk of more pieces than this is read in one. */
const PIECES_MAX = 16

export const pageCount = (sizeBytes: number): number => Math.ceil(sizeBytes / PAGE_BYTES)

/** The backup that an incremental one is based on. */
export interface Parent {
  location: BackupLocation
  pages: readonly number[]
}

/** Where a chunk of a volume has data: pieces of it, in order. */
interface SourceChunk {
  index: number
  pieces: { offset: number; lengthBytes: number }[]
}

export async function backUpSome(options: {
  source: VolumeData
  target: BackupTarget
  slots: ChunkSlots
  location: BackupLocation
  parent: Parent | null
  page: number
}): Promise<Progress> {
  const { source, target, slots, location, parent } = options
  const end = pageCount(source.sizeBytes)
  const progress = { nextPage: options.page, chunksWritten: 0 }
  for (let empty = 0; progress.nextPage < end && empty < EMPTY_PAGES_MAX; empty++) {
    const page = progress.nextPage++
    const chunks = await chunksWithData(source, page)
    if (chunks.length === 0) continue
    const before = parent?.pages.includes(page) ? await readPage(target, parent.location, page) : []
    const batch = target.batch()
    let records: ChunkRecord[]
    try {
      records = await inParallel(chunks, slots.count, (chunk) =>
        slots.with((buffer) => backUpChunk(source, batch, location, chunk, before, buffer)),
      )
      await batch.commit()
    } finally {
      await batch.discard()
    }
    await writePage(target, location, page, records)
    progress.chunksWritten = records.filter(({ backup }) => backup === location.id).length
    break
  }
  return progress
}

async function backUpChunk(
  source: VolumeData,
  batch: Batch,
  location: BackupLocation,
  chunk: SourceChunk,
  before: readonly ChunkRecord[],
  buffer: Buffer,
): Promise<ChunkRecord> {
  const { index } = chunk
  const bytes = await readChunk(source, chunk, buffer)
  const sha256 = await digestOfChunk(bytes)
  const known = before.find((record) => record.index === index)
  if (known?.sha256 === sha256) return known
  const { encoding, stored } = await pack(bytes)
  await batch.put(chunkName(location, index), stored)
  return { index, sha256, encoding, backup: location.id }
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

async function chunksWithData(source: VolumeData, page: number): Promise<SourceChunk[]> {
  const start = page * PAGE_BYTES
  const chunks: SourceChunk[] = []
  let offset = start
  for (const { kind, lengthBytes } of await source.extents(start, Math.min(PAGE_BYTES, source.sizeBytes - start))) {
    const end = offset + lengthBytes
    while (offset < end) {
      const index = Math.floor(offset / CHUNK_BYTES)
      const piece = { offset, lengthBytes: Math.min(end, (index + 1) * CHUNK_BYTES) - offset }
      offset += piece.lengthBytes
      if (kind !== 'data') continue
      const last = chunks.at(-1)
      if (last?.index === index) last.pieces.push(piece)
      else chunks.push({ index, pieces: [piece] })
    }
  }
  return chunks
}

/** The pages of a volume that have data, ascending. */
export async function pagesWithData(source: VolumeData): Promise<number[]> {
  const pages = new Set<number>()
  const step = LISTED_PAGES * PAGE_BYTES
  for (let start = 0; start < source.sizeBytes; start += step) {
    let offset = start
    for (const { kind, lengthBytes } of await source.extents(start, Math.min(step, source.sizeBytes - start))) {
      const end = offset + lengthBytes
      if (kind === 'data') for (let page = pageAt(offset); page * PAGE_BYTES < end; page++) pages.add(page)
      offset = end
    }
  }
  return [...pages]
}

const pageAt = (offset: number): number => Math.floor(offset / PAGE_BYTES)

/** Makes a page of the volume, or some that are empty, what the backup says. Durable when it resolves. */
export async function restoreSome(options: {
  volume: VolumeData
  target: BackupTarget
  slots: ChunkSlots
  location: BackupLocation
  pages: readonly number[]
  /** Of the volume that was backed up; what a larger one has behind it stays. */
  sizeBytes: number
  page: number
}): Promise<number> {
  const { volume, target, slots, location, pages, sizeBytes } = options
  const withData = new Set(pages)
  const end = pageCount(sizeBytes)
  let page = options.page
  for (let empty = 0; page < end && empty < EMPTY_PAGES_MAX; empty++) {
    const current = page++
    const start = current * PAGE_BYTES
    const records = withData.has(current) ? await readPage(target, location, current) : []
    for (const [offset, length] of rangesWithout(records, start, Math.min(PAGE_BYTES, sizeBytes - start))) {
      await volume.discard(offset, length)
    }
    await inParallel(records, slots.count, (record) =>
      slots.with(() => restoreChunk(volume, target, location, record, sizeBytes)),
    )
    if (records.length > 0) break
  }
  await volume.flush()
  return page
}

async function restoreChunk(
  volume: VolumeData,
  target: BackupTarget,
  { container }: BackupLocation,
  record: ChunkRecord,
  sizeBytes: number,
): Promise<void> {
  const name = chunkName({ container, id: record.backup }, record.index)
  const bytes = await unpack(record.encoding, await existing(target, name))
  const offset = record.index * CHUNK_BYTES
  const lengthBytes = Math.min(CHUNK_BYTES, sizeBytes - offset)
  if (bytes?.length !== lengthBytes || (await digestOfChunk(bytes)) !== record.sha256) throw damaged(name)
  await volume.write(offset, bytes)
}

/** As `createHash` makes it, but on another thread: this one has the bytes of all chunks to carry. */
async function digestOfChunk(bytes: Buffer): Promise<string> {
  return Buffer.from(await webcrypto.subtle.digest('SHA-256', bytes)).toString('hex')
}

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
