import type BetterSqlite3 from 'better-sqlite3'
import knex, { type Knex } from 'knex'
import SqliteClient from 'knex/lib/dialects/better-sqlite3/index.js'
import PostgresClient from 'knex/lib/dialects/postgres/index.js'
import { isWorthRepeating, translate } from './failures.ts'
import { prepareConnection } from './sqlite.ts'

/** How often a transaction is run that others keep getting in the way of. */
const ATTEMPTS_MAX = 8
const CONNECT_TIMEOUT_MS = 5000
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

/** One connection, so transactions run one after the other and what one reads does not change under it. */
export function connectSqlite(file: string, { busyTimeoutMs = 5000, readOnly = false } = {}): Knex {
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
