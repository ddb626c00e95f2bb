import type { Knex } from 'knex'
import { type AttachmentRow, JOINED_COLUMNS, ofJoined } from './attachments.ts'
import { compareAndSet as change, type StatusChange } from './compare-and-set.ts'
import { countBy } from './count-by.ts'
import type { Db } from './database.ts'
import { isPostgres, whereAmong } from './dialect.ts'
import { applyFilters, type Columns, type FilterValue, type Listing, listRows, type Rows, whereAt } from './listing.ts'
import { existingIn } from './row-counts.ts'

export interface VolumeRow {
  id: string
  project_id: string
  user_id: string
  name: string | null
  description: string | null
  size_gib: number
  /** The size it is being extended to. The quota counts this one while it is set. */
  pending_size_gib: number | null
  status: string
  /** Why the last work on it failed, for people. */
  status_reason: string | null
  host: string | null
  availability_zone: string
  volume_type_id: string
  snapshot_id: string | null
  source_volid: string | null
  /** SQLite answers 0 and 1. */
  bootable: boolean | number
  multiattach: boolean | number
  /** JSON object of strings. */
  metadata: string
  /** JSON, while it is being made: see PlacementMemo. */
  placement: string | null
  /** JSON objects of strings. */
  admin_metadata: string
  image_metadata: string
  /** The image that is made of it, under whose id its work and its snapshot are. */
  upload_image_id: string | null
  migration_status: string | null
  /** The type it is being changed to. The quota counts both while it is set. */
  pending_volume_type_id: string | null
  group_id: string | null
  /** The same, when the group is a consistency group. */
  consistencygroup_id: string | null
  /** What its backend calls it, when that is not its id. */
  name_id: string | null
  /** False for what it would be wrong to charge anybody for. */
  consumes_quota: boolean | number
  /** Null: it is not encrypted. */
  encryption_key_id: string | null
  created_at: string
  updated_at: string | null
}

export interface NamedVolumeRow extends VolumeRow {
  volume_type_name: string
}

export const atHost = (query: Knex.QueryBuilder, value: FilterValue) => whereAt(query, 'volumes.host', String(value))

export const VOLUME_COLUMNS: Columns = {
  id: { name: 'id', kind: 'text' },
  project_id: { name: 'project_id', kind: 'text' },
  user_id: { name: 'user_id', kind: 'text' },
  name: { name: 'name', kind: 'text', nullable: true },
  display_name: { name: 'name', kind: 'text', nullable: true },
  description: { name: 'description', kind: 'text', nullable: true },
  display_description: { name: 'description', kind: 'text', nullable: true },
  size: { name: 'size_gib', kind: 'number' },
  status: { name: 'status', kind: 'text' },
  host: { name: 'host', kind: 'text', nullable: true, where: atHost },
  shared_targets: { name: 'status', kind: 'text', where: whereSharedTargets },
  attach_status: { name: 'status', kind: 'text', where: whereAttached },
  availability_zone: { name: 'availability_zone', kind: 'text' },
  volume_type_id: { name: 'volume_type_id', kind: 'text' },
  snapshot_id: { name: 'snapshot_id', kind: 'text', nullable: true },
  source_volid: { name: 'source_volid', kind: 'text', nullable: true },
  bootable: { name: 'bootable', kind: 'boolean' },
  multiattach: { name: 'multiattach', kind: 'boolean' },
  metadata: { name: 'metadata', kind: 'json' },
  glance_metadata: { name: 'image_metadata', kind: 'json' },
  group_id: { name: 'group_id', kind: 'text', nullable: true },
  consistencygroup_id: { name: 'consistencygroup_id', kind: 'text', nullable: true },
  migration_status: { name: 'migration_status', kind: 'text', nullable: true },
  no_migration_targets: { name: 'migration_status', kind: 'text', where: notTarget },
  consumes_quota: { name: 'consumes_quota', kind: 'boolean' },
  use_quota: { name: 'consumes_quota', kind: 'boolean' },
  created_at: { name: 'created_at', kind: 'time' },
  updated_at: { name: 'updated_at', kind: 'time', nullable: true },
}

