import { describe, it } from 'vitest'
import { runSeeds } from '../sim/seeds.ts'
import { CopyModel } from './copies/copy-model.ts'
import { EngineCopyModel } from './copies/engine-copy-model.ts'
import { StoreModel } from './object-store-model.ts'
import { ReplicatedModel } from './replicated/replicated-model.ts'
import { RotModel } from './rot-model.ts'
import { SheepModel } from './sheep-model.ts'

/** The simulations of the store with many seeds and long lives. `SEEDS` and `FIRST_SEED` choose others. */
const FILE = 'test/sheep/store.long.test.ts --config vitest.long.config.ts'

describe('many seeds of', () => {
  it('the object store', async () => {
    await runSeeds(FILE, 10_000, (seed) => new StoreModel(seed).run(400))
  })

  it('a sheep', async () => {
    await runSeeds(FILE, 3000, (seed) => new SheepModel(seed).run(500))
  })

  it('copies of objects on several nodes', async () => {
    await runSeeds(FILE, 1000, (seed) => new CopyModel(seed).run(200))
  })

  it('copies on the store of a node', async () => {
    await runSeeds(FILE, 3000, (seed) => new EngineCopyModel(seed).run(250))
  })

  it('VDIs whose objects are elsewhere', async () => {
    await runSeeds(FILE, 2000, (seed) => new ReplicatedModel(seed).run(300))
  })

  it('rot', async () => {
    const outcomes = { refused: 0, errors: 0, nothing: 0 }
    await runSeeds(FILE, 20_000, async (seed) => {
      const model = new RotModel(seed)
      await model.run()
      outcomes[model.outcome]++
    })
    console.info(outcomes)
  })
})
