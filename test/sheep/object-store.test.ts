import { describe, expect, it } from 'vitest'
import { StoreModel } from './object-store-model.ts'

const SEEDS = Number(process.env.SEEDS ?? 300)
const FIRST_SEED = Number(process.env.FIRST_SEED ?? 1)

describe('the object store on a disk that keeps only what it promised', () => {
  it(`holds a prefix of its transactions after every crash, ${SEEDS} seeds`, async () => {
    const totals = { transactions: 0, crashes: 0, reads: 0 }
    for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
      const model = new StoreModel(seed)
      try {
        await model.run(150)
      } catch (error) {
        throw new Error(
          `seed ${seed} failed; replay with FIRST_SEED=${seed} SEEDS=1 npx vitest run test/sheep/object-store.test.ts`,
          { cause: error },
        )
      }
      totals.transactions += model.counts.transactions
      totals.crashes += model.counts.crashes
      totals.reads += model.counts.reads
    }
    console.info(totals)
    expect(totals.crashes).toBeGreaterThan(SEEDS)
  })
})
