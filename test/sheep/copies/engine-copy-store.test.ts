import { describe, expect, it } from 'vitest'
import { runSeeds } from '../../sim/seeds.ts'
import { EngineCopyModel } from './engine-copy-model.ts'

describe('copies on the store of a node', () => {
  it('keep version, tail, epochs, marks and bytes together through every crash', async () => {
    const totals = new EngineCopyModel(0).counts
    const seeds = await runSeeds('test/sheep/copies/engine-copy-store.test.ts', 30, async (seed) => {
      const model = new EngineCopyModel(seed)
      await model.run(250)
      for (const [name, count] of Object.entries(model.counts)) totals[name as keyof typeof totals] += count
    })
    console.info({ seeds, ...totals })
    if (seeds >= 30) expect(Math.min(...Object.values(totals))).toBeGreaterThan(seeds / 2)
  }, 900_000)
})
