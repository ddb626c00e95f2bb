import { describe, expect, it, vi } from 'vitest'
import type { VolumeDriver } from '../../src/drivers/driver.ts'
import { createMemoryBackend, createMemoryDriver, type MemoryBackend } from '../../src/drivers/memory.ts'
import { errorFilter, firstCalls, hangFilter, onMethod, wrapDriver } from '../../src/drivers/wrappers.ts'
import { ServiceError } from '../../src/errors.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { DEFAULT_SCHEDULER } from '../../src/services/settings.ts'
import {
  admin,
  availableVolume,
  contextOf,
  createGate,
  createHarness,
  type Harness,
  type HarnessOptions,
  keptUsage,
  member,
  newAttachment,
  newBackup,
  newSnapshot,
  newVolume,
  outcome,
  recount,
  stranger,
} from './harness.ts'

const MIB = 1024 ** 2
const GIB = 1024 ** 3

async function write(driver: VolumeDriver, id: string, offset: number, byte: number, lengthBytes = 4096) {
  const data = await driver.openVolume({ id, sizeGib: 1 })
  await data.write(offset, Buffer.alloc(lengthBytes, byte))
  await data.close()
}

async function byteAt(driver: VolumeDriver, id: string, offset: number): Promise<number> {
  const data = await driver.openVolume({ id, sizeGib: 1 })
  const target = Buffer.alloc(1)
  await data.read(offset, target)
  await data.close()
  return target[0]!
}

/** Nothing comes of waiting for a driver that hangs. */
const HANGS: HarnessOptions = { settings: { stopGraceMs: 1 } }

const driverOf = (backend: MemoryBackend) => createMemoryDriver(backend, systemRandom)

async function snapshotOf(harness: Harness, volumeId: string): Promise<string> {
  const { id } = await harness.services.snapshots.create(member, newSnapshot(volumeId))
  await harness.services.idle()
  return id
}

describe('revert', () => {
  it('puts the volume back to its latest snapshot, which stays', async () => {
    const gate = createGate(onMethod('revertToSnapshot'))
    const harness = await createHarness({ filters: [gate.filter] })
    const { volumes, snapshots, idle } = harness.services
    const driver = driverOf(harness.backend)
    const id = await availableVolume(harness)
    await write(driver, id, 0, 1)
    const older = await snapshotOf(harness, id)
    await write(driver, id, 0, 2)
    const latest = await snapshotOf(harness, id)
    await write(driver, id, 0, 3)
    await expect(volumes.revert(member, id, older)).rejects.toThrow(
      `Specified snapshot ${older} is None or not the latest one of volume ${id}.`,
    )
    await expect(volumes.revert(member, id, null)).rejects.toThrow('Specified snapshot None is None or not the latest')
    await volumes.revert(member, id, latest)
    expect((await volumes.get(member, id)).status).toBe('reverting')
    expect((await snapshots.get(member, latest)).status).toBe('restoring')
    gate.open()
    await idle()
    expect((await volumes.get(member, id)).status).toBe('available')
    expect((await snapshots.get(member, latest)).status).toBe('available')
    expect(await byteAt(driver, id, 0)).toBe(2)
  })

  it('wants a snapshot of the size that the volume has, and one that is the caller’s', async () => {
    const harness = await createHarness()
    const { volumes, idle } = harness.services
    const id = await availableVolume(harness)
    await expect(volumes.revert(member, id, id)).rejects.toThrow(`Volume ${id} doesn't have any snapshots.`)
    const snapshot = await snapshotOf(harness, id)
    expect(await outcome(volumes.revert(stranger, id, snapshot))).toBe('VolumeNotFound')
    await volumes.extend(member, id, 2)
    await idle()
    await expect(volumes.revert(member, id, snapshot)).rejects.toThrow('The volume size must be equal')
  })

  it('that fails leaves the volume in error with the reason, and the snapshot to try again with', async () => {
    const harness = await createHarness({ filters: [errorFilter(onMethod('revertToSnapshot'), 'before')] })
    const { volumes, snapshots, idle, explain } = harness.services
    const id = await availableVolume(harness)
    const snapshot = await snapshotOf(harness, id)
    await volumes.revert(member, id, snapshot)
    await idle()
    expect((await volumes.get(member, id)).status).toBe('error')
    expect((await snapshots.get(member, snapshot)).status).toBe('available')
    expect((await explain(id))?.reason).toContain('injected fault in revertToSnapshot')
  })

  it.each(['before', 'after'] as const)('goes on in another process when one dies %s it', async (point) => {
    let arrive = () => {}
    const reached = new Promise<void>((resolve) => {
      arrive = resolve
    })
    const harness = await createHarness({
      ...HANGS,
      filters: [hangFilter(onMethod('revertToSnapshot'), point, arrive)],
    })
    const driver = driverOf(harness.backend)
    const id = await availableVolume(harness)
    await write(driver, id, 0, 1)
    const snapshot = await snapshotOf(harness, id)
    await write(driver, id, 0, 2)
    await harness.services.volumes.revert(member, id, snapshot)
    await reached
    await harness.die()
    const { services, settled } = await harness.reopen()
    await settled()
    expect((await services.volumes.get(member, id)).status).toBe('available')
    expect((await services.snapshots.get(member, snapshot)).status).toBe('available')
    expect(await byteAt(driver, id, 0)).toBe(1)
  })

  it('that an administrator breaks off leaves no snapshot behind that waits for it', async () => {
    const harness = await createHarness({ ...HANGS, filters: [hangFilter(onMethod('revertToSnapshot'), 'before')] })
    const { volumes, snapshots } = harness.services
    const id = await availableVolume(harness)
    const snapshot = await snapshotOf(harness, id)
    await volumes.revert(member, id, snapshot)
    await volumes.resetStatus(admin, id, 'available')
    expect((await snapshots.get(member, snapshot)).status).toBe('available')
    await volumes.revert(member, id, snapshot)
    await volumes.delete(admin, id, { cascade: true, force: true })
    expect((await harness.db('snapshots').where({ id: snapshot }).first()).previous_status).toBe('available')
  })
})

