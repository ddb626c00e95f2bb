import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { type ContentMark, MARKED_BYTES, type VolumeData } from '../../drivers/driver.ts'
import { CHUNK_BYTES, PAGE_BYTES, PAGE_CHUNKS } from './format.ts'

/** A page of a volume, by what the driver calls what it holds. */
export interface MarkedPage {
  page: number
  /** Of each of its chunks; null where the driver cannot tell. */
  chunkMarks: readonly (string | null)[]
  /** Of all of them; null when one has none. */
  mark: string | null
}

assert(CHUNK_BYTES % MARKED_BYTES === 0)

/** Pages that the driver is asked about together. */
const ASKED_PAGES = 32

export const pageCount = (sizeBytes: number): number => Math.ceil(sizeBytes / PAGE_BYTES)

/** The pages of a snapshot, from one on, in order. Nothing of what they hold is read. */
export async function* markedPages(source: VolumeData, from: number): AsyncGenerator<MarkedPage> {
  const end = pageCount(source.sizeBytes)
  for (let first = from; first < end; first += ASKED_PAGES) {
    const start = first * PAGE_BYTES
    const marks = await chunkMarksOf(source, start, Math.min(ASKED_PAGES * PAGE_BYTES, source.sizeBytes - start))
    for (let page = first; page < Math.min(end, first + ASKED_PAGES); page++) {
      const chunkMarks = marks.slice((page - first) * PAGE_CHUNKS, (page - first + 1) * PAGE_CHUNKS)
      yield { page, chunkMarks, mark: chunkMarks.includes(null) ? null : digestOf(chunkMarks) }
    }
  }
}

async function chunkMarksOf(source: VolumeData, start: number, lengthBytes: number): Promise<(string | null)[]> {
  const pieces: ContentMark[][] = Array.from({ length: Math.ceil(lengthBytes / CHUNK_BYTES) }, () => [])
  let offset = 0
  for (const { lengthBytes: runBytes, mark } of (await source.marks?.(start, lengthBytes)) ?? []) {
    const end = offset + runBytes
    while (offset < end) {
      const chunk = Math.floor(offset / CHUNK_BYTES)
      const pieceBytes = Math.min(end, (chunk + 1) * CHUNK_BYTES) - offset
      pieces[chunk]!.push({ lengthBytes: pieceBytes, mark })
      offset += pieceBytes
    }
  }
  return pieces.map(markOfChunk)
}

/** The driver's own where it has one for the whole chunk. */
function markOfChunk(pieces: readonly ContentMark[]): string | null {
  if (pieces.length === 0 || pieces.some(({ mark }) => mark === null)) return null
  return pieces.length === 1 ? pieces[0]!.mark : digestOf(pieces.map(({ lengthBytes, mark }) => [lengthBytes, mark]))
}

const DIGEST_CHARACTERS = 32

function digestOf(marks: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(marks)).digest('hex').slice(0, DIGEST_CHARACTERS)
}
