import type { Clock, Timer } from './clock.ts'

/**
 * Notices that this process did not run for a while (stopped, swapped out, a frozen virtual machine). Meanwhile its
 * clients may have gone to another gateway, so requests that wait in its sockets may be older than writes made there.
 *
 * After a stall the timers run before the sockets are read, and a socket may be read before the timers within one
 * turn, so both ask: the beat here, and `check` before input is taken.
 */
export class StallGuard {
  private readonly clock: Clock
  private readonly stallMs: number
  private readonly stalled: () => void
  private lastMs: number
  private timer: Timer

  constructor(clock: Clock, stallMs: number, stalled: () => void) {
    this.clock = clock
    this.stallMs = stallMs
    this.stalled = stalled
    this.lastMs = clock.monotonicMs()
    this.timer = this.arm()
  }

  /** Calls `stalled` when the last check or beat is too long ago. */
  check(): void {
    const nowMs = this.clock.monotonicMs()
    const gapMs = nowMs - this.lastMs
    this.lastMs = nowMs
    if (gapMs > this.stallMs) this.stalled()
  }

  stop(): void {
    this.timer.cancel()
  }

  private arm(): Timer {
    return this.clock.timer(this.stallMs / 8, () => {
      this.check()
      this.timer = this.arm()
    })
  }
}
