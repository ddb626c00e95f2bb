import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { createMemoryDriver } from '../../src/drivers/memory.ts'
import { errorFilter, firstCalls, hangFilter, onMethod } from '../../src/drivers/wrappers.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import type { Backup, BackupCreate } from '../../src/services/model.ts'
import {
  admin,
  availableVolume,
  createGate,
  createHarness,
  everything,
  type Harness,
  member,
  newAttachment,
  newBackup,
  newSnapshot,
  newVolume,
  outcome,
  stranger,
  TEST_SETTINGS,
} from './harness.ts'

const MIB = 1024 ** 2
/** For processes that hang: their end is not waited for. */
const IMPATIENT = { stopGraceMs: 10 }
const GIB = 1024 ** 3

/** What the volume holds, past the service. */
async function fill(harness: Harness, id: string, writes: readonly [offset: number, bytes: Buffer][]): Promise<void> {
  const data = await createMemoryDriver(harness.backend, systemRandom).openVolume({ id, sizeGib: 1 })
  for (const [offset, bytes] of writes) await data.write(offset, bytes)
}

async function read(harness: Harness, id: string, offset: number, lengthBytes: number): Promise<Buffer> {
  const data = await createMemoryDriver(harness.backend, systemRandom).openVolume({ id, sizeGib: 1 })
  const bytes = Buffer.alloc(lengthBytes, 0xff)
  await data.read(offset, bytes)
  return bytes
}

/** A backup that has ended, well or not. */
async function backUp(harness: Harness, volumeId: string, overrides: Partial<BackupCreate> = {}): Promise<Backup> {
  const { id } = await harness.services.backups.create(member, newBackup(volumeId, overrides))
  await harness.services.idle()
  return harness.services.backups.get(member, id)
}

const statusOf = async (harness: Harness, id: string) => (await harness.services.volumes.get(member, id)).status

