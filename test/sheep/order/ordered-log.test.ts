import { describe, expect, it } from 'vitest'
import { runSeeds } from '../../sim/seeds.ts'
import { OrderModel } from './order-model.ts'

describe('the ordered log on a group that promises little', () => {
  it('is one log on all nodes, keeps what was acknowledged, and goes on when everything is mended', {
    timeout: 3_600_000,
  }, async () => {
    const totals = { ...new OrderModel(0).counts }
    const seeds = await runSeeds('test/sheep/order/ordered-log.test.ts', 100, async (seed) => {
      const model = new OrderModel(seed)
      await model.run(200)
      for (const key of Object.keys(totals) as (keyof typeof totals)[]) totals[key] += model.counts[key]
    })
    console.info({ seeds, ...totals })
    const { kills, powerLosses, blackouts, cuts, stops, engines, electorates, installs } = totals
    const faults = [kills, powerLosses, blackouts, cuts, stops, engines, electorates, installs]
    expect(Math.min(...faults)).toBeGreaterThan(Math.floor(seeds / 100) - 1)
  })
})
