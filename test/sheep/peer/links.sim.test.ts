import { describe, expect, it } from 'vitest'
import { runSeeds } from '../../sim/seeds.ts'
import { LinkModel } from './link-model.ts'

const FILE = 'test/sheep/peer/links.sim.test.ts'

describe('links between nodes that fail', () => {
  it('settle each request once, and lose nothing from the middle of an epoch', async () => {
    const sums: Record<string, number> = {}
    await runSeeds(FILE, 40, async (seed) => {
      const model = new LinkModel(seed)
      await model.run(150)
      for (const [name, count] of Object.entries(model.counts)) sums[name] = (sums[name] ?? 0) + count
    })
    if (process.env.SEEDS === undefined) {
      expect(sums.answered).toBeGreaterThan(4000)
      for (const name of ['rejected', 'cuts', 'stops', 'kills', 'views']) expect(sums[name]).toBeGreaterThan(40)
    }
  }, 300_000)

  it('would lose some from the middle if they knew nothing of epochs', async () => {
    const found = async () => {
      for (let seed = 1; seed <= 100; seed++) await new LinkModel(seed, { forgetsEpochs: true }).run(150)
    }
    await expect(found()).rejects.toThrow('one before it was')
  }, 300_000)
})
