import type { Db } from './database.ts'

export interface EncryptionKeyRow {
  id: string
  project_id: string
  user_id: string
  algorithm: string
  bit_length: number
  /** The key, readable to whoever has what it was sealed with. */
  sealed: string
  created_at: string
}

export async function insert(trx: Db, row: EncryptionKeyRow): Promise<void> {
  await trx('encryption_keys').insert(row)
}

export async function find(db: Db, id: string): Promise<EncryptionKeyRow | undefined> {
  return db('encryption_keys').where({ id }).first()
}

/** The key goes to another project with what it opens. One that is kept elsewhere is not here. */
export async function give(trx: Db, id: string, owner: { project_id: string; user_id: string }): Promise<void> {
  await trx('encryption_keys').where({ id }).update(owner)
}

export async function remove(trx: Db, id: string): Promise<boolean> {
  return (await trx('encryption_keys').where({ id }).delete()) === 1
}

/** Whether a volume or a backup could not be read without the key. */
export async function isNeeded(trx: Db, id: string): Promise<boolean> {
  const uses = await Promise.all(
    ['volumes', 'backups'].map((table) => trx(table).where({ encryption_key_id: id }).first('id')),
  )
  return uses.some((row) => row !== undefined)
}