/** Every attachment has a target of its own; only of a volume that is being made nobody knows. */
function whereSharedTargets(query: Knex.QueryBuilder, value: FilterValue): void {
  query.where('volumes.status', value === true ? '=' : '<>', 'creating')
}

/** The status of a volume that is attached to nothing is `detached`, also while it is only reserved. */
function whereAttached(query: Knex.QueryBuilder, value: FilterValue): void {
  const statuses = ['attached', 'attaching', 'error_attaching', 'error_detaching']
  const having = (wanted: readonly FilterValue[]) => (attached: Knex.QueryBuilder) => {
    attached
      .from('attachments')
      .select('volume_id')
      .whereIn('attachments.status', wanted as string[])
  }
  if (value === 'detached') query.whereNotIn('volumes.id', having(statuses))
  else query.whereIn('volumes.id', having(statuses.filter((status) => status === value)))
}

function withTypeName(query: Knex.QueryBuilder): void {
  query
    .join('volume_types', 'volume_types.id', 'volumes.volume_type_id')
    .select({ volume_type_name: 'volume_types.name' })
}

export async function insert(db: Db, row: VolumeRow): Promise<void> {
  await db('volumes').insert(row)
}

export async function find(db: Db, id: string): Promise<NamedVolumeRow | undefined> {
  const query = db('volumes').where('volumes.id', id).select('volumes.*')
  withTypeName(query)
  return query.first()
}

/** The volume and its attachments, oldest first, in one statement: what most requests ask for. */
export async function findAttached(
  db: Db,
  id: string,
): Promise<{ row: NamedVolumeRow; attachments: AttachmentRow[] } | undefined> {
  const query = db('volumes')
    .where('volumes.id', id)
    .leftJoin('attachments', 'attachments.volume_id', 'volumes.id')
    .orderBy(['attachments.created_at', 'attachments.id'])
    .select('volumes.*', db.raw(JOINED_COLUMNS))
  withTypeName(query)
  const rows: (NamedVolumeRow & Record<string, unknown>)[] = await query
  const row = rows[0]
  return row && { row, attachments: rows.flatMap((joined) => ofJoined(joined) ?? []) }
}

/** As `find`; no other transaction changes the row until this one has ended. */
export async function lock(trx: Db, id: string): Promise<NamedVolumeRow | undefined> {
  // No join: PostgreSQL finds nothing when the row has another type by the time that it has waited for it.
  const typeName = trx('volume_types').whereRaw('volume_types.id = volumes.volume_type_id').select('name')
  return trx('volumes')
    .where('volumes.id', id)
    .select('volumes.*', typeName.as('volume_type_name'))
    .forUpdate('volumes')
    .first()
}

/** Keeps a volume as it is until the transaction ends: of SQLite, each transaction has all of it to itself. */
export async function hold(trx: Db, id: string): Promise<void> {
  if (isPostgres(trx)) await trx('volumes').where({ id }).forUpdate().first('id')
}

/** Oldest first. */
export async function ofGroup(db: Db, groupId: string): Promise<VolumeRow[]> {
  return db('volumes').where({ group_id: groupId }).orderBy(['created_at', 'id'])
}

/** As `ofGroup`, in the order in which everybody locks several volumes; no other transaction changes them until this one has ended. */
export async function lockOfGroup(trx: Db, groupId: string): Promise<VolumeRow[]> {
  return trx('volumes').where({ group_id: groupId }).orderBy('id').forUpdate()
}

/** Volumes of groups that were copied from this one, under whose ids copies that failed may have left snapshots of it. */
export async function groupCopiesOf(db: Db, id: string): Promise<string[]> {
  return db('volumes').where({ source_volid: id }).whereNotNull('group_id').pluck('id')
}

/** Every row: for the comparison with a backend, not for requests. */
export async function all(db: Db): Promise<VolumeRow[]> {
  return db('volumes')
}

/** `targets: false` leaves out those that others are being moved to. */
export async function list(
  db: Db,
  listing: Listing,
  { count, targets = true }: { count: boolean; targets?: boolean },
): Promise<Rows<NamedVolumeRow>> {
  const visible = targets ? {} : { visible: notTarget }
  return listRows(db, 'volumes', VOLUME_COLUMNS, listing, { count, select: withTypeName, ...visible })
}

