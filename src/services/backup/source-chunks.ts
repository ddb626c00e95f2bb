import type { VolumeData } from '../../drivers/driver.ts'
import { type Checksum, startChecksum } from './checksum.ts'
import { CHUNK_BYTES, type ChunkPiece, PAGE_BYTES } from './format.ts'

/** A chunk of a volume that has data. */
export interface SourceChunk {
  index: number
  mark: string | null
  /** Where, as records of chunks say it. */
  pieces: ChunkPiece[] | null
}

export interface MarkedChunk {
  index: number
  mark: string | null
}

/** Less between two pieces is read with them: it costs less than another request. */
const GAP_BYTES_MIN = 64 * 1024
/** Some of these on their way keep the store at work while one is checksummed, and what it is reckoned from is still in the processor's cache. */
const READ_BYTES = 1024 * 1024

/** Those of the chunks, which ascend, that have data. */
export async function chunksWithData(source: VolumeData, chunks: readonly MarkedChunk[]): Promise<SourceChunk[]> {
  const found: SourceChunk[] = []
  for (const run of runsOf(chunks)) {
    const start = run[0]!.index * CHUNK_BYTES
    const ends = Math.min(start + run.length * CHUNK_BYTES, source.sizeBytes)
    const pieces: ChunkPiece[][] = run.map(() => [])
    for (const [offset, lengthBytes] of await dataIn(source, start, ends)) {
      add(pieces[Math.floor((offset - start) / CHUNK_BYTES)]!, offset % CHUNK_BYTES, lengthBytes)
    }
    for (const [at, { index, mark }] of run.entries()) {
      const own = pieces[at]!
      const isWhole = own[0]?.[1] === chunkBytes(source.sizeBytes, index)
      if (own.length > 0) found.push({ index, mark, pieces: isWhole ? null : own })
    }
  }
  return found
}

/**
 * Reads where a chunk has data into the beginning of `memory`, one piece behind the other; answers these bytes and their checksum, which is
 * to be compared with `like`.
 */
export async function readChunk(
  source: VolumeData,
  { index, pieces }: SourceChunk,
  memory: Buffer,
  like?: Checksum,
): Promise<{ bytes: Buffer; checksum: Checksum }> {
  const parts: Buffer[] = []
  const reads: Promise<void>[] = []
  let filled = 0
  for (const [offset, lengthBytes] of pieces ?? [[0, chunkBytes(source.sizeBytes, index)]]) {
    for (let at = 0; at < lengthBytes; at += READ_BYTES) {
      const part = memory.subarray(filled, filled + Math.min(READ_BYTES, lengthBytes - at))
      filled += part.length
      parts.push(part)
      reads.push(source.read(index * CHUNK_BYTES + offset + at, part))
    }
  }
  const allEnded = Promise.allSettled(reads)
  try {
    const checksum = startChecksum(like)
    for (const [i, part] of parts.entries()) {
      await reads[i]
      checksum.update(part)
    }
    return { bytes: memory.subarray(0, filled), checksum: checksum.end() }
  } finally {
    await allEnded // the memory is theirs until then
  }
}

export async function hasData(source: VolumeData, page: number): Promise<boolean> {
  const start = page * PAGE_BYTES
  const extents = await source.extents(start, Math.min(PAGE_BYTES, source.sizeBytes - start))
  return extents.some(({ kind }) => kind === 'data')
}

/** The last chunk of a volume may be shorter than the others. */
export const chunkBytes = (sizeBytes: number, index: number): number =>
  Math.min(CHUNK_BYTES, sizeBytes - index * CHUNK_BYTES)

/** To pieces that ascend. */
function add(pieces: ChunkPiece[], offset: number, lengthBytes: number): void {
  const last = pieces.at(-1)
  if (last !== undefined && offset - (last[0] + last[1]) < GAP_BYTES_MIN) last[1] = offset + lengthBytes - last[0]
  else pieces.push([offset, lengthBytes])
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

/** Where a range of a volume has data, cut at the borders of chunks, as [offset, length]. */
async function dataIn(source: VolumeData, start: number, end: number): Promise<[number, number][]> {
  const found: [number, number][] = []
  let offset = start
  for (const { kind, lengthBytes } of await source.extents(start, end - start)) {
    const extentEnd = offset + lengthBytes
    while (offset < extentEnd) {
      const pieceEnd = Math.min(extentEnd, (Math.floor(offset / CHUNK_BYTES) + 1) * CHUNK_BYTES)
      if (kind === 'data') found.push([offset, pieceEnd - offset])
      offset = pieceEnd
    }
  }
  return found
}
