import type { StoreDone } from '../object-store.ts'
import type { SheepClient } from '../server.ts'

interface Held {
  discard: (done: StoreDone) => void
  /** What arrived while the discard is being done; null before. */
  waiting: (() => void)[] | null
}

/**
 * A zero that a client writes over a single entry of a block map is one of two things:
 *
 * 1. QEMU's discard. It comes on QEMU's connection for I/O, whose requests are numbered from 0 on.
 * 2. What QEMU's `snapshot -d` writes over the map of the VDI it has opened, which need not be the snapshot: entries that are
 *    in use, up to 128 at a time, so that the last write may be of one. It comes on a connection of its own, where
 *    all requests bear the number 0, and which is closed then. `dog` does likewise before it deletes.
 *
 * A number other than 0 tells the first. With 0 it is answered and held: it is done before the next request of the
 * connection if that bears another number, and forgotten if that bears 0 too or none comes. Any client that discards sends
 * a flush at its end.
 */
export class HeldDiscards {
  readonly #held = new Map<SheepClient, Held>()

  hold(client: SheepClient, discard: (done: StoreDone) => void): void {
    this.#held.set(client, { discard, waiting: null })
  }

  /** Calls `run` for a request of the client: at once, unless a discard has to be done before. */
  settle(client: SheepClient, requestId: number, run: () => void): void {
    const held = this.#held.get(client)
    if (held === undefined) return run()
    if (held.waiting !== null) {
      held.waiting.push(run)
      return
    }
    if (requestId === 0) {
      this.#held.delete(client)
      return run()
    }
    const waiting = [run]
    held.waiting = waiting
    // Whether it succeeds is of no interest: it was answered, and a discard promises nothing.
    held.discard(() => {
      if (this.#held.get(client) !== held) return
      this.#held.delete(client)
      for (const next of waiting) next()
    })
  }

  forget(client: SheepClient): void {
    this.#held.delete(client)
  }
}
