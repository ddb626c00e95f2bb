import type { Db } from '../../db/database.ts'
import * as work from '../../db/work.ts'
import { ServiceError } from '../../errors.ts'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import type { Random } from '../../runtime/random.ts'
import type { Stamp } from '../stamp.ts'
import type { Outcome, WorkKind, WorkKindName, WorkParams, WorkUnit } from './kind.ts'
import { backoffMs, isWorthRepeating, toServiceError, type WorkSettings } from './retry.ts'

/**
 * Runs units of work.
 *
 * 1. A request calls `enqueue` in the transaction that changes the status, and `launch` once that is committed. The
 *    row is what counts: from then on the work is done or given up, whatever happens to the process.
 * 2. A unit starts at once when its lane and a slot are free. Otherwise it waits in the database, not in memory.
 * 3. `start` takes over what an earlier process left.
 * 4. After `stop` no unit writes to the database.
 */
export interface WorkEngine {
  /** Writes a unit. It replaces the unit that the resource has, whose result is then dropped. */
  enqueue(trx: Db, order: WorkOrder): Promise<WorkUnit>
  /** Begins a unit whose transaction is committed. */
  launch(unit: WorkUnit): void
  /** As `launch`; resolves when the unit is done, rejects with the reason when it was given up or replaced. */
  finish(unit: WorkUnit): Promise<void>
  start(): Promise<void>
  /** Resolves when no unit runs or waits. */
  idle(): Promise<void>
  counts(): WorkCounts
  /** Waits up to `graceMs` for the attempts that run. What is left resumes at the next start. */
  stop(graceMs: number): Promise<void>
}

/** What became of work since the start, by kind, and how much of it goes on. */
export interface WorkCounts {
  running: number
  done: ReadonlyMap<string, number>
  /** Attempts that failed and come again. */
  repeated: ReadonlyMap<string, number>
  /** Steps that failed for good. */
  givenUp: ReadonlyMap<string, number>
}

export interface WorkOrder {
  kind: WorkKindName
  resourceId: string
  /** Units of one lane run one after the other. All work on a volume and what hangs on it has the lane of its id. */
  lane: string
  step: string
  params?: WorkParams
  /** Of the request that asks for it: the message says it should the work fail. */
  requestId: string
}

export interface WorkEngineOptions {
  db: Db
  clock: Clock
  random: Random
  log: Log
  stamp: Stamp
  /** Who runs the units: the same name after a restart, another for another process. */
  owner: string
  settings: WorkSettings
  kinds: Readonly<Record<WorkKindName, WorkKind>>
  /** Tells users that a step was given up, in the transaction of what that leads to. */
  recordFailure(trx: Db, unit: WorkUnit, error: ServiceError): Promise<void>
}

interface Waiter {
  resolve: () => void
  reject: (error: ServiceError) => void
  /** Why a step was given up whose undoing goes on. */
  failure: ServiceError | null
}

