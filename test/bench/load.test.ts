import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { percentile, run } from '../../bench/load.ts'

const UNBOUNDED = { countMax: Number.POSITIVE_INFINITY, durationMaxMs: Number.POSITIVE_INFINITY }

describe('run', () => {
  it('does as much as it was told, as many at a time, and takes the time of each', async () => {
    let now = 0
    let most = 0
    const workers = new Set<number>()
    const load = await run(3, { ...UNBOUNDED, countMax: 10 }, async (worker) => {
      workers.add(worker)
      most = Math.max(most, ++now)
      await Promise.resolve()
      now--
    })
    expect(load.latenciesMs).toHaveLength(10)
    expect(load.perSecond).toBeGreaterThan(0)
    expect(most).toBe(3)
    expect([...workers]).toEqual([0, 1, 2])
  })

  it('starts nothing more when its time is over', async () => {
    const load = await run(2, { ...UNBOUNDED, durationMaxMs: 0 }, () => Promise.reject(new Error('started')))
    expect(load.latenciesMs).toEqual([])
  })

  it('fails with the first failure', async () => {
    await expect(run(2, UNBOUNDED, () => Promise.reject(new Error('refused')))).rejects.toThrow('refused')
  })
})

describe('percentile', () => {
  it('is a value that the fraction of all do not exceed, and no smaller one is', () => {
    const values = fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 1 })
    fc.assert(
      fc.property(values, fc.constantFrom(0.01, 0.5, 0.9, 0.99, 1), (list, fraction) => {
        const found = percentile(list, fraction)
        const share = (limit: number) => list.filter((value) => value <= limit).length / list.length
        expect(list).toContain(found)
        expect(share(found)).toBeGreaterThanOrEqual(fraction)
        expect(share(found - 1)).toBeLessThan(fraction)
      }),
    )
  })

  it('tells the middle and the ends', () => {
    expect([0.5, 0.99, 1].map((fraction) => percentile([5, 1, 4, 2, 3], fraction))).toEqual([3, 5, 5])
  })
})
