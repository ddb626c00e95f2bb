import { type Db, isShared } from '../../db/database.ts'
import * as work from '../../db/work.ts'
import { ServiceError } from '../../errors.ts'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import type { Random } from '../../runtime/random.ts'
import type { Stamp } from '../stamp.ts'
import { abandonResource } from './abandon.ts'
import type { Outcome, WorkKind, WorkKindName, WorkParams, WorkUnit } from './kind.ts'
import type { Membership } from './membership.ts'
import {
  attemptsBeforeAbandon,
  backoffMs,
  isBug,
  isWorthRepeating,
  toServiceError,
  type WorkSettings,
} from './retry.ts'

/**
 * Runs units of work.
 *
 * 1. A request calls `enqueue` in the transaction that changes the status, and `launch` once that is committed. The
 *    row is what counts: from then on the work is done or given up, whatever happens to the process.
 * 2. A unit starts at once when its lane and a slot are free, in the process that made it. Otherwise it waits in the database, not
 *    in memory, for whichever process has room first.
 * 3. What a process that is gone left is taken over: at `start`, and while this one runs.
 * 4. A result is written by whoever has the unit at that moment, and by nobody else: a process that stood still and comes back
 *    finds its units in other hands.
 * 5. A result that cannot be written though the database answers is a failure of its step. When giving up fails in that way too,
 *    often enough, the unit is abandoned: nothing repeats for ever but what waits for the database itself.
 * 6. Units of many steps, such as backups, do not keep others out: between two steps a unit goes to the end of those that wait for a slot.
 * 7. After `stop` no unit writes to the database.
 */
export interface WorkEngine {
  /** Writes a unit. It replaces the unit that the resource has, whose result is then dropped. */
  enqueue(trx: Db, order: WorkOrder): Promise<WorkUnit>
  /** Begins a unit whose transaction is committed. */
  launch(unit: WorkUnit): void
  /**
   * As `launch`; resolves when the unit is done, rejects with the reason when it was given up or replaced. When another process
   * ended the unit it resolves too: what became of the resource is in its row.
   */
  finish(unit: WorkUnit): Promise<void>
  start(): Promise<void>
  /** Does now what every beat does: gives up processes that are silent, and goes on with what they left. */
  takeOver(): Promise<void>
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
  /** Units of one lane run one after the other. Work on a volume and what hangs on it has the lane of its id; a backup has its own. */
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
  membership: Membership
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

/** How often a request asks for its unit while another process has that. */
const WATCH_INTERVAL_MS = 200

export function createWorkEngine(options: WorkEngineOptions): WorkEngine {
  const { db, clock, random, log, stamp, membership, settings, kinds, recordFailure } = options
  const shared = isShared(db)
  const running = new Map<string, { unitId: string; owner: string; ended: Promise<void> }>() // by lane
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
  let nextBeat: Timer | null = null
  let nextWatch: Timer | null = null
  let notRunHere = new Set<string>() // units that were ours without running, at the last beat

  function begin(unit: WorkUnit): void {
    if (state !== 'running') return
    const before = running.get(unit.lane)
    if (shared && unit.hasLane && before !== undefined) {
      void before.ended.then(() => begin(unit)) // one that was given to others meanwhile, and has not ended here
      return
    }
    // With the lane comes the right to run, also where that makes it a few more than there are slots.
    if (!unit.hasLane || before !== undefined || (!shared && running.size >= settings.concurrency)) {
      rowsWait = true
      if (shared) pump() // the lane may be free by now
      return
    }
    const run = runUnit(unit)
      .catch(async (error: unknown) => {
        // The database failed: the row stands as it was, so the unit comes again.
        log.error({ err: error, kind: unit.kind, resourceId: unit.resourceId }, 'work could not be recorded')
        conclude(unit, new ServiceError('ServiceUnavailable', { reason: 'The metadata store failed.' }))
        pauseUntilMs = clock.monotonicMs() + settings.backoffMaxMs
        if (shared) await work.release(db, unit.owner, unit.id).catch(() => {}) // or at a later beat
        rowsWait = true // last: whoever looked while the unit had its lane saw nothing that waits
      })
      .finally(() => {
        running.delete(unit.lane)
        if (rowsWait) pump()
        checkIdle()
      })
    running.set(unit.lane, { unitId: unit.id, owner: unit.owner, ended: run })
  }

  /** Goes through the steps of a unit until it is done, replaced, or has to wait. */
  async function runUnit(unit: WorkUnit): Promise<void> {
    const kind = kinds[unit.kind]
    let current: WorkUnit | null = unit
    let hasFailed = false
    do {
      const step: WorkUnit = current
      let failure: ServiceError
      try {
        const outcome = await withinTime(kind.attempt(step))
        if (state === 'stopped') return
        current = await settle(step, outcome, hasFailed)
        continue
      } catch (thrown) {
        if (state === 'stopped') return
        failure = failureOf(thrown)
      }
      if (isWorthRepeating(failure, step.attempt, settings)) {
        tell('warn', step, failure, 'work failed and will be repeated')
        await postpone(step, failure)
        return
      }
      hasFailed = true
      current = await giveUp(step, failure)
    } while (current !== null && state === 'running')
  }

  /** Answers the unit at its next step, or null when it has ended or waits. */
  async function giveUp(unit: WorkUnit, error: ServiceError): Promise<WorkUnit | null> {
    const given: WorkUnit = { ...unit, lastError: error.message }
    const waiter = waiters.get(unit.id)
    if (waiter !== undefined) waiter.failure ??= error
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
      countUp(counted.givenUp, unit.kind)
      return following
    } catch (thrown) {
      if (state === 'stopped') return null
      const failure = failureOf(thrown)
      if (unit.attempt < attemptsBeforeAbandon(error, settings)) {
        tell('error', unit, failure, 'work failed, and could not be given up; both will be repeated')
        await postpone(given, failure)
      } else await abandon(given, error, failure)
      return null
    }
  }

