import { afterAll, beforeAll, expect, vi } from 'vitest'
import { Barbican, withoutBarbican } from '../tools/barbican.ts'
import { passphraseByCastellan, withoutCastellan } from '../tools/castellan.ts'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { Keystone } from '../tools/keystone.ts'
import { commandExists, skipUnless } from '../tools/require-command.ts'

/** The program beside Debian's Keystone and Barbican: keys are the user's own there, and go with what they open. */

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 })

const missing =
  withoutBarbican() ||
  withoutCastellan() ||
  (!commandExists('keystone-manage') && 'keystone is missing: apt-get install keystone')

let keystone: Keystone
let barbican: Barbican
let collie: Collie
let endpoint: string
let projectId: string
let otherId: string

printLogOfFailures(() => collie)

beforeAll(async () => {
  if (missing) return
  keystone = await Keystone.start()
  const service = await keystone.createProject('service')
  await keystone.createUser('cinder', service, ['service'])
  await keystone.createUser('barbican', service, ['service', 'admin'])
  const [demo, other] = [await keystone.createProject('demo'), await keystone.createProject('other')]
  await keystone.createUser('operator', demo, ['admin', 'member', 'reader'])
  await keystone.createUser('demo', demo, ['member', 'reader'])
  await keystone.createUser('other', other, ['member', 'reader'])
  projectId = demo
  otherId = other
  barbican = await Barbican.start(keystone, 'barbican')
  await keystone.register('key-manager', 'barbican', barbican.url)
  collie = await Collie.create(
    '--auth=keystone',
    `--keystone-url=${keystone.url}`,
    `--keystone-password=${keystone.password}`,
    '--keystone-timeout-seconds=60', // a busy machine
    '--barbican-timeout-seconds=45',
    '--key-manager=barbican',
  )
  await collie.start()
  endpoint = collie.info.addresses.api!
})
afterAll(async () => {
  await collie?.dispose()
  await barbican?.stop()
  await keystone?.stop()
})

interface Answer {
  status: number
  // biome-ignore lint/suspicious/noExplicitAny: documents of which a test knows what is in them
  document: any
}

