import { writeFileSync } from 'node:fs'
import { afterAll, expect } from 'vitest'
import { passphraseByCastellan, withoutCastellan } from '../tools/castellan.ts'
import { CinderApi, type Connected, readOpenrc } from '../tools/cinder-api.ts'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { commandExists, testUnless } from '../tools/require-command.ts'
import { runCommand } from '../tools/run-command.ts'

/** The program, and beside it what opens a volume in a cloud: the castellan that Nova asks for the key, and QEMU. */

let collie: Collie | null = null

printLogOfFailures(() => collie!)
afterAll(() => collie?.dispose())

const withNova = testUnless(
  withoutCastellan() || (!commandExists('qemu-io') && 'qemu-io is missing: apt-get install qemu-utils'),
)

/** QEMU's, as libvirt opens an encrypted disk of the network. */
async function qemuIo({ uri }: Connected, passphraseFile: string, command: string): Promise<string> {
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

withNova('an encrypted volume and its clone are opened with the keys that Nova’s castellan is given', async () => {
  collie = await Collie.create()
  await collie.start()
  const openrc = `${collie.dataDir}/openrc`
  const cinder = new CinderApi(openrc)
  type Made = { volume_type: { id: string } }
  const { volume_type } = await cinder.request<Made>('POST', '/types', { volume_type: { name: 'LUKS' } })
  const encryption = { provider: 'luks', cipher: 'aes-xts-plain64', key_size: 256, control_location: 'front-end' }
  await cinder.request('POST', `/types/${volume_type.id}/encryption`, { encryption })

  const { OS_AUTH_URL: authUrl = '' } = readOpenrc(openrc)
  const projects = await fetch(`${authUrl}/auth/projects`, { headers: { 'x-auth-token': await cinder.token() } })
  const [{ id: projectId }] = ((await projects.json()) as { projects: [{ id: string }] }).projects
  const byCastellan = (keyId: string, token: string) => passphraseByCastellan(keyId, { authUrl, projectId, token })
  // What castellan asks in the end: it takes a second to start.
  const byHand = async (keyId: string, token: string) => {
    const url = `${authUrl.replace('/identity/v3', '/key-manager/v1')}/secrets/${keyId}/payload`
    return Buffer.from(await (await fetch(url, { headers: { 'x-auth-token': token } })).arrayBuffer()).toString('hex')
  }
  const open = async (volumeId: string, command: string, ask: typeof byHand): Promise<string> => {
    await cinder.until('volume', volumeId, 'available')
    const { encryption_key_id: keyId } = await cinder.request<{ encryption_key_id: string }>(
      'GET',
      `/volumes/${volumeId}/encryption`,
    )
    const passphrase = await ask(keyId, await cinder.token())
    const file = collie!.file(`${volumeId}.passphrase`)
    writeFileSync(file, passphrase)
    const attached = await cinder.attach(volumeId)
    try {
      return await qemuIo(attached, file, command)
    } finally {
      await cinder.detach(attached.id)
    }
  }

  const volumeId = await cinder.createVolume({ volume_type: 'LUKS' })
  await open(volumeId, 'write -P 0x5a 1M 64k', byHand)
  const cloneId = await cinder.createVolume({ source_volid: volumeId })
  await cinder.until('volume', cloneId, 'available')
  await cinder.delete('volume', volumeId)
  await cinder.untilGone('volume', volumeId)
  expect(await open(cloneId, 'read -P 0x5a 1M 64k', byCastellan)).toContain('read 65536/65536')
})