const OTHER = 'test-host@other#memory'

/** A second backend, and types that name each. */
async function withTwoBackends(
  options: HarnessOptions & { wrap?: (driver: VolumeDriver) => VolumeDriver; otherZone?: string } = {},
) {
  const other = createMemoryBackend(100)
  const { wrap = (driver) => driver, otherZone = 'nova' } = options
  const others = [{ name: 'other', availabilityZone: otherZone, driver: wrap(driverOf(other)) }]
  const harness = await createHarness({ ...options, others })
  for (const name of ['memory', 'other']) {
    await harness.services.types.create(admin, {
      name: `on-${name}`,
      description: null,
      isPublic: true,
      extraSpecs: { volume_backend_name: name },
    })
  }
  return { harness, other }
}

/** Gives it a type that suits every backend. */
async function makePlain({ services }: Harness, id: string): Promise<void> {
  await services.volumes.retype(member, id, { newType: '__DEFAULT__', migrationPolicy: 'never' })
  await services.idle()
}

const migrate = (harness: Harness, id: string, host: string | null = OTHER, cluster: string | null = null) =>
  harness.services.volumes.migrate(admin, id, { host, cluster })

describe('migrate', () => {
  it('copies the volume to the other backend, and leaves nothing at the first', async () => {
    const { harness, other } = await withTwoBackends()
    const { volumes, idle } = harness.services
    const id = await availableVolume(harness, { volumeType: 'on-memory', sizeGib: 2 })
    const from = driverOf(harness.backend)
    await write(from, id, 0, 1)
    await write(from, id, 700 * MIB, 2, 70 * MIB) // more than one step copies
    await write(from, id, 2 * GIB - 4096, 3)
    await makePlain(harness, id)
    await migrate(harness, id)
    await idle()
    expect(await volumes.get(member, id)).toMatchObject({
      status: 'available',
      migrationStatus: 'success',
      host: OTHER,
    })
    const to = driverOf(other)
    expect(await byteAt(to, id, 0)).toBe(1)
    expect(await byteAt(to, id, 700 * MIB)).toBe(2)
    expect(await byteAt(to, id, 770 * MIB - 1)).toBe(2)
    expect(await byteAt(to, id, 770 * MIB)).toBe(0)
    expect(await byteAt(to, id, 2 * GIB - 1)).toBe(3)
    expect(harness.backend.volumes.has(id)).toBe(false)
    await volumes.delete(member, id, { cascade: false, force: false })
    await idle()
    expect(other.volumes.size).toBe(0)
  })

  it('takes the volume into the zone of the other backend, where it can be copied again', async () => {
    const { harness, other } = await withTwoBackends({ otherZone: 'east' })
    const id = await availableVolume(harness)
    await migrate(harness, id)
    await harness.services.idle()
    expect(await harness.services.volumes.get(member, id)).toMatchObject({ host: OTHER, availabilityZone: 'east' })
    const copy = await availableVolume(harness, { sourceVolid: id })
    expect(await harness.services.volumes.get(member, copy)).toMatchObject({ status: 'available', host: OTHER })
    expect([...other.volumes.keys()].sort()).toEqual([id, copy].sort())
  })

  it('is refused without a service there, and for volumes that cannot move', async () => {
    const { harness } = await withTwoBackends()
    const id = await availableVolume(harness, { volumeType: 'on-memory' })
    await expect(migrate(harness, id, 'elsewhere@other#memory')).rejects.toThrow(
      "Invalid host: No available service named 'elsewhere@other#memory'",
    )
    await expect(migrate(harness, id, null, 'a cluster')).rejects.toThrow("No available service named 'a cluster'")
    await expect(migrate(harness, id, 'test-host@memory#memory')).rejects.toThrow('must be different than the current')
    await snapshotOf(harness, id)
    expect(await outcome(migrate(harness, id))).toBe('InvalidVolume')
  })

  it('waits for nobody who copies the volume: it is refused', async () => {
    const gate = createGate(onMethod('createClonedVolume'))
    const { harness, other } = await withTwoBackends({ filters: [gate.filter] })
    const id = await availableVolume(harness)
    const { id: clone } = await harness.services.volumes.create(member, newVolume({ sourceVolid: id }))
    await gate.reached
    expect(await outcome(migrate(harness, id))).toBe('InvalidVolume')
    await harness.services.volumes.retype(member, id, { newType: 'on-other', migrationPolicy: 'on-demand' })
    await vi.waitFor(async () => expect((await harness.services.explain(id))?.reason).toContain('is being copied'))
    gate.open()
    await harness.services.idle()
    expect(await harness.services.volumes.get(member, clone)).toMatchObject({ status: 'available' })
    expect(other.volumes.size).toBe(0)
  })

  it('leaves no snapshot at the first backend that a failed backup has left there', async () => {
    const faults = [
      errorFilter(firstCalls(3, onMethod('deleteSnapshot')), 'before'),
      errorFilter(onMethod('openSnapshot'), 'before'),
    ]
    const { harness } = await withTwoBackends({ filters: faults })
    const id = await availableVolume(harness)
    await harness.services.backups.create(member, newBackup(id))
    await harness.services.idle()
    expect(harness.backend.snapshots.size).toBe(1)
    await migrate(harness, id)
    await harness.services.idle()
    expect(await harness.services.volumes.get(member, id)).toMatchObject({ host: OTHER, migrationStatus: 'success' })
    expect(harness.backend.snapshots.size + harness.backend.volumes.size).toBe(0)
  })

  it('that fails takes the copy away and says why', async () => {
    const full = new ServiceError('BackendFailure', { reason: 'no space' })
    const { harness, other } = await withTwoBackends({
      wrap: (driver) => ({
        ...driver,
        openVolume: async (volume) => ({
          ...(await driver.openVolume(volume)),
          write: async () => {
            throw full
          },
        }),
      }),
    })
    const id = await availableVolume(harness, { volumeType: 'on-memory' })
    await write(driverOf(harness.backend), id, 0, 1)
    await makePlain(harness, id)
    await migrate(harness, id)
    await harness.services.idle()
    expect(await harness.services.volumes.get(member, id)).toMatchObject({
      status: 'available',
      migrationStatus: 'error',
      host: 'test-host@memory#memory',
    })
    expect((await harness.services.explain(id))?.reason).toContain('no space')
    expect(other.volumes.size).toBe(0)
    expect(await byteAt(driverOf(harness.backend), id, 0)).toBe(1)
  })

  it('does not touch a volume of that id that is there already: two names of one store', async () => {
    const { harness, other } = await withTwoBackends()
    const id = await availableVolume(harness, { volumeType: 'on-memory' })
    other.volumes.set(id, harness.backend.volumes.get(id)!)
    await makePlain(harness, id)
    await migrate(harness, id)
    await harness.services.idle()
    expect(await harness.services.volumes.get(member, id)).toMatchObject({
      status: 'available',
      migrationStatus: 'error',
    })
    expect(other.volumes.has(id)).toBe(true)
    expect(harness.backend.volumes.has(id)).toBe(true)
  })

  it('keeps the volume when what it leaves behind cannot be deleted', async () => {
    const { harness } = await withTwoBackends({ filters: [errorFilter(onMethod('deleteVolume'), 'before')] })
    const id = await availableVolume(harness, { volumeType: 'on-memory' })
    await makePlain(harness, id)
    await migrate(harness, id)
    await harness.services.idle()
    expect(await harness.services.volumes.get(member, id)).toMatchObject({ host: OTHER, migrationStatus: 'success' })
    expect((await harness.services.explain(id))?.reason).toContain('test-host@memory#memory had of the volume')
  })

  it.each([
    ['origin', 'openVolume', 'before'],
    ['origin', 'deleteVolume', 'before'],
    ['origin', 'deleteVolume', 'after'],
    ['destination', 'openVolume', 'before'],
    ['destination', 'createVolume', 'before'],
    ['destination', 'createVolume', 'after'],
  ] as const)('goes on in another process when one dies at the %s: %s, %s it', async (side, method, point) => {
    let arrive = () => {}
    const reached = new Promise<void>((resolve) => {
      arrive = resolve
    })
    const hang = hangFilter(onMethod(method), point, arrive)
    const { harness, other } = await withTwoBackends(
      side === 'origin' ? { ...HANGS, filters: [hang] } : { ...HANGS, wrap: (driver) => wrapDriver(driver, hang) },
    )
    const id = await availableVolume(harness, { volumeType: 'on-memory' })
    await write(driverOf(harness.backend), id, 4 * MIB, 9)
    await makePlain(harness, id)
    await migrate(harness, id)
    await reached
    const others = [{ name: 'other', availabilityZone: 'nova', driver: driverOf(other) }]
    await harness.die()
    const { services, settled } = await harness.reopen({ others })
    await settled()
    expect(await services.volumes.get(member, id)).toMatchObject({
      status: 'available',
      migrationStatus: 'success',
      host: OTHER,
    })
    expect(await byteAt(driverOf(other), id, 4 * MIB)).toBe(9)
    expect(harness.backend.volumes.has(id)).toBe(false)
  })

  it('completion is for swaps that Nova makes itself', async () => {
    const harness = await createHarness()
    const [one, two] = [await availableVolume(harness), await availableVolume(harness)]
    const { volumes } = harness.services
    expect(await volumes.completeMigration(admin, one, { newVolumeId: two, failed: false })).toBe(two)
    await volumes.resetStatus(admin, one, null, { migrationStatus: 'migrating' })
    const completion = volumes.completeMigration(admin, one, { newVolumeId: two, failed: false })
    await expect(completion).rejects.toThrow('Destination volume not mid-migration.')
  })
})

