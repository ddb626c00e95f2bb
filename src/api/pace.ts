import type { Clock } from '../runtime/clock.ts'
import { Histogram } from '../runtime/histogram.ts'

/** The API may work so long at once, after it has rested. */
const BURST_MS = 2
/** One request begins in so long whatever the thread has done: work of its own, or a long list, must not shut the door. */
const GAP_MAX_MS = 50
const TIMER_MIN_MS = 1
/** From what no client notices to the end of patience. */
const BOUNDS_SECONDS = [1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

export interface PaceOptions {
  clock: Clock
  /** How long this thread has worked, and not waited for input; milliseconds since any moment. */
  busyMs(): number
  /** The part of its time that it may work while disks are busy, above 0 and up to 1. */
  share: number
}

/**
 * Where requests wait for their turn while disks want the processors. Clients of disks and of the API are mostly on the same few: a
 * priority keeps this thread from their way, and nothing keeps the API's own clients but that they wait for an answer.
 *
 * 1. While disks are quiet nothing waits.
 * 2. While they are busy a request begins when the thread has rested enough for what it did before, whatever that was; first come, first served.
 * 3. Some begin all the same, so that everyone's turn comes: twenty a second.
 */
export class Pace {
  /** How long requests were held; those that were not are not counted. */
  readonly heldSeconds = new Histogram(BOUNDS_SECONDS)
  readonly #options: PaceOptions
  readonly #waiting: { begin: () => void; sinceMs: number }[] = []
  #isBounded = false
  #isArmed = false
  /** What the thread may work until it has to rest; below zero after more than that. */
  #allowedMs = 0
  #seenMs = 0
  #seenBusyMs = 0
  #begunMs = 0

  constructor(options: PaceOptions) {
    this.#options = options
  }

  /** Calls `begin` when the request may begin: mostly at once. */
  enter(begin: () => void): void {
    if (this.#isBounded && (this.#waiting.length > 0 || !this.#isDue())) {
      this.#waiting.push({ begin, sinceMs: this.#options.clock.monotonicMs() })
      this.#arm()
    } else begin()
  }

  /** Disks have become busy, or quiet: then all that wait begin. */
  bound(isBounded: boolean): void {
    if (isBounded && !this.#isBounded) this.#rested()
    this.#isBounded = isBounded
    if (isBounded) return
    for (const request of this.#waiting.splice(0)) this.#begin(request)
  }

  #rested(): void {
    this.#allowedMs = BURST_MS
    this.#seenMs = this.#options.clock.monotonicMs()
    this.#begunMs = this.#seenMs
    this.#seenBusyMs = this.#options.busyMs()
  }

  /** Whether a request may begin now; one that asks and is let does. */
  #isDue(): boolean {
    const { clock, share } = this.#options
    const nowMs = clock.monotonicMs()
    const busyMs = this.#options.busyMs()
    const changeMs = (nowMs - this.#seenMs) * share - (busyMs - this.#seenBusyMs)
    this.#allowedMs = Math.min(BURST_MS, this.#allowedMs + changeMs)
    this.#seenMs = nowMs
    this.#seenBusyMs = busyMs
    if (this.#allowedMs <= 0 && nowMs - this.#begunMs < GAP_MAX_MS) return false
    this.#begunMs = nowMs
    return true
  }

  #arm(): void {
    if (this.#isArmed) return
    this.#isArmed = true
    const { clock, share } = this.#options
    const restMs = Math.min(-this.#allowedMs / share, this.#begunMs + GAP_MAX_MS - this.#seenMs)
    clock.timer(Math.max(TIMER_MIN_MS, restMs), () => this.#next())
  }

  /** One begins, and shows by what it takes when another one may. */
  #next(): void {
    this.#isArmed = false
    if (this.#waiting.length === 0) return
    if (this.#isDue()) {
      this.#begin(this.#waiting.shift()!)
      this.#isArmed = true
      this.#options.clock.afterInput(() => this.#next())
    } else this.#arm()
  }

  #begin({ begin, sinceMs }: { begin: () => void; sinceMs: number }): void {
    this.heldSeconds.observe((this.#options.clock.monotonicMs() - sinceMs) / 1000)
    begin()
  }
}
