import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../sim/random.ts'
import { type Operation, whyNotLinearizable } from './linearizable.ts'

/** The same question by trying every order. */
function hasOrder(left: readonly Operation[], value: number): boolean {
  if (left.every(({ end }) => end === Number.POSITIVE_INFINITY)) return true
  const firstEnd = Math.min(...left.map(({ end }) => end))
  return left.some((operation) => {
    if (operation.start > firstEnd || (operation.kind === 'read' && operation.value !== value)) return false
    return hasOrder(
      left.filter((other) => other !== operation),
      operation.value,
    )
  })
}

function someHistory(random: SeededRandom): Operation[] {
  const count = 2 + random.below(6)
  return Array.from({ length: count }, (_, index) => {
    const start = random.below(40) * 16 + index * 2
    const isLost = random.chance(0.1)
    const kind = random.chance(0.5) ? 'write' : 'read'
    const end = isLost ? Number.POSITIVE_INFINITY : start + 1 + random.below(20) * 16
    return { kind, value: kind === 'write' ? index + 1 : random.below(count + 1), start, end }
  })
}

describe('the check of histories', () => {
  it('says what trying every order says', () => {
    const random = new SeededRandom(1)
    const found = { yes: 0, no: 0 }
    for (let round = 0; round < 20_000; round++) {
      const history = someHistory(random)
      const reads = history.filter(({ kind, end }) => kind === 'write' || end !== Number.POSITIVE_INFINITY)
      const expected = hasOrder(reads, 0)
      expect(whyNotLinearizable(history) === null, JSON.stringify(history)).toBe(expected)
      found[expected ? 'yes' : 'no']++
    }
    expect(Math.min(found.yes, found.no)).toBeGreaterThan(2000)
  })
})
