import { describe, expect, it } from 'vitest'
import { errorFilter, onMethod } from '../../src/drivers/wrappers.ts'
import {
  admin,
  availableVolume,
  contextOf,
  createGate,
  createHarness,
  everything,
  type Harness,
  keptUsage,
  member,
  newAttachment,
  newSnapshot,
  newVolume,
  outcome,
  recount,
  stranger,
  TEST_SETTINGS,
} from './harness.ts'

const getVolume = (harness: Harness, id: string) => harness.services.volumes.get(member, id)
const absentId = '00000000-0000-0000-0000-000000000000'

async function attached(harness: Harness, volumeId: string): Promise<string> {
  const { attachments } = harness.services
  const { id } = await attachments.create(member, newAttachment(volumeId, { connector: { host: 'h1' } }))
  await attachments.complete(member, id)
  return id
}

describe('creating a volume', () => {
  it('answers at once with a volume in creation and makes it available', async () => {
    const harness = await createHarness()
    const request = newVolume({ sizeGib: 3, name: 'n', description: 'd', metadata: { a: 'b' } })
    const created = await harness.services.volumes.create(member, request)
    expect(created).toMatchObject({
      status: 'creating',
      sizeGib: 3,
      name: 'n',
      description: 'd',
      metadata: { a: 'b' },
      projectId: 'project',
      userId: 'user',
      volumeTypeName: '__DEFAULT__',
      host: 'test-host@memory#memory',
      availabilityZone: 'nova',
      attachments: [],
      updatedAt: null,
    })
    expect(created.createdAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/)
    await harness.services.idle()
    const { updatedAt, ...volume } = await getVolume(harness, created.id)
    expect({ ...volume, updatedAt: null }).toEqual({ ...created, status: 'available' })
    expect(updatedAt).not.toBeNull()
    expect(harness.backend.volumes.get(created.id)?.sizeGib).toBe(3)
  })

  it('takes size, zone and type from a snapshot or a volume', async () => {
    const harness = await createHarness()
    await harness.services.types.create(admin, { name: 'fast', description: null, isPublic: true, extraSpecs: {} })
    const source = await availableVolume(harness, { sizeGib: 2, volumeType: 'fast' })
    const snapshot = await harness.services.snapshots.create(member, newSnapshot(source))
    await harness.services.idle()
    const copies = [
      await availableVolume(harness, { sizeGib: null, snapshotId: snapshot.id }),
      await availableVolume(harness, { sizeGib: null, sourceVolid: source }),
    ]
    for (const id of copies) {
      expect(await getVolume(harness, id)).toMatchObject({ status: 'available', sizeGib: 2, volumeTypeName: 'fast' })
    }
    const refusal = { sizeGib: 1, snapshotId: snapshot.id }
    await expect(harness.services.volumes.create(member, newVolume(refusal))).rejects.toThrow(
      "Volume size '1'GB cannot be smaller than the snapshot size 2GB",
    )
  })

  it('refuses what cannot be, and counts nothing for it', async () => {
    const harness = await createHarness()
    const source = await availableVolume(harness)
    const { id: failed } = await harness.services.volumes.create(member, newVolume())
    await harness.services.idle()
    await harness.services.volumes.resetStatus(admin, failed, 'error')
    const before = await keptUsage(harness.db)
    const create = (changes: object, context = member) =>
      outcome(harness.services.volumes.create(context, newVolume(changes)))
    expect(await create({ sizeGib: null })).toBe('InvalidInput')
    expect(await create({ sizeGib: 0 })).toBe('InvalidInput')
    expect(await create({ volumeType: 'absent' })).toBe('VolumeTypeNotFoundByName')
    expect(await create({ availabilityZone: 'mars' })).toBe('InvalidInput')
    expect(await create({ snapshotId: absentId })).toBe('SnapshotNotFound')
    expect(await create({ sourceVolid: absentId })).toBe('VolumeNotFound')
    expect(await create({ sourceVolid: source }, stranger)).toBe('VolumeNotFound')
    expect(await create({ sourceVolid: failed })).toBe('InvalidVolume')
    expect(await create({ sourceVolid: source, snapshotId: absentId })).toBe('SnapshotNotFound')
    expect(await keptUsage(harness.db)).toEqual(before)
  })

  it('bounds sizes by the type, and takes multiattach from it', async () => {
    const harness = await createHarness()
    const extraSpecs = {
      'provisioning:min_vol_size': '2',
      'provisioning:max_vol_size': '4',
      multiattach: '<is> True',
    }
    await harness.services.types.create(admin, { name: 'bounded', description: null, isPublic: true, extraSpecs })
    const create = (sizeGib: number) =>
      harness.services.volumes.create(member, newVolume({ sizeGib, volumeType: 'bounded' }))
    await expect(create(1)).rejects.toThrow("less than the minimum required size of '2' for volume type 'bounded'")
    await expect(create(5)).rejects.toThrow("greater than the maximum allowable size of '4'")
    const { id, multiattach } = await create(2)
    expect(multiattach).toBe(true)
    await harness.services.idle()
    expect(await outcome(harness.services.volumes.extend(member, id, 5))).toBe('InvalidInput')
  })

  it('that never came to a backend is deleted with all that an administrator let hang on it', async () => {
    const harness = await createHarness()
    const { services, backend } = harness
    const { id: typeId } = await services.types.create(admin, {
      name: 'elsewhere',
      description: null,
      isPublic: true,
      extraSpecs: { volume_backend_name: 'elsewhere' },
    })
    const { id } = await services.volumes.create(member, newVolume({ volumeType: typeId }))
    await services.idle()
    await services.volumes.resetStatus(admin, id, 'available')
    await services.attachments.create(member, newAttachment(id))
    await services.volumes.delete(admin, id, { cascade: true, force: true })
    await services.idle()
    expect(await outcome(services.volumes.get(member, id))).toBe('VolumeNotFound')
    expect(backend.volumes.size).toBe(0)
  })

  it('tells in the row why no pool could take it', async () => {
    const harness = await createHarness()
    await harness.services.types.create(admin, {
      name: 'elsewhere',
      description: null,
      isPublic: true,
      extraSpecs: { volume_backend_name: 'other' },
    })
    const { id, host } = await harness.services.volumes.create(member, newVolume({ volumeType: 'elsewhere' }))
    expect(host).toBeNull()
    await harness.services.idle()
    expect((await getVolume(harness, id)).status).toBe('error')
    expect(await harness.services.explain(id)).toMatchObject({
      status: 'error',
      reason:
        'No valid backend was found. test-host@memory#memory: its volume_backend_name is memory, not other (capabilities).',
      work: null,
    })
    await harness.services.volumes.delete(member, id, { cascade: false, force: false })
    await harness.services.idle()
    expect(await outcome(getVolume(harness, id))).toBe('VolumeNotFound')
  })

  it('places the volume later when the backend has not reported its pools yet', async () => {
    const harness = await createHarness({ start: false })
    const { id, host } = await harness.services.volumes.create(
      { ...member },
      newVolume({ volumeType: await bareType(harness) }),
    )
    expect(host).toBeNull()
    await harness.services.start()
    await harness.services.idle()
    expect(await getVolume(harness, id)).toMatchObject({ status: 'available', host: 'test-host@memory#memory' })
  })
})

