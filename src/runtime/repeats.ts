import type { Clock } from './clock.ts'

const AGAIN_MS = 60_000
const SUBJECTS_MAX = 1000

/** What happens again and again to the same one is for the log once a minute, and says how often it did. */
export class Repeats {
  readonly #clock: Pick<Clock, 'monotonicMs'>
  readonly #told = new Map<string, { what: string; atMs: number; times: number }>()

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock
  }

  /** How often this has happened to `subject` since it was said last; null when that was a moment ago, and nothing else has come in between. */
  count(subject: string, what: string): number | null {
    const nowMs = this.#clock.monotonicMs()
    const before = this.#told.get(subject)
    const isSame = before?.what === what
    const times = isSame ? before.times + 1 : 1
    if (isSame && nowMs - before.atMs < AGAIN_MS) {
      before.times = times
      return null
    }
    if (this.#told.size >= SUBJECTS_MAX) this.#told.clear()
    this.#told.set(subject, { what, atMs: nowMs, times: 0 })
    return times
  }
}
