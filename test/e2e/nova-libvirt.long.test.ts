import { afterAll, afterEach, beforeAll, describe, expect, vi } from 'vitest'
import { printLogOfFailures } from '../tools/collie.ts'
import { BACKENDS, ComputeCloud, until, withMachines } from '../tools/compute-cloud.ts'
import { isRefused, open, Tenant } from './nova-tenant.ts'

/**
 * Servers that are machines of QEMU, under Debian's Nova and libvirt, with nova-compute as contrib/ has it. What they have for a guest is their
 * firmware; so bytes are read and written by the monitor, through the disk of the machine.
 */

vi.setConfig({ testTimeout: 180_000, hookTimeout: 600_000 })

let cloud: ComputeCloud | null = null
let tenant: Tenant

printLogOfFailures(() => cloud?.collie)
afterEach(({ task }) => {
  if (task.result?.state === 'fail') console.error(`Errors of Nova:\n${cloud?.nova.tailOfLogs()}`)
})

beforeAll(async () => {
  cloud = await ComputeCloud.start({ hasMachines: true })
  if (cloud !== null) tenant = await Tenant.of(cloud)
})
afterAll(() => cloud?.stop())

const GIB = 1024 ** 3
const BLOCK_BYTES = 4096
/** Of the header of LUKS 1: how it begins, and where it says at which sector the bytes begin. */
const LUKS_MAGIC = Buffer.from('LUKS\xba\xbe', 'latin1')
const LUKS_PAYLOAD_AT = 104
const SECTOR_BYTES = 512

const nameOf = async (serverId: string): Promise<string> =>
  (await tenant.showServer(serverId))['OS-EXT-SRV-ATTR:instance_name']

/** The disks of the machine that QEMU has: where it finds them, by the device. */
async function disksOf(serverId: string): Promise<string> {
  return cloud!.libvirt!.ask('domblklist', await nameOf(serverId))
}

/** Has QEMU write to a disk of the machine; what comes of it is to be looked at from outside. */
async function write(serverId: string, disk: number, fill: number): Promise<void> {
  const device = `/machine/peripheral/virtio-disk${disk}/virtio-backend`
  const words = ['--hmp', `qemu-io -d ${device} "write -P ${fill} 0 ${BLOCK_BYTES}"`]
  expect(await cloud!.libvirt!.ask('qemu-monitor-command', await nameOf(serverId), ...words)).toBe('')
}

/** A block as the volume has it. */
const blockAt = async (serverId: string, volumeId: string, offset = 0) =>
  (await open(await tenant.heldVolume(serverId, volumeId))).read(offset, BLOCK_BYTES)

async function stop(serverId: string): Promise<void> {
  await tenant.actOnServer(serverId, { 'os-stop': null })
  await tenant.serverIs(serverId, 'SHUTOFF')
}

async function start(serverId: string): Promise<void> {
  await tenant.actOnServer(serverId, { 'os-start': null })
  await tenant.serverIs(serverId, 'ACTIVE')
}

