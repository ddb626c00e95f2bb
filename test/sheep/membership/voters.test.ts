import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isVoterStep, type Member } from '../../../src/sheep/membership/view.ts'
import { nextVoters, spareVoters, VOTERS_MAX, type VoterSituation } from '../../../src/sheep/membership/voters.ts'

const member = (node: string, fields: Partial<Member> = {}): Member => ({
  node,
  incarnation: 'i',
  address: node,
  zone: Number.parseInt(node, 36),
  vnodes: 128,
  ...fields,
})

function situation(members: readonly (string | Member)[], fields: Partial<VoterSituation> = {}): VoterSituation {
  return {
    members: members.map((one) => (typeof one === 'string' ? member(one) : one)),
    voters: ['a'],
    draining: new Set(),
    leaving: new Set(),
    overdue: new Set(),
    ...fields,
  }
}

/** The sets of voters on the way to where nothing changes any more. */
function steps(start: VoterSituation): string[] {
  const seen: string[] = []
  for (let now = start; ; ) {
    const voters = nextVoters(now)
    expect(isVoterStep(now.voters, voters)).toBe(true)
    if (voters.join() === now.voters.join()) return seen
    expect(seen.length).toBeLessThan(20)
    seen.push([...voters].sort().join(''))
    now = { ...now, voters }
  }
}

describe('voters', () => {
  it('grow to five, and stay odd where that is possible', () => {
    expect(steps(situation(['a']))).toEqual([])
    expect(steps(situation(['a', 'b']))).toEqual(['ab'])
    expect(steps(situation(['a', 'b', 'c']))).toEqual(['ab', 'abc'])
    expect(steps(situation(['a', 'b', 'c', 'd']))).toEqual(['ab', 'abc'])
    expect(steps(situation(['a', 'b', 'c', 'd', 'e', 'f']))).toEqual(['ab', 'abc', 'abcd', 'abcde'])
  })

  it('are three with a witness, but no more because of it, and one beside a single gateway', () => {
    const witness = member('w', { vnodes: 0 })
    expect(steps(situation(['a', 'b', witness]))).toEqual(['ab', 'abw'])
    expect(steps(situation(['a', 'b', 'c', witness], { voters: ['a', 'b', 'w'] }))).toEqual(['abcw', 'abc'])
    expect(steps(situation(['a', witness]))).toEqual([])
    expect(steps(situation(['a', witness], { voters: ['a', 'w'] }))).toEqual(['a'])
  })

  it('are spread over the zones', () => {
    const zoned = (nodes: string) => [...nodes].map((node) => member(node, { zone: node.charCodeAt(0) % 3 }))
    expect(steps(situation(zoned('abcdef'), { voters: ['a', 'd', 'b'] }))).toEqual(['abcd', 'abcde'])
    expect(steps(situation(zoned('abdg'), { voters: ['a', 'd', 'g'] }))).toEqual(['abdg', 'bdg'])
  })

  it('keep one that is away, until another one can take its place', () => {
    expect(steps(situation(['a', 'b'], { voters: ['a', 'b', 'c'] }))).toEqual([])
    expect(steps(situation(['a', 'b'], { voters: ['a', 'b', 'c'], overdue: new Set('c') }))).toEqual([])
    expect(steps(situation(['a', 'b', 'd'], { voters: ['a', 'b', 'c'] }))).toEqual([])
    const away = { voters: ['a', 'b', 'c'], overdue: new Set('c') }
    expect(steps(situation(['a', 'b', 'd'], away))).toEqual(['abcd', 'abd'])
  })

  it('do without two that are away for long', () => {
    const voters = ['a', 'b', 'c', 'd', 'e']
    expect(steps(situation(['a', 'b', 'c'], { voters }))).toEqual([])
    expect(steps(situation(['a', 'b', 'c'], { voters, overdue: new Set('de') }))).toEqual(['abce', 'abc'])
    expect(steps(situation(['a', 'b', 'c', 'd'], { voters, overdue: new Set('e') }))).toEqual([])
  })

  it('let one leave that they cannot do without', () => {
    expect(steps(situation(['a', 'b'], { voters: ['a', 'b'], leaving: new Set('b') }))).toEqual(['a'])
    const away = { voters: ['a', 'b', 'c'], leaving: new Set('b') }
    expect(steps(situation(['a', 'b'], away))).toEqual(['ab', 'a'])
    expect(steps(situation(['a', 'b', 'c'], away))).toEqual([])
  })

  it('change one at a time, come to rest, and on the way can do without as many nodes as before', () => {
    const node = fc.constantFrom(...'abcdefgh')
    const nodes = (max: number) => fc.uniqueArray(node, { minLength: 1, maxLength: max })
    const fields = fc.record({
      present: nodes(8),
      voters: nodes(7),
      draining: nodes(2),
      leaving: nodes(2),
      overdue: nodes(4),
      gateways: nodes(4),
      zones: fc.integer({ min: 1, max: 4 }),
    })
    fc.assert(
      fc.property(fields, ({ present, voters, draining, leaving, overdue, gateways, zones }) => {
        const members = present.map((name) =>
          member(name, { zone: name.charCodeAt(0) % zones, vnodes: gateways.includes(name) ? 0 : 128 }),
        )
        const start: VoterSituation = {
          members,
          voters,
          draining: new Set(draining),
          leaving: new Set(leaving.filter((name) => present.includes(name))),
          overdue: new Set(overdue),
        }
        const there = new Set(present.filter((name) => !start.leaving.has(name)))
        const sets = [voters.toSorted().join(''), ...steps(start)]
        const spares = sets.map((set) => spareVoters([...set], there))
        // Where a majority is there at all; and two may be where one would do, for the sake of the log.
        for (const [at, spare] of spares.entries()) {
          if (at > 0 && sets[at]!.length > 2) expect(spare).toBeGreaterThanOrEqual(Math.min(0, spares[at - 1]!))
        }
        const last = sets.at(-1)!
        expect(last.length).toBeLessThanOrEqual(Math.max(VOTERS_MAX, voters.length))
        if (last.length > 2) expect(last.length % 2).toBe(1)
      }),
      { numRuns: 2000 },
    )
  })
})
