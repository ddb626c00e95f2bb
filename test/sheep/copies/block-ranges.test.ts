import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { countBlocks, intersect, overlaps, subtract, toBlocks } from '../../../src/sheep/copies/block-ranges.ts'
import type { BlockRange } from '../../../src/sheep/copies/copy-store.ts'

const ranges = fc.array(fc.record({ first: fc.nat(30), count: fc.nat(8) }), { maxLength: 6 })
const listed = (some: readonly BlockRange[]) =>
  new Set(some.flatMap(({ first, count }) => Array.from({ length: count }, (_, at) => first + at)))
const inOrder = (blocks: Iterable<number>) => [...blocks].sort((a, b) => a - b)

/** As lists of single blocks say it. */
describe('sets of blocks', () => {
  it('are made of any ranges, each block once, with gaps between the ranges', () => {
    fc.assert(
      fc.property(ranges, (some) => {
        const blocks = toBlocks(some)
        expect(inOrder(listed(blocks))).toEqual(inOrder(listed(some)))
        expect(countBlocks(blocks)).toBe(listed(some).size)
        for (const [at, { first, count }] of blocks.entries())
          expect((blocks[at + 1]?.first ?? Number.POSITIVE_INFINITY) > first + count).toBe(true)
      }),
    )
  })

  it('are cut, and compared, block by block', () => {
    fc.assert(
      fc.property(ranges, ranges, (a, b) => {
        const [left, right] = [listed(a), listed(b)]
        expect(inOrder(listed(subtract(toBlocks(a), b)))).toEqual(inOrder(left).filter((block) => !right.has(block)))
        const both = inOrder(left).filter((block) => right.has(block))
        expect(inOrder(listed(intersect(toBlocks(a), toBlocks(b))))).toEqual(both)
        expect(overlaps(toBlocks(a), toBlocks(b))).toBe(both.length > 0)
      }),
    )
  })
})