/** Counts and sums over all rows that match; `metadata` are the distinct JSON texts that are not empty, as they first came up. */
export async function summarize(
  db: Db,
  listing: Pick<Listing, 'projectId' | 'filters'>,
): Promise<{ count: number; sizeGib: number; metadata: string[] }> {
  const matching = () => {
    const query = db('volumes')
    if (listing.projectId !== null) query.where('volumes.project_id', listing.projectId)
    applyFilters(query, 'volumes', VOLUME_COLUMNS, listing.filters)
    return query
  }
  const [sums] = await matching().count({ count: '*' }).sum({ size: 'size_gib' })
  const texts: { metadata: string }[] = await matching()
    .whereNot('metadata', '{}')
    .groupBy('metadata')
    .select('metadata')
    .orderByRaw('min(created_at)')
  return { count: Number(sums?.count), sizeGib: Number(sums?.size ?? 0), metadata: texts.map((row) => row.metadata) }
}

export async function update(
  db: Db,
  id: string,
  columns: Partial<Omit<VolumeRow, 'id' | 'status'>> & { updated_at: string },
): Promise<void> {
  await db('volumes').where({ id }).update(columns)
}

export function compareAndSet(db: Db, id: string, statusChange: StatusChange): Promise<boolean> {
  return change(db, 'volumes', id, statusChange)
}

/** Condition for compareAndSet: no volume is being made from this one. */
export function notBeingCloned(query: Knex.QueryBuilder): void {
  query.whereNotExists((clones) => {
    clones
      .from('volumes as clones')
      .whereRaw('clones.source_volid = volumes.id')
      .where('clones.status', 'creating')
      .select('clones.id')
  })
}

/** Condition for compareAndSet: what is in a group goes with it. */
export function notInGroup(query: Knex.QueryBuilder): void {
  query.whereNull('volumes.group_id')
}

/** Whether a volume is being made from this one. */
export async function isBeingCloned(db: Db, id: string): Promise<boolean> {
  return (await db('volumes').where({ source_volid: id, status: 'creating' }).first('id')) !== undefined
}

/** The migration status of the volume that another one is moved to. */
export const targetOf = (id: string) => `target:${id}`

function notTarget(query: Knex.QueryBuilder): void {
  query.where((either) => {
    either.whereNull('volumes.migration_status').orWhere('volumes.migration_status', 'not like', targetOf('%'))
  })
}

/** Condition for compareAndSet: the compute service is not at work on moving the volume. */
export function notLeaving(query: Knex.QueryBuilder): void {
  query.where((either) => {
    either.whereNull('volumes.migration_status').orWhereNotIn('volumes.migration_status', ['starting', 'migrating'])
  })
}

/** Migration statuses that say that no migration goes on; null does too. */
const SETTLED_MIGRATIONS = ['deleting', 'error', 'success']

/** Condition for compareAndSet: the volume is not on its way to another backend. */
export function notMigrating(query: Knex.QueryBuilder): void {
  query.where((either) => {
    either.whereNull('volumes.migration_status').orWhereIn('volumes.migration_status', SETTLED_MIGRATIONS)
  })
}

export function isMigrating(row: VolumeRow): boolean {
  return row.migration_status !== null && !SETTLED_MIGRATIONS.includes(row.migration_status)
}

export async function remove(trx: Db, id: string): Promise<boolean> {
  return (await trx('volumes').where({ id }).delete()) === 1
}

export async function countByStatus(db: Db): Promise<Map<string, number>> {
  return countBy(db, 'volumes', 'status')
}

/** Which of the ids there are volumes of. */
export async function existing(db: Db, ids: readonly string[]): Promise<Set<string>> {
  return existingIn(db, 'volumes', ids)
}

/** The ids of the volumes that backends know under these names. */
export async function idsByName(db: Db, names: readonly string[]): Promise<Map<string, string>> {
  const rows: { id: string; name: string }[] = await db('volumes')
    .select('id', db.raw('coalesce(name_id, id) as name'))
    .where((own) => whereAmong(own.whereNull('name_id'), 'id', names))
    .orWhere((other) => whereAmong(other, 'name_id', names))
  return new Map(rows.map(({ id, name }) => [name, id]))
}
