import type { Clock, Timer } from '../../runtime/clock.ts'
import type { ObjectStore } from '../object-store.ts'

/** How often to look whether anything was written. */
const LOOK_MS = 1000
/** So much of a segment as payload is worth a checkpoint as soon as nobody writes. */
const MUCH_OF_SEGMENT = 1 / 16
/** What is less waits for so long a silence, so that a guest that writes its log every few seconds does not wear the disk. */
const SILENCE_MS = 60_000

/**
 * What small writes leave in the journal lies there in the order of its coming, so that reading it in the order of the disk is
 * slow, and a start has to replay it. This moves it into the object files when nothing has been written for a second, or for a
 * minute if it is little. It looks at the journal only while there is something in it, and costs a write nothing.
 *
 * Large writes do not count as much, however many: their bytes are where they belong.
 */
export class IdleCheckpoint {
  readonly #store: ObjectStore
  readonly #clock: Clock
  #timer: Timer | null = null
  #frames = 0
  /** When `#frames` was seen to have changed. */
  #changedMs = 0
  #stopped = false

  constructor({ store, clock }: { store: ObjectStore; clock: Clock }) {
    this.#store = store
    this.#clock = clock
    store.onJournalBegun = () => this.#lookLater()
  }

  stop(): void {
    this.#stopped = true
    this.#timer?.cancel()
  }

  #lookLater(): void {
    if (this.#stopped) return
    this.#timer ??= this.#clock.timer(LOOK_MS, () => {
      this.#timer = null
      this.#look()
    })
  }

  #look(): void {
    const { frames, activeBytes, activePayloadBytes, segmentBytes } = this.#store.measures().journal
    const nowMs = this.#clock.monotonicMs()
    if (activeBytes === 0) return
    if (frames !== this.#frames) {
      this.#frames = frames
      this.#changedMs = nowMs
    } else if (activePayloadBytes >= segmentBytes * MUCH_OF_SEGMENT || nowMs - this.#changedMs >= SILENCE_MS) {
      this.#store.startCheckpoint()
      return
    }
    this.#lookLater()
  }
}
