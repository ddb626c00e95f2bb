import type { NodeId } from '../order/item.ts'
import { currentAndLater, isIn, type Life, type ViewHistory, voterChangesAfter } from './view.ts'

/**
 * Leases keep a node that was put out of the view from acting on old news: whatever a member does for a client, it does while it
 * holds a lease, and no view without it takes effect before that is over.
 *
 * 1. A member sends heartbeats to the voters. Its lease lasts `LEASE_MS` from when it sent the latest one that a majority of them
 *    has answered. The time of sending counts, on its own clock.
 * 2. A voter that answers promises, from that moment on its own clock, to hold back for at least as long what would end the lease:
 *    it does not say that it has such an entry on its disk, and until a majority says so there is no such view.
 * 3. It answers nobody whom an entry in its log puts out, whether that takes effect or not.
 * 4. A majority of the voters that the member knows must meet every majority of those that there are. So voters change one at a
 *    time; a voter whose log has two changes that the member does not know answers it no more, and holds the second one back.
 * 5. A voter that starts may have promised anything to anybody in its life before.
 * 6. What is over need not be waited for: a member that leaves says so, having acted for the last time; and a node that started
 *    again says which incarnation of it has ended. That stays true, however late it is heard.
 */
export interface Heartbeat extends Life {
  /** The last entry that has taken effect at the sender. */
  appliedIndex: number
  /** An incarnation of the sender's node that acts no more; its own, when it leaves. */
  ended?: string
}

export const LEASE_MS = 2000
/** A promise outlasts the lease, should clocks differ in pace. */
const PROMISE_MS = 1.1 * LEASE_MS

/** The member's side. */
export class Lease {
  readonly #answeredMs = new Map<NodeId, number>()
  /** What was reckoned last: it is asked for with every request, and changes with every answer. */
  #reckoned: { voters: readonly NodeId[]; endMs: number } | null = null

  /** A voter has answered the heartbeat that was sent at `sentMs`. */
  answered(voter: NodeId, sentMs: number): void {
    this.#answeredMs.set(voter, Math.max(sentMs, this.#answeredMs.get(voter) ?? sentMs))
    this.#reckoned = null
  }

  /** When the lease ends; in the past when there is none. To be asked after the data is in hand, and not by a timer. */
  endMs(voters: readonly NodeId[]): number {
    if (this.#reckoned?.voters !== voters) this.#reckoned = { voters, endMs: this.#reckon(voters) }
    return this.#reckoned.endMs
  }

  #reckon(voters: readonly NodeId[]): number {
    const majority = Math.floor(voters.length / 2) + 1
    let latestMs = Number.NEGATIVE_INFINITY
    for (const voter of voters) {
      const ms = this.#answeredMs.get(voter) ?? Number.NEGATIVE_INFINITY
      if (ms > latestMs && this.#countSince(ms, voters) >= majority) latestMs = ms
    }
    return latestMs + LEASE_MS
  }

  /** How many of them have answered something that was sent no earlier. */
  #countSince(ms: number, voters: readonly NodeId[]): number {
    let count = 0
    for (const voter of voters) if ((this.#answeredMs.get(voter) ?? Number.NEGATIVE_INFINITY) >= ms) count++
    return count
  }
}

/** The voter's side. */
export class LeasePromises {
  readonly #startedMs: number
  readonly #given = new Map<string, { endMs: number; heartbeat: Heartbeat }>()

  constructor(nowMs: number) {
    this.#startedMs = nowMs
  }

  /** Whether to answer, with the history as the log has it now. The answer is a promise from this moment on. */
  answer(heartbeat: Heartbeat, history: ViewHistory, nowMs: number): boolean {
    const endMs = nowMs + PROMISE_MS
    if (heartbeat.ended !== undefined) this.#given.delete(`${heartbeat.node} ${heartbeat.ended}`)
    if (heartbeat.ended === heartbeat.incarnation || endsLease(history, heartbeat)) return false
    this.#given.set(`${heartbeat.node} ${heartbeat.incarnation}`, { endMs, heartbeat })
    return true
  }

  /** Until when it must not be said that the log, as it is now, is on the disk. */
  heldUntilMs(history: ViewHistory, nowMs: number): number {
    const [current, ...later] = currentAndLater(history)
    if (!current || later.length === 0) return 0
    let untilMs = this.#startedMs + PROMISE_MS
    for (const [key, { endMs, heartbeat }] of this.#given) {
      if (endMs <= nowMs) this.#given.delete(key)
      else if (endsLease(history, heartbeat)) untilMs = Math.max(untilMs, endMs)
    }
    return untilMs
  }
}

/** Whether a member must have no lease for this history to be so. */
function endsLease(history: ViewHistory, { appliedIndex, ...member }: Heartbeat): boolean {
  const views = currentAndLater(history)
  return (
    views.length === 0 || !views.every(({ view }) => isIn(view, member)) || voterChangesAfter(history, appliedIndex) > 1
  )
}
