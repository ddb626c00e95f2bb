import { expect, it } from 'vitest'
import { down, up } from '../../migrations/0003-types-and-quotas.ts'
import * as quotas from '../../src/db/quotas.ts'
import { openTestDatabase, TYPE_ID, volumeRow } from './harness.ts'

it('counts by type what was there before it was counted', async () => {
  const { db } = await openTestDatabase()
  await down(db)
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
  await up(db)
  expect(await db('type_usages').orderBy(['project_id', 'volume_type_id'])).toEqual([
    { project_id: 'p', volume_type_id: TYPE_ID, volumes: 2, snapshots: 1, gigabytes: 9 },
    { project_id: 'p', volume_type_id: 'other', volumes: 1, snapshots: 0, gigabytes: 7 },
    { project_id: 'q', volume_type_id: TYPE_ID, volumes: 1, snapshots: 0, gigabytes: 11 },
    { project_id: 'r', volume_type_id: 'other', volumes: 0, snapshots: 1, gigabytes: 2 },
  ])
})

it('charges up to a limit of the type, never beyond, and refuses to refund what was not charged', async () => {
  const { db } = await openTestDatabase()
  const account = { projectId: 'p', volumeTypeId: TYPE_ID }
  const limits = { volumes: 3, snapshots: 0, gigabytes: -1 }
  const one = { volumes: 1, snapshots: 0, gigabytes: 5 }
  const charges = await Promise.all(Array.from({ length: 8 }, () => quotas.charge(db, account, one, limits)))
  expect(charges.filter(Boolean)).toHaveLength(3)
  await quotas.refund(db, account, one)
  await expect(quotas.refund(db, account, { volumes: 3, snapshots: 0, gigabytes: 0 })).rejects.toThrow(/check/i)
  await expect(quotas.refund(db, { ...account, projectId: 'nobody' }, one)).rejects.toThrow('never charged')
  expect(await quotas.usage(db, account)).toEqual({ volumes: 2, snapshots: 0, gigabytes: 10 })
  expect(await quotas.usageByType(db, 'p')).toEqual(new Map([[TYPE_ID, { volumes: 2, snapshots: 0, gigabytes: 10 }]]))
})

const PROJECT_OR_DEFAULT = "((scope = 'project' and owner = 'p') or (scope = 'class' and owner = 'default'))"

it.each([
  "update type_usages set volumes = 1 where project_id = 'p' and volume_type_id = 't'",
  `select * from quota_limits where ${PROJECT_OR_DEFAULT}`,
  `select * from type_quota_limits where ${PROJECT_OR_DEFAULT} and volume_type_id = 't'`,
])('finds what a charge needs through an index: %s', async (statement) => {
  const { db } = await openTestDatabase()
  const plan: { detail: string }[] = await db.raw(`explain query plan ${statement}`)
  expect(plan.map(({ detail }) => detail).join('; ')).toMatch(/USING.* INDEX/)
  expect(plan.map(({ detail }) => detail).join('; ')).not.toMatch(/\bSCAN\b/)
})
