import { describe, expect, it } from 'vitest'
import { runSeeds } from '../../sim/seeds.ts'
import { type CopyBreak, CopyModel } from './copy-model.ts'

const REQUESTS = 200
/** A seed that finds nothing may find it after any change of timing: 200 in all are tried. */
const SEEDS = 200

describe('copies of objects on several nodes', () => {
  it('stay one object, answer every request in the end, and become the same', { timeout: 3_600_000 }, async () => {
    const totals = { ...new CopyModel(0).counts }
    const seeds = await runSeeds('test/sheep/copies/copies.test.ts', 40, async (seed) => {
      const model = new CopyModel(seed)
      await model.run(REQUESTS)
      for (const key of Object.keys(totals) as (keyof typeof totals)[]) totals[key] += model.counts[key]
    })
    console.info({ seeds, ...totals })
    expect(Math.min(...Object.values(totals))).toBeGreaterThan(Math.floor(seeds / 40) - 1)
  })
})

const BREAKS: Record<string, CopyBreak> = {
  'an open seals nothing': { forgetsSeals: true },
  'holders take any generation': { takesAnyGeneration: true },
  'a write is applied on any version': { takesAnyPredecessor: true },
  'past views do not matter': { ignoresPastViews: true },
  'tails are not said': { hasNoTails: true },
  'what was written meanwhile is not said': { hasNoEpochs: true },
  'a copy that has not answered is counted': { acknowledgesEarly: true },
  'no lease is needed': { needsNoLease: true },
  'a copy that refused a write is not stale': { marksNothingStale: true },
}

describe('each rule of the copies, broken on purpose', () => {
  it.each(Object.entries(BREAKS))('%s: found', { timeout: 3_600_000 }, async (_name, broken) => {
    const found = await seedThatFinds(broken)
    console.info({ seeds: found })
    expect(found).toBeLessThanOrEqual(SEEDS)
  })
})

async function seedThatFinds(broken: CopyBreak): Promise<number> {
  for (let seed = 1; seed <= SEEDS; seed++) {
    try {
      await new CopyModel(seed, broken).run(REQUESTS)
    } catch {
      return seed
    }
  }
  return Number.POSITIVE_INFINITY
}