  /** The last resort: a status that says so, and the end of the unit. What it was about may have to be put right by hand. */
  async function abandon(unit: WorkUnit, error: ServiceError, failure: ServiceError): Promise<void> {
    const reason = [...new Set([error.message, failure.message])].join(' ')
    tell('fatal', unit, failure, 'work could neither be done nor given up, and was abandoned; see `collie db check`')
    try {
      await settle(unit, { commit: (trx) => abandonResource(trx, unit, reason, stamp()) }, true)
    } catch (thrown) {
      if (state === 'stopped') return
      await postpone(unit, failureOf(thrown))
      return
    }
    countUp(counted.givenUp, unit.kind)
    await db
      .transaction((trx) => recordFailure(trx, unit, error))
      .catch((thrown: unknown) =>
        tell('error', unit, failureOf(thrown), 'the owner could not be told of abandoned work'),
      )
  }

  function tell(level: 'warn' | 'error' | 'fatal', unit: WorkUnit, error: ServiceError, text: string): void {
    const { kind, resourceId, step, attempt } = unit
    log[isBug(error) ? 'fatal' : level]({ kind, resourceId, step, attempt, err: error }, text)
  }

  /** Writes the outcome of a step; `hasFailed` when one was given up. Answers the unit at its next step, or null when it has ended. */
  async function settle(unit: WorkUnit, outcome: Outcome, hasFailed: boolean): Promise<WorkUnit | null> {
    const { next, afterMs = 0 } = outcome
    const waits = next !== undefined && (afterMs > 0 || othersWaitForSlots())
    try {
      await db.transaction(async (trx) => {
        // The unit last: requests lock a volume before its work, and so must this.
        await outcome.commit(trx)
        const isMine =
          next === undefined
            ? await work.remove(trx, unit)
            : await work.update(trx, unit, progress({ ...unit, step: next, attempt: 1 }), scheduled(afterMs))
        if (!isMine) throw new NotMine()
        if (next === undefined || waits) await leaveLane(trx, unit)
      })
    } catch (error) {
      if (!(error instanceof NotMine)) throw new Unrecorded('', { cause: error })
      await concludeLost(unit)
      return null
    }
    if (waits) {
      rowsWait = true
      return null
    }
    if (next !== undefined) return { ...unit, step: next, attempt: 1 }
    if (!hasFailed) countUp(counted.done, unit.kind)
    conclude(unit, null)
    return null
  }

