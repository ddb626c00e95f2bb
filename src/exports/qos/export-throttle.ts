import { isDeepStrictEqual } from 'node:util'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { ExportLimits } from '../../vdi/export-limits.ts'
import { type Direction, RateLimiter } from './rate-limiter.ts'

/**
 * Lets the connections of one export go as fast as its limits say, all together.
 *
 * 1. A connection that may not go yet is not read any more, so nothing piles up here: in the queue each stands once, with one request.
 * 2. Who waits goes in the order of asking, one request each, so that connections take turns. One whose direction is held
 *    back does not hold back the other direction.
 * 3. There is one timer, for the first who may go, and none while nobody waits.
 * 4. Without limits it is asked nothing.
 */
export class ExportThrottle {
  private readonly clock: Pick<Clock, 'monotonicMs' | 'timer'>
  private limits: ExportLimits | null = null
  private readonly limiter: RateLimiter
  /** In the order of asking. */
  private readonly waiting = new Set<ThrottleTurn>()
  private timer: Timer | null = null
  private dueMs = 0
  /** False: `pass` need not be asked. */
  isLimited = false

  constructor(clock: Pick<Clock, 'monotonicMs' | 'timer'>) {
    this.clock = clock
    this.limiter = new RateLimiter(null, clock.monotonicMs())
  }

  /** The place of a new connection. `granted` is told when what `pass` refused may go; it must not call back. */
  turn(granted: () => void): ThrottleTurn {
    return new ThrottleTurn(this, granted)
  }

  setLimits(limits: ExportLimits | null): void {
    if (isDeepStrictEqual(limits, this.limits)) return
    const nowMs = this.clock.monotonicMs()
    this.limits = limits
    this.isLimited = limits !== null
    this.limiter.change(limits, nowMs)
    this.timer?.cancel()
    this.timer = null
    this.serve(nowMs)
  }

  get waitingCount(): number {
    return this.waiting.size
  }

  /** Whether the request may go now; otherwise its connection waits, and is told. */
  ask(turn: ThrottleTurn): boolean {
    const nowMs = this.clock.monotonicMs()
    if (this.waiting.size === 0 && this.limiter.waitMs(turn.direction, nowMs) === 0) {
      this.limiter.charge(turn.direction, turn.bytes)
      return true
    }
    this.waiting.add(turn)
    this.serve(nowMs, turn)
    return !this.waiting.has(turn)
  }

  leave(turn: ThrottleTurn): void {
    this.waiting.delete(turn)
    if (this.waiting.size > 0) return
    this.timer?.cancel()
    this.timer = null
  }

  /** Lets go who may, but for telling the one that is just asking. */
  private serve(nowMs: number, asking: ThrottleTurn | null = null): void {
    let soonestMs = Number.POSITIVE_INFINITY
    for (const turn of this.waiting) {
      const waitMs = this.limiter.waitMs(turn.direction, nowMs)
      if (waitMs > 0) {
        soonestMs = Math.min(soonestMs, waitMs)
        continue
      }
      this.limiter.charge(turn.direction, turn.bytes)
      this.waiting.delete(turn)
      if (turn !== asking) turn.grant()
    }
    if (this.waiting.size > 0) this.wakeIn(soonestMs, nowMs)
  }

  private wakeIn(waitMs: number, nowMs: number): void {
    const dueMs = nowMs + waitMs
    if (this.timer !== null && this.dueMs <= dueMs) return
    this.timer?.cancel()
    this.dueMs = dueMs
    this.timer = this.clock.timer(Math.ceil(waitMs), () => {
      this.timer = null
      this.serve(this.clock.monotonicMs())
    })
  }
}

/** What one connection waits for: the request that it has read and may not start yet. */
export class ThrottleTurn {
  readonly throttle: ExportThrottle
  private readonly granted: () => void
  private isWaiting = false
  private isGranted = false
  direction: Direction = 'read'
  bytes = 0

  constructor(throttle: ExportThrottle, granted: () => void) {
    this.throttle = throttle
    this.granted = granted
  }

  /** False when the request may not go yet: then the same is to be asked again once `granted` was told. */
  pass(direction: Direction, bytes: number): boolean {
    if (this.isGranted) {
      this.isGranted = false
      return true
    }
    if (this.isWaiting) return false
    this.direction = direction
    this.bytes = bytes
    this.isWaiting = !this.throttle.ask(this)
    return !this.isWaiting
  }

  grant(): void {
    this.isWaiting = false
    this.isGranted = true
    this.granted()
  }

  /** Nobody waits any more. */
  close(): void {
    this.isWaiting = false
    this.isGranted = false
    this.throttle.leave(this)
  }
}
