import type { Knex } from 'knex'
import { compareAndSet as change, type StatusChange } from './compare-and-set.ts'
import { countBy } from './count-by.ts'
import type { Db } from './database.ts'
import { type Columns, type Listing, listRows, type Rows } from './listing.ts'
import { existingIn } from './row-counts.ts'
import { atHost } from './volumes.ts'

export interface SnapshotRow {
  id: string
  project_id: string
  user_id: string
  volume_id: string
  name: string | null
  description: string | null
  size_gib: number
  status: string
  /** What it was before its volume was deleted with it; null otherwise. */
  previous_status: string | null
  status_reason: string | null
  progress: string
  /** JSON objects of strings. */
  metadata: string
  image_metadata: string
  group_snapshot_id: string | null
  created_at: string
  updated_at: string | null
}

export const SNAPSHOT_COLUMNS: Columns = {
  id: { name: 'id', kind: 'text' },
  project_id: { name: 'project_id', kind: 'text' },
  user_id: { name: 'user_id', kind: 'text' },
  volume_id: { name: 'volume_id', kind: 'text' },
  name: { name: 'name', kind: 'text', nullable: true },
  display_name: { name: 'name', kind: 'text', nullable: true },
  description: { name: 'description', kind: 'text', nullable: true },
  size: { name: 'size_gib', kind: 'number' },
  volume_size: { name: 'size_gib', kind: 'number' },
  status: { name: 'status', kind: 'text' },
  progress: { name: 'progress', kind: 'text' },
  metadata: { name: 'metadata', kind: 'json' },
  group_snapshot_id: { name: 'group_snapshot_id', kind: 'text', nullable: true },
  availability_zone: { name: 'availability_zone', kind: 'text', parent: { table: 'volumes', key: 'volume_id' } },
  host: { name: 'host', kind: 'text', parent: { table: 'volumes', key: 'volume_id' }, where: atHost },
  created_at: { name: 'created_at', kind: 'time' },
  updated_at: { name: 'updated_at', kind: 'time', nullable: true },
}

export async function insert(db: Db, row: SnapshotRow): Promise<void> {
  await db('snapshots').insert(row)
}

export async function find(db: Db, id: string): Promise<SnapshotRow | undefined> {
  return db('snapshots').where({ id }).first()
}

/** As `find`; no other transaction changes the row until this one has ended. */
export async function lock(trx: Db, id: string): Promise<SnapshotRow | undefined> {
  return trx('snapshots').where({ id }).forUpdate().first()
}

/** Oldest first. */
export async function ofVolume(db: Db, volumeId: string): Promise<SnapshotRow[]> {
  return db('snapshots').where({ volume_id: volumeId }).orderBy(['created_at', 'id'])
}

/** As `ofVolume`; no other transaction changes or reads-to-use the rows until this one has ended. */
export async function lockOfVolume(trx: Db, volumeId: string): Promise<SnapshotRow[]> {
  return trx('snapshots').where({ volume_id: volumeId }).orderBy(['created_at', 'id']).forUpdate()
}

/** Of all volumes of a group at one moment, in the order in which everybody locks several. */
export async function ofGroupSnapshot(db: Db, groupSnapshotId: string): Promise<SnapshotRow[]> {
  return db('snapshots').where({ group_snapshot_id: groupSnapshotId }).orderBy('volume_id')
}

/** Whether a snapshot of the volume is being made together with others, which is not in the lane of the volume. */
export async function isFreezingWithGroup(db: Db, volumeId: string): Promise<boolean> {
  const query = db('snapshots').where({ volume_id: volumeId, status: 'creating' }).whereNotNull('group_snapshot_id')
  return (await query.first('id')) !== undefined
}

/** Every row: for the comparison with a backend, not for requests. */
export async function all(db: Db): Promise<SnapshotRow[]> {
  return db('snapshots')
}

export async function list(db: Db, listing: Listing, options: { count: boolean }): Promise<Rows<SnapshotRow>> {
  return listRows(db, 'snapshots', SNAPSHOT_COLUMNS, listing, options)
}

export async function update(
  db: Db,
  id: string,
  columns: Partial<Omit<SnapshotRow, 'id' | 'status'>> & { updated_at: string },
): Promise<void> {
  await db('snapshots').where({ id }).update(columns)
}

export function compareAndSet(db: Db, id: string, statusChange: StatusChange): Promise<boolean> {
  return change(db, 'snapshots', id, statusChange)
}

/** Gives the snapshots of a volume that was to be deleted with them the status they had. */
export async function restoreOfVolume(trx: Db, volumeId: string, reason: string, updatedAt: string): Promise<void> {
  await trx('snapshots')
    .where({ volume_id: volumeId, status: 'deleting' })
    .update({
      status: trx.raw("coalesce(previous_status, 'error')"),
      previous_status: null,
      status_reason: reason,
      updated_at: updatedAt,
    })
}

/** What a volume was being reverted to is a snapshot like any other, once nobody goes on with that. */
export async function endReverts(trx: Db, volumeId: string, updatedAt: string): Promise<void> {
  await trx('snapshots')
    .where({ volume_id: volumeId, status: 'restoring' })
    .update({ status: 'available', updated_at: updatedAt })
}

/** Condition for compareAndSet: what is part of a snapshot of a group goes with it. */
export function notInGroup(query: Knex.QueryBuilder): void {
  query.whereNull('snapshots.group_snapshot_id')
}

/** Condition for compareAndSet: no volume is being made from this snapshot. */
export function notBeingRead(query: Knex.QueryBuilder): void {
  query.whereNotExists((clones) => {
    clones
      .from('volumes')
      .whereRaw('volumes.snapshot_id = snapshots.id')
      .where('volumes.status', 'creating')
      .select('volumes.id')
  })
}

export async function remove(trx: Db, id: string): Promise<boolean> {
  return (await trx('snapshots').where({ id }).delete()) === 1
}

export async function countByStatus(db: Db): Promise<Map<string, number>> {
  return countBy(db, 'snapshots', 'status')
}

/** Which of the ids there are snapshots of. */
export async function existing(db: Db, ids: readonly string[]): Promise<Set<string>> {
  return existingIn(db, 'snapshots', ids)
}
