import { writeFileSync } from 'node:fs'
import { expect, vi } from 'vitest'
import { passphraseByCastellan } from './castellan.ts'
import { CinderApi, type Connected, readOpenrc } from './cinder-api.ts'
import type { Collie } from './collie.ts'
import { runCommand } from './run-command.ts'

/** The program with encrypted types (`LUKS`, `longer`), and beside it what opens a volume in a cloud: QEMU, and who asks for the key. */

const RETYPE_MS = 300_000

const LUKS = { provider: 'luks', cipher: 'aes-xts-plain64', key_size: 256, control_location: 'front-end' }

/** How the key of a volume is asked for: answers its passphrase. */
export type AskForKey = (keyId: string, token: string) => Promise<string>

/** What is done with the volumes of one project. */
export interface VolumeUser {
  /** Runs a command of qemu-io on the volume, once it is available. */
  run(volumeId: string, command: string, ask: AskForKey): Promise<string>
  /** Resolves when the volume has the type. */
  retype(volumeId: string, type: string): Promise<void>
}

export interface Cloud extends VolumeUser {
  cinder: CinderApi
  byCastellan: AskForKey
  /** What castellan asks in the end: it takes a second to start. */
  byHand: AskForKey
}

/** The program is started already. */
export async function encryptedCloud(collie: Collie): Promise<Cloud> {
  const openrc = `${collie.dataDir}/openrc`
  const cinder = new CinderApi(openrc)
  await createEncryptedTypes(cinder)
  const { OS_AUTH_URL: authUrl = '' } = readOpenrc(openrc)
  const projects = await fetch(`${authUrl}/auth/projects`, { headers: { 'x-auth-token': await cinder.token() } })
  const [{ id: projectId }] = ((await projects.json()) as { projects: [{ id: string }] }).projects
  const byCastellan: AskForKey = (keyId, token) => passphraseByCastellan(keyId, { authUrl, projectId, token })
  const byHand: AskForKey = async (keyId, token) => {
    const url = `${authUrl.replace('/identity/v3', '/key-manager/v1')}/secrets/${keyId}/payload`
    return Buffer.from(await (await fetch(url, { headers: { 'x-auth-token': token } })).arrayBuffer()).toString('hex')
  }
  return { cinder, byCastellan, byHand, ...volumeUser(cinder, collie) }
}

/** `LUKS` and `longer`. Takes an administrator. */
export async function createEncryptedTypes(cinder: CinderApi): Promise<void> {
  for (const [name, key_size] of [
    ['LUKS', 256],
    ['longer', 512],
  ]) {
    type Made = { volume_type: { id: string } }
    const { volume_type } = await cinder.request<Made>('POST', '/types', { volume_type: { name } })
    await cinder.request('POST', `/types/${volume_type.id}/encryption`, { encryption: { ...LUKS, key_size } })
  }
}

/** The user and project are those of `cinder`. */
export function volumeUser(cinder: CinderApi, collie: Collie): VolumeUser {
  const run: VolumeUser['run'] = async (volumeId, command, ask) => {
    await cinder.until('volume', volumeId, 'available')
    type Told = { encryption_key_id: string | null }
    const { encryption_key_id: keyId } = await cinder.request<Told>('GET', `/volumes/${volumeId}/encryption`)
    const file = collie.file(`${volumeId}.passphrase`)
    if (keyId !== null) writeFileSync(file, await ask(keyId, await cinder.token()))
    const attached = await cinder.attach(volumeId)
    try {
      expect(attached.isEncrypted).toBe(keyId !== null)
      return await qemuIo(attached, keyId === null ? null : file, command)
    } finally {
      await cinder.detach(attached.id)
    }
  }
  const retype: VolumeUser['retype'] = async (volumeId, type) => {
    const request = { new_type: type, migration_policy: 'on-demand' }
    await cinder.request('POST', `/volumes/${volumeId}/action`, { 'os-retype': request })
    type Shown = { volume: { status: string; volume_type: string } }
    const show = async () => (await cinder.request<Shown>('GET', `/volumes/${volumeId}`)).volume
    const ended = async () => expect((await show()).status).not.toBe('retyping')
    await vi.waitFor(ended, { timeout: RETYPE_MS, interval: 100 })
    expect(await show()).toMatchObject({ status: 'available', volume_type: type })
  }
  return { run, retype }
}

/** QEMU's, as libvirt opens a disk of the network, encrypted or not. */
async function qemuIo({ uri }: Connected, passphraseFile: string | null, command: string): Promise<string> {
  if (passphraseFile === null) return runCommand(['qemu-io', '-f', 'raw', uri, '-c', command])
  const { hostname, port, pathname } = new URL(uri)
  const options = Object.entries({
    driver: 'luks',
    'key-secret': 'key',
    'file.driver': 'nbd',
    'file.server.type': 'inet',
    'file.server.host': hostname,
    'file.server.port': port,
    'file.export': pathname.slice(1),
  }).map(([key, value]) => `${key}=${value}`)
  const secret = ['--object', `secret,id=key,file=${passphraseFile}`]
  return runCommand(['qemu-io', ...secret, '--image-opts', options.join(), '-c', command])
}
