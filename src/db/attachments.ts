import { compareAndSet as change, type StatusChange } from './compare-and-set.ts'
import type { Db } from './database.ts'
import { whereAmong } from './dialect.ts'
import { type Columns, type Listing, listRows, type Rows } from './listing.ts'

export interface AttachmentRow {
  id: string
  /** The project of the volume. */
  project_id: string
  volume_id: string
  instance_id: string | null
  attached_host: string | null
  mountpoint: string | null
  status: string
  status_reason: string | null
  attach_mode: 'rw' | 'ro' | null
  /** JSON, as the initiator sent it. */
  connector: string | null
  /** JSON, as it was answered; it holds secrets. */
  connection_info: string | null
  attached_at: string | null
  detached_at: string | null
  /** By os-initialize_connection or os-attach: Nova knows nothing of it. */
  made_by_connection: boolean
  created_at: string
  updated_at: string | null
}

const NAMES: Readonly<Record<keyof AttachmentRow, string>> = {
  id: 'attachment_id',
  project_id: 'attachment_project_id',
  volume_id: 'attachment_volume_id',
  instance_id: 'attachment_instance_id',
  attached_host: 'attachment_attached_host',
  mountpoint: 'attachment_mountpoint',
  status: 'attachment_status',
  status_reason: 'attachment_status_reason',
  attach_mode: 'attachment_attach_mode',
  connector: 'attachment_connector',
  connection_info: 'attachment_connection_info',
  attached_at: 'attachment_attached_at',
  detached_at: 'attachment_detached_at',
  made_by_connection: 'attachment_made_by_connection',
  created_at: 'attachment_created_at',
  updated_at: 'attachment_updated_at',
}

/** For the select of a join with what has columns of the same names. */
export const JOINED_COLUMNS = Object.entries(NAMES)
  .map(([column, name]) => `attachments.${column} as ${name}`)
  .join(', ')

/** The attachment in a row that was selected so; null where there is none. */
export function ofJoined(row: Readonly<Record<string, unknown>>): AttachmentRow | null {
  if (row[NAMES.id] === null) return null
  return Object.fromEntries(
    Object.entries(NAMES).map(([column, name]) => [column, row[name]]),
  ) as unknown as AttachmentRow
}

export const ATTACHMENT_COLUMNS: Columns = {
  id: { name: 'id', kind: 'text' },
  project_id: { name: 'project_id', kind: 'text' },
  volume_id: { name: 'volume_id', kind: 'text' },
  instance_id: { name: 'instance_id', kind: 'text', nullable: true },
  instance_uuid: { name: 'instance_id', kind: 'text', nullable: true },
  attached_host: { name: 'attached_host', kind: 'text', nullable: true },
  mountpoint: { name: 'mountpoint', kind: 'text', nullable: true },
  status: { name: 'status', kind: 'text' },
  attach_status: { name: 'status', kind: 'text' },
  attach_mode: { name: 'attach_mode', kind: 'text', nullable: true },
  created_at: { name: 'created_at', kind: 'time' },
  updated_at: { name: 'updated_at', kind: 'time', nullable: true },
}

export async function insert(db: Db, row: AttachmentRow): Promise<void> {
  await db('attachments').insert(row)
}

export async function find(db: Db, id: string): Promise<AttachmentRow | undefined> {
  return db('attachments').where({ id }).first()
}

/** Oldest first. */
export async function ofVolume(db: Db, volumeId: string): Promise<AttachmentRow[]> {
  return db('attachments').where({ volume_id: volumeId }).orderBy(['created_at', 'id'])
}

/** The attachments of many volumes in one statement, oldest first. */
export async function ofVolumes(db: Db, volumeIds: readonly string[]): Promise<AttachmentRow[]> {
  if (volumeIds.length === 0) return []
  const query = db('attachments').orderBy(['created_at', 'id'])
  whereAmong(query, 'volume_id', volumeIds)
  return query
}

/** Every row: for the comparison with a backend, not for requests. */
export async function all(db: Db): Promise<AttachmentRow[]> {
  return db('attachments')
}

export async function list(db: Db, listing: Listing, options: { count: boolean }): Promise<Rows<AttachmentRow>> {
  return listRows(db, 'attachments', ATTACHMENT_COLUMNS, listing, options)
}

export function compareAndSet(db: Db, id: string, statusChange: StatusChange): Promise<boolean> {
  return change(db, 'attachments', id, statusChange)
}

/** Attachments go to another volume, of the same project. */
export async function move(trx: Db, ids: readonly string[], volumeId: string, updatedAt: string): Promise<void> {
  await trx('attachments').whereIn('id', ids).update({ volume_id: volumeId, updated_at: updatedAt })
}

export async function remove(trx: Db, id: string): Promise<boolean> {
  return (await trx('attachments').where({ id }).delete()) === 1
}

export async function removeOfVolume(trx: Db, volumeId: string): Promise<void> {
  await trx('attachments').where({ volume_id: volumeId }).delete()
}
