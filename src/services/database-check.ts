import type { Db } from '../db/database.ts'
import { readOneMoment } from '../db/dialect.ts'
import { correct, type Miscount, miscounts } from '../db/miscounts.ts'
import { countRows, findByStatus } from '../db/row-counts.ts'
import * as work from '../db/work.ts'
import type { Finding } from './comparison.ts'

/** What the database says of itself that cannot be. */

/** A finding that can be put right here. `mend` answers whether it did; false when things have changed since. */
export interface Mendable extends Finding {
  mend(): Promise<boolean>
}

/** Projects whose charges are not what their rows add up to. */
export async function checkUsage(db: Db): Promise<Mendable[]> {
  return (await miscounts(db)).map((wrong) => ({
    kind: KINDS[wrong.table],
    id: wrong.key.project_id!,
    detail: `${ownerOf(wrong)} is charged ${describe(wrong.kept)}, and has ${describe(wrong.counted)}`,
    advice: 'set it right: collie db check --repair',
    mend: () => correct(db, wrong),
  }))
}

const KINDS = {
  usages: 'usage-wrong',
  type_usages: 'type-usage-wrong',
  backup_usages: 'backup-usage-wrong',
  group_usages: 'group-usage-wrong',
} as const satisfies Record<Miscount['table'], Finding['kind']>

function ownerOf({ key }: Miscount): string {
  const type = key.volume_type_id
  return `project ${key.project_id}${type === undefined ? '' : `, of type ${type},`}`
}

function describe(amounts: Miscount['kept']): string {
  const words = Object.entries(amounts).map(([name, count]) =>
    name.endsWith('gigabytes') ? `${count} GiB` : `${count} ${name}`,
  )
  return words.join(', ')
}

/** Statuses that only work ends, and how an administrator ends them without it. */
const IN_WORK = {
  volumes: {
    statuses: [
      'creating',
      'downloading',
      'uploading',
      'deleting',
      'extending',
      'reverting',
      'retyping',
      'maintenance',
      'backing-up',
      'restoring-backup',
      'unmanaging',
      'managing',
    ],
    word: 'volume',
    command: 'openstack volume set',
  },
  snapshots: {
    statuses: ['creating', 'deleting', 'restoring', 'backing-up'],
    word: 'snapshot',
    command: 'openstack volume snapshot set',
  },
  backups: { statuses: ['creating', 'deleting', 'restoring'], word: 'backup', command: 'openstack volume backup set' },
  volume_groups: { statuses: ['creating', 'deleting'], word: 'group', command: 'cinder reset-state --type group' },
  group_snapshots: {
    statuses: ['creating', 'deleting'],
    word: 'group snapshot',
    command: 'cinder reset-state --type group-snapshot',
  },
} as const

/** What is in such a status with nothing that works on it: an administrator wrote it, or the program is wrong. */
export async function checkStatuses(db: Db): Promise<Finding[]> {
  return db.transaction(async (trx) => {
    await readOneMoment(trx)
    const busy = await work.allConcerned(trx)
    const findings: Finding[] = []
    for (const [table, { statuses, word, command }] of Object.entries(IN_WORK)) {
      for (const { id, status, volume_id } of await findByStatus(trx, table, statuses)) {
        if (busy.has(id) || (volume_id !== undefined && busy.has(volume_id))) continue
        findings.push({
          kind: 'status-stuck',
          id,
          detail: `${word} ${id} is ${status}, and nothing works on it`,
          advice: `find out what it holds, then: ${command} --state available (or error) ${id}`,
        })
      }
    }
    return findings
  })
}

/** How many of each there are. */
export async function countRecords(db: Db) {
  return {
    volumes: await countRows(db, 'volumes'),
    snapshots: await countRows(db, 'snapshots'),
    attachments: await countRows(db, 'attachments'),
    backups: await countRows(db, 'backups'),
    types: await countRows(db, 'volume_types'),
    work: await countRows(db, 'work'),
  }
}
