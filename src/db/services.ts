import type { Db } from './database.ts'

/** What an administrator said of a service. One that nobody has touched has no row: it is enabled and not frozen. */
export interface ServiceRow {
  binary: string
  /** Of the backend; empty for a service that is there once. */
  name: string
  /** SQLite answers 0 and 1. */
  disabled: boolean | number
  disabled_reason: string | null
  frozen: boolean | number
  updated_at: string
}

export async function list(db: Db): Promise<ServiceRow[]> {
  return db('services').select()
}

export async function setDisabled(
  db: Db,
  key: Pick<ServiceRow, 'binary' | 'name'>,
  columns: { disabled: boolean; disabled_reason: string | null; updated_at: string },
): Promise<void> {
  await db('services')
    .insert({ ...key, frozen: false, ...columns })
    .onConflict(['binary', 'name'])
    .merge(columns)
}

/** Freezes or thaws a service, which also disables or enables it. Answers false when it was so already. */
export async function setFrozen(
  db: Db,
  key: Pick<ServiceRow, 'binary' | 'name'>,
  columns: { frozen: boolean; disabled: boolean; disabled_reason: string | null; updated_at: string },
): Promise<boolean> {
  return db.transaction(async (trx) => {
    const unfrozen = { ...key, ...columns, frozen: false }
    await trx('services').insert(unfrozen).onConflict(['binary', 'name']).ignore()
    return (
      (await trx('services')
        .where({ ...key, frozen: !columns.frozen })
        .update(columns)) === 1
    )
  })
}
