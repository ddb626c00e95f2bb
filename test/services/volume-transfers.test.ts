import { describe, expect, it } from 'vitest'
import { DIALECTS } from '../db/harness.ts'
import {
  admin,
  availableVolume,
  contextOf,
  createHarness,
  everything,
  type Harness,
  keptUsage,
  member,
  newSnapshot,
  newVolume,
  outcome,
  recount,
  stranger,
} from './harness.ts'

const heir = contextOf({ projectId: 'heir', userId: 'heiress' })

function offer(volumeId: string, noSnapshots = false, allowEncrypted = false) {
  return { volumeId, name: 'gift', noSnapshots, allowEncrypted }
}

async function availableSnapshot({ services }: Harness, volumeId: string, context = member): Promise<string> {
  const { id } = await services.snapshots.create(context, newSnapshot(volumeId))
  await services.idle()
  return id
}

const statusOf = async ({ services }: Harness, id: string) => (await services.volumes.get(admin, id)).status

describe.each(DIALECTS)('a transfer (%s)', (dialect) => {
  it('takes volume, snapshots and what they count from one project to the other', async () => {
    const harness = await createHarness({ dialect })
    const { db, services } = harness
    const id = await availableVolume(harness, { sizeGib: 3 })
    const snapshot = await availableSnapshot(harness, id)
    const transfer = await services.transfers.create(member, offer(id))
    expect(await statusOf(harness, id)).toBe('awaiting-transfer')
    expect(transfer).toMatchObject({ volumeId: id, name: 'gift', noSnapshots: false, sourceProjectId: 'project' })
    expect(transfer.authKey).toMatch(/^[0-9a-f]{16}$/)
    expect(JSON.stringify(await db('volume_transfers'))).not.toContain(transfer.authKey)

    await services.transfers.accept(heir, transfer.id, transfer.authKey)
    const volume = await services.volumes.get(heir, id)
    expect(volume).toMatchObject({ status: 'available', projectId: 'heir', userId: 'heiress' })
    expect(await services.snapshots.get(heir, snapshot)).toMatchObject({ projectId: 'heir', userId: 'heiress' })
    expect(await outcome(services.volumes.get(member, id))).toBe('VolumeNotFound')
    expect(await outcome(services.snapshots.get(member, snapshot))).toBe('SnapshotNotFound')
    expect(await outcome(services.transfers.get(admin, transfer.id))).toBe('TransferNotFound')
    expect(await keptUsage(db)).toEqual({ heir: { volumes: 1, snapshots: 1, gigabytes: 6 } })
    expect(await recount(db)).toEqual(await keptUsage(db))
  })

  it('is accepted by one of those who race for it', async () => {
    const harness = await createHarness({ dialect })
    const { db, services } = harness
    const id = await availableVolume(harness)
    const { id: transfer, authKey } = await services.transfers.create(member, offer(id))
    const heirs = ['a', 'b', 'c', 'd'].map((projectId) => contextOf({ projectId }))
    const outcomes = await Promise.all([
      ...heirs.map((one) => outcome(services.transfers.accept(one, transfer, authKey))),
      outcome(services.transfers.delete(member, transfer)),
    ])
    expect(outcomes.filter((one) => one === 'done')).toHaveLength(1)
    for (const lost of outcomes.filter((one) => one !== 'done')) expect(lost).toMatch(/^(Transfer|Volume)NotFound$/)
    expect(await keptUsage(db)).toEqual(await recount(db))
  })

  it('crosses others between the same projects without waiting for ever', async () => {
    const harness = await createHarness({ dialect })
    const { db, services } = harness
    const owners = [member, heir]
    const there: Promise<unknown>[] = []
    for (let round = 0; round < 6; round++) {
      const from = owners[round % 2]!
      const to = owners[(round + 1) % 2]!
      const { id } = await services.volumes.create(from, newVolume())
      await services.idle()
      const { id: transfer, authKey } = await services.transfers.create(from, offer(id))
      there.push(services.transfers.accept(to, transfer, authKey))
    }
    await Promise.all(there)
    expect(await keptUsage(db)).toEqual(await recount(db))
    expect(await recount(db)).toMatchObject({ project: { volumes: 3 }, heir: { volumes: 3 } })
  })
})

