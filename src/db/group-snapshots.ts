import type { Knex } from 'knex'
import { compareAndSet as change, type StatusChange } from './compare-and-set.ts'
import type { Db } from './database.ts'
import { type Columns, type Listing, listRows, type Rows } from './listing.ts'

export interface GroupSnapshotRow {
  id: string
  project_id: string
  user_id: string
  group_id: string
  group_type_id: string
  /** SQLite answers 0 and 1. */
  is_consistency_group: boolean | number
  name: string | null
  description: string | null
  status: string
  status_reason: string | null
  created_at: string
  updated_at: string | null
}

export const GROUP_SNAPSHOT_COLUMNS: Columns = {
  id: { name: 'id', kind: 'text' },
  project_id: { name: 'project_id', kind: 'text' },
  user_id: { name: 'user_id', kind: 'text' },
  group_id: { name: 'group_id', kind: 'text' },
  group_type_id: { name: 'group_type_id', kind: 'text' },
  name: { name: 'name', kind: 'text', nullable: true },
  description: { name: 'description', kind: 'text', nullable: true },
  status: { name: 'status', kind: 'text' },
  created_at: { name: 'created_at', kind: 'time' },
  updated_at: { name: 'updated_at', kind: 'time', nullable: true },
}

export async function insert(trx: Db, row: GroupSnapshotRow): Promise<void> {
  await trx('group_snapshots').insert(row)
}

export async function find(db: Db, id: string): Promise<GroupSnapshotRow | undefined> {
  return db('group_snapshots').where({ id }).first()
}

/** As `find`; no other transaction changes the row until this one has ended. */
export async function lock(trx: Db, id: string): Promise<GroupSnapshotRow | undefined> {
  return trx('group_snapshots').where({ id }).forUpdate().first()
}

/** `generic` leaves those of consistency groups out. */
export async function list(db: Db, listing: Listing, scope: 'generic' | 'all'): Promise<Rows<GroupSnapshotRow>> {
  return listRows(db, 'group_snapshots', GROUP_SNAPSHOT_COLUMNS, listing, {
    count: false,
    visible: (query: Knex.QueryBuilder) => {
      if (scope === 'generic') query.where('group_snapshots.is_consistency_group', false)
    },
  })
}

export async function isAnyOf(db: Db, groupId: string): Promise<boolean> {
  return (await db('group_snapshots').where({ group_id: groupId }).first('id')) !== undefined
}

export function compareAndSet(db: Db, id: string, statusChange: StatusChange): Promise<boolean> {
  return change(db, 'group_snapshots', id, statusChange)
}

/** Condition for compareAndSet: no group is being made from this snapshot. */
export function notBeingRead(query: Knex.QueryBuilder): void {
  query.whereNotExists((copies) => {
    copies
      .from('volume_groups')
      .whereRaw('volume_groups.group_snapshot_id = group_snapshots.id')
      .where('volume_groups.status', 'creating')
      .select('volume_groups.id')
  })
}

export async function remove(trx: Db, id: string): Promise<boolean> {
  return (await trx('group_snapshots').where({ id }).delete()) === 1
}
