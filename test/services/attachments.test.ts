import { describe, expect, it, vi } from 'vitest'
import { openMemoryExport } from '../../src/drivers/memory.ts'
import { errorFilter, firstCalls, onMethod } from '../../src/drivers/wrappers.ts'
import type { AttachmentCreate } from '../../src/services/model.ts'
import {
  admin,
  availableVolume,
  contextOf,
  createGate,
  createHarness,
  everything,
  type Harness,
  member,
  newAttachment,
  newVolume,
  outcome,
  stranger,
} from './harness.ts'

const connector = { host: 'compute-1', ip: '10.0.0.1', mountpoint: '/dev/vdb' }
const instanceId = '11111111-1111-1111-1111-111111111111'

const statusOf = async (harness: Harness, volumeId: string) =>
  (await harness.services.volumes.get(member, volumeId)).status

const create = (harness: Harness, volumeId: string, options: Parameters<typeof newAttachment>[1] = {}) =>
  harness.services.attachments.create(member, newAttachment(volumeId, options))

async function multiattachVolume(harness: Harness): Promise<string> {
  const extraSpecs = { multiattach: '<is> True' }
  await harness.services.types.create(admin, { name: 'shared', description: null, isPublic: true, extraSpecs })
  return availableVolume(harness, { volumeType: 'shared' })
}

describe('attaching', () => {
  it('goes from reserved over attaching to attached, and back to available', async () => {
    const harness = await createHarness()
    const { attachments } = harness.services
    const volumeId = await availableVolume(harness)
    const reserved = await create(harness, volumeId, { instanceId })
    expect(reserved).toMatchObject({ status: 'reserved', instanceId, connector: null, connectionInfo: null })
    expect(await statusOf(harness, volumeId)).toBe('reserved')

    const connected = await attachments.update(member, reserved.id, connector)
    expect(connected).toMatchObject({
      status: 'attaching',
      attachedHost: 'compute-1',
      mountpoint: '/dev/vdb',
      attachMode: 'rw',
      connector,
      connectionInfo: {
        driver_volume_type: 'memory',
        attachment_id: reserved.id,
        access_mode: 'rw',
        encrypted: false,
        enforce_multipath: false,
        qos_specs: null,
      },
    })
    expect(connected.attachedAt).not.toBeNull()
    expect(await statusOf(harness, volumeId)).toBe('attaching')
    const initiator = openMemoryExport(harness.backend, connected.connectionInfo!)
    await initiator.write(0, Buffer.from('data'))

    await attachments.complete(member, reserved.id)
    await attachments.complete(member, reserved.id)
    expect(await statusOf(harness, volumeId)).toBe('in-use')
    expect((await attachments.get(member, reserved.id)).status).toBe('attached')

    expect(await attachments.delete(member, reserved.id)).toEqual([])
    expect(await statusOf(harness, volumeId)).toBe('available')
    await expect(initiator.read(0, 4)).rejects.toThrow('refused')
    expect(await outcome(attachments.get(member, reserved.id))).toBe('AttachmentNotFound')
  })

  it('connects in one step when it is created with a connector', async () => {
    const harness = await createHarness()
    const volumeId = await availableVolume(harness)
    const made = await create(harness, volumeId, { instanceId, connector: { ...connector, mode: 'ro' } })
    expect(made).toMatchObject({ status: 'attaching', attachMode: 'ro', connectionInfo: { access_mode: 'ro' } })
    const volume = await harness.services.volumes.get(member, volumeId)
    expect(volume).toMatchObject({ status: 'attaching', attachments: [{ id: made.id }] })
  })

  it('prefers the mode of the request to the one of the connector', async () => {
    const harness = await createHarness()
    const request: AttachmentCreate = {
      volumeId: await availableVolume(harness),
      instanceId: null,
      connector: { ...connector, mode: 'rw' },
      mode: 'ro',
    }
    expect((await harness.services.attachments.create(member, request)).attachMode).toBe('ro')
  })

  it('keeps the connection information over a restart, and for a repeated request', async () => {
    const harness = await createHarness()
    const made = await create(harness, await availableVolume(harness), { connector })
    const again = await harness.reopen()
    expect(await again.services.attachments.get(member, made.id)).toEqual(made)
    expect(await again.services.attachments.update(member, made.id, connector)).toEqual(made)
    const moved = await again.services.attachments.update(member, made.id, { ...connector, host: 'compute-2' })
    expect(moved.attachedHost).toBe('compute-2')
    expect(moved.connectionInfo).not.toEqual(made.connectionInfo)
    await expect(openMemoryExport(harness.backend, made.connectionInfo!).read(0, 4)).rejects.toThrow('refused')
  })

  it('lists attachments by volume and instance', async () => {
    const harness = await createHarness()
    const [one, two] = [await availableVolume(harness), await availableVolume(harness)]
    const first = await create(harness, one, { instanceId })
    await create(harness, two)
    const { attachments } = harness.services
    const list = async (filters: Record<string, string>) =>
      (await attachments.list(member, { ...everything, filters }, { count: false })).items.map(({ id }) => id)
    expect(await list({})).toHaveLength(2)
    expect(await list({ volume_id: one })).toEqual([first.id])
    expect(await list({ instance_id: instanceId })).toEqual([first.id])
    expect(await list({ attach_status: 'attached' })).toEqual([])
  })
})

