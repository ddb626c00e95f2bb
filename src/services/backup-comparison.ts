import * as backups from '../db/backups.ts'
import type { Db } from '../db/database.ts'
import { readOneMoment } from '../db/dialect.ts'
import * as work from '../db/work.ts'
import { type BackupState, listBackups, stateOf } from './backup/format.ts'
import type { BackupTarget } from './backup/target.ts'
import type { Finding } from './comparison.ts'

/** What the database says of backups, read in one moment. */
export interface BackupRecords {
  rows: ReadonlyMap<string, Pick<backups.BackupRow, 'status' | 'container'>>
  /** Backups of which something is under way. */
  busy: ReadonlySet<string>
}

/** What lies on the target, by id. */
export type FoundBackups = ReadonlyMap<string, { container: string; state: BackupState }>

export async function readBackupRecords(db: Db): Promise<BackupRecords> {
  return db.transaction(async (trx) => {
    await readOneMoment(trx)
    const rows = await backups.all(trx)
    return {
      rows: new Map(rows.map((row) => [row.id, row])),
      busy: await work.allConcerned(trx),
    }
  })
}

/** Looks into every backup as far as its manifest and the names of its pages; a restore checks the bytes. */
export async function findBackups(target: BackupTarget): Promise<FoundBackups> {
  const there = new Map<string, { container: string; state: BackupState }>()
  for (const location of await listBackups(target)) {
    const state = await stateOf(target, location)
    if (state !== null) there.set(location.id, { container: location.container, state })
  }
  return there
}

/** As `compare` of volumes: what changed while the target was looked at is no finding. Pure. */
export function compareBackups(
  service: string,
  before: BackupRecords,
  there: FoundBackups,
  after: BackupRecords,
): Finding[] {
  const findings: Finding[] = []
  const isQuiet = (id: string) => !before.busy.has(id) && !after.busy.has(id)
  for (const [id, { status, container }] of after.rows) {
    if (!isQuiet(id) || before.rows.get(id)?.status !== status || status !== 'available') continue
    const found = there.get(id)
    if (found?.container === container && found.state === 'whole') continue
    const isThere = found?.container === container
    findings.push({
      kind: isThere ? 'backup-damaged' : 'backup-lost',
      id,
      detail: isThere
        ? `backup ${id} is available, and ${found.state} on the target`
        : `backup ${id} is available, and not on the target`,
      advice: `bring ${container}/${id} back to the target, or give the backup up: openstack volume backup delete ${id}`,
      backend: service,
    })
  }
  for (const [id, { container, state }] of there) {
    if (!isQuiet(id) || before.rows.has(id) || after.rows.has(id)) continue
    findings.push({
      kind: 'backup-unknown',
      id,
      detail: `the target has ${container}/${id}, which the database does not know (${state})`,
      advice:
        state === 'whole'
          ? 'take it over with `openstack volume backup record import` (docs/operations.md), or remove its directory'
          : 'it is the rest of one that failed or was deleted: remove its directory',
      backend: service,
    })
  }
  return findings
}
