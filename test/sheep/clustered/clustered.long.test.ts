import { describe, it } from 'vitest'
import { runSeeds } from '../../sim/seeds.ts'
import { ClusterModel, WHOLE_SEED } from './cluster-model.ts'
import { QemuModel } from './qemu-model.ts'

/** Whole nodes in virtual time, with many seeds. `SEEDS` and `FIRST_SEED` choose others. */
const FILE = 'test/sheep/clustered/clustered.long.test.ts --config vitest.long.config.ts'

describe('many seeds of', () => {
  it('several nodes', async () => {
    await runSeeds(FILE, 1000, async (seed) => {
      await ClusterModel.run(seed, WHOLE_SEED)
    })
  })

  it('a machine on the Sheepdog protocol', async () => {
    await runSeeds(FILE, 500, async (seed) => {
      await QemuModel.run(seed, { faults: 10, operations: 500 })
    })
  })
})