describe('a backup', () => {
  it('holds what the volume held, and is restored to a new volume', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    const [start, middle, end] = [randomBytes(8192), Buffer.alloc(5 * MIB, 7), randomBytes(4096)]
    await fill(harness, id, [
      [0, start],
      [300 * MIB + 512, middle],
      [GIB - 4096, end],
    ])
    const backup = await backUp(harness, id, { name: 'first', metadata: { tier: 'gold' } })
    expect(backup).toMatchObject({
      status: 'available',
      name: 'first',
      sizeGib: 1,
      objectCount: 4,
      isIncremental: false,
      hasDependentBackups: false,
      container: 'volumebackups',
      metadata: { tier: 'gold' },
    })
    expect(await statusOf(harness, id)).toBe('available')
    expect(harness.backend.snapshots.size).toBe(0) // its own is gone

    await harness.services.volumes.delete(member, id, { cascade: false, force: false })
    await harness.services.idle()
    const { volumeId, volumeName } = await harness.services.backups.restore(member, backup.id, {
      volumeId: null,
      name: null,
    })
    expect(volumeName).toBe(`restore_backup_${backup.id}`)
    await harness.services.idle()
    expect(await statusOf(harness, volumeId)).toBe('available')
    expect((await harness.services.backups.get(member, backup.id)).status).toBe('available')
    expect((await read(harness, volumeId, 0, 8192)).equals(start)).toBe(true)
    expect((await read(harness, volumeId, 300 * MIB + 512, 5 * MIB)).equals(middle)).toBe(true)
    expect((await read(harness, volumeId, GIB - 4096, 4096)).equals(end)).toBe(true)
  })

  it('makes an existing volume what it holds, holes too', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    await fill(harness, id, [[4 * MIB, Buffer.alloc(4096, 1)]])
    const backup = await backUp(harness, id)
    await fill(harness, id, [
      [0, Buffer.alloc(4096, 2)],
      [4 * MIB, Buffer.alloc(8192, 2)],
      [900 * MIB, Buffer.alloc(4096, 2)],
    ])
    await harness.services.backups.restore(member, backup.id, { volumeId: id, name: null })
    expect(await statusOf(harness, id)).toBe('restoring-backup')
    await harness.services.idle()
    expect(await statusOf(harness, id)).toBe('available')
    expect((await read(harness, id, 0, 4096)).equals(Buffer.alloc(4096))).toBe(true)
    expect(
      (await read(harness, id, 4 * MIB, 8192)).equals(Buffer.concat([Buffer.alloc(4096, 1), Buffer.alloc(4096)])),
    ).toBe(true)
    expect((await read(harness, id, 900 * MIB, 4096)).equals(Buffer.alloc(4096))).toBe(true)
  })

  it('is what a new volume holds that is made of it, as large as it is asked for', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness, { sizeGib: 2 })
    const bytes = randomBytes(4096)
    await fill(harness, id, [[GIB, bytes]])
    const backup = await backUp(harness, id)
    const { backups, types, idle, volumes } = harness.services
    await types.create(admin, { name: 'gold', description: null, isPublic: true, extraSpecs: {} })
    const request = { ...newVolume({ name: 'copy', volumeType: 'gold', metadata: { k: 'v' } }), sizeGib: null }
    const [same, larger] = [
      await backups.createVolume(member, backup.id, request),
      await idle().then(() => backups.createVolume(member, backup.id, { ...request, sizeGib: 3 })),
    ]
    expect(same).toMatchObject({ status: 'creating', sizeGib: 2, name: 'copy', volumeTypeName: 'gold' })
    await idle()
    for (const volume of [same, larger]) {
      expect(await volumes.get(member, volume.id)).toMatchObject({ status: 'available', metadata: { k: 'v' } })
      expect((await read(harness, volume.id, GIB, 4096)).equals(bytes)).toBe(true)
    }
    expect(larger.sizeGib).toBe(3)
    expect((await backups.get(member, backup.id)).status).toBe('available')
    const refused = (changes: object, who = member) => backups.createVolume(who, backup.id, { ...request, ...changes })
    await expect(refused({ sizeGib: 1 })).rejects.toThrow(
      'Volume size 1GB cannot be smaller than the backup size 2GB. It must be >= backup size.',
    )
    await expect(refused({ sourceVolid: id })).rejects.toThrow('May specify only one of')
    expect(await outcome(refused({}, stranger))).toBe('BackupNotFound')
    await backups.resetStatus(admin, backup.id, 'error')
    await expect(refused({})).rejects.toThrow("Originating backup status must be one of 'available' values")
  })

  it('that is incremental writes what has changed, and restores by itself', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    const chunks = [0, 1, 2].map((index): [number, Buffer] => [index * 200 * MIB, randomBytes(4 * MIB)])
    await fill(harness, id, chunks)
    const full = await backUp(harness, id)
    expect(full.objectCount).toBe(3)
    const changed = randomBytes(4096)
    await fill(harness, id, [[200 * MIB, changed]])
    const second = await backUp(harness, id, { incremental: true })
    expect(second).toMatchObject({ status: 'available', objectCount: 1, isIncremental: true })
    const third = await backUp(harness, id, { incremental: true })
    expect(third).toMatchObject({ objectCount: 0, isIncremental: true })
    expect((await harness.services.backups.get(member, full.id)).hasDependentBackups).toBe(true)

    const remove = (backup: Backup) => harness.services.backups.delete(member, backup.id, { force: false })
    expect(await outcome(remove(full))).toBe('InvalidBackup')
    const { volumeId } = await harness.services.backups.restore(member, third.id, { volumeId: null, name: 'copy' })
    await harness.services.idle()
    expect((await read(harness, volumeId, 200 * MIB, 4096)).equals(changed)).toBe(true)
    expect((await read(harness, volumeId, 400 * MIB, 4 * MIB)).equals(chunks[2]![1])).toBe(true)

    for (const backup of [third, second, full]) {
      await remove(backup)
      await harness.services.idle()
      expect(await outcome(harness.services.backups.get(member, backup.id))).toBe('BackupNotFound')
      expect(await harness.backups.list(`volumebackups/${backup.id}`)).toEqual([])
    }
  })

  it('keeps nobody from detaching the volume meanwhile, and says to operators what goes on', async () => {
    const gate = createGate(onMethod('openSnapshot'))
    const work = { ...TEST_SETTINGS.work, attemptTimeoutMs: 600_000 } // as many short attempts in a row as a large volume takes
    const harness = await createHarness({ filters: [gate.filter], settings: { work } })
    const { attachments, backups, explain, idle } = harness.services
    const id = await availableVolume(harness)
    const attached = await attachments.create(member, newAttachment(id, { connector: { host: 'h' } }))
    await attachments.complete(member, attached.id)
    const backup = await backups.create(member, newBackup(id, { force: true }))
    await gate.reached
    expect(await attachments.delete(member, attached.id)).toEqual([])
    expect(await statusOf(harness, id)).toBe('backing-up')
    expect((await explain(id))?.workBeside).toMatchObject([{ resourceId: backup.id, kind: 'backup-create' }])
    gate.open()
    await idle()
    expect(await statusOf(harness, id)).toBe('available')
    expect((await backups.get(member, backup.id)).status).toBe('available')
  })

  it('needs one to be based on, of the same project', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    expect(await outcome(backUp(harness, id, { incremental: true }))).toBe('InvalidBackup')
    await harness.services.backups.create(admin, newBackup(id))
    await harness.services.idle()
    expect(await outcome(backUp(harness, id, { incremental: true }))).toBe('InvalidBackup')
  })

  it('of a snapshot holds what that holds, while the volume is written to', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    await fill(harness, id, [[0, Buffer.alloc(4096, 1)]])
    const snapshot = await harness.services.snapshots.create(member, newSnapshot(id))
    await harness.services.idle()
    await fill(harness, id, [[0, Buffer.alloc(4096, 2)]])
    const { id: backupId } = await harness.services.backups.create(member, newBackup(id, { snapshotId: snapshot.id }))
    expect(await outcome(harness.services.snapshots.delete(member, snapshot.id))).toBe('InvalidSnapshot')
    await harness.services.idle()
    const other = await availableVolume(harness)
    await expect(
      harness.services.backups.create(member, newBackup(other, { snapshotId: snapshot.id })),
    ).rejects.toThrow(`Invalid volume: Volume ${other} does not match with snapshot.volume_id ${id}.`)
    expect((await harness.services.snapshots.get(member, snapshot.id)).status).toBe('available')
    const { volumeId } = await harness.services.backups.restore(member, backupId, { volumeId: null, name: null })
    await harness.services.idle()
    expect((await read(harness, volumeId, 0, 4096)).equals(Buffer.alloc(4096, 1))).toBe(true)
  })

  it('of a volume in use has to be forced, and leaves it in use', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    const attachment = await harness.services.attachments.create(
      member,
      newAttachment(id, { connector: { host: 'compute' } }),
    )
    await harness.services.attachments.complete(member, attachment.id)
    expect(await outcome(backUp(harness, id))).toBe('InvalidVolume')
    const { id: backupId } = await harness.services.backups.create(member, newBackup(id, { force: true }))
    expect(await statusOf(harness, id)).toBe('backing-up')
    await harness.services.idle()
    expect(await statusOf(harness, id)).toBe('in-use')
    expect((await harness.services.backups.get(member, backupId)).status).toBe('available')
  })

  it('is restored only where it fits and nobody is', async () => {
    const harness = await createHarness()
    const large = await backUp(harness, await availableVolume(harness, { sizeGib: 2 }))
    const small = await availableVolume(harness)
    const restore = (volumeId: string) => harness.services.backups.restore(member, large.id, { volumeId, name: null })
    await expect(restore(small)).rejects.toThrow(
      'Invalid volume: volume size 1 is too small to restore backup of size 2.',
    )
    const used = await availableVolume(harness, { sizeGib: 2 })
    await harness.services.attachments.create(member, newAttachment(used))
    expect(await outcome(restore(used))).toBe('InvalidVolume')
    expect((await harness.services.backups.get(member, large.id)).status).toBe('available')
    expect(await outcome(harness.services.backups.get(stranger, large.id))).toBe('BackupNotFound')
  })
})

