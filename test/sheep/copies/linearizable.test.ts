import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../../sim/random.ts'
import { type Operation, whyNotDurable, whyNotLinearizable } from './linearizable.ts'

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

describe('the check of what a flush promises', () => {
  const write = (value: number, start: number, end: number): Operation => ({ kind: 'write', value, start, end })
  const read = (value: number, start: number): Operation => ({ kind: 'read', value, start, end: start + 1 })
  const written = [write(1, 10, 11), write(2, 20, 21), write(3, 30, 31)]
  const why = (operations: readonly Operation[], flushes: [number, number][], blackouts = [40, 60]) =>
    whyNotDurable([...written, ...operations], { flushes: flushes.map(([start, end]) => ({ start, end })), blackouts })

  it('lets a blackout take what was not flushed, one by one from the end', () => {
    for (const value of [0, 1, 2, 3]) expect(why([read(value, 50)], [])).toBeNull()
    for (const value of [2, 3]) expect(why([read(value, 50)], [[25, 26]])).toBeNull()
    for (const value of [0, 1]) expect(why([read(value, 50)], [[25, 26]])).not.toBeNull()
    expect(why([read(2, 50)], [[35, 36]])).not.toBeNull()
    expect(why([read(2, 50)], [[35, 45]])).toBeNull() // it was not over
    expect(why([read(4, 50)], [])).not.toBeNull()
  })

  it('lets the block be one thing after it, through other blackouts too', () => {
    expect(why([read(1, 50), read(2, 52)], [])).not.toBeNull()
    expect(why([read(1, 50), read(1, 70)], [])).toBeNull()
    expect(why([read(1, 50), read(2, 70)], [])).not.toBeNull()
    expect(why([write(4, 50, 51), read(4, 70)], [])).toBeNull()
    expect(why([write(4, 50, 51), read(3, 70)], [])).toBeNull()
    expect(why([write(4, 50, 51), read(3, 70)], [[55, 56]])).not.toBeNull()
  })

  it('lets a write that nobody heard of come before or after it', () => {
    const lost = write(4, 35, Number.POSITIVE_INFINITY)
    expect(why([lost, read(3, 50), read(4, 52)], [[33, 34]])).toBeNull()
    expect(why([lost, read(4, 50), read(3, 52)], [[33, 34]])).not.toBeNull()
  })
})
