import type BetterSqlite3 from 'better-sqlite3'

const STATEMENTS_MAX = 200
/** Longer ones name many ids, each time another number of them. */
const STATEMENT_LENGTH_MAX = 2000

/** Sets a new SQLite connection up: see `openDatabase` for what that promises. */
export function prepareConnection(connection: BetterSqlite3.Database, busyTimeoutMs: number): void {
  connection.pragma('journal_mode = WAL')
  connection.pragma('synchronous = FULL')
  connection.pragma('foreign_keys = ON')
  connection.pragma(`busy_timeout = ${busyTimeoutMs}`)
  keepStatements(connection)
}

/**
 * Knex prepares each statement anew, which costs as much as running it. The same few are used over and over, and
 * SQLite compiles one again by itself when the schema has changed.
 */
function keepStatements(connection: BetterSqlite3.Database): void {
  const statements = new Map<string, BetterSqlite3.Statement>()
  const prepare = connection.prepare.bind(connection)
  const prepareOnce = (sql: string): BetterSqlite3.Statement => {
    const kept = statements.get(sql)
    if (kept !== undefined) return kept
    const statement = prepare(sql)
    if (sql.length > STATEMENT_LENGTH_MAX) return statement
    if (statements.size === STATEMENTS_MAX) statements.delete(statements.keys().next().value!)
    statements.set(sql, statement)
    return statement
  }
  connection.prepare = prepareOnce as typeof connection.prepare
}
