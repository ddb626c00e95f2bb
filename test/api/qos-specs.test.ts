import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createHarness, type Harness } from './harness.ts'

let api: Harness
const NOBODY = '11111111-1111-1111-1111-111111111111'

beforeAll(async () => {
  api = await createHarness()
})
afterAll(() => api.close())

let count = 0
async function create(specs: object = {}): Promise<string> {
  const { body } = await api.ask('POST', '/v3/qos-specs', {
    body: { qos_specs: { name: `specs ${count++}`, ...specs } },
  })
  return body.qos_specs.id
}

async function newType(): Promise<string> {
  const { body } = await api.ask('POST', '/v3/types', { body: { volume_type: { name: `type ${count++}` } } })
  return body.volume_type.id
}

const qosOf = async (typeId: string) => (await api.ask('GET', `/v3/types/${typeId}`)).body.volume_type.qos_specs_id
const shown = async (id: string) => (await api.ask('GET', `/v3/qos-specs/${id}`)).body.qos_specs

describe('creating', () => {
  test('takes any keys; the consumer is back-end unless it is named', async () => {
    const { status, body } = await api.ask('POST', '/v3/qos-specs', {
      body: { qos_specs: { name: ' gold ', consumer: 'both', total_iops_sec: '100', 'any key?': 'v' } },
    })
    expect(status).toBe(200)
    const specs = { total_iops_sec: '100', 'any key?': 'v' }
    expect(body.qos_specs).toEqual({ id: body.qos_specs.id, name: 'gold', consumer: 'both', specs })
    expect((await shown(await create({ a: 'b' }))).consumer).toBe('back-end')
  })

  test.each([
    ['no name', {}, "'name' is a required property"],
    ['an empty name', { name: '' }, "An invalid 'name' value was provided. The 'name' can not be empty."],
    ['a name too long', { name: 'x'.repeat(256) }, "The 'name' can not be greater than 255 characters."],
    ['a consumer that is none', { name: 'n', consumer: 'nova' }, 'Invalid qos specs: Valid consumer of QoS specs are'],
    ['a value that is no text', { name: 'n', a: 1 }, "1 is not of type 'string'"],
    ['a value too long', { name: 'n', a: 'x'.repeat(256) }, 'is too long'],
    ['an empty key', { name: 'n', '': 'v' }, 'has a key that is empty'],
    [
      'too many keys',
      {
        name: 'n',
        ...Object.fromEntries(
          Array(200)
            .fill(0)
            .map((_, at) => [at, 'v']),
        ),
      },
      'too many',
    ],
  ])('with %s is refused', async (_, qos_specs, reason) => {
    const { status, body } = await api.ask('POST', '/v3/qos-specs', { body: { qos_specs } })
    expect(status).toBe(400)
    expect(body.badRequest.message).toContain(reason)
  })

  test('a name twice is a conflict', async () => {
    await api.ask('POST', '/v3/qos-specs', { body: { qos_specs: { name: 'twice' } } })
    const again = await api.ask('POST', '/v3/qos-specs', { body: { qos_specs: { name: 'twice' } } })
    expect([again.status, again.body.conflictingRequest.message]).toEqual([409, 'QoS Specs twice already exists.'])
  })
})

test('keys are set and unset, the consumer with them', async () => {
  const id = await create({ a: '1', b: '2', c: '3' })
  const url = `/v3/qos-specs/${id}`
  const set = await api.ask('PUT', url, { body: { qos_specs: { a: '9', d: null, consumer: 'front-end' } } })
  expect(set.body).toEqual({ qos_specs: { a: '9', d: '', consumer: 'front-end' } })
  expect(await shown(id)).toMatchObject({ consumer: 'front-end', specs: { a: '9', b: '2', c: '3', d: '' } })
  const wrong = await api.ask('PUT', url, { body: { qos_specs: { consumer: 'x' } } })
  expect([wrong.status, wrong.body.badRequest.message]).toEqual([
    400,
    "Invalid qos specs: Valid consumer of QoS specs are: ['front-end', 'back-end', 'both']",
  ])
  expect((await api.ask('PUT', url, { body: { qos_specs: { 'a?': 'x' } } })).status).toBe(400)
  const unset = await api.ask('PUT', `${url}/delete_keys`, { body: { keys: ['b', 'none', 'c'] } })
  expect([unset.status, unset.body.itemNotFound.message]).toEqual([404, `QoS spec ${id} has no spec with key none.`])
  expect((await shown(id)).specs).toEqual({ a: '9', c: '3', d: '' }) // up to the one that is not there, as upstream
  expect((await api.ask('PUT', `${url}/delete_keys`, { body: { keys: ['c', 'c'] } })).status).toBe(400)
  expect((await api.ask('PUT', `${url}/delete_keys`, { body: { keys: ['c'] } })).status).toBe(202)
  for (const [method, path, body] of [
    ['GET', '', undefined],
    ['PUT', '', { qos_specs: { a: 'b' } }],
    ['PUT', '/delete_keys', { keys: ['a'] }],
    ['DELETE', '', undefined],
    ['GET', '/associations', undefined],
    ['GET', `/associate?vol_type_id=${NOBODY}`, undefined],
    ['GET', `/disassociate?vol_type_id=${NOBODY}`, undefined],
    ['GET', '/disassociate_all', undefined],
  ] as const) {
    const answer = await api.ask(method, `/v3/qos-specs/${NOBODY}${path}`, { body })
    expect([answer.status, answer.body.itemNotFound.message]).toEqual([404, `No such QoS spec ${NOBODY}.`])
  }
})

