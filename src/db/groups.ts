import type { Knex } from 'knex'
import { compareAndSet as change, type StatusChange } from './compare-and-set.ts'
import type { Db } from './database.ts'
import { type Columns, type Listing, listRows, type Rows } from './listing.ts'

export interface GroupRow {
  id: string
  project_id: string
  user_id: string
  name: string | null
  description: string | null
  status: string
  /** Why the last work on it failed, for people. */
  status_reason: string | null
  host: string | null
  availability_zone: string | null
  group_type_id: string
  /** SQLite answers 0 and 1. */
  is_consistency_group: boolean | number
  group_snapshot_id: string | null
  source_group_id: string | null
  created_at: string
  updated_at: string | null
}

export const GROUP_COLUMNS: Columns = {
  id: { name: 'id', kind: 'text' },
  project_id: { name: 'project_id', kind: 'text' },
  user_id: { name: 'user_id', kind: 'text' },
  name: { name: 'name', kind: 'text', nullable: true },
  description: { name: 'description', kind: 'text', nullable: true },
  status: { name: 'status', kind: 'text' },
  host: { name: 'host', kind: 'text', nullable: true },
  availability_zone: { name: 'availability_zone', kind: 'text', nullable: true },
  group_type_id: { name: 'group_type_id', kind: 'text' },
  group_snapshot_id: { name: 'group_snapshot_id', kind: 'text', nullable: true },
  source_group_id: { name: 'source_group_id', kind: 'text', nullable: true },
  created_at: { name: 'created_at', kind: 'time' },
  updated_at: { name: 'updated_at', kind: 'time', nullable: true },
}

export async function insert(trx: Db, row: GroupRow, volumeTypeIds: readonly string[]): Promise<void> {
  await trx('volume_groups').insert(row)
  if (volumeTypeIds.length === 0) return
  await trx('group_volume_types').insert(volumeTypeIds.map((volume_type_id) => ({ group_id: row.id, volume_type_id })))
}

export async function find(db: Db, id: string): Promise<GroupRow | undefined> {
  return db('volume_groups').where({ id }).first()
}

/** As `find`; no other transaction changes the group, or what is in it, until this one has ended. */
export async function lock(trx: Db, id: string): Promise<GroupRow | undefined> {
  return trx('volume_groups').where({ id }).forUpdate().first()
}

/** As `find`; the group stays as it is until this transaction, which puts a volume into it, has ended. */
export async function hold(trx: Db, id: string): Promise<GroupRow | undefined> {
  return trx('volume_groups').where({ id }).forShare().first()
}

/** `generic` leaves consistency groups out. */
export async function list(db: Db, listing: Listing, scope: 'generic' | 'all'): Promise<Rows<GroupRow>> {
  return listRows(db, 'volume_groups', GROUP_COLUMNS, listing, {
    count: false,
    visible: (query: Knex.QueryBuilder) => {
      if (scope === 'generic') query.where('volume_groups.is_consistency_group', false)
    },
  })
}

/** The volume types of each of the groups, in the order of their making. */
export async function typesOf(db: Db, ids: readonly string[]): Promise<Map<string, string[]>> {
  const rows: { group_id: string; volume_type_id: string }[] = await db('group_volume_types')
    .join('volume_types', 'volume_types.id', 'group_volume_types.volume_type_id')
    .whereIn('group_id', ids)
    .orderBy(['volume_types.created_at', 'volume_type_id'])
    .select('group_id', 'volume_type_id')
  return collect(
    ids,
    rows.map(({ group_id, volume_type_id }) => [group_id, volume_type_id]),
  )
}

/** The volumes in each of the groups, oldest first. */
export async function volumesOf(db: Db, ids: readonly string[]): Promise<Map<string, string[]>> {
  const rows: { group_id: string; id: string }[] = await db('volumes')
    .whereIn('group_id', ids)
    .orderBy(['created_at', 'id'])
    .select('group_id', 'id')
  return collect(
    ids,
    rows.map(({ group_id, id }) => [group_id, id]),
  )
}

function collect(ids: readonly string[], pairs: readonly (readonly [string, string])[]): Map<string, string[]> {
  const collected = new Map<string, string[]>(ids.map((id) => [id, []]))
  for (const [key, value] of pairs) collected.get(key)?.push(value)
  return collected
}

export async function update(
  db: Db,
  id: string,
  columns: Partial<Omit<GroupRow, 'id' | 'status'>> & { updated_at: string },
): Promise<void> {
  await db('volume_groups').where({ id }).update(columns)
}

export function compareAndSet(db: Db, id: string, statusChange: StatusChange): Promise<boolean> {
  return change(db, 'volume_groups', id, statusChange)
}

/** Condition for compareAndSet: no group is being made from this one. */
export function notBeingCopied(query: Knex.QueryBuilder): void {
  query.whereNotExists((copies) => {
    copies
      .from('volume_groups as copies')
      .whereRaw('copies.source_group_id = volume_groups.id')
      .where('copies.status', 'creating')
      .select('copies.id')
  })
}

export async function remove(trx: Db, id: string): Promise<boolean> {
  return (await trx('volume_groups').where({ id }).delete()) === 1
}
