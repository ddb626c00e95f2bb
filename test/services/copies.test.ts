import { describe, expect, it, vi } from 'vitest'
import type { VolumeCopies } from '../../src/drivers/driver.ts'
import { createMemoryBackend, createMemoryDriver } from '../../src/drivers/memory.ts'
import { errorFilter, firstCalls, onMethod } from '../../src/drivers/wrappers.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import {
  admin,
  availableVolume,
  createHarness,
  everything,
  type Harness,
  type HarnessOptions,
  member,
  newAttachment,
  newBackup,
  newSnapshot,
  newVolume,
} from './harness.ts'
import { groupOf } from './scenarios.ts'

const POOL = 'test-host@memory#memory'

/** A backend as of three nodes, and types with 1 to 4 copies. */
async function open(options: HarnessOptions = {}): Promise<Harness> {
  const harness = await createHarness({ copiesMax: 3, settings: { poolsMaxAgeMs: 0 }, ...options })
  for (const copies of [1, 2, 3, 4]) await addType(harness, `copies-${copies}`, { 'sheepdog:copies': String(copies) })
  return harness
}

async function addType(harness: Harness, name: string, extraSpecs: Record<string, string>): Promise<void> {
  await harness.services.types.create(admin, { name, description: null, isPublic: true, extraSpecs })
}

const copiesOf = ({ backend }: Harness, id: string): VolumeCopies | undefined => backend.volumes.get(id)?.copies

async function retype(harness: Harness, id: string, newType: string): Promise<void> {
  await harness.services.volumes.retype(member, id, { newType, migrationPolicy: 'never' })
  await harness.services.idle()
}

/** Once the pool says so: it is asked all the time, and an answer may be on its way. */
async function reported({ services }: Harness, expected: Readonly<Record<string, number>>): Promise<void> {
  await vi.waitFor(async () => {
    const pools = await services.backends.pools(admin, { volumeType: null, matching: () => true })
    expect(pools.find(({ name }) => name === POOL)!.capabilities).toMatchObject(expected)
  })
}

