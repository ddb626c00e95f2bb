import { describe, expect, it } from 'vitest'
import { runSeeds } from '../sim/seeds.ts'
import { StoreModel } from './object-store-model.ts'

describe('the object store on a disk that keeps only what it promised', () => {
  it('holds a prefix of its transactions after every crash', async () => {
    const totals = new StoreModel(0).counts
    const seeds = await runSeeds('test/sheep/object-store.test.ts', 120, async (seed) => {
      const model = new StoreModel(seed)
      await model.run(150)
      for (const [name, count] of Object.entries(model.counts)) totals[name as keyof typeof totals] += count
    })
    console.info({ seeds, ...totals })
    expect(totals.crashes).toBeGreaterThan(seeds)
    if (seeds >= 100) {
      const { plugs, unplugs, lost, placedApart, healed, punched, kept, keptApart, keptLast, crowded } = totals
      expect(
        Math.min(plugs, unplugs, lost, placedApart, healed, punched, kept, keptApart, keptLast, crowded),
      ).toBeGreaterThan(seeds / 40)
    }
  }, 900_000)
})
