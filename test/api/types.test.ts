import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type AskOptions, createHarness, type Harness, OTHER_PROJECT, PROJECT } from './harness.ts'

let api: Harness
beforeAll(async () => {
  api = await createHarness()
})
afterAll(() => api.close())

const ABSENT = '11111111-1111-1111-1111-111111111111'

async function createType(name: string, more: Record<string, unknown> = {}): Promise<string> {
  const { status, body, text } = await api.ask('POST', '/v3/types', { body: { volume_type: { name, ...more } } })
  expect(status, text).toBe(200)
  return body.volume_type.id
}

async function names(path: string, options?: AskOptions): Promise<string[]> {
  const { status, body, text } = await api.ask('GET', path, options)
  expect(status, text).toBe(200)
  return body.volume_types.map(({ name }: { name: string }) => name)
}

/** Status and message of a refusal. */
async function refusal(...request: Parameters<Harness['ask']>): Promise<[number, string]> {
  const { status, body } = await api.ask(...request)
  const [fault] = Object.values(body) as { code: number; message: string }[]
  expect(fault!.code).toBe(status)
  return [status, fault!.message]
}

describe('a list of types', () => {
  beforeAll(async () => {
    await createType('list-a', { description: 'one', extra_specs: { multiattach: '<is> True', secret: 's' } })
    await createType('list-b', { description: 'two', 'os-volume-type-access:is_public': false })
    await createType('list-c', { extra_specs: { 'RESKEY:availability_zones': 'nova,mars' } })
  })

  test('has public types, for administrators as is_public says', async () => {
    expect(await names('/v3/types')).toEqual(['list-c', 'list-a', '__DEFAULT__'])
    expect(await names('/v3/types?is_public=None')).toEqual(['list-c', 'list-b', 'list-a', '__DEFAULT__'])
    expect(await names('/v3/types?is_public=false')).toEqual(['list-b'])
    expect(await names('/v3/types?is_public=none', { roles: 'member' })).toEqual(['list-c', 'list-a', '__DEFAULT__'])
    expect(await names('/v3/types?is_public=false', { roles: 'reader' })).toEqual(['list-c', 'list-a', '__DEFAULT__'])
    expect((await refusal('GET', '/v3/types?is_public=perhaps'))[0]).toBe(400)
  })

  test('is filtered, sorted and paged', async () => {
    expect(await names('/v3/types?name=list-a')).toEqual(['list-a'])
    expect(await names('/v3/types?description=two&is_public=None')).toEqual(['list-b'])
    expect(await names('/v3/types?nonsense=1')).toEqual([])
    expect(await names('/v3/types?sort=name:asc&is_public=None')).toEqual(['__DEFAULT__', 'list-a', 'list-b', 'list-c'])
    expect(await names('/v3/types?sort_key=name&sort_dir=desc&limit=1&offset=1')).toEqual(['list-a'])
    const page = await api.ask('GET', '/v3/types?limit=2')
    const [{ href }] = page.body.volume_type_links
    expect(await names(href.slice('http://cinder.example:8776'.length))).toEqual(['__DEFAULT__'])
    expect((await refusal('GET', '/v3/types?sort=color'))[0]).toBe(400)
    expect((await refusal('GET', `/v3/types?marker=${ABSENT}`))[0]).toBe(404)
  })

  test('is filtered by extra specs, of which tenants know only those that they may see', async () => {
    const filter = (specs: string) => `/v3/types?extra_specs=${encodeURIComponent(specs)}`
    const tenant = { roles: 'member', version: '3.52' }
    expect(await names(filter("{'secret': 's'}"), { version: '3.52' })).toEqual(['list-a'])
    expect(await names(filter("{'secret': 's'}"))).toEqual(['list-a'])
    expect(await names(filter("{'secret': 's'}"), tenant)).toEqual([])
    expect(await names(filter("{'multiattach': '<is> True'}"), tenant)).toEqual(['list-a'])
    expect(await names(filter("{'RESKEY:availability_zones': 'mars'}"), tenant)).toEqual(['list-c'])
    const before = await names(filter("{'multiattach': '<is> True'}"), { roles: 'member', version: '3.51' })
    expect(before).toEqual(['list-c', 'list-a', '__DEFAULT__'])
  })

  test('takes other filters of a tenant for nothing before 3.52, and refuses them from then on', async () => {
    expect(await names('/v3/types?name=list-a', { roles: 'member', version: '3.51' })).toHaveLength(3)
    expect(await refusal('GET', '/v3/types?name=list-a', { roles: 'member', version: '3.52' })).toEqual([
      400,
      'Invalid filters name are found in query options.',
    ])
  })
})

