import { afterAll, beforeAll, expect, vi } from 'vitest'
import { Barbican, withoutBarbican } from '../tools/barbican.ts'
import { passphraseByCastellan, withoutCastellan } from '../tools/castellan.ts'
import { type Certificates, makeCertificates } from '../tools/certificates.ts'
import { CinderApi } from '../tools/cinder-api.ts'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { createEncryptedTypes, type VolumeUser, volumeUser } from '../tools/encrypted-cloud.ts'
import { sharedGlance } from '../tools/glance.ts'
import { Keystone } from '../tools/keystone.ts'
import { commandExists, skipUnless } from '../tools/require-command.ts'
import { startTlsFront, type TlsFront } from '../tools/tls-front.ts'

/**
 * The program beside Debian's Keystone, Glance and Barbican, the last two over https: keys are the user's own there, and go with what
 * they open.
 */

vi.setConfig({ testTimeout: 600_000, hookTimeout: 240_000 })

const PROGRAMS = {
  'keystone-manage': 'keystone',
  'glance-api': 'glance-api',
  'qemu-io': 'qemu-utils',
  openssl: 'openssl',
}
const absent = Object.entries(PROGRAMS).flatMap(([program, name]) => (commandExists(program) ? [] : [name]))
const missing = withoutBarbican() || withoutCastellan() || (absent.length > 0 && `apt-get install ${absent.join(' ')}`)

let keystone: Keystone
let barbican: Barbican
let certificates: Certificates
const fronts: TlsFront[] = []
let collie: Collie
let endpoint: string
let demo: CinderApi
let use: VolumeUser
let projectId: string
let otherId: string

printLogOfFailures(() => collie)

