import type { PromisedGib } from '../db/rooms.ts'

/**
 * Room in pools that was promised and that no report of a backend has in it yet. Without it, all volumes that are asked for
 * between two reports would see the same free room, and take it several times.
 *
 * What was ever promised in a place, by whichever process, is a sum in the database (src/db/rooms.ts), and a promise is part of
 * the transaction of the row that takes the room. A refresh of the reports is a round. It first reads the sums, then which
 * volumes are being made, and then asks the backends. So what was promised before the round is in what it found: the backend has
 * it, or the volume is being made. What was promised since is the difference of the sums. What falls in between counts twice
 * until the next round: rather too little room than too much.
 */
export interface Promises {
  /** What a round found in places whose backends answered, and what volumes claimed then, wherever they are. */
  endRound(round: {
    promised: PromisedGib
    heard: readonly string[]
    pending: readonly { claim: string; place: string; sizeGib: number }[]
  }): void
  /** Promised in one place, by the sums as they are now; without what `except` claimed already when the round looked. */
  gibOf(place: string, promised: PromisedGib, except?: string): number
}

/** What a volume claims when it is made, or (to `newSizeGib`) when it grows. */
export function claimOf(volumeId: string, newSizeGib: number | null): string {
  return newSizeGib === null ? volumeId : `${volumeId} to ${newSizeGib}`
}

export function createPromises(): Promises {
  const sumsThen = new Map<string, number>() // by place, when the round began whose report of it is the last
  let claims = new Map<string, { place: string; sizeGib: number }>()
  let claimed = new Map<string, number>() // by place

  return {
    endRound: ({ promised, heard, pending }) => {
      for (const place of heard) sumsThen.set(place, promised.get(place) ?? 0)
      claims = new Map(pending.map(({ claim, place, sizeGib }) => [claim, { place, sizeGib }]))
      claimed = new Map()
      for (const { place, sizeGib } of claims.values()) claimed.set(place, (claimed.get(place) ?? 0) + sizeGib)
    },
    gibOf: (place, promised, except) => {
      const since = (promised.get(place) ?? 0) - (sumsThen.get(place) ?? 0)
      const own = except === undefined ? undefined : claims.get(except)
      return since + (claimed.get(place) ?? 0) - (own?.place === place ? own.sizeGib : 0)
    },
  }
}