test('a type shows each caller what the rules let through', async () => {
  const id = await createType('shown', { extra_specs: { multiattach: '<is> True', secret: 's' } })
  const keys = async (roles: string) => {
    const { body } = await api.ask('GET', `/v3/types/${id}`, { roles })
    return [Object.keys(body.volume_type).sort().join(' '), Object.keys(body.volume_type.extra_specs).join(' ')]
  }
  const always = 'description extra_specs id is_public name'
  expect(await keys('reader')).toEqual([always, 'multiattach'])
  expect(await keys('member')).toEqual([`${always} os-volume-type-access:is_public`, 'multiattach'])
  expect(await keys('admin')).toEqual([`${always} os-volume-type-access:is_public qos_specs_id`, 'multiattach secret'])
})

test('a type is changed by what is named', async () => {
  const id = await createType('changed', { description: 'old' })
  await createType('taken')
  const put = (volume_type: unknown) => ['PUT', `/v3/types/${id}`, { body: { volume_type } }] as const
  const { status, body } = await api.ask(...put({ name: 'renamed', description: null }))
  expect([status, body.volume_type]).toMatchObject([200, { id, name: 'renamed', description: 'old', is_public: true }])
  expect((await api.ask(...put({ is_public: 'False' }))).body.volume_type.is_public).toBe(false)
  expect(await refusal(...put({ name: 'taken' }))).toEqual([409, 'Volume Type taken already exists.'])
  for (const nothing of [{}, { name: null }, { name: null, description: null }]) {
    const [code, message] = await refusal(...put(nothing))
    expect([code, message]).toEqual([400, expect.stringContaining('Specify volume type name, description, is_public')])
  }
  const wrong = [{ name: '' }, { name: ' ' }, { name: 'x'.repeat(256) }, { is_public: null }, { is_public: 'maybe' }]
  for (const content of [...wrong, { description: 'a\u0007bell' }, { name: 'x', extra_specs: {} }, null]) {
    expect((await refusal(...put(content)))[0], JSON.stringify(content)).toBe(400)
  }
  expect(await refusal('PUT', `/v3/types/${ABSENT}`, { body: { volume_type: { name: 'x' } } })).toEqual([
    404,
    `Volume type ${ABSENT} could not be found.`,
  ])
})

test('a type that is a default or in use stays', async () => {
  const { body } = await api.ask('GET', '/v3/types/default')
  expect(await refusal('DELETE', `/v3/types/${body.volume_type.id}`)).toEqual([
    400,
    `The volume type ${body.volume_type.id} is a default volume type and cannot be deleted.`,
  ])
  const id = await createType('used')
  await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, volume_type: 'used' } } })
  expect(await refusal('DELETE', `/v3/types/${id}`)).toEqual([400, 'Target volume type is still in use.'])
  expect(await refusal('POST', `/v3/types/${id}/extra_specs`, { body: { extra_specs: { a: 'b' } } })).toEqual([
    400,
    'Volume Type is currently in use.',
  ])
  expect(await refusal('DELETE', `/v3/types/${ABSENT}`)).toEqual([404, `Volume type ${ABSENT} could not be found.`])
})

test('extra specs come and go one by one', async () => {
  const id = await createType('specs', { extra_specs: { multiattach: '<is> False', secret: 's' } })
  const url = `/v3/types/${id}/extra_specs`
  const one = await api.ask('PUT', `${url}/a`, { body: { a: '1' } })
  expect([one.status, one.body]).toEqual([200, { a: '1' }])
  expect(await refusal('PUT', `${url}/a`, { body: { b: '1' } })).toEqual([400, 'Request body and URI mismatch'])
  for (const body of [{}, { a: '1', b: '2' }, { a: 1 }, { 'a b': '1' }, { 'a/b': '1' }, []]) {
    expect((await refusal('PUT', `${url}/a`, { body }))[0], JSON.stringify(body)).toBe(400)
  }
  expect((await api.ask('GET', url)).body.extra_specs).toEqual({ multiattach: '<is> False', secret: 's', a: '1' })
  expect((await api.ask('GET', url, { roles: 'reader' })).body.extra_specs).toEqual({ multiattach: '<is> False' })
  expect((await api.ask('GET', `${url}/secret`)).body).toEqual({ secret: 's' })
  for (const [key, roles] of [
    ['secret', 'member'],
    ['absent', 'admin'],
    ['constructor', 'admin'],
  ] as const) {
    const message = `Volume Type ${id} has no extra specs with key ${key}.`
    expect(await refusal('GET', `${url}/${key}`, { roles })).toEqual([404, message])
  }
  expect((await api.ask('DELETE', `${url}/a`)).status).toBe(202)
  expect((await refusal('DELETE', `${url}/a`))[0]).toBe(404)
})

