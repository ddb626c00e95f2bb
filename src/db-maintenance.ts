import { createConfiguredBackends } from './app-backends.ts'
import { openBackupTarget } from './app-backup-target.ts'
import { type CommandCall, CommandFailure, type CommandPorts, EXIT } from './cli/command.ts'
import { askNode, configOf } from './cli/node-access.ts'
import { table } from './cli/table.ts'
import type { Config } from './config.ts'
import type { ControlClient } from './control/client.ts'
import { copySqlite } from './db/backup.ts'
import { type DatabaseOptions, type Db, openExisting } from './db/database.ts'
import { databaseId } from './db/installation.ts'
import { databaseOf } from './db/location.ts'
import type { VolumeDriver } from './drivers/driver.ts'
import { fileExists } from './runtime/files.ts'
import { createTarget } from './runtime/image-file.ts'
import { runProgram } from './runtime/programs.ts'
import { splitHost } from './scheduler/place.ts'
import type { Backend } from './services/backends.ts'
import { compareBackups, findBackups, readBackupRecords } from './services/backup-comparison.ts'
import { compare, type Finding, readRecords } from './services/comparison.ts'
import { checkStatuses, checkUsage, countRecords, type Mendable } from './services/database-check.ts'

/** What `collie db backup` and `collie db check` do. */

export async function backUp(call: CommandCall): Promise<number> {
  const [file = ''] = call.operands
  const location = databaseOf(configOf(call))
  requireDatabase(location)
  const target = await createTarget(file, { replace: false })
  try {
    if ('url' in location) await dumpPostgres(location.url, target.temporaryPath, file, call)
    else await copySqlite(location.file, target.temporaryPath)
    await target.commit()
  } finally {
    await target.discard()
  }
  call.print({ file }, () => `The database is in ${file}.`)
  return EXIT.OK
}

export function check(ports: CommandPorts, call: CommandCall): Promise<number> {
  return askNode(ports, call, (node) => checkWith(call, node))
}

async function checkWith(call: CommandCall, node: ControlClient): Promise<number> {
  return withBoth(call, node, async (db, backends) => {
    const { findings, checked } = await compareAll(db, backends, configOf(call))
    const repaired = new Set(call.options.repair === undefined ? [] : await repair(findings))
    const sound = findings.every((finding) => repaired.has(finding))
    const result: CheckResult = {
      sound,
      checked,
      findings: findings.map((found) => {
        const { kind, id, backend = null, detail, advice } = found
        return { kind, id, backend, detail, advice, repaired: repaired.has(found) }
      }),
    }
    call.print(result, () => describe(result))
    return sound ? EXIT.OK : EXIT.DATA_UNSOUND
  })
}

export function adopt(ports: CommandPorts, call: CommandCall): Promise<number> {
  return askNode(ports, call, (node) =>
    withBoth(call, node, async (db, backends) => {
      const database = await databaseId(db)
      for (const { driver } of backends) await driver.drive?.(database, { replace: true })
      call.print(
        { database },
        () => `The store follows the database ${database} now; \`collie db check\` says where they differ.`,
      )
      return EXIT.OK
    }),
  )
}

/** Runs work with the database and the backends that the settings name. */
async function withBoth<T>(
  call: CommandCall,
  node: ControlClient,
  work: (db: Db, backends: readonly Backend[]) => Promise<T>,
): Promise<T> {
  const config = configOf(call)
  const location = databaseOf(config)
  requireDatabase(location)
  const backends = createConfiguredBackends(config, node)
  const db = await openExisting(location)
  try {
    return await work(db, backends)
  } finally {
    for (const { driver } of backends) await driver.stop()
    await db.destroy()
  }
}

/** A finding, and how `--repair` ends it, where it does. */
type Found = Finding & Partial<Pick<Mendable, 'mend'>>

interface CheckResult {
  sound: boolean
  checked: Awaited<ReturnType<typeof compareAll>>['checked']
  findings: {
    kind: Finding['kind']
    id: string
    backend: string | null
    detail: string
    advice: string
    repaired: boolean
  }[]
}