describe('the rules of sharing', () => {
  it('allow one attachment, but a second of the same instance while it migrates', async () => {
    const harness = await createHarness()
    const { attachments } = harness.services
    const volumeId = await availableVolume(harness)
    const source = await create(harness, volumeId, { instanceId, connector })
    await attachments.complete(member, source.id)
    expect(await outcome(create(harness, volumeId))).toBe('InvalidVolume')
    expect(await outcome(create(harness, volumeId, { instanceId: '2'.repeat(36) }))).toBe('InvalidVolume')
    const target = await create(harness, volumeId, { instanceId, connector: { ...connector, host: 'compute-2' } })
    expect(target.connectionInfo).not.toBeNull()
    expect(await statusOf(harness, volumeId)).toBe('in-use')
    await attachments.complete(member, target.id)
    expect(await attachments.delete(member, source.id)).toMatchObject([{ id: target.id }])
    expect(await statusOf(harness, volumeId)).toBe('in-use')
    await openMemoryExport(harness.backend, target.connectionInfo!).read(0, 4)
  })

  it('refuse a second connector on a volume that is not shared', async () => {
    const harness = await createHarness()
    const volumeId = await availableVolume(harness)
    await create(harness, volumeId, { instanceId, connector })
    // Still attaching: the instance may not reserve again before it is in use.
    expect(await outcome(create(harness, volumeId, { instanceId }))).toBe('InvalidVolume')
    const other = await availableVolume(harness)
    const [one, two] = [await create(harness, other, { instanceId }), await create(harness, other, { instanceId })]
    await harness.services.attachments.update(member, one.id, connector)
    await expect(harness.services.attachments.update(member, two.id, connector)).rejects.toThrow(
      `duplicate connectors detected on volume ${other}`,
    )
  })

  it('allow many on a shared volume, one at a time', async () => {
    const harness = await createHarness()
    const { attachments } = harness.services
    const volumeId = await multiattachVolume(harness)
    const first = await create(harness, volumeId, { connector })
    await attachments.complete(member, first.id)
    const second = await create(harness, volumeId)
    expect(await statusOf(harness, volumeId)).toBe('reserved')
    expect(await outcome(create(harness, volumeId))).toBe('InvalidVolume')
    await attachments.update(member, second.id, { ...connector, host: 'compute-2' })
    await attachments.complete(member, second.id)
    await attachments.delete(member, first.id)
    expect(await statusOf(harness, volumeId)).toBe('in-use')
    await attachments.delete(member, second.id)
    expect(await statusOf(harness, volumeId)).toBe('available')
  })

  it('are complete when the caller says so, also before there is a connection', async () => {
    const harness = await createHarness()
    const volumeId = await availableVolume(harness)
    const made = await create(harness, volumeId)
    await harness.services.attachments.complete(member, made.id)
    expect(await statusOf(harness, volumeId)).toBe('in-use')
    expect(await harness.services.attachments.get(member, made.id)).toMatchObject({
      status: 'attached',
      connectionInfo: null,
    })
    await harness.services.attachments.complete(member, made.id) // again
    const connected = await harness.services.attachments.update(member, made.id, connector)
    expect(connected).toMatchObject({ status: 'attaching', attachMode: 'rw' })
    await openMemoryExport(harness.backend, connected.connectionInfo!).read(0, 4)
    await harness.services.attachments.complete(member, made.id)
    expect(await statusOf(harness, volumeId)).toBe('in-use')
    await harness.services.attachments.delete(member, made.id)
    expect(await statusOf(harness, volumeId)).toBe('available')
  })

  it('refuse volumes in error, and give an attached one no other connector', async () => {
    const harness = await createHarness()
    const { attachments, volumes } = harness.services
    const volumeId = await availableVolume(harness)
    const made = await create(harness, volumeId)
    await attachments.update(member, made.id, connector)
    await attachments.complete(member, made.id)
    expect(await outcome(attachments.update(member, made.id, { host: 'elsewhere' }))).toBe('ResourceConflict')
    await volumes.resetStatus(admin, volumeId, 'error')
    expect(await outcome(attachments.update(member, made.id, { host: 'elsewhere' }))).toBe('ResourceConflict')
    expect(await outcome(create(harness, volumeId))).toBe('InvalidVolume')
  })

  it('hide attachments from other projects', async () => {
    const harness = await createHarness()
    const { attachments } = harness.services
    const { id } = await create(harness, await availableVolume(harness))
    for (const attempt of [
      attachments.get(stranger, id),
      attachments.update(stranger, id, connector),
      attachments.complete(stranger, id),
      attachments.delete(stranger, id),
    ].map(outcome)) {
      expect(await attempt).toBe('AttachmentNotFound')
    }
  })

  it('leave the attachment of an instance to services, where Nova is', async () => {
    const harness = await createHarness({ settings: { protectInstances: true } })
    const { attachments } = harness.services
    const volumeId = await availableVolume(harness)
    const reserved = await create(harness, volumeId, { instanceId })
    expect(await outcome(attachments.delete(member, reserved.id))).toBe('done') // nothing is connected
    const connected = await create(harness, volumeId, { instanceId, connector })
    for (const caller of [member, admin]) {
      await expect(attachments.delete(caller, connected.id)).rejects.toThrow(
        `Detach volume from instance ${instanceId} using the Compute API`,
      )
    }
    expect(await outcome(attachments.delete(contextOf({ isService: true }), connected.id))).toBe('done')
  })
})

