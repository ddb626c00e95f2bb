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

/** As many as a statement takes as parameters on any database. */
const IDS_MAX = 500

/** Which of the ids are in a table, however many are asked for. */
export async function existingIn(db: Db, table: string, ids: readonly string[]): Promise<Set<string>> {
  const found = new Set<string>()
  for (let from = 0; from < ids.length; from += IDS_MAX) {
    const some: string[] = await db(table)
      .whereIn('id', ids.slice(from, from + IDS_MAX))
      .pluck('id')
    for (const id of some) found.add(id)
  }
  return found
}
