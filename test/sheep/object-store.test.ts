import { describe, expect, it } from 'vitest'
import { runSeeds } from '../sim/seeds.ts'
import { StoreModel } from './object-store-model.ts'

describe('the object store on a disk that keeps only what it promised', () => {
  it('holds a prefix of its transactions after every crash', async () => {
    const totals = { transactions: 0, crashes: 0, reads: 0, plugs: 0, unplugs: 0, lost: 0 }
    const seeds = await runSeeds('test/sheep/object-store.test.ts', 600, async (seed) => {
      const model = new StoreModel(seed)
      await model.run(150)
      for (const [name, count] of Object.entries(model.counts)) totals[name as keyof typeof totals] += count
    })
    console.info({ seeds, ...totals })
    expect(totals.crashes).toBeGreaterThan(seeds)
    if (seeds >= 100) expect(Math.min(totals.plugs, totals.unplugs, totals.lost)).toBeGreaterThan(seeds / 20)
  }, 300_000)
})
