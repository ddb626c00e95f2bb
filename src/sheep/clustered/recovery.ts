import type { Clock } from '../../runtime/clock.ts'
import type { Looked } from '../copies/copy-recovery.ts'
import type { RecoverySettings } from '../entries.ts'
import { RecoveryMeter, type RecoveryProgress } from './recovery-progress.ts'
import { Signal } from './signal.ts'

export interface RecoveryOptions {
  clock: Clock
  settings(): RecoverySettings
  /** Where the settings leave it to the node. */
  bytesPerSecond: number
}

/** Steps at once: of one object after the other most of the time would go by with waiting for disks. */
const STEPS_MAX = 16
/** While clients ask for something, who then wait behind a megabyte at most. */
const STEPS_BESIDE_CLIENTS = 4
/** So long after a client has asked for something others are expected to. */
const CLIENTS_STAY_MS = 1000
/** What a step copies at most, if nothing is written to the object meanwhile. */
export const STEP_BYTES_MAX = 256 << 10
/** At once is copied what the rate allows in so much time, or one step. */
const AT_ONCE_MS = 100
/** A timer takes as long. */
const PAUSE_MS_MIN = 1

/**
 * The making of copies by one node: how much at once, how fast, and how far it is.
 *
 * 1. The number of steps at once and the rate are those of the node, whatever number of families it owns. What was copied has to be paid
 *    for before anything else is.
 * 2. While clients ask for something there are fewer steps, and each is followed by a rest as long as it took: what makes clients slow
 *    makes it slow, too.
 */
export class Recovery {
  readonly #options: RecoveryOptions
  readonly #changed = new Signal()
  readonly #meter: RecoveryMeter
  /** Those that wait for others to end. */
  readonly #waiting: (() => void)[] = []
  #steps = 0
  /** When all that was copied has been paid for, at the rate of that time. */
  #freeAtMs = 0
  #requests = 0
  #clientsUntilMs = 0

  constructor(options: RecoveryOptions) {
    this.#options = options
    this.#meter = new RecoveryMeter(options.clock)
  }

  get isPaused(): boolean {
    return this.#options.settings().isPaused
  }

  get progress(): RecoveryProgress {
    const { progress } = this.#meter
    return this.isPaused ? { ...progress, secondsLeft: null } : progress
  }

  /** The settings are others. */
  changed(): void {
    this.#freeAtMs = 0
    this.#changed.tell()
    this.#admit()
  }

  /** A client has asked for something. */
  requested(): void {
    this.#requests++
  }

  /** Runs a look at objects of the family, when it is its turn. */
  look(family: number, look: () => Promise<Looked>): Promise<void> {
    return this.#inTurn(async () => this.#meter.looked(family, await look()))
  }

  /** Runs `copy`, which says how many bytes it has copied, when it is its turn. */
  step(family: number, copy: () => Promise<number>): Promise<number> {
    return this.#inTurn(async () => {
      await this.#paid()
      const bytes = await copy()
      if (bytes === 0) return bytes
      this.#meter.copied(family, bytes)
      this.#freeAtMs = Math.max(this.#freeAtMs, this.#options.clock.monotonicMs()) + (1000 * bytes) / this.#rate
      return bytes
    })
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#steps >= this.#stepsMax) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    else this.#steps++
    const { clock } = this.#options
    const startMs = clock.monotonicMs()
    const before = this.#requests
    try {
      return await work()
    } finally {
      const nowMs = clock.monotonicMs()
      const areThere = this.#requests > before
      if (areThere) this.#clientsUntilMs = nowMs + CLIENTS_STAY_MS
      // Whoever waits for the result need not wait for the rest: it is the next step that does.
      if (areThere && nowMs - startMs >= PAUSE_MS_MIN) clock.timer(nowMs - startMs, () => this.#leave())
      else this.#leave()
    }
  }

  #leave(): void {
    this.#steps--
    this.#admit()
  }

  #admit(): void {
    while (this.#waiting.length > 0 && this.#steps < this.#stepsMax) {
      this.#steps++
      this.#waiting.shift()!()
    }
  }

  async #paid(): Promise<void> {
    const { clock } = this.#options
    for (;;) {
      const leftMs = this.#freeAtMs - clock.monotonicMs()
      if (leftMs < PAUSE_MS_MIN) return
      await Promise.race([clock.sleep(leftMs), this.#changed.next])
    }
  }

  get #rate(): number {
    return this.#options.settings().bytesPerSecond ?? this.#options.bytesPerSecond
  }

  get #stepsMax(): number {
    const most = this.#options.clock.monotonicMs() < this.#clientsUntilMs ? STEPS_BESIDE_CLIENTS : STEPS_MAX
    return Math.max(1, Math.min(most, Math.floor((this.#rate * AT_ONCE_MS) / 1000 / STEP_BYTES_MAX)))
  }

  /** A family has so many objects to look at. */
  begin(family: number, objects: number): void {
    this.#meter.begin(family, objects)
  }

  /** So many more of them are where they belong. */
  done(family: number, objects: number): void {
    this.#meter.done(family, objects)
  }

  /** Nothing of the family is missing, or another node sees to it. */
  end(family: number): void {
    this.#meter.end(family)
  }
}
