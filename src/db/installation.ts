import type { Db } from './database.ts'

/** The id of a database: its backups have it too. */
export async function databaseId(db: Db): Promise<string> {
  return (await db('installation').first('id')).id
}
