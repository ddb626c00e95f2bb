import { BLOCKS_PER_OBJECT } from '../object-format.ts'
import type { Blocks } from './block-ranges.ts'
import type { BlockRange } from './copy-store.ts'

/** A bit for each block of an object, in words of 32; never changed once somebody has it. */
export type BlockBits = Uint32Array

export const BLOCK_BITS_WORDS = BLOCKS_PER_OBJECT / 32
const ALL_ONES = 0xffffffff

export function bitsOf(ranges: Iterable<BlockRange>): BlockBits {
  return withBlocks(new Uint32Array(BLOCK_BITS_WORDS), ranges)
}

export const hasBlock = (bits: BlockBits, block: number): boolean => (bits[block >>> 5]! & (1 << (block & 31))) !== 0

export const hasAllBlocks = (bits: BlockBits): boolean => bits.every((word) => word === ALL_ONES)

export function withBlocks(bits: BlockBits, ranges: Iterable<BlockRange>): BlockBits {
  const more = Uint32Array.from(bits)
  for (const { first, count } of ranges) {
    for (let block = first; block < first + count; block++) more[block >>> 5]! |= 1 << (block & 31)
  }
  return more
}

/** The blocks of which `has` is true, in order, in as few ranges as there can be. */
export function rangesWhere(has: (block: number) => boolean, from = 0, to = BLOCKS_PER_OBJECT): Blocks {
  const ranges: BlockRange[] = []
  for (let block = from; block < to; block++) {
    if (!has(block)) continue
    const first = block
    while (block < to && has(block)) block++
    ranges.push({ first, count: block - first })
  }
  return ranges
}
