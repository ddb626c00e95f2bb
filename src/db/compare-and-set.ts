import type { Knex } from 'knex'
import type { Db } from './database.ts'

export interface StatusChange {
  /** Statuses that the row may have now. */
  from: readonly string[]
  to: string
  updatedAt: string
  /** Columns to write with it. */
  set?: Readonly<Record<string, unknown>>
  /** Further conditions of the same statement. */
  where?: (query: Knex.QueryBuilder) => void
}

/**
 * The only way a status changes: one UPDATE that names what it expects. Answers whether this caller won; of several
 * that race for one row, exactly one does.
 */
export async function compareAndSet(db: Db, table: string, id: string, change: StatusChange): Promise<boolean> {
  const query = db(table).where(`${table}.id`, id).whereIn('status', change.from)
  change.where?.(query)
  const count = await query.update({ ...change.set, status: change.to, updated_at: change.updatedAt })
  return count === 1
}