describe('a backend that fails', () => {
  it('is asked again, and the caller hears nothing of it', async () => {
    const harness = await createHarness({
      filters: [errorFilter(firstCalls(2, onMethod('createExport', 'removeExport')), 'after')],
    })
    const { id } = await create(harness, await availableVolume(harness), { connector })
    expect(await harness.services.attachments.delete(member, id)).toEqual([])
  })

  it('leaves nothing of an attachment that was created with a connector', async () => {
    const harness = await createHarness({ filters: [errorFilter(onMethod('createExport'), 'after')] })
    const volumeId = await availableVolume(harness)
    await expect(create(harness, volumeId, { connector })).rejects.toThrow('injected fault in createExport')
    expect(await harness.services.volumes.get(member, volumeId)).toMatchObject({ status: 'available', attachments: [] })
    expect(harness.backend.volumes.get(volumeId)?.rights.size).toBe(0)
  })

  it('leaves a reserved attachment reserved, to be connected again', async () => {
    const harness = await createHarness({ filters: [errorFilter(firstCalls(3, onMethod('createExport')), 'after')] })
    const volumeId = await availableVolume(harness)
    const { id } = await create(harness, volumeId)
    const { attachments } = harness.services
    expect(await outcome(attachments.update(member, id, connector))).toBe('BackendFailure')
    expect(await attachments.get(member, id)).toMatchObject({ status: 'reserved', connector: null, attachedAt: null })
    expect((await harness.services.explain(id))?.reason).toContain('injected fault in createExport')
    expect(harness.backend.volumes.get(volumeId)?.rights.size).toBe(0)
    expect((await attachments.update(member, id, connector)).connectionInfo).not.toBeNull()
  })

  it('keeps the volume in use when a right cannot be taken back, and lets the caller try again', async () => {
    const harness = await createHarness({ filters: [errorFilter(firstCalls(3, onMethod('removeExport')), 'before')] })
    const volumeId = await availableVolume(harness)
    const { attachments, volumes } = harness.services
    const { id } = await create(harness, volumeId, { connector })
    await attachments.complete(member, id)
    await volumes.beginDetaching(member, volumeId)
    expect(await outcome(attachments.delete(member, id))).toBe('BackendFailure')
    expect((await attachments.get(member, id)).status).toBe('error_detaching')
    expect(await statusOf(harness, volumeId)).toBe('in-use')
    expect(await attachments.delete(member, id)).toEqual([])
    expect(await statusOf(harness, volumeId)).toBe('available')
  })

  it('and a caller that gave up: a delete ends an attachment that is still being connected', async () => {
    const gate = createGate(onMethod('createExport'))
    const harness = await createHarness({ filters: [gate.filter] })
    const volumeId = await availableVolume(harness)
    const { attachments } = harness.services
    const { id } = await create(harness, volumeId)
    const connecting = outcome(attachments.update(member, id, connector))
    await gate.reached
    expect(await outcome(attachments.update(member, id, connector))).toBe('ResourceConflict')
    const deleting = attachments.delete(member, id)
    await vi.waitFor(async () => expect(await harness.db('work').pluck('kind')).toEqual(['attachment-disconnect']))
    gate.open()
    expect(await deleting).toEqual([])
    expect(await connecting).toBe('ResourceConflict')
    expect(await statusOf(harness, volumeId)).toBe('available')
    expect(harness.backend.volumes.get(volumeId)?.rights.size).toBe(0)
  })
})

it('makes volumes bootable like their source, and asks for the rule that shares one', async () => {
  const harness = await createHarness()
  const volumeId = await multiattachVolume(harness)
  await harness.db('volumes').where({ id: volumeId }).update({ bootable: true })
  const clone = await harness.services.volumes.create(member, newVolume({ sourceVolid: volumeId }))
  expect(clone).toMatchObject({ bootable: true, multiattach: true })
  await harness.services.idle()
  const { id } = await create(harness, volumeId, { connector })
  await harness.services.attachments.complete(member, id)
  const rules: string[] = []
  const context = contextOf({ authorize: (rule) => void rules.push(rule) })
  await harness.services.attachments.create(context, newAttachment(volumeId))
  expect(rules).toEqual(['volume:attachment_create', 'volume:multiattach_bootable_volume'])
})
