import BetterSqlite3 from 'better-sqlite3'
import { expect, it } from 'vitest'
import { compareAndSet } from '../../src/db/compare-and-set.ts'
import { openDatabase } from '../../src/db/database.ts'
import * as quotas from '../../src/db/quotas.ts'
import * as volumeTypes from '../../src/db/volume-types.ts'
import * as volumes from '../../src/db/volumes.ts'
import * as work from '../../src/db/work.ts'
import { openTestDatabase, TYPE_ID, volumeRow } from './harness.ts'

it('syncs the write-ahead log at every commit and keeps foreign keys', async () => {
  const { db } = await openTestDatabase()
  expect(await db.raw('pragma journal_mode')).toEqual([{ journal_mode: 'wal' }])
  expect(await db.raw('pragma synchronous')).toEqual([{ synchronous: 2 }])
  expect(await db.raw('pragma foreign_keys')).toEqual([{ foreign_keys: 1 }])
})

it('shows a commit to a second process at once and opens again with its rows', async () => {
  const { db, file } = await openTestDatabase()
  await volumes.insert(db, volumeRow({ id: 'v1' }))
  const other = new BetterSqlite3(file, { readonly: true })
  expect(other.prepare('select id from volumes').all()).toEqual([{ id: 'v1' }])
  other.close()
  const again = await openDatabase({ file })
  expect((await volumes.find(again, 'v1'))?.volume_type_name).toBe('a type')
  await again.destroy()
})

it('can take the schema down and build it again', async () => {
  const { db } = await openTestDatabase()
  await db.migrate.rollback(undefined, true)
  expect(await db.schema.hasTable('volumes')).toBe(false)
  await db.migrate.latest()
  expect(await db.schema.hasTable('volumes')).toBe(true)
})

it('reads lists, quotas and due work through an index', async () => {
  const { db } = await openTestDatabase()
  const statements = [
    "select * from volumes where project_id = 'p' order by created_at desc nulls last, id desc nulls last",
    'select * from volumes order by created_at desc nulls last, id desc nulls last limit 10',
    "select * from volumes where project_id = 'p' and name = 'n'",
    "select * from snapshots where project_id = 'p' order by created_at desc nulls last, id desc nulls last",
    "select * from snapshots where volume_id = 'v'",
    "select * from attachments where volume_id in ('a', 'b')",
    "update usages set volumes = 1 where project_id = 'p'",
    "select min(due_at_ms) from work where owner = 'o'",
    "select 1 from volumes where snapshot_id = 's' and status = 'creating'",
  ]
  for (const statement of statements) {
    const plan: { detail: string }[] = await db.raw(`explain query plan ${statement}`)
    expect(plan.map(({ detail }) => detail).join('; ')).toMatch(/USING.* INDEX/)
    expect(plan.map(({ detail }) => detail).join('; ')).not.toMatch(/TEMP B-TREE FOR ORDER BY/)
  }
})

it('lets one of many compare-and-sets win', async () => {
  const { db } = await openTestDatabase()
  await volumes.insert(db, volumeRow({ id: 'v1' }))
  const change = { from: ['available', 'error'], updatedAt: '2026-01-02T00:00:00.000000' }
  const wins = await Promise.all(
    ['extending', 'deleting', 'reserved'].map((to) => compareAndSet(db, 'volumes', 'v1', { ...change, to })),
  )
  expect(wins.filter(Boolean)).toHaveLength(1)
  expect(await compareAndSet(db, 'volumes', 'absent', { ...change, to: 'deleting' })).toBe(false)
})

it('keeps a volume type that a volume has, and a name for one type', async () => {
  const { db } = await openTestDatabase()
  await volumes.insert(db, volumeRow({ id: 'v1' }))
  expect(await volumeTypes.remove(db, TYPE_ID)).toBe('in-use')
  await volumes.remove(db, 'v1')
  const twin = { ...(await volumeTypes.find(db, TYPE_ID))!, id: 'twin' }
  expect(await volumeTypes.insert(db, twin)).toBe(false)
  expect(await volumeTypes.remove(db, TYPE_ID)).toBe('removed')
  expect(await volumeTypes.remove(db, TYPE_ID)).toBe('absent')
})

it('charges up to a limit, never beyond, and refuses to refund what was not charged', async () => {
  const { db } = await openTestDatabase()
  const limits = { volumes: 3, snapshots: 0, gigabytes: -1 }
  const one = { volumes: 1, snapshots: 0, gigabytes: 5 }
  const charges = await Promise.all(Array.from({ length: 8 }, () => quotas.charge(db, 'p', one, limits)))
  expect(charges.filter(Boolean)).toHaveLength(3)
  expect(await quotas.usage(db, 'p')).toEqual({ volumes: 3, snapshots: 0, gigabytes: 15 })
  await quotas.refund(db, 'p', one)
  await expect(quotas.refund(db, 'p', { volumes: 3, snapshots: 0, gigabytes: 0 })).rejects.toThrow('CHECK')
  await expect(quotas.refund(db, 'nobody', one)).rejects.toThrow('never charged')
  expect(await quotas.usage(db, 'p')).toEqual({ volumes: 2, snapshots: 0, gigabytes: 10 })
})

it('claims its own units and those whose owner let the deadline pass', async () => {
  const { db } = await openTestDatabase()
  const unit = (id: string, owner: string, deadlineAtMs: number): work.WorkRow => ({
    id,
    kind: 'volume-create',
    resource_id: `resource of ${id}`,
    lane: id,
    owner,
    params: '{}',
    request_id: null,
    next_step: 'provision',
    attempt: 1,
    due_at_ms: 9_000_000_000_000,
    deadline_at_ms: deadlineAtMs,
    last_error: null,
    created_at: `2026-01-01T00:00:00.00000${id}`,
    updated_at: null,
  })
  await work.insert(db, unit('1', 'me', 2000))
  await work.insert(db, unit('2', 'dead', 999))
  await work.insert(db, unit('3', 'alive', 2000))
  await expect(work.insert(db, { ...unit('4', 'me', 0), resource_id: 'resource of 1' })).rejects.toThrow('UNIQUE')
  expect((await work.claim(db, 'me', 1000, 5000)).map(({ id }) => id)).toEqual(['1', '2'])
  expect((await work.due(db, 'me', 1000, 10, ['1'])).map(({ id }) => id)).toEqual(['2'])
  expect(await work.nextDueAtMs(db, 'alive', {})).toBe(9_000_000_000_000)
  expect(await work.nextDueAtMs(db, 'me', { units: ['1', '2'] })).toBeNull()
})