describe('a type with a number of copies', () => {
  it('has its volumes made with it, wherever they come from', async () => {
    const harness = await open()
    const { services } = harness
    await addType(harness, 'strict', { 'sheepdog:copies': '3', 'sheepdog:copies_min': '3' })
    const plain = await availableVolume(harness)
    const two = await availableVolume(harness, { volumeType: 'copies-2' })
    expect(copiesOf(harness, plain)).toEqual({ copies: 1 })
    expect(copiesOf(harness, two)).toEqual({ copies: 2 })

    const clone = await availableVolume(harness, { sourceVolid: plain, volumeType: 'strict' })
    expect(copiesOf(harness, clone)).toEqual({ copies: 3, copiesMin: 3 })
    const { id: snapshotId } = await services.snapshots.create(member, newSnapshot(two))
    await services.idle()
    expect(copiesOf(harness, await availableVolume(harness, { snapshotId }))).toEqual({ copies: 2 })

    const { id: backupId } = await services.backups.create(member, newBackup(two))
    await services.idle()
    const target = await availableVolume(harness, { volumeType: 'copies-3' })
    const { volumeId } = await services.backups.restore(member, backupId, { volumeId: target, name: null })
    await services.idle()
    expect(copiesOf(harness, volumeId)).toEqual({ copies: 3 })
  })

  it('is told to a volume that is taken over, and to the volumes of a group that is copied', async () => {
    const harness = await open()
    const { services } = harness
    const id = await availableVolume(harness)
    await services.volumes.unmanage(admin, id)
    await services.idle()
    const request = {
      host: POOL,
      cluster: null,
      sourceName: id,
      name: null,
      description: null,
      volumeType: 'copies-2',
      availabilityZone: null,
      bootable: false,
      metadata: {},
    }
    const managed = await services.manageable.manageVolume(admin, request)
    await services.idle()
    expect(copiesOf(harness, managed.id)).toEqual({ copies: 2 })

    const sourceGroupId = await groupOf(harness, [1])
    const { id: typeId } = await harness.db('volume_types').where({ name: 'copies-3' }).first()
    await harness.db('volumes').whereNotNull('group_id').update({ volume_type_id: typeId })
    await reported(harness, { provisioned_capacity_gb: 3 })
    const copy = { name: null, description: null, groupSnapshotId: null, sourceGroupId }
    await services.groups.createCopy(member, copy)
    await services.idle()
    await reported(harness, { provisioned_capacity_gb: 6, allocated_capacity_gb: 8 })
  })

  it.each([
    [{ 'sheepdog:copies': 'two' }, "the extra spec sheepdog:copies is 'two', and not a number from 1 to 31."],
    [
      { 'sheepdog:copies': '2', 'sheepdog:copies_min': '3' },
      "the extra spec sheepdog:copies_min is '3', and not a number from 1 to 2, which sheepdog:copies is.",
    ],
    [{ 'sheepdog:copies_min': '2' }, 'the extra spec sheepdog:copies_min says nothing without sheepdog:copies.'],
  ])('is refused with %o, to new volumes and to others', async (extraSpecs, reason) => {
    const harness = await open()
    await addType(harness, 'odd', extraSpecs)
    const said = `Invalid volume type: no volume can be of type 'odd': ${reason}`
    const { volumes } = harness.services
    const refusal = { code: 'InvalidVolumeType', message: said }
    await expect(volumes.create(member, newVolume({ volumeType: 'odd' }))).rejects.toMatchObject(refusal)
    const id = await availableVolume(harness)
    await expect(retype(harness, id, 'odd')).rejects.toMatchObject(refusal)
    expect(await volumes.get(member, id)).toMatchObject({ status: 'available', volumeTypeName: '__DEFAULT__' })
  })

  it('goes to a backend with as many zones, and to none otherwise, with the reason', async () => {
    const driver = createMemoryDriver(createMemoryBackend(100, { copiesMax: 4 }), systemRandom)
    const large = await open({ others: [{ name: 'large', availabilityZone: 'nova', driver }] })
    const four = await availableVolume(large, { volumeType: 'copies-4' })
    expect((await large.services.volumes.get(member, four)).host).toBe('test-host@large#memory')

    const harness = await open()
    await reported(harness, { copies_max: 3 })
    const { id } = await harness.services.volumes.create(member, newVolume({ volumeType: 'copies-4' }))
    await harness.services.idle()
    expect((await harness.services.volumes.get(member, id)).status).toBe('error')
    expect((await harness.services.explain(id))?.reason).toContain(
      `${POOL}: it has room for 3 copies of a volume, not 4 (copies).`,
    )
    const { items } = await harness.services.messages.list(member, everything)
    expect(items).toMatchObject([
      { resourceId: id, text: 'schedule allocate volume:Could not find any available weighted backend.' },
    ])
  })
})

