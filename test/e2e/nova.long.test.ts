import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, vi } from 'vitest'
import { printLogOfFailures } from '../tools/collie.ts'
import { BACKENDS, ComputeCloud, until, withComputeCloud } from '../tools/compute-cloud.ts'
import type { HeldVolume } from '../tools/nova.ts'
import { PythonCommands } from '../tools/python-commands.ts'
import { isRefused, open, Tenant } from './nova-tenant.ts'

/**
 * Volumes of servers: what Debian's Nova asks for, and what it makes of the answers. Its compute hosts have the fake driver, which opens no
 * connection and copies nothing; so the test takes the part of the guest, with the connection that Nova was given.
 */

vi.setConfig({ testTimeout: 180_000, hookTimeout: 600_000 })

const GIB = 1024 ** 3
const BLOCK = Buffer.alloc(4096, 7)
const NO_VOLUME = '11111111-1111-4111-8111-111111111111'

let cloud: ComputeCloud | null = null
let tenant: Tenant

printLogOfFailures(() => cloud?.collie)
afterEach(({ task }) => {
  if (task.result?.state === 'fail') console.error(`Errors of Nova:\n${cloud?.nova.tailOfLogs()}`)
})

beforeAll(async () => {
  cloud = await ComputeCloud.start()
  if (cloud !== null) tenant = await Tenant.of(cloud)
})
afterAll(() => cloud?.stop())

