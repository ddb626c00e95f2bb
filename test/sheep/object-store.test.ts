import { describe, expect, it } from 'vitest'
import { runSeeds } from '../sim/seeds.ts'
import { StoreModel } from './object-store-model.ts'

describe('the object store on a disk that keeps only what it promised', () => {
  it('holds a prefix of its transactions after every crash', async () => {
    const totals = { transactions: 0, crashes: 0, reads: 0 }
    const seeds = await runSeeds('test/sheep/object-store.test.ts', 1000, async (seed) => {
      const model = new StoreModel(seed)
      await model.run(150)
      totals.transactions += model.counts.transactions
      totals.crashes += model.counts.crashes
      totals.reads += model.counts.reads
    })
    console.info({ seeds, ...totals })
    expect(totals.crashes).toBeGreaterThan(seeds)
  })
})
