import { expect, it } from 'vitest'
import { openTestDatabase, TYPE_ID, volumeRow } from './harness.ts'

it('counts by type what was there before it was counted', async () => {
  const { db } = await openTestDatabase()
  await db.migrate.down({ name: '0003-types-and-quotas' })
  const [first] = await db('volume_types')
  await db('volume_types').insert({ ...first, id: 'other', name: 'another type' })
  await db('volume_types').insert({ ...first, id: 'unused', name: 'a third type' })
  await db('volumes').insert([
    volumeRow({ id: 'v1', project_id: 'p', size_gib: 2 }),
    volumeRow({ id: 'v2', project_id: 'p', size_gib: 3, pending_size_gib: 5, status: 'extending' }),
    volumeRow({ id: 'v3', project_id: 'p', size_gib: 7, volume_type_id: 'other' }),
    volumeRow({ id: 'v4', project_id: 'q', size_gib: 11 }),
  ])
  const snapshot = { user_id: 'u', size_gib: 2, status: 'available', progress: '100%', metadata: '{}' }
  await db('snapshots').insert([
    { ...snapshot, id: 's1', project_id: 'p', volume_id: 'v1', created_at: '2026' },
    { ...snapshot, id: 's2', project_id: 'r', volume_id: 'v3', created_at: '2026' },
  ])
  await db.migrate.latest()
  expect(await db('type_usages').orderBy(['project_id', 'volume_type_id'])).toEqual([
    { project_id: 'p', volume_type_id: TYPE_ID, volumes: 2, snapshots: 1, gigabytes: 9 },
    { project_id: 'p', volume_type_id: 'other', volumes: 1, snapshots: 0, gigabytes: 7 },
    { project_id: 'q', volume_type_id: TYPE_ID, volumes: 1, snapshots: 0, gigabytes: 11 },
    { project_id: 'r', volume_type_id: 'other', volumes: 0, snapshots: 1, gigabytes: 2 },
  ])
})
