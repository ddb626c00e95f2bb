import type { Knex } from 'knex'
import { countBy } from './count-by.ts'
import type { Db } from './database.ts'
import { isPostgres, nowMs } from './dialect.ts'

/** Work that outlives a request. At most one unit per resource; the unique key of `resource_id` holds that. */
export interface WorkRow {
  id: string
  kind: string
  resource_id: string
  /** Units of one lane run one after the other. */
  lane: string
  /** The incarnation of a process that runs it, or ran it last, or made it. */
  owner: string
  /** Grows whenever the unit changes hands, so that an earlier owner cannot write results any more. */
  fence: number
  /** JSON object, by kind. */
  params: string
  /** The request that asked for it; null when an earlier version wrote the row. */
  request_id: string | null
  next_step: string
  /** Attempts at this step so far, the one that runs or waits included. */
  attempt: number
  /** By the clock of the database, as is the deadline. */
  due_at_ms: number
  /** When the attempt that runs or waits counts as failed. */
  deadline_at_ms: number
  last_error: string | null
  created_at: string
  updated_at: string | null
}

/** What somebody must still have to write the result of a unit. */
export type Claim = Pick<WorkRow, 'id' | 'owner' | 'fence'>

/** How long from now an attempt may begin, and how long from then it may take. */
export interface Schedule {
  dueInMs: number
  timeoutMs: number
}

export async function insert(
  trx: Db,
  row: Omit<WorkRow, 'due_at_ms' | 'deadline_at_ms'>,
  schedule: Schedule,
): Promise<void> {
  await trx('work').insert({ ...row, ...times(trx, schedule) })
}

export async function findByResource(db: Db, resourceId: string): Promise<WorkRow | undefined> {
  return fromStore(await db('work').where({ resource_id: resourceId }).first())
}

/** What work is about: its resource, its lane, the volume that it moves another one to, and that of work with a lane of its own. */
export async function allConcerned(db: Db): Promise<Set<string>> {
  const rows: Pick<WorkRow, 'resource_id' | 'lane' | 'params'>[] = await db('work').select(
    'resource_id',
    'lane',
    'params',
  )
  const targets = rows.flatMap(({ params }): string[] => JSON.parse(params).targetId ?? [])
  const uploaded: string[] = await db('volumes')
    .whereIn('upload_image_id', db('work').select('resource_id'))
    .pluck('id')
  const backedUp: string[] = await db('backups').whereIn('id', db('work').select('resource_id')).pluck('volume_id')
  const grouped: string[] = await db('volumes').whereIn('group_id', db('work').select('lane')).pluck('id')
  const frozen: string[] = await db('snapshots')
    .whereIn('group_snapshot_id', db('work').select('resource_id'))
    .pluck('id')
  return new Set([
    ...rows.flatMap(({ resource_id, lane }) => [resource_id, lane]),
    ...targets,
    ...uploaded,
    ...backedUp,
    ...grouped,
    ...frozen,
  ])
}

/** Which of the units there still are. */
export async function existing(db: Db, ids: readonly string[]): Promise<Set<string>> {
  return new Set(await db('work').whereIn('id', ids).pluck('id'))
}

/** Work on a volume, on what hangs on it, and on backups that were made from it, in the order in which it was asked for. */
export async function ofVolume(db: Db, volumeId: string): Promise<WorkRow[]> {
  const backups = db('backups').where({ volume_id: volumeId }).select('id')
  const ofBackups = db('work').whereIn('resource_id', backups).whereNot({ lane: volumeId })
  const uploads = db('volumes').where({ id: volumeId }).whereNotNull('upload_image_id').select('upload_image_id')
  const ofUploads = db('work').whereIn('resource_id', uploads)
  const groups = db('volumes').where({ id: volumeId }).whereNotNull('group_id').select('group_id')
  const ofGroup = db('work').whereIn('lane', groups)
  const rows: WorkRow[] = await db('work')
    .where({ lane: volumeId })
    .unionAll([ofBackups, ofUploads, ofGroup])
    .orderBy(['created_at', 'id'])
  return rows.map((row) => fromStore(row)!)
}

/** In the order in which it was asked for. */
export async function ofLane(db: Db, lane: string): Promise<WorkRow[]> {
  const rows: WorkRow[] = await db('work').where({ lane }).orderBy(['created_at', 'id'])
  return rows.map((row) => fromStore(row)!)
}

/** Answers whether the claim still held: whoever removes a unit has the right to write its result. */
export async function remove(trx: Db, claim: Claim): Promise<boolean> {
  return (await held(trx, claim).delete()) === 1
}

export async function removeOfResource(trx: Db, resourceId: string): Promise<void> {
  await trx('work').where({ resource_id: resourceId }).delete()
}

/** Writes where a unit stands. Answers false when the claim does not hold any more. */
export async function update(
  db: Db,
  claim: Claim,
  columns: Pick<WorkRow, 'next_step' | 'attempt' | 'last_error' | 'updated_at'>,
  schedule: Schedule,
): Promise<boolean> {
  return (await held(db, claim).update({ ...columns, ...times(db, schedule) })) === 1
}

/**
 * Hands the units of processes that are not there any more to `owner`; `resume` says at which step each goes on, and `waits`
 * which of them keep their time: the others are due now. Units whose rows are being written at this moment are left for the next time.
 */
