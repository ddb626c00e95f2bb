import { expect, it } from 'vitest'
import { Repeats } from '../../src/runtime/repeats.ts'

it('what happens again and again is said once a minute, with how often it did, and at once when it is something else', () => {
  let nowMs = 0
  const repeats = new Repeats({ monotonicMs: () => nowMs })
  const said = [0, 20_000, 40_000, 60_000, 80_000].map((atMs) => {
    nowMs = atMs
    return repeats.count('to n1', 'it refuses')
  })
  expect(said).toEqual([1, null, null, 3, null])
  expect(repeats.count('to n2', 'it refuses')).toBe(1)
  expect(repeats.count('to n1', 'it is silent')).toBe(1)
  expect(repeats.count('to n1', 'it refuses')).toBe(1)
})
