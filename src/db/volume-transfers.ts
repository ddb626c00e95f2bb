import type { Knex } from 'knex'
import type { Db } from './database.ts'
import { type Columns, type Listing, listRows, type Rows } from './listing.ts'

/** A volume that waits for a new owner; the row goes when the transfer is accepted, called off, or the volume deleted. */
export interface VolumeTransferRow {
  id: string
  volume_id: string
  name: string | null
  salt: string
  /** Of the key that accepts it, which nobody keeps. */
  key_hash: string
  /** SQLite answers 0 and 1. */
  no_snapshots: boolean | number
  source_project_id: string
  /** See `offerKey`. */
  sealed_key: string | null
  created_at: string
  updated_at: string | null
}

export const VOLUME_TRANSFER_COLUMNS: Columns = {
  id: { name: 'id', kind: 'text' },
  volume_id: { name: 'volume_id', kind: 'text' },
  name: { name: 'name', kind: 'text', nullable: true },
  display_name: { name: 'name', kind: 'text', nullable: true },
  no_snapshots: { name: 'no_snapshots', kind: 'boolean' },
  source_project_id: { name: 'source_project_id', kind: 'text' },
  created_at: { name: 'created_at', kind: 'time' },
  updated_at: { name: 'updated_at', kind: 'time', nullable: true },
}

/** In the place of one that the volume has had, which an administrator's os-reset_status can leave. */
export async function insert(trx: Db, row: VolumeTransferRow): Promise<void> {
  await removeOfVolume(trx, row.volume_id)
  await trx('volume_transfers').insert(row)
}

export async function find(db: Db, id: string): Promise<VolumeTransferRow | undefined> {
  return db('volume_transfers').where({ id }).first()
}

/** With the project that the volume belongs to now. */
export async function findOwned(db: Db, id: string): Promise<(VolumeTransferRow & { project_id: string }) | undefined> {
  return db('volume_transfers')
    .where('volume_transfers.id', id)
    .join('volumes', 'volumes.id', 'volume_transfers.volume_id')
    .first('volume_transfers.*', 'volumes.project_id')
}

/** Those of volumes that the project of the listing has. */
export async function list(db: Db, { projectId, ...listing }: Listing): Promise<Rows<VolumeTransferRow>> {
  const { project_id: named, ...filters } = listing.filters
  const owner = projectId ?? named
  const visible = (query: Knex.QueryBuilder) => {
    if (owner === undefined) return
    query.whereIn('volume_transfers.volume_id', (owned) => {
      owned.from('volumes').where('volumes.project_id', owner).select('volumes.id')
    })
  }
  const all = { ...listing, filters, projectId: null }
  return listRows(db, 'volume_transfers', VOLUME_TRANSFER_COLUMNS, all, { count: false, visible })
}

export async function remove(trx: Db, id: string): Promise<boolean> {
  return (await trx('volume_transfers').where({ id }).delete()) === 1
}

async function removeOfVolume(trx: Db, volumeId: string): Promise<void> {
  await trx('volume_transfers').where({ volume_id: volumeId }).delete()
}
