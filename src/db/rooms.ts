import type { Db } from './database.ts'

/**
 * How much room was ever promised in a place, `backend#pool`. The sums only grow: what was promised between two moments, by
 * whichever process, is the difference. A promise of a transaction that is rolled back never was.
 */
export type PromisedGib = ReadonlyMap<string, number>

/** Rows for places that are heard of: `lock` holds only what is there. */
export async function ensure(db: Db, places: readonly string[]): Promise<void> {
  if (places.length === 0) return
  const rows = [...places].sort().map((place) => ({ place })) // in one order, as `lock`
  await db('rooms').insert(rows).onConflict('place').ignore()
}

export async function read(db: Db): Promise<PromisedGib> {
  return sums(await db('rooms').select('place', 'promised_gib'))
}

/** As `read`; nobody else promises anything until the transaction has ended. */
export async function lock(trx: Db): Promise<PromisedGib> {
  return sums(await trx('rooms').select('place', 'promised_gib').orderBy('place').forUpdate())
}

/** Of a place that this transaction has locked. */
export async function promise(trx: Db, place: string, sizeGib: number): Promise<void> {
  await trx('rooms').where({ place }).increment('promised_gib', sizeGib)
}

/** PostgreSQL answers 64-bit numbers as text. */
function sums(rows: readonly { place: string; promised_gib: number | string }[]): PromisedGib {
  return new Map(rows.map(({ place, promised_gib }) => [place, Number(promised_gib)]))
}