describe('snapshots', () => {
  it('stay where they are when the offer says so, and keep the volume from being deleted', async () => {
    const harness = await createHarness()
    const { db, services } = harness
    const id = await availableVolume(harness)
    const snapshot = await availableSnapshot(harness, id)
    const { id: transfer, authKey } = await services.transfers.create(member, offer(id, true))
    await services.transfers.accept(heir, transfer, authKey)
    expect(await services.snapshots.get(member, snapshot)).toMatchObject({ projectId: 'project', userId: 'user' })
    expect(await keptUsage(db)).toEqual({
      project: { volumes: 0, snapshots: 1, gigabytes: 1 },
      heir: { volumes: 1, snapshots: 0, gigabytes: 1 },
    })
    expect(await outcome(services.volumes.delete(heir, id, { cascade: true, force: false }))).toBe('InvalidVolume')

    // Nor do they follow a later transfer, which is not their owner's.
    const own = await availableSnapshot(harness, id, heir)
    const again = await services.transfers.create(heir, offer(id))
    await services.transfers.accept(stranger, again.id, again.authKey)
    expect((await services.snapshots.get(member, snapshot)).projectId).toBe('project')
    expect((await services.snapshots.get(stranger, own)).projectId).toBe('other-project')
    expect(await keptUsage(db)).toEqual(await recount(db))

    await services.snapshots.delete(member, snapshot)
    await services.idle()
    await services.volumes.delete(stranger, id, { cascade: true, force: false })
    await services.idle()
    expect(await keptUsage(db)).toEqual({})
  })

  it('must be available to go along, when it is offered and when it is accepted', async () => {
    const harness = await createHarness()
    const { db, services } = harness
    const id = await availableVolume(harness)
    const snapshot = await availableSnapshot(harness, id)
    await db('snapshots').update({ status: 'error' })
    await expect(services.transfers.create(member, offer(id))).rejects.toThrow(
      `Invalid snapshot: snapshot: ${snapshot} status must be available`,
    )
    expect(await statusOf(harness, id)).toBe('available')
    await db('snapshots').update({ status: 'available' })
    const { id: transfer, authKey } = await services.transfers.create(member, offer(id))
    await db('snapshots').update({ status: 'deleting' })
    await expect(services.transfers.accept(heir, transfer, authKey)).rejects.toThrow(
      `Transfer ${transfer}: Snapshot ${snapshot} is not in the expected available state.`,
    )
    expect(await services.volumes.get(member, id)).toMatchObject({ status: 'awaiting-transfer', projectId: 'project' })
    expect(await keptUsage(db)).toEqual(await recount(db))
  })
})

describe('refusals', () => {
  it('a wrong key, a volume that is not available, one that is not there', async () => {
    const harness = await createHarness()
    const { services } = harness
    const id = await availableVolume(harness)
    expect(await outcome(services.transfers.create(stranger, offer(id)))).toBe('VolumeNotFound')
    const { id: transfer, authKey } = await services.transfers.create(member, offer(id))
    await expect(services.transfers.create(member, offer(id))).rejects.toThrow(
      'Invalid volume: status must be available',
    )
    for (const wrong of ['', 'f'.repeat(16), `${authKey} `, authKey.toUpperCase().padEnd(17, 'A')]) {
      await expect(services.transfers.accept(heir, transfer, wrong)).rejects.toThrow(
        `Invalid auth key: Attempt to transfer ${transfer} with invalid auth key.`,
      )
    }
    expect(await outcome(services.transfers.accept(heir, 'none', authKey))).toBe('TransferNotFound')
    expect(await outcome(services.transfers.get(heir, transfer))).toBe('TransferNotFound')
    expect(await outcome(services.transfers.delete(heir, transfer))).toBe('TransferNotFound')
  })

  it.each([
    ['maintenance', 'Invalid volume: The volume cannot accept transfer in maintenance mode.'],
    ['available', /Invalid volume: Transfer \S+: Volume id \S+ expected in awaiting-transfer state\./],
  ])('accepting a volume that an administrator has made %s', async (status, message) => {
    const harness = await createHarness()
    const { services } = harness
    const id = await availableVolume(harness)
    const { id: transfer, authKey } = await services.transfers.create(member, offer(id))
    await services.volumes.resetStatus(admin, id, status)
    await expect(services.transfers.accept(heir, transfer, authKey)).rejects.toThrow(message)
    await services.transfers.delete(member, transfer)
    expect(await statusOf(harness, id)).toBe(status)
  })

  it('quotas of the project that accepts, one after the other', async () => {
    const harness = await createHarness()
    const { db, services } = harness
    const id = await availableVolume(harness, { sizeGib: 4 })
    await availableSnapshot(harness, id)
    const { id: transfer, authKey } = await services.transfers.create(member, offer(id))
    const before = await keptUsage(db)
    const refusals: [Record<string, number>, RegExp][] = [
      [{ per_volume_gigabytes: 3 }, /^VolumeSizeExceedsLimit: /],
      [{ per_volume_gigabytes: -1, volumes: 0 }, /^VolumeLimitExceeded: /],
      [{ volumes: 1, gigabytes: 3 }, /^Requested volume or snapshot exceeds allowed gigabytes quota\. /],
      [{ gigabytes: 7 }, /^Requested volume or snapshot exceeds allowed gigabytes quota\. /],
      [{ gigabytes: 8, snapshots: 0 }, /^SnapshotLimitExceeded: /],
      [{ snapshots: 1, volumes___DEFAULT__: 0 }, /^VolumeLimitExceeded: /],
    ]
    for (const [limits, message] of refusals) {
      await services.quotas.update(admin, 'heir', limits)
      await expect(services.transfers.accept(heir, transfer, authKey)).rejects.toThrow(message)
      expect(await keptUsage(db)).toEqual(before)
      expect(await services.volumes.get(member, id)).toMatchObject({ status: 'awaiting-transfer' })
    }
    await services.quotas.update(admin, 'heir', { volumes___DEFAULT__: 1 })
    await services.transfers.accept(heir, transfer, authKey)
    expect(await keptUsage(db)).toEqual({ heir: { volumes: 1, snapshots: 1, gigabytes: 8 } })
  })

  it('a volume of a private type, unless the project that accepts has access to the type', async () => {
    const harness = await createHarness()
    const { services } = harness
    const hidden = { name: 'hidden', description: null, isPublic: false, extraSpecs: {} }
    const type = await services.types.create(admin, hidden)
    await services.types.addAccess(admin, type.id, 'project')
    const id = await availableVolume(harness, { volumeType: 'hidden' })
    const { id: transfer, authKey } = await services.transfers.create(member, offer(id))
    await expect(services.transfers.accept(heir, transfer, authKey)).rejects.toThrow(
      `Volume type ${type.id} could not be found.`,
    )
    expect(await services.volumes.get(member, id)).toMatchObject({ status: 'awaiting-transfer', projectId: 'project' })
    await services.types.addAccess(admin, type.id, 'heir')
    await services.transfers.accept(heir, transfer, authKey)
    expect(await services.volumes.get(heir, id)).toMatchObject({ status: 'available', projectId: 'heir' })
  })

  it('a volume of an encrypted type, unless the caller knows of those and leaves no snapshot behind', async () => {
    const harness = await createHarness()
    const { db, services } = harness
    const id = await availableVolume(harness)
    await db('volumes').update({ encryption_key_id: 'kept elsewhere' })
    await expect(services.transfers.create(member, offer(id))).rejects.toThrow(
      'Invalid volume: transferring encrypted volume is not supported',
    )
    await expect(services.transfers.create(member, offer(id, true, true))).rejects.toThrow(
      'Invalid volume: transferring an encrypted volume without its snapshots is not supported',
    )
    expect((await services.transfers.create(member, offer(id, false, true))).volumeId).toBe(id)
  })
})

