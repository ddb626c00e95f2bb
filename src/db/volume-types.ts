import type { Db } from './database.ts'
import { isForeignKeyViolation, isUniqueViolation } from './failures.ts'
import { type Columns, type Listing, listRows, type Rows } from './listing.ts'

export interface VolumeTypeRow {
  id: string
  name: string
  description: string | null
  /** SQLite answers 0 and 1. */
  is_public: boolean | number
  /** JSON object of strings. */
  extra_specs: string
  created_at: string
  updated_at: string | null
}

export const VOLUME_TYPE_COLUMNS: Columns = {
  id: { name: 'id', kind: 'text' },
  name: { name: 'name', kind: 'text' },
  description: { name: 'description', kind: 'text', nullable: true },
  is_public: { name: 'is_public', kind: 'boolean' },
  extra_specs: { name: 'extra_specs', kind: 'json' },
  created_at: { name: 'created_at', kind: 'time' },
  updated_at: { name: 'updated_at', kind: 'time', nullable: true },
}

/** Answers false when a type of that name exists. */
export async function insert(db: Db, row: VolumeTypeRow): Promise<boolean> {
  try {
    await db('volume_types').insert(row)
    return true
  } catch (error) {
    if (isUniqueViolation(error)) return false
    throw error
  }
}

export async function find(db: Db, id: string): Promise<VolumeTypeRow | undefined> {
  return db('volume_types').where({ id }).first()
}

export async function findByName(db: Db, name: string): Promise<VolumeTypeRow | undefined> {
  return db('volume_types').where({ name }).first()
}

export async function list(db: Db, listing: Listing): Promise<Rows<VolumeTypeRow>> {
  return listRows(db, 'volume_types', VOLUME_TYPE_COLUMNS, { ...listing, projectId: null }, { count: false })
}

/** `in-use` while a volume has the type. */
export async function remove(db: Db, id: string): Promise<'removed' | 'absent' | 'in-use'> {
  try {
    return (await db('volume_types').where({ id }).delete()) === 1 ? 'removed' : 'absent'
  } catch (error) {
    if (isForeignKeyViolation(error)) return 'in-use'
    throw error
  }
}