describe('a retype to a type with other copies', () => {
  it('alters them where the volume is, while it is used, and back again', async () => {
    const harness = await open()
    const { volumes, attachments, idle } = harness.services
    const id = await availableVolume(harness)
    await harness.services.snapshots.create(member, newSnapshot(id))
    await idle()
    const connector = { host: 'h' }
    const { id: attachmentId } = await attachments.create(member, newAttachment(id, { connector }))
    await attachments.complete(member, attachmentId)
    for (const [type, copies] of [
      ['copies-3', { copies: 3 }],
      ['copies-2', { copies: 2 }],
      ['__DEFAULT__', { copies: 1 }],
    ] as const) {
      await retype(harness, id, type)
      expect(copiesOf(harness, id)).toEqual(copies)
      const migrationStatus = null
      expect(await volumes.get(member, id)).toMatchObject({ status: 'in-use', volumeTypeName: type, migrationStatus })
    }
  })

  it('leaves alone what an operator has altered, when both types say the same', async () => {
    const harness = await open()
    await addType(harness, 'other', { 'vendor:key': 'x' })
    const id = await availableVolume(harness)
    await createMemoryDriver(harness.backend, systemRandom).alterCopies!({ id, sizeGib: 1 }, { copies: 3 })
    await retype(harness, id, 'other')
    expect((await harness.services.volumes.get(member, id)).volumeTypeName).toBe('other')
    expect(copiesOf(harness, id)).toEqual({ copies: 3 })
  })

  it('is not done where there are not so many zones, or no room for more, and says why', async () => {
    const harness = await open()
    const id = await availableVolume(harness, { volumeType: 'copies-2', sizeGib: 10 })
    await retype(harness, id, 'copies-4')
    expect((await harness.services.explain(id))?.reason).toContain('it has room for 3 copies of a volume, not 4')
    harness.backend.capacityGib = 1 // of which 20 GiB may be promised
    await retype(harness, id, 'copies-3')
    expect((await harness.services.explain(id))?.reason).toContain('10 GiB for 10 GiB with 3 copies do not fit')
    expect(copiesOf(harness, id)).toEqual({ copies: 2 })
    await retype(harness, id, 'copies-1')
    expect(copiesOf(harness, id)).toEqual({ copies: 1 })
  })

  it('that the backend does not take leaves the volume with its type, and the copies of that', async () => {
    const faults = [errorFilter(firstCalls(3, onMethod('alterCopies')), 'after')] // it does, but does not say so
    const harness = await open({ filters: faults })
    const id = await availableVolume(harness, { volumeType: 'copies-2' })
    await retype(harness, id, 'copies-3')
    expect(await harness.services.volumes.get(member, id)).toMatchObject({
      status: 'available',
      volumeTypeName: 'copies-2',
    })
    expect((await harness.services.explain(id))?.reason).toContain('injected fault in alterCopies')
    expect(copiesOf(harness, id)).toEqual({ copies: 2 })
  })
})

describe('room', () => {
  it('is counted with the copies of each volume, from the request on, and as volumes grow', async () => {
    const harness = await open()
    harness.backend.capacityGib = 5 // of which 100 GiB may be promised
    const isTaken = (gib: number) => reported(harness, { allocated_capacity_gb: gib, provisioned_capacity_gb: gib })
    await availableVolume(harness, { sizeGib: 10 })
    const id = await availableVolume(harness, { sizeGib: 20, volumeType: 'copies-3' })
    await isTaken(70)
    await harness.services.volumes.extend(member, id, 25)
    await harness.services.idle()
    await isTaken(85)
    await harness.services.volumes.extend(member, id, 31)
    await harness.services.idle()
    expect((await harness.services.explain(id))?.reason).toContain('18 GiB for 31 GiB with 3 copies do not fit')
    await retype(harness, id, 'copies-1')
    await isTaken(35)
  })

  it('is not promised twice to volumes that are asked for at once', async () => {
    const harness = await open()
    harness.backend.capacityGib = 1 // of which 20 GiB may be promised
    await reported(harness, { total_capacity_gb: 1 })
    const request = newVolume({ sizeGib: 2, volumeType: 'copies-3' })
    const made = await Promise.all(Array.from({ length: 6 }, () => harness.services.volumes.create(member, request)))
    await harness.services.idle()
    const states = await Promise.all(
      made.map(async ({ id }) => (await harness.services.volumes.get(member, id)).status),
    )
    expect(states.toSorted()).toEqual(['available', 'available', 'available', 'error', 'error', 'error'])
    await reported(harness, { provisioned_capacity_gb: 18 })
  })
})

it('a volume that is moved has the copies of the type that it gets', async () => {
  const store = createMemoryBackend(100, { copiesMax: 2 })
  const driver = createMemoryDriver(store, systemRandom)
  const harness = await open({ others: [{ name: 'other', availabilityZone: 'nova', driver }] })
  await addType(harness, 'there', { volume_backend_name: 'other', 'sheepdog:copies': '2' })
  await addType(harness, 'here', { volume_backend_name: 'memory' })
  const id = await availableVolume(harness, { volumeType: 'here' })
  await harness.services.volumes.retype(member, id, { newType: 'there', migrationPolicy: 'on-demand' })
  await harness.services.idle()
  expect(await harness.services.volumes.get(member, id)).toMatchObject({ host: 'test-host@other#memory' })
  expect(store.volumes.get(id)?.copies).toEqual({ copies: 2 })
})