async function compareAll(db: Db, backends: readonly Backend[], config: Config) {
  const findings: Found[] = []
  const stored = { vdis: 0, foreign_vdis: 0 }
  for (const { name, driver } of backends) {
    const isHere = (host: string) => splitHost(host).backend === name
    const before = await readRecords(db, isHere)
    const found = (await driver.discover?.()) ?? { volumes: [], snapshots: [], exports: [], foreign: [] }
    const different = compare(before, found, await readRecords(db, isHere))
    findings.push(...different.map((finding) => ({ ...finding, backend: name, ...mendOf(finding, driver) })))
    stored.vdis += found.volumes.length + found.snapshots.length
    stored.foreign_vdis += found.foreign.length
  }
  const target = await openBackupTarget(config)
  const before = await readBackupRecords(db)
  const there = await findBackups(target).finally(() => target.close())
  findings.push(...compareBackups(target.service, before, there, await readBackupRecords(db)))
  findings.push(...(await checkStatuses(db)), ...(await checkUsage(db)))
  return { findings, checked: { ...(await countRecords(db)), ...stored, backups_on_target: there.size } }
}

/** A right that nobody knows of can be taken back. */
function mendOf({ kind, id, volumeId }: Finding, driver: VolumeDriver): Partial<Pick<Mendable, 'mend'>> {
  if (kind !== 'export-unknown' || volumeId === undefined) return {}
  return {
    mend: async () => {
      await driver.removeExport({ id: volumeId, sizeGib: 0 }, id)
      return true
    },
  }
}

/** Answers the findings that are none any more. */
async function repair(findings: readonly Found[]): Promise<Found[]> {
  const repaired: Found[] = []
  for (const finding of findings) if (await finding.mend?.()) repaired.push(finding)
  return repaired
}

function describe({ sound, checked, findings }: CheckResult): string {
  const { volumes, snapshots, attachments, types, work, backups } = checked
  return [
    sound ? 'Database and store agree.' : 'Database and store do NOT agree.',
    `Checked: ${volumes} volumes, ${snapshots} snapshots, ${attachments} attachments, ${backups} backups, ${types} types, ${work} units of work;`,
    `in the store ${checked.vdis} VDIs, and ${checked.foreign_vdis} that are not volumes; on the backup target ${checked.backups_on_target} backups.`,
    ...(findings.length === 0 ? [] : ['']),
    table(
      findings.map(({ backend, detail, advice, repaired }) => [backend ?? '-', detail, repaired ? 'repaired' : advice]),
    ),
  ].join('\n')
}

/** Throws when there is none: SQLite would make one. */
export function requireDatabase(location: DatabaseOptions): void {
  if ('url' in location || fileExists(location.file)) return
  const advice = "--data-dir says which node's is meant"
  throw new CommandFailure(EXIT.NO_INPUT, `there is no database ${location.file}; ${advice}`)
}

async function dumpPostgres(url: string, target: string, file: string, { io }: CommandCall): Promise<void> {
  const { password, shown } = withoutPassword(url)
  const env = password === '' ? io.env : { ...io.env, PGPASSWORD: password }
  const args = ['--format=custom', '--no-password', `--file=${target}`, `--dbname=${shown}`]
  const end = await runProgram('pg_dump', args, { env }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    const command = `pg_dump --format=custom --file=${file} --dbname=${shown}`
    const advice = `install it (Debian: apt-get install postgresql-client), or run it where it is: ${command}`
    throw new CommandFailure(
      EXIT.UNAVAILABLE,
      `PostgreSQL is backed up by pg_dump, which is not installed here; ${advice}`,
    )
  })
  if (end.code !== 0) throw new CommandFailure(EXIT.UNAVAILABLE, end.err)
}

/** A password belongs into the environment of pg_dump: everybody sees its arguments. */
function withoutPassword(text: string): { password: string; shown: string } {
  const url = new URL(text)
  const password = decodeURIComponent(url.password) || (url.searchParams.get('password') ?? '')
  url.password = ''
  url.searchParams.delete('password')
  return { password, shown: url.href }
}
