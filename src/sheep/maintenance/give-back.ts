import type { Clock, Timer } from '../../runtime/clock.ts'
import type { ObjectStore } from '../object-store.ts'

/** From so many bytes on, freed space is given back soon; less than that waits longer for more. */
const MUCH_BYTES = 4 * 1024 * 1024
const SOON_MS = 250
const LATER_MS = 30_000
/** From the start of one checkpoint for freed space to that of the next. */
const INTERVAL_MS = 2000

/**
 * Discarded blocks and dropped objects take their space until a checkpoint has punched and unlinked them. This starts one
 * soon after much was freed, and later after little, so that free space rises although the journal is not full; never more
 * often than every other second, however much is discarded.
 */
export class GiveBack {
  readonly #store: ObjectStore
  readonly #clock: Clock
  #freedBytes = 0
  #timer: Timer | null = null
  #dueMs = 0
  #lastMs = Number.NEGATIVE_INFINITY
  #stopped = false

  constructor({ store, clock }: { store: ObjectStore; clock: Clock }) {
    this.#store = store
    this.#clock = clock
    store.onFreed = (bytes) => this.#note(bytes)
  }

  stop(): void {
    this.#stopped = true
    this.#timer?.cancel()
  }

  #note(freedBytes: number): void {
    if (this.#stopped) return
    this.#freedBytes += freedBytes
    const nowMs = this.#clock.monotonicMs()
    const delayMs = this.#freedBytes >= MUCH_BYTES ? SOON_MS : LATER_MS
    const dueMs = Math.max(nowMs + delayMs, this.#lastMs + INTERVAL_MS)
    if (this.#timer && this.#dueMs <= dueMs) return
    this.#timer?.cancel()
    this.#dueMs = dueMs
    this.#timer = this.#clock.timer(dueMs - nowMs, () => this.#checkpoint())
  }

  #checkpoint(): void {
    this.#timer = null
    this.#freedBytes = 0
    this.#lastMs = this.#clock.monotonicMs()
    this.#store.startCheckpoint()
  }
}
