import { describe, expect, it } from 'vitest'
import { ALL_BLOCKS, subtract } from '../../../src/sheep/copies/block-ranges.ts'
import type { CopyState, TailEntry } from '../../../src/sheep/copies/copy-store.ts'
import { findAuthority, type PlacedView, type Report, validBlocks } from '../../../src/sheep/copies/reconcile.ts'
import type { Version } from '../../../src/sheep/copies/version.ts'

const version = (epoch: number, sequence: number): Version => ({
  generation: { epoch, index: epoch * 10, incarnation: 'n1.1' },
  sequence,
})

const member = (node: string) => ({ node, incarnation: `${node}.1`, address: node, zone: 0, vnodes: 1 })

const view = (epoch: number, nodes: string, targets = nodes): PlacedView => ({
  epoch,
  members: [...nodes].map(member),
  voters: [...nodes],
  at: 0,
  targets: [...targets],
})

const report = (
  node: string,
  at: Version | null,
  { kind = 'full', tail = [], lost = 0 }: { kind?: CopyState['kind']; tail?: TailEntry[]; lost?: number } = {},
): Report => ({
  oid: 1n,
  member: member(node),
  state: at && { version: at, kind, valid: kind === 'full' ? ALL_BLOCKS : [] },
  allocated: [],
  tail,
  lostThroughEpoch: lost,
})

const chosen = (views: readonly PlacedView[], reports: readonly Report[]) =>
  findAuthority(views, reports, 2)?.member.node ?? null

describe('whose copy is right', () => {
  it('is the highest version, when somebody of each view is there', () => {
    expect(chosen([view(1, 'ABC')], [report('A', version(1, 7)), report('B', version(1, 8))])).toBe('B')
  })

  it('is not said while a view that may have acknowledged is without a witness', () => {
    const views = [view(1, 'ABC', 'AB'), view(2, 'AC'), view(3, 'BC')]
    const [b, c] = [report('B', version(1, 7)), report('C', version(2, 9), { kind: 'partial' })]
    expect(chosen(views, [b, c])).toBeNull()
    expect(chosen(views, [b, c, report('A', version(2, 9))])).toBe('A')
  })

  it('does not ask for witnesses of a view with too few copies to acknowledge', () => {
    const views = [view(1, 'ABC', 'AB'), view(2, 'AC', 'A'), view(3, 'BC')]
    expect(chosen(views, [report('B', version(1, 7)), report('C', null)])).toBe('B')
  })

  it('takes the word of a target that has nothing: nothing was written in that view', () => {
    const views = [view(1, 'ABC', 'AB'), view(2, 'CD'), view(3, 'BCD')]
    expect(chosen(views, [report('B', version(1, 7)), report('C', null), report('D', null)])).toBe('B')
    expect(chosen(views, [report('B', version(1, 7)), report('C', version(2, 1), { kind: 'partial' })])).toBeNull()
  })

  it('is no stale copy', () => {
    const views = [view(1, 'AB')]
    expect(chosen(views, [report('A', version(1, 9), { kind: 'stale' }), report('B', version(1, 8))])).toBe('B')
    expect(chosen(views, [report('A', version(1, 9), { kind: 'stale' })])).toBeNull()
  })

  it('is no copy of an object that was removed since', () => {
    const views = [view(1, 'ABC')]
    const removed = report('A', version(1, 8), { kind: 'removed' })
    expect(chosen(views, [removed, report('B', version(1, 7))])).toBeNull()
    expect(chosen(views, [removed, report('B', version(1, 9))])).toBe('B')
  })

  it('takes the word of a target with a tombstone, and of nobody else with one', () => {
    const old = view(1, 'ABCD', 'ABC')
    const removed = report('C', version(1, 5), { kind: 'removed' })
    expect(chosen([old, view(2, 'CD'), view(3, 'ACD')], [report('A', version(1, 7)), removed])).toBe('A')
    expect(chosen([old, view(2, 'BCD', 'BD'), view(3, 'ACE')], [report('A', version(1, 7)), removed])).toBeNull()
  })

  it('is one that may have lost something only when all others have spoken', () => {
    const views = [view(1, 'AB'), view(2, 'AB')]
    const lossy = report('A', version(1, 7), { lost: 1 })
    expect(chosen(views, [lossy])).toBeNull()
    expect(chosen(views, [lossy, report('B', version(1, 6), { lost: 1 })])).toBe('A')
  })
})

describe('what another copy keeps', () => {
  const entry = (first: number, at: Version, previous: Version | null): TailEntry => ({
    first,
    count: 1,
    version: at,
    previous,
  })

  it('is all but both tails, and what was written since the version before its own', () => {
    const old = report('A', version(5, 8), { tail: [entry(2, version(5, 8), version(5, 7))] })
    const best = report('B', version(6, 1), { tail: [entry(4, version(6, 1), version(5, 7))] })
    const kept = validBlocks(old, best, [{ first: 9, count: 2 }])
    expect(subtract(ALL_BLOCKS, kept)).toEqual([
      { first: 2, count: 1 },
      { first: 4, count: 1 },
      { first: 9, count: 2 },
    ])
  })

  it('lacks what is rotten, at any version', () => {
    const rotten = {
      ...report('A', version(6, 1)),
      state: { version: version(6, 1), kind: 'full' as const, valid: [{ first: 3, count: 9 }] },
    }
    expect(validBlocks(rotten, report('B', version(6, 1)), [])).toEqual([{ first: 3, count: 9 }])
    expect(validBlocks(rotten, report('B', version(6, 2)), [{ first: 0, count: 4 }])).toEqual([{ first: 4, count: 8 }])
  })

  it('is nothing of an object that was removed', () => {
    const removed = report('A', version(5, 1), { kind: 'removed' })
    expect(validBlocks(removed, report('B', version(6, 1)), [])).toEqual([])
  })

  it('is everything at the same version, and nothing when it is stale, new, or made by a write under way', () => {
    const best = report('B', version(6, 1))
    expect(validBlocks(report('A', version(6, 1)), best, [{ first: 1, count: 1 }])).toEqual(ALL_BLOCKS)
    expect(validBlocks(report('A', version(5, 1), { kind: 'stale' }), best, [])).toEqual([])
    expect(validBlocks(report('A', null), best, [])).toEqual([])
    const made = report('A', version(5, 1), { tail: [entry(0, version(5, 1), null)] })
    expect(validBlocks(made, best, [])).toEqual([])
  })
})
