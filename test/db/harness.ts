import { copyFileSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, onTestFinished } from 'vitest'
import { type DatabaseOptions, type Db, openDatabase } from '../../src/db/database.ts'
import type { VolumeRow } from '../../src/db/volumes.ts'
import { createPostgresDatabase, runsPostgres } from '../tools/postgres.ts'
import { scratchDirectory } from '../tools/scratch.ts'

export const TYPE_ID = '00000000-0000-0000-0000-00000000aaaa'

export type Dialect = 'SQLite' | 'PostgreSQL'

/** For `describe.each`: what must hold on both databases. */
export const DIALECTS: readonly Dialect[] = runsPostgres ? ['SQLite', 'PostgreSQL'] : ['SQLite']

/**
 * Where an own database of this test is: a file, or a database on the server of this test file. Empty, or with the schema of this
 * version.
 */
export async function newDatabase(dialect: Dialect, { migrated = true } = {}): Promise<DatabaseOptions> {
  if (dialect === 'PostgreSQL') return { url: await createPostgresDatabase({ migrated }) }
  const directory = scratchDirectory('collie-db-')
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  const file = join(directory, 'collie.db')
  if (migrated) copyFileSync(await migratedFile(), file)
  return { file }
}

let template: Promise<string> | null = null

afterAll(async () => {
  if (template !== null) rmSync(dirname(await template), { recursive: true, force: true })
})

/** A file with the schema and no rows, made once for a test file, as that takes longer than many tests. */
function migratedFile(): Promise<string> {
  template ??= makeTemplate()
  return template
}

async function makeTemplate(): Promise<string> {
  const directory = scratchDirectory('collie-template-')
  const file = join(directory, 'collie.db')
  await (await openDatabase({ file })).destroy()
  return file
}

/** A migrated database of its own, with one volume type. */
export async function openTestDatabase(dialect: Dialect = 'SQLite'): Promise<{ db: Db; options: DatabaseOptions }> {
  const options = await newDatabase(dialect)
  const db = await openDatabase(options)
  onTestFinished(() => db.destroy())
  await db('volume_types').insert({
    id: TYPE_ID,
    name: 'a type',
    description: null,
    is_public: true,
    extra_specs: '{}',
    created_at: '2026-01-01T00:00:00.000000',
  })
  return { db, options }
}

/** Inserts rows, as many at a time as a statement may have values for. */
export async function insertMany(db: Db, table: string, rows: readonly object[], atATime = 25): Promise<void> {
  for (let first = 0; first < rows.length; first += atATime) await db(table).insert(rows.slice(first, first + atATime))
}

export function volumeRow(overrides: Partial<VolumeRow> & { id: string }): VolumeRow {
  return {
    project_id: 'project',
    user_id: 'user',
    name: null,
    description: null,
    size_gib: 1,
    pending_size_gib: null,
    status: 'available',
    status_reason: null,
    host: null,
    availability_zone: 'nova',
    volume_type_id: TYPE_ID,
    snapshot_id: null,
    source_volid: null,
    bootable: false,
    multiattach: false,
    metadata: '{}',
    placement: null,
    admin_metadata: '{}',
    image_metadata: '{}',
    upload_image_id: null,
    migration_status: null,
    pending_volume_type_id: null,
    group_id: null,
    consistencygroup_id: null,
    name_id: null,
    consumes_quota: true,
    encryption_key_id: null,
    created_at: '2026-01-01T00:00:00.000000',
    updated_at: null,
    ...overrides,
  }
}
