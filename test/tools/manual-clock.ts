import { type Clock, systemClock, type Timer } from '../../src/runtime/clock.ts'

/**
 * A clock whose time passes only when a test says so, for servers on real sockets: timers wait for `advance`, while
 * `afterInput` follows the input of the process.
 */
export class ManualClock implements Clock {
  private nowMs = 0
  private readonly timers = new Set<{ atMs: number; fire: () => void }>()

  now(): number {
    return 1_700_000_000_000 + this.nowMs
  }

  monotonicMs(): number {
    return this.nowMs
  }

  timer(delayMs: number, fire: () => void): Timer {
    const timer = { atMs: this.nowMs + delayMs, fire }
    this.timers.add(timer)
    return { cancel: () => void this.timers.delete(timer) }
  }

  afterInput(fire: () => void): void {
    systemClock.afterInput(fire)
  }

  afterBatch(fire: () => void): void {
    systemClock.afterBatch(fire)
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.timer(delayMs, resolve))
  }

  /** Lets time pass: what is due fires in order, each at its own time. */
  advance(ms: number): void {
    const endMs = this.nowMs + ms
    for (;;) {
      let next: { atMs: number; fire: () => void } | undefined
      for (const timer of this.timers) {
        if (timer.atMs <= endMs && (next === undefined || timer.atMs < next.atMs)) next = timer
      }
      if (next === undefined) break
      this.timers.delete(next)
      this.nowMs = next.atMs
      next.fire()
    }
    this.nowMs = endMs
  }
}
