import { describe, expect, it } from 'vitest'
import { ALL_BLOCKS } from '../../../src/sheep/copies/block-ranges.ts'
import type { BlockRange, CopyState, TailEntry } from '../../../src/sheep/copies/copy-store.ts'
import {
  findAuthority,
  lackedBlocks,
  type PlacedView,
  type Report,
  salvage,
  withOneCleanName,
} from '../../../src/sheep/copies/reconcile.ts'
import { cleanVersion, type Version } from '../../../src/sheep/copies/version.ts'

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
  copiesMin: 2,
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

const chosen = (views: readonly PlacedView[], reports: readonly Report[]) => {
  const found = findAuthority(views, reports)
  return found === 'removed' ? found : (found?.member.node ?? null)
}

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

  it('is one whose versions are forgotten as clean before one that was away then, and has the name of an earlier write', () => {
    const views = [view(6, 'AB', 'ABC'), view(7, 'ABC')]
    expect(chosen(views, [report('A', cleanVersion(5)), report('C', version(5, 3))])).toBe('A')
    expect(chosen(views, [report('A', cleanVersion(5)), report('B', version(6, 1)), report('C', version(5, 3))])).toBe(
      'B',
    )
  })

  it('is no stale copy', () => {
    const views = [view(1, 'AB')]
    expect(chosen(views, [report('A', version(1, 9), { kind: 'stale' }), report('B', version(1, 8))])).toBe('B')
    expect(chosen(views, [report('A', version(1, 9), { kind: 'stale' })])).toBeNull()
  })

  it('is no copy of an object that was removed since', () => {
    const views = [view(1, 'ABC')]
    const removed = report('A', version(1, 8), { kind: 'removed' })
    expect(chosen(views, [removed, report('B', version(1, 7))])).toBe('removed')
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

describe('what is clean', () => {
  const views = [view(6, 'ABC', 'AB'), view(7, 'ABC')]
  const names = (reports: readonly Report[]) => withOneCleanName(views, reports).map(({ state }) => state!.version)

  it('has the lowest of its names, while some nodes have forgotten the versions and others have not', () => {
    expect(names([report('A', cleanVersion(5)), report('B', version(4, 9))])).toEqual([version(4, 9), version(4, 9)])
    expect(names([report('A', cleanVersion(5)), report('B', cleanVersion(3))])).toEqual([
      cleanVersion(3),
      cleanVersion(3),
    ])
  })

  it('is no copy that was written to since, or of which something is open, and none of a node that had no place then', () => {
    const written = report('A', version(6, 2))
    const partial = report('B', version(5, 2), { kind: 'partial' })
    const late = report('C', version(3, 1))
    const open = report('B', version(4, 9), { tail: [entry(1, version(4, 9), version(4, 8))] })
    for (const other of [written, partial, late, open]) {
      const clean = other.member.node === 'A' ? 'B' : 'A'
      expect(names([report(clean, cleanVersion(5)), other])).toEqual([cleanVersion(5), other.state!.version])
    }
  })
})

const entry = (first: number, at: Version, previous: Version | null): TailEntry => ({
  first,
  count: 1,
  version: at,
  previous,
})

const lacked = (copy: Report, best: Report, changed: readonly BlockRange[]) =>
  lackedBlocks(copy, best, changed).map(({ first, count }) => (count === 1 ? `${first}` : `${first}+${count}`))

const EVERYTHING = ['0+1024']

describe('what a copy lacks', () => {
  it('is what is in both tails, and what was written since the version before its own', () => {
    const old = report('A', version(5, 8), { tail: [entry(2, version(5, 8), version(5, 7))] })
    const best = report('B', version(6, 2), { tail: [entry(4, version(6, 2), version(6, 1))] })
    expect(lacked(old, best, [{ first: 9, count: 2 }])).toEqual(['2', '4', '9+2'])
  })

  it('is only what was written apart, when both once had the same version', () => {
    const [first, second, third] = [version(5, 7), version(5, 8), version(5, 9)]
    const together = entry(2, second, first)
    const best = report('B', third, { tail: [together, entry(4, third, second)] })
    const changed = [{ first: 0, count: 1024 }]
    expect(lacked(report('A', second, { tail: [together] }), best, changed)).toEqual(['4'])
    expect(lacked(report('A', second), best, changed)).toEqual(['4'])
    expect(lacked(report('A', first), best, changed)).toEqual(['2', '4'])
    const apart = report('A', version(6, 1), { tail: [together, entry(7, version(6, 1), second)] })
    expect(lacked(apart, best, changed)).toEqual(['4', '7'])
    expect(lacked(best, report('A', second), changed)).toEqual(['4'])
  })

  it('is not told by versions with an adoption between them: what was put in after it is in no tail', () => {
    const adopted = { ...entry(0, version(6, 1), version(5, 7)), count: 0 }
    const best = report('B', version(6, 1), { tail: [adopted] })
    const changed = [{ first: 9, count: 1 }]
    expect(lacked(report('A', version(5, 7)), best, changed)).toEqual(['9'])
    const joined = report('B', version(6, 2), {
      tail: [entry(4, version(6, 2), version(5, 7)), { ...adopted, version: version(6, 2) }],
    })
    expect(lacked(report('A', version(5, 7)), joined, changed)).toEqual(['4', '9'])
  })

  it('is not told by versions with others between them that have been forgotten', () => {
    const tail = [entry(2, version(5, 8), version(5, 7)), entry(4, version(6, 9), version(6, 8))]
    expect(lacked(report('A', version(5, 8)), report('B', version(6, 9), { tail }), [{ first: 9, count: 1 }])).toEqual([
      '2',
      '4',
      '9',
    ])
  })

  it('is nothing at the same version, and everything when it is stale, new, removed, or made by a write under way', () => {
    const best = report('B', version(6, 1))
    expect(lacked(report('A', version(6, 1)), best, [{ first: 1, count: 1 }])).toEqual([])
    expect(lacked(report('A', version(5, 1), { kind: 'stale' }), best, [])).toEqual(EVERYTHING)
    expect(lacked(report('A', version(5, 1), { kind: 'removed' }), best, [])).toEqual(EVERYTHING)
    expect(lacked(report('A', null), best, [])).toEqual(EVERYTHING)
    const made = report('A', version(5, 1), { tail: [entry(0, version(5, 1), null)] })
    expect(lacked(made, best, [])).toEqual(EVERYTHING)
  })
})

describe('what is left when operators say that a node is gone for good', () => {
  const views = [view(1, 'ABC', 'AC'), { ...view(2, 'AB'), removed: ['C'] }]

  it('is a whole copy, though somebody could have known better', () => {
    expect(chosen(views, [report('A', version(1, 3)), report('B', null)])).toBe('A')
  })

  it('is the best partial copy, and what it lacks is lost; or nothing of the object', () => {
    const partial = report('A', version(1, 3), { kind: 'partial' })
    const saved = salvage(views, [partial, report('B', null)])!
    expect(findAuthority(views, saved)).toMatchObject({ member: { node: 'A' }, state: { kind: 'full', valid: [] } })
    const nothing = salvage(views, [report('A', version(1, 3), { kind: 'stale' }), report('B', null)])!
    expect(findAuthority(views, nothing)).toMatchObject({ state: { kind: 'full', valid: [] } })
  })

  it('is not looked for while somebody else is not there, or nobody was removed', () => {
    const some = [view(1, 'ABCD', 'ACD'), { ...view(2, 'AB'), removed: ['C'] }]
    expect(salvage(some, [report('A', null), report('B', null)])).toBeNull()
    expect(salvage([view(1, 'AB')], [report('A', null), report('B', null)])).toBeNull()
  })
})
