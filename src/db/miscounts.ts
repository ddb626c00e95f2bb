import type { Db } from './database.ts'
import { readOneMoment } from './dialect.ts'

/** What a table of charges keeps, and the rows that it should add up to. */
interface Charges {
  table: 'usages' | 'type_usages' | 'backup_usages' | 'group_usages'
  key: readonly string[]
  amounts: readonly string[]
  /** One row for each thing that is charged. */
  charged: string
}

const VOLUME_AMOUNTS = ['volumes', 'snapshots', 'gigabytes']
const OF_VOLUME = '1 as volumes, 0 as snapshots, coalesce(pending_size_gib, size_gib) as gigabytes'
const OF_SNAPSHOT = '0 as volumes, 1 as snapshots, snapshots.size_gib as gigabytes'
const SNAPSHOTS = 'snapshots join volumes on volumes.id = snapshots.volume_id'
/** A volume that is being retyped is charged under both types, and so are its snapshots. */
const RETYPED = 'where volumes.pending_volume_type_id <> volumes.volume_type_id'
const CHARGED = 'where volumes.consumes_quota'

const CHARGES: readonly Charges[] = [
  {
    table: 'usages',
    key: ['project_id'],
    amounts: VOLUME_AMOUNTS,
    charged: `select project_id, ${OF_VOLUME} from volumes ${CHARGED}
      union all select project_id, ${OF_SNAPSHOT} from snapshots`,
  },
  {
    table: 'type_usages',
    key: ['project_id', 'volume_type_id'],
    amounts: VOLUME_AMOUNTS,
    charged: `select project_id, volume_type_id, ${OF_VOLUME} from volumes ${CHARGED}
      union all select project_id, pending_volume_type_id, ${OF_VOLUME} from volumes ${RETYPED}
      union all select snapshots.project_id, volumes.volume_type_id, ${OF_SNAPSHOT} from ${SNAPSHOTS}
      union all select snapshots.project_id, volumes.pending_volume_type_id, ${OF_SNAPSHOT} from ${SNAPSHOTS} ${RETYPED}`,
  },
  {
    table: 'backup_usages',
    key: ['project_id'],
    amounts: ['backups', 'backup_gigabytes'],
    charged: 'select project_id, 1 as backups, size_gib as backup_gigabytes from backups',
  },
  {
    table: 'group_usages',
    key: ['project_id'],
    amounts: ['groups'],
    charged: 'select project_id, 1 as "groups" from volume_groups',
  },
]

export interface Miscount {
  table: Charges['table']
  key: Readonly<Record<string, string>>
  kept: Readonly<Record<string, number>>
  counted: Readonly<Record<string, number>>
}

/** Where what is kept of the use of projects is not what the rows add up to; all of it is read at one moment. */
export async function miscounts(db: Db): Promise<Miscount[]> {
  return db.transaction(async (trx) => {
    await readOneMoment(trx)
    const wrong: Miscount[] = []
    for (const charges of CHARGES) wrong.push(...(await miscountsOf(trx, charges)))
    return wrong
  })
}

async function miscountsOf(trx: Db, { table, key, amounts, charged }: Charges): Promise<Miscount[]> {
  type Row = Record<string, string | number>
  const keyOf = (row: Row) => Object.fromEntries(key.map((column) => [column, String(row[column])]))
  const amountsOf = (row: Row | undefined) =>
    Object.fromEntries(amounts.map((name) => [name, Number(row?.[name] ?? 0)]))
  const indexed = (rows: Row[]) => new Map(rows.map((row) => [JSON.stringify(keyOf(row)), row]))

  const kept = indexed(await trx(table))
  const sums = trx
    .select(key)
    .from(trx.raw(`(${charged}) as charged`))
    .groupBy(key)
  for (const name of amounts) sums.sum({ [name]: name })
  const counted = indexed(await sums)
  return [...new Map([...kept, ...counted])]
    .map(([text, row]) => ({
      table,
      key: keyOf(row),
      kept: amountsOf(kept.get(text)),
      counted: amountsOf(counted.get(text)),
    }))
    .filter((usage) => amounts.some((name) => usage.kept[name] !== usage.counted[name]))
}

/** Writes a count that was found wrong, unless it has changed since. Answers whether it did. */
export async function correct(db: Db, { table, key, kept, counted }: Miscount): Promise<boolean> {
  await db(table)
    .insert({ ...key, ...kept })
    .onConflict(Object.keys(key))
    .ignore()
  return (
    (await db(table)
      .where({ ...key, ...kept })
      .update(counted)) === 1
  )
}
