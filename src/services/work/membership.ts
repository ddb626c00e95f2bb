import type { Db } from '../../db/database.ts'
import { isShared } from '../../db/database.ts'
import * as processes from '../../db/processes.ts'
import type { Log } from '../../runtime/log.ts'
import type { Random } from '../../runtime/random.ts'
import type { Stamp } from '../stamp.ts'
import type { WorkSettings } from './retry.ts'

/**
 * Which processes are there to work on this database.
 *
 * 1. Each says at every beat that it is alive. One that has been silent for `deadAfterMs` by the clock of the database is given
 *    up: its units go to others.
 * 2. Nobody is given up before this process has itself seen that silence at several beats in a row: after an outage of the
 *    database everybody looks silent at first.
 * 3. A process that was given up, say because it stood still, finds that out at its next beat. It goes on as another one; what
 *    it still runs has been handed to others, and its results are refused.
 *
 * A database that cannot be shared has one process, and whatever another left is its own at once.
 */
export interface Membership {
  /** The incarnation that this process is at present. */
  me(): string
  join(adopt: (trx: Db, me: string) => Promise<void>): Promise<void>
  /** Says that this process is alive, gives up who is not, and lets `adopt` take their units. */
  beat(adopt: (trx: Db, me: string) => Promise<void>): Promise<void>
  /** Whether an incarnation is still counted among the living. */
  isMember(id: string): Promise<boolean>
  leave(): Promise<void>
}

export interface MembershipOptions {
  db: Db
  random: Random
  log: Log
  stamp: Stamp
  host: string
  pid: number
  settings: WorkSettings
}

/** Beats at which a silence must be seen before it counts. */
const SILENT_BEATS = 3

export function createMembership({ db, random, log, stamp, host, pid, settings }: MembershipOptions): Membership {
  let me = random.uuid()
  let suspects = new Map<string, { seenAtMs: number; beats: number }>()

  async function join(adopt: (trx: Db, me: string) => Promise<void>): Promise<void> {
    await db.transaction(async (trx) => {
      if (!isShared(db)) await processes.removeAll(trx)
      await adopt(trx, me) // before this one counts as there, so that what it left undone before its start is adopted too
      await processes.insert(trx, { id: me, host, pid }, stamp())
    })
  }

  async function findDead(): Promise<[id: string, seenAtMs: number][]> {
    const silent = await processes.silent(db, settings.deadAfterMs)
    suspects = new Map(
      silent.map(({ id, seenAtMs }) => {
        const before = suspects.get(id)
        const beats = before?.seenAtMs === seenAtMs ? before.beats + 1 : 1
        return [id, { seenAtMs, beats }]
      }),
    )
    return [...suspects].flatMap(([id, { seenAtMs, beats }]) => (beats < SILENT_BEATS ? [] : [[id, seenAtMs]]))
  }

  return {
    me: () => me,
    join,
    beat: async (adopt) => {
      if (!(await processes.beat(db, me))) {
        log.warn({ process: me }, 'this process was silent for too long: others took over its work')
        me = random.uuid()
        await join(adopt)
      }
      const dead = await findDead()
      for (const [id] of dead) log.warn({ process: id }, 'another process is gone; its work goes on here')
      await db.transaction(async (trx) => {
        for (const [id, seenAtMs] of dead) await processes.removeSilent(trx, id, seenAtMs)
        await adopt(trx, me)
      })
    },
    isMember: (id) => processes.exists(db, id),
    leave: () => processes.remove(db, me),
  }
}
