import { describe, expect, it } from 'vitest'
import { runSeeds } from '../sim/seeds.ts'
import { RotModel } from './rot-model.ts'

describe('a bit that flips anywhere on the disk', () => {
  it('never makes a read give anything but what was written, or an error', async () => {
    const outcomes = { refused: 0, errors: 0, nothing: 0 }
    const seeds = await runSeeds('test/sheep/rot.test.ts', 400, async (seed) => {
      const model = new RotModel(seed)
      await model.run()
      outcomes[model.outcome]++
    })
    console.info({ seeds, ...outcomes })
    expect(outcomes.refused).toBeGreaterThan(0)
    expect(outcomes.errors).toBeGreaterThan(0)
  })
})
