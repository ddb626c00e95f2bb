import type { StoreError } from '../errors.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, OBJECT_BYTES } from './object-format.ts'

/** Arithmetic of byte ranges on objects and blocks. `at` is an offset within an object. */

/** Blocks of 4 KiB within an object. */
export interface BlockRange {
  first: number
  count: number
}

export interface BlockRun {
  first: number
  /** Whole blocks. */
  bytes: Buffer
}

type RangeDone = (error: StoreError | null) => void

/** Block → its bytes as they are before a change that covers it only in part. */
export type Edges = Map<number, Buffer>

export const roundUp = (bytes: number) => Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES

export function isInRange(offset: number, length: number, sizeBytes: number): boolean {
  return Number.isSafeInteger(offset) && offset >= 0 && length >= 0 && offset + length <= sizeBytes
}

/** The blocks that a range of an object covers only in part: none, one or two. */
export function partialBlocks(at: number, length: number): number[] {
  const blocks: number[] = []
  const end = at + length
  if (at % BLOCK_BYTES !== 0) blocks.push(Math.floor(at / BLOCK_BYTES))
  const lastBlock = Math.floor(end / BLOCK_BYTES)
  if (end % BLOCK_BYTES !== 0 && lastBlock < BLOCKS_PER_OBJECT && blocks[0] !== lastBlock) blocks.push(lastBlock)
  return blocks
}

/** The source grown to whole blocks with what `edges` holds; null when an edge is missing. */
export function wholeBlocks(at: number, source: Buffer, edges: Edges): Buffer | null {
  const partial = partialBlocks(at, source.length)
  if (partial.length === 0) return source
  const start = at - (at % BLOCK_BYTES)
  const bytes = Buffer.allocUnsafe(roundUp(at + source.length) - start)
  for (const block of partial) {
    const edge = edges.get(block)
    if (!edge) return null
    edge.copy(bytes, block * BLOCK_BYTES - start)
  }
  source.copy(bytes, at - start)
  return bytes
}

/** Cuts a range at object borders; `finish` gets the first error once all parts are done. An empty range has no part. */
export function eachObject(
  offset: number,
  length: number,
  finish: RangeDone,
  run: (index: number, at: number, from: number, length: number, partDone: RangeDone) => void,
): void {
  if (length === 0) return finish(null)
  const first = Math.floor(offset / OBJECT_BYTES)
  const last = Math.floor((offset + length - 1) / OBJECT_BYTES)
  if (first === last) {
    run(first, offset - first * OBJECT_BYTES, 0, length, finish)
    return
  }
  let left = last - first + 1
  let failure: StoreError | null = null
  const partDone: RangeDone = (error) => {
    failure ??= error
    if (--left === 0) finish(failure)
  }
  for (let index = first; index <= last; index++) {
    const start = Math.max(offset, index * OBJECT_BYTES)
    const end = Math.min(offset + length, (index + 1) * OBJECT_BYTES)
    run(index, start - index * OBJECT_BYTES, start - offset, end - start, partDone)
  }
}
