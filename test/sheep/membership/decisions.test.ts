import { describe, expect, it } from 'vitest'
import { whoIsToBlame } from '../../../src/sheep/membership/accusations.ts'
import type { Announcement } from '../../../src/sheep/membership/announcement.ts'
import { mayGoDown } from '../../../src/sheep/membership/down.ts'
import { clusterOf, foundingLog } from '../../../src/sheep/membership/founding.ts'
import { joinWaitMs, nextView, type Situation } from '../../../src/sheep/membership/next-view.ts'
import { SILENT_BEATS, Silence } from '../../../src/sheep/membership/silence.ts'
import type { Member, View } from '../../../src/sheep/membership/view.ts'

const member = (node: string, fields: Partial<Member> = {}): Member => ({
  node,
  incarnation: `${node}1`,
  address: node,
  zone: node.charCodeAt(0),
  vnodes: 128,
  ...fields,
})

const view = (members: string, fields: Partial<View> = {}): View => ({
  epoch: 5,
  members: [...members].map((node) => member(node)),
  voters: [...members].slice(0, 3),
  at: 0,
  ...fields,
})

const told = (node: string, fields: Partial<Announcement> = {}): Announcement => ({
  ...member(node),
  epoch: 5,
  isReady: true,
  isLeaving: false,
  accuses: [],
  lost: [],
  ...fields,
})

function situation(base: View, present: readonly Announcement[], fields: Partial<Situation> = {}): Situation {
  return {
    base,
    present: new Map(present.map((one) => [one.node, one])),
    lost: new Set(),
    condemned: new Set(),
    renews: false,
    overdue: new Set(),
    isInEffect: true,
    admits: () => true,
    drains: new Map(),
    removals: new Set(),
    copies: [],
    keepsPlaces: () => false,
    now: 77,
    ...fields,
  }
}

const namesOf = (next: View | null) => next?.members.map(({ incarnation }) => incarnation)