describe('the quota of backups', () => {
  it('counts each with the size of its volume, as long as it is there', async () => {
    const quota = { ...TEST_SETTINGS.quota, backups: 2, backupGigabytes: 5 }
    const harness = await createHarness({ settings: { quota } })
    const [small, large] = [await availableVolume(harness), await availableVolume(harness, { sizeGib: 4 })]
    const used = async () => {
      const { backups, backup_gigabytes } = await harness.services.quotas.usage(member, member.projectId)
      return [backups?.used, backup_gigabytes?.used]
    }
    const first = await backUp(harness, large)
    await expect(backUp(harness, large)).rejects.toThrow(
      'Requested backup exceeds allowed Backup gigabytes quota. Requested 4G, quota is 5G and 4G has been consumed.',
    )
    await backUp(harness, small)
    await harness.services.backups.delete(member, first.id, { force: false })
    await harness.services.idle()
    expect(await used()).toEqual([1, 1])
    await backUp(harness, small)
    await expect(backUp(harness, small)).rejects.toThrow('Maximum number of backups allowed (2) exceeded')
    expect(await used()).toEqual([2, 2])
    expect((await harness.services.volumes.get(member, small)).status).toBe('available')
  })
})

describe('a backup that fails', () => {
  it('leaves nothing behind, says why, and the volume as it was', async () => {
    const harness = await createHarness({ filters: [errorFilter(onMethod('openSnapshot'), 'before')] })
    const id = await availableVolume(harness)
    const backup = await backUp(harness, id)
    expect(backup.status).toBe('error')
    expect(backup.failReason).toContain('injected fault in openSnapshot')
    expect(await statusOf(harness, id)).toBe('available')
    expect(harness.backend.snapshots.size).toBe(0)
    expect(await harness.backups.list(`volumebackups/${backup.id}`)).toEqual([])
    await harness.services.backups.delete(member, backup.id, { force: false })
    await harness.services.idle()
    await harness.services.volumes.delete(member, id, { cascade: false, force: false })
    await harness.services.idle()
    expect(await outcome(harness.services.volumes.get(member, id))).toBe('VolumeNotFound')
  })

  it('whose own snapshot could not be deleted does not keep its volume from being deleted', async () => {
    const stuck = errorFilter(firstCalls(3, onMethod('deleteSnapshot')), 'before')
    const harness = await createHarness({ filters: [errorFilter(onMethod('openSnapshot'), 'before'), stuck] })
    const id = await availableVolume(harness)
    expect((await backUp(harness, id)).status).toBe('error')
    expect(harness.backend.snapshots.size).toBe(1)
    await harness.services.volumes.delete(member, id, { cascade: false, force: false })
    await harness.services.idle()
    expect(harness.backend.snapshots.size + harness.backend.volumes.size).toBe(0)
  })

  it('to restore says so on the volume, and stays usable', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    await fill(harness, id, [[0, randomBytes(4 * MIB)]])
    const backup = await backUp(harness, id)
    const name = `volumebackups/${backup.id}/chunk-0`
    const chunk = (await harness.backups.get(name))!
    chunk[1000]! ^= 1
    await harness.backups.put(name, chunk)
    await harness.services.backups.restore(member, backup.id, { volumeId: id, name: null })
    await harness.services.idle()
    expect(await statusOf(harness, id)).toBe('error_restoring')
    const { status, failReason } = await harness.services.backups.get(member, backup.id)
    expect(status).toBe('available')
    expect(failReason).toContain('chunk-0 on the backup target is damaged')
  })
})

