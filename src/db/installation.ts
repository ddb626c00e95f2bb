import type { Db } from './database.ts'
import { isPostgres } from './dialect.ts'

/** The id of a database: its backups have it too. */
export async function databaseId(db: Db): Promise<string> {
  return (await db('installation').first('id')).id
}

/** Runs `work` while no other process on this database runs such. What it does to files is not undone when it fails. */
export async function exclusively<T>(db: Db, work: () => Promise<T>): Promise<T> {
  if (!isPostgres(db)) return work() // there is no other
  return db.transaction(async (trx) => {
    await trx('installation').forUpdate().select('id')
    return work()
  })
}
