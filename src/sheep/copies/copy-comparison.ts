import { BLOCK_BYTES } from '../object-format.ts'
import { type Blocks, intersect, subtract, toBlocks } from './block-ranges.ts'
import type { BlockContents, BlockRange } from './copy-store.ts'

/** What the copies of some blocks of an object say, compared at one moment. */
export interface CopyComparison {
  /** Blocks that were read, each copy counted. */
  checked: number
  /** Nodes that should have a copy and lack some of these blocks, or all: they are rotten there, or were never brought. */
  lacking: readonly { node: string; blocks: Blocks }[]
  /** Blocks that no copy has. */
  lost: Blocks
  /** Blocks of which copies hold different bytes. */
  different: Blocks
}

/** The blocks of a range that two copies say different things of; both speak of all of them. */
export function differences(range: BlockRange, a: BlockContents, b: BlockContents): Blocks {
  const [ours, theirs] = [wordsOf(a), wordsOf(b)]
  const different: BlockRange[] = []
  for (let block = range.first; block < range.first + range.count; block++) {
    const [x, y] = [ours.get(block) ?? ZEROS, theirs.get(block) ?? ZEROS]
    const isEqual = typeof x === 'string' || typeof y === 'string' ? x === y : x.equals(y)
    if (!isEqual) different.push({ first: block, count: 1 })
  }
  return toBlocks(different)
}

/** The part of a set of blocks that lies in a range. */
export const within = (blocks: Blocks, range: BlockRange): Blocks => intersect(blocks, [range])

export const without = (range: BlockRange, missing: Blocks): Blocks => subtract([range], missing)

const ZEROS = Buffer.alloc(BLOCK_BYTES)

/** What is said of each block that is not zeros: its bytes, or which object it is inherited from. */
function wordsOf({ blocks, inherited }: BlockContents): Map<number, Buffer | string> {
  const words = new Map<number, Buffer | string>()
  for (const { first, bytes } of blocks) {
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES)
      words.set(first + at / BLOCK_BYTES, bytes.subarray(at, at + BLOCK_BYTES))
  }
  for (const { first, count } of inherited?.ranges ?? []) {
    for (let block = first; block < first + count; block++) words.set(block, `inherited from ${inherited?.base}`)
  }
  return words
}
