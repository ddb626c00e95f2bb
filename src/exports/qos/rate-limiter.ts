import type { ExportLimits, Rate } from '../../vdi/export-limits.ts'

/** What a request is to its limits. */
export type Direction = 'read' | 'write'

/** What may come at once after a rest, in seconds at the rate: small, but enough that a late timer loses nothing. */
const SLACK_SECONDS = 0.1

/** A wait that is shorter is none: sums of fractions are not exact. */
const WAIT_MIN_MS = 0.001

/**
 * A bucket that leaks at a rate. A request may go while the bucket is not over its brim, and is poured in whole: so a request that is
 * larger than the bucket goes as well, and the next ones wait for it.
 */
class Bucket {
  /** Units per millisecond. */
  private readonly rate: number
  private readonly capacity: number
  private level = 0
  private atMs: number

  constructor(perSecond: number, capacity: number, nowMs: number) {
    this.rate = perSecond / 1000
    this.capacity = capacity
    this.atMs = nowMs
  }

  /** How long until a request may go; 0 when it may now. */
  waitMs(nowMs: number): number {
    this.leak(nowMs)
    const waitMs = (this.level - this.capacity) / this.rate
    return waitMs < WAIT_MIN_MS ? 0 : waitMs
  }

  pour(units: number): void {
    this.level += units
  }

  /** Goes on for another: what that one was over its brim is owed here as well, in time, and what was in it as far as there is room. */
  follow(other: Bucket, nowMs: number): void {
    const owedMs = other.waitMs(nowMs)
    this.level =
      owedMs > 0 ? this.capacity + owedMs * this.rate : Math.min(this.capacity, (other.level / other.rate) * this.rate)
  }

  private leak(nowMs: number): void {
    this.level = Math.max(0, this.level - (nowMs - this.atMs) * this.rate)
    this.atMs = nowMs
  }
}

interface Meter {
  /** Which limit it keeps, and which of its two buckets it is. */
  name: string
  bucket: Bucket
  countsBytes: boolean
}

/**
 * The limits of one export as leaky buckets. Pure: who asks says what time it is, on a clock that never goes back.
 *
 * In any time of `t` seconds no more goes than `perSecond * t`, or with a burst the lesser of `burstPerSecond * t` and
 * `perSecond * t + (burstPerSecond - perSecond) * burstSeconds`; each with a tenth of a second's slack, and one request, on top. Who
 * always has a request waiting gets no less than `perSecond * t` of the limit that is the narrowest for it.
 */
export class RateLimiter {
  private meters: Record<Direction, Meter[]> = { read: [], write: [] }

  constructor(limits: ExportLimits | null, nowMs: number) {
    this.change(limits, nowMs)
  }

  /** New limits. What went before still counts: who has just gone too far under the old ones waits as long under the new. */
  change(limits: ExportLimits | null, nowMs: number): void {
    const before = new Map([...this.meters.read, ...this.meters.write].map(({ name, bucket }) => [name, bucket]))
    const metersOf = (name: keyof ExportLimits, countsBytes: boolean): Meter[] => {
      const buckets = bucketsOf(limits?.[name], nowMs)
      return buckets.map((bucket, index) => {
        const meter = { name: `${name}/${index}`, bucket, countsBytes }
        const old = before.get(meter.name)
        if (old !== undefined) bucket.follow(old, nowMs)
        return meter
      })
    }
    const total = [...metersOf('totalIops', false), ...metersOf('totalBytes', true)]
    this.meters = {
      read: [...total, ...metersOf('readIops', false), ...metersOf('readBytes', true)],
      write: [...total, ...metersOf('writeIops', false), ...metersOf('writeBytes', true)],
    }
  }

  /** How long a request has to wait; 0 when it may go now. The wait does not depend on its size. */
  waitMs(direction: Direction, nowMs: number): number {
    let waitMs = 0
    for (const { bucket } of this.meters[direction]) waitMs = Math.max(waitMs, bucket.waitMs(nowMs))
    return waitMs
  }

  /** Counts a request that goes now: `waitMs` was asked at the same time. */
  charge(direction: Direction, bytes: number): void {
    for (const { bucket, countsBytes } of this.meters[direction]) bucket.pour(countsBytes ? bytes : 1)
  }
}

/** One for the rate, and with a burst one more for that. */
function bucketsOf(rate: Rate | undefined, nowMs: number): Bucket[] {
  if (rate === undefined) return []
  const { perSecond, burstPerSecond = perSecond, burstSeconds = 1 } = rate
  const saved = (burstPerSecond - perSecond) * burstSeconds
  const steady = new Bucket(perSecond, saved + perSecond * SLACK_SECONDS, nowMs)
  return saved > 0 ? [steady, new Bucket(burstPerSecond, burstPerSecond * SLACK_SECONDS, nowMs)] : [steady]
}
