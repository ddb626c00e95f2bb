import type { Db } from '../../db/database.ts'
import * as work from '../../db/work.ts'
import { ServiceError } from '../../errors.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import type { Stamp } from '../stamp.ts'
import { abandonResource } from './abandon.ts'
import type { Outcome, WorkKind, WorkKindName, WorkUnit } from './kind.ts'
import {
  attemptsBeforeAbandon,
  backoffMs,
  isBug,
  isWorthRepeating,
  toServiceError,
  type WorkSettings,
} from './retry.ts'

/** Goes through the steps of one unit: attempt, result, repeat, give up, abandon. When units run, and where, is not its concern. */
export interface UnitRunner {
  /** Throws when the database is away: the row of the unit then stands as it was. */
  run(unit: WorkUnit): Promise<RunEnd>
  counts: Omit<WorkCounts, 'running'>
  progressOf(unit: WorkUnit): Parameters<typeof work.update>[2]
  scheduled(dueInMs: number): work.Schedule
}

/**
 * How a run came to its end: the unit is gone, done or given up; its row waits for its time or for a slot; it is not this
 * process's any more, because another request replaced it or another process took it over; or this process stops.
 */
export type RunEnd = 'ended' | 'waits' | 'lost' | 'stopped'

/** What became of work since the start, by kind, and how much of it goes on. */
export interface WorkCounts {
  running: number
  done: ReadonlyMap<string, number>
  /** Attempts that failed and come again. */
  repeated: ReadonlyMap<string, number>
  /** Steps that failed for good. */
  givenUp: ReadonlyMap<string, number>
}

export interface UnitRunnerOptions {
  db: Db
  clock: Clock
  log: Log
  stamp: Stamp
  settings: WorkSettings
  kinds: Readonly<Record<WorkKindName, WorkKind>>
  /** Tells users that a step was given up, in the transaction of what that leads to. */
  recordFailure(trx: Db, unit: WorkUnit, error: ServiceError): Promise<void>
  /** The state of the process: no step begins unless it runs, and nothing is written once it has stopped. */
  state(): 'new' | 'running' | 'stopping' | 'stopped'
  /** Whether a unit should wait between two steps, for the sake of others. */
  othersWaitForSlots(): boolean
  /** Gives up the lane of a unit that ends or waits, in the transaction that says so. */
  leaveLane(trx: Db, unit: WorkUnit): Promise<void>
  /** A step was given up; what follows only undoes. */
  onGivenUp(unitId: string, error: ServiceError): void
}

/** The unit at its next step, or how the run ended. */
type Following = WorkUnit | RunEnd

