import type { Clock } from '../runtime/clock.ts'

/**
 * Room in pools that was promised and that no report of a backend has in it yet. Without it, all volumes that are asked for
 * between two reports would see the same free room, and take it several times.
 *
 * A refresh of the reports is a round. It first reads which volumes are being made, from the database, and then asks the
 * backends. So what is written when a round begins is seen by one or the other (perhaps by both, and then counts twice
 * until the next round: rather too little room than too much). What is not written yet has to be kept here, from `add`
 * until the first round that begins after `settle`.
 */
export interface Promises {
  /** Promises room, in place of what the same claim was promised before. */
  add(claim: string, place: string, sizeGib: number): void
  /** The row that says so is committed. */
  settle(claim: string): void
  /** There will be no such row. */
  drop(claim: string): void
  beginRound(): number
  /** The reports of the round are in; `pending` is what its look into the database found. */
  endRound(round: number, pending: readonly { claim: string; place: string; sizeGib: number }[]): void
  /** Promised in one place, without what `except` was promised. */
  gibOf(place: string, except?: string): number
}

/** What a volume claims when it is made, or (to `newSizeGib`) when it grows. */
export function claimOf(volumeId: string, newSizeGib: number | null): string {
  return newSizeGib === null ? volumeId : `${volumeId} to ${newSizeGib}`
}

interface Entry {
  place: string
  sizeGib: number
  madeAtMs: number
  /** The last round that had begun when it was settled; null until then. */
  settledIn: number | null
}

/** What is not settled after this time never will be: its work was replaced before it came to that. */
const UNSETTLED_MAX_MS = 5 * 60_000

export function createPromises(clock: Pick<Clock, 'monotonicMs'>): Promises {
  let entries = new Map<string, Entry>()
  let sums = new Map<string, number>() // by place
  let begun = 0

  function put(claim: string, entry: Entry): void {
    remove(claim)
    entries.set(claim, entry)
    sums.set(entry.place, (sums.get(entry.place) ?? 0) + entry.sizeGib)
  }

  function remove(claim: string): void {
    const entry = entries.get(claim)
    if (entry === undefined) return
    entries.delete(claim)
    sums.set(entry.place, sums.get(entry.place)! - entry.sizeGib)
  }

  return {
    add: (claim, place, sizeGib) => put(claim, { place, sizeGib, madeAtMs: clock.monotonicMs(), settledIn: null }),
    settle: (claim) => {
      const entry = entries.get(claim)
      if (entry !== undefined) entry.settledIn ??= begun
    },
    drop: remove,
    beginRound: () => ++begun,
    endRound: (round, pending) => {
      const before = entries
      const nowMs = clock.monotonicMs()
      entries = new Map()
      sums = new Map()
      for (const { claim, place, sizeGib } of pending)
        put(claim, { place, sizeGib, madeAtMs: nowMs, settledIn: round - 1 })
      for (const [claim, entry] of before) {
        const isSeen = entry.settledIn !== null && entry.settledIn < round
        if (!isSeen && (entry.settledIn !== null || nowMs - entry.madeAtMs < UNSETTLED_MAX_MS)) put(claim, entry)
      }
    },
    gibOf: (place, except) => {
      const own = except === undefined ? undefined : entries.get(except)
      return (sums.get(place) ?? 0) - (own?.place === place ? own.sizeGib : 0)
    },
  }
}
