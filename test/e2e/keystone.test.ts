import { afterAll, beforeAll, describe, expect, onTestFinished, vi } from 'vitest'
import { makeCertificates } from '../tools/certificates.ts'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { Keystone, withKeystone } from '../tools/keystone.ts'
import { PythonCommands } from '../tools/python-commands.ts'
import { commandExists } from '../tools/require-command.ts'
import { startTlsFront } from '../tools/tls-front.ts'

/** The program beside Debian's Keystone: whose tokens it takes, and what it does while Keystone is away. */

vi.setConfig({ testTimeout: 240_000, hookTimeout: 240_000 }) // Keystone and openstackclient are large

const CACHE_MS = 1000

const clients = new PythonCommands()
let keystone: Keystone
let collie: Collie
let endpoint: string

printLogOfFailures(() => collie)

beforeAll(async () => {
  if (!['keystone-manage', 'openstack'].every(commandExists)) return
  keystone = await Keystone.start()
  const service = await keystone.createProject('service')
  await keystone.createUser('cinder', service, ['service'])
  await keystone.createUser('nova', service, ['service', 'admin'])
  const [demo, other] = [await keystone.createProject('demo'), await keystone.createProject('other')]
  await keystone.createUser('demo', demo, ['member', 'reader'])
  await keystone.createUser('auditor', demo, ['reader'])
  await keystone.createUser('other', other, ['member', 'reader'])
  collie = await Collie.create(
    '--auth=keystone',
    `--keystone-url=${keystone.url}`,
    `--keystone-password=${keystone.password}`,
    `--keystone-cache-seconds=${CACHE_MS / 1000}`,
  )
  await collie.start()
  endpoint = collie.info.addresses.api!
  await keystone.register('block-storage', 'cinder', endpoint)
  await keystone.register('image', 'glance', 'http://127.0.0.1:9/v2') // openstackclient looks it up before it makes a volume
})
afterAll(async () => {
  await clients.close()
  await collie?.dispose()
  await keystone?.stop()
})

const openstack = (user: string, project: string, ...words: string[]): Promise<string> =>
  clients.run(['openstack', ...words], keystone.openrc(user, project))