export function createWorkEngine(options: WorkEngineOptions): WorkEngine {
  const { db, clock, random, log, stamp, owner, settings, kinds, recordFailure } = options
  const running = new Map<string, { unitId: string; ended: Promise<void> }>() // by lane
  const waiters = new Map<string, Waiter>() // by unit
  const counted = {
    done: new Map<string, number>(),
    repeated: new Map<string, number>(),
    givenUp: new Map<string, number>(),
  }
  let idleWaiters: (() => void)[] = []
  let state: 'new' | 'running' | 'stopping' | 'stopped' = 'new'
  let rowsWait = false // units in the database that wait for a slot, a lane or their time
  let pumping: 'no' | 'yes' | 'again' = 'no'
  let pumpEnded: Promise<void> = Promise.resolve()
  let pauseUntilMs = 0 // after a failure of the database
  let wakeUp: Timer | null = null

  function begin(unit: WorkUnit): void {
    if (state !== 'running') return
    if (running.has(unit.lane) || running.size >= settings.concurrency) {
      rowsWait = true
      return
    }
    const run = runUnit(unit)
      .catch((error: unknown) => {
        // The database failed: the row stands as it was, so the unit comes again.
        log.error({ err: error, kind: unit.kind, resourceId: unit.resourceId }, 'work could not be recorded')
        conclude(unit, new ServiceError('ServiceUnavailable', { reason: 'The metadata store failed.' }))
        rowsWait = true
        pauseUntilMs = clock.monotonicMs() + settings.backoffMaxMs
      })
      .finally(() => {
        running.delete(unit.lane)
        if (rowsWait) pump()
        checkIdle()
      })
    running.set(unit.lane, { unitId: unit.id, ended: run })
  }

  /** Goes through the steps of a unit until it is done, replaced, or has to wait. */
  async function runUnit(unit: WorkUnit): Promise<void> {
    const kind = kinds[unit.kind]
    let current: WorkUnit | null = unit
    let hasFailed = false
    do {
      let outcome: Outcome
      try {
        outcome = await withinTime(kind.attempt(current))
      } catch (thrown) {
        if (state === 'stopped') return
        const error = toServiceError(thrown)
        const about = { kind: unit.kind, resourceId: unit.resourceId, step: current.step, attempt: current.attempt }
        if (isWorthRepeating(error, current.attempt, settings)) {
          log.warn({ ...about, err: error }, 'work failed and will be repeated')
          countUp(counted.repeated, unit.kind)
          await postpone(current, error)
          return
        }
        log.error({ ...about, err: error }, 'work failed and was given up')
        countUp(counted.givenUp, unit.kind)
        hasFailed = true
        const waiter = waiters.get(unit.id)
        if (waiter !== undefined) waiter.failure ??= error
        const given: WorkUnit = { ...current, lastError: error.message }
        const { next, commit } = kind.giveUp(current, error)
        outcome = {
          ...(next === undefined ? {} : { next }),
          commit: async (trx) => {
            await recordFailure(trx, given, error) // first: what it is about may go with the commit
            await commit(trx)
          },
        }
        current = given
      }
      if (state === 'stopped') return
      current = await settle(current, outcome, hasFailed)
    } while (current !== null && state === 'running')
  }

  /** Writes the outcome of a step; `hasFailed` when one was given up. Answers the unit at its next step, or null when it has ended. */
  async function settle(unit: WorkUnit, outcome: Outcome, hasFailed: boolean): Promise<WorkUnit | null> {
    const { next } = outcome
    const isCurrent = await db.transaction(async (trx) => {
      const mine =
        next === undefined
          ? await work.remove(trx, unit.id)
          : await work.update(trx, unit.id, progress({ ...unit, step: next, attempt: 1 }, clock.now()))
      if (mine) await outcome.commit(trx)
      return mine
    })
    if (isCurrent && next !== undefined) return { ...unit, step: next, attempt: 1 }
    if (isCurrent && !hasFailed) countUp(counted.done, unit.kind)
    conclude(unit, isCurrent ? null : replaced(unit))
    return null
  }

  async function postpone(unit: WorkUnit, error: ServiceError): Promise<void> {
    const waitMs = backoffMs(unit.attempt, settings)
    const later = { ...unit, attempt: unit.attempt + 1, lastError: error.message }
    if (!(await work.update(db, unit.id, progress(later, clock.now() + waitMs)))) {
      conclude(unit, replaced(unit))
      return
    }
    rowsWait = true
  }

  function conclude(unit: WorkUnit, error: ServiceError | null): void {
    const waiter = waiters.get(unit.id)
    waiters.delete(unit.id)
    const reason = waiter?.failure ?? error
    if (reason === null) waiter?.resolve()
    else waiter?.reject(reason)
  }

  function progress(unit: WorkUnit, dueAtMs: number) {
    return {
      next_step: unit.step,
      attempt: unit.attempt,
      due_at_ms: dueAtMs,
      deadline_at_ms: dueAtMs + settings.attemptTimeoutMs,
      last_error: unit.lastError,
      updated_at: stamp(),
    }
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

  function wakeIn(delayMs: number): void {
    wakeUp?.cancel()
    wakeUp = clock.timer(delayMs, () => {
      wakeUp = null
      pump()
    })
  }

  function pump(): void {
    if (state !== 'running') return
    if (pumping !== 'no') {
      pumping = 'again'
      return
    }
    const pauseMs = pauseUntilMs - clock.monotonicMs()
    if (pauseMs > 0) {
      wakeIn(pauseMs)
      return
    }
    pumping = 'yes'
    pumpEnded = startDueUnits()
      .catch((error: unknown) => {
        log.error({ err: error }, 'waiting work could not be read')
        rowsWait = true
        pauseUntilMs = clock.monotonicMs() + settings.backoffMaxMs
        pumping = 'again'
      })
      .finally(() => {
        const again = pumping === 'again'
        pumping = 'no'
        if (again) pump()
        checkIdle()
      })
  }

  /** Fills the free slots with units that wait in the database, then sleeps until the next one is due. */
  async function startDueUnits(): Promise<void> {
    rowsWait = false
    while (state === 'running' && running.size < settings.concurrency) {
      const rows = await work.due(db, owner, clock.now(), settings.concurrency - running.size, [...running.keys()])
      for (const row of rows) begin(toUnit(row))
      if (rows.length === 0) break
    }
    const unitIds = [...running.values()].map(({ unitId }) => unitId)
    if ((await work.nextDueAtMs(db, owner, { units: unitIds })) === null) return
    rowsWait = true
    // A unit behind a busy lane or without a slot is looked at when the one before it ends, a later one by the timer.
    const nextDueAtMs = await work.nextDueAtMs(db, owner, { lanes: [...running.keys()] })
    if (nextDueAtMs !== null && running.size < settings.concurrency && state === 'running') {
      wakeIn(Math.max(0, nextDueAtMs - clock.now()))
    }
  }

  function checkIdle(): void {
    if (running.size > 0 || rowsWait || pumping !== 'no') return
    const waiting = idleWaiters
    idleWaiters = []
    for (const resolve of waiting) resolve()
  }

  return {
    enqueue: async (trx, order) => {
      const unit: WorkUnit = { params: {}, ...order, id: random.uuid(), attempt: 1, lastError: null }
      await work.removeOfResource(trx, order.resourceId)
      await work.insert(trx, {
        ...progress(unit, clock.now()),
        id: unit.id,
        kind: unit.kind,
        resource_id: unit.resourceId,
        lane: unit.lane,
        owner,
        params: JSON.stringify(unit.params),
        request_id: unit.requestId,
        created_at: stamp(),
        updated_at: null,
      })
      return unit
    },
    launch: begin,
    finish: (unit) =>
      new Promise((resolve, reject) => {
        if (state !== 'running') {
          reject(new ServiceError('ServiceUnavailable', { reason: 'The service is stopping.' }))
          return
        }
        waiters.set(unit.id, { resolve, reject, failure: null })
        begin(unit)
      }),
    start: async () => {
      const claimed = await work.claim(db, owner, clock.now(), clock.now() + settings.attemptTimeoutMs)
      for (const row of claimed) {
        const unit = toUnit(row)
        const step = kinds[unit.kind].resumeAt?.(unit.step) ?? unit.step
        if (step !== unit.step) await work.update(db, unit.id, progress({ ...unit, step, attempt: 1 }, clock.now()))
      }
      if (claimed.length > 0) log.info({ units: claimed.length }, 'work of an earlier run goes on')
      state = 'running'
      pump()
    },
    idle: () =>
      new Promise((resolve) => {
        idleWaiters.push(resolve)
        checkIdle()
      }),
    counts: () => ({ running: running.size, ...counted }),
    stop: async (graceMs) => {
      state = 'stopping'
      wakeUp?.cancel()
      let grace: Timer | undefined
      const graceOver = new Promise<void>((resolve) => {
        grace = clock.timer(graceMs, resolve)
      })
      await Promise.race([Promise.all([...[...running.values()].map(({ ended }) => ended), pumpEnded]), graceOver])
      grace?.cancel()
      state = 'stopped'
      for (const waiter of waiters.values()) {
        waiter.reject(
          new ServiceError('ServiceUnavailable', { reason: 'The service stopped before the work was done.' }),
        )
      }
      waiters.clear()
    },
  }
}

function countUp(counts: Map<string, number>, kind: string): void {
  counts.set(kind, (counts.get(kind) ?? 0) + 1)
}

export function toUnit(row: work.WorkRow): WorkUnit {
  return {
    id: row.id,
    kind: row.kind as WorkKindName,
    resourceId: row.resource_id,
    lane: row.lane,
    params: JSON.parse(row.params),
    requestId: row.request_id,
    step: row.next_step,
    attempt: row.attempt,
    lastError: row.last_error,
  }
}

function replaced(unit: WorkUnit): ServiceError {
  return new ServiceError('ResourceConflict', {
    reason: `Resource conflict: another request took over ${unit.resourceId} before its ${unit.kind} was done.`,
  })
}
