import { type Db, isShared } from '../../db/database.ts'
import * as work from '../../db/work.ts'
import { ServiceError } from '../../errors.ts'
import type { Timer } from '../../runtime/clock.ts'
import type { Random } from '../../runtime/random.ts'
import type { WorkKindName, WorkParams, WorkUnit } from './kind.ts'
import type { Membership } from './membership.ts'
import { createSuccession } from './succession.ts'
import { createUnitRunner, type RunEnd, type UnitRunnerOptions, type WorkCounts } from './unit-runner.ts'
import { createWaiters } from './waiters.ts'

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

export interface WorkEngineOptions
  extends Pick<UnitRunnerOptions, 'db' | 'clock' | 'log' | 'stamp' | 'settings' | 'kinds' | 'recordFailure'> {
  random: Random
  membership: Membership
}

export function createWorkEngine(options: WorkEngineOptions): WorkEngine {
  const { db, clock, random, log, stamp, membership, settings } = options
  const shared = isShared(db)
  const running = new Map<string, { unitId: string; owner: string; ended: Promise<void> }>() // by lane
  let idleWaiters: (() => void)[] = []
  let state: 'new' | 'running' | 'stopping' | 'stopped' = 'new'
  let rowsWait = false // units in the database that wait for a slot, a lane or their time
  let pumping: 'no' | 'yes' | 'again' = 'no'
  let pumpEnded: Promise<void> = Promise.resolve()
  let pauseUntilMs = 0 // after a failure of the database
  let wakeUp: Timer | null = null

  const waiters = createWaiters({ db, clock, log, runningHere })
  const runner = createUnitRunner({
    ...options,
    state: () => state,
    othersWaitForSlots: () => rowsWait && running.size >= settings.concurrency,
    leaveLane,
    onGivenUp: waiters.noteFailure,
  })
  const succession = createSuccession({
    ...options,
    runningHere,
    afterBeat: () => {
      waiters.watch()
      pump()
    },
  })

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
    const run = runner
      .run(unit)
      .then((end) => conclude(unit, end))
      .catch(async (error: unknown) => {
        // The database failed: the row stands as it was, so the unit comes again.
        log.error({ err: error, kind: unit.kind, resourceId: unit.resourceId }, 'work could not be recorded')
        waiters.conclude(unit.id, new ServiceError('ServiceUnavailable', { reason: 'The metadata store failed.' }))
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

  async function conclude(unit: WorkUnit, end: RunEnd): Promise<void> {
    if (end === 'ended') waiters.conclude(unit.id, null)
    else if (end === 'waits') rowsWait = true
    else if (end === 'lost') await concludeLost(unit)
  }

  async function concludeLost(unit: WorkUnit): Promise<void> {
    await leaveLane(db, unit)
    if (!waiters.isAwaited(unit.id)) return
    const isElsewhere = (await work.existing(db, [unit.id])).size > 0 || !(await membership.isMember(unit.owner))
    if (isElsewhere) waiters.watch()
    else waiters.conclude(unit.id, replaced(unit))
  }

  async function leaveLane(trx: Db, unit: WorkUnit): Promise<void> {
    if (shared && (await work.freeLane(trx, unit))) rowsWait = true
  }

  /** The units that run here and have not been given to others meanwhile. */
  function runningHere(): Set<string> {
    const own = [...running.values()].filter(({ owner }) => owner === membership.me())
    return new Set(own.map(({ unitId }) => unitId))
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
        ...runner.progressOf(unit),
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
      await work.insert(trx, row, runner.scheduled(0))
      if (shared && state === 'running' && running.size < settings.concurrency) {
        unit.hasLane = (await work.takeLanes(trx, owner, [unit])).length > 0
      }
      return unit
    },
    launch: begin,
    finish: async (unit) => {
      if (state !== 'running') {
        throw new ServiceError('ServiceUnavailable', { reason: 'The service is stopping.' })
      }
      const ended = waiters.wait(unit.id)
      begin(unit)
      if (running.get(unit.lane)?.unitId !== unit.id) waiters.watch()
      return ended
    },
    start: async () => {
      await succession.begin()
      state = 'running'
      pump()
    },
    takeOver: async () => {
      if (shared && state === 'running') await succession.beat()
    },
    idle: () =>
      new Promise((resolve) => {
        idleWaiters.push(resolve)
        checkIdle()
      }),
    counts: () => ({ running: running.size, ...runner.counts }),
    stop: async (graceMs) => {
      state = 'stopping'
      wakeUp?.cancel()
      succession.stop()
      waiters.stopWatching()
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
      waiters.rejectAll(
        new ServiceError('ServiceUnavailable', { reason: 'The service stopped before the work was done.' }),
      )
    },
  }
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