beforeAll(async () => {
  if (missing) return
  keystone = await Keystone.start()
  const service = await keystone.createProject('service')
  await keystone.createUser('cinder', service, ['service'])
  await keystone.createUser('barbican', service, ['service', 'admin'])
  projectId = await keystone.createProject('demo')
  otherId = await keystone.createProject('other')
  await keystone.createUser('operator', projectId, ['admin', 'member', 'reader'])
  await keystone.createUser('demo', projectId, ['member', 'reader'])
  await keystone.createUser('other', otherId, ['member', 'reader'])
  barbican = await Barbican.start(keystone, 'barbican')
  await keystone.register('key-manager', 'barbican', barbican.url)
  certificates = await makeCertificates()
  const { authorities } = certificates.server
  for (const { url } of [barbican, await sharedGlance()]) fronts.push(await startTlsFront(url, certificates.server))
  const [keysFront, imagesFront] = fronts as [TlsFront, TlsFront]
  collie = await Collie.create(
    '--auth=keystone',
    `--keystone-url=${keystone.url}`,
    `--keystone-password=${keystone.password}`,
    '--keystone-timeout-seconds=60', // a busy machine
    '--barbican-timeout-seconds=45',
    '--key-manager=barbican',
    `--barbican-url=${keysFront.url}`,
    `--barbican-cafile=${authorities}`,
    `--image-service-url=${imagesFront.url}`,
    `--image-service-cafile=${authorities}`,
  )
  await collie.start()
  endpoint = collie.info.addresses.api!
  await createEncryptedTypes(new CinderApi(keystone.openrc('operator', 'demo'), endpoint))
  demo = new CinderApi(keystone.openrc('demo', 'demo'), endpoint)
  use = volumeUser(demo, collie)
})
afterAll(async () => {
  await collie?.dispose()
  for (const front of fronts) front.close()
  certificates?.remove()
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
  await vi.waitFor(async () => expect(await ended()).toBe('available'), { timeout: 120_000, interval: 50 })
  return { id, keyId }
}

/** As Nova does. */
const askForKey = (keyId: string, token: string) =>
  passphraseByCastellan(keyId, { authUrl: keystone.url, token, projectId })

const isThere = async (token: string, keyId: string): Promise<boolean> => {
  const { status } = await fetch(`${barbican.url}/v1/secrets/${keyId}`, { headers: { 'x-auth-token': token } })
  expect([200, 404]).toContain(status)
  return status === 200
}

async function countKeys(token: string): Promise<number> {
  const answer = await fetch(`${barbican.url}/v1/secrets`, { headers: { 'x-auth-token': token } })
  return ((await answer.json()) as { total: number }).total
}

skipUnless(missing)(
  'a volume has its key in Barbican, copies have copies, and each goes with what it opens',
  async () => {
    const token = await demo.token()
    const passphraseOf = (keyId: string) => askForKey(keyId, token)
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
    expect(await passphraseByCastellan(taken.encryption_key_id, asTaker)).toBe(passphrase)
    expect(await isThere(token, clone.keyId)).toBe(false)
  },
)

skipUnless(missing)(
  'a retype encrypts a volume with a key in Barbican, encrypts it in another way, and decrypts it',
  async () => {
    const token = await demo.token()
    const before = await countKeys(token)
    const { id } = await createVolume(token, {})
    const keyOf = async (): Promise<string | null> =>
      (await ask(token, 'GET', `/volumes/${id}`)).document.volume.encryption_key_id ?? null
    await use.run(id, 'write -P 0x5a 1M 64k', askForKey)
    const keys = [await keyOf()]
    for (const [type, digits] of [
      ['LUKS', 64],
      ['longer', 128],
      ['__DEFAULT__', 0],
    ] as const) {
      await use.retype(id, type)
      for (const range of ['-P 0 0 1M', '-P 0x5a 1M 64k', '-P 0 2M 1020M']) {
        expect([type, await use.run(id, `read ${range}`, askForKey)]).toEqual([type, expect.stringMatching(/^read /)])
      }
      const keyId = await keyOf()
      expect(keyId === null ? '' : await askForKey(keyId, token)).toHaveLength(digits)
      expect(keys).not.toContain(keyId ?? 'none')
      keys.push(keyId)
      const kept = digits === 0 ? before : before + 1
      await vi.waitFor(async () => expect(await countKeys(token)).toBe(kept), { timeout: 30_000, interval: 50 })
    }
    await demo.delete('volume', id)
    await demo.untilGone('volume', id)
  },
)

skipUnless(missing)('an image of an encrypted volume names a key of its own, and volumes come out of it', async () => {
  const token = await demo.token()
  const { id, keyId } = await createVolume(token, { volume_type: 'LUKS' })
  await use.run(id, 'write -P 0xa5 1M 64k', askForKey)
  const upload = { image_name: 'sealed', disk_format: 'raw', container_format: 'bare' }
  const uploaded = await ask(token, 'POST', `/volumes/${id}/action`, { 'os-volume_upload_image': upload })
  expect(uploaded.status).toBe(202)
  const imageId: string = uploaded.document['os-volume_upload_image'].image_id
  const statusOf = async () => (await ask(token, 'GET', `/volumes/${id}`)).document.volume.status
  await vi.waitFor(async () => expect(await statusOf()).toBe('available'), { timeout: 300_000, interval: 100 })
  const { url } = await sharedGlance()
  const image = (await (await fetch(`${url}/v2/images/${imageId}`)).json()) as Record<string, string>
  expect(image).toMatchObject({ status: 'active', cinder_encryption_key_deletion_policy: 'on_image_deletion' })
  const imageKeyId = image.cinder_encryption_key_id!
  expect(imageKeyId).not.toBe(keyId)
  const passphrase = await askForKey(keyId, token)
  await demo.delete('volume', id)
  await demo.untilGone('volume', id)
  expect(await askForKey(imageKeyId, token)).toBe(passphrase)

  const made = await createVolume(token, { volume_type: 'LUKS', imageRef: imageId })
  expect([keyId, imageKeyId]).not.toContain(made.keyId)
  expect(await use.run(made.id, 'read -P 0xa5 1M 64k', askForKey)).toMatch(/^read 65536\/65536/)
})

skipUnless(missing)('a request that fails leaves no key, and others do not get at it', async () => {
  const token = await keystone.logIn('demo', 'demo')
  const { id } = await createVolume(token, { volume_type: 'LUKS' })
  const before = await countKeys(token)
  const operator = await keystone.logIn('operator', 'demo')
  await ask(operator, 'PUT', `/os-quota-sets/${projectId}`, { quota_set: { volumes: 0 } })
  expect((await ask(token, 'POST', '/volumes', { volume: { size: 1, volume_type: 'LUKS' } })).status).toBe(413)
  expect(await countKeys(token)).toBe(before)
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