async function typeId(harness: Harness, name: string): Promise<string> {
  return (await harness.db('volume_types').where({ name }).first('id')).id
}

describe('retype', () => {
  const retype = (harness: Harness, id: string, newType: string, migrationPolicy: 'never' | 'on-demand' = 'never') =>
    harness.services.volumes.retype(member, id, { newType, migrationPolicy })

  it('gives a volume another type, also one that is in use', async () => {
    const { harness } = await withTwoBackends()
    const { volumes, attachments, idle } = harness.services
    const plain = await availableVolume(harness, { volumeType: 'on-memory' })
    await retype(harness, plain, '__DEFAULT__')
    await idle()
    expect(await volumes.get(member, plain)).toMatchObject({ status: 'available', volumeTypeName: '__DEFAULT__' })
    const { id } = await attachments.create(member, newAttachment(plain, { connector: { host: 'h' } }))
    await attachments.complete(member, id)
    await retype(harness, plain, await typeId(harness, 'on-memory'))
    await idle()
    expect(await volumes.get(member, plain)).toMatchObject({ status: 'in-use', volumeTypeName: 'on-memory' })
    expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
  })

  it('refuses its own type, types that are not there, and sizes out of bounds', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    const extraSpecs = { 'provisioning:max_vol_size': '0' }
    await harness.services.types.create(admin, { name: 'tiny', description: null, isPublic: true, extraSpecs })
    expect(await outcome(retype(harness, id, '__DEFAULT__'))).toBe('InvalidVolume')
    expect(await outcome(retype(harness, id, 'nothing'))).toBe('VolumeTypeNotFoundByName')
    expect(await outcome(retype(harness, id, 'tiny'))).toBe('InvalidInput')
  })

  it('changes whether the volume can be shared, but not while it is in use', async () => {
    const harness = await createHarness()
    const { volumes, attachments, idle } = harness.services
    const extraSpecs = { multiattach: '<is> True' }
    await harness.services.types.create(admin, { name: 'shared', description: null, isPublic: true, extraSpecs })
    const id = await availableVolume(harness)
    const rules: string[] = []
    const context = contextOf({ authorize: (rule) => void rules.push(rule) })
    await volumes.retype(context, id, { newType: 'shared', migrationPolicy: 'never' })
    expect(rules).toEqual(['volume:retype', 'volume:multiattach'])
    await idle()
    expect((await volumes.get(member, id)).multiattach).toBe(true)
    const { id: attachmentId } = await attachments.create(member, newAttachment(id, { connector: { host: 'h' } }))
    await attachments.complete(member, attachmentId)
    await expect(retype(harness, id, '__DEFAULT__')).rejects.toThrow('only allowed on available volumes')
  })

  it('that needs another backend says so, and is not done', async () => {
    const { harness } = await withTwoBackends()
    const id = await availableVolume(harness, { volumeType: 'on-memory' })
    await retype(harness, id, 'on-other')
    await harness.services.idle()
    expect(await harness.services.volumes.get(member, id)).toMatchObject({
      status: 'available',
      volumeTypeName: 'on-memory',
    })
    expect((await harness.services.explain(id))?.reason).toContain('Retype requires migration but is not allowed.')
    await snapshotOf(harness, id)
    await retype(harness, id, 'on-other', 'on-demand')
    await harness.services.idle()
    expect((await harness.services.explain(id))?.reason).toContain('has snapshots')
  })

  it('moves the volume on demand', async () => {
    const { harness, other } = await withTwoBackends()
    const id = await availableVolume(harness, { volumeType: 'on-memory' })
    await write(driverOf(harness.backend), id, 4096, 7)
    await retype(harness, id, 'on-other', 'on-demand')
    await harness.services.idle()
    expect(await harness.services.volumes.get(member, id)).toMatchObject({
      status: 'available',
      volumeTypeName: 'on-other',
      host: OTHER,
      migrationStatus: 'success',
    })
    expect(await byteAt(driverOf(other), id, 4096)).toBe(7)
    expect(harness.backend.volumes.has(id)).toBe(false)
  })

  it('moves the volume into a zone of the new type', async () => {
    const { harness } = await withTwoBackends({ otherZone: 'east' })
    const extraSpecs = { 'RESKEY:availability_zones': 'west, east' }
    await harness.services.types.create(admin, { name: 'far', description: null, isPublic: true, extraSpecs })
    const id = await availableVolume(harness)
    await retype(harness, id, 'far')
    await harness.services.idle()
    expect(await harness.services.volumes.get(member, id)).toMatchObject({ volumeTypeName: '__DEFAULT__' })
    expect((await harness.services.explain(id))?.reason).toContain('it is in availability zone nova')
    await retype(harness, id, 'far', 'on-demand')
    await harness.services.idle()
    expect(await harness.services.volumes.get(member, id)).toMatchObject({
      volumeTypeName: 'far',
      host: OTHER,
      availabilityZone: 'east',
    })
  })

  it('moves the volume to the pool that weighs most, as the settings have it', async () => {
    const small = createMemoryBackend(50)
    const other = createMemoryBackend(100)
    const scheduler = { ...DEFAULT_SCHEDULER, weights: { ...DEFAULT_SCHEDULER.weights, capacity: -1 } }
    const others = [
      { name: 'other', availabilityZone: 'nova', volumeBackendName: 'elsewhere', driver: driverOf(other) },
      { name: 'small', availabilityZone: 'nova', volumeBackendName: 'elsewhere', driver: driverOf(small) },
    ]
    const harness = await createHarness({ others, settings: { scheduler } })
    for (const name of ['memory', 'elsewhere']) {
      const extraSpecs = { volume_backend_name: name }
      await harness.services.types.create(admin, { name: `on-${name}`, description: null, isPublic: true, extraSpecs })
    }
    const id = await availableVolume(harness, { volumeType: 'on-memory' })
    await retype(harness, id, 'on-elsewhere', 'on-demand')
    await harness.services.idle()
    expect(await harness.services.volumes.get(member, id)).toMatchObject({ host: 'test-host@small#memory' })
  })

  it('that is broken off leaves the type as it was', async () => {
    const { harness } = await withTwoBackends({
      ...HANGS,
      wrap: (driver) => wrapDriver(driver, hangFilter(onMethod('createVolume'), 'before')),
    })
    const id = await availableVolume(harness, { volumeType: 'on-memory' })
    await retype(harness, id, 'on-other', 'on-demand')
    await harness.services.volumes.resetStatus(admin, id, 'available')
    expect(await harness.services.volumes.get(member, id)).toMatchObject({
      volumeTypeName: 'on-memory',
      migrationStatus: 'error',
    })
    expect((await harness.db('volumes').where({ id }).first()).pending_volume_type_id).toBeNull()
  })
})

