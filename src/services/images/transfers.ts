import type { Clock, Timer } from '../../runtime/clock.ts'

/** Bytes on their way between a volume and the image service, over several attempts of one unit of work. */
export interface Transfer {
  /** Ends it, and removes what it left behind. */
  dispose(): Promise<void>
}

/**
 * The transfers of this process. An attempt takes the one of its unit out, and puts it back when there is more to do. One that
 * nobody takes again is disposed of: its unit was replaced, or is in other hands. What the process loses with its end is begun
 * anew.
 */
export interface Transfers<T extends Transfer> {
  /** Null without one: the caller begins anew, when `room`. */
  take(key: string): T | null
  /** Whether another may begin. One that was taken out still counts, until it is put back or `drop`ped. */
  begin(): boolean
  putBack(key: string, transfer: T): Promise<void>
  /** Of one that was taken or begun, done or failed; null when there was none in the end. */
  drop(transfer: T | null): Promise<void>
  close(): Promise<void>
}

/** Longer than an attempt ever waits for the next one. */
const IDLE_MS = 30_000

export function createTransfers<T extends Transfer>(clock: Pick<Clock, 'timer'>, countMax: number): Transfers<T> {
  const waiting = new Map<string, { transfer: T; timer: Timer }>()
  let count = 0
  let closed = false

  const drop = async (transfer: T | null): Promise<void> => {
    count--
    await transfer?.dispose()
  }

  return {
    take: (key) => {
      const found = waiting.get(key)
      waiting.delete(key)
      found?.timer.cancel()
      return found?.transfer ?? null
    },
    begin: () => {
      if (count >= countMax) return false
      count++
      return true
    },
    putBack: async (key, transfer) => {
      if (closed || waiting.has(key)) return drop(transfer) // a later attempt did not wait for this one
      const timer = clock.timer(IDLE_MS, () => {
        waiting.delete(key)
        void drop(transfer).catch(() => {}) // its file is removed at the next start
      })
      waiting.set(key, { transfer, timer })
    },
    drop,
    close: async () => {
      closed = true
      const left = [...waiting.values()]
      waiting.clear()
      for (const { timer } of left) timer.cancel()
      await Promise.all(left.map(({ transfer }) => drop(transfer)))
    },
  }
}
