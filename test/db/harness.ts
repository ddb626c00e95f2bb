import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { type Db, openDatabase } from '../../src/db/database.ts'
import type { VolumeRow } from '../../src/db/volumes.ts'

export const TYPE_ID = '00000000-0000-0000-0000-00000000aaaa'

/** A migrated database in a file of its own, with one volume type. */
export async function openTestDatabase(): Promise<{ db: Db; file: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'collie-db-'))
  const file = join(directory, 'collie.db')
  const db = await openDatabase({ file })
  onTestFinished(async () => {
    await db.destroy()
    rmSync(directory, { recursive: true, force: true })
  })
  await db('volume_types').insert({
    id: TYPE_ID,
    name: 'a type',
    description: null,
    is_public: true,
    extra_specs: '{}',
    created_at: '2026-01-01T00:00:00.000000',
  })
  return { db, file }
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
    admin_metadata: '{}',
    image_metadata: '{}',
    migration_status: null,
    pending_volume_type_id: null,
    created_at: '2026-01-01T00:00:00.000000',
    updated_at: null,
    ...overrides,
  }
}
