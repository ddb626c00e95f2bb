import path from 'node:path'
import { expect } from 'vitest'
import { CinderApi } from '../tools/cinder-api.ts'
import { Collie } from '../tools/collie.ts'
import { NOVA_ACCOUNT, startFakeNova } from '../tools/fake-nova.ts'
import { NbdClient } from '../tools/nbd-client.ts'
import type { BlockStorage } from '../tools/nova-swap.ts'

/** Two stores as processes, and a Nova that copies over NBD what its guest goes on writing to. */

const SERVER = '33333333-3333-4333-8333-333333333333'
const MIB = 1024 ** 2

const started: Collie[] = []

async function node(...flags: string[]): Promise<Collie> {
  const collie = await Collie.create(...flags)
  started.push(collie)
  await collie.start()
  return collie
}

interface Connection {
  uri: string
  name: string
  hosts: string[]
  ports: string[]
}

const open = ({ hosts, ports, name }: Connection) => NbdClient.connect(`${hosts[0]}:${ports[0]}`, name)

/** What Nova asks for, through the API. */
function storageOf(cinder: CinderApi): BlockStorage {
  const act = (volumeId: string, action: object) => cinder.request('POST', `/volumes/${volumeId}/action`, action)
  return {
    beginDetaching: async (id) => {
      await act(id, { 'os-begin_detaching': {} })
    },
    rollDetaching: async (id) => {
      await act(id, { 'os-roll_detaching': {} })
    },
    createAttachment: async (volumeId, server) => {
      const body = { attachment: { volume_uuid: volumeId, instance_uuid: server } }
      return (await cinder.request<{ attachment: { id: string } }>('POST', '/attachments', body)).attachment.id
    },
    updateAttachment: async (id) => {
      const body = { attachment: { connector: { host: 'compute-1', ip: '127.0.0.1' } } }
      type Updated = { attachment: { connection_info: Connection } }
      return (await cinder.request<Updated>('PUT', `/attachments/${id}`, body)).attachment.connection_info
    },
    completeAttachment: async (id) => {
      await cinder.request('POST', `/attachments/${id}/action`, { 'os-complete': {} })
    },
    deleteAttachment: (id) => cinder.detach(id),
    completeMigration: async (oldId, newId, failed) => {
      const action = { 'os-migrate_volume_completion': { new_volume: newId, error: failed } }
      return ((await act(oldId, action)) as { save_volume_id: string }).save_volume_id
    },
  }
}

/** A guest that writes to its disk, wherever that is. */
class Guest {
  #disk: NbdClient
  #written = new Map<number, number>()
  #turn = 0

  private constructor(disk: NbdClient) {
    this.#disk = disk
  }

  static async boot(connection: Connection): Promise<Guest> {
    return new Guest(await open(connection))
  }

  /** Writes a block that differs from all others to the disk, and to `mirror` as well. */
  async write(mirror?: NbdClient): Promise<void> {
    const turn = ++this.#turn
    const offset = (turn % 50) * 20 * MIB
    const block = Buffer.alloc(4096, turn)
    await this.#disk.write(offset, block)
    await mirror?.write(offset, block)
    this.#written.set(offset, turn)
  }

