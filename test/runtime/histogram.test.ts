import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Histogram, LATENCY_BOUNDS_SECONDS } from '../../src/runtime/histogram.ts'

describe('a histogram', () => {
  it('counts an observation in the first bucket whose bound it does not exceed', () => {
    const histogram = new Histogram([1, 2, 5])
    for (const value of [0, 1, 1.1, 2, 5, 5.1, Number.POSITIVE_INFINITY]) histogram.observe(value)
    expect(histogram.counts).toEqual([2, 2, 1, 2])
    expect(histogram.count).toBe(7)
  })

  it('adds up: all are in some bucket, and the sum is theirs', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 20, noNaN: true })), (values) => {
        const histogram = new Histogram()
        for (const value of values) histogram.observe(value)
        expect(histogram.count).toBe(values.length)
        expect(histogram.sum).toBe(values.reduce((sum, value) => sum + value, 0))
        LATENCY_BOUNDS_SECONDS.forEach((bound, index) => {
          const upTo = histogram.counts.slice(0, index + 1).reduce((sum, count) => sum + count, 0)
          expect(upTo).toBe(values.filter((value) => value <= bound).length)
        })
      }),
    )
  })

  it('has bounds from 25 µs to 10 s, in order', () => {
    expect(LATENCY_BOUNDS_SECONDS[0]).toBe(25e-6)
    expect(LATENCY_BOUNDS_SECONDS.at(-1)).toBe(10)
    expect([...LATENCY_BOUNDS_SECONDS].sort((a, b) => a - b)).toEqual(LATENCY_BOUNDS_SECONDS)
  })
})
