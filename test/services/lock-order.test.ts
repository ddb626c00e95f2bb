import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { Db } from '../../src/db/database.ts'
import { runsPostgres } from '../tools/postgres.ts'
import {
  admin,
  availableVolume,
  createGate,
  createHarness,
  type Harness,
  keptUsage,
  member,
  newBackup,
  newSnapshot,
  outcome,
  recount,
} from './harness.ts'
import { copyOf, groupOf } from './scenarios.ts'

/**
 * Whoever locks several rows takes them in one order, so that no two wait for each other: group, backup, volume, snapshots, type,
 * counts.
 * Here a transaction of the test's own holds one row, and looks which others a request has by the time that it waits.
 */

const NAMELESS = { name: null, description: null }

interface Holder {
  trx: Db
  /** Whether nobody else has locked the row. */
  isFree(table: string, id: string): Promise<boolean>
  letGo(): Promise<void>
}

async function hold(db: Db, table: string, where: Record<string, string>): Promise<Holder> {
  const trx = await db.transaction()
  onTestFinished(async () => {
    if (!trx.isCompleted()) await trx.rollback()
  })
  await trx(table).where(where).forUpdate()
  return {
    trx,
    isFree: async (of, id) => (await trx(of).where({ id }).forUpdate().skipLocked()).length === 1,
    letGo: () => trx.commit().then(() => {}),
  }
}

async function somebodyWaits({ db }: Harness): Promise<void> {
  const waiting = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
  await vi.waitFor(async () => expect((await db.raw(waiting)).rows).toHaveLength(1), { timeout: 20_000, interval: 5 })
}

async function snapshotOf({ services }: Harness, volumeId: string): Promise<string> {
  const { id } = await services.snapshots.create(member, newSnapshot(volumeId))
  await services.idle()
  return id
}

describe.runIf(runsPostgres)('on PostgreSQL', () => {
  it('a snapshot that is forgotten is locked after its volume', async () => {
    const harness = await createHarness({ dialect: 'PostgreSQL' })
    const id = await availableVolume(harness)
    const snapshotId = await snapshotOf(harness, id)
    const holder = await hold(harness.db, 'volumes', { id })
    const answer = outcome(harness.services.snapshots.unmanage(admin, snapshotId))
    await somebodyWaits(harness)
    expect(await holder.isFree('snapshots', snapshotId)).toBe(true)
    await holder.letGo()
    expect(await answer).toBe('done')
  })

  it('a volume is locked after the backup that another is based on', async () => {
    const harness = await createHarness({ dialect: 'PostgreSQL' })
    const id = await availableVolume(harness)
    const parent = await harness.services.backups.create(member, newBackup(id))
    await harness.services.idle()
    const holder = await hold(harness.db, 'backups', { id: parent.id })
    const answer = outcome(harness.services.backups.create(member, newBackup(id, { incremental: true })))
    await somebodyWaits(harness)
    expect(await holder.isFree('volumes', id)).toBe(true)
    await holder.letGo()
    expect(await answer).toBe('done')
    await harness.services.idle()
  })

  it.each<[string, (harness: Harness, id: string) => Promise<unknown>]>([
    ['is frozen', ({ services }, groupId) => services.groupSnapshots.create(member, { ...NAMELESS, groupId })],
    ['goes with its volumes', ({ services }, id) => services.groups.delete(member, id, { withVolumes: true })],
    ['is copied', ({ services }, id) => services.groups.createCopy(member, copyOf({ sourceGroupId: id }))],
    [
      'loses a volume',
      async ({ services, db }, id) => {
        const inside = await db('volumes').where({ group_id: id }).max('id as last').first()
        await services.groups.update(member, id, { ...NAMELESS, addVolumes: [], removeVolumes: [inside?.last] })
      },
    ],
  ])('a group that %s is locked before its volumes', async (_, act) => {
    const harness = await createHarness({ dialect: 'PostgreSQL' })
    const id = await groupOf(harness)
    const [first, last] = await harness.db('volumes').where({ group_id: id }).orderBy('id').pluck('id')
    const group = await hold(harness.db, 'volume_groups', { id })
    const answer = outcome(act(harness, id))
    await somebodyWaits(harness)
    for (const volume of [first, last]) expect(await group.isFree('volumes', volume)).toBe(true)
    await group.letGo()
    expect(await answer).toBe('done')
    await harness.services.idle()
  })

  it('volumes of a group are locked by their ids', async () => {
    const harness = await createHarness({ dialect: 'PostgreSQL' })
    const id = await groupOf(harness)
    const [first, last] = await harness.db('volumes').where({ group_id: id }).orderBy('id').pluck('id')
    const holder = await hold(harness.db, 'volumes', { id: last })
    const answer = outcome(harness.services.groupSnapshots.create(member, { ...NAMELESS, groupId: id }))
    await somebodyWaits(harness)
    expect(await holder.isFree('volume_groups', id)).toBe(false)
    expect(await holder.isFree('volumes', first)).toBe(false)
    await holder.letGo()
    expect(await answer).toBe('done')
    await harness.services.idle()
    expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
  })

  it('the end of a retype locks the volume before it counts what hangs on it', async () => {
    let isRetyping = false
    const gate = createGate({ matches: ({ method }) => isRetyping && method === 'stats', toString: () => 'stats' })
    const harness = await createHarness({ dialect: 'PostgreSQL', filters: [gate.filter] })
    const { volumes, types, snapshots, idle } = harness.services
    await types.create(admin, { name: 'other', description: null, isPublic: true, extraSpecs: {} })
    const id = await availableVolume(harness)
    const snapshotId = await snapshotOf(harness, id)
    isRetyping = true
    await volumes.retype(member, id, { newType: 'other', migrationPolicy: 'never' })
    await gate.reached
    const holder = await hold(harness.db, 'usages', { project_id: member.projectId })
    gate.open()
    await somebodyWaits(harness)
    expect(await holder.isFree('volumes', id)).toBe(false)
    const unmanaged = snapshots.unmanage(admin, snapshotId)
    await holder.letGo()
    await unmanaged
    await idle()
    expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
  })
})
