import { createConfiguredBackends } from './app-backends.ts'
import { type CommandCall, CommandFailure, type CommandPorts, EXIT } from './cli/command.ts'
import { askNode, configOf } from './cli/node-access.ts'
import { table } from './cli/table.ts'
import type { ControlClient } from './control/client.ts'
import { copySqlite } from './db/backup.ts'
import { type DatabaseOptions, type Db, openExisting } from './db/database.ts'
import { databaseId } from './db/installation.ts'
import { databaseOf } from './db/location.ts'
import * as quotas from './db/quotas.ts'
import { fileExists } from './runtime/files.ts'
import { createTarget } from './runtime/image-file.ts'
import { runProgram } from './runtime/programs.ts'
import { splitHost } from './scheduler/place.ts'
import type { Backend } from './services/backends.ts'
import { checkUsage, compare, type Finding, readRecords } from './services/comparison.ts'

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
    const { findings, checked } = await compareAll(db, backends)
    const repaired = new Set(call.options.repair === undefined ? [] : await repair(db, findings))
    const sound = findings.every((finding) => repaired.has(finding))
    const result = {
      sound,
      checked,
      findings: findings.map(({ volumeId: _volume, driver: _driver, ...finding }, index) => ({
        ...finding,
        repaired: repaired.has(findings[index]!),
      })),
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

/** A finding, and who can mend it. */
type Located = Finding & { driver?: Backend['driver'] }

async function compareAll(db: Db, backends: readonly Backend[]) {
  const findings: Located[] = []
  const checked = { volumes: 0, snapshots: 0, attachments: 0, vdis: 0, foreign_vdis: 0 }
  for (const { name, driver } of backends) {
    const isHere = (host: string) => splitHost(host).backend === name
    const before = await readRecords(db, isHere)
    const found = (await driver.discover?.()) ?? { volumes: [], snapshots: [], exports: [], foreign: [] }
    const different = compare(before, found, await readRecords(db, isHere))
    findings.push(...different.map((finding) => ({ ...finding, driver })))
    checked.volumes += before.volumes.size
    checked.snapshots += before.snapshots.size
    checked.attachments += before.attachments.size
    checked.vdis += found.volumes.length + found.snapshots.length
    checked.foreign_vdis += found.foreign.length
  }
  findings.push(...(await checkUsage(db)))
  return { findings, checked }
}

/** Answers the findings that are none any more. */
async function repair(db: Db, findings: readonly Located[]): Promise<Located[]> {
  const repaired: Located[] = []
  for (const finding of findings) {
    if (finding.kind === 'usage-wrong') {
      const miscount = (await quotas.miscounts(db)).find(({ projectId }) => projectId === finding.id)
      if (miscount === undefined || (await quotas.correct(db, miscount))) repaired.push(finding)
    } else if (finding.kind === 'export-unknown' && finding.volumeId !== undefined) {
      await finding.driver?.removeExport({ id: finding.volumeId, sizeGib: 0 }, finding.id)
      repaired.push(finding)
    }
  }
  return repaired
}

function describe(result: {
  sound: boolean
  checked: Record<string, number>
  findings: { detail: string; advice: string; repaired: boolean }[]
}): string {
  const { volumes, snapshots, attachments, vdis, foreign_vdis } = result.checked
  return [
    result.sound ? 'Database and store agree.' : 'Database and store do NOT agree.',
    `Checked: ${volumes} volumes, ${snapshots} snapshots, ${attachments} attachments; ${vdis} VDIs, and ${foreign_vdis} that are not volumes.`,
    ...(result.findings.length === 0 ? [] : ['']),
    table(result.findings.map(({ detail, advice, repaired }) => [detail, repaired ? 'repaired' : advice])),
  ].join('\n')
}

/** Throws when there is none: SQLite would make one. */
function requireDatabase(location: DatabaseOptions): void {
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
