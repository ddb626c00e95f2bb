import path from 'node:path'
import type { Config } from '../config.ts'
import type { DatabaseOptions } from './database.ts'

const FILE = 'collie.db'

/** Where the settings say that the database is. */
export function databaseOf({ data_dir, database, database_connections }: Config): DatabaseOptions {
  return database === null
    ? { file: path.resolve(data_dir, FILE) }
    : { url: database, connectionsMax: database_connections }
}