/** A type made before `start`, which makes the default one. */
async function bareType(harness: Harness): Promise<string> {
  const request = { name: 'bare', description: null, isPublic: true, extraSpecs: {} }
  return (await harness.services.types.create(admin, request)).id
}

describe('quota', () => {
  const quota = { ...TEST_SETTINGS.quota, volumes: 2, snapshots: 1, gigabytes: 10, perVolumeGigabytes: 8 }

  it('is enforced for volumes, snapshots and growth, and given back', async () => {
    const harness = await createHarness({ settings: { quota } })
    const { services } = harness
    const first = await availableVolume(harness, { sizeGib: 4 })
    await expect(services.volumes.create(member, newVolume({ sizeGib: 9 }))).rejects.toThrow('VolumeSizeExceedsLimit')
    await expect(services.volumes.create(member, newVolume({ sizeGib: 7 }))).rejects.toThrow(
      'Requested 7G, quota is 10G and 4G has been consumed.',
    )
    await services.snapshots.create(member, newSnapshot(first))
    await expect(services.snapshots.create(member, newSnapshot(first))).rejects.toThrow(
      'VolumeSizeExceedsAvailableQuota',
    )
    const second = await availableVolume(harness)
    await expect(services.snapshots.create(member, newSnapshot(second))).rejects.toThrow('SnapshotLimitExceeded')
    await expect(services.volumes.create(member, newVolume())).rejects.toThrow('VolumeLimitExceeded')
    await expect(services.volumes.extend(member, first, 7)).rejects.toThrow('VolumeSizeExceedsAvailableQuota')
    expect((await getVolume(harness, first)).status).toBe('available')
    expect(await services.quotas.limits(member, member.projectId)).toMatchObject({
      volumes: { limit: 2, used: 2 },
      gigabytes: { limit: 10, used: 9 },
      snapshots: { used: 1 },
    })
    expect((await services.quotas.limits(stranger, member.projectId)).volumes.used).toBe(0)
    await services.volumes.delete(member, first, { cascade: true, force: false })
    await services.idle()
    expect(await keptUsage(harness.db)).toEqual({ project: { volumes: 1, snapshots: 0, gigabytes: 1 } })
  })
})

