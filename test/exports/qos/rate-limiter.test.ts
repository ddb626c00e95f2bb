import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Direction, RateLimiter } from '../../../src/exports/qos/rate-limiter.ts'
import { type ExportLimits, LIMITS, type Rate, readLimits } from '../../../src/vdi/export-limits.ts'

interface Step {
  direction: Direction
  bytes: number
  /** What the client does between an answer and its next request. */
  restMs: number
}

const anyRate: fc.Arbitrary<Rate> = fc
  .record({
    perSecond: fc.integer({ min: 1, max: 100_000 }),
    burstTimes: fc.option(fc.integer({ min: 2, max: 20 })),
    burstSeconds: fc.integer({ min: 1, max: 30 }),
  })
  .map(({ perSecond, burstTimes, burstSeconds }) =>
    burstTimes === null ? { perSecond } : { perSecond, burstPerSecond: perSecond * burstTimes, burstSeconds },
  )

const anyLimits: fc.Arbitrary<ExportLimits> = fc.record(
  Object.fromEntries(LIMITS.map((name) => [name, anyRate])) as Record<(typeof LIMITS)[number], typeof anyRate>,
  { requiredKeys: [] },
)

const anySteps = (restMaxMs: number) =>
  fc.array(
    fc.record<Step>({
      direction: fc.constantFrom('read', 'write'),
      bytes: fc.oneof(fc.constant(4096), fc.integer({ min: 0, max: 1_000_000 })),
      restMs: fc.oneof(fc.constant(0), fc.double({ min: 0, max: restMaxMs, noNaN: true })),
    }),
    { minLength: 1, maxLength: 60 },
  )

/** When each step went: each as soon as it may, one after the other. */
function run(limiter: RateLimiter, steps: readonly Step[], startMs = 0): number[] {
  let nowMs = startMs
  return steps.map(({ direction, bytes, restMs }) => {
    nowMs += restMs
    nowMs += limiter.waitMs(direction, nowMs)
    expect(limiter.waitMs(direction, nowMs)).toBe(0)
    limiter.charge(direction, bytes)
    return nowMs
  })
}

/** What a step counts under a limit. */
function unitsOf(name: (typeof LIMITS)[number], { direction, bytes }: Step): number {
  if (!name.startsWith('total') && !name.startsWith(direction)) return 0
  return name.endsWith('Iops') ? 1 : bytes
}

/** The most that may go in a time, by the contract, but for the last request. */
function most({ perSecond, burstPerSecond = perSecond, burstSeconds = 1 }: Rate, seconds: number): number {
  const saved = (burstPerSecond - perSecond) * burstSeconds
  return Math.min(burstPerSecond * (seconds + 0.1), perSecond * (seconds + 0.1) + saved)
}

