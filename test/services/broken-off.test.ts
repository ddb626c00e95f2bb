import { describe, expect, it } from 'vitest'
import { errorFilter, hangFilter, nthCall, onMethod } from '../../src/drivers/wrappers.ts'
import { ServiceError } from '../../src/errors.ts'
import { DIALECTS } from '../db/harness.ts'
import {
  admin,
  availableVolume,
  createGate,
  createHarness,
  type Harness,
  keptUsage,
  member,
  newAttachment,
  newBackup,
  newSnapshot,
  newVolume,
  outcome,
  recount,
} from './harness.ts'

/** What administrators break off, or take away from under work that goes on, leaves nothing that waits or is counted for ever. */

/** A backend that keeps volumes, as one does that has snapshots of them of which nobody here knows. */
const keepsVolumes = errorFilter(
  onMethod('deleteVolume'),
  'before',
  () => new ServiceError('InvalidVolume', { reason: 'it has snapshots' }),
)

/** Nothing comes of waiting for a driver that hangs. */
const IMPATIENT = { stopGraceMs: 1 }

async function makeType({ services }: Harness, name: string): Promise<string> {
  return (await services.types.create(admin, { name, description: null, isPublic: true, extraSpecs: {} })).id
}

async function availableSnapshot({ services }: Harness, volumeId: string): Promise<string> {
  const { id } = await services.snapshots.create(member, newSnapshot(volumeId))
  await services.idle()
  return id
}

const force = { cascade: false, force: true }
const cascade = { cascade: true, force: false }

describe.each(DIALECTS)('a deletion by force that the backend refuses, on %s', (dialect) => {
  it('gives back what the volume was to grow by', async () => {
    const gate = createGate(onMethod('extendVolume'))
    const harness = await createHarness({ dialect, filters: [gate.filter, keepsVolumes] })
    const { volumes, idle } = harness.services
    const id = await availableVolume(harness)
    await volumes.extend(member, id, 4)
    await gate.reached
    await volumes.delete(admin, id, force)
    gate.open()
    await idle()
    expect(await volumes.get(member, id)).toMatchObject({ status: 'available', sizeGib: 1 })
    expect((await keptUsage(harness.db)).project).toEqual({ volumes: 1, snapshots: 0, gigabytes: 1 })
    await volumes.extend(member, id, 3)
    await idle()
    expect((await keptUsage(harness.db)).project).toEqual({ volumes: 1, snapshots: 0, gigabytes: 3 })
  })

  it('gives the type back that the volume was to get', async () => {
    const harness = await createHarness({ dialect })
    await makeType(harness, 'other')
    const id = await availableVolume(harness)
    await harness.services.stop()
    const { services } = await harness.reopen({ start: false })
    await services.volumes.retype(member, id, { newType: 'other', migrationPolicy: 'never' })
    await services.volumes.delete(admin, id, force)
    expect(await harness.db('volumes').whereNotNull('pending_volume_type_id')).toEqual([])
    expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
  })

  it('leaves no snapshot waiting for work that went with it', async () => {
    const gate = createGate(onMethod('createSnapshot'))
    const harness = await createHarness({
      dialect,
      filters: [gate.filter, errorFilter(onMethod('deleteSnapshot'), 'before')],
    })
    const { volumes, snapshots, idle } = harness.services
    const id = await availableVolume(harness)
    const { id: snapshotId } = await snapshots.create(member, newSnapshot(id))
    await gate.reached
    await volumes.delete(admin, id, { cascade: true, force: true })
    gate.open()
    await idle()
    expect((await volumes.get(member, id)).status).toBe('error_deleting')
    expect((await snapshots.get(member, snapshotId)).status).toBe('error')
  })

  it('leaves a snapshot that was being backed up as it is without the backup', async () => {
    const gate = createGate(onMethod('openSnapshot'))
    const harness = await createHarness({
      dialect,
      filters: [gate.filter, errorFilter(onMethod('deleteSnapshot'), 'before')],
    })
    const { volumes, snapshots, backups, idle } = harness.services
    const id = await availableVolume(harness)
    const snapshotId = await availableSnapshot(harness, id)
    await backups.create(member, newBackup(id, { snapshotId }))
    await gate.reached
    await volumes.delete(admin, id, { cascade: true, force: true })
    gate.open()
    await idle()
    expect((await snapshots.get(member, snapshotId)).status).toBe('available')
  })
})

describe.each(DIALECTS)('a deletion that an administrator breaks off, on %s', (dialect) => {
  it('gives the snapshots that were to go with the volume their status back', async () => {
    const hang = hangFilter(onMethod('deleteSnapshot'), 'before')
    const harness = await createHarness({ dialect, filters: [hang], settings: IMPATIENT })
    const { volumes, snapshots } = harness.services
    const id = await availableVolume(harness)
    const snapshotId = await availableSnapshot(harness, id)
    await volumes.delete(member, id, cascade)
    await volumes.resetStatus(admin, id, 'available')
    expect((await snapshots.get(member, snapshotId)).status).toBe('available')
  })
})