describe('seeing a volume', () => {
  it('is for its project and for administrators; to others it does not exist', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    const { volumes, snapshots, attachments } = harness.services
    expect((await volumes.get(admin, id)).id).toBe(id)
    const deletion = { cascade: false, force: false }
    for (const attempt of [
      volumes.get(stranger, id),
      volumes.update(stranger, id, { name: 'mine' }),
      volumes.delete(stranger, id, deletion),
      volumes.extend(stranger, id, 2),
      volumes.setMetadata(stranger, id, {}, { replace: true }),
      volumes.deleteMetadataKey(stranger, id, 'k'),
      volumes.beginDetaching(stranger, id),
      volumes.rollDetaching(stranger, id),
      volumes.resetStatus(stranger, id, 'error'),
      snapshots.create(stranger, newSnapshot(id)),
      attachments.create(stranger, newAttachment(id)),
    ].map(outcome)) {
      expect(await attempt).toBe('VolumeNotFound')
    }
    expect((await volumes.list(stranger, everything, { count: true })).total).toBe(0)
    expect((await volumes.list(stranger, { ...everything, allProjects: true }, { count: true })).total).toBe(0)
    expect((await volumes.list(admin, everything, { count: true })).total).toBe(0)
    expect((await volumes.list(admin, { ...everything, allProjects: true }, { count: true })).total).toBe(1)
  })

  it('asks the policy with the project of the row, and stops at its refusal', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    const asked: string[] = []
    const refused = new Error('refused by policy')
    const context = contextOf({
      authorize: (rule, target) => {
        asked.push(`${rule} ${target.projectId}`)
        throw refused
      },
    })
    const { volumes } = harness.services
    const attempts: (() => Promise<unknown>)[] = [
      () => volumes.create(context, newVolume()),
      () => volumes.get(context, id),
      () => volumes.list(context, everything, { count: false }),
      () => volumes.summary(context, everything),
      () => volumes.update(context, id, { name: 'x' }),
      () => volumes.delete(context, id, { cascade: false, force: false }),
      () => volumes.extend(context, id, 2),
      () => volumes.setMetadata(context, id, {}, { replace: false }),
      () => volumes.setMetadata(context, id, {}, { replace: true }),
      () => volumes.deleteMetadataKey(context, id, 'k'),
      () => volumes.beginDetaching(context, id),
      () => volumes.rollDetaching(context, id),
      () => volumes.resetStatus(context, id, 'error'),
      () => harness.services.quotas.get(context, 'project'),
    ]
    for (const attempt of attempts) await expect(attempt()).rejects.toBe(refused)
    expect(asked).toEqual([
      'volume:create project',
      'volume:get project',
      'volume:get_all project',
      'volume:get_all project',
      'volume:update project',
      'volume:delete project',
      'volume:extend project',
      'volume:create_volume_metadata project',
      'volume:update_volume_metadata project',
      'volume:delete_volume_metadata project',
      'volume_extension:volume_actions:begin_detaching project',
      'volume_extension:volume_actions:roll_detaching project',
      'volume_extension:volume_admin_actions:reset_status project',
      'volume_extension:quotas:show project',
    ])
    expect((await getVolume(harness, id)).status).toBe('available')
  })

  it('lists volumes with their attachments, newest first, and sums them up', async () => {
    const harness = await createHarness()
    const first = await availableVolume(harness, { sizeGib: 2, metadata: { tier: 'a', k: '1' } })
    const second = await availableVolume(harness, { sizeGib: 3, metadata: { tier: 'b' } })
    const attachmentId = await attached(harness, first)
    const { items } = await harness.services.volumes.list(member, everything, { count: false })
    expect(items.map(({ id }) => id)).toEqual([second, first])
    expect(items[0]!.attachments).toEqual([])
    expect(items[1]!.attachments).toMatchObject([{ id: attachmentId, status: 'attached', attachedHost: 'h1' }])
    expect(items[1]).toEqual(await getVolume(harness, first))
    expect(await harness.services.volumes.summary(member, everything)).toEqual({
      count: 2,
      sizeGib: 5,
      metadata: { tier: ['a', 'b'], k: ['1'] },
    })
  })
})