describe('a volume of a server', () => {
  withComputeCloud('is attached, and Nova is told how to reach it, until it is detached', async () => {
    const [serverId, volumeId] = [await tenant.newServer(), await tenant.newVolume()]
    const held = await tenant.attach(serverId, volumeId)
    expect(await tenant.volumeIs(volumeId, 'in-use')).toMatchObject({
      attachments: [{ server_id: serverId, attachment_id: held.attachmentId, device: '/dev/sdb' }],
    })
    expect(await tenant.attachmentsOf(volumeId)).toEqual([
      { id: held.attachmentId, serverId, status: 'attached', isConnected: true },
    ])
    expect(held.connectionInfo).toMatchObject({
      driver_volume_type: 'nbd',
      serial: volumeId,
      data: { access_mode: 'rw', encrypted: false, volume_id: volumeId, qos_specs: null },
    })
    const guest = await open(held)
    await guest.write(0, BLOCK)
    expect((await guest.read(0, BLOCK.length)).equals(BLOCK)).toBe(true)
    await tenant.detach(serverId, volumeId)
    expect(await tenant.volumeIs(volumeId, 'available')).toMatchObject({ attachments: [] })
    expect(await tenant.attachmentsOf(volumeId)).toEqual([])
    await expect(guest.read(0, BLOCK.length)).rejects.toThrow()
    expect(await isRefused(held)).toBe(true)
  })

  withComputeCloud('is one of several, each at a device of its own', async () => {
    const [serverId, one, other] = [await tenant.newServer(), await tenant.newVolume(), await tenant.newVolume()]
    for (const id of [one, other]) await tenant.attach(serverId, id)
    const disks = (await tenant.disksOf(serverId)).map(({ volumeId, device }: Record<string, string>) => [
      volumeId,
      device,
    ])
    expect(Object.fromEntries(disks)).toEqual({ [one]: '/dev/sdb', [other]: '/dev/sdc' })
    await tenant.detach(serverId, one)
    await tenant.volumeIs(one, 'available')
    expect((await tenant.showVolume(other)).status).toBe('in-use')
    expect(await isRefused(await tenant.heldVolume(serverId, other))).toBe(false)
  })

  withComputeCloud(
    'is attached to several servers where its type says so, and leaves one without the others',
    async () => {
      const [one, other, volumeId] = [
        await tenant.newServer(),
        await tenant.newServer(),
        await tenant.newVolume({ volume_type: 'shared' }),
      ]
      const [left, right] = [await tenant.attach(one, volumeId), await tenant.attach(other, volumeId)]
      expect((await tenant.showVolume(volumeId)).attachments).toHaveLength(2)
      expect((await tenant.askToAttach(one, volumeId)).status).toBe(400)
      await (await open(left)).write(0, BLOCK)
      expect((await (await open(right)).read(0, BLOCK.length)).equals(BLOCK)).toBe(true)
      await tenant.detach(one, volumeId)
      expect(await isRefused(left)).toBe(true)
      expect(await isRefused(right)).toBe(false)
      expect(await tenant.showVolume(volumeId)).toMatchObject({ status: 'in-use', attachments: [{ server_id: other }] })
      await tenant.detach(other, volumeId)
      await tenant.volumeIs(volumeId, 'available')
    },
  )

  withComputeCloud('is left alone by those who are not its server', async () => {
    const [serverId, otherServer, volumeId] = [
      await tenant.newServer(),
      await tenant.newServer(),
      await tenant.newVolume(),
    ]
    const { attachmentId } = await tenant.attach(serverId, volumeId)
    for (const id of [serverId, otherServer]) {
      const { status, document } = await tenant.askToAttach(id, volumeId)
      expect(status).toBe(400)
      expect(document.badRequest.message).toContain(`is already attached to instances: ${serverId}`)
    }
    expect((await tenant.askToAttach(serverId, NO_VOLUME)).status).toBe(404)
    expect((await tenant.member.volume.ask('DELETE', `/volumes/${volumeId}`)).status).toBe(400)
    const refusals = [
      await tenant.member.volume.ask('DELETE', `/attachments/${attachmentId}`),
      await tenant.actOnVolume(volumeId, { 'os-detach': { attachment_id: attachmentId } }),
      await tenant.actOnVolume(volumeId, { 'os-terminate_connection': { connector: { host: 'compute-1' } } }),
    ]
    const message = `ConflictNovaUsingAttachment: Detach volume from instance ${serverId} using the Compute API`
    for (const refusal of refusals) {
      expect(refusal).toEqual({ status: 409, document: { conflictingRequest: { code: 409, message } } })
    }
    expect(await tenant.attachmentsOf(volumeId)).toMatchObject([{ id: attachmentId, isConnected: true }])
  })

  withComputeCloud('is free when the server is deleted, or goes with it', async () => {
    const [serverId, stays, goes] = [await tenant.newServer(), await tenant.newVolume(), await tenant.newVolume()]
    const held = await tenant.attach(serverId, stays)
    await tenant.attach(serverId, goes, { delete_on_termination: true })
    await tenant.deleteServer(serverId)
    await tenant.volumeIs(stays, 'available')
    await tenant.volumeIsGone(goes)
    expect(await tenant.attachmentsOf(stays)).toEqual([])
    expect(await isRefused(held)).toBe(true)
  })

  withComputeCloud('grows in use, which Nova learns', async () => {
    const [serverId, volumeId] = [await tenant.newServer(), await tenant.newVolume()]
    const held = await tenant.attach(serverId, volumeId)
    expect((await tenant.actOnVolume(volumeId, { 'os-extend': { new_size: 2 } })).status).toBe(202)
    const actions = async () =>
      (await tenant.member.compute.request('GET', `/servers/${serverId}/os-instance-actions`)).instanceActions
    const learnt = await until(actions, ([last]) => last.action === 'extend_volume')
    expect(learnt[0]).toMatchObject({ action: 'extend_volume', message: null })
    expect(await tenant.volumeIs(volumeId, 'in-use')).toMatchObject({ size: 2 })
    expect((await open(held)).sizeBytes).toBe(2 * GIB)
  })

  withComputeCloud('goes to another backend under the server, by a retype and by a migration', async () => {
    const [serverId, volumeId] = [await tenant.newServer(), await tenant.newVolume()]
    const before = await tenant.attach(serverId, volumeId)
    const home = (await tenant.showVolume(volumeId))['os-vol-host-attr:host']
    const arrived = async () => {
      const volume = await until(
        () => tenant.showVolume(volumeId),
        ({ status, migration_status: migration }) => status === 'in-use' && ['success', 'error'].includes(migration),
      )
      const held = await tenant.heldVolume(serverId, volumeId)
      expect(volume).toMatchObject({
        migration_status: 'success',
        attachments: [{ attachment_id: held.attachmentId, server_id: serverId, device: '/dev/sdb' }],
      })
      expect(await tenant.attachmentsOf(volumeId)).toMatchObject([{ status: 'attached', isConnected: true }])
      expect(await tenant.disksOf(serverId)).toMatchObject([{ volumeId, attachment_id: held.attachmentId }])
      return { volume, held }
    }
    const retype = { new_type: BACKENDS[1], migration_policy: 'on-demand' }
    expect((await tenant.actOnVolume(volumeId, { 'os-retype': retype }, tenant.admin)).status).toBe(202)
    const moved = await arrived()
    expect(moved.volume.volume_type).toBe(BACKENDS[1])
    expect(moved.volume['os-vol-host-attr:host']).toContain(`@${BACKENDS[1]}#`)
    expect(await isRefused(before)).toBe(true)
    await (await open(moved.held)).write(0, BLOCK)

    expect((await tenant.actOnVolume(volumeId, { 'os-retype': { new_type: 'anywhere' } }, tenant.admin)).status).toBe(
      202,
    )
    await until(
      () => tenant.showVolume(volumeId),
      (volume) => volume.status === 'in-use' && volume.volume_type === 'anywhere',
    )
    expect((await tenant.actOnVolume(volumeId, { 'os-migrate_volume': { host: home } }, tenant.admin)).status).toBe(202)
    await until(
      () => tenant.showVolume(volumeId),
      (volume) => volume['os-vol-host-attr:host'] === home,
    )
    await arrived()
    expect(await isRefused(moved.held)).toBe(true)
    await tenant.detach(serverId, volumeId)
    await tenant.volumeIs(volumeId, 'available')
  })

  withComputeCloud('gives way to another when an administrator swaps them', async () => {
    const [serverId, one, other] = [await tenant.newServer(), await tenant.newVolume(), await tenant.newVolume()]
    const before = await tenant.attach(serverId, one)
    const body = { volumeAttachment: { volumeId: other } }
    expect(
      (await tenant.admin.compute.ask('PUT', `/servers/${serverId}/os-volume_attachments/${one}`, body)).status,
    ).toBe(202)
    await tenant.volumeIs(one, 'available')
    await tenant.volumeIs(other, 'in-use')
    expect(await tenant.disksOf(serverId)).toMatchObject([{ volumeId: other }])
    expect(await tenant.attachmentsOf(one)).toEqual([])
    expect(await isRefused(before)).toBe(true)
  })

  withComputeCloud('is attached and detached by openstackclient', async () => {
    const [serverId, volumeId] = [await tenant.newServer({ name: 'by-name' }), await tenant.newVolume({ name: 'data' })]
    const clients = new PythonCommands(cloud!.keystone.openrc('demo', 'demo'))
    onTestFinished(() => clients.close())
    await clients.run(['openstack', 'server', 'add', 'volume', 'by-name', 'data'])
    await tenant.volumeIs(volumeId, 'in-use')
    const listed = JSON.parse(await clients.run(['openstack', 'server', 'volume', 'list', 'by-name', '-f', 'json']))
    expect(listed).toMatchObject([{ 'Server ID': serverId, 'Volume ID': volumeId, Device: '/dev/sdb' }])
    await clients.run(['openstack', 'server', 'remove', 'volume', 'by-name', 'data'])
    await tenant.volumeIs(volumeId, 'available')
  })
})

