import { type Db, isShared } from '../../db/database.ts'
import * as work from '../../db/work.ts'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import type { WorkKind, WorkKindName } from './kind.ts'
import type { Membership } from './membership.ts'
import type { WorkSettings } from './retry.ts'

/**
 * Who goes on with the work of a process that is gone.
 *
 * 1. `begin` adopts what was left before this process was there. Where the database is shared it then beats: each beat says that
 *    this process lives, adopts what was left since, and gives up what this process has and does not run.
 * 2. What was adopted is due in the database; `afterBeat` is the moment to look there.
 */
export interface Succession {
  begin(): Promise<void>
  /** One beat, at once. */
  beat(): Promise<void>
  /** No beat follows. What runs at present still does. */
  stop(): void
}

export interface SuccessionOptions {
  db: Db
  clock: Clock
  log: Log
  membership: Membership
  settings: WorkSettings
  kinds: Readonly<Record<WorkKindName, WorkKind>>
  /** The units that run here and have not been given to others meanwhile. */
  runningHere(): ReadonlySet<string>
  afterBeat(): void
}

export function createSuccession(options: SuccessionOptions): Succession {
  const { db, clock, log, membership, settings, kinds, runningHere, afterBeat } = options
  let nextBeat: Timer | null = null
  let isStopped = false
  let notRunHere = new Set<string>() // units that were ours without running, at the last beat

  const adopt = async (trx: Db, me: string): Promise<void> => {
    const resume = (row: work.WorkRow) => kinds[row.kind as WorkKindName].resumeAt?.(row.next_step) ?? row.next_step
    const waits = (row: work.WorkRow) => kinds[row.kind as WorkKindName].waitsAt?.(row.next_step) ?? false
    const units = await work.takeOver(trx, me, { resume, waits, timeoutMs: settings.attemptTimeoutMs })
    if (units > 0) log.info({ units }, 'work that was left goes on')
  }

  function beatLater(): void {
    nextBeat = clock.timer(settings.heartbeatMs, () => {
      beat()
        .catch((error: unknown) => log.warn({ err: error }, 'the database did not hear that this process is alive'))
        .finally(() => {
          if (!isStopped) beatLater()
        })
    })
  }

  async function beat(): Promise<void> {
    await membership.beat(adopt)
    await releaseWhatNobodyRuns()
    afterBeat()
  }

  /**
   * A transaction whose end was not heard of, because the connection was lost, may have made a unit that is this process's and
   * that nobody launched. What is so at two beats stays so.
   */
  async function releaseWhatNobodyRuns(): Promise<void> {
    const here = runningHere()
    const idle = (await work.runningOf(db, membership.me())).filter((id) => !here.has(id))
    for (const id of idle) if (notRunHere.has(id)) await work.release(db, membership.me(), id)
    notRunHere = new Set(idle)
  }

  return {
    begin: async () => {
      await membership.join(adopt)
      if (isShared(db) && !isStopped) beatLater()
    },
    beat,
    stop: () => {
      isStopped = true
      nextBeat?.cancel()
    },
  }
}