  /** What the hypervisor does: first the whole disk, while the guest goes on, then each write to both; then it goes over. */
  async goOver(after: Connection): Promise<void> {
    const copy = await open(after)
    for (const offset of [...this.#written.keys()]) {
      await copy.write(offset, await this.#disk.read(offset, 4096))
      await this.write(copy)
    }
    await copy.flush()
    await this.#disk.disconnect()
    this.#disk = copy
  }

  async expectWhole(): Promise<void> {
    for (const [offset, turn] of this.#written) {
      expect((await this.#disk.read(offset, 4096)).equals(Buffer.alloc(4096, turn)), `at ${offset}`).toBe(true)
    }
  }

  async halt(): Promise<void> {
    await this.#disk.flush()
    await this.#disk.disconnect()
  }
}

interface Shown {
  id: string
  status: string
  volume_type: string
  migration_status: string | null
  'os-vol-host-attr:host': string
  'os-vol-mig-status-attr:name_id': string | null
  attachments: { attachment_id: string; server_id: string }[]
}

/** What an administrator asks for. */
export interface Administrator {
  /** With the policy that lets the volume go to another backend. */
  retype(volumeId: string, type: string): Promise<void>
  migrate(volumeId: string, host: string): Promise<void>
}

/** There and back, under a guest that goes on writing. */
export async function moveInUse(administratorOf: (cinder: CinderApi, openrc: string) => Administrator): Promise<void> {
  try {
    await move(administratorOf)
  } catch (error) {
    for (const collie of started) console.error(`Log of collie:\n${collie.tailOfLog()}`)
    throw error
  } finally {
    for (const collie of started.splice(0).reverse()) await collie.dispose()
  }
}

async function move(administratorOf: (cinder: CinderApi, openrc: string) => Administrator): Promise<void> {
  const nova = await startFakeNova()
  const other = await node('--roles=store,gateway')
  const backends = [{ name: 'own' }, { name: 'other', data_dir: other.dataDir }]
  const main = await node(
    '--host=cloud',
    `--backends=${JSON.stringify(backends)}`,
    `--compute-service-auth-url=${nova.authUrl}`,
    `--compute-service-username=${NOVA_ACCOUNT.userName}`,
    `--compute-service-password=${NOVA_ACCOUNT.password}`,
  )
  const openrc = path.join(main.dataDir, 'openrc')
  const cinder = new CinderApi(openrc)
  const administrator = administratorOf(cinder, openrc)
  const show = async (id: string) => (await cinder.request<{ volume: Shown }>('GET', `/volumes/${id}`)).volume
  const typeOn = async (backend: string) => {
    const body = { volume_type: { name: `on-${backend}`, extra_specs: { volume_backend_name: backend } } }
    await cinder.request('POST', '/types', body)
  }
  await typeOn('own')
  await typeOn('other')
  const body = { volume: { size: 1, volume_type: 'on-own' } }
  const { id } = (await cinder.request<{ volume: { id: string } }>('POST', '/volumes', body)).volume
  await cinder.until('volume', id, 'available')
  const attachmentBody = {
    attachment: { volume_uuid: id, instance_uuid: SERVER, connector: { host: 'compute-1', ip: '127.0.0.1' } },
  }
  type Attached = { attachment: { id: string; connection_info: Connection } }
  const { attachment } = await cinder.request<Attached>('POST', '/attachments', attachmentBody)
  await cinder.request('POST', `/attachments/${attachment.id}/action`, { 'os-complete': {} })
  const guest = await Guest.boot(attachment.connection_info)
  for (let turn = 0; turn < 50; turn++) await guest.write()

  const held = new Map([[id, { attachmentId: attachment.id, connection: attachment.connection_info }]])
  nova.servers.set(SERVER, held)
  nova.world = {
    storage: storageOf(cinder),
    enter: async () => {},
    copy: async (_before, after) => guest.goOver(after as Connection),
  }
  const home = (await show(id))['os-vol-host-attr:host']
  const arrived = async (volumeType: string) => {
    const ended = async () => ['success', 'error'].includes((await show(id)).migration_status ?? '')
    await expect.poll(ended, { timeout: 60_000 }).toBe(true)
    await nova.swapped()
    expect(nova.swapErrors).toEqual([])
    const volume = await show(id)
    expect(volume).toMatchObject({
      status: 'in-use',
      migration_status: 'success',
      volume_type: volumeType,
      attachments: [{ attachment_id: held.get(id)?.attachmentId, server_id: SERVER }],
    })
    await guest.expectWhole()
    return volume
  }
  await administrator.retype(id, 'on-other')
  const moved = await arrived('on-other')
  expect(moved['os-vol-host-attr:host']).toContain('cloud@other#')
  expect(moved['os-vol-mig-status-attr:name_id']).not.toBeNull()
  await expect(open(attachment.connection_info)).rejects.toThrow()
  expect(await main.ask('db', 'check')).toMatchObject({ sound: true })

  await cinder.request('POST', '/types', { volume_type: { name: 'on-any' } })
  await administrator.retype(id, 'on-any') // which needs no move
  await expect.poll(async () => (await show(id)).status, { timeout: 60_000 }).toBe('in-use')
  await administrator.migrate(id, home)
  expect((await arrived('on-any'))['os-vol-host-attr:host']).toBe(home)
  await guest.halt()
  expect(await other.ask('cluster', 'audit')).toMatchObject({ sound: true, checked: { objects: 0 } })

  await cinder.detach(held.get(id)!.attachmentId)
  await cinder.delete('volume', id)
  await cinder.untilGone('volume', id)
  expect(await main.ask('cluster', 'audit')).toMatchObject({ sound: true, checked: { objects: 0 } })
}
