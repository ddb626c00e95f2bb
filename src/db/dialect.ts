import type { Knex } from 'knex'

/** The SQL that SQLite and PostgreSQL do not share. Everything else in src/db is written for both. */

/** Of a database, a transaction or a query. */
export function isPostgres({ client }: { client: { driverName: string } }): boolean {
  return client.driverName === 'pg'
}

/** Milliseconds since 1970 by the clock of the database, which all its clients share. */
export function nowMs(db: Knex): Knex.Raw {
  return isPostgres(db)
    ? db.raw('(extract(epoch from clock_timestamp()) * 1000)::bigint')
    : db.raw("cast(unixepoch('now', 'subsec') * 1000 as integer)")
}

/** Rows whose text in `column` is among many values; the statement is the same for any number of them. */
export function whereAmong(query: Knex.QueryBuilder, column: string, values: readonly string[]): void {
  if (isPostgres(query)) query.whereRaw('?? = any(?)', [column, [...values]])
  else query.whereRaw('?? in (select value from json_each(?))', [column, JSON.stringify(values)])
}

/** Rows whose JSON object in `column` has each of the pairs. */
export function whereJsonContains(
  query: Knex.QueryBuilder,
  column: string,
  pairs: Readonly<Record<string, string>>,
): void {
  if (isPostgres(query)) {
    query.whereRaw('??::jsonb @> ?::jsonb', [column, JSON.stringify(pairs)])
    return
  }
  for (const [key, value] of Object.entries(pairs)) {
    query.whereRaw('exists (select 1 from json_each(??) as pair where pair.key = ? and pair.value = ?)', [
      column,
      key,
      value,
    ])
  }
}

/** Rows whose JSON object in `column` has `part` somewhere in the value of `key`. */
export function whereJsonValueHasPart(query: Knex.QueryBuilder, column: string, key: string, part: string): void {
  if (isPostgres(query)) query.whereRaw('strpos(??::jsonb ->> ?, ?) > 0', [column, key, part])
  else {
    query.whereRaw('exists (select 1 from json_each(??) as pair where pair.key = ? and instr(pair.value, ?) > 0)', [
      column,
      key,
      part,
    ])
  }
}

/** Rows whose text in `column` has `part` somewhere, letter for letter. */
export function whereTextHasPart(query: Knex.QueryBuilder, column: string, part: string): void {
  query.whereRaw(`${isPostgres(query) ? 'strpos' : 'instr'}(??, ?) > 0`, [column, part])
}

/** Rows whose text in `column` has `part` somewhere, in either case of letters (SQLite: of ASCII letters). */
export function whereTextContains(query: Knex.QueryBuilder, column: string, part: string): void {
  const pattern = `%${part.replace(/[\\%_]/g, '\\$&')}%`
  query.whereRaw(`?? ${isPostgres(query) ? 'ilike' : 'like'} ? escape '\\'`, [column, pattern])
}

/** Lets everything that a transaction reads be of one moment, as SQLite always has it. Before its first statement. */
export async function readOneMoment(trx: Knex): Promise<void> {
  if (isPostgres(trx)) await trx.raw('set transaction isolation level repeatable read, read only')
}
