import type { Knex } from 'knex'
import { DamagedFile } from '../runtime/files.ts'
import { connectPostgres, connectSqlite, serveSqlite } from './connections.ts'
import { isPostgres } from './dialect.ts'
import { migrate, requireCurrent } from './migrations.ts'

/** What a repository function takes: the database, or a transaction on it. */
export type Db = Knex

export type DatabaseOptions = SqliteOptions | PostgresOptions

export interface SqliteOptions {
  /** Path of the SQLite file; it is created when absent. */
  file: string
  /** How long a statement waits for another process that holds the file, such as a backup. */
  busyTimeoutMs?: number
}

export interface PostgresOptions {
  /** `postgres://user:password@host/name`; several processes may use one. */
  url: string
  /** Connections that this process has at most. */
  connectionsMax?: number
}

/**
 * Opens the metadata store and brings its schema up to date.
 *
 * A commit that has resolved survives loss of power: on SQLite the write-ahead log is synced before (commit-log.ts), on
 * PostgreSQL unless its own settings say otherwise.
 * The caller ends it with `destroy()`. Throws DamagedFile for a file that is no database, StartRefused for a database of a newer
 * version, ServiceUnavailable for one that cannot be reached.
 */
export async function openDatabase(options: DatabaseOptions): Promise<Db> {
  if ('url' in options) {
    const migrating = connectPostgres(options.url, { connectionsMax: 1, isBounded: false }) // which may take its time
    await migrate(migrating).finally(() => migrating.destroy())
    return connectPostgres(options.url, { connectionsMax: options.connectionsMax })
  }
  try {
    return await serveSqlite(options, migrate)
  } catch (error) {
    const code = (error as { code?: unknown }).code
    if (code === 'SQLITE_NOTADB' || code === 'SQLITE_CORRUPT') throw new DamagedFile(options.file, error as Error)
    throw error
  }
}

/** Opens a database that is there, beside the process that serves it. Its schema must be that of this version. */
export async function openExisting(options: DatabaseOptions): Promise<Db> {
  const db = 'url' in options ? connectPostgres(options.url, { connectionsMax: 2 }) : connectSqlite(options.file)
  try {
    await requireCurrent(db)
    return db
  } catch (error) {
    await db.destroy()
    throw error
  }
}

/** Whether other processes may work on the same database at the same time. */
export function isShared(db: Db): boolean {
  return isPostgres(db)
}
