import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createHarness, type Harness, OTHER_PROJECT } from './harness.ts'

let api: Harness

beforeAll(async () => {
  api = await createHarness()
})
afterAll(() => api.close())

async function newVolume(): Promise<string> {
  const { body } = await api.ask('POST', '/v3/volumes', { roles: 'member', body: { volume: { size: 1 } } })
  await api.services.idle()
  return body.volume.id
}

const create = async (transfer: object, options: { version?: string; roles?: string; path?: string } = {}) =>
  api.ask('POST', options.path ?? '/v3/volume-transfers', { roles: 'member', ...options, body: { transfer } })

describe('a request', () => {
  test.each([
    ['no volume', {}, "'volume_id' is a required property"],
    ['something that is no id', { volume_id: 'x' }, "'x' is not a 'uuid'"],
    ['an empty name', { name: '  ' }, 'is not valid under any of the given schemas'],
    ['a name too long', { name: 'x'.repeat(256) }, 'is not valid under any of the given schemas'],
    ['a name that is none', { name: 1 }, 'is not valid under any of the given schemas'],
    ['an unknown key', { what: 1 }, "Additional properties are not allowed ('what' was unexpected)"],
  ])('with %s is refused', async (what, transfer, reason) => {
    const volume_id = '11111111-1111-1111-1111-111111111111'
    const { status, body } = await create(what === 'no volume' ? {} : { volume_id, ...transfer })
    expect(status).toBe(400)
    expect(body.badRequest.message).toContain(reason)
  })

  test('may name its snapshots from 3.55 on, by the newer name only', async () => {
    const transfer = { volume_id: await newVolume(), no_snapshots: 'true' }
    expect((await create(transfer, { version: '3.54' })).status).toBe(400)
    expect((await create(transfer, { version: '3.71', path: '/v3/os-volume-transfer' })).status).toBe(400)
    const { status, body } = await create(transfer, { version: '3.57' })
    expect(status).toBe(202)
    expect(body.transfer).toMatchObject({ no_snapshots: true, accepted: false, destination_project_id: null })
  })

  test('with a name has spaces around it taken off, and null is none', async () => {
    expect((await create({ volume_id: await newVolume(), name: ' n ' })).body.transfer.name).toBe('n')
    expect((await create({ volume_id: await newVolume(), name: null })).body.transfer.name).toBe(null)
  })

  test('that accepts may write the key as a number, and nothing else', async () => {
    const { body } = await create({ volume_id: await newVolume() })
    const accept = (auth_key: unknown) =>
      api.ask('POST', `/v3/volume-transfers/${body.transfer.id}/accept`, { body: { accept: { auth_key } } })
    expect((await accept(12)).body.badRequest.message).toContain('with invalid auth key')
    expect((await accept(null)).body.badRequest.message).toContain("None is not of type 'string', 'integer'")
    expect((await accept(1.5)).body.badRequest.message).toContain("1.5 is not of type 'string', 'integer'")
  })
})

