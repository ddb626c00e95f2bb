import { createHash } from 'node:crypto'
import { promisify } from 'node:util'
import { deflate, inflate } from 'node:zlib'
import type { VolumeData } from '../../drivers/driver.ts'
import { ServiceError } from '../../errors.ts'
import {
  type BackupLocation,
  CHUNK_BYTES,
  type ChunkRecord,
  chunkName,
  PAGE_BYTES,
  readPage,
  writePage,
} from './format.ts'
import type { BackupTarget } from './target.ts'

/**
 * Copies between a volume and a target, a page of 128 MiB after the other. Both ways do the same when they are repeated from
 * a page that was begun, so that a position in pages is all that has to be remembered; at most two chunks are in memory.
 */
export interface Progress {
  /** The page to go on with. */
  nextPage: number
  /** Chunks that were written to the target. */
  chunksWritten: number
}

/** How much one call does, so that it ends in time: a page of data, or so many without any. */
const EMPTY_PAGES_MAX = 1024

const COMPRESSION_LEVEL = 1
/** What is not made smaller by a tenth is kept as it is. */
const COMPRESSED_SHARE_MAX = 0.9

const compress = promisify(deflate)
const decompress = promisify(inflate)

export const pageCount = (sizeBytes: number): number => Math.ceil(sizeBytes / PAGE_BYTES)

/** The backup that an incremental one is based on. */
export interface Parent {
  location: BackupLocation
  pages: readonly number[]
}

export async function backUpSome(options: {
  source: VolumeData
  target: BackupTarget
  location: BackupLocation
  parent: Parent | null
  page: number
}): Promise<Progress> {
  const { source, target, location, parent } = options
  const end = pageCount(source.sizeBytes)
  const progress = { nextPage: options.page, chunksWritten: 0 }
  for (let empty = 0; progress.nextPage < end && empty < EMPTY_PAGES_MAX; empty++) {
    const page = progress.nextPage++
    const indices = await chunksWithData(source, page)
    if (indices.length === 0) continue
    const before = parent?.pages.includes(page) ? await readPage(target, parent.location, page) : []
    const records: ChunkRecord[] = []
    for (const index of indices) {
      const { record, isNew } = await backUpChunk(source, target, location, index, before)
      records.push(record)
      if (isNew) progress.chunksWritten++
    }
    await writePage(target, location, page, records)
    break
  }
  return progress
}

async function backUpChunk(
  source: VolumeData,
  target: BackupTarget,
  location: BackupLocation,
  index: number,
  before: readonly ChunkRecord[],
): Promise<{ record: ChunkRecord; isNew: boolean }> {
  const offset = index * CHUNK_BYTES
  const bytes = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, source.sizeBytes - offset))
  await source.read(offset, bytes)
  const sha256 = digest(bytes)
  const known = before.find((record) => record.index === index)
  if (known?.sha256 === sha256) return { record: known, isNew: false }
  const compressed = await compress(bytes, { level: COMPRESSION_LEVEL })
  const isSmaller = compressed.length <= bytes.length * COMPRESSED_SHARE_MAX
  await target.put(chunkName(location, index), isSmaller ? compressed : bytes)
  const encoding = isSmaller ? 'deflate' : 'none'
  return { record: { index, sha256, encoding, backup: location.id }, isNew: true }
}

async function chunksWithData(source: VolumeData, page: number): Promise<number[]> {
  const start = page * PAGE_BYTES
  const found = new Set<number>()
  let offset = start
  for (const { kind, lengthBytes } of await source.extents(start, Math.min(PAGE_BYTES, source.sizeBytes - start))) {
    const end = offset + lengthBytes
    if (kind === 'data') for (let at = offset; at < end; at += CHUNK_BYTES - (at % CHUNK_BYTES)) found.add(chunkAt(at))
    offset = end
  }
  return [...found].sort((a, b) => a - b)
}

/** Makes a page of the volume, or some that are empty, what the backup says. Durable when it resolves. */
export async function restoreSome(options: {
  volume: VolumeData
  target: BackupTarget
  location: BackupLocation
  pages: readonly number[]
  /** Of the volume that was backed up; what a larger one has behind it stays. */
  sizeBytes: number
  page: number
}): Promise<number> {
  const { volume, target, location, pages, sizeBytes } = options
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
    for (const record of records) await restoreChunk(volume, target, location, record, sizeBytes)
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
  const stored = await target.get(name)
  const bytes = record.encoding === 'none' ? stored : await decompress(stored).catch(() => null)
  const offset = record.index * CHUNK_BYTES
  const isWhole = bytes?.length === Math.min(CHUNK_BYTES, sizeBytes - offset) && digest(bytes) === record.sha256
  if (!isWhole) throw new ServiceError('BackendFailure', { reason: `${name} on the backup target is damaged` })
  await volume.write(offset, bytes)
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

const chunkAt = (offset: number): number => Math.floor(offset / CHUNK_BYTES)

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}
