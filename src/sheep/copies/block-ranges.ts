import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../object-format.ts'
import type { BlockContents, BlockRange, BlockRun, CopyLayout, Inherited } from './copy-store.ts'

/** Sets of the blocks of an object, as ranges in order that neither overlap nor touch. */
export type Blocks = readonly BlockRange[]

export const ALL_BLOCKS: Blocks = [{ first: 0, count: BLOCKS_PER_OBJECT }]

/** Any ranges, made a set. */
export function toBlocks(ranges: readonly BlockRange[]): Blocks {
  if (ranges.length < 2) return ranges.filter(({ count }) => count > 0).map(({ first, count }) => ({ first, count }))
  const merged: BlockRange[] = []
  for (const { first, count } of [...ranges].sort((a, b) => a.first - b.first)) {
    if (count === 0) continue
    const last = merged.at(-1)
    if (last && first <= last.first + last.count) last.count = Math.max(last.count, first + count - last.first)
    else merged.push({ first, count })
  }
  return merged
}

export function subtract(from: Blocks, ranges: readonly BlockRange[]): Blocks {
  if (from.length === 0 || ranges.length === 0) return from
  let left: BlockRange[] = [...from]
  for (const { first, count } of ranges) {
    left = left.flatMap((range) => {
      const end = range.first + range.count
      const before = { first: range.first, count: Math.min(end, first) - range.first }
      const after = { first: Math.max(range.first, first + count), count: end - Math.max(range.first, first + count) }
      if (before.count >= range.count || after.count >= range.count) return [range]
      return [before, after].filter((part) => part.count > 0)
    })
  }
  return left
}

export const allBut = (blocks: Blocks): Blocks => subtract(ALL_BLOCKS, blocks)

export function intersect(a: Blocks, b: Blocks): Blocks {
  return subtract(a, allBut(b))
}

export function overlaps(a: readonly BlockRange[], b: readonly BlockRange[]): boolean {
  return a.some((x) => b.some((y) => x.first < y.first + y.count && y.first < x.first + x.count))
}

/** Whether all blocks of a range are in a set. */
export function covers(blocks: Blocks, first: number, count: number): boolean {
  for (const range of blocks) if (range.first <= first && first + count <= range.first + range.count) return true
  return false
}

export function countBlocks(blocks: Blocks): number {
  return blocks.reduce((sum, { count }) => sum + count, 0)
}

/** The same blocks, in ranges of `count` at most. */
export function piecesOf(blocks: Blocks, count: number): BlockRange[] {
  return blocks.flatMap((range) =>
    Array.from({ length: Math.ceil(range.count / count) }, (_, at) => ({
      first: range.first + at * count,
      count: Math.min(count, range.count - at * count),
    })),
  )
}

/** The blocks that contents say something of. */
export function blocksOf({ blocks, zeros, inherited }: BlockContents): Blocks {
  if (blocks.length === 1 && zeros.length === 0 && !inherited) return [rangeOf(blocks[0]!)] // as nearly always
  return toBlocks([...blocks.map(rangeOf), ...zeros, ...(inherited?.ranges ?? [])])
}

export const rangeOf = ({ first, bytes }: BlockRun): BlockRange => ({ first, count: bytes.length / BLOCK_BYTES })

/** Contents of different blocks of one object. */
export function joinLayouts(parts: readonly CopyLayout[]): CopyLayout {
  const data = toBlocks(parts.flatMap((part) => part.data))
  return { data, ...joinInherited(parts) }
}

export function joinContents(parts: readonly BlockContents[]): BlockContents {
  const blocks = parts.flatMap((part) => part.blocks).sort((a, b) => a.first - b.first)
  const zeros = toBlocks(parts.flatMap((part) => part.zeros))
  return { blocks, zeros, ...joinInherited(parts) }
}

function joinInherited(parts: readonly { inherited?: Inherited }[]): { inherited?: Inherited } {
  const inherited = parts.flatMap((part) => part.inherited ?? [])
  const [first] = inherited
  return first ? { inherited: { base: first.base, ranges: toBlocks(inherited.flatMap(({ ranges }) => ranges)) } } : {}
}
