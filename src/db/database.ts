import type BetterSqlite3 from 'better-sqlite3'
import knex, { type Knex } from 'knex'
import { DamagedFile } from '../runtime/files.ts'
import { migrationSource } from './migrations.ts'
import { prepareConnection } from './sqlite.ts'

/** What a repository function takes: the database, or a transaction on it. */
export type Db = Knex

export interface DatabaseOptions {
  /** Path of the SQLite file; it is created when absent. */
  file: string
  /** How long a statement waits for another process that holds the file, such as a backup. */
  busyTimeoutMs?: number
}

/**
 * Opens the metadata store and brings its schema up to date.
 *
 * One connection, so transactions run one after the other and what one reads does not change under it. A commit that
 * has resolved survives loss of power: the write-ahead log is synced at each (`synchronous = FULL`).
 * The caller ends it with `destroy()`. Throws DamagedFile for what is no database.
 */
export async function openDatabase({ file, busyTimeoutMs = 5000 }: DatabaseOptions): Promise<Db> {
  const db = knex({
    client: 'better-sqlite3',
    connection: { filename: file },
    useNullAsDefault: true,
    pool: {
      min: 1,
      max: 1,
      afterCreate: (connection: BetterSqlite3.Database, done: (error: Error | null, connection?: unknown) => void) => {
        prepareConnection(connection, busyTimeoutMs)
        done(null, connection)
      },
    },
    migrations: { migrationSource },
    log: { error: () => {} }, // what knex would print here it also throws, and whoever catches it says it once
  })
  try {
    await db.migrate.latest()
  } catch (error) {
    await db.destroy()
    const code = (error as { code?: unknown }).code
    if (code === 'SQLITE_NOTADB' || code === 'SQLITE_CORRUPT') throw new DamagedFile(file, error as Error)
    throw error
  }
  return db
}