describe('a rate limiter', () => {
  it('never lets more go, in any time, than every limit says', () => {
    fc.assert(
      fc.property(anyLimits, anySteps(5000), (limits, steps) => {
        const wentMs = run(new RateLimiter(limits, 0), steps)
        for (const [name, rate] of Object.entries(limits) as [(typeof LIMITS)[number], Rate][]) {
          for (let first = 0; first < steps.length; first++) {
            let units = 0
            for (let last = first; last < steps.length; last++) {
              // Before the last one goes there is room for it: what went until then is within the bound.
              const allowed = most(rate, (wentMs[last]! - wentMs[first]!) / 1000)
              if (unitsOf(name, steps[last]!) > 0) expect(units).toBeLessThanOrEqual(allowed * (1 + 1e-9) + 1e-3)
              units += unitsOf(name, steps[last]!)
            }
          }
        }
      }),
    )
  })

  it('lets go no less than a limit says, for who always has a request waiting', () => {
    const oneLimit = fc.tuple(fc.constantFrom(...LIMITS), anyRate)
    fc.assert(
      fc.property(oneLimit, anySteps(0), ([name, rate], steps) => {
        const wentMs = run(new RateLimiter({ [name]: rate }, 0), steps)
        const units = steps.slice(0, -1).reduce((sum, step) => sum + unitsOf(name, step), 0)
        const last = steps.at(-1)!
        if (unitsOf(name, last) > 0)
          expect(units).toBeGreaterThanOrEqual((rate.perSecond * wentMs.at(-1)!) / 1000 - 1e-3)
      }),
    )
  })

  it('goes at the burst for as long as it says after a rest, and then at the rate', () => {
    const limiter = new RateLimiter({ readIops: { perSecond: 100, burstPerSecond: 1000, burstSeconds: 5 } }, 0)
    const wentMs = run(limiter, Array(7000).fill({ direction: 'read', bytes: 0, restMs: 0 }), 0)
    const within = (fromMs: number, toMs: number) => wentMs.filter((ms) => ms >= fromMs && ms < toMs).length
    expect(within(0, 1000)).toBeGreaterThan(1000)
    expect(within(0, 1000)).toBeLessThan(1110)
    expect(within(1000, 4000)).toBe(3000)
    expect(within(6000, 16_000)).toBe(1000)
  })

  it('has separate limits for reads and writes, and common ones for both', () => {
    const limiter = new RateLimiter({ writeIops: { perSecond: 1 }, totalBytes: { perSecond: 1000 } }, 0)
    limiter.charge('write', 0)
    expect([limiter.waitMs('write', 0), limiter.waitMs('read', 0)]).toEqual([900, 0])
    limiter.charge('read', 2100)
    expect([limiter.waitMs('write', 0), limiter.waitMs('read', 0)]).toEqual([2000, 2000])
  })

  it('lets a request go that is larger than a second holds, and whoever comes next waits for it', () => {
    const limiter = new RateLimiter({ totalBytes: { perSecond: 1000 } }, 0)
    expect(limiter.waitMs('read', 0)).toBe(0)
    limiter.charge('read', 10_000)
    expect(limiter.waitMs('read', 0)).toBe(9900)
  })

  it('takes over what is owed when the limits change, in time, and saves nothing that was not saved', () => {
    const limiter = new RateLimiter({ totalIops: { perSecond: 10, burstPerSecond: 100, burstSeconds: 10 } }, 0)
    run(limiter, Array(1100).fill({ direction: 'read', bytes: 0, restMs: 0 }))
    const nowMs = 30_000
    limiter.change({ totalIops: { perSecond: 10 } }, nowMs)
    expect(limiter.waitMs('read', nowMs)).toBeLessThanOrEqual(100)
    limiter.charge('read', 0)
    limiter.charge('read', 0)
    const owedMs = limiter.waitMs('read', nowMs)
    limiter.change({ totalIops: { perSecond: 1000 } }, nowMs)
    expect(limiter.waitMs('read', nowMs)).toBeCloseTo(owedMs)
    limiter.change(null, nowMs)
    expect(limiter.waitMs('read', nowMs)).toBe(0)
  })
})

describe('limits in a record', () => {
  it('are read as they were written', () => {
    fc.assert(
      fc.property(anyLimits, (limits) => {
        const read = readLimits(JSON.parse(JSON.stringify(limits)))
        expect(read).toEqual(Object.keys(limits).length > 0 ? limits : null)
      }),
    )
  })

  it('limit nothing where they mean nothing', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        for (const rate of Object.values(readLimits(value) ?? {})) expect(rate.perSecond).toBeGreaterThan(0)
      }),
    )
    for (const rate of [null, 5, {}, { perSecond: 0 }, { perSecond: -1 }, { perSecond: '5' }, { perSecond: null }]) {
      expect(readLimits({ totalIops: rate, unknown: { perSecond: 5 } })).toBe(null)
    }
    expect(readLimits({ readIops: { perSecond: 5, burstPerSecond: 4, burstSeconds: 9 } })).toEqual({
      readIops: { perSecond: 5 },
    })
    expect(readLimits({ readIops: { perSecond: 5, burstPerSecond: 6, burstSeconds: 0 } })).toEqual({
      readIops: { perSecond: 5, burstPerSecond: 6, burstSeconds: 1 },
    })
  })
})
