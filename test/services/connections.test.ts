import { describe, expect, it } from 'vitest'
import { openMemoryExport } from '../../src/drivers/memory.ts'
import { errorFilter, onMethod } from '../../src/drivers/wrappers.ts'
import {
  admin,
  availableVolume,
  contextOf,
  createHarness,
  type Harness,
  member,
  newAttachment,
  newVolume,
  outcome,
  stranger,
} from './harness.ts'

const connector = { host: 'node-1', ip: '10.0.0.1', initiator: 'iqn.1993-08.org.debian:01:test' }
const instanceId = '11111111-1111-1111-1111-111111111111'
const onHost = { instanceId: null, hostName: 'node-1', mountpoint: '/dev/vdc', mode: 'rw' as const }
const onInstance = { ...onHost, instanceId, hostName: null }

const volumeOf = (harness: Harness, id: string) => harness.services.volumes.get(member, id)
const rightsOf = (harness: Harness, id: string) => harness.backend.volumes.get(id)?.rights.size

describe('the old way to attach', () => {
  it('claims, connects, attaches, disconnects and detaches', async () => {
    const harness = await createHarness()
    const { connections } = harness.services
    const id = await availableVolume(harness)
    await connections.reserve(member, id)
    expect(await volumeOf(harness, id)).toMatchObject({ status: 'attaching', attachments: [] })
    await expect(connections.reserve(member, id)).rejects.toThrow(
      'Volume status must be available to reserve, but the status is attaching.',
    )

    const info = await connections.initialize(member, id, connector)
    expect(info).toMatchObject({ driver_volume_type: 'memory', access_mode: 'rw', encrypted: false })
    expect(await connections.initialize(member, id, connector)).toEqual(info)
    const initiator = openMemoryExport(harness.backend, info)
    await initiator.write(0, Buffer.from('data'))

    await connections.attach(member, id, onInstance)
    const volume = await volumeOf(harness, id)
    expect(volume).toMatchObject({
      status: 'in-use',
      adminMetadata: { readonly: 'False', attached_mode: 'rw' },
      attachments: [
        { status: 'attached', instanceId, attachedHost: 'node-1', mountpoint: '/dev/vdc', attachMode: 'rw' },
      ],
    })
    await initiator.read(0, 4)

    await connections.terminate(member, id, connector)
    await expect(initiator.read(0, 4)).rejects.toThrow('refused')
    expect(await volumeOf(harness, id)).toMatchObject({ status: 'in-use', attachments: [{ connector: null }] })
    await harness.services.volumes.beginDetaching(member, id)
    await connections.detach(member, id, volume.attachments[0]!.id)
    expect(await volumeOf(harness, id)).toMatchObject({
      status: 'available',
      attachments: [],
      adminMetadata: { readonly: 'False' },
    })
    expect(rightsOf(harness, id)).toBe(0)
  })

  it('attaches a volume that nobody connects to, as upstream’s own tests do, and detaches the only attachment', async () => {
    const harness = await createHarness()
    const { connections } = harness.services
    const id = await availableVolume(harness)
    await connections.attach(member, id, onHost)
    await connections.attach(member, id, onHost) // again by the same host
    expect(await volumeOf(harness, id)).toMatchObject({
      status: 'in-use',
      attachments: [{ attachedHost: 'node-1', instanceId: null }],
    })
    await expect(connections.attach(member, id, { ...onHost, hostName: 'node-2' })).rejects.toThrow(
      'Error attaching volume - InvalidVolume: Invalid volume: volume is already attached and multiple attachments are not enabled',
    )
    await connections.detach(member, id, null)
    expect(await volumeOf(harness, id)).toMatchObject({ status: 'available', attachments: [] })
    await connections.detach(member, id, null) // nothing is attached
  })

  it('gives up: what was connected is cut off, what was claimed is free again', async () => {
    const harness = await createHarness()
    const { connections } = harness.services
    const id = await availableVolume(harness)
    await connections.reserve(member, id)
    await connections.unreserve(member, id)
    expect((await volumeOf(harness, id)).status).toBe('available')
    await connections.reserve(member, id)
    const info = await connections.initialize(member, id, connector)
    await connections.unreserve(member, id)
    expect((await volumeOf(harness, id)).status).toBe('attaching') // an export is in force
    await connections.terminate(member, id, { host: 'another' })
    expect(rightsOf(harness, id)).toBe(1)
    await connections.terminate(member, id, { host: 'node-1' })
    expect(await volumeOf(harness, id)).toMatchObject({ status: 'available', attachments: [] })
    await expect(openMemoryExport(harness.backend, info).read(0, 4)).rejects.toThrow('refused')
  })

  it('leaves nothing of a connection that the backend could not make', async () => {
    const harness = await createHarness({ filters: [errorFilter(onMethod('createExport'), 'after')] })
    const id = await availableVolume(harness)
    await harness.services.connections.reserve(member, id)
    expect(await outcome(harness.services.connections.initialize(member, id, connector))).toBe('BackendFailure')
    expect(await volumeOf(harness, id)).toMatchObject({ status: 'available', attachments: [] })
    expect(rightsOf(harness, id)).toBe(0)
  })

  it('refuses a second connection to a volume that is not shared, whichever way the first was made', async () => {
    const harness = await createHarness()
    const { attachments, connections } = harness.services
    const id = await availableVolume(harness)
    await attachments.create(member, newAttachment(id, { connector: { host: 'compute-1' } }))
    await expect(connections.initialize(member, id, connector)).rejects.toThrow('duplicate connectors detected')
  })

  it('holds to a volume that was made read-only', async () => {
    const harness = await createHarness()
    const { connections, volumes } = harness.services
    const id = await availableVolume(harness)
    await volumes.setReadonly(member, id, true)
    await expect(connections.attach(member, id, onHost)).rejects.toThrow(
      `Invalid attaching mode 'rw' for volume ${id}.`,
    )
    expect(await connections.initialize(member, id, connector)).toMatchObject({ access_mode: 'ro' })
    await connections.attach(member, id, { ...onHost, mode: 'ro' })
    expect((await volumeOf(harness, id)).adminMetadata).toEqual({ readonly: 'True', attached_mode: 'ro' })
  })

  it('tells apart several attachments', async () => {
    const harness = await createHarness()
    const { connections, types } = harness.services
    const extraSpecs = { multiattach: '<is> True' }
    await types.create(admin, { name: 'shared', description: null, isPublic: true, extraSpecs })
    const id = await availableVolume(harness, { volumeType: 'shared' })
    const other = await availableVolume(harness)
    for (const hostName of ['node-1', 'node-2']) {
      await connections.reserve(member, id)
      await connections.initialize(member, id, { host: hostName })
      await connections.attach(member, id, { ...onHost, hostName })
    }
    const [first, second] = (await volumeOf(harness, id)).attachments
    await expect(connections.detach(member, id, null)).rejects.toThrow(
      'Error detaching volume - InvalidVolume: Invalid volume: Detach volume failed: More than one attachment, but no ' +
        'attachment_id provided.',
    )
    const ofAnother = { attachmentId: null, connector: { host: 'node-3' } }
    await expect(connections.forceDetach(admin, id, ofAnother)).rejects.toThrow(
      'Error force detaching volume - InvalidVolume: Invalid volume: Detach volume failed: More than one attachment',
    )
    await expect(connections.detach(member, other, first!.id)).rejects.toThrow('Mismatched volume and attachment')
    await connections.detach(member, id, first!.id)
    expect(await volumeOf(harness, id)).toMatchObject({ status: 'in-use', attachments: [{ id: second!.id }] })
    await connections.forceDetach(admin, id, { attachmentId: null, connector: null })
    expect(await volumeOf(harness, id)).toMatchObject({ status: 'available', attachments: [] })
    expect(rightsOf(harness, id)).toBe(0)
  })

  it('does not attach beside the reservation of another instance', async () => {
    const harness = await createHarness()
    const { attachments, connections } = harness.services
    const id = await availableVolume(harness)
    const reserved = await attachments.create(member, newAttachment(id, { instanceId: '2'.repeat(36) }))
    await expect(connections.attach(member, id, onInstance)).rejects.toThrow('volume is already attached')
    await attachments.delete(member, reserved.id)
    await connections.attach(member, id, onInstance)
    expect(await volumeOf(harness, id)).toMatchObject({ status: 'in-use', attachments: [{ instanceId }] })
  })

  it('does not tell whether an attachment of another project is there', async () => {
    const harness = await createHarness()
    const { attachments, connections, volumes } = harness.services
    const foreign = await attachments.create(member, newAttachment(await availableVolume(harness)))
    const { id: own } = await volumes.create(stranger, newVolume())
    await harness.services.idle()
    expect(await outcome(connections.detach(stranger, own, foreign.id))).toBe('done')
    expect(await outcome(connections.detach(stranger, own, 'no attachment'))).toBe('done')
    expect(await outcome(connections.detach(admin, own, foreign.id))).toBe('InvalidInput')
  })

  it('hides volumes from other projects', async () => {
    const harness = await createHarness()
    const { connections } = harness.services
    const id = await availableVolume(harness)
    for (const attempt of [
      () => connections.reserve(stranger, id),
      () => connections.unreserve(stranger, id),
      () => connections.initialize(stranger, id, connector),
      () => connections.terminate(stranger, id, null),
      () => connections.attach(stranger, id, onHost),
      () => connections.detach(stranger, id, null),
      () => connections.forceDetach(stranger, id, { attachmentId: null, connector: null }),
    ]) {
      expect(await outcome(attempt())).toBe('VolumeNotFound')
    }
  })

  it('is no way around the guard of instances, where Nova is', async () => {
    const harness = await createHarness({ settings: { protectInstances: true } })
    const { attachments, connections } = harness.services
    const id = await availableVolume(harness)
    const made = await attachments.create(member, newAttachment(id, { instanceId, connector }))
    await attachments.complete(member, made.id)
    for (const caller of [member, admin]) {
      for (const attempt of [
        () => connections.detach(caller, id, made.id),
        () => connections.detach(caller, id, null),
        () => connections.terminate(caller, id, connector),
        () => connections.terminate(caller, id, {}),
        () => connections.terminate(caller, id, null),
        () => connections.forceDetach(caller, id, { attachmentId: made.id, connector: null }),
      ]) {
        await expect(attempt()).rejects.toThrow(`Detach volume from instance ${instanceId} using the Compute API`)
      }
      // Upstream looks for the attachment, finds none, and takes that for one in use.
      await expect(connections.detach(caller, id, 'no attachment')).rejects.toThrow(
        'Detach volume from instance  using',
      )
    }
    expect(rightsOf(harness, id)).toBe(1)
    await connections.detach(contextOf({ isService: true }), id, made.id)
    expect(await volumeOf(harness, id)).toMatchObject({ status: 'available', attachments: [] })
  })

  it('is undone by who went it, where Nova is', async () => {
    const harness = await createHarness({ settings: { protectInstances: true } })
    const { attachments, connections } = harness.services
    const id = await availableVolume(harness)
    await connections.reserve(member, id)
    await connections.initialize(member, id, connector)
    await connections.attach(member, id, onInstance)
    await connections.terminate(member, id, connector)
    await connections.detach(member, id, null)
    expect(await volumeOf(harness, id)).toMatchObject({ status: 'available', attachments: [] })
    // An attachment of Nova's stays one of Nova's, whoever says that it is attached.
    const reserved = await attachments.create(member, newAttachment(id, { instanceId, connector }))
    await connections.attach(member, id, onInstance)
    await expect(connections.detach(member, id, reserved.id)).rejects.toThrow('using the Compute API')
  })
})