export async function takeOver(
  trx: Db,
  owner: string,
  {
    resume,
    waits,
    timeoutMs,
  }: { resume: (row: WorkRow) => string; waits: (row: WorkRow) => boolean; timeoutMs: number },
): Promise<number> {
  const orphans = trx('work').whereNotIn('owner', trx('processes').select('id'))
  const rows: WorkRow[] = await skipLocked(orphans)
  for (const row of rows) {
    const step = resume(row)
    await held(trx, row).update({
      owner,
      fence: row.fence + 1,
      next_step: step,
      attempt: step === row.next_step ? row.attempt : 1,
      ...(waits(row) ? {} : times(trx, { dueInMs: 0, timeoutMs })),
    })
  }
  const empty = trx('lanes').whereNotIn('owner', trx('processes').select('id')).select('lane')
  await trx('lanes').whereIn('lane', skipLocked(empty)).delete()
  return rows.length
}

/** The oldest due units whose lanes are not among `busyLanes`. For the only process that there is. */
export async function due(db: Db, limit: number, busyLanes: readonly string[]): Promise<WorkRow[]> {
  const rows: WorkRow[] = await dueRows(db, limit, busyLanes)
  return rows.map((row) => fromStore(row)!)
}

/** As `due`, among several processes: what it answers belongs to `owner`, with its lanes, and to nobody else. */
export async function claimDue(db: Db, owner: string, limit: number, busyLanes: readonly string[]): Promise<WorkRow[]> {
  return db.transaction(async (trx) => {
    const rows: WorkRow[] = await skipLocked(dueRows(trx, limit, busyLanes).whereNotExists(runningInItsLane(trx)))
    const firstOfLane = [...new Map(rows.toReversed().map((row) => [row.lane, row])).values()]
    if (firstOfLane.length === 0) return []
    const won = new Set(await takeLanes(trx, owner, firstOfLane))
    const claimed = rows.filter(({ id }) => won.has(id))
    const ids = claimed.map(({ id }) => id)
    await trx('work')
      .whereIn('id', ids)
      .update({ owner, fence: trx.raw('fence + 1') })
    return claimed.map((row) => fromStore({ ...row, owner, fence: row.fence + 1 })!)
  })
}

/** Takes the lanes that are free; answers the ids of the units that have theirs. */
export async function takeLanes(
  trx: Db,
  owner: string,
  units: readonly Pick<WorkRow, 'id' | 'lane'>[],
): Promise<string[]> {
  const rows: { unit_id: string }[] = await trx('lanes')
    .insert(units.map(({ id, lane }) => ({ lane, unit_id: id, owner })))
    .onConflict('lane')
    .ignore()
    .returning('unit_id')
  return rows.map(({ unit_id }) => unit_id)
}

/** Answers whether other units wait for the lane. */
export async function freeLane(db: Db, { id, owner, lane }: Pick<WorkRow, 'id' | 'owner' | 'lane'>): Promise<boolean> {
  await db('lanes').where({ lane, unit_id: id, owner }).delete()
  return (await db('work').where({ lane }).whereNot({ id }).first('id')) !== undefined
}

/** The units that `owner` is said to run. */
export async function runningOf(db: Db, owner: string): Promise<string[]> {
  return db('lanes').where({ owner }).pluck('unit_id')
}

/** Gives up the claim and the lane of a unit that `owner` does not run after all. */
export async function release(db: Db, owner: string, unitId: string): Promise<void> {
  await db.transaction(async (trx) => {
    await trx('work')
      .where({ id: unitId, owner })
      .update({ fence: trx.raw('fence + 1') })
    await trx('lanes').where({ unit_id: unitId, owner }).delete()
  })
}

/** Whether a unit waits that is not among `units`. What runs in another process does not wait. */
export async function isWaiting(db: Db, units: readonly string[]): Promise<boolean> {
  const query = db('work').whereNotIn('id', units)
  query.whereNotExists((lanes: Knex.QueryBuilder) =>
    lanes.from('lanes').whereRaw('lanes.unit_id = work.id').select('lane'),
  )
  return (await query.first('id')) !== undefined
}

/** How long until the first unit falls due whose lane is neither among `busyLanes` nor taken; null when there is none. */
export async function dueInMs(db: Db, busyLanes: readonly string[]): Promise<number | null> {
  const [row] = await db('work')
    .whereNotIn('lane', busyLanes)
    .whereNotExists(runningInItsLane(db))
    .select({ wait: db.raw('min(due_at_ms) - ?', [nowMs(db)]) })
  return row?.wait === null || row?.wait === undefined ? null : Math.max(0, Number(row.wait))
}

export async function countByKind(db: Db): Promise<Map<string, number>> {
  return countBy(db, 'work', 'kind')
}

function held(db: Db, { id, owner, fence }: Claim): Knex.QueryBuilder {
  return db('work').where({ id, owner, fence })
}

function dueRows(db: Db, limit: number, busyLanes: readonly string[]): Knex.QueryBuilder {
  return db('work')
    .where('due_at_ms', '<=', nowMs(db))
    .whereNotIn('lane', busyLanes)
    .orderBy(['due_at_ms', 'created_at', 'id'])
    .limit(limit)
}

function runningInItsLane(db: Db): Knex.QueryBuilder {
  return db('lanes').whereRaw('lanes.lane = work.lane').select('lane')
}

/** Only PostgreSQL has rows that others hold: with SQLite, a transaction has the database to itself. */
function skipLocked(query: Knex.QueryBuilder): Knex.QueryBuilder {
  return isPostgres(query as unknown as { client: { driverName: string } }) ? query.forUpdate().skipLocked() : query
}

function times(db: Db, { dueInMs, timeoutMs }: Schedule) {
  return {
    due_at_ms: db.raw('? + ?', [nowMs(db), dueInMs]),
    deadline_at_ms: db.raw('? + ?', [nowMs(db), dueInMs + timeoutMs]),
  }
}

/** PostgreSQL answers 64-bit numbers as text. */
function fromStore(row: WorkRow | undefined): WorkRow | undefined {
  return row && { ...row, due_at_ms: Number(row.due_at_ms), deadline_at_ms: Number(row.deadline_at_ms) }
}