describe('changing a volume', () => {
  it('writes names and metadata', async () => {
    const harness = await createHarness()
    const { volumes } = harness.services
    const id = await availableVolume(harness, { name: 'old', description: 'kept', metadata: { a: '1' } })
    expect(await volumes.update(member, id, { name: 'new' })).toMatchObject({ name: 'new', description: 'kept' })
    expect(await volumes.setMetadata(member, id, { b: '2' }, { replace: false })).toEqual({ a: '1', b: '2' })
    await volumes.deleteMetadataKey(member, id, 'a')
    expect(await outcome(volumes.deleteMetadataKey(member, id, 'a'))).toBe('MetadataKeyNotFound')
    expect((await getVolume(harness, id)).metadata).toEqual({ b: '2' })
    expect(await volumes.setMetadata(member, id, { c: '3' }, { replace: true })).toEqual({ c: '3' })
    expect((await volumes.update(member, id, { metadata: { d: '4' } })).metadata).toEqual({ d: '4' })
    await volumes.resetStatus(admin, id, 'maintenance')
    expect(await outcome(volumes.update(member, id, { name: 'x' }))).toBe('InvalidVolume')
  })

  it('finds no metadata that is not there, whatever it is called', async () => {
    const harness = await createHarness()
    const { volumes } = harness.services
    const id = await availableVolume(harness)
    expect(await outcome(volumes.deleteMetadataKey(member, id, 'constructor'))).toBe('MetadataKeyNotFound')
    const type = await harness.services.types.create(admin, {
      name: 'bare',
      description: null,
      isPublic: true,
      extraSpecs: {},
    })
    const removed = harness.services.types.removeSpec(admin, type.id, 'constructor')
    expect(await outcome(removed)).toBe('VolumeTypeExtraSpecsNotFound')
  })

  it('loses no metadata to requests at the same time', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    const keys = Array.from({ length: 20 }, (_, index) => `k${index}`)
    await Promise.all(
      keys.map((key) => harness.services.volumes.setMetadata(member, id, { [key]: key }, { replace: false })),
    )
    expect(Object.keys((await getVolume(harness, id)).metadata).sort()).toEqual(keys.sort())
  })

  it('extends it, also in use, and never shrinks it', async () => {
    const gate = createGate(onMethod('extendVolume'))
    const harness = await createHarness({ filters: [gate.filter] })
    const { volumes } = harness.services
    const id = await availableVolume(harness)
    await volumes.extend(member, id, 2)
    expect(await getVolume(harness, id)).toMatchObject({ status: 'extending', sizeGib: 1 })
    expect(await outcome(volumes.extend(member, id, 3))).toBe('InvalidVolume')
    gate.open()
    await harness.services.idle()
    expect(await getVolume(harness, id)).toMatchObject({ status: 'available', sizeGib: 2 })
    expect(await outcome(volumes.extend(member, id, 2))).toBe('InvalidInput')
    await attached(harness, id)
    const rules: string[] = []
    await volumes.extend(contextOf({ authorize: (rule) => void rules.push(rule) }), id, 5)
    await harness.services.idle()
    expect(rules).toEqual(['volume:extend_attached_volume'])
    expect(await getVolume(harness, id)).toMatchObject({ status: 'in-use', sizeGib: 5 })
    expect(harness.backend.volumes.get(id)?.sizeGib).toBe(5)
    expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
  })

  it('leaves it as it was when there is no room to grow', async () => {
    const harness = await createHarness({ settings: { quota: { ...TEST_SETTINGS.quota, gigabytes: -1 } } })
    const id = await availableVolume(harness)
    await harness.services.volumes.extend(member, id, 3_000_000)
    await harness.services.idle()
    expect(await getVolume(harness, id)).toMatchObject({ status: 'available', sizeGib: 1 })
    expect((await harness.services.explain(id))?.reason).toContain('that it may still promise')
    expect(await keptUsage(harness.db)).toEqual({ project: { volumes: 1, snapshots: 0, gigabytes: 1 } })
  })

  it('detaches in two steps that Nova can take back', async () => {
    const harness = await createHarness()
    const { volumes } = harness.services
    const id = await availableVolume(harness)
    expect(await outcome(volumes.beginDetaching(member, id))).toBe('InvalidVolume')
    await attached(harness, id)
    await volumes.beginDetaching(member, id)
    expect((await getVolume(harness, id)).status).toBe('detaching')
    expect(await outcome(volumes.beginDetaching(member, id))).toBe('InvalidVolume')
    await volumes.rollDetaching(member, id)
    await volumes.rollDetaching(member, id)
    expect((await getVolume(harness, id)).status).toBe('in-use')
  })

  it('resets a status without asking the backend', async () => {
    const harness = await createHarness()
    const { volumes } = harness.services
    const id = await availableVolume(harness)
    expect(await outcome(volumes.resetStatus(admin, id, 'in-use'))).toBe('InvalidInput')
    expect(await outcome(volumes.resetStatus(admin, id, 'deleting'))).toBe('InvalidInput')
    expect(await outcome(volumes.resetStatus(admin, id, 'nonsense'))).toBe('InvalidInput')
    await volumes.resetStatus(admin, id, 'error')
    expect((await getVolume(harness, id)).status).toBe('error')
  })
})

