import type { Db } from './database.ts'
import { nowMs } from './dialect.ts'

/**
 * The processes that work on this database. Each is one incarnation: a process that was given up for dead and comes back is
 * another one. Whether one is alive is told by the clock of the database alone, so that the hosts' own need not agree.
 */
export interface Process {
  id: string
  host: string
  pid: number
}

export async function insert(db: Db, process: Process, startedAt: string): Promise<void> {
  await db('processes').insert({ ...process, started_at: startedAt, seen_at_ms: nowMs(db) })
}

/** Says that a process is alive. Answers false when it has been given up for dead. */
export async function beat(db: Db, id: string): Promise<boolean> {
  return (
    (await db('processes')
      .where({ id })
      .update({ seen_at_ms: nowMs(db) })) === 1
  )
}

export async function exists(db: Db, id: string): Promise<boolean> {
  return (await db('processes').where({ id }).first('id')) !== undefined
}

/** Those that have said nothing for `silentMs`, and when they last did. */
export async function silent(db: Db, silentMs: number): Promise<{ id: string; seenAtMs: number }[]> {
  const rows: { id: string; seen_at_ms: number | string }[] = await db('processes')
    .where('seen_at_ms', '<', db.raw('? - ?', [nowMs(db), silentMs]))
    .select('id', 'seen_at_ms')
  return rows.map((row) => ({ id: row.id, seenAtMs: Number(row.seen_at_ms) }))
}

/** Removes one that is still as silent as it was at `seenAtMs`. */
export async function removeSilent(trx: Db, id: string, seenAtMs: number): Promise<void> {
  await trx('processes').where({ id, seen_at_ms: seenAtMs }).delete()
}

export async function removeAll(trx: Db): Promise<void> {
  await trx('processes').delete()
}

export async function remove(db: Db, id: string): Promise<void> {
  await db('processes').where({ id }).delete()
}