describe('unmanage', () => {
  it('forgets the volume and leaves it where it is', async () => {
    const harness = await createHarness()
    const { volumes, idle } = harness.services
    const id = await availableVolume(harness)
    const snapshot = await snapshotOf(harness, id)
    expect(await outcome(volumes.unmanage(admin, id))).toBe('InvalidVolume')
    await harness.services.snapshots.delete(member, snapshot)
    await idle()
    await volumes.unmanage(admin, id)
    await idle()
    expect(await outcome(volumes.get(member, id))).toBe('VolumeNotFound')
    expect(harness.backend.volumes.has(id)).toBe(true)
    expect(await keptUsage(harness.db)).toEqual({})
  })
})

describe('reset_status', () => {
  it('takes attachments with their exports away when it says detached', async () => {
    const harness = await createHarness({ filters: [errorFilter(firstCalls(1, onMethod('removeExport')), 'before')] })
    const { volumes, attachments } = harness.services
    const id = await availableVolume(harness)
    const { id: attachmentId } = await attachments.create(member, newAttachment(id, { connector: { host: 'h' } }))
    await attachments.complete(member, attachmentId)
    await volumes.resetStatus(admin, id, 'error', { attachStatus: 'attached' })
    expect(await volumes.get(member, id)).toMatchObject({ status: 'error', attachments: [{ id: attachmentId }] })
    await volumes.resetStatus(admin, id, 'available', { attachStatus: 'detached' })
    expect(await volumes.get(member, id)).toMatchObject({ status: 'available', attachments: [] })
    expect(harness.backend.volumes.get(id)?.rights.size).toBe(0)
  })

  it('writes the status of a migration, and keeps all others from it while one goes on', async () => {
    const harness = await createHarness()
    const { volumes } = harness.services
    const id = await availableVolume(harness)
    await volumes.resetStatus(admin, id, null, { migrationStatus: 'starting' })
    expect(await volumes.get(member, id)).toMatchObject({ status: 'available', migrationStatus: 'starting' })
    expect(await outcome(volumes.delete(member, id, { cascade: false, force: false }))).toBe('InvalidVolume')
    expect(await outcome(volumes.beginDetaching(member, id))).toBe('done') // as upstream: no status tells of it
    await volumes.resetStatus(admin, id, null, { migrationStatus: 'none' })
    expect((await volumes.get(member, id)).migrationStatus).toBeNull()
    expect(await outcome(volumes.delete(member, id, { cascade: false, force: false }))).toBe('done')
    await harness.services.idle()
  })
})

