import { countBy } from './count-by.ts'
import type { Db } from './database.ts'

/** Work that outlives a request. At most one unit per resource; the unique key of `resource_id` holds that. */
export interface WorkRow {
  id: string
  kind: string
  resource_id: string
  /** Units of one lane run one after the other. */
  lane: string
  /** The process that runs it, by a name that it keeps across restarts. */
  owner: string
  /** JSON object, by kind. */
  params: string
  /** The request that asked for it; null when an earlier version wrote the row. */
  request_id: string | null
  next_step: string
  /** Attempts at this step so far, the one that runs or waits included. */
  attempt: number
  due_at_ms: number
  /** When the attempt has ended for certain; from then on another owner may take the unit. */
  deadline_at_ms: number
  last_error: string | null
  created_at: string
  updated_at: string | null
}

export async function insert(trx: Db, row: WorkRow): Promise<void> {
  await trx('work').insert(row)
}

export async function findByResource(db: Db, resourceId: string): Promise<WorkRow | undefined> {
  return fromStore(await db('work').where({ resource_id: resourceId }).first())
}

/** In the order in which they were asked for. */
export async function ofLane(db: Db, lane: string): Promise<WorkRow[]> {
  const rows: WorkRow[] = await db('work').where({ lane }).orderBy(['created_at', 'id'])
  return rows.map((row) => fromStore(row)!)
}

/** Answers whether the unit was still there: whoever removes it has the right to write its result. */
export async function remove(trx: Db, id: string): Promise<boolean> {
  return (await trx('work').where({ id }).delete()) === 1
}

export async function removeOfResource(trx: Db, resourceId: string): Promise<void> {
  await trx('work').where({ resource_id: resourceId }).delete()
}

/** Writes where a unit stands. Answers false when it is gone. */
export async function update(
  db: Db,
  id: string,
  columns: Pick<WorkRow, 'next_step' | 'attempt' | 'due_at_ms' | 'deadline_at_ms' | 'last_error'> & {
    updated_at: string
  },
): Promise<boolean> {
  return (await db('work').where({ id }).update(columns)) === 1
}

/** Units left by the last run of `owner`, and those of other owners whose deadline has passed: they become its own, due now. */
export async function claim(db: Db, owner: string, nowMs: number, deadlineAtMs: number): Promise<WorkRow[]> {
  await db('work')
    .where({ owner })
    .orWhere('deadline_at_ms', '<', nowMs)
    .update({ owner, due_at_ms: nowMs, deadline_at_ms: deadlineAtMs })
  const rows: WorkRow[] = await db('work').where({ owner }).orderBy(['created_at', 'id'])
  return rows.map((row) => fromStore(row)!)
}

/** The oldest due units of `owner` whose lanes are not among `busyLanes`. */
export async function due(
  db: Db,
  owner: string,
  nowMs: number,
  limit: number,
  busyLanes: readonly string[],
): Promise<WorkRow[]> {
  const rows: WorkRow[] = await db('work')
    .where({ owner })
    .where('due_at_ms', '<=', nowMs)
    .whereNotIn('lane', busyLanes)
    .orderBy(['due_at_ms', 'created_at', 'id'])
    .limit(limit)
  return rows.map((row) => fromStore(row)!)
}

/** When the first unit of `owner` falls due that is not among those left out; null when there is none. */
export async function nextDueAtMs(
  db: Db,
  owner: string,
  leaveOut: { units?: readonly string[]; lanes?: readonly string[] },
): Promise<number | null> {
  const [row] = await db('work')
    .where({ owner })
    .whereNotIn('id', leaveOut.units ?? [])
    .whereNotIn('lane', leaveOut.lanes ?? [])
    .min({ next: 'due_at_ms' })
  return row?.next === null || row?.next === undefined ? null : Number(row.next)
}

export async function countByKind(db: Db): Promise<Map<string, number>> {
  return countBy(db, 'work', 'kind')
}

/** PostgreSQL answers 64-bit numbers as text. */
function fromStore(row: WorkRow | undefined): WorkRow | undefined {
  return row && { ...row, due_at_ms: Number(row.due_at_ms), deadline_at_ms: Number(row.deadline_at_ms) }
}
