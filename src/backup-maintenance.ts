import { openBackupTarget } from './app-backup-target.ts'
import { serviceSettings } from './app-settings.ts'
import { type CommandCall, CommandFailure, EXIT } from './cli/command.ts'
import { configOf } from './cli/node-access.ts'
import { table } from './cli/table.ts'
import type { Config } from './config.ts'
import * as backups from './db/backups.ts'
import { type Db, openExisting } from './db/database.ts'
import { databaseOf } from './db/location.ts'
import { requireDatabase } from './db-maintenance.ts'
import { ServiceError } from './errors.ts'
import { systemClock } from './runtime/clock.ts'
import type { BackupTarget } from './services/backup/target.ts'
import { type FoundBackups, findBackups } from './services/backup-comparison.ts'
import { type ImportedBackup, importBackups } from './services/backup-import.ts'
import { recordFor } from './services/backup-records.ts'
import { createStamp } from './services/stamp.ts'

/** What `collie backup list` and `collie backup import` do. */

interface Listed {
  id: string
  container: string
  state: string
  known: boolean
  name: string | null
  volume_id: string | null
  volume_name: string | null
  project_id: string | null
  size_gib: number | null
  parent_id: string | null
  encrypted: boolean | null
  created_at: string | null
  record: { service: string; url: string }
}

export function listBackups(call: CommandCall): Promise<number> {
  return withTarget(call, async ({ db, target, found }) => {
    const known = new Set((await backups.all(db)).map((row) => backups.locationOf(row).id))
    const listed = [...found]
      .map(([id, { container, state, manifest }]): Listed => {
        const keyId = manifest?.encryption_key_id ?? null
        return {
          id,
          container,
          state,
          known: known.has(id),
          name: manifest?.name ?? null,
          volume_id: manifest?.volume_id ?? null,
          volume_name: manifest?.volume?.name ?? null,
          project_id: manifest?.project_id ?? null,
          size_gib: manifest?.size_gib ?? null,
          parent_id: manifest?.parent_id ?? null,
          encrypted: manifest && keyId !== null,
          created_at: manifest?.created_at ?? null,
          record: recordFor(target.service, id, { container, id }, keyId),
        }
      })
      .sort((a, b) => (a.created_at ?? '').localeCompare(b.created_at ?? '') || a.id.localeCompare(b.id))
    call.print({ service: target.service, backups: listed }, () => describeList(target, listed))
    return EXIT.OK
  })
}

function describeList({ service }: BackupTarget, listed: readonly Listed[]): string {
  if (listed.length === 0) return `There are no backups on the target (${service}).`
  const rows = listed.map((backup) => [
    backup.id,
    backup.volume_name || backup.volume_id || '-',
    backup.project_id ?? '-',
    backup.size_gib === null ? '-' : `${backup.size_gib} GiB`,
    backup.created_at?.slice(0, 19) ?? '-',
    backup.parent_id === null ? 'whole volume' : `on ${backup.parent_id}`,
    backup.state === 'whole' ? (backup.known ? 'known' : 'not known here') : backup.state,
  ])
  return table([['BACKUP', 'VOLUME', 'PROJECT', 'SIZE', 'CREATED', 'HOLDS', 'STATE'], ...rows])
}

export async function importFound(call: CommandCall): Promise<number> {
  const { all, 'of-project': ofProject, project } = call.options
  const ways = [call.operands.length > 0, all !== undefined, ofProject !== undefined].filter(Boolean).length
  if (ways !== 1) throw new CommandFailure(EXIT.USAGE, 'say which: their IDs, --all, or --of-project')
  return withTarget(call, async ({ db, config, found }) => {
    const options = {
      db,
      stamp: createStamp(systemClock),
      settings: serviceSettings(config),
      keepsKeys: config.key_manager === 'local',
      projectId: project ?? null,
    }
    const wanted =
      call.operands.length > 0 ? call.operands : [...found.keys()].filter((id) => isOf(found, id, ofProject))
    const results = await importBackups(options, found, wanted)
    call.print({ backups: results }, () => describeImport(results))
    return results.some(({ outcome }) => outcome === 'refused') ? EXIT.FOUND : EXIT.OK
  })
}

const isOf = (found: FoundBackups, id: string, project: string | undefined) =>
  project === undefined || found.get(id)?.manifest?.project_id === project

function describeImport(results: readonly ImportedBackup[]): string {
  const count = (outcome: ImportedBackup['outcome']) => results.filter((result) => result.outcome === outcome).length
  const rows = results.flatMap(({ id, outcome, reason }) => (outcome === 'refused' ? [[id, reason ?? '']] : []))
  return [
    `${count('imported')} taken over, ${count('known')} were known, ${count('refused')} could not be taken over.`,
    ...(rows.length > 0 ? ['', table(rows)] : []),
  ].join('\n')
}

interface Opened {
  db: Db
  config: Config
  target: BackupTarget
  found: FoundBackups
}

/** Looks at the target, with the database beside it. */
async function withTarget<T>(call: CommandCall, work: (opened: Opened) => Promise<T>): Promise<T> {
  const config = configOf(call)
  const location = databaseOf(config)
  requireDatabase(location)
  const db = await openExisting(location)
  try {
    const target = await openBackupTarget(config)
    try {
      return await work({ db, config, target, found: await findBackups(target) })
    } finally {
      await target.close()
    }
  } catch (error) {
    if (error instanceof ServiceError) throw new CommandFailure(EXIT.UNAVAILABLE, error.message, { cause: error })
    throw error
  } finally {
    await db.destroy()
  }
}
