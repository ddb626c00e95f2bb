import type { Db } from './database.ts'
import { isUniqueViolation } from './failures.ts'

/** How volumes of a type are encrypted; at most one row for a type. */
export interface TypeEncryptionRow {
  id: string
  volume_type_id: string
  provider: string
  control_location: 'front-end' | 'back-end'
  cipher: string | null
  /** Bits. */
  key_size: number | null
  created_at: string
  updated_at: string | null
}

/** Answers false when the type has one already. */
export async function insert(db: Db, row: TypeEncryptionRow): Promise<boolean> {
  try {
    await db('volume_type_encryptions').insert(row)
    return true
  } catch (error) {
    if (isUniqueViolation(error)) return false
    throw error
  }
}

/** Whether there is any type whose volumes are encrypted. */
export async function isAny(db: Db): Promise<boolean> {
  return (await db('volume_type_encryptions').first('id')) !== undefined
}

export async function ofType(db: Db, typeId: string): Promise<TypeEncryptionRow | undefined> {
  return db('volume_type_encryptions').where({ volume_type_id: typeId }).first()
}

export async function update(
  db: Db,
  typeId: string,
  columns: Partial<Omit<TypeEncryptionRow, 'id' | 'volume_type_id'>>,
): Promise<boolean> {
  return (await db('volume_type_encryptions').where({ volume_type_id: typeId }).update(columns)) === 1
}

export async function remove(db: Db, typeId: string): Promise<boolean> {
  return (await db('volume_type_encryptions').where({ volume_type_id: typeId }).delete()) === 1
}
