import type { Db } from './database.ts'
import { type Columns, type Listing, listRows, type Rows } from './listing.ts'

export interface MessageRow {
  id: string
  project_id: string
  /** Null when the work was asked for by a version that did not keep it. */
  request_id: string | null
  resource_type: string
  resource_uuid: string | null
  event_id: string
  message_level: string
  action_id: string
  detail_id: string
  created_at: string
  expires_at: string
}

export const MESSAGE_COLUMNS: Columns = {
  id: { name: 'id', kind: 'text' },
  project_id: { name: 'project_id', kind: 'text' },
  request_id: { name: 'request_id', kind: 'text', nullable: true },
  resource_type: { name: 'resource_type', kind: 'text' },
  resource_uuid: { name: 'resource_uuid', kind: 'text', nullable: true },
  event_id: { name: 'event_id', kind: 'text' },
  message_level: { name: 'message_level', kind: 'text' },
  action_id: { name: 'action_id', kind: 'text' },
  detail_id: { name: 'detail_id', kind: 'text' },
  created_at: { name: 'created_at', kind: 'time' },
  expires_at: { name: 'expires_at', kind: 'time' },
}

export async function insert(trx: Db, row: MessageRow): Promise<void> {
  await trx('messages').insert(row)
}

export async function find(db: Db, id: string): Promise<MessageRow | undefined> {
  return db('messages').where({ id }).first()
}

export async function list(db: Db, listing: Listing): Promise<Rows<MessageRow>> {
  return listRows(db, 'messages', MESSAGE_COLUMNS, listing, { count: false })
}

/** Newest first. */
export async function ofResource(db: Db, resourceId: string, limit: number): Promise<MessageRow[]> {
  return db('messages')
    .where({ resource_uuid: resourceId })
    .orderBy([
      { column: 'created_at', order: 'desc' },
      { column: 'id', order: 'desc' },
    ])
    .limit(limit)
}

export async function remove(db: Db, id: string): Promise<boolean> {
  return (await db('messages').where({ id }).delete()) === 1
}

/** Removes up to `limit` rows that expired before `now`; answers how many. */
export async function removeExpired(db: Db, now: string, limit: number): Promise<number> {
  const expired = db('messages').where('expires_at', '<', now).orderBy('expires_at').limit(limit).select('id')
  return db('messages').whereIn('id', expired).delete()
}
