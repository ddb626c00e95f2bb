import type { Clock, Timer } from './clock.ts'
import { Histogram } from './histogram.ts'

const BEAT_MS = 100

/**
 * How late the timers of this thread are: what a request waits because the thread is busy with something else. Observed ten
 * times a second.
 */
export class LoopLag {
  readonly seconds = new Histogram()
  readonly #clock: Clock
  #timer: Timer

  constructor(clock: Clock) {
    this.#clock = clock
    this.#timer = this.#arm()
  }

  stop(): void {
    this.#timer.cancel()
  }

  #arm(): Timer {
    const dueMs = this.#clock.monotonicMs() + BEAT_MS
    return this.#clock.timer(BEAT_MS, () => {
      this.seconds.observe(Math.max(0, this.#clock.monotonicMs() - dueMs) / 1000)
      this.#timer = this.#arm()
    })
  }
}