describe('a process that dies', () => {
  const steps = ['createSnapshot', 'openSnapshot', 'deleteSnapshot'] as const
  it.each(steps.flatMap((method) => (['before', 'after'] as const).map((point) => ({ method, point }))))(
    'while backing up ($point $method) leaves a backup that the next one finishes',
    async ({ method, point }) => {
      let reached = () => {}
      const hung = new Promise<void>((resolve) => {
        reached = resolve
      })
      const harness = await createHarness({
        settings: IMPATIENT,
        filters: [hangFilter(onMethod(method), point, () => reached())],
      })
      const id = await availableVolume(harness)
      const bytes = randomBytes(4 * MIB)
      await fill(harness, id, [
        [0, bytes],
        [500 * MIB, bytes],
      ])
      const { id: backupId } = await harness.services.backups.create(member, newBackup(id))
      await hung
      await harness.die()
      const next = await harness.reopen()
      await next.settled()
      expect(await next.services.backups.get(member, backupId)).toMatchObject({ status: 'available', objectCount: 2 })
      expect(await statusOf(next, id)).toBe('available')
      expect(next.backend.snapshots.size).toBe(0)
      const { volumeId } = await next.services.backups.restore(member, backupId, { volumeId: null, name: null })
      await next.services.idle()
      expect((await read(next, volumeId, 500 * MIB, 4 * MIB)).equals(bytes)).toBe(true)
    },
  )

  it.each(['before', 'after'] as const)('while restoring (%s openVolume) leaves a restore that ends', async (point) => {
    let reached = () => {}
    const hung = new Promise<void>((resolve) => {
      reached = resolve
    })
    const harness = await createHarness({
      settings: IMPATIENT,
      filters: [hangFilter(onMethod('openVolume'), point, () => reached())],
    })
    const id = await availableVolume(harness)
    const bytes = randomBytes(4096)
    await fill(harness, id, [[600 * MIB, bytes]])
    const backup = await backUp(harness, id)
    const { volumeId } = await harness.services.backups.restore(member, backup.id, { volumeId: null, name: null })
    await hung
    await harness.die()
    const next = await harness.reopen()
    await next.settled()
    expect(await statusOf(next, volumeId)).toBe('available')
    expect((await read(next, volumeId, 600 * MIB, 4096)).equals(bytes)).toBe(true)
  })
})