describe('what ends a transfer', () => {
  it('its owner calls it off', async () => {
    const harness = await createHarness()
    const { services } = harness
    const id = await availableVolume(harness)
    const { id: transfer, authKey } = await services.transfers.create(member, offer(id))
    await services.transfers.delete(member, transfer)
    expect(await statusOf(harness, id)).toBe('available')
    expect(await outcome(services.transfers.accept(heir, transfer, authKey))).toBe('TransferNotFound')
  })

  it('the volume is deleted by force', async () => {
    const harness = await createHarness()
    const { db, services } = harness
    const id = await availableVolume(harness)
    const { id: transfer } = await services.transfers.create(member, offer(id))
    expect(await outcome(services.volumes.delete(member, id, { cascade: false, force: false }))).toBe('InvalidVolume')
    await services.volumes.delete(admin, id, { cascade: false, force: true })
    await services.idle()
    expect(await outcome(services.transfers.get(admin, transfer))).toBe('TransferNotFound')
    expect(await keptUsage(db)).toEqual({})
  })

  it('a newer one of the same volume, so that an old key never opens it', async () => {
    const harness = await createHarness()
    const { services } = harness
    const id = await availableVolume(harness)
    const old = await services.transfers.create(member, offer(id))
    await services.volumes.resetStatus(admin, id, 'available')
    const newer = await services.transfers.create(member, offer(id))
    expect(await outcome(services.transfers.accept(heir, old.id, old.authKey))).toBe('TransferNotFound')
    expect(await outcome(services.transfers.accept(heir, newer.id, old.authKey))).toBe('InvalidAuthKey')
    await services.transfers.accept(heir, newer.id, newer.authKey)
  })
})

it('a list has those of the volumes that a project has; an administrator may ask for all, or one project', async () => {
  const harness = await createHarness()
  const { services } = harness
  const mine = await services.transfers.create(member, offer(await availableVolume(harness)))
  const { id } = await services.volumes.create(heir, newVolume())
  await services.idle()
  const theirs = await services.transfers.create(heir, offer(id))
  const listed = async (context = member, query = {}) =>
    (await services.transfers.list(context, { ...everything, ...query })).items.map((item) => item.id)
  expect(await listed()).toEqual([mine.id])
  expect(await listed(heir)).toEqual([theirs.id])
  expect(await listed(member, { allProjects: true })).toEqual([mine.id])
  expect(await listed(admin)).toEqual([])
  expect(await listed(admin, { allProjects: true })).toEqual([theirs.id, mine.id])
  expect(await listed(admin, { allProjects: true, filters: { project_id: 'heir' } })).toEqual([theirs.id])
  expect(await listed(admin, { allProjects: true, filters: { volume_id: mine.volumeId } })).toEqual([mine.id])
  expect(await listed(admin, { allProjects: true, marker: theirs.id })).toEqual([mine.id])
  expect(await outcome(listed(member, { marker: theirs.id }))).toBe('TransferNotFound')
})
