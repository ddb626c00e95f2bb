import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MemoryBudget, type MemoryShare } from '../../src/runtime/memory-budget.ts'

/** A share, what its connection holds, and what it was refused; it takes what it is granted when the test says so. */
class Holder {
  readonly share: MemoryShare
  heldBytes = 0
  wantedBytes = 0
  granted = false

  constructor(budget: MemoryBudget) {
    this.share = budget.share(() => {
      this.granted = true
    })
  }

  take(bytes: number): boolean {
    const taken = this.share.take(bytes)
    this.wantedBytes = taken ? 0 : bytes
    if (taken) this.heldBytes += bytes
    if (taken) this.granted = false
    return taken
  }

  give(bytes: number): void {
    this.heldBytes -= bytes
    this.share.settle(this.heldBytes)
  }
}

describe('a budget of memory', () => {
  const make = (commonBytesMax = 100) => new MemoryBudget({ commonBytesMax, ownBytes: 10 })

  test('leaves each connection its own, whoever holds the rest', () => {
    const budget = make()
    const [greedy, small, waiting] = [new Holder(budget), new Holder(budget), new Holder(budget)]
    expect(greedy.take(110)).toBe(true)
    expect(waiting.take(11)).toBe(false)
    expect(small.take(10)).toBe(true)
    expect(small.take(1)).toBe(false)
    expect(budget.drawnBytes).toBe(100)
  })

  test('serves those who wait in their order, however much the first of them wants', () => {
    const budget = make()
    const [holder, large, small] = [new Holder(budget), new Holder(budget), new Holder(budget)]
    holder.take(110)
    expect(large.take(100)).toBe(false)
    expect(small.take(20)).toBe(false)
    holder.give(50)
    expect([large.granted, small.granted]).toEqual([false, false])
    holder.give(60)
    expect([large.granted, small.granted]).toEqual([true, true])
    expect(large.take(100)).toBe(true)
    expect(small.take(20)).toBe(true)
    expect(budget.drawnBytes).toBe(100)
  })

  test('serves what is larger than everything when nobody else draws', () => {
    const budget = make()
    const [holder, huge] = [new Holder(budget), new Holder(budget)]
    holder.take(20)
    expect(huge.take(1000)).toBe(false)
    holder.give(20)
    expect(huge.take(1000)).toBe(true)
  })

  test('lets somebody go on who needs no more than its own after what it had was given back', () => {
    const budget = make()
    const [greedy, other] = [new Holder(budget), new Holder(budget)]
    greedy.take(110)
    other.take(8)
    expect(other.take(9)).toBe(false)
    other.give(8)
    expect(other.take(9)).toBe(true)
  })

  test('forgets who is gone, also while it waits in front or was granted something', () => {
    const budget = make()
    const holders = Array.from({ length: 4 }, () => new Holder(budget))
    const [first, second, third, fourth] = holders as [Holder, Holder, Holder, Holder]
    first.take(110)
    for (const holder of [second, third, fourth]) holder.take(100)
    second.share.close()
    first.share.close()
    expect([second.granted, third.granted, fourth.granted]).toEqual([false, true, false])
    third.share.close()
    expect(fourth.take(100)).toBe(true)
    fourth.share.close()
    expect([budget.drawnBytes, budget.waitingCount]).toEqual([0, 0])
  })

  test('never gives more than there is, and never leaves anybody waiting for ever', () => {
    const step = fc.record({ who: fc.nat(5), bytes: fc.integer({ min: 1, max: 100 }), gives: fc.boolean() })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
        const budget = make()
        const holders = Array.from({ length: 6 }, () => new Holder(budget))
        for (const { who, bytes, gives } of steps) {
          const holder = holders[who]!
          if (gives) holder.give(Math.min(bytes, holder.heldBytes))
          else holder.take(holder.wantedBytes || bytes)
          const drawn = holders.reduce((sum, { heldBytes }) => sum + Math.max(0, heldBytes - 10), 0)
          expect(drawn).toBeLessThanOrEqual(100)
        }
        // Everybody ends what it holds, and takes what it was granted: so all are served, one after the other.
        for (let round = 0; round < 10; round++) {
          for (const holder of holders) {
            if (holder.wantedBytes > 0) holder.take(holder.wantedBytes)
            holder.give(holder.heldBytes)
          }
        }
        expect(holders.map(({ wantedBytes }) => wantedBytes)).toEqual([0, 0, 0, 0, 0, 0])
        expect([budget.drawnBytes, budget.waitingCount]).toEqual([0, 0])
      }),
      { numRuns: 500 },
    )
  })
})