describe('the view that should follow', () => {
  const abc = view('abc')
  const all = ['a', 'b', 'c'].map((node) => told(node))

  it('is none while everything is as it should be', () => {
    expect(nextView(situation(abc, all))).toBeNull()
  })

  it('has those who come, and those who started again in the place of what they were', () => {
    const next = nextView(situation(abc, [...all.slice(0, 2), told('c', { incarnation: 'c2' }), told('d')]))
    expect(next).toMatchObject({ epoch: 6, voters: ['a', 'b', 'c'], at: 77 })
    expect(namesOf(next)).toEqual(['a1', 'b1', 'c2', 'd1'])
    const notReady = [
      ...all.slice(0, 2),
      told('c', { incarnation: 'c2', isReady: false }),
      told('d', { isReady: false }),
    ]
    expect(namesOf(nextView(situation(abc, notReady)))).toEqual(['a1', 'b1'])
  })

  it('has not those who are gone, and their votes still', () => {
    const next = nextView(situation(abc, all.slice(0, 2), { lost: new Set(['c']) }))
    expect([namesOf(next), next?.voters]).toEqual([
      ['a1', 'b1'],
      ['a', 'b', 'c'],
    ])
    expect(namesOf(nextView(situation(abc, all, { condemned: new Set(['b']) })))).toEqual(['a1', 'c1'])
  })

  it('never has voters of whom a majority is not there', () => {
    const base = view('ab', { voters: ['a', 'b', 'c', 'd', 'e'] })
    const overdue = new Set(['c', 'd', 'e'])
    const next = nextView(situation(base, [told('a'), told('b', { incarnation: 'b2' })], { overdue }))
    expect([namesOf(next), next?.voters]).toEqual([['a1', 'b2'], base.voters])
  })

  it('changes no voters while the one before has not taken effect', () => {
    const base = view('ab', { voters: ['a'] })
    const present = [told('a'), told('b')]
    expect(nextView(situation(base, present))?.voters).toEqual(['a', 'b'])
    expect(nextView(situation(base, present, { isInEffect: false }))).toBeNull()
  })

  it('is without a member that leaves, once the others can do without it, and keeps the last one', () => {
    const leaving = told('b', { isLeaving: true })
    const next = nextView(situation(view('ab', { voters: ['a', 'b'] }), [told('a'), leaving]))
    expect([namesOf(next), next?.voters]).toEqual([['a1'], ['a']])
    const base = view('ab', { voters: ['a', 'b', 'c'] })
    const first = nextView(situation(base, [told('a'), leaving]))!
    expect([namesOf(first), first.voters]).toEqual([
      ['a1', 'b1'],
      ['a', 'b'],
    ])
    expect(namesOf(nextView(situation(first, [told('a'), leaving])))).toEqual(['a1'])
    expect(nextView(situation(view('b'), [leaving]))).toBeNull()
  })

  it('leaves the places of who is gone as they are for a while, not those of who drains', () => {
    const fields = { lost: new Set(['c']), keepsPlaces: () => true }
    const without = nextView(situation(abc, all.slice(0, 2), fields))!
    expect(without.members.map(({ node }) => node)).toEqual(['a', 'b'])
    expect(without.away).toEqual([member('c')])
    expect(nextView(situation(without, all.slice(0, 2), fields))).toBeNull()
    const back = nextView(situation(without, [...all.slice(0, 2), told('c', { incarnation: 'c2' })], fields))!
    expect([back.members.length, back.away]).toEqual([3, undefined])
    const later = nextView(situation(without, all.slice(0, 2), { ...fields, keepsPlaces: () => false }))!
    expect([later.members.length, later.away]).toEqual([2, undefined])
    const drained = nextView(situation(without, all.slice(0, 2), { ...fields, drains: new Map([['c', true]]) }))!
    expect(drained.away).toBeUndefined()
  })

  it('puts out who was removed, when the voters can do without, and never takes it in again', () => {
    const abcd = view('abcd')
    const four = ['a', 'b', 'c', 'd'].map((node) => told(node))
    const without = nextView(situation(abcd, four, { removals: new Set(['d']) }))!
    expect([without.members.map(({ node }) => node), without.removed]).toEqual([['a', 'b', 'c'], ['d']])
    const again = nextView(situation(without, [...four.slice(0, 3), told('d', { incarnation: 'd2' })]))
    expect(again).toBeNull()
  })

  it('says which VDIs get another number of copies, once', () => {
    const copies = [{ vid: 7, copies: 2 }]
    expect(nextView(situation(abc, all, { copies }))).toMatchObject({ epoch: 6, members: abc.members, copies })
    expect(nextView(situation(abc, all, { copies, isInEffect: false }))).toBeNull()
  })

  it('gives no places on the ring to a node that drains, and its own back when that is over', () => {
    const drained = nextView(situation(abc, all, { drains: new Map([['c', true]]) }))!
    expect([drained.draining, drained.members[2]!.vnodes]).toEqual([['c'], 0])
    const back = nextView(situation(drained, all, { drains: new Map([['c', false]]) }))!
    expect([back.draining, back.members[2]!.vnodes]).toEqual([undefined, 128])
  })

  it('has a node wait that came often lately, longer each time', () => {
    const views = Array.from({ length: 12 }, (_, at) => ({
      index: at,
      view: view('a', { members: [member('a'), member('b', { incarnation: `b${at}` })], at: at * 1000 }),
    }))
    const justNow = () => 0
    expect(joinWaitMs(views, 'a', 11_000, justNow)).toBe(0)
    expect(joinWaitMs(views.slice(0, 3), 'b', 2000, justNow)).toBe(0)
    expect(joinWaitMs(views.slice(0, 4), 'b', 3000, justNow)).toBe(5000)
    expect(joinWaitMs(views.slice(0, 4), 'b', 7000, justNow)).toBe(1000)
    expect(joinWaitMs(views, 'b', 11_000, justNow)).toBe(60_000)
    expect(joinWaitMs(views, 'b', 1000, justNow)).toBe(60_000) // of a node whose clock is behind
    expect(joinWaitMs(views, 'b', 1000, () => 45_000)).toBe(15_000)
    expect(joinWaitMs(views, 'b', 1_000_000, justNow)).toBe(0)
  })
})

