import { expect, onTestFinished } from 'vitest'
import { BACKENDS, type Clients, type ComputeCloud, until } from '../tools/compute-cloud.ts'
import { NbdClient, NbdError } from '../tools/nbd-client.ts'
import type { HeldVolume } from '../tools/nova.ts'

export interface AttachmentSeen {
  id: string
  serverId: string
  status: string
  isConnected: boolean
}

/** What a member of a project does with servers and volumes, each to its end; what only administrators see is asked as one. */
export class Tenant {
  readonly member: Clients
  readonly admin: Clients
  readonly #cloud: ComputeCloud

  private constructor(cloud: ComputeCloud, member: Clients, admin: Clients) {
    this.#cloud = cloud
    this.member = member
    this.admin = admin
  }

  /** Nova speaks with the member's token, and with one of its own beside it. */
  static async of(cloud: ComputeCloud): Promise<Tenant> {
    return new Tenant(cloud, await cloud.clients('demo'), await cloud.clients('admin'))
  }

  async showVolume(id: string) {
    return (await this.admin.volume.request('GET', `/volumes/${id}`)).volume
  }

  volumeIs(id: string, status: string) {
    return until(
      () => this.showVolume(id),
      (volume) => volume.status === status,
    )
  }

  async volumeIsGone(id: string): Promise<void> {
    await until(
      () => this.member.volume.ask('GET', `/volumes/${id}`),
      ({ status }) => status === 404,
    )
  }

  actOnVolume(id: string, action: object, by = this.member) {
    return by.volume.ask('POST', `/volumes/${id}/action`, action)
  }

  async newVolume(body: object = {}): Promise<string> {
    const volume = { size: 1, volume_type: BACKENDS[0], ...body }
    const { id } = (await this.member.volume.request('POST', '/volumes', { volume })).volume
    await this.volumeIs(id, 'available')
    return id
  }

  /** As block storage lists them. */
  async attachmentsOf(volumeId: string): Promise<AttachmentSeen[]> {
    const route = `/attachments/detail?all_tenants=1&volume_id=${volumeId}`
    const { attachments } = await this.admin.volume.request('GET', route)
    type Listed = { id: string; instance: string; status: string; connection_info?: { uri?: string } }
    return attachments.map(({ id, instance, status, connection_info: info }: Listed) => ({
      id,
      serverId: instance,
      status,
      isConnected: info?.uri !== undefined,
    }))
  }

  async showServer(id: string) {
    return (await this.admin.compute.request('GET', `/servers/${id}`)).server
  }

  actOnServer(id: string, action: object, by = this.member) {
    return by.compute.request('POST', `/servers/${id}/action`, action)
  }

  /** Resolves when nothing is under way with the server; rejects with Nova's reason when it has failed. */
  async serverIs(id: string, status: string): Promise<void> {
    const isSettled = (server: Record<string, unknown>) =>
      server.status === 'ERROR' || (server.status === status && server['OS-EXT-STS:task_state'] === null)
    const { status: found, fault } = await until(() => this.showServer(id), isSettled)
    expect({ status: found, fault }).toEqual({ status, fault: undefined })
  }

  async newServer(body: object = {}): Promise<string> {
    const draft = { name: 'web', flavorRef: '1', networks: 'none', imageRef: this.#cloud.images[0]!.id, ...body }
    const { server } = await this.member.compute.request('POST', '/servers', { server: draft })
    await this.serverIs(server.id, 'ACTIVE')
    return server.id
  }

  /** A server that begins from a volume: from a new one of an image, if nothing else is said. */
  async newServerOn(root: object = this.imageDisk): Promise<[serverId: string, volumeId: string]> {
    const disk = { boot_index: 0, destination_type: 'volume', volume_size: 1, delete_on_termination: true, ...root }
    const serverId = await this.newServer({ imageRef: undefined, block_device_mapping_v2: [disk] })
    const [{ volumeId }, ...others] = await this.disksOf(serverId)
    expect(others).toEqual([])
    return [serverId, volumeId]
  }

  get imageDisk() {
    return { source_type: 'image', uuid: this.#cloud.images[0]!.id }
  }

  async deleteServer(id: string): Promise<void> {
    await this.member.compute.request('DELETE', `/servers/${id}`)
    await until(
      () => this.member.compute.ask('GET', `/servers/${id}`),
      ({ status }) => status === 404,
    )
  }

  /** As Nova lists them. */
  async disksOf(serverId: string) {
    return (await this.member.compute.request('GET', `/servers/${serverId}/os-volume_attachments`)).volumeAttachments
  }

  askToAttach(serverId: string, volumeId: string, options: object = {}) {
    const body = { volumeAttachment: { volumeId, ...options } }
    return this.member.compute.ask('POST', `/servers/${serverId}/os-volume_attachments`, body)
  }

  /** Answers what Nova was told of the volume. */
  async attach(serverId: string, volumeId: string, options: object = {}): Promise<HeldVolume> {
    expect((await this.askToAttach(serverId, volumeId, options)).status).toBe(200)
    const held = await until(
      () => this.#cloud.nova.heldVolume(serverId, volumeId),
      (found) => found !== null,
    )
    await until(
      () => this.attachmentsOf(volumeId),
      (all) => all.some(({ id, status }) => id === held!.attachmentId && status === 'attached'),
    )
    return held!
  }

  async detach(serverId: string, volumeId: string): Promise<void> {
    const route = `/servers/${serverId}/os-volume_attachments/${volumeId}`
    expect((await this.member.compute.ask('DELETE', route)).status).toBe(202)
    await until(
      () => this.#cloud.nova.heldVolume(serverId, volumeId),
      (held) => held === null,
    )
  }

  async heldVolume(serverId: string, volumeId: string): Promise<HeldVolume> {
    return (await this.#cloud.nova.heldVolume(serverId, volumeId))!
  }
}

function connect({ connectionInfo: { data } }: HeldVolume): Promise<NbdClient> {
  const { hosts, ports, name } = data as { hosts: string[]; ports: string[]; name: string }
  return NbdClient.connect(`${hosts[0]}:${ports[0]}`, name)
}

/** As the guest, until the test is over. */
export async function open(held: HeldVolume): Promise<NbdClient> {
  const client = await connect(held)
  onTestFinished(() => client.disconnect().catch(() => {}))
  return client
}

/** Whether the way in that Nova was told of is closed. */
export async function isRefused(held: HeldVolume): Promise<boolean> {
  try {
    await (await connect(held)).disconnect()
    return false
  } catch (error) {
    if (error instanceof NbdError) return true
    throw error
  }
}
