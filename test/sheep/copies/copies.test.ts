import { describe, expect, it } from 'vitest'
import { runSeeds } from '../../sim/seeds.ts'
import { type CopyBreak, CopyModel } from './copy-model.ts'

const REQUESTS = 200
/** A seed that finds nothing may find it after any change of timing: 200 in all are tried. */
const SEEDS = 200

describe('copies of objects on several nodes', () => {
  it('stay one object, answer every request in the end, and become the same', { timeout: 3_600_000 }, async () => {
    const totals = { ...new CopyModel(0).counts }
    const seeds = await runSeeds('test/sheep/copies/copies.test.ts', 20, async (seed) => {
      const model = new CopyModel(seed)
      await model.run(REQUESTS)
      for (const key of Object.keys(totals) as (keyof typeof totals)[]) totals[key] += model.counts[key]
    })
    console.info({ seeds, ...totals })
    const { mended, ...often } = totals // one in fifty
    if (seeds >= 20) expect(Math.min(...Object.values(often))).toBeGreaterThan(0)
    if (seeds >= 200) expect(mended).toBeGreaterThan(0)
  })
})

/** How a rule is broken, and the seed to begin with: one that found it, soon, when this was written. */
const BREAKS: Record<string, { broken: CopyBreak; from: number }> = {
  'an open seals nothing': { broken: { forgetsSeals: true }, from: 12 },
  'holders take any generation': { broken: { takesAnyGeneration: true }, from: 12 },
  'a write is applied on any version': { broken: { takesAnyPredecessor: true }, from: 1439 },
  'past views do not matter': { broken: { ignoresPastViews: true }, from: 3 },
  'what was written meanwhile is not said': { broken: { hasNoEpochs: true }, from: 8 },
  'tails are not said': { broken: { hasNoTails: true }, from: 76 },
  'a copy that has not answered is counted': { broken: { acknowledgesEarly: true }, from: 55 },
  'no lease is needed': { broken: { needsNoLease: true }, from: 164 },
  'nothing is tried again without another view': { broken: { neverTriesAgain: true }, from: 76 },
  'a removal is not done': { broken: { forgetsRemovals: true }, from: 3 },
  'what no map names stays': { broken: { keepsUnnamed: true }, from: 15 },
  'an object is removed late': { broken: { removesLate: true }, from: 28 },
  'what is inherited is copied as zeros': { broken: { inheritsZeros: true }, from: 1 },
  'checksums are not looked at': { broken: { readsRot: true }, from: 3 },
  'what is rotten is not looked for in older copies': { broken: { mendsNothing: true }, from: 355 },
  'what older copies have is taken for what is rotten': { broken: { mendsAnyhow: true }, from: 149 },
  'a flush waits for no disk': { broken: { flushesNothing: true }, from: 56 },
}

describe('each rule of the copies, broken on purpose', () => {
  it.each(Object.entries(BREAKS))('%s: found', { timeout: 3_600_000 }, async (_name, { broken, from }) => {
    const found = await seedThatFinds(broken, from)
    console.info({ seed: found })
    expect(found).toBeLessThan(from + SEEDS)
  })
})

async function seedThatFinds(broken: CopyBreak, from: number): Promise<number> {
  for (let seed = from; seed < from + SEEDS; seed++) {
    try {
      await new CopyModel(seed, broken).run(REQUESTS)
    } catch {
      return seed
    }
  }
  return Number.POSITIVE_INFINITY
}
