import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { afterEach, expect, vi } from 'vitest'
import { EXIT } from '../../src/cli/command.ts'
import { createVdiData } from '../../src/drivers/sheepdog/vdi-data.ts'
import { systemNetwork } from '../../src/runtime/network.ts'
import { VdiClient } from '../../src/vdi/client.ts'
import { createSocketTransport, SHEEP_SOCKET } from '../../src/vdi/socket-transport.ts'
import { CinderApi } from '../tools/cinder-api.ts'
import { Collie } from '../tools/collie.ts'

/**
 * A cloud that is lost with all that it has but the target of its backups, and a new and empty one that brings everything back, by
 * the commands that docs/backups.md tells.
 */

const MIB = 1024 ** 2

const ended: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const end of ended.splice(0).reverse()) await end()
})

interface Listed {
  id: string
  known: boolean
  state: string
  volume_name: string
  project_id: string
  parent_id: string | null
}

export class Cloud {
  readonly collie: Collie
  readonly api: CinderApi

  private constructor(collie: Collie) {
    this.collie = collie
    this.api = new CinderApi(`${collie.dataDir}/openrc`)
  }

  static async start(flags: readonly string[], ...preloaded: URL[]): Promise<Cloud> {
    const collie = await Collie.create(...flags)
    ended.push(() => collie.dispose())
    for (const module of preloaded) collie.preload(module)
    await collie.start()
    return new Cloud(collie)
  }

  async projectId(): Promise<string> {
    const id = await this.api.createVolume()
    type Shown = { volume: { 'os-vol-tenant-attr:tenant_id': string } }
    return (await this.api.request<Shown>('GET', `/volumes/${id}`)).volume['os-vol-tenant-attr:tenant_id']
  }

  async createBackup(volumeId: string, incremental = false): Promise<string> {
    const id = await this.beginBackup(volumeId, incremental)
    await this.api.until('backup', id, 'available')
    return id
  }

  async beginBackup(volumeId: string, incremental = false): Promise<string> {
    const body = { backup: { volume_id: volumeId, incremental } }
    const { backup } = await this.api.request<{ backup: { id: string } }>('POST', '/backups', body)
    return backup.id
  }

  async restore(backupId: string): Promise<string> {
    const id = await this.beginRestore(backupId)
    await this.api.until('backup', backupId, 'available')
    await this.api.until('volume', id, 'available')
    return id
  }

  /** Answers the new volume. */
  async beginRestore(backupId: string): Promise<string> {
    type Answer = { restore: { volume_id: string } }
    return (await this.api.request<Answer>('POST', `/backups/${backupId}/restore`, { restore: {} })).restore.volume_id
  }

  async show(backupId: string): Promise<{ status: string; object_count: number; fail_reason: string | null }> {
    type Answer = { backup: { status: string; object_count: number; fail_reason: string | null } }
    return (await this.api.request<Answer>('GET', `/backups/${backupId}`)).backup
  }

  /** Resolves when so many objects, or more, are said to be on the target. */
  async untilCopied(backupId: string, objects: number): Promise<void> {
    await vi.waitFor(async () => expect((await this.show(backupId)).object_count).toBeGreaterThanOrEqual(objects), {
      timeout: 60_000,
      interval: 1,
    })
  }

  async write(volumeId: string, offset: number, bytes: Buffer): Promise<void> {
    await this.#with(volumeId, (data) => data.write(offset, bytes))
  }

  async read(volumeId: string, offset: number, lengthBytes: number): Promise<Buffer> {
    const bytes = Buffer.alloc(lengthBytes, 0xff)
    await this.#with(volumeId, (data) => data.read(offset, bytes))
    return bytes
  }

  async #with(volumeId: string, use: (data: ReturnType<typeof createVdiData>) => Promise<void>): Promise<void> {
    const address = path.join(this.collie.dataDir, SHEEP_SOCKET)
    const vdis = new VdiClient(createSocketTransport({ network: systemNetwork, address }))
    const device = await vdis.open(await vdis.lookup(`volume-${volumeId}`), { readOnly: false })
    const data = createVdiData(device, (work) => work)
    await use(data)
    await data.flush()
    await data.close()
    vdis.close()
  }
}

/** Answers the new one. */
export async function loseAndRestore(flags: readonly string[]): Promise<Cloud> {
  const lost = await Cloud.start(flags)
  const volume = await lost.api.createVolume({ name: 'precious', size: 1 })
  await lost.api.until('volume', volume, 'available')
  const [before, after] = [randomBytes(6 * MIB), randomBytes(MIB)]
  await lost.write(volume, 130 * MIB, before)
  const full = await lost.createBackup(volume)
  await lost.write(volume, 133 * MIB, after)
  const later = await lost.createBackup(volume, true)
  await lost.collie.dispose()
  ended.pop()

  const cloud = await Cloud.start(flags)
  const { backups } = await cloud.collie.ask<{ backups: Listed[] }>('backup', 'list', ...flags)
  expect(backups).toEqual([
    expect.objectContaining({ id: full, known: false, state: 'whole', volume_name: 'precious', parent_id: null }),
    expect.objectContaining({ id: later, known: false, state: 'whole', volume_name: 'precious', parent_id: full }),
  ])
  const table = await cloud.collie.command('backup', 'list', ...flags)
  expect(table.out).toMatch(new RegExp(`${later} +precious .*on ${full} +not known here`))

  // Whose they were is lost with the identity that gave the project its id.
  const project = await cloud.projectId()
  const taken = await cloud.collie.ask('backup', 'import', '--all', `--project=${project}`, ...flags)
  const outcomes = (outcome: string) => [full, later].map((id) => ({ id, outcome, reason: null }))
  expect(taken).toEqual({ backups: outcomes('imported') })
  const again = await cloud.collie.ask('backup', 'import', later, ...flags)
  expect(again).toEqual({ backups: outcomes('known') })

  const restored = await cloud.restore(later)
  expect(await cloud.api.list('volume')).toContainEqual(expect.objectContaining({ id: restored, name: 'precious' }))
  const expected = Buffer.concat([before.subarray(0, 3 * MIB), after, before.subarray(4 * MIB)])
  expect((await cloud.read(restored, 130 * MIB, 6 * MIB)).equals(expected)).toBe(true)
  expect((await cloud.read(restored, 0, MIB)).equals(Buffer.alloc(MIB))).toBe(true)
  const older = await cloud.restore(full)
  expect((await cloud.read(older, 130 * MIB, 6 * MIB)).equals(before)).toBe(true)
  expect((await cloud.collie.command('db', 'check', ...flags)).code).toBe(EXIT.OK)
  return cloud
}