async function ask(token: string | null, method: string, route: string, body?: unknown, headers = {}) {
  const answer = await fetch(endpoint + route, {
    method,
    headers: {
      'content-type': 'application/json',
      'openstack-api-version': 'volume 3.66',
      ...(token === null ? {} : { 'x-auth-token': token }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await answer.text()
  return { status: answer.status, headers: answer.headers, document: text === '' ? null : JSON.parse(text) }
}

async function createVolume(token: string): Promise<string> {
  const { status, document } = await ask(token, 'POST', '/volumes', { volume: { size: 1 } })
  expect(status).toBe(202)
  const { id } = document.volume
  await vi.waitFor(
    async () => {
      const shown = await ask(token, 'GET', `/volumes/${id}`)
      expect(shown.document.volume.status).toBe('available')
    },
    { timeout: 30_000, interval: 50 },
  )
  return id
}

describe('tokens of Keystone', () => {
  withKeystone('let a client in that finds the service in the catalog', async () => {
    const made = await openstack('demo', 'demo', 'volume', 'create', '--size', '1', 'v', '-f', 'value', '-c', 'id')
    expect(await openstack('demo', 'demo', 'volume', 'list', '-f', 'value', '-c', 'ID')).toContain(made)
    expect(await openstack('other', 'other', 'volume', 'list', '-f', 'value', '-c', 'ID')).toBe('')
    expect(await openstack('admin', 'admin', 'volume', 'list', '--all-projects', '-f', 'value', '-c', 'ID')).toBe(made)
  })

  withKeystone('say who it is, by project and roles', async () => {
    const [member, reader, other, admin] = await Promise.all([
      keystone.logIn('demo', 'demo'),
      keystone.logIn('auditor', 'demo'),
      keystone.logIn('other', 'other'),
      keystone.logIn('admin', 'admin'),
    ])
    const id = await createVolume(member)
    expect((await ask(reader, 'GET', `/volumes/${id}`)).status).toBe(200)
    expect((await ask(reader, 'DELETE', `/volumes/${id}`)).status).toBe(403)
    expect((await ask(other, 'GET', `/volumes/${id}`)).status).toBe(404)
    expect((await ask(other, 'DELETE', `/volumes/${id}`)).status).toBe(404)
    expect((await ask(member, 'GET', '/os-services')).status).toBe(403)
    expect((await ask(admin, 'GET', '/os-services')).status).toBe(200)
    expect((await ask(admin, 'DELETE', `/volumes/${id}`)).status).toBe(202)
  })

  withKeystone('are refused when there is none, it is forged, of no project, or revoked', async () => {
    const missing = await ask(null, 'GET', '/volumes')
    expect(missing.status).toBe(401)
    expect(missing.headers.get('www-authenticate')).toBe(`Keystone uri="${keystone.url}"`)
    const token = await keystone.logIn('demo', 'demo')
    const forged = token.slice(0, -8) + (token.endsWith('AAAAAAAA') ? 'BBBBBBBB' : 'AAAAAAAA')
    expect((await ask(forged, 'GET', '/volumes')).status).toBe(401)
    expect((await ask(await keystone.logIn('demo', null), 'GET', '/volumes')).status).toBe(403)
    expect((await ask(token, 'GET', '/volumes')).status).toBe(200)
    await keystone.revoke(token)
    await vi.waitFor(async () => expect((await ask(token, 'GET', '/volumes')).status).toBe(401), {
      timeout: 20_000,
      interval: 200,
    })
  })

  withKeystone('of a service let it do what the tenant alone may not', async () => {
    const [member, nova] = [await keystone.logIn('demo', 'demo'), await keystone.logIn('nova', 'service')]
    const id = await createVolume(member)
    const instance_uuid = '22222222-2222-4222-8222-222222222222'
    const connector = { host: 'compute-1', ip: '127.0.0.1', initiator: 'iqn.1993-08.org.debian:01:1' }
    const made = await ask(nova, 'POST', '/attachments', {
      attachment: { volume_uuid: id, instance_uuid, connector },
    })
    expect(made.status).toBe(200)
    const attachment = `/attachments/${made.document.attachment.id}`
    expect((await ask(member, 'DELETE', attachment)).status).toBe(409)
    expect((await ask(member, 'DELETE', attachment, undefined, { 'x-service-token': member })).status).toBe(409)
    expect((await ask(member, 'DELETE', attachment, undefined, { 'x-service-token': 'forged' })).status).toBe(401)
    expect((await ask(member, 'DELETE', attachment, undefined, { 'x-service-token': nova })).status).toBe(200)
  })
})

describe('a Keystone that is away', () => {
  withKeystone('lets nobody in but whom it has just vouched for, and everybody when it is back', async () => {
    const [token, unseen] = [await keystone.logIn('demo', 'demo'), await keystone.logIn('other', 'other')]
    await keystone.pause()
    const away = await ask(unseen, 'GET', '/volumes')
    expect(away.status).toBe(503)
    expect(away.document.serviceUnavailable.message).toBe('The identity service cannot validate tokens now.')
    expect((await ask(token, 'GET', '/volumes')).status).toBe(503)
    expect((await ask(null, 'GET', '/volumes')).status).toBe(401)
    await keystone.resume()
    expect((await ask(token, 'GET', '/volumes')).status).toBe(200)
    expect((await ask(unseen, 'GET', '/volumes')).status).toBe(200)
  })
})

describe('a Keystone over https', () => {
  withKeystone('is believed by the authority that the settings name', async () => {
    const [own, other] = await Promise.all([makeCertificates(), makeCertificates()])
    const front = await startTlsFront(keystone.url, own.server)
    const cafile = (file: string) => `--keystone-cafile=${file}`
    const flags = ['--auth=keystone', `--keystone-url=${front.url}`, `--keystone-password=${keystone.password}`]
    const secured = await Collie.create(...flags, cafile(own.server.authorities))
    onTestFinished(async () => {
      await secured.dispose()
      front.close()
      own.remove()
      other.remove()
    })
    const headers = { 'x-auth-token': await keystone.logIn('demo', 'demo') }
    const list = async () => {
      await secured.start()
      return (await fetch(`${secured.info.addresses.api}/volumes`, { headers })).status
    }
    expect(await list()).toBe(200)
    await secured.kill('SIGTERM')
    secured.addFlags(cafile(other.server.authorities))
    expect(await list()).toBe(503)
    // Answers and log come by different ways.
    await vi.waitFor(() =>
      expect(secured.tailOfLog()).toContain('its certificate is not signed by one of keystone.cafile: '),
    )
  })
})