describe('a machine', () => {
  withMachines('has its disks over NBD: the one that it begins from, and one that comes while it runs', async () => {
    const [serverId, root] = await tenant.newServerOn()
    const data = await tenant.newVolume()
    const held = [await tenant.heldVolume(serverId, root), await tenant.attach(serverId, data)]
    const disks = await disksOf(serverId)
    for (const { connectionInfo } of held) expect(disks).toContain(connectionInfo.data.name)
    expect(await blockAt(serverId, root)).toEqual(cloud!.images[0]!.bytes.subarray(0, BLOCK_BYTES))
    await write(serverId, 0, 7)
    await write(serverId, 1, 8)
    expect(await blockAt(serverId, root)).toEqual(Buffer.alloc(BLOCK_BYTES, 7))
    expect(await blockAt(serverId, data)).toEqual(Buffer.alloc(BLOCK_BYTES, 8))

    await stop(serverId) // or the guest has to let go of it
    await tenant.detach(serverId, data)
    await tenant.volumeIs(data, 'available')
    expect(await isRefused(held[1]!)).toBe(true)
    await start(serverId)
    expect(await disksOf(serverId)).not.toContain(held[1]!.connectionInfo.data.name)
    await write(serverId, 0, 9)
    expect(await blockAt(serverId, root)).toEqual(Buffer.alloc(BLOCK_BYTES, 9))
    await tenant.deleteServer(serverId)
    await tenant.volumeIsGone(root)
    expect(await cloud!.libvirt!.machines()).toEqual([])
  })

  withMachines('has one that is encrypted, for which Nova asks Collie for the key', async () => {
    const [serverId] = await tenant.newServerOn()
    const volumeId = await tenant.newVolume({ volume_type: 'secret' })
    const held = await tenant.attach(serverId, volumeId)
    expect(held.connectionInfo.data).toMatchObject({ encrypted: true })
    const header = await blockAt(serverId, volumeId)
    expect(header.subarray(0, LUKS_MAGIC.length)).toEqual(LUKS_MAGIC)
    const payload = header.readUInt32BE(LUKS_PAYLOAD_AT) * SECTOR_BYTES
    const sealed = async (fill: number) => {
      await write(serverId, 1, fill)
      return blockAt(serverId, volumeId, payload)
    }
    const [sevens, eights] = [await sealed(7), await sealed(8)]
    expect(sevens).not.toEqual(Buffer.alloc(BLOCK_BYTES, 7))
    expect(eights).not.toEqual(sevens)
    await stop(serverId)
    await start(serverId)
    expect(await sealed(7)).toEqual(sevens) // by the same key
    await tenant.deleteServer(serverId)
    await tenant.volumeIs(volumeId, 'available')
  })

  withMachines('has its disk on another backend after a retype, and goes on to write to it', async () => {
    const [serverId] = await tenant.newServerOn()
    const volumeId = await tenant.newVolume()
    const before = await tenant.attach(serverId, volumeId)
    await write(serverId, 1, 7)
    const retype = { new_type: BACKENDS[1], migration_policy: 'on-demand' }
    expect((await tenant.actOnVolume(volumeId, { 'os-retype': retype }, tenant.admin)).status).toBe(202)
    const moved = await until(
      () => tenant.showVolume(volumeId),
      ({ status, migration_status: migration }) => status === 'in-use' && ['success', 'error'].includes(migration),
    )
    expect(moved).toMatchObject({ migration_status: 'success', volume_type: BACKENDS[1] })
    expect(await isRefused(before)).toBe(true)
    const { connectionInfo } = await tenant.heldVolume(serverId, volumeId)
    expect(await disksOf(serverId)).toContain(connectionInfo.data.name)
    expect(await blockAt(serverId, volumeId)).toEqual(Buffer.alloc(BLOCK_BYTES, 7))
    await write(serverId, 1, 8)
    expect(await blockAt(serverId, volumeId)).toEqual(Buffer.alloc(BLOCK_BYTES, 8))
    await tenant.deleteServer(serverId)
  })

  withMachines(
    'has the room of a volume that grew when it begins anew: QEMU takes none before, which Nova says',
    async () => {
      const [serverId] = await tenant.newServerOn()
      const volumeId = await tenant.newVolume()
      await tenant.attach(serverId, volumeId)
      expect((await tenant.actOnVolume(volumeId, { 'os-extend': { new_size: 2 } })).status).toBe(202)
      const actions = async () =>
        (await tenant.member.compute.request('GET', `/servers/${serverId}/os-instance-actions`)).instanceActions
      await until(actions, ([last]) => last.action === 'extend_volume' && last.message === 'Error')
      expect(await tenant.showVolume(volumeId)).toMatchObject({ status: 'in-use', size: 2 })
      const sizes = async () => cloud!.libvirt!.ask('domblkinfo', await nameOf(serverId), 'vdb')
      expect(await sizes()).toContain(String(GIB))
      await stop(serverId)
      await start(serverId)
      expect(await sizes()).toContain(String(2 * GIB))
      await tenant.deleteServer(serverId)
    },
  )
})
