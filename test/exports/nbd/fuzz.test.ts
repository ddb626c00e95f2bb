import { test } from 'vitest'
import { fuzzServer } from './fuzz.ts'

test('broken sessions leave nothing behind', async () => {
  await fuzzServer(10_000, 1)
})
