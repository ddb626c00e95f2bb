import { type Clock, systemClock, type Timer } from '../../src/runtime/clock.ts'

interface Pending {
  atMs: number
  fire: () => void
}

/** A thread and its time: nothing passes but what `work` and `until` say. */
export class HandClock {
  nowMs = 1_000_000
  /** How long the thread has worked. */
  busyMs = 0
  #pending: Pending[] = []

  readonly clock: Clock = {
    ...systemClock,
    monotonicMs: () => this.nowMs,
    timer: (delayMs, fire) => this.#add(delayMs, fire),
    afterInput: (fire) => {
      this.#add(0, fire)
    },
    afterBatch: (fire) => {
      this.#add(0, fire)
    },
  }

  /** The thread works, and sees nothing meanwhile. */
  work(ms: number): void {
    this.nowMs += ms
    this.busyMs += ms
  }

  /** Time passes until then, with all that comes due. */
  until(endMs: number): void {
    for (;;) {
      const [next, ...later] = this.#pending.toSorted((a, b) => a.atMs - b.atMs)
      if (next === undefined || next.atMs > endMs) break
      this.#pending = later
      this.nowMs = Math.max(this.nowMs, next.atMs)
      next.fire()
    }
    this.nowMs = Math.max(this.nowMs, endMs)
  }

  pass(ms: number): void {
    this.until(this.nowMs + ms)
  }

  #add(delayMs: number, fire: () => void): Timer {
    const added = { atMs: this.nowMs + delayMs, fire }
    this.#pending.push(added)
    return {
      cancel: () => {
        this.#pending = this.#pending.filter((pending) => pending !== added)
      },
    }
  }
}
