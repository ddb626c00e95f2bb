import type { Clock, Timer } from '../../runtime/clock.ts'
import { deferred } from './deferred.ts'

const RETRY_MS = 1000

/**
 * Wakes what cannot go on. Who looks whether he can takes `next` before that and waits for it, so that no news is missed. He is woken
 * after a while all the same, as not all that matters is told: a disk has room again, or word that somebody is silent was lost.
 */
export class News {
  readonly #clock: Clock
  #next = deferred()
  #timer: Timer | null = null

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get next(): Promise<void> {
    return this.#next.promise
  }

  async wait(next: Promise<void>): Promise<void> {
    this.#timer ??= this.#clock.timer(RETRY_MS, () => this.tell())
    await next
  }

  tell(): void {
    this.#timer?.cancel()
    this.#timer = null
    this.#next.resolve()
    this.#next = deferred()
  }
}