test('one project gives, another takes; nobody else sees it', async () => {
  const volumeId = await newVolume()
  const { body } = await create({ volume_id: volumeId })
  const { id, auth_key } = body.transfer
  const url = `/v3/volume-transfers/${id}`
  const other = { project: OTHER_PROJECT, roles: 'member' }
  expect((await api.ask('GET', url, { roles: 'reader' })).status).toBe(200)
  expect((await api.ask('GET', url, other)).status).toBe(404)
  expect((await api.ask('DELETE', url, other)).status).toBe(404)
  expect((await api.ask('DELETE', url, { ...other, roles: 'reader' })).status).toBe(404)
  expect((await api.ask('DELETE', url, { roles: 'reader' })).status).toBe(403)
  expect(
    (await api.ask('POST', `${url}/accept`, { ...other, roles: 'reader', body: { accept: { auth_key } } })).status,
  ).toBe(403)
  expect((await create({ volume_id: volumeId }, { roles: 'reader' })).status).toBe(403)
  const foreign = await api.ask('POST', '/v3/volume-transfers', {
    ...other,
    body: { transfer: { volume_id: volumeId } },
  })
  expect(foreign.status).toBe(404)

  await api.ask('PUT', `/v3/os-quota-sets/${OTHER_PROJECT}`, { body: { quota_set: { volumes: 0 } } })
  const over = await api.ask('POST', `${url}/accept`, { ...other, body: { accept: { auth_key } } })
  expect([over.status, over.headers['retry-after']]).toEqual([413, '0'])
  expect(over.body.overLimit.message).toContain("exceeded for quota 'volumes'")
  await api.ask('PUT', `/v3/os-quota-sets/${OTHER_PROJECT}`, { body: { quota_set: { volumes: 1 } } })
  expect((await api.ask('POST', `${url}/accept`, { ...other, body: { accept: { auth_key } } })).status).toBe(202)
  expect((await api.ask('GET', `/v3/volumes/${volumeId}`, other)).body.volume).toMatchObject({
    status: 'available',
    'os-vol-tenant-attr:tenant_id': OTHER_PROJECT,
  })
})

describe('a list', () => {
  const names = (body: { transfers: { name: string }[] }) => body.transfers.map(({ name }) => name)
  const lists = (query: string, version: string, path = '/v3/volume-transfers') =>
    api.ask('GET', `${path}${query}`, { version, roles: 'member', project: LISTS })
  const LISTS = '11111111111111111111111111111111'

  beforeAll(async () => {
    for (const name of ['b', 'a', 'c']) {
      const { body } = await api.ask('POST', '/v3/volumes', { project: LISTS, body: { volume: { size: 1 } } })
      await api.services.idle()
      const transfer = { volume_id: body.volume.id, name }
      await api.ask('POST', '/v3/volume-transfers', { project: LISTS, body: { transfer } })
    }
  })

  test('begins with the oldest, and from 3.59 on with the newest', async () => {
    expect(names((await lists('', '3.58')).body)).toEqual(['b', 'a', 'c'])
    expect(names((await lists('', '3.59')).body)).toEqual(['c', 'a', 'b'])
    expect(names((await lists('', '3.71', '/v3/os-volume-transfer')).body)).toEqual(['b', 'a', 'c'])
  })

  test('has pages and an order from 3.59 on', async () => {
    const first = await lists('/detail?limit=2&sort=display_name:asc', '3.59')
    expect(names(first.body)).toEqual(['a', 'b'])
    const [next] = first.body.transfers_links
    expect(new URL(next.href).pathname).toBe('/v3/os-volume-transfer')
    const marker = first.body.transfers[1].id
    expect(names((await lists(`?limit=2&sort=display_name:asc&marker=${marker}`, '3.59')).body)).toEqual(['c'])
    expect(names((await lists('?limit=2&offset=2&sort=display_name:asc', '3.59')).body)).toEqual(['c'])
    expect((await lists('?sort=auth_key', '3.59')).status).toBe(400)
    expect((await lists('?limit=-1', '3.59')).status).toBe(400)
    expect((await lists('?marker=none', '3.59')).status).toBe(404)
  })

  test('filters by what a transfer has; anything else finds nothing', async () => {
    for (const version of ['3.0', '3.71']) {
      expect(names((await lists('?name=a', version)).body)).toEqual(['a'])
      expect(names((await lists('?name=none', version)).body)).toEqual([])
      expect(names((await lists('?what=a', version)).body)).toEqual([])
      expect(names((await lists(`?project_id=${OTHER_PROJECT}`, version)).body).sort()).toEqual(['a', 'b', 'c'])
    }
    const { body } = await api.ask('GET', `/v3/volume-transfers?all_tenants=1&project_id=${LISTS}`)
    expect(names(body)).toEqual(['b', 'a', 'c'])
  })
})