export function createUnitRunner(options: UnitRunnerOptions): UnitRunner {
  const { db, clock, log, stamp, settings, kinds, recordFailure, state, othersWaitForSlots, leaveLane, onGivenUp } =
    options
  const counts = {
    done: new Map<string, number>(),
    repeated: new Map<string, number>(),
    givenUp: new Map<string, number>(),
  }

  async function run(unit: WorkUnit): Promise<RunEnd> {
    const kind = kinds[unit.kind]
    let step = unit
    let hasFailed = false
    for (;;) {
      let following: Following
      try {
        const outcome = await withinTime(kind.attempt(step))
        if (state() === 'stopped') return 'stopped'
        following = await settle(step, outcome, hasFailed)
      } catch (thrown) {
        if (state() === 'stopped') return 'stopped'
        const failure = failureOf(thrown)
        if (isWorthRepeating(failure, step.attempt, settings)) {
          tell('warn', step, failure, 'work failed and will be repeated')
          return postpone(step, failure)
        }
        hasFailed = true
        following = await giveUp(step, failure)
      }
      if (typeof following === 'string') return following
      if (state() !== 'running') return 'stopped'
      step = following
    }
  }

  async function giveUp(unit: WorkUnit, error: ServiceError): Promise<Following> {
    const given: WorkUnit = { ...unit, lastError: error.message }
    onGivenUp(unit.id, error)
    try {
      const { next, commit } = kinds[unit.kind].giveUp(unit, error)
      const outcome = {
        ...(next === undefined ? {} : { next }),
        commit: async (trx: Db) => {
          await recordFailure(trx, given, error) // first: what it is about may go with the commit
          await commit(trx)
        },
      }
      const following = await settle(given, outcome, true)
      tell('error', unit, error, 'work failed and was given up')
      countUp(counts.givenUp, unit.kind)
      return following
    } catch (thrown) {
      if (state() === 'stopped') return 'stopped'
      const failure = failureOf(thrown)
      if (unit.attempt >= attemptsBeforeAbandon(error, settings)) return abandon(given, error, failure)
      tell('error', unit, failure, 'work failed, and could not be given up; both will be repeated')
      return postpone(given, failure)
    }
  }

  /** The last resort: a status that says so, and the end of the unit. What it was about may have to be put right by hand. */
  async function abandon(unit: WorkUnit, error: ServiceError, failure: ServiceError): Promise<Following> {
    const reason = [...new Set([error.message, failure.message])].join(' ')
    tell('fatal', unit, failure, 'work could neither be done nor given up, and was abandoned; see `collie db check`')
    let end: Following
    try {
      end = await settle(unit, { commit: (trx) => abandonResource(trx, unit, reason, stamp()) }, true)
    } catch (thrown) {
      if (state() === 'stopped') return 'stopped'
      return postpone(unit, failureOf(thrown))
    }
    countUp(counts.givenUp, unit.kind)
    await db
      .transaction((trx) => recordFailure(trx, unit, error))
      .catch((thrown: unknown) =>
        tell('error', unit, failureOf(thrown), 'the owner could not be told of abandoned work'),
      )
    return end
  }

  function tell(level: 'warn' | 'error' | 'fatal', unit: WorkUnit, error: ServiceError, text: string): void {
    const { kind, resourceId, step, attempt } = unit
    log[isBug(error) ? 'fatal' : level]({ kind, resourceId, step, attempt, err: error }, text)
  }

  /** Writes the outcome of a step; `hasFailed` when one was given up. */
  async function settle(unit: WorkUnit, outcome: Outcome, hasFailed: boolean): Promise<Following> {
    let next: string | undefined
    let waits = false
    try {
      await db.transaction(async (trx) => {
        // The unit last: requests lock a volume before its work, and so must this.
        await outcome.commit(trx)
        const following = (await outcome.decide?.(trx)) ?? outcome
        next = following.next
        const { afterMs = 0 } = following
        waits = next !== undefined && (afterMs > 0 || othersWaitForSlots())
        const isMine =
          next === undefined
            ? await work.remove(trx, unit)
            : await work.update(trx, unit, progressOf({ ...unit, step: next, attempt: 1 }), scheduled(afterMs))
        if (!isMine) throw new NotMine()
        if (next === undefined || waits) await leaveLane(trx, unit)
      })
    } catch (error) {
      if (error instanceof NotMine) return 'lost'
      throw new Unrecorded('', { cause: error })
    }
    if (waits) return 'waits'
    if (next !== undefined) return { ...unit, step: next, attempt: 1 }
    if (!hasFailed) countUp(counts.done, unit.kind)
    return 'ended'
  }

  async function postpone(unit: WorkUnit, error: ServiceError): Promise<RunEnd> {
    countUp(counts.repeated, unit.kind)
    const later = { ...unit, attempt: unit.attempt + 1, lastError: error.message }
    return db.transaction(async (trx) => {
      const isMine = await work.update(trx, unit, progressOf(later), scheduled(backoffMs(unit.attempt, settings)))
      if (!isMine) return 'lost'
      await leaveLane(trx, unit)
      return 'waits'
    })
  }

  function progressOf(unit: WorkUnit) {
    return { next_step: unit.step, attempt: unit.attempt, last_error: unit.lastError, updated_at: stamp() }
  }

  function scheduled(dueInMs: number): work.Schedule {
    return { dueInMs, timeoutMs: settings.attemptTimeoutMs }
  }

  function withinTime<T>(attempt: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = clock.timer(settings.attemptTimeoutMs, () => {
        const reason = `no answer within ${settings.attemptTimeoutMs} ms`
        reject(new ServiceError('BackendFailure', { reason }))
      })
      attempt.then(resolve, reject).finally(() => timer.cancel())
    })
  }

  return { run, counts, progressOf, scheduled }
}

function countUp(counts: Map<string, number>, kind: string): void {
  counts.set(kind, (counts.get(kind) ?? 0) + 1)
}

/** Ends a transaction whose unit is in other hands. */
class NotMine extends Error {}

/** What a step came to could not be written. */
class Unrecorded extends Error {}

/** Why a step failed. Throws when it did not: the database is away, and the row of the unit stands as it was. */
function failureOf(thrown: unknown): ServiceError {
  if (!(thrown instanceof Unrecorded)) return toServiceError(thrown)
  const { cause } = thrown
  if (cause instanceof ServiceError && cause.code === 'ServiceUnavailable') throw cause
  const reason = cause instanceof Error ? cause.message : String(cause)
  return toServiceError(new ServiceError('ResultNotRecorded', { reason }, { cause }))
}
