import assert from 'node:assert/strict'
import type BetterSqlite3 from 'better-sqlite3'
import type { Knex } from 'knex'
import SqliteClient from 'knex/lib/dialects/better-sqlite3/index.js'
import type { CommitLog } from './commit-log.ts'
import { translate } from './failures.ts'
import { Turns } from './turns.ts'

/** What knex compiles a builder to, and what it makes an answer of. */
interface Statement {
  sql: string
  bindings?: readonly unknown[]
  response?: unknown
  context?: { lastID: number | bigint; changes: number }
}

/** The parts of knex's client for SQLite that its types leave out. */
interface Dialect {
  _formatBindings(bindings: readonly unknown[] | undefined): unknown[]
  processResponse(statement: Statement, runner: unknown): unknown
}

interface Builder {
  toSQL(): Statement | Statement[]
}

/**
 * SQLite under knex: knex writes the statements, this runs them. Knex's own way to one is made for connections that are far
 * away, come and go, and are shared by a pool; here it costs more than the statements, and so do its transactions.
 *
 * 1. One connection. A statement runs on the spot, a transaction when those before it have ended.
 * 2. What a caller is answered is durable, be it what it wrote itself or what it read of others: see CommitLog.
 * 3. A statement of a transaction that has ended is refused, and never becomes part of another one.
 */
export function createSqliteClient(
  database: BetterSqlite3.Database,
  log: CommitLog,
): {
  Client: typeof Knex.Client
  transact: <T>(db: Knex, work: (trx: Knex) => Promise<T>) => Promise<T>
} {
  const turns = new Turns()

  class Client extends SqliteClient {
    override async acquireConnection(): Promise<BetterSqlite3.Database> {
      await turns.take()
      return database
    }

    override releaseConnection(): Promise<void> {
      turns.give()
      return Promise.resolve()
    }

    /** For what is changed about tables, which takes several statements, knex's own runner will do. */
    override runner(builder: Builder): { run(): Promise<unknown> } {
      const isKnexTransaction = 'transacting' in this && this.transacting === true // as batchInsert makes one, with a client of its own
      return isKnexTransaction ? super.runner(builder) : { run: () => this.#run(builder) }
    }

    override async destroy(): Promise<void> {
      await turns.take()
      try {
        await log.durable()
      } finally {
        database.close()
        log.close()
        turns.give()
      }
    }

    async #run(builder: Builder): Promise<unknown> {
      const statement = builder.toSQL()
      if (Array.isArray(statement)) return super.runner(builder).run()
      const waited = turns.take()
      if (waited !== null) await waited
      let answer: unknown
      try {
        answer = execute(this, database, statement, () => log.wrote())
      } finally {
        turns.give()
      }
      await settled()
      return answer
    }
  }

  /** Waits, if there is anything to wait for, until what was read or written so far is durable. */
  async function settled(): Promise<void> {
    const durable = log.durable()
    if (durable === null) return
    try {
      await durable
    } catch (error) {
      throw translate(error)
    }
  }

  async function transact<T>(db: Knex, work: (trx: Knex) => Promise<T>): Promise<T> {
    const waited = turns.take()
    if (waited !== null) await waited
    let answer: T
    try {
      const transaction = new Transaction(db, database)
      try {
        transaction.begin()
        answer = await work(transaction.handle)
        if (transaction.commit()) log.wrote()
      } catch (error) {
        transaction.rollBack()
        throw error
      }
    } finally {
      turns.give()
    }
    await settled()
    return answer
  }

  return { Client, transact }
}

class Transaction {
  /** What the work of the transaction uses as a database. */
  readonly handle: Knex
  readonly #database: BetterSqlite3.Database
  readonly #client: Knex.Client
  #isOpen = true
  #hasWritten = false

  constructor(db: Knex, database: BetterSqlite3.Database) {
    this.#database = database
    this.#client = db.client
    const client = Object.create(db.client, {
      runner: { value: (builder: Builder) => ({ run: async () => this.#run(builder) }) },
      transacting: { value: true },
    }) as Knex.Client
    const handle = (table: Knex.TableDescriptor) => client.queryBuilder().table(table as string)
    // Its other methods are those of the database, which find the client by these.
    Object.setPrototypeOf(handle, db)
    this.handle = Object.defineProperties(handle, {
      client: { value: client },
      raw: { value: client.raw.bind(client) },
      queryBuilder: { value: () => client.queryBuilder() },
      isTransaction: { value: true },
      transaction: { value: undefined },
    }) as unknown as Knex
  }

  begin(): void {
    this.#control('BEGIN')
  }

  /** Answers whether anything was written. */
  commit(): boolean {
    this.#control('COMMIT')
    this.#isOpen = false
    return this.#hasWritten
  }

  /** SQLite has already done so itself after some failures. */
  rollBack(): void {
    this.#isOpen = false
    if (this.#database.inTransaction) this.#control('ROLLBACK')
  }

  #run(builder: Builder): unknown {
    assert(this.#isOpen, 'a statement came after the end of its transaction')
    const statement = builder.toSQL()
    assert(!Array.isArray(statement), 'tables are changed by migrations only')
    return execute(this.#client, this.#database, statement, () => {
      this.#hasWritten = true
    })
  }

  #control(sql: string): void {
    try {
      this.#database.prepare(sql).run()
    } catch (error) {
      throw translate(error)
    }
  }
}

function execute(
  client: Knex.Client,
  database: BetterSqlite3.Database,
  statement: Statement,
  onWrite: () => void,
): unknown {
  client.emit('query', statement)
  const dialect = client as Knex.Client & Dialect
  try {
    const prepared = database.prepare(statement.sql)
    const bindings = dialect._formatBindings(statement.bindings)
    if (prepared.reader) statement.response = prepared.all(bindings)
    else {
      const result = prepared.run(bindings)
      statement.response = result
      statement.context = { lastID: result.lastInsertRowid, changes: result.changes }
    }
    if (!prepared.readonly) onWrite()
  } catch (error) {
    if (error instanceof Error) error.message = `${statement.sql} - ${error.message}` // without values, which may be secrets
    throw translate(error)
  }
  return dialect.processResponse(statement, { client })
}
