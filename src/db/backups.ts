import type { Knex } from 'knex'
import { compareAndSet as change, type StatusChange } from './compare-and-set.ts'
import { countBy } from './count-by.ts'
import type { Db } from './database.ts'
import { type Columns, type Listing, listRows, type Rows } from './listing.ts'

export interface BackupRow {
  id: string
  project_id: string
  user_id: string
  volume_id: string
  /** The snapshot that was asked to be backed up. */
  snapshot_id: string | null
  /** The backup that an incremental one is based on. */
  parent_id: string | null
  /** The volume that it is being restored to. */
  restore_volume_id: string | null
  name: string | null
  description: string | null
  size_gib: number
  status: string
  status_reason: string | null
  /** JSON object of strings. */
  metadata: string
  availability_zone: string | null
  container: string
  /** The id that it lies under on its target; null for its own. Others may lie there too. */
  location_id: string | null
  object_count: number
  /** The page that copying, from or to the volume, goes on with. */
  next_page: number
  /** When the volume held what the backup holds. */
  data_timestamp: string
  /** Of an encrypted volume. */
  encryption_key_id: string | null
  created_at: string
  updated_at: string | null
}

export interface ListedBackupRow extends BackupRow {
  /** How many incremental backups are based on it. */
  dependents: number
}

export const BACKUP_COLUMNS: Columns = {
  id: { name: 'id', kind: 'text' },
  project_id: { name: 'project_id', kind: 'text' },
  user_id: { name: 'user_id', kind: 'text' },
  volume_id: { name: 'volume_id', kind: 'text' },
  snapshot_id: { name: 'snapshot_id', kind: 'text', nullable: true },
  name: { name: 'name', kind: 'text', nullable: true },
  display_name: { name: 'name', kind: 'text', nullable: true },
  description: { name: 'description', kind: 'text', nullable: true },
  status: { name: 'status', kind: 'text' },
  size: { name: 'size_gib', kind: 'number' },
  container: { name: 'container', kind: 'text' },
  availability_zone: { name: 'availability_zone', kind: 'text', nullable: true },
  object_count: { name: 'object_count', kind: 'number' },
  data_timestamp: { name: 'data_timestamp', kind: 'time' },
  created_at: { name: 'created_at', kind: 'time' },
  updated_at: { name: 'updated_at', kind: 'time', nullable: true },
}

function withDependents(query: Knex.QueryBuilder): void {
  const dependents = query.client
    .queryBuilder()
    .from('backups as later')
    .whereRaw('later.parent_id = backups.id')
    .count()
  query.select({ dependents })
}

export async function insert(trx: Db, row: BackupRow): Promise<void> {
  await trx('backups').insert(row)
}

export async function find(db: Db, id: string): Promise<ListedBackupRow | undefined> {
  const query = db('backups').where('backups.id', id).select('backups.*')
  withDependents(query)
  return fromStore(await query.first())
}

/** As `find`; no other transaction changes the row until this one has ended. */
export async function lock(trx: Db, id: string): Promise<ListedBackupRow | undefined> {
  await trx('backups').where({ id }).forUpdate().first('id')
  return find(trx, id)
}

/** Every row: for the comparison with the target, not for requests. */
export async function all(db: Db): Promise<BackupRow[]> {
  return db('backups')
}

export async function list(db: Db, listing: Listing, options: { count: boolean }): Promise<Rows<ListedBackupRow>> {
  const page = await listRows<ListedBackupRow>(db, 'backups', BACKUP_COLUMNS, listing, {
    ...options,
    select: withDependents,
  })
  return { ...page, rows: page.rows.map((row) => fromStore(row)!) }
}

/** The last backup of a volume that an incremental one can be based on; it stays so until the transaction ends. */
export async function latestOf(trx: Db, projectId: string, volumeId: string): Promise<BackupRow | undefined> {
  return trx('backups')
    .where({ project_id: projectId, volume_id: volumeId, status: 'available' })
    .orderBy([
      { column: 'data_timestamp', order: 'desc' },
      { column: 'created_at', order: 'desc' },
    ])
    .forUpdate()
    .first()
}

/** Where a backup lies on its target. */
export const locationOf = ({ container, id, location_id }: Pick<BackupRow, 'container' | 'id' | 'location_id'>) => ({
  container,
  id: location_id ?? id,
})

/** Those that lie there, under whichever ids; they stay so until the transaction ends. */
export async function lockAt(trx: Db, { container, id }: { container: string; id: string }): Promise<BackupRow[]> {
  const isThere = (query: Knex.QueryBuilder) =>
    query.where({ location_id: id }).orWhere((own) => own.where({ id, location_id: null }))
  return trx('backups').where({ container }).andWhere(isThere).orderBy('id').forUpdate()
}

/** Those of a volume whose making failed, and may have left a snapshot of their own in its backend. */
export async function failedOf(db: Db, volumeId: string): Promise<BackupRow[]> {
  return db('backups').where({ volume_id: volumeId }).whereIn('status', ['error', 'error_deleting'])
}

export async function update(
  trx: Db,
  id: string,
  columns: Partial<Omit<BackupRow, 'id' | 'status'>> & { updated_at: string },
): Promise<void> {
  await trx('backups').where({ id }).update(columns)
}

export function compareAndSet(trx: Db, id: string, statusChange: StatusChange): Promise<boolean> {
  return change(trx, 'backups', id, statusChange)
}

/** Condition for compareAndSet: no incremental backup is based on this one. */
export function withoutDependents(query: Knex.QueryBuilder): void {
  query.whereNotExists((later) => {
    later.from('backups as later').whereRaw('later.parent_id = backups.id').select('later.id')
  })
}

export async function remove(trx: Db, id: string): Promise<boolean> {
  return (await trx('backups').where({ id }).delete()) === 1
}

export async function countByStatus(db: Db): Promise<Map<string, number>> {
  return countBy(db, 'backups', 'status')
}

/** PostgreSQL answers counts as text. */
function fromStore(row: ListedBackupRow | undefined): ListedBackupRow | undefined {
  return row && { ...row, dependents: Number(row.dependents) }
}
