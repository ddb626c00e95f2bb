import type { StoreDone } from '../object-store.ts'
import type { SheepClient } from '../server.ts'
import type { Sender } from './writers.ts'

interface Held {
  sender: Sender
  discard: Discard
  /** Whether it is one after all, when the connection ends without having said more. */
  isOneAtEnd: () => boolean
  /** What arrived while the discard is being done; null before. */
  waiting: Waiting[] | null
}

interface Waiting {
  run(): void
  /** Its connection has ended before. */
  drop(): void
}

type Discard = (sender: Sender, done: StoreDone) => void

/**
 * A zero that a client writes over a single entry of a block map is one of two things:
 *
 * 1. QEMU's discard. It comes on QEMU's connection for I/O, which numbers its requests from 0 on, and ends after QEMU has
 *    given its lock back.
 * 2. What QEMU's `snapshot -d` writes over the map of the VDI it has opened, which need not be the snapshot: entries that are
 *    in use, up to 128 at a time, so that the last write may be of one. It comes on a connection of its own, which gives
 *    every request the number 0, and ends while QEMU still has its lock.
 *
 * A number other than 0 tells the first, as do data that were written over the connection before; and without a lock it is not
 * QEMU. Else the zero is answered and held. It is done before the next request of the connection if that bears another number,
 * or at its end if the lock is gone; otherwise it is forgotten.
 */
export class HeldDiscards {
  readonly #held = new Map<SheepClient, Held>()

  hold(sender: Sender, isOneAtEnd: () => boolean, discard: Discard): void {
    this.#held.set(sender.client, { sender, discard, isOneAtEnd, waiting: null })
  }

  /** Runs a request of the client: at once, unless a discard has to be done before. One of the two is called, and once. */
  settle(client: SheepClient, requestId: number, request: Waiting): void {
    const held = this.#held.get(client)
    if (held === undefined) return request.run()
    if (held.waiting !== null) {
      held.waiting.push(request)
      return
    }
    if (requestId === 0) {
      this.#held.delete(client)
      return request.run()
    }
    const waiting = [request]
    held.waiting = waiting
    // Whether it succeeds is of no interest: it was answered, and a discard promises nothing.
    held.discard(held.sender, () => {
      if (this.#held.get(client) !== held) return
      this.#held.delete(client)
      for (const { run } of waiting) run()
    })
  }

  /** The connection is over. `done` is called when nothing is done in the name of `heir`, which stands in for it. */
  ended(client: SheepClient, done: (heir: SheepClient) => void): void {
    const held = this.#held.get(client)
    this.#held.delete(client)
    for (const { drop } of held?.waiting ?? []) drop()
    if (!held || held.waiting !== null || !held.isOneAtEnd()) return
    const heir = { ...client, cut: () => {} }
    held.discard({ ...held.sender, client: heir }, () => done(heir))
  }
}
