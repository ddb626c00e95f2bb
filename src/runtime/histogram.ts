/** From 25 µs, a read from memory, to 10 s, when clients give up. */
export const LATENCY_BOUNDS_SECONDS: readonly number[] = [
  25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
]

/** What a histogram holds, as data. */
export interface HistogramData {
  /** Upper bounds of the buckets, each inclusive; one more bucket is above the last. */
  bounds: readonly number[]
  /** Observations in each bucket alone, so one more than there are bounds. */
  counts: readonly number[]
  sum: number
}

/**
 * Counts observations in buckets; plain numbers, so that an observation costs some nanoseconds. Whoever shows them collects
 * them from here.
 */
export class Histogram implements HistogramData {
  readonly bounds: readonly number[]
  readonly counts: number[]
  sum = 0

  constructor(bounds: readonly number[] = LATENCY_BOUNDS_SECONDS) {
    this.bounds = bounds
    this.counts = Array.from({ length: bounds.length + 1 }, () => 0)
  }

  observe(value: number): void {
    let bucket = 0
    while (bucket < this.bounds.length && value > this.bounds[bucket]!) bucket++
    this.counts[bucket]!++
    this.sum += value
  }

  get count(): number {
    let count = 0
    for (const inBucket of this.counts) count += inBucket
    return count
  }
}
