import type { Clock, Timer } from './clock.ts'

const BEAT_MS = 100
/** Twenty a second. What less than that wants of the processors is not worth slowing others down. */
const REQUESTS_MIN = 2
/** Busy ends after half a second with less. */
const QUIET_BEATS = 5

/** Tells when requests begin to come one after the other, within a tenth of a second, and when that is over. */
export class BusyWatch {
  readonly #clock: Clock
  readonly #changed: (isBusy: boolean) => void
  #requests = 0
  /** How many beats more it is taken for busy, if nothing comes. */
  #beatsLeft = 0
  #timer: Timer

  constructor(clock: Clock, changed: (isBusy: boolean) => void) {
    this.#clock = clock
    this.#changed = changed
    this.#timer = this.#arm()
  }

  /** A request has come. */
  count(): void {
    this.#requests++
  }

  stop(): void {
    this.#timer.cancel()
  }

  #arm(): Timer {
    return this.#clock.timer(BEAT_MS, () => {
      this.#beat()
      this.#timer = this.#arm()
    })
  }

  #beat(): void {
    const wasBusy = this.#beatsLeft > 0
    if (this.#requests >= REQUESTS_MIN) this.#beatsLeft = QUIET_BEATS
    else if (wasBusy) this.#beatsLeft--
    this.#requests = 0
    const isBusy = this.#beatsLeft > 0
    if (isBusy !== wasBusy) this.#changed(isBusy)
  }
}
