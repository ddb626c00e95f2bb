import type { Clock, Timer } from '../../src/runtime/clock.ts'
import type { SeededRandom } from './random.ts'

interface Event {
  at: number
  order: number
  fire: () => void
}

/**
 * Virtual time. Nothing happens by itself: `run` takes the next event, lets every microtask that it caused finish, and
 * goes on. Code under test that waits only on ports therefore runs the same way for the same seed.
 */
export class SimClock {
  #now = 0
  #life = 0
  #order = 0
  #events: Event[] = []
  readonly #random: SeededRandom

  constructor(random: SeededRandom) {
    this.#random = random
  }

  /** The clock as a process that starts now has it. After `endProcess` it does nothing any more. */
  mount(): Clock {
    const life = this.#life
    const add = (delayMs: number, fire: () => void) => (life === this.#life ? this.#add(delayMs, fire) : null)
    return {
      now: () => 1_700_000_000_000 + Math.floor(this.#now),
      monotonicMs: () => this.#now,
      timer: (delayMs: number, fire: () => void): Timer => {
        const event = add(delayMs, fire)
        return {
          cancel: () => {
            this.#events = this.#events.filter((other) => other !== event)
          },
        }
      },
      afterInput: (fire) => {
        add(0, fire)
      },
      sleep: (delayMs) => new Promise((resolve) => add(delayMs, resolve)),
    }
  }

  /** Resolves after a random short time, as an operation of a device does. */
  latency(maxMs: number): Promise<void> {
    return new Promise((resolve) => this.#add(this.#random.next() * maxMs, resolve))
  }

  /** Drops everything that was to happen. What still runs of the old process changes nothing any more. */
  endProcess(): void {
    this.#life++
    this.#events = []
  }

  #add(delayMs: number, fire: () => void): Event {
    const event = { at: this.#now + delayMs, order: this.#order++, fire }
    this.#events.push(event)
    return event
  }

  /** Runs events until `done` settles. Throws when nothing is left to do and it has not. */
  async run<T>(done: Promise<T>, limitEvents = 1_000_000): Promise<T> {
    let settled = false
    const mark = () => {
      settled = true
    }
    done.then(mark, mark)
    for (let count = 0; ; count++) {
      await new Promise<void>((resolve) => setImmediate(resolve))
      if (settled) return done
      if (this.#events.length === 0) throw new Error('deadlock: nothing is left to happen')
      if (count > limitEvents) throw new Error(`livelock: ${limitEvents} events and no end`)
      this.step()
    }
  }

  /** Fires the next event; false when there is none. */
  step(): boolean {
    let best: Event | undefined
    for (const event of this.#events) {
      if (!best || event.at < best.at || (event.at === best.at && event.order < best.order)) best = event
    }
    if (!best) return false
    this.#events = this.#events.filter((event) => event !== best)
    this.#now = Math.max(this.#now, best.at)
    best.fire()
    return true
  }
}