describe('what is said about a volume', () => {
  it('goes with its copies where it is about the image, and stays where it is about itself', async () => {
    const harness = await createHarness()
    const { volumes } = harness.services
    const id = await availableVolume(harness)
    await volumes.setBootable(member, id, true)
    await volumes.setReadonly(member, id, true)
    expect(await volumes.setImageMetadata(member, id, { image_name: 'cirros', min_disk: '1' })).toEqual({
      image_name: 'cirros',
      min_disk: '1',
    })
    await volumes.unsetImageMetadata(member, id, 'min_disk')
    expect(await outcome(volumes.unsetImageMetadata(member, id, 'min_disk'))).toBe('ImageMetadataNotFound')
    expect(await outcome(volumes.setImageMetadata(stranger, id, {}))).toBe('VolumeNotFound')
    const clone = await volumes.create(member, newVolume({ sourceVolid: id }))
    expect(clone).toMatchObject({ bootable: true, imageMetadata: { image_name: 'cirros' }, adminMetadata: {} })
    const snapshot = await snapshotOf(harness, id)
    const restored = await volumes.create(member, newVolume({ snapshotId: snapshot }))
    expect(restored).toMatchObject({ bootable: true, imageMetadata: { image_name: 'cirros' }, adminMetadata: {} })
    await harness.services.idle()
  })

  it('a volume that was made read-only is attached read-only', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    await harness.services.volumes.setReadonly(member, id, true)
    const request = { ...newAttachment(id, { connector: { host: 'h', mode: 'rw' } }), mode: 'rw' as const }
    const made = await harness.services.attachments.create(member, request)
    expect(made).toMatchObject({ attachMode: 'ro', connectionInfo: { access_mode: 'ro' } })
    expect(await outcome(harness.services.volumes.setReadonly(member, id, false))).toBe('InvalidVolume')
  })
})