describe.each(DIALECTS)('a restore that an administrator breaks off, on %s', (dialect) => {
  async function availableBackup({ services }: Harness, volumeId: string): Promise<string> {
    const { id } = await services.backups.create(member, newBackup(volumeId))
    await services.idle()
    return id
  }

  it('by writing the status of the backup leaves it in that status', async () => {
    const gate = createGate(onMethod('openVolume'))
    const harness = await createHarness({ dialect, filters: [gate.filter] })
    const { volumes, backups, idle } = harness.services
    const volumeId = await availableVolume(harness)
    const backupId = await availableBackup(harness, volumeId)
    await backups.restore(member, backupId, { volumeId, name: null })
    await gate.reached
    await backups.resetStatus(admin, backupId, 'error')
    gate.open()
    await idle()
    expect((await backups.get(member, backupId)).status).toBe('error')
    expect((await volumes.get(member, volumeId)).status).toBe('error_restoring')
  })

  it('by deleting the backup has no more to do with the volume, even when the deletion fails', async () => {
    const [first, second] = [
      createGate(nthCall(1, onMethod('openVolume'))),
      createGate(nthCall(2, onMethod('openVolume'))),
    ]
    const deletions = onMethod('deleteSnapshot')
    let isBroken = false
    const broken = errorFilter({ ...deletions, matches: (call) => isBroken && deletions.matches(call) }, 'before')
    const harness = await createHarness({ dialect, filters: [first.filter, second.filter, broken] })
    const { volumes, backups, idle } = harness.services
    const volumeId = await availableVolume(harness)
    const [doomed, good] = [await availableBackup(harness, volumeId), await availableBackup(harness, volumeId)]
    isBroken = true
    await backups.restore(member, doomed, { volumeId, name: null })
    await first.reached
    await backups.delete(admin, doomed, { force: true })
    first.open()
    await idle()
    expect((await backups.get(member, doomed)).status).toBe('error_deleting')
    expect((await volumes.get(member, volumeId)).status).toBe('error_restoring')

    await volumes.resetStatus(admin, volumeId, 'available')
    await backups.restore(member, good, { volumeId, name: null })
    await second.reached
    await backups.delete(admin, doomed, { force: true })
    second.open()
    await idle()
    expect((await volumes.get(member, volumeId)).status).toBe('available')
    expect((await backups.get(member, good)).status).toBe('available')
  })
})

describe.each(DIALECTS)('a volume that an administrator calls detached, on %s', (dialect) => {
  it('is connected to nobody else before the backend has let go', async () => {
    const cut = createGate(onMethod('removeExport'))
    const broken = errorFilter(onMethod('removeExport'), 'before')
    const harness = await createHarness({ dialect, filters: [cut.filter, broken] })
    const { attachments, volumes, idle } = harness.services
    const id = await availableVolume(harness)
    const attach = () => outcome(attachments.create(member, newAttachment(id, { connector: { host: 'h' } })))
    expect(await attach()).toBe('done')
    const reset = volumes.resetStatus(admin, id, 'available', { attachStatus: 'detached' })
    const refused = expect(reset).rejects.toThrow('injected fault')
    await cut.reached
    expect(await attach()).toBe('ResourceConflict')
    cut.open()
    await refused
    await idle()
    expect(harness.backend.volumes.get(id)!.rights.size).toBe(1)
  })
})

describe.each(DIALECTS)('a type that a volume is being changed to, on %s', (dialect) => {
  it('stays until that has ended, and as it is', async () => {
    const harness = await createHarness({ dialect })
    const id = await availableVolume(harness)
    const typeId = await makeType(harness, 'other')
    await harness.services.stop()
    const { services } = await harness.reopen({ start: false })
    await services.volumes.retype(member, id, { newType: 'other', migrationPolicy: 'never' })
    await expect(services.types.delete(admin, typeId)).rejects.toThrow('Target volume type is still in use.')
    await expect(services.types.setSpec(admin, typeId, 'key', 'value')).rejects.toThrow('currently in use')
    const encryption = { provider: 'luks', controlLocation: 'front-end' as const, cipher: null, keySize: null }
    await expect(services.typeEncryption.create(admin, typeId, encryption)).rejects.toThrow('Volume type in use')
  })

  it('is none whose volumes are encrypted in another way', async () => {
    const harness = await createHarness({ dialect })
    const id = await availableVolume(harness)
    const typeId = await makeType(harness, 'secret')
    const encryption = { provider: 'luks', controlLocation: 'front-end' as const, cipher: null, keySize: null }
    await harness.services.typeEncryption.create(admin, typeId, encryption)
    await harness.services.volumes.retype(member, id, { newType: 'secret', migrationPolicy: 'never' })
    expect(await outcome(harness.services.volumes.create(member, newVolume({ volumeType: 'secret' })))).toBe(
      'InvalidVolumeType',
    )
    await harness.services.idle()
    expect(await harness.services.volumes.get(member, id)).toMatchObject({ volumeTypeName: '__DEFAULT__' })
    expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
  })
})