test('access to a private type', async () => {
  const id = await createType('shared', { 'os-volume-type-access:is_public': false })
  const act = (action: string, project: unknown) =>
    ['POST', `/v3/types/${id}/action`, { body: { [action]: { project } } }] as const
  const other = { roles: 'member', project: OTHER_PROJECT }
  expect((await refusal('GET', `/v3/types/${id}`, other))[0]).toBe(404)
  expect((await api.ask(...act('addProjectAccess', OTHER_PROJECT))).status).toBe(202)
  expect((await api.ask('GET', `/v3/types/${id}`, other)).body.volume_type.is_public).toBe(false)
  expect(await refusal(...act('addProjectAccess', OTHER_PROJECT))).toEqual([
    409,
    `Volume type access for ${id} / ${OTHER_PROJECT} combination already exists.`,
  ])
  const volume = { body: { volume: { size: 1, volume_type: 'shared' } } }
  expect((await api.ask('POST', '/v3/volumes', { ...other, ...volume })).status).toBe(202)
  expect((await refusal('POST', '/v3/volumes', { roles: 'member', ...volume }))[0]).toBe(404)
  expect((await api.ask(...act('removeProjectAccess', OTHER_PROJECT))).status).toBe(202)
  expect((await refusal(...act('removeProjectAccess', OTHER_PROJECT)))[0]).toBe(404)
  for (const project of ['', null, 1, 'x'.repeat(256)]) {
    expect((await refusal(...act('addProjectAccess', project)))[0]).toBe(400)
  }
  expect((await refusal(...act('giveProjectAccess', 'p')))[0]).toBe(400)
  const open = await createType('open')
  expect(await refusal('POST', `/v3/types/${open}/action`, { body: { addProjectAccess: { project: 'p' } } })).toEqual([
    400,
    'Invalid volume type: Type access modification is not applicable to public volume type.',
  ])
  expect(await refusal('GET', `/v3/types/${open}/os-volume-type-access`)).toEqual([
    404,
    'Access list not available for public volume types.',
  ])
})

test('encryption of a type', async () => {
  const id = await createType('encrypted')
  const url = `/v3/types/${id}/encryption`
  expect((await api.ask('GET', url)).body).toEqual({})
  expect((await refusal('GET', `${url}/cipher`))[0]).toBe(404)
  const right = { provider: 'luks', control_location: 'front-end' }
  for (const encryption of [
    {},
    { provider: 'luks' },
    { ...right, control_location: 'middle' },
    { ...right, provider: null },
    { ...right, key_size: 'big' },
    { ...right, key_size: -1 },
    { ...right, key_size: 2 ** 31 },
    { ...right, cipher: 'x'.repeat(256) },
  ]) {
    expect((await refusal('POST', url, { body: { encryption } }))[0], JSON.stringify(encryption)).toBe(400)
  }
  const made = await api.ask('POST', url, { body: { encryption: { ...right, key_size: '256', surplus: 1 } } })
  expect(made.body.encryption).toEqual({
    ...right,
    key_size: 256,
    volume_type_id: id,
    encryption_id: made.body.encryption.encryption_id,
  })
  expect((await api.ask('GET', `${url}/key_size`)).body).toEqual({ key_size: 256 })
  expect((await api.ask('GET', `${url}/cipher`)).body).toEqual({ cipher: null })
  expect(await refusal('GET', `${url}/constructor`)).toEqual([
    404,
    `Volume type encryption for type ${id} does not exist.`,
  ])
  const { encryption_id } = made.body.encryption
  const changed = await api.ask('PUT', `${url}/${encryption_id}`, { body: { encryption: { cipher: 'aes' } } })
  expect(changed.body).toEqual({ encryption: { cipher: 'aes' } })
  expect((await api.ask('GET', url)).body).toMatchObject({ ...right, cipher: 'aes', key_size: 256, deleted: false })
  const volume = await refusal('POST', '/v3/volumes', { body: { volume: { size: 1, volume_type: 'encrypted' } } })
  expect(volume).toEqual([400, 'Invalid volume type: there is no cipher aes with keys of 256 bits'])
  expect((await api.ask('DELETE', `${url}/${encryption_id}`)).status).toBe(202)
  expect((await refusal('DELETE', `${url}/${encryption_id}`))[0]).toBe(404)
})

test('default types are there from 3.62 on', async () => {
  const id = await createType('preset')
  const url = `/v3/default-types/${PROJECT}`
  const ask = (method: 'GET' | 'PUT' | 'DELETE', options: AskOptions = {}) =>
    api.ask(method, url, { version: '3.62', ...options })
  expect((await ask('GET', { version: '3.61' })).status).toBe(404)
  expect((await ask('GET')).body.itemNotFound.message).toBe(`Default type for project ${PROJECT} not found.`)
  const set = await ask('PUT', { body: { default_type: { volume_type: 'preset' } } })
  expect([set.status, set.body]).toEqual([200, { default_type: { project_id: PROJECT, volume_type_id: id } }])
  const volume = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } } })
  expect(volume.body.volume.volume_type).toBe('preset')
  expect((await api.ask('GET', '/v3/types/default')).body.volume_type.name).toBe('preset')
  for (const volume_type of ['absent', '', ' ', null, 3]) {
    expect((await ask('PUT', { body: { default_type: { volume_type } } })).status).toBe(400)
  }
  expect((await ask('PUT', { body: {} })).status).toBe(400)
  expect([(await ask('DELETE')).status, (await ask('DELETE')).status]).toEqual([204, 204])
  expect((await api.ask('GET', '/v3/default-types', { version: '3.62' })).body).toEqual({ default_types: [] })
})
