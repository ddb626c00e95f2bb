import type { Db } from './database.ts'

/** Looks at tables as a whole: for checks, not for requests. */

export async function countRows(db: Db, table: string): Promise<number> {
  return Number((await db(table).count({ count: '*' }).first())?.count)
}

/** `volume_id` is that of the volume that a row hangs on. */
export async function findByStatus(
  db: Db,
  table: string,
  statuses: readonly string[],
): Promise<{ id: string; status: string; volume_id?: string }[]> {
  return db(table).whereIn('status', statuses).orderBy('id')
}