describe('who is to blame', () => {
  const blamed = (members: string, accusations: Record<string, string>) =>
    whoIsToBlame(view(members), new Map(Object.entries(accusations).map(([who, whom]) => [who, [...whom]])))

  it('is who is accused by most, or accuses most', () => {
    expect(blamed('abcd', {})).toEqual([])
    expect(blamed('abcd', { a: 'd', b: 'd' })).toEqual(['d'])
    expect(blamed('abcd', { d: 'abc' })).toEqual(['d'])
    expect(blamed('abcd', { a: 'd', b: 'd', c: 'd', d: 'abc' })).toEqual(['d'])
    expect(blamed('abcde', { a: 'e', b: 'ed', c: 'd' })).toEqual(['e', 'd'])
  })

  it('is one of two, and the same one for all: who is accused, who does not vote', () => {
    expect(blamed('ab', { a: 'b' })).toEqual(['b'])
    expect(blamed('ab', { b: 'a' })).toEqual(['a'])
    expect(blamed('ab', { a: 'b', b: 'a' })).toEqual(['b'])
    expect(blamed('abcd', { a: 'd', d: 'a' })).toEqual(['d'])
  })

  it('is no member because of one that is none, unless others say so too', () => {
    expect(blamed('abc', { x: 'a' })).toEqual([])
    expect(blamed('abc', { x: 'a', y: 'a' })).toEqual(['a'])
    expect(blamed('abc', { a: 'x' })).toEqual([])
  })
})

describe('silence', () => {
  it('is counted in beats, for those that should be heard, and newcomers have twice the time', () => {
    const silence = new Silence()
    const beats = (count: number, ...nodes: string[]) => {
      for (let beat = 0; beat < count; beat++) silence.beat(new Set(nodes))
      return silence.silent
    }
    expect(beats(2 * SILENT_BEATS - 1, 'a', 'b')).toEqual([])
    silence.heard('a')
    expect(beats(1, 'a', 'b')).toEqual(['b'])
    expect(beats(SILENT_BEATS - 1, 'a', 'b')).toEqual(['a', 'b'])
    expect(beats(1, 'b')).toEqual(['b'])
    expect(beats(1, 'a', 'b')).toEqual(['b'])
  })
})

describe('whether a node may go down now', () => {
  const whole = { lost: 0, waiting: 0 }

  it('depends on the votes that are left, and on the copies', () => {
    const ask = (base: View, node: string, copies = whole) => mayGoDown(base, node, copies)
    expect(ask(view('abc'), 'b')).toEqual({
      isSafe: true,
      reason: '2 of 3 voters would be left, and enough copies of every object',
    })
    expect(ask(view('ab'), 'b')).toEqual({ isSafe: false, reason: '1 of 2 voters would be left, and 2 are needed' })
    const oneAway = view('abd', { voters: ['a', 'b', 'c'] })
    expect(ask(oneAway, 'b').isSafe).toBe(false)
    expect(ask(oneAway, 'd').isSafe).toBe(true)
    expect(ask(oneAway, 'c')).toEqual({ isSafe: true, reason: 'it is not in the cluster at present' })
    expect(ask(view('a'), 'a')).toEqual({ isSafe: false, reason: 'it is the only node' })
    expect(ask(view('abc'), 'b', { lost: 1, waiting: 9 })).toEqual({
      isSafe: false,
      reason: 'it has the only copy of 1 object',
    })
    expect(ask(view('abc'), 'b', { lost: 0, waiting: 9 })).toEqual({
      isSafe: false,
      reason: 'writes to 9 objects would wait for another copy',
    })
  })
})

describe('founding', () => {
  it('makes a log that says which cluster it is of, after what a store that was alone has', () => {
    const after = { index: 9, view: view('a'), families: [], attributes: [], copies: [] }
    const log = foundingLog({ cluster: 'x', founder: member('a'), at: 3, after })
    expect(log.baseIndex).toBe(9)
    expect(log.items.map(({ index, voters }) => [index, voters])).toEqual([
      [10, undefined],
      [11, ['a']],
    ])
    expect(JSON.parse(log.items[1]!.payload)).toMatchObject({ type: 'view', epoch: 6, voters: ['a'], at: 3 })
    expect(clusterOf(log)).toBe('x')
    expect(clusterOf({ ...log, items: log.items.slice(1) })).toBeNull()
  })
})