describe('an administrator', () => {
  it('takes a backup over into another cloud from the target alone', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    await fill(harness, id, [[0, Buffer.alloc(4096, 9)]])
    const full = await backUp(harness, id, { name: 'full' })
    await fill(harness, id, [[8 * MIB, Buffer.alloc(4096, 8)]])
    const later = await backUp(harness, id, { incremental: true })
    const records = await Promise.all(
      [full, later].map((backup) => harness.services.backups.exportRecord(admin, backup.id)),
    )

    const other = await createHarness({ backupTarget: harness.backups })
    expect(await outcome(other.services.backups.importRecord(admin, records[1]!))).toBe('InvalidBackup')
    for (const record of records) await other.services.backups.importRecord(admin, record)
    expect(await outcome(other.services.backups.importRecord(admin, records[0]!))).toBe('InvalidBackup')
    const list = await other.services.backups.list(admin, everything, { count: true })
    expect(list.items.map(({ name, status, isIncremental }) => ({ name, status, isIncremental }))).toEqual([
      { name: null, status: 'available', isIncremental: true },
      { name: 'full', status: 'available', isIncremental: false },
    ])
    const { volumeId } = await other.services.backups.restore(admin, later.id, { volumeId: null, name: null })
    await other.services.idle()
    expect((await read(other, volumeId, 0, 4096)).equals(Buffer.alloc(4096, 9))).toBe(true)
    expect((await read(other, volumeId, 8 * MIB, 4096)).equals(Buffer.alloc(4096, 8))).toBe(true)
  })

  it('is the same backup under two ids when the record is given another one, until neither is left', async () => {
    const harness = await createHarness()
    const { services } = harness
    const id = await availableVolume(harness)
    await fill(harness, id, [[0, Buffer.alloc(4096, 9)]])
    const full = await backUp(harness, id)
    const record = await services.backups.exportRecord(admin, full.id)
    const told = JSON.parse(Buffer.from(record.url, 'base64').toString())
    const copyId = '6a122f4b-d2f6-448f-aeb5-68bae5ff8358'
    const url = Buffer.from(JSON.stringify({ ...told, id: copyId })).toString('base64')
    expect(await services.backups.importRecord(admin, { ...record, url })).toMatchObject({ id: copyId })
    expect(await services.backups.exportRecord(admin, copyId)).toEqual({ ...record, url })

    await services.backups.delete(admin, full.id, { force: false })
    await services.idle()
    const { volumeId } = await services.backups.restore(admin, copyId, { volumeId: null, name: null })
    await services.idle()
    expect((await read(harness, volumeId, 0, 4096)).equals(Buffer.alloc(4096, 9))).toBe(true)

    // What is based on it by the old id is, here, by the new one.
    const other = await createHarness({ backupTarget: harness.backups })
    await other.services.backups.importRecord(admin, { ...record, url })
    expect(await outcome(other.services.backups.importRecord(admin, record))).toBe('done')
    await other.services.backups.delete(admin, copyId, { force: false })
    await other.services.backups.delete(admin, full.id, { force: false })
    await other.services.idle()
    expect(await harness.backups.list(`volumebackups/${full.id}`)).toEqual([])
  })

  it('finds what an imported one is based on under the id that it has here', async () => {
    const harness = await createHarness()
    const { services } = harness
    const id = await availableVolume(harness)
    const full = await backUp(harness, id)
    const later = await backUp(harness, id, { incremental: true })
    const [record, laterRecord] = await Promise.all(
      [full, later].map((backup) => services.backups.exportRecord(admin, backup.id)),
    )
    const told = JSON.parse(Buffer.from(record!.url, 'base64').toString())
    const copyId = '6a122f4b-d2f6-448f-aeb5-68bae5ff8358'
    const url = Buffer.from(JSON.stringify({ ...told, id: copyId })).toString('base64')
    const other = await createHarness({ backupTarget: harness.backups })
    await other.services.backups.importRecord(admin, { ...record!, url })
    await other.services.backups.importRecord(admin, laterRecord!)
    const deleted = outcome(other.services.backups.delete(admin, copyId, { force: false }))
    expect(await deleted).toBe('InvalidBackup')
  })

  it('is taken by the name that targets had before', async () => {
    const harness = await createHarness()
    const full = await backUp(harness, await availableVolume(harness))
    const { service, url } = await harness.services.backups.exportRecord(admin, full.id)
    const other = await createHarness({ backupTarget: harness.backups })
    const old = service.replace('cinder.backup.drivers.collie', 'collie.backup')
    expect(old).not.toBe(service)
    await other.services.backups.importRecord(admin, { service: old, url })
  })

  it('takes over nothing that is based on a backup which goes', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    const full = await backUp(harness, id)
    const later = await backUp(harness, id, { incremental: true })
    const { services } = harness
    const record = await services.backups.exportRecord(admin, later.id)
    await services.stop()
    const again = await harness.reopen({ start: false })
    await again.db('backups').where({ id: later.id }).delete()
    await again.services.backups.delete(member, full.id, { force: false })
    const taken = again.services.backups.importRecord(admin, record)
    await expect(taken).rejects.toThrow(`It is based on backup ${full.id}, which is deleting.`)
  })

  it('does not take one backup for another', async () => {
    const harness = await createHarness()
    const backup = await backUp(harness, await availableVolume(harness))
    const id = '6a122f4b-d2f6-448f-aeb5-68bae5ff8358'
    await harness.backups.put(
      `volumebackups/${id}/manifest`,
      (await harness.backups.get(`volumebackups/${backup.id}/manifest`))!,
    )
    const url = Buffer.from(JSON.stringify({ id, container: 'volumebackups' })).toString('base64')
    const taken = harness.services.backups.importRecord(admin, { service: harness.backups.service, url })
    await expect(taken).rejects.toThrow(`the manifest in volumebackups/${id} is that of backup ${backup.id}`)
  })

  it('is told what is wrong with a record', async () => {
    const { services } = await createHarness()
    const take = (service: string, url: string) => outcome(services.backups.importRecord(admin, { service, url }))
    expect(await take('cinder.backup.drivers.swift', 'e30=')).toBe('InvalidBackup')
    expect(await take('collie.backup.directory', 'not base64 of JSON')).toBe('InvalidInput')
    const record = { id: '6a122f4b-d2f6-448f-aeb5-68bae5ff8358', container: '../../etc', user_id: 'x' }
    const url = Buffer.from(JSON.stringify(record)).toString('base64')
    expect(await take('collie.backup.directory', url)).toBe('BackendFailure')
  })

  it('ends a backup that goes on by writing its status', async () => {
    let reached = () => {}
    const hung = new Promise<void>((resolve) => {
      reached = resolve
    })
    const harness = await createHarness({
      settings: IMPATIENT,
      filters: [hangFilter(onMethod('openSnapshot'), 'before', () => reached())],
    })
    const id = await availableVolume(harness)
    const { id: backupId } = await harness.services.backups.create(member, newBackup(id))
    await hung
    await harness.services.backups.resetStatus(admin, backupId, 'error')
    expect((await harness.services.backups.get(member, backupId)).status).toBe('error')
    expect(await statusOf(harness, id)).toBe('available')
  })
})
