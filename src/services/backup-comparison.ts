import * as backups from '../db/backups.ts'
import type { Db } from '../db/database.ts'
import { readOneMoment } from '../db/dialect.ts'
import * as work from '../db/work.ts'
import { type BackupState, createPageLists, examine, listBackups, type Manifest } from './backup/format.ts'
import { inParallel } from './backup/in-parallel.ts'
import type { BackupTarget } from './backup/target.ts'
import type { Finding } from './comparison.ts'

/** What the database says of backups, read in one moment. */
export interface BackupRecords {
  rows: ReadonlyMap<string, Pick<backups.BackupRow, 'id' | 'status' | 'container' | 'location_id'>>
  /** Backups of which something is under way. */
  busy: ReadonlySet<string>
}

/** What lies on the target. */
export interface FoundBackup {
  container: string
  state: BackupState
  /** Null when it cannot be read. */
  manifest: Manifest | null
}

/** By the ids of the backups. */
export type FoundBackups = ReadonlyMap<string, FoundBackup>

/** Each look is a few requests to a target that may be far away. */
const LOOKS_AT_ONCE = 8

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
  const there = new Map<string, FoundBackup>()
  const listPages = createPageLists(target)
  await inParallel(await listBackups(target), LOOKS_AT_ONCE, async (location) => {
    const found = await examine(target, location, listPages)
    if (found !== null) there.set(location.id, { container: location.container, ...found })
  })
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
  for (const [id, row] of after.rows) {
    const { status } = row
    if (!isQuiet(id) || before.rows.get(id)?.status !== status || status !== 'available') continue
    const { container, id: directory } = backups.locationOf(row)
    const found = there.get(directory)
    if (found?.container === container && found.state === 'whole') continue
    const isThere = found?.container === container
    findings.push({
      kind: isThere ? 'backup-damaged' : 'backup-lost',
      id,
      detail: isThere
        ? `backup ${id} is available, and ${found.state} on the target`
        : `backup ${id} is available, and not on the target`,
      advice: `bring ${container}/${directory} back to the target, or give the backup up: openstack volume backup delete ${id}`,
      backend: service,
    })
  }
  const known = new Set([...before.rows.values(), ...after.rows.values()].map((row) => backups.locationOf(row).id))
  for (const [id, { container, state }] of there) {
    if (!isQuiet(id) || known.has(id)) continue
    findings.push({
      kind: 'backup-unknown',
      id,
      detail: `the target has ${container}/${id}, which the database does not know (${state})`,
      advice:
        state === 'whole'
          ? `take it over: collie backup import ${id}; or remove what lies below ${container}/${id}`
          : `it is the rest of one that failed or was deleted: remove what lies below ${container}/${id}`,
      backend: service,
    })
  }
  return findings
}
