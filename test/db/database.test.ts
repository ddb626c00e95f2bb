import BetterSqlite3 from 'better-sqlite3'
import { describe, expect, it } from 'vitest'
import { compareAndSet } from '../../src/db/compare-and-set.ts'
import { openDatabase } from '../../src/db/database.ts'
import * as quotas from '../../src/db/quotas.ts'
import * as volumeTypes from '../../src/db/volume-types.ts'
import * as volumes from '../../src/db/volumes.ts'
import { outcome } from '../services/harness.ts'
import { DIALECTS, newDatabase, openTestDatabase, TYPE_ID, volumeRow } from './harness.ts'

describe('a file', () => {
  it('has a write-ahead log, and its foreign keys kept', async () => {
    const { db } = await openTestDatabase()
    expect(await db.raw('pragma journal_mode')).toEqual([{ journal_mode: 'wal' }])
    expect(await db.raw('pragma synchronous')).toEqual([{ synchronous: 1 }]) // commits are synced beside it: commits.test.ts
    expect(await db.raw('pragma foreign_keys')).toEqual([{ foreign_keys: 1 }])
  })

  it('shows a commit to a second process at once and opens again with its rows', async () => {
    const options = await newDatabase('SQLite')
    if (!('file' in options)) return expect.unreachable()
    const db = await openDatabase(options)
    await db('volume_types').insert({ id: TYPE_ID, name: 't', is_public: true, extra_specs: '{}', created_at: 'now' })
    await volumes.insert(db, volumeRow({ id: 'v1' }))
    const other = new BetterSqlite3(options.file, { readonly: true })
    expect(other.prepare('select id from volumes').all()).toEqual([{ id: 'v1' }])
    other.close()
    await db.destroy()
    const again = await openDatabase(options)
    expect((await volumes.find(again, 'v1'))?.volume_type_name).toBe('t')
    await again.destroy()
  })
})

const PROJECT = { projectId: 'p', volumeTypeId: null }

describe.each(DIALECTS)('on %s', (dialect) => {
  it('lets one of many compare-and-sets win', async () => {
    const { db } = await openTestDatabase(dialect)
    await volumes.insert(db, volumeRow({ id: 'v1' }))
    const change = { from: ['available', 'error'], updatedAt: '2026-01-02T00:00:00.000000' }
    const wins = await Promise.all(
      ['extending', 'deleting', 'reserved'].map((to) => compareAndSet(db, 'volumes', 'v1', { ...change, to })),
    )
    expect(wins.filter(Boolean)).toHaveLength(1)
    expect(await compareAndSet(db, 'volumes', 'absent', { ...change, to: 'deleting' })).toBe(false)
  })

  it('keeps a volume type that a volume has, and a name for one type', async () => {
    const { db } = await openTestDatabase(dialect)
    await volumes.insert(db, volumeRow({ id: 'v1' }))
    expect(await volumeTypes.remove(db, TYPE_ID)).toBe('in-use')
    await volumes.remove(db, 'v1')
    const twin = { ...(await volumeTypes.find(db, TYPE_ID))!, id: 'twin' }
    expect(await volumeTypes.insert(db, twin)).toBe(false)
    expect(await volumeTypes.remove(db, TYPE_ID)).toBe('removed')
    expect(await volumeTypes.remove(db, TYPE_ID)).toBe('absent')
  })

  it('charges up to a limit, never beyond, and refuses to refund what was not charged', async () => {
    const { db } = await openTestDatabase(dialect)
    const limits = { volumes: 3, snapshots: 0, gigabytes: -1 }
    const one = { volumes: 1, snapshots: 0, gigabytes: 5 }
    const charges = await Promise.all(Array.from({ length: 8 }, () => quotas.charge(db, PROJECT, one, limits)))
    expect(charges.filter(Boolean)).toHaveLength(3)
    expect(await quotas.usage(db, PROJECT)).toEqual({ volumes: 3, snapshots: 0, gigabytes: 15 })
    await quotas.refund(db, PROJECT, one)
    await expect(quotas.refund(db, PROJECT, { volumes: 3, snapshots: 0, gigabytes: 0 })).rejects.toThrow(/check/i)
    await expect(quotas.refund(db, { ...PROJECT, projectId: 'nobody' }, one)).rejects.toThrow('never charged')
    expect(await quotas.usage(db, PROJECT)).toEqual({ volumes: 2, snapshots: 0, gigabytes: 10 })
  })

  it('repeats a transaction that lost against another', async () => {
    const { db } = await openTestDatabase(dialect)
    for (const id of ['v1', 'v2']) await volumes.insert(db, volumeRow({ id }))
    // Each locks the row that the other wants next: on PostgreSQL one of them is ended by the server.
    const both = (first: string, second: string) =>
      db.transaction(async (trx) => {
        await volumes.lock(trx, first)
        await trx.raw('select 1')
        await trx('volumes').where({ id: second }).increment('size_gib', 1)
      })
    await Promise.all(Array.from({ length: 6 }, (_, turn) => (turn % 2 ? both('v1', 'v2') : both('v2', 'v1'))))
    expect(await db('volumes').orderBy('id').pluck('size_gib')).toEqual([4, 4])
  })

  it('loses no update of two that read, think and write the same row', async () => {
    const { db } = await openTestDatabase(dialect)
    await volumes.insert(db, volumeRow({ id: 'v1' }))
    await Promise.all(
      Array.from({ length: 20 }, () =>
        db.transaction(async (trx) => {
          const row = await volumes.lock(trx, 'v1')
          await volumes.update(trx, 'v1', { size_gib: row!.size_gib + 1, updated_at: 'now' })
        }),
      ),
    )
    expect((await volumes.find(db, 'v1'))?.size_gib).toBe(21)
  })

  it('says in the words of the service what no column can hold, and tells no values', async () => {
    const { db } = await openTestDatabase(dialect)
    const tooLong = outcome(volumes.insert(db, volumeRow({ id: 'v1', name: 'x'.repeat(300) })))
    expect(await tooLong).toBe(dialect === 'PostgreSQL' ? 'InvalidInput' : 'done')
    const twice = volumes.insert(db, volumeRow({ id: 'v2', metadata: 'secret' }))
    await twice
    await expect(volumes.insert(db, volumeRow({ id: 'v2', metadata: 'secret' }))).rejects.toThrow(/^(?!.*secret)/s)
  })
})
