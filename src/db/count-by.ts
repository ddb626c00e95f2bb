import type { Db } from './database.ts'

/** How many rows of a table have each value of a column that has few. */
export async function countBy(db: Db, table: string, column: string): Promise<Map<string, number>> {
  const rows: { value: string; count: number | string }[] = await db(table)
    .select({ value: column })
    .count({ count: '*' })
    .groupBy(column)
  return new Map(rows.map(({ value, count }) => [value, Number(count)]))
}
