import { compareAndSet as change, type StatusChange } from './compare-and-set.ts'
import type { Db } from './database.ts'
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
  created_at: string
  updated_at: string | null
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
  return db('attachments').whereIn('volume_id', volumeIds).orderBy(['created_at', 'id'])
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

export async function remove(trx: Db, id: string): Promise<boolean> {
  return (await trx('attachments').where({ id }).delete()) === 1
}

export async function removeOfVolume(trx: Db, volumeId: string): Promise<void> {
  await trx('attachments').where({ volume_id: volumeId }).delete()
}
