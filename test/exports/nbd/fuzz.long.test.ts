import { test } from 'vitest'
import { fuzzServer } from './fuzz.ts'

/** A million broken sessions; a failure names the seed that `fuzzServer` repeats it with. */
test.each(Array.from({ length: 10 }, (_, index) => Number(process.env.FIRST_SEED ?? 1) + index))(
  'a hundred thousand broken sessions leave nothing behind, seed %d',
  async (seed) => {
    await fuzzServer(100_000, seed)
  },
)