describe('deleting a volume', () => {
  it('is refused while it is attached or has snapshots', async () => {
    const gate = createGate(onMethod('createSnapshot'))
    const harness = await createHarness({ filters: [gate.filter] })
    const { services } = harness
    const remove = (id: string, options: { cascade?: boolean; force?: boolean } = {}) =>
      outcome(services.volumes.delete(member, id, { cascade: false, force: false, ...options }))
    const inUse = await availableVolume(harness)
    await attached(harness, inUse)
    expect(await remove(inUse)).toBe('InvalidVolume')
    expect(await remove(inUse, { force: true })).toBe('InvalidVolume')
    const parent = await availableVolume(harness)
    await services.snapshots.create(member, newSnapshot(parent))
    expect(await remove(parent)).toBe('InvalidVolume')
    expect(await remove(parent, { cascade: true })).toBe('InvalidVolume') // the snapshot is still being made
    gate.open()
    await services.idle()
    expect(await remove(parent)).toBe('InvalidVolume')
    expect(await remove(parent, { cascade: true })).toBe('done')
    expect(await remove(parent, { cascade: true })).not.toBe('done')
  })

  it('is refused while a volume is made from it or from its snapshot', async () => {
    const gate = createGate(onMethod('createClonedVolume', 'createVolumeFromSnapshot'))
    const harness = await createHarness({ filters: [gate.filter] })
    const { services } = harness
    const source = await availableVolume(harness)
    const origin = await availableVolume(harness)
    const snapshot = await services.snapshots.create(member, newSnapshot(origin))
    await services.idle()
    await services.volumes.create(member, newVolume({ sourceVolid: source }))
    await services.volumes.create(member, newVolume({ snapshotId: snapshot.id }))
    const remove = (id: string) => outcome(services.volumes.delete(member, id, { cascade: true, force: false }))
    expect(await remove(source)).toBe('InvalidVolume')
    expect(await remove(origin)).toBe('InvalidVolume')
    expect(await outcome(services.snapshots.delete(member, snapshot.id))).toBe('InvalidSnapshot')
    gate.open()
    await services.idle()
    expect(await remove(source)).toBe('done')
    expect(await remove(origin)).toBe('done')
  })

  it('takes its snapshots with it when it cascades', async () => {
    const harness = await createHarness()
    const { services, backend } = harness
    const id = await availableVolume(harness)
    for (let count = 0; count < 3; count++) await services.snapshots.create(member, newSnapshot(id))
    await services.idle()
    await services.volumes.delete(member, id, { cascade: true, force: false })
    await services.idle()
    expect(await outcome(getVolume(harness, id))).toBe('VolumeNotFound')
    expect([backend.volumes.size, backend.snapshots.size]).toEqual([0, 0])
    expect(await keptUsage(harness.db)).toEqual({})
  })

  it('leaves snapshots of other projects to an administrator', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    await harness.services.snapshots.create(admin, newSnapshot(id))
    await harness.services.idle()
    const remove = (context: typeof member) =>
      outcome(harness.services.volumes.delete(context, id, { cascade: true, force: false }))
    expect(await remove(member)).toBe('InvalidVolume')
    expect(await remove(admin)).toBe('done')
  })

  it('gives volume and snapshots their status back when the backend cannot delete them', async () => {
    const harness = await createHarness({ filters: [errorFilter(onMethod('deleteSnapshot'), 'before')] })
    const { services } = harness
    const id = await availableVolume(harness)
    const snapshot = await services.snapshots.create(member, newSnapshot(id))
    await services.idle()
    await services.volumes.delete(member, id, { cascade: true, force: false })
    await services.idle()
    expect((await getVolume(harness, id)).status).toBe('error_deleting')
    expect((await services.snapshots.get(member, snapshot.id)).status).toBe('available')
    expect((await services.explain(snapshot.id))?.reason).toContain('injected fault in deleteSnapshot')
    expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
  })

  it('is forced in any status, also in the middle of other work', async () => {
    const harness = await createHarness({ filters: [errorFilter(onMethod('extendVolume'), 'before')] })
    const { services } = harness
    const id = await availableVolume(harness)
    await services.attachments.create(member, newAttachment(id))
    await services.volumes.resetStatus(admin, id, 'available')
    await services.volumes.extend(member, id, 4)
    await services.volumes.delete(admin, id, { cascade: false, force: true })
    await services.idle()
    expect(await outcome(getVolume(harness, id))).toBe('VolumeNotFound')
    expect(harness.backend.volumes.size).toBe(0)
    expect(await keptUsage(harness.db)).toEqual({})
  })
})
