import { describe, expect, it } from 'vitest'
import { errorFilter, onMethod } from '../../src/drivers/wrappers.ts'
import { ServiceError } from '../../src/errors.ts'
import {
  admin,
  availableVolume,
  contextOf,
  createGate,
  createHarness,
  everything,
  keptUsage,
  member,
  newAttachment,
  newSnapshot,
  outcome,
  recount,
  stranger,
} from './harness.ts'

describe('a snapshot', () => {
  it('is made, listed, changed and deleted', async () => {
    const harness = await createHarness()
    const { snapshots, idle } = harness.services
    const volumeId = await availableVolume(harness, { sizeGib: 2 })
    const created = await snapshots.create(member, { ...newSnapshot(volumeId), name: 'n', metadata: { a: '1' } })
    expect(created).toMatchObject({ status: 'creating', progress: '0%', sizeGib: 2, volumeId, name: 'n' })
    await idle()
    expect(await snapshots.get(member, created.id)).toMatchObject({ status: 'available', progress: '100%' })
    const page = await snapshots.list(member, { ...everything, filters: { volume_id: volumeId } }, { count: true })
    expect([page.total, page.more, page.items[0]?.id]).toEqual([1, false, created.id])
    expect(await snapshots.update(member, created.id, { description: 'd' })).toMatchObject({
      description: 'd',
      name: 'n',
    })
    expect(await snapshots.setMetadata(member, created.id, { b: '2' }, { replace: false })).toEqual({ a: '1', b: '2' })
    await snapshots.deleteMetadataKey(member, created.id, 'a')
    expect((await snapshots.get(member, created.id)).metadata).toEqual({ b: '2' })
    await snapshots.delete(member, created.id)
    await idle()
    expect(await outcome(snapshots.get(member, created.id))).toBe('SnapshotNotFound')
    expect(harness.backend.snapshots.size).toBe(0)
    expect(await keptUsage(harness.db)).toEqual({ project: { volumes: 1, snapshots: 0, gigabytes: 2 } })
  })

  it('of a volume in use is made only by force', async () => {
    const harness = await createHarness()
    const { attachments, snapshots, idle } = harness.services
    const id = await availableVolume(harness)
    const attachment = await attachments.create(member, newAttachment(id, { connector: { host: 'h' } }))
    await attachments.complete(member, attachment.id)
    await expect(snapshots.create(member, newSnapshot(id))).rejects.toThrow(
      `Invalid volume: Volume ${id} status must be available, but current status is: in-use.`,
    )
    const snapshot = await snapshots.create(member, newSnapshot(id, true))
    await idle()
    expect((await snapshots.get(member, snapshot.id)).status).toBe('available')
    expect((await harness.services.volumes.get(member, id)).status).toBe('in-use')
  })

  it.each(['error', 'maintenance', 'creating', 'extending'])('is not made of a volume that is %s', async (status) => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    await harness.services.volumes.resetStatus(admin, id, status)
    expect(await outcome(harness.services.snapshots.create(member, newSnapshot(id, true)))).toBe('InvalidVolume')
    expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
  })

  it('does not exist for other projects, and asks the policy', async () => {
    const harness = await createHarness()
    const { snapshots } = harness.services
    const volumeId = await availableVolume(harness)
    const { id } = await snapshots.create(member, newSnapshot(volumeId))
    await harness.services.idle()
    for (const attempt of [
      snapshots.get(stranger, id),
      snapshots.update(stranger, id, {}),
      snapshots.delete(stranger, id),
      snapshots.setMetadata(stranger, id, {}, { replace: true }),
      snapshots.deleteMetadataKey(stranger, id, 'k'),
    ].map(outcome)) {
      expect(await attempt).toBe('SnapshotNotFound')
    }
    const asked: string[] = []
    const context = contextOf({ authorize: (rule) => void asked.push(rule) })
    await snapshots.get(context, id)
    await snapshots.list(context, everything, { count: false })
    await snapshots.update(context, id, {})
    await snapshots.setMetadata(context, id, { k: 'v' }, { replace: true })
    await snapshots.deleteMetadataKey(context, id, 'k')
    await snapshots.delete(context, id)
    expect(asked).toEqual([
      'volume:get_snapshot',
      'volume:get_all_snapshots',
      'volume:update_snapshot',
      'volume:update_snapshot_metadata',
      'volume:delete_snapshot_metadata',
      'volume:delete_snapshot',
    ])
    await harness.services.idle()
  })

  it('that is being made or deleted is not deleted', async () => {
    const gate = createGate(onMethod('createSnapshot', 'deleteSnapshot'))
    const harness = await createHarness({ filters: [gate.filter] })
    const { snapshots } = harness.services
    const { id } = await snapshots.create(member, newSnapshot(await availableVolume(harness)))
    expect(await outcome(snapshots.delete(member, id))).toBe('InvalidSnapshot')
    gate.open()
    await harness.services.idle()
    expect(await outcome(snapshots.delete(member, id))).toBe('done')
    expect(await outcome(snapshots.delete(member, id))).not.toBe('done')
  })

  it('is available again when the backend refuses to delete it', async () => {
    const busy = () => new ServiceError('InvalidSnapshot', { reason: 'it is busy' })
    const harness = await createHarness({ filters: [errorFilter(onMethod('deleteSnapshot'), 'before', busy)] })
    const { snapshots } = harness.services
    const { id } = await snapshots.create(member, newSnapshot(await availableVolume(harness)))
    await harness.services.idle()
    await snapshots.delete(member, id)
    await harness.services.idle()
    expect((await snapshots.get(member, id)).status).toBe('available')
    expect((await harness.services.explain(id))?.reason).toBe('Invalid snapshot: it is busy')
  })
})
