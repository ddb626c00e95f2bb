import type { Clock, Timer } from '../../src/runtime/clock.ts'
import type { SeededRandom } from './random.ts'
import { Timeline, type TimelineEvent } from './timeline.ts'

const EVENTS_AT_ONCE = 32

/**
 * Virtual time. Nothing happens by itself: `run` takes the next event, lets every microtask that it caused finish, and
 * goes on. Code under test that waits only on ports therefore runs the same way for the same seed.
 *
 * A simulation of several nodes gives each one a clock of its own by `node()`. They share one time, and any of them runs it
 * for all; but what `endProcess`, `stop` and `resume` do is done to one node alone.
 */
export class SimClock {
  readonly #timeline: Timeline
  readonly #random: SeededRandom
  #life = {}
  /** What came due while the node was stopped, in that order; null while it runs. */
  #held: (() => void)[] | null = null
  /** How far the wall clock is wrong; time itself goes on evenly. */
  wallOffsetMs = 0

  constructor(random: SeededRandom, timeline = new Timeline()) {
    this.#random = random
    this.#timeline = timeline
  }

  /** A clock of the same time whose process ends, stops and goes on by itself. */
  node(): SimClock {
    return new SimClock(this.#random, this.#timeline)
  }

  /** Milliseconds since the simulation began, for whoever watches it. */
  get nowMs(): number {
    return this.#timeline.nowMs
  }

  /** The clock as a process that starts now has it. After `endProcess` it does nothing any more. */
  mount(): Clock {
    const life = this.#life
    const add = (delayMs: number, fire: () => void) => (life === this.#life ? this.#add(delayMs, fire) : null)
    return {
      now: () => 1_700_000_000_000 + Math.floor(this.nowMs + this.wallOffsetMs),
      monotonicMs: () => this.nowMs,
      timer: (delayMs: number, fire: () => void): Timer => {
        const event = add(delayMs, fire)
        return {
          cancel: () => {
            if (event) event.isCancelled = true
          },
        }
      },
      afterInput: (fire) => {
        add(0, fire)
      },
      afterBatch: (fire) => {
        add(0, fire)
      },
      sleep: (delayMs) => new Promise((resolve) => add(delayMs, resolve)),
    }
  }

  /** Resolves after a random short time, as an operation of a device does. */
  latency(maxMs: number): Promise<void> {
    return new Promise((resolve) => this.#add(this.#random.next() * maxMs, resolve))
  }

  /** Drops everything that was to happen here. What still runs of the old process changes nothing any more. */
  endProcess(): void {
    this.#timeline.drop(this.#life)
    this.#life = {}
    this.#held = null
  }

  /** The process stands still, as after SIGSTOP: what comes due waits for `resume`, and time goes on without it. */
  stop(): void {
    this.#held ??= []
  }

  /** It goes on: everything that waited happens now, in the order in which it came due. */
  resume(): void {
    const held = this.#held ?? []
    this.#held = null
    for (const fire of held) this.#add(0, fire)
  }

  #add(delayMs: number, fire: () => void): TimelineEvent {
    const event: TimelineEvent = this.#timeline.add(delayMs, this.#life, () => {
      if (this.#held === null) return fire()
      this.#held.push(() => {
        if (!event.isCancelled) fire()
      })
    })
    return event
  }

  /** Runs events until `done` settles. Throws when nothing is left to do and it has not. */
  async run<T>(done: Promise<T>, limitEvents = 1_000_000): Promise<T> {
    let isOver = false
    const end = () => {
      isOver = true
    }
    done.then(end, end)
    let failure: unknown = null
    const next = () => {
      try {
        if (isOver || this.step()) return
        failure = new Error('deadlock: nothing is left to happen')
      } catch (error) {
        failure = error
      }
      end()
    }
    for (let count = 0; !isOver; count += EVENTS_AT_ONCE) {
      if (count > limitEvents) throw new Error(`livelock: ${limitEvents} events and no end`)
      // Between two of these Node runs all microtasks, and need not look at its sockets for each event.
      for (let i = 0; i < EVENTS_AT_ONCE; i++) setImmediate(next)
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    if (failure) throw failure
    return done
  }

  /** Fires the next event; false when there is none. */
  step(): boolean {
    return this.#timeline.step()
  }
}
