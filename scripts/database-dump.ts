import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Knex } from 'knex'
import { up } from '../migrations/0001-volumes.ts'
import { connectPostgres, connectSqlite } from '../src/db/connections.ts'

/**
 * `npx tsx scripts/database-dump.ts postgres://…/empty` writes what the first version left in its databases, for the test that
 * brings them up to date: SQL for SQLite, and for PostgreSQL, which an empty database is needed for.
 */
const FIXTURES = fileURLToPath(new URL('../test/db/fixtures/', import.meta.url))
const STAMP = '2026-01-01T00:00:00.00000'

/** One of everything that the first version kept, and a unit of work that its process left behind. */
const ROWS: Readonly<Record<string, readonly Record<string, unknown>[]>> = {
  volume_types: [
    { id: 'type-1', name: '__DEFAULT__', is_public: true, extra_specs: '{"a":"b"}', created_at: `${STAMP}0` },
  ],
  volumes: [
    volume('volume-1', { name: 'Zoë', status: 'available', metadata: '{"k":"v"}', created_at: `${STAMP}1` }),
    volume('volume-2', { status: 'in-use', size_gib: 3, bootable: true, created_at: `${STAMP}2` }),
    volume('volume-3', { name: 'a', status: 'creating', source_volid: 'volume-1', created_at: `${STAMP}3` }),
  ],
  snapshots: [
    {
      ...owned('snapshot-1'),
      volume_id: 'volume-1',
      name: null,
      size_gib: 1,
      status: 'available',
      progress: '100%',
      created_at: `${STAMP}4`,
    },
  ],
  attachments: [
    {
      id: 'attachment-1',
      project_id: 'project',
      volume_id: 'volume-2',
      status: 'attached',
      attach_mode: 'rw',
      connector: '{"host":"compute-1"}',
      connection_info: '{"driver_volume_type":"memory"}',
      created_at: `${STAMP}5`,
    },
  ],
  usages: [{ project_id: 'project', volumes: 3, snapshots: 1, gigabytes: 6 }],
  work: [
    {
      id: 'unit-1',
      kind: 'volume-create',
      resource_id: 'volume-3',
      lane: 'volume-3',
      owner: 'api',
      params: '{}',
      next_step: 'provision',
      attempt: 2,
      due_at_ms: 1_767_225_600_000,
      deadline_at_ms: 1_767_225_660_000,
      last_error: 'The storage backend failed: not now',
      created_at: `${STAMP}3`,
    },
  ],
}

function owned(id: string) {
  return { id, project_id: 'project', user_id: 'user', metadata: '{}' }
}

function volume(id: string, columns: Record<string, unknown>) {
  return {
    ...owned(id),
    size_gib: 1,
    host: 'host@memory#memory',
    availability_zone: 'nova',
    volume_type_id: 'type-1',
    bootable: false,
    multiattach: false,
    ...columns,
  }
}

async function fill(db: Knex): Promise<void> {
  const migrations = [{ name: '0001-volumes', up, down: async () => {} }]
  await db.migrate.latest({
    migrationSource: {
      getMigrations: async () => migrations,
      getMigrationName: (migration: (typeof migrations)[number]) => migration.name,
      getMigration: async (migration: (typeof migrations)[number]) => migration,
    },
  })
  await db('knex_migrations').update({ migration_time: db.raw("'2026-01-01 00:00:00'") })
  for (const [table, rows] of Object.entries(ROWS)) for (const row of rows) await db(table).insert(row)
}

async function dumpSqlite(): Promise<string> {
  const db = connectSqlite(':memory:')
  await fill(db)
  const objects: { name: string; sql: string; type: string }[] = await db('sqlite_master')
    .whereNotNull('sql')
    .whereNot('name', 'like', 'sqlite_%')
    .orderByRaw("type = 'index', rowid")
    .select('name', 'sql', 'type')
  const lines = objects.map(({ sql }) => `${sql};`)
  for (const { name, type } of objects) {
    if (type !== 'table') continue
    for (const row of await db(name)) lines.push(`${db(name).insert(row).toString()};`)
  }
  await db.destroy()
  return `${lines.join('\n')}\n`
}

async function dumpPostgres(url: string): Promise<string> {
  const db = connectPostgres(url)
  await fill(db)
  await db.destroy()
  const dump = execFileSync('pg_dump', ['--inserts', '--no-owner', '--no-privileges', `--dbname=${url}`], {
    encoding: 'utf8',
  })
  return dump.replace(/^(--.*|\\.*|SELECT pg_catalog.set_config.*)?\n/gm, '')
}

const [url] = process.argv.slice(2)
if (url === undefined) throw new Error('say where an empty PostgreSQL database is')
mkdirSync(FIXTURES, { recursive: true })
writeFileSync(path.join(FIXTURES, 'version-0001.sqlite.sql'), await dumpSqlite())
writeFileSync(path.join(FIXTURES, 'version-0001.postgres.sql'), await dumpPostgres(url))