  function othersWaitForSlots(): boolean {
    return rowsWait && running.size >= settings.concurrency
  }

  async function postpone(unit: WorkUnit, error: ServiceError): Promise<void> {
    countUp(counted.repeated, unit.kind)
    const later = { ...unit, attempt: unit.attempt + 1, lastError: error.message }
    const isMine = await db.transaction(async (trx) => {
      const updated = await work.update(trx, unit, progress(later), scheduled(backoffMs(unit.attempt, settings)))
      if (updated) await leaveLane(trx, unit)
      return updated
    })
    if (isMine) rowsWait = true
    else await concludeLost(unit)
  }

  async function leaveLane(trx: Db, unit: WorkUnit): Promise<void> {
    if (shared && (await work.freeLane(trx, unit))) rowsWait = true
  }

  /** For a unit that is not this process's any more: another request replaced it, or another process took it over. */
  async function concludeLost(unit: WorkUnit): Promise<void> {
    await leaveLane(db, unit)
    if (!waiters.has(unit.id)) return
    const isElsewhere = (await work.existing(db, [unit.id])).size > 0 || !(await membership.isMember(unit.owner))
    if (isElsewhere) watch()
    else conclude(unit, replaced(unit))
  }

  /** The units that run here and have not been given to others meanwhile. */
  function ownRunning(): Set<string> {
    const own = [...running.values()].filter(({ owner }) => owner === membership.me())
    return new Set(own.map(({ unitId }) => unitId))
  }

  /** Lets those go on who wait for a unit that another process has ended. */
  function watch(): void {
    nextWatch ??= clock.timer(WATCH_INTERVAL_MS, () => {
      const here = ownRunning()
      const watched = [...waiters.keys()].filter((id) => !here.has(id))
      nextWatch = null
      if (watched.length === 0 || state !== 'running') return
      work
        .existing(db, watched)
        .then((left) => {
          for (const id of watched) if (!left.has(id)) conclude({ id }, null)
        })
        .catch((error: unknown) => log.warn({ err: error }, 'work in other processes could not be read'))
        .finally(watch)
    })
  }

  function conclude(unit: Pick<WorkUnit, 'id'>, error: ServiceError | null): void {
    const waiter = waiters.get(unit.id)
    waiters.delete(unit.id)
    const reason = waiter?.failure ?? error
    if (reason === null) waiter?.resolve()
    else waiter?.reject(reason)
  }

