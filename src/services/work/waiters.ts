import type { Db } from '../../db/database.ts'
import * as work from '../../db/work.ts'
import type { ServiceError } from '../../errors.ts'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'

/** How often a request asks for its unit while another process has that. */
const WATCH_INTERVAL_MS = 200

/** Requests that wait for the end of a unit, which this process may bring about or another. */
export interface Waiters {
  /** Resolves when the unit is done, rejects with the reason when it was given up or replaced. */
  wait(unitId: string): Promise<void>
  isAwaited(unitId: string): boolean
  /** Keeps why a step was given up whose undoing goes on: the first reason is what the waiter is told in the end. */
  noteFailure(unitId: string, error: ServiceError): void
  conclude(unitId: string, error: ServiceError | null): void
  /** Lets those go on, now and then, who wait for a unit that another process has ended. */
  watch(): void
  /** Does not look any more; who waits for a unit that runs here is still told. */
  stopWatching(): void
  rejectAll(error: ServiceError): void
}

export interface WaitersOptions {
  db: Db
  clock: Clock
  log: Log
  /** The units whose end this process will tell of. */
  runningHere(): ReadonlySet<string>
}

export function createWaiters({ db, clock, log, runningHere }: WaitersOptions): Waiters {
  const waiters = new Map<
    string,
    { resolve: () => void; reject: (error: ServiceError) => void; failure: ServiceError | null }
  >()
  let nextWatch: Timer | null = null
  let isStopped = false

  function conclude(unitId: string, error: ServiceError | null): void {
    const waiter = waiters.get(unitId)
    waiters.delete(unitId)
    const reason = waiter?.failure ?? error
    if (reason === null) waiter?.resolve()
    else waiter?.reject(reason)
  }

  function watch(): void {
    if (isStopped || waiters.size === 0) return
    nextWatch ??= clock.timer(WATCH_INTERVAL_MS, () => {
      nextWatch = null
      const here = runningHere()
      const watched = [...waiters.keys()].filter((id) => !here.has(id))
      if (watched.length === 0) return
      work
        .existing(db, watched)
        .then((left) => {
          for (const id of watched) if (!left.has(id)) conclude(id, null)
        })
        .catch((error: unknown) => log.warn({ err: error }, 'work in other processes could not be read'))
        .finally(watch)
    })
  }

  return {
    wait: (unitId) => new Promise((resolve, reject) => waiters.set(unitId, { resolve, reject, failure: null })),
    isAwaited: (unitId) => waiters.has(unitId),
    noteFailure: (unitId, error) => {
      const waiter = waiters.get(unitId)
      if (waiter !== undefined) waiter.failure ??= error
    },
    conclude,
    watch,
    stopWatching: () => {
      isStopped = true
      nextWatch?.cancel()
    },
    rejectAll: (error) => {
      for (const { reject } of waiters.values()) reject(error)
      waiters.clear()
    },
  }
}
