import BetterSqlite3 from 'better-sqlite3'
import knex, { type Knex } from 'knex'
import SqliteClient from 'knex/lib/dialects/better-sqlite3/index.js'
import PostgresClient from 'knex/lib/dialects/postgres/index.js'
import { type FileSync, openFileSync } from '../runtime/file-sync.ts'
import { CommitLog } from './commit-log.ts'
import { isWorthRepeating, translate } from './failures.ts'
import { prepareConnection } from './sqlite.ts'
import { createSqliteClient } from './sqlite-client.ts'

/** How often a transaction is run that others keep getting in the way of. */
const ATTEMPTS_MAX = 8
const CONNECT_TIMEOUT_MS = 5000
const BUSY_TIMEOUT_MS = 5000
/** No statement of the service takes as long; without a bound, one sent into a dead network would wait for ever. */
const STATEMENT_TIMEOUT_MS = 30_000
const IDLE_TRANSACTION_MS = 10_000

/** What both clients have: errors of the database in the service's words, and no values in the text of an error. */
function speaking(Client: typeof Knex.Client): typeof Knex.Client {
  return class extends Client {
    override async acquireConnection(): Promise<unknown> {
      try {
        return await super.acquireConnection()
      } catch (error) {
        throw translate(error)
      }
    }

    override async query(connection: { __knex__disposed?: unknown }, statement: unknown): Promise<unknown> {
      try {
        return await super.query(connection, statement)
      } catch (error) {
        // A statement without an answer may still be running: nobody else gets the connection.
        if (error instanceof Error && error.message.includes('Query read timeout')) connection.__knex__disposed = error
        throw translate(error)
      }
    }
  }
}

const SpeakingSqlite = speaking(SqliteClient)
const SpeakingPostgres = speaking(PostgresClient)

const COMMON = {
  compileSqlOnError: false, // values may be secrets
  log: { error: () => {}, warn: () => {} }, // what knex would print here it also throws, and whoever catches it says it once
} satisfies Knex.Config

export interface SqliteService {
  /** `:memory:` for a database of this connection only. */
  file: string
  busyTimeoutMs?: number
  /** Of the write-ahead log; a test's own. */
  sync?: FileSync
}

/**
 * A SQLite file for a service that asks it often: see sqlite-client.ts. `prepare` gets it first, to make its tables.
 * One connection, so transactions run one after the other and what one reads does not change under it.
 */
export async function serveSqlite(
  { file, busyTimeoutMs = BUSY_TIMEOUT_MS, sync = logOf(file) }: SqliteService,
  prepare: (db: Knex) => Promise<void>,
): Promise<Knex> {
  const connection = new BetterSqlite3(file)
  try {
    prepareConnection(connection, busyTimeoutMs)
    const preparing = overConnection(connection)
    await prepare(preparing).finally(() => preparing.destroy())
  } catch (error) {
    connection.close()
    throw error
  }
  // From here on the client syncs the log, off this thread. SQLite still keeps the order of log and pages.
  connection.pragma('synchronous = NORMAL')
  const { Client, transact } = createSqliteClient(connection, new CommitLog(sync))
  const db = knex({
    ...COMMON,
    client: Client,
    connection: { filename: file },
    useNullAsDefault: true,
    pool: { max: 0 }, // there is nothing to pool
  })
  Object.defineProperty(db, 'transaction', {
    value: (work: (trx: Knex) => Promise<unknown>) => transact(db, work),
    configurable: true, // as knex defines its own
  })
  return db
}

function logOf(file: string): FileSync {
  return file === ':memory:' ? { sync: async () => {}, close: () => {} } : openFileSync(`${file}-wal`)
}

/** Knex as it is, which can change tables, over a connection that stays when it ends. */
function overConnection(connection: BetterSqlite3.Database): Knex {
  class Client extends SpeakingSqlite {
    override acquireRawConnection = async () => connection
    override destroyRawConnection = async () => {}
  }
  return knex({ ...COMMON, client: Client, connection: {}, useNullAsDefault: true, pool: { min: 1, max: 1 } })
}

/** A SQLite file for whoever makes its tables, or looks into it from beside the service. */
export function connectSqlite(file: string, { busyTimeoutMs = BUSY_TIMEOUT_MS, readOnly = false } = {}): Knex {
  return knex({
    ...COMMON,
    client: SpeakingSqlite,
    connection: { filename: file, options: { readonly: readOnly } },
    useNullAsDefault: true,
    pool: {
      min: 1,
      max: 1,
      afterCreate: (connection: BetterSqlite3.Database, done: (error: Error | null, connection?: unknown) => void) => {
        prepareConnection(connection, busyTimeoutMs)
        done(null, connection)
      },
    },
  })
}

/**
 * READ COMMITTED: a transaction locks the rows that it decides by, or decides in the statement that writes. `url` may hold a
 * password. Lost connections are replaced when they are needed, so nothing has to be started again after an outage.
 */
export function connectPostgres(url: string, { connectionsMax = 16, isBounded = true } = {}): Knex {
  const db = knex({
    ...COMMON,
    client: SpeakingPostgres,
    connection: {
      connectionString: url,
      application_name: 'collie',
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      keepAlive: true,
      // A process that stands still in a transaction must not hold rows for long that others wait for.
      ...(isBounded
        ? { query_timeout: STATEMENT_TIMEOUT_MS, idle_in_transaction_session_timeout: IDLE_TRANSACTION_MS }
        : {}),
    },
    acquireConnectionTimeout: 2 * CONNECT_TIMEOUT_MS,
    pool: { min: 0, max: connectionsMax },
  })
  repeatTransactions(db)
  return db
}

/**
 * The one place where a transaction is repeated that lost against others (deadlock, serialization). So what a transaction
 * does outside of the database has to bear repetition.
 */
function repeatTransactions(db: Knex): void {
  const once = db.transaction.bind(db) as (work: (trx: Knex.Transaction) => Promise<unknown>) => Promise<unknown>
  const repeated = async (work: (trx: Knex.Transaction) => Promise<unknown>): Promise<unknown> => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await once(work)
      } catch (error) {
        if (!isWorthRepeating(error) || attempt === ATTEMPTS_MAX) throw error
      }
    }
  }
  Object.defineProperty(db, 'transaction', { value: repeated, configurable: true }) // as knex defines its own
}
