import { describe, expect, it } from 'vitest'
import { runSeeds } from '../sim/seeds.ts'
import { SheepModel } from './sheep-model.ts'

describe('a sheep on a disk that keeps only what it promised', () => {
  it('keeps what devices, snapshots and clones hold through every crash, and gives all space back', {
    timeout: 300_000,
  }, async () => {
    const totals = { ...new SheepModel(0).counts }
    let markedAgain = 0
    const seeds = await runSeeds('test/sheep/sheep.test.ts', 25, async (seed) => {
      const model = new SheepModel(seed)
      await model.run(200)
      for (const key of Object.keys(totals) as (keyof typeof totals)[]) totals[key] += model.counts[key]
      markedAgain += model.marked.again
    })
    console.info({ seeds, ...totals, markedAgain })
    expect(totals.crashes).toBeGreaterThan(seeds)
    expect(Math.min(totals.foreign, totals.rollbacks)).toBeGreaterThan(seeds / 2)
    expect(markedAgain).toBeGreaterThan(seeds)
  })
})
