import { BLOCK_BYTES } from '../object-format.ts'
import { type Blocks, countBlocks } from './block-ranges.ts'
import type { BlockRange, CopyLayout } from './copy-store.ts'

/** What is missing in copies of an object, and how much of it is read at once. */

/** Ranges that one step reads: each is a request. */
const RANGES_MAX = 16
/** Nobody is asked which of so few blocks have bytes. */
const SHORT_BLOCKS = 64

/** What targets lack of an object. */
export interface Lack {
  /** To be copied, about. */
  bytes: number
}

export type LayoutOf = (range: BlockRange) => Promise<CopyLayout>

/**
 * The first of these blocks that take as many blocks with bytes at most. Of a long range that is asked for, as there may be next to
 * nothing in it.
 */
export async function nextToCopy(missing: Blocks, blocksMax: number, layoutOf: LayoutOf): Promise<Blocks> {
  const next: BlockRange[] = []
  let left = blocksMax
  for (const range of missing) {
    if (next.length === RANGES_MAX) break
    if (range.count <= left) {
      next.push(range)
      left -= range.count
      continue
    }
    if (next.length > 0) break
    const { data } = await layoutOf(range)
    return [startOf(range, data, blocksMax)]
  }
  return next
}

/** The range up to where more than `dataMax` blocks of it have bytes. */
function startOf({ first, count }: BlockRange, data: Blocks, dataMax: number): BlockRange {
  let left = dataMax
  for (const run of data) {
    if (run.count > left) return { first, count: run.first + left - first }
    left -= run.count
  }
  return { first, count }
}

/** About how many bytes these blocks have. */
export async function bytesIn(missing: Blocks, layoutOf: LayoutOf): Promise<number> {
  const counts = await Promise.all(
    missing.map(async (range) =>
      range.count <= SHORT_BLOCKS ? range.count : countBlocks((await layoutOf(range)).data),
    ),
  )
  return BLOCK_BYTES * counts.reduce((sum, count) => sum + count, 0)
}
