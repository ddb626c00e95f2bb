import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Pace } from '../../src/api/pace.ts'
import { HandClock } from '../tools/hand-clock.ts'
import { createHarness } from './harness.ts'

const SHARE = 0.25

function setUp(share = SHARE) {
  const thread = new HandClock()
  const pace = new Pace({ clock: thread.clock, busyMs: () => thread.busyMs, share })
  const begun: string[] = []
  /** A request that takes so much of the thread once it begins. */
  const ask = (name: string, costMs = 1) =>
    pace.enter(() => {
      begun.push(name)
      thread.work(costMs)
    })
  return { thread, pace, begun, ask }
}

describe('requests to the API', () => {
  it('wait for nothing while disks are quiet', () => {
    const { pace, begun, ask } = setUp()
    for (const name of ['a', 'b', 'c']) ask(name, 1000)
    expect(begun).toEqual(['a', 'b', 'c'])
    expect(pace.heldSeconds.count).toBe(0)
  })

  it('begin in the order of their coming while disks are busy, when the thread has rested for what it did', () => {
    const { thread, pace, begun, ask } = setUp()
    pace.bound(true)
    ask('a', 12)
    for (const name of ['b', 'c', 'd']) ask(name, 5)
    expect(begun).toEqual(['a'])
    thread.pass(27) // it worked 12 ms of which it might 2 and another 3 in that time: 7 too many, which is 28 of rest
    expect(begun).toEqual(['a'])
    thread.pass(2)
    expect(begun).toEqual(['a', 'b'])
    thread.pass(100)
    expect(begun).toEqual(['a', 'b', 'c', 'd'])
    expect(pace.heldSeconds.count).toBe(3)
    expect(pace.heldSeconds.sum).toBeGreaterThan(0.028 + 0.048 + 0.068)
    ask('e')
    expect(pace.heldSeconds.count).toBe(3)
  })

  it('wait for what the thread does besides, too', () => {
    const { thread, pace, begun, ask } = setUp()
    pace.bound(true)
    thread.work(7)
    ask('a')
    thread.pass(12)
    expect(begun).toEqual([])
    thread.pass(2)
    expect(begun).toEqual(['a'])
  })

  it('begin at once when disks have become quiet, all that wait', () => {
    const { thread, pace, begun, ask } = setUp()
    pace.bound(true)
    for (const name of ['a', 'b', 'c', 'd']) ask(name, 10)
    pace.bound(false)
    expect(begun).toEqual(['a', 'b', 'c', 'd'])
    ask('e')
    expect(begun).toHaveLength(5)
    pace.bound(true)
    pace.bound(true) // told again
    ask('f')
    thread.pass(1000)
    expect(begun).toHaveLength(6)
  })

  it('begin twenty times a second, however much there is to do', () => {
    const { thread, pace, begun, ask } = setUp()
    pace.bound(true)
    thread.work(5000)
    for (let count = 0; count < 100; count++) ask(String(count), 30)
    const startMs = thread.nowMs
    thread.pass(1000)
    expect(begun.length).toBeGreaterThanOrEqual(19)
    expect(begun.length).toBeLessThanOrEqual(21)
    thread.until(startMs + 10_000)
    expect(begun).toHaveLength(100)
  })

  it('keep the thread to its share, and take all of that when there are enough', () => {
    const costs = fc.array(fc.double({ min: 0.1, max: 5, noNaN: true }), { minLength: 50, maxLength: 200 })
    const share = fc.double({ min: 0.2, max: 0.9, noNaN: true })
    const keeps = fc.property(costs, share, (costsMs, share) => {
      const { thread, pace, begun, ask } = setUp(share)
      pace.bound(true)
      const startMs = thread.nowMs
      for (const [index, costMs] of costsMs.entries()) ask(String(index), costMs)
      let mostMs = 0
      let leastMs = 0
      while (begun.length < costsMs.length) {
        const besidesMs = thread.busyMs - share * (thread.nowMs - startMs)
        mostMs = Math.max(mostMs, besidesMs)
        leastMs = Math.min(leastMs, besidesMs)
        thread.pass(1)
      }
      expect(mostMs).toBeLessThanOrEqual(2 + 5)
      expect(leastMs).toBeGreaterThanOrEqual(-1)
      expect(begun).toEqual(costsMs.map((_, index) => String(index)))
    })
    fc.assert(keeps)
  })
})

it('holds requests of all routes, but not the question whether all is well', async () => {
  const { thread, pace, ask } = setUp()
  const harness = await createHarness({ pace })
  try {
    pace.bound(true)
    ask('first', 40)
    let answered = 0
    const held = ['/v3/volumes', '/', '/no-such-path'].map((path) => harness.ask('GET', path).finally(() => answered++))
    expect((await harness.ask('GET', '/healthcheck')).status).toBe(200)
    expect(answered).toBe(0)
    expect(pace.heldSeconds.count).toBe(0)
    thread.pass(11)
    expect((await held[0]!).status).toBe(200)
    expect(answered).toBe(1)
    pace.bound(false)
    expect((await Promise.all(held)).map(({ status }) => status)).toEqual([200, 300, 404])
    expect(pace.heldSeconds.count).toBe(3)
  } finally {
    await harness.close()
  }
})