describe('a copy of another type', () => {
  it('is made where both types name one backend, or there is only one', async () => {
    const alone = await createHarness()
    const extraSpecs = { volume_backend_name: 'memory' }
    await alone.services.types.create(admin, { name: 'other', description: null, isPublic: true, extraSpecs })
    const id = await availableVolume(alone)
    const copy = await alone.services.volumes.create(member, newVolume({ sourceVolid: id, volumeType: 'other' }))
    expect(copy.volumeTypeName).toBe('other')
    await alone.services.idle()

    const { harness } = await withTwoBackends()
    await harness.services.types.create(admin, { name: 'also', description: null, isPublic: true, extraSpecs })
    const source = await availableVolume(harness, { volumeType: 'on-memory' })
    const snapshot = await snapshotOf(harness, source)
    const { volumes } = harness.services
    expect(await outcome(volumes.create(member, newVolume({ sourceVolid: source, volumeType: 'also' })))).toBe('done')
    await expect(volumes.create(member, newVolume({ sourceVolid: source, volumeType: 'on-other' }))).rejects.toThrow(
      'requested type is not compatible; either match source volume, or omit type argument',
    )
    await expect(volumes.create(member, newVolume({ snapshotId: snapshot, volumeType: 'on-other' }))).rejects.toThrow(
      'requested type is not compatible; recommend omitting the type argument',
    )
    await harness.services.idle()
  })
})