describe('a server that begins from a volume', () => {
  withComputeCloud('has one of its own, of an image', async () => {
    const [serverId, volumeId] = await tenant.newServerOn()
    expect(await tenant.showVolume(volumeId)).toMatchObject({ status: 'in-use', bootable: 'true', size: 1 })
    const { bytes } = cloud!.images[0]!
    const guest = await open(await tenant.heldVolume(serverId, volumeId))
    expect((await guest.read(0, bytes.length)).equals(bytes)).toBe(true)
    await tenant.deleteServer(serverId)
    await tenant.volumeIsGone(volumeId)
  })

  withComputeCloud('has an empty one, or one that was there', async () => {
    const [blankServer, blank] = await tenant.newServerOn({ source_type: 'blank' })
    await tenant.deleteServer(blankServer)
    await tenant.volumeIsGone(blank)
    const mine = await tenant.newVolume({ imageRef: cloud!.images[0]!.id })
    const root = { source_type: 'volume', uuid: mine, delete_on_termination: false }
    const [serverId, volumeId] = await tenant.newServerOn(root)
    expect(volumeId).toBe(mine)
    await tenant.deleteServer(serverId)
    await tenant.volumeIs(mine, 'available')
    const unbootable = { ...root, uuid: await tenant.newVolume(), boot_index: 0, destination_type: 'volume' }
    const server = { name: 'no', flavorRef: '1', networks: 'none', block_device_mapping_v2: [unbootable] }
    const refusal = await tenant.member.compute.ask('POST', '/servers', { server })
    expect(refusal.document.badRequest.message).toContain('is not bootable')
  })

  withComputeCloud('leaves an image that is a snapshot, and others begin from it', async () => {
    const [serverId, volumeId] = await tenant.newServerOn()
    await (await open(await tenant.heldVolume(serverId, volumeId))).write(0, BLOCK)
    const { image_id: imageRef } = await tenant.actOnServer(serverId, { createImage: { name: 'kept' } })
    const { snapshots } = await tenant.member.volume.request('GET', `/snapshots/detail?volume_id=${volumeId}`)
    expect(snapshots).toMatchObject([{ name: 'snapshot for kept', status: 'available' }])
    await until(
      () => cloud!.imageService.show('', imageRef),
      ({ status }) => status === 'active',
    )
    await (await open(await tenant.heldVolume(serverId, volumeId))).write(0, Buffer.alloc(BLOCK.length, 8))
    const copy = await tenant.newServer({ imageRef })
    const [{ volumeId: copied }] = await tenant.disksOf(copy)
    expect(await tenant.showVolume(copied)).toMatchObject({ status: 'in-use', snapshot_id: snapshots[0].id })
    const found = await (await open(await tenant.heldVolume(copy, copied))).read(0, BLOCK.length)
    expect(found.equals(BLOCK)).toBe(true)
  })

  withComputeCloud('is rebuilt with another image in the same volume', async () => {
    const [serverId, volumeId] = await tenant.newServerOn()
    const { id: imageRef, bytes } = cloud!.images[1]!
    await tenant.actOnServer(serverId, { rebuild: { imageRef } })
    await tenant.serverIs(serverId, 'ACTIVE')
    expect(await tenant.disksOf(serverId)).toMatchObject([{ volumeId }])
    expect(await tenant.showVolume(volumeId)).toMatchObject({
      status: 'in-use',
      volume_image_metadata: { image_id: imageRef },
    })
    const guest = await open(await tenant.heldVolume(serverId, volumeId))
    expect((await guest.read(0, bytes.length)).equals(bytes)).toBe(true)
  })

  withComputeCloud('keeps it while it is shelved, with no way in', async () => {
    const [serverId, volumeId] = await tenant.newServerOn()
    const before = await tenant.heldVolume(serverId, volumeId)
    await tenant.actOnServer(serverId, { shelve: null })
    await tenant.serverIs(serverId, 'SHELVED_OFFLOADED')
    expect((await tenant.showVolume(volumeId)).status).toBe('reserved')
    expect(await tenant.attachmentsOf(volumeId)).toMatchObject([{ serverId, status: 'reserved', isConnected: false }])
    expect(await isRefused(before)).toBe(true)
    await tenant.actOnServer(serverId, { unshelve: null })
    await tenant.serverIs(serverId, 'ACTIVE')
    expect((await tenant.showVolume(volumeId)).status).toBe('in-use')
    expect(await isRefused(await tenant.heldVolume(serverId, volumeId))).toBe(false)
  })

  withComputeCloud('takes it along to another host, alive and stopped', async () => {
    const [serverId, volumeId] = await tenant.newServerOn()
    const hostOf = async () => (await tenant.showServer(serverId))['OS-EXT-SRV-ATTR:host']
    const moved = async (from: string, before: HeldVolume) => {
      expect(await hostOf()).not.toBe(from)
      const held = await tenant.heldVolume(serverId, volumeId)
      expect(await tenant.attachmentsOf(volumeId)).toEqual([
        { id: held.attachmentId, serverId, status: 'attached', isConnected: true },
      ])
      expect((await tenant.showVolume(volumeId)).status).toBe('in-use')
      expect(await isRefused(before)).toBe(true)
      const { bytes } = cloud!.images[0]!
      expect((await (await open(held)).read(0, bytes.length)).equals(bytes)).toBe(true)
    }
    let [from, before] = [await hostOf(), await tenant.heldVolume(serverId, volumeId)]
    await tenant.actOnServer(serverId, { 'os-migrateLive': { host: null, block_migration: 'auto' } }, tenant.admin)
    await until(hostOf, (host) => host !== from)
    await tenant.serverIs(serverId, 'ACTIVE')
    await moved(from, before)

    ;[from, before] = [await hostOf(), await tenant.heldVolume(serverId, volumeId)]
    await tenant.actOnServer(serverId, { migrate: null }, tenant.admin)
    await tenant.serverIs(serverId, 'VERIFY_RESIZE')
    await tenant.actOnServer(serverId, { confirmResize: null }, tenant.admin)
    await tenant.serverIs(serverId, 'ACTIVE')
    await moved(from, before)
  })
})

describe('when all servers are gone', () => {
  withComputeCloud('nothing is attached, and both stores are empty once the volumes are', async () => {
    for (const { id } of (await tenant.member.compute.request('GET', '/servers')).servers) await tenant.deleteServer(id)
    expect((await tenant.admin.volume.request('GET', '/attachments?all_tenants=1')).attachments).toEqual([])
    const isEmpty = (kind: string) =>
      until(
        () => tenant.member.volume.request('GET', `/${kind}`),
        (found) => found[kind].length === 0,
      )
    for (const kind of ['snapshots', 'volumes']) {
      for (const { id } of (await tenant.member.volume.request('GET', `/${kind}`))[kind]) {
        await tenant.member.volume.request('DELETE', `/${kind}/${id}`)
      }
      await isEmpty(kind)
    }
    expect(await cloud!.collie.ask('db', 'check')).toMatchObject({ sound: true })
    for (const store of cloud!.stores) {
      expect(await store.ask('cluster', 'audit')).toMatchObject({ sound: true, checked: { objects: 0 } })
    }
  })
})