  function progress(unit: WorkUnit) {
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
      const [slots, lanes] = [settings.concurrency - running.size, [...running.keys()]]
      const rows = await (shared ? work.claimDue(db, membership.me(), slots, lanes) : work.due(db, slots, lanes))
      for (const row of rows) begin(toUnit(row))
      if (rows.length === 0) break
    }
    const unitIds = [...running.values()].map(({ unitId }) => unitId)
    if (!(await work.isWaiting(db, unitIds))) return
    rowsWait = true
    // A unit behind a busy lane or without a slot is looked at when the one before it ends, a later one by the timer.
    const dueInMs = await work.dueInMs(db, [...running.keys()])
    if (dueInMs !== null && running.size < settings.concurrency && state === 'running') wakeIn(dueInMs)
  }

  const adopt = async (trx: Db, me: string): Promise<void> => {
    const resume = (row: work.WorkRow) => kinds[row.kind as WorkKindName].resumeAt?.(row.next_step) ?? row.next_step
    const units = await work.takeOver(trx, me, resume, settings.attemptTimeoutMs)
    if (units > 0) log.info({ units }, 'work that was left goes on')
  }

  function beatLater(): void {
    nextBeat = clock.timer(settings.heartbeatMs, () => {
      beat()
        .catch((error: unknown) => log.warn({ err: error }, 'the database did not hear that this process is alive'))
        .finally(() => {
          if (state === 'running') beatLater()
        })
    })
  }

  async function beat(): Promise<void> {
    await membership.beat(adopt)
    await releaseWhatNobodyRuns()
    if (waiters.size > 0) watch()
    pump()
  }

  /**
   * A transaction whose end was not heard of, because the connection was lost, may have made a unit that is this process's and
   * that nobody launched. What is so at two beats stays so.
   */
  async function releaseWhatNobodyRuns(): Promise<void> {
    const here = ownRunning()
    const idle = (await work.runningOf(db, membership.me())).filter((id) => !here.has(id))
    for (const id of idle) if (notRunHere.has(id)) await work.release(db, membership.me(), id)
    notRunHere = new Set(idle)
  }

  function checkIdle(): void {
    if (running.size > 0 || rowsWait || pumping !== 'no') return
    const waiting = idleWaiters
    idleWaiters = []
    for (const resolve of waiting) resolve()
  }

  return {
    enqueue: async (trx, order) => {
      const owner = membership.me()
      const unit: WorkUnit = {
        params: {},
        ...order,
        id: random.uuid(),
        attempt: 1,
        lastError: null,
        owner,
        fence: 0,
        hasLane: !shared,
      }
      await work.removeOfResource(trx, order.resourceId)
      const row = {
        ...progress(unit),
        id: unit.id,
        kind: unit.kind,
        resource_id: unit.resourceId,
        lane: unit.lane,
        owner,
        fence: unit.fence,
        params: JSON.stringify(unit.params),
        request_id: unit.requestId,
        created_at: stamp(),
        updated_at: null,
      }
      await work.insert(trx, row, scheduled(0))
      if (shared && state === 'running' && running.size < settings.concurrency) {
        unit.hasLane = (await work.takeLanes(trx, owner, [unit])).length > 0
      }
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
        if (running.get(unit.lane)?.unitId !== unit.id) watch()
      }),
    start: async () => {
      await membership.join(adopt)
      state = 'running'
      if (shared) beatLater()
      pump()
    },
    takeOver: async () => {
      if (shared && state === 'running') await beat()
    },
    idle: () =>
      new Promise((resolve) => {
        idleWaiters.push(resolve)
        checkIdle()
      }),
    counts: () => ({ running: running.size, ...counted }),
    stop: async (graceMs) => {
      state = 'stopping'
      for (const timer of [wakeUp, nextBeat, nextWatch]) timer?.cancel()
      let grace: Timer | undefined
      const graceOver = new Promise<void>((resolve) => {
        grace = clock.timer(graceMs, resolve)
      })
      await Promise.race([Promise.all([...[...running.values()].map(({ ended }) => ended), pumpEnded]), graceOver])
      grace?.cancel()
      // What still runs is left to the others only when this process is silent for good.
      if (shared && running.size === 0) {
        await membership
          .leave()
          .catch((error: unknown) => log.warn({ err: error }, 'could not say goodbye to the database'))
      }
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

function toUnit(row: work.WorkRow): WorkUnit {
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
    owner: row.owner,
    fence: row.fence,
    hasLane: true,
  }
}

function replaced(unit: WorkUnit): ServiceError {
  return new ServiceError('ResourceConflict', {
    reason: `Resource conflict: another request took over ${unit.resourceId} before its ${unit.kind} was done.`,
  })
}