async function ask(token: string, method: string, route: string, body?: unknown): Promise<Answer> {
  const answer = await fetch(endpoint + route, {
    method,
    headers: {
      'content-type': 'application/json',
      'openstack-api-version': 'volume 3.70',
      'x-auth-token': token,
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await answer.text()
  return { status: answer.status, document: text === '' ? null : JSON.parse(text) }
}

async function createVolume(token: string, body: object): Promise<{ id: string; keyId: string }> {
  const { status, document } = await ask(token, 'POST', '/volumes', { volume: { size: 1, ...body } })
  expect({ status, document }).toMatchObject({ status: 202 })
  const { id, encryption_key_id: keyId } = document.volume
  const ended = async () => (await ask(token, 'GET', `/volumes/${id}`)).document.volume.status
  await vi.waitFor(async () => expect(await ended()).toBe('available'), { timeout: 30_000, interval: 50 })
  return { id, keyId }
}

const isThere = async (token: string, keyId: string): Promise<boolean> => {
  const { status } = await fetch(`${barbican.url}/v1/secrets/${keyId}`, { headers: { 'x-auth-token': token } })
  expect([200, 404]).toContain(status)
  return status === 200
}

skipUnless(missing)(
  'a volume has its key in Barbican, copies have copies, and each goes with what it opens',
  async () => {
    const operator = await keystone.logIn('operator', 'demo')
    const type = await ask(operator, 'POST', '/types', { volume_type: { name: 'LUKS' } })
    const encryption = { provider: 'luks', cipher: 'aes-xts-plain64', key_size: 256, control_location: 'front-end' }
    await ask(operator, 'POST', `/types/${type.document.volume_type.id}/encryption`, { encryption })

    const token = await keystone.logIn('demo', 'demo')
    const passphraseOf = (keyId: string) =>
      passphraseByCastellan(keyId, { authUrl: keystone.url, token, projectId }, barbican.url)
    const volume = await createVolume(token, { volume_type: 'LUKS' })
    const clone = await createVolume(token, { source_volid: volume.id })
    expect(clone.keyId).not.toBe(volume.keyId)
    const passphrase = await passphraseOf(volume.keyId)
    expect(passphrase).toMatch(/^[0-9a-f]{64}$/)
    expect(await passphraseOf(clone.keyId)).toBe(passphrase)

    const backup = (await ask(token, 'POST', '/backups', { backup: { volume_id: volume.id } })).document.backup
    const backedUp = async () => (await ask(token, 'GET', `/backups/${backup.id}`)).document.backup
    await vi.waitFor(async () => expect((await backedUp()).status).toBe('available'), { timeout: 60_000, interval: 50 })
    const { encryption_key_id: backupKeyId } = await backedUp()
    expect(await passphraseOf(backupKeyId)).toBe(passphrase)

    await ask(token, 'DELETE', `/backups/${backup.id}`)
    await ask(token, 'DELETE', `/volumes/${volume.id}`)
    for (const keyId of [volume.keyId, backupKeyId]) {
      await vi.waitFor(async () => expect(await isThere(token, keyId)).toBe(false), { timeout: 30_000, interval: 50 })
    }
    expect(await passphraseOf(clone.keyId)).toBe(passphrase)

    const offered = await ask(token, 'POST', '/volume-transfers', { transfer: { volume_id: clone.id } })
    expect(offered.status).toBe(202)
    const { id, auth_key } = offered.document.transfer
    const taker = await keystone.logIn('other', 'other')
    const accepted = await ask(taker, 'POST', `/volume-transfers/${id}/accept`, { accept: { auth_key } })
    expect(accepted.status).toBe(202)
    const taken = (await ask(taker, 'GET', `/volumes/${clone.id}`)).document.volume
    expect(taken.encryption_key_id).not.toBe(clone.keyId)
    const asTaker = { authUrl: keystone.url, token: taker, projectId: otherId }
    expect(await passphraseByCastellan(taken.encryption_key_id, asTaker, barbican.url)).toBe(passphrase)
    expect(await isThere(token, clone.keyId)).toBe(false)
  },
)

skipUnless(missing)('a request that fails leaves no key, and others do not get at it', async () => {
  const token = await keystone.logIn('demo', 'demo')
  const { id } = await createVolume(token, { volume_type: 'LUKS' })
  const count = async () => {
    const answer = await fetch(`${barbican.url}/v1/secrets`, { headers: { 'x-auth-token': token } })
    return ((await answer.json()) as { total: number }).total
  }
  const before = await count()
  const operator = await keystone.logIn('operator', 'demo')
  await ask(operator, 'PUT', `/os-quota-sets/${projectId}`, { quota_set: { volumes: 0 } })
  expect((await ask(token, 'POST', '/volumes', { volume: { size: 1, volume_type: 'LUKS' } })).status).toBe(413)
  expect(await count()).toBe(before)
  await ask(operator, 'PUT', `/os-quota-sets/${projectId}`, { quota_set: { volumes: -1 } })
  const stranger = await keystone.logIn('other', 'other')
  expect((await ask(stranger, 'GET', `/volumes/${id}/encryption`)).status).toBe(404)
  // Of its own it has no door to keys then.
  const origin = new URL(endpoint).origin
  expect((await fetch(`${origin}/key-manager/v1`)).status).toBe(404)
})

skipUnless(missing)('without Barbican no volume is made, and the rest goes on', async () => {
  const token = await keystone.logIn('demo', 'demo')
  await barbican.stop()
  expect((await ask(token, 'POST', '/volumes', { volume: { size: 1, volume_type: 'LUKS' } })).status).toBe(503)
  expect((await ask(token, 'POST', '/volumes', { volume: { size: 1 } })).status).toBe(202)
})
