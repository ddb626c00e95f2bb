import type { Knex } from 'knex'

/** The SQL that SQLite and PostgreSQL do not share. Everything else in src/db is written for both. */

function isPostgres(query: Knex.QueryBuilder): boolean {
  return query.client.config.client === 'pg'
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
  const pattern = `%${part.replace(/[\\%_]/g, '\\$&')}%`
  if (isPostgres(query)) query.whereRaw("??::jsonb ->> ? like ? escape '\\'", [column, key, pattern])
  else {
    query.whereRaw(
      "exists (select 1 from json_each(??) as pair where pair.key = ? and pair.value like ? escape '\\')",
      [column, key, pattern],
    )
  }
}

/** Rows whose text in `column` has `part` somewhere, in either case of letters (SQLite: of ASCII letters). */
export function whereTextContains(query: Knex.QueryBuilder, column: string, part: string): void {
  const pattern = `%${part.replace(/[\\%_]/g, '\\$&')}%`
  query.whereRaw(`?? ${isPostgres(query) ? 'ilike' : 'like'} ? escape '\\'`, [column, pattern])
}

/** Whether the statement failed because a row of that key exists. */
export function isUniqueViolation(error: unknown): boolean {
  return hasCode(error, 'SQLITE_CONSTRAINT_UNIQUE', 'SQLITE_CONSTRAINT_PRIMARYKEY', '23505')
}

/** Whether the statement failed because other rows refer to the row. */
export function isForeignKeyViolation(error: unknown): boolean {
  return hasCode(error, 'SQLITE_CONSTRAINT_FOREIGNKEY', 'SQLITE_CONSTRAINT_TRIGGER', '23503')
}

function hasCode(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code))
}
