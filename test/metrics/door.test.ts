import { describe, expect, it } from 'vitest'
import { HttpMeter } from '../../src/api/metrics.ts'
import { Pace } from '../../src/api/pace.ts'
import { createMetricsDoor } from '../../src/app-metrics.ts'
import type { Result } from '../../src/control/methods.ts'
import type { ControlCaller } from '../../src/control/socket-client.ts'
import { type Clock, systemClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { LoopLag } from '../../src/runtime/loop-lag.ts'
import type { ServiceCounts } from '../../src/services/counts.ts'
import { parseScrape } from '../tools/exposition.ts'

type Metrics = Result<'metrics'>

const NOTHING = new Map<string, number>()
const COUNTS: ServiceCounts = {
  volumes: new Map([['available', 3]]),
  snapshots: NOTHING,
  work: { running: 0, done: NOTHING, repeated: NOTHING, givenUp: NOTHING, units: NOTHING },
}
const STORE: Metrics = { failure: null, samples: [{ name: 'collie_vdis', labels: {}, value: 5 }] }

/** A door on a clock that is set by hand, to a store that answers what it is told to. */
function setUp(counts = async () => COUNTS) {
  let nowMs = 0
  let asked = 0
  let answer: () => Promise<Metrics> = async () => STORE
  const timers = new Set<{ atMs: number; fire: () => void }>()
  const clock: Clock = {
    ...systemClock,
    monotonicMs: () => nowMs,
    timer: (delayMs, fire) => {
      const timer = { atMs: nowMs + delayMs, fire }
      timers.add(timer)
      return { cancel: () => timers.delete(timer) }
    },
  }
  const call = async () => {
    asked++
    return answer()
  }
  const door = createMetricsDoor({
    http: new HttpMeter(),
    counts,
    control: { call } as unknown as ControlCaller, // one method of many is asked for
    lag: new LoopLag(systemClock),
    pace: new Pace({ clock, busyMs: () => 0, share: 1 }),
    roles: ['api'],
    clock,
    log: createLog('silent'),
  })
  return {
    http: door.http,
    page: async () => parseScrape((await door.page()).text),
    storeAnswers: (next: () => Promise<Metrics>) => {
      answer = next
    },
    pass: (ms: number) => {
      nowMs += ms
      for (const timer of [...timers]) if (timer.atMs <= nowMs && timers.delete(timer)) timer.fire()
    },
    timers,
    get asked() {
      return asked
    },
  }
}

describe('the page of both sides', () => {
  it('has what the store tells and what the API knows', async () => {
    const { page, http, timers } = setUp()
    http.observe('GET', '/v3/volumes', 200, 0.004)
    http.observe('GET', '/v3/volumes', 204, 0.004)
    http.observe('GET', '/v3/volumes', 404, 0.004)
    const scrape = await page()
    expect(scrape.value('collie_store_up')).toBe(1)
    expect(scrape.value('collie_vdis')).toBe(5)
    expect(scrape.value('collie_volumes', { status: 'available' })).toBe(3)
    const route = { method: 'GET', route: '/v3/volumes' }
    expect(scrape.value('collie_http_request_duration_seconds_count', { ...route, status: '2xx' })).toBe(2)
    expect(scrape.value('collie_http_request_duration_seconds_count', { ...route, status: '4xx' })).toBe(1)
    expect(timers.size).toBe(0)
  })

  it('is made once for all who ask within a second', async () => {
    const door = setUp()
    await Promise.all(Array.from({ length: 50 }, door.page))
    door.pass(900)
    await door.page()
    expect(door.asked).toBe(1)
    door.pass(200)
    await door.page()
    expect(door.asked).toBe(2)
  })

  it('does not wait for a store that hangs, and does not ask it again before it has answered', async () => {
    const door = setUp()
    let answer: (metrics: Metrics) => void = () => {}
    door.storeAnswers(() => new Promise((resolve) => (answer = resolve)))
    for (let scrapes = 0; scrapes < 3; scrapes++) {
      door.pass(1100)
      const page = door.page()
      while (door.timers.size === 0) await new Promise(setImmediate)
      door.pass(2000)
      expect((await page).value('collie_store_up')).toBe(0)
    }
    expect(door.asked).toBe(1)
    answer(STORE)
    door.storeAnswers(async () => STORE)
    await new Promise(setImmediate)
    expect((await door.page()).value('collie_store_up')).toBe(0) // of the last second
    door.pass(1100)
    expect((await door.page()).value('collie_store_up')).toBe(1)
  })

  it('says that a store whose disk failed is not up, and shows what it still tells', async () => {
    const door = setUp()
    door.storeAnswers(async () => ({ ...STORE, failure: 'the disk failed' }))
    const scrape = await door.page()
    expect(scrape.value('collie_store_up')).toBe(0)
    expect(scrape.value('collie_vdis')).toBe(5)
  })

  it('comes although the store is gone and the database fails', async () => {
    const door = setUp(async () => {
      throw new Error('database is locked')
    })
    door.storeAnswers(async () => {
      throw new Error('gone')
    })
    const scrape = await door.page()
    expect(scrape.value('collie_store_up')).toBe(0)
    expect(scrape.value('collie_build_info')).toBe(1)
    expect(scrape.families.has('collie_volumes')).toBe(false)
  })
})