test('types have one at most, and show it to administrators', async () => {
  const [id, other] = [await create(), await create()]
  const [first, second] = [await newType(), await newType()]
  const url = `/v3/qos-specs/${id}`
  for (const type of [first, first, second]) {
    const given = await api.ask('GET', `${url}/associate?vol_type_id=${type}`)
    expect([given.status, given.text]).toEqual([202, ''])
  }
  expect(await qosOf(first)).toBe(id)
  const listed = await api.ask('GET', '/v3/types')
  const shownTypes = new Map(listed.body.volume_types.map((type: { id: string }) => [type.id, type]))
  expect(shownTypes.get(second)).toMatchObject({ qos_specs_id: id })
  expect((await api.ask('GET', `/v3/types/${first}`, { roles: 'member' })).body.volume_type).not.toHaveProperty(
    'qos_specs_id',
  )
  const associations = (await api.ask('GET', `${url}/associations`)).body.qos_associations
  expect(associations).toEqual(
    [first, second].map((type) => ({ association_type: 'volume_type', id: type, name: expect.any(String) })),
  )
  const taken = await api.ask('GET', `/v3/qos-specs/${other}/associate?vol_type_id=${first}`)
  expect([taken.status, taken.body.badRequest.message]).toEqual([
    400,
    `Invalid volume type: Type ${first} is already associated with another qos specs: ${id}`,
  ])
  const nothing = await api.ask('GET', `${url}/associate`)
  expect([nothing.status, nothing.body.badRequest.message]).toEqual([400, 'Volume Type id must not be None.'])
  expect((await api.ask('GET', `${url}/associate?vol_type_id=${NOBODY}`)).status).toBe(404)

  const inUse = await api.ask('DELETE', url)
  expect([inUse.status, inUse.body.badRequest.message]).toEqual([400, 'Qos specs still in use.'])
  expect((await api.ask('DELETE', `${url}?force=maybe`)).status).toBe(400)
  await api.ask('GET', `/v3/qos-specs/${other}/disassociate?vol_type_id=${first}`) // it has another
  expect(await qosOf(first)).toBe(id)
  await api.ask('GET', `${url}/disassociate?vol_type_id=${first}`)
  expect(await qosOf(first)).toBe(null)
  await api.ask('GET', `${url}/disassociate_all`)
  expect(await qosOf(second)).toBe(null)
  await api.ask('GET', `${url}/associate?vol_type_id=${second}`)
  expect((await api.ask('DELETE', `${url}?force=true`)).status).toBe(202)
  expect(await qosOf(second)).toBe(null)
  await api.ask('GET', `/v3/qos-specs/${other}/associate?vol_type_id=${second}`)
  expect((await api.ask('DELETE', `/v3/types/${second}`)).status).toBe(202)
  expect((await api.ask('GET', `/v3/qos-specs/${other}/associations`)).body).toEqual({ qos_associations: [] })
})

test('only administrators come near', async () => {
  const id = await create()
  const refused = await Promise.all([
    api.ask('GET', '/v3/qos-specs', { roles: 'member' }),
    api.ask('POST', '/v3/qos-specs', { roles: 'member', body: { qos_specs: { name: 'x' } } }),
    ...['', '/associations', '/associate?vol_type_id=x', '/disassociate?vol_type_id=x', '/disassociate_all'].map(
      (path) => api.ask('GET', `/v3/qos-specs/${id}${path}`, { roles: 'member' }),
    ),
    api.ask('PUT', `/v3/qos-specs/${id}`, { roles: 'member', body: { qos_specs: { a: 'b' } } }),
    api.ask('PUT', `/v3/qos-specs/${id}/delete_keys`, { roles: 'member', body: { keys: [] } }),
    api.ask('DELETE', `/v3/qos-specs/${id}`, { roles: 'member' }),
  ])
  expect(refused.map(({ status }) => status)).toEqual(Array(10).fill(403))
})

test('a list has pages, an order and filters', async () => {
  const names = async (query: string) => {
    const { body } = await api.ask('GET', `/v3/qos-specs${query}`)
    return body.qos_specs.map((spec: { name: string }) => spec.name)
  }
  for (const name of ['list-b', 'list-a']) {
    await api.ask('POST', '/v3/qos-specs', { body: { qos_specs: { name, consumer: 'both' } } })
  }
  expect((await names('')).slice(0, 2)).toEqual(['list-a', 'list-b'])
  expect(await names('?name=list-b')).toEqual(['list-b'])
  expect((await names('?consumer=both&sort=name:asc')).slice(-2)).toEqual(['list-a', 'list-b'])
  expect(await names('?what=x')).toEqual([])
  const first = await api.ask('GET', '/v3/qos-specs?limit=1')
  const next = new URL(first.body.qos_specs_links[0].href)
  expect(await names(`?${next.searchParams}`)).toEqual(['list-b'])
})
