import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createHarness, type Harness, OTHER_PROJECT, PROJECT } from './harness.ts'
import { keys, sample } from './sample-files.ts'

/** Messages and what lists can be asked for, through the door. */

let api: Harness
const volumes: string[] = []

beforeAll(async () => {
  api = await createHarness()
  const extra_specs = { volume_backend_name: 'nobody' }
  await api.ask('POST', '/v3/types', { body: { volume_type: { name: 'nowhere', extra_specs } } })
  for (const project of [PROJECT, PROJECT, PROJECT, OTHER_PROJECT]) {
    const body = { volume: { size: 1, volume_type: 'nowhere' } }
    const { body: made, headers } = await api.ask('POST', '/v3/volumes', { project, body })
    await api.services.idle()
    volumes.push(made.volume.id)
    requests.push(String(headers['x-openstack-request-id']))
  }
})
afterAll(() => api.close())
const requests: string[] = []

const list = (query = '', version = '3.71', roles = 'member') =>
  api.ask('GET', `/v3/messages${query}`, { version, roles })

test('a message has the shape of the sample, and names the request that failed later', async () => {
  const { body } = await list()
  const [expected] = sample('messages-list-response.json').messages
  expect(body.messages.map(keys)).toEqual([keys(expected), keys(expected), keys(expected)])
  const [newest] = body.messages
  expect(newest).toMatchObject({
    request_id: requests[2],
    resource_type: 'VOLUME',
    resource_uuid: volumes[2],
    event_id: 'VOLUME_VOLUME_001_003',
    message_level: 'ERROR',
    user_message: 'schedule allocate volume:Could not find any available weighted backend.',
    links: [
      { rel: 'self', href: `http://cinder.example:8776/v3/messages/${newest.id}` },
      { rel: 'bookmark', href: `http://cinder.example:8776/messages/${newest.id}` },
    ],
  })
  const shown = await api.ask('GET', `/v3/messages/${newest.id}`, { version: '3.3', roles: 'reader' })
  expect(keys(shown.body.message)).toEqual(keys(sample('messages-show-response.json').message))
  expect(shown.body.message).toEqual(newest)
})

test('exist since 3.3, with pages and filters since 3.5', async () => {
  expect((await list('', '3.2')).status).toBe(404)
  expect((await list('?limit=1&sort=nonsense&resource_uuid=x&color=red', '3.4')).body.messages).toHaveLength(3)
  expect((await list('?limit=1', '3.5')).body.messages).toHaveLength(1)
  expect((await list(`?resource_uuid=${volumes[1]}`, '3.5')).body.messages).toHaveLength(1)
  expect((await list('?color=red', '3.5')).body.messages).toEqual([])
  expect((await list('?color=red', '3.31')).body.badRequest.message).toBe(
    'Invalid filters color are found in query options.',
  )
})

test.each([
  ['resource_type', 'VOLUME', 3],
  ['resource_type', 'VOLUME_SNAPSHOT', 0],
  ['event_id', 'VOLUME_VOLUME_001_003', 3],
  ['message_level', 'ERROR', 3],
  ['message_level', 'WARNING', 0],
])('filter %s=%s', async (filter, value, count) => {
  expect((await list(`?${filter}=${value}`)).body.messages).toHaveLength(count)
})

test('filter by request', async () => {
  const { body } = await list(`?request_id=${requests[0]}`)
  expect(body.messages.map(({ resource_uuid }: { resource_uuid: string }) => resource_uuid)).toEqual([volumes[0]])
})

test('an administrator sees those of all projects, and may look for a part of a text', async () => {
  expect((await list('', '3.71', 'admin')).body.messages).toHaveLength(4)
  expect((await list('?event_id~=_001_', '3.71', 'admin')).body.messages).toHaveLength(4)
  expect((await list('?event_id~=_002_', '3.71', 'admin')).body.messages).toEqual([])
  expect((await list('?event_id~=_001_')).status).toBe(400)
})

describe('pages', () => {
  test.each(['', `/${PROJECT}`])('follow each other by their links, in the form of the URL: "%s"', async (prefix) => {
    const ids: string[] = []
    let url: string | null = `/v3${prefix}/messages?limit=2&sort=created_at:asc`
    while (url !== null) {
      const { body } = await api.ask('GET', url, { version: '3.5', roles: 'member' })
      ids.push(...body.messages.map(({ resource_uuid }: { resource_uuid: string }) => resource_uuid))
      const next: string | undefined = body.messages_links?.[0].href
      expect(next ?? `http://cinder.example:8776/v3${prefix}/messages?`).toContain(
        `http://cinder.example:8776/v3${prefix}/messages?`,
      )
      url = next?.replace('http://cinder.example:8776', '') ?? null
    }
    expect(ids).toEqual(volumes.slice(0, 3))
  })

  test.each([
    ['volumes', '3.0', 'Volume 11111111-1111-1111-1111-111111111111 could not be found.'],
    ['snapshots', '3.0', 'Snapshot 11111111-1111-1111-1111-111111111111 could not be found.'],
    ['messages', '3.5', 'Message 11111111-1111-1111-1111-111111111111 could not be found.'],
    [
      'attachments',
      '3.27',
      'Volume attachment could not be found with filter: attachment_id = 11111111-1111-1111-1111-111111111111.',
    ],
  ])('%s: a marker that is not there', async (collection, version, message) => {
    const url = `/v3/${collection}?marker=11111111-1111-1111-1111-111111111111`
    const { body } = await api.ask('GET', url, { version, roles: 'member' })
    expect(body).toEqual({ itemNotFound: { code: 404, message } })
  })

  test('a marker of another project is not there', async () => {
    const url = `/v3/volumes?marker=${volumes[3]}`
    expect((await api.ask('GET', url, { roles: 'member' })).status).toBe(404)
  })

  test.each([
    ['limit=0', 200],
    ['limit=1001', 200],
    ['limit=-1', 'limit param must be positive'],
    ['limit=1.5', 'limit param must be an integer'],
    ['limit=', 'limit param must be an integer'],
    ['offset=-1', 'offset must be >= 0'],
    ['offset=x', 'offset must be an integer'],
    ['offset=2147483648', 'offset must be <= 2147483647'],
    [
      'sort=id&sort_key=id',
      "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter.",
    ],
    ['sort=id:up', "Invalid input received: Unknown sort direction, must be 'desc' or 'asc'."],
    ['sort_dir=up', "Invalid input received: Unknown sort direction, must be 'desc' or 'asc'."],
    ['sort_key=color', 'Invalid input received: Invalid sort key'],
    ['with_count=maybe', "Value 'maybe' for 'with_count' is not a boolean."],
    ['created_at=after:2020-01-01', 'Invalid after operator'],
    ['created_at=gt:soon', 'Invalid soon value'],
    ['caf%C3%A9=1', 'Filter keys can only contain ASCII characters.'],
    ['a=1&b=2', 'Invalid filters a,b are found in query options.'],
    // Of filters upstream's default file names neither.
    ['name~=a', 'Invalid filters name~ are found in query options.'],
    ['glance_metadata={}', 'Invalid filters glance_metadata are found in query options.'],
    ['bootable=x', "Invalid input received: 'bootable = x'"],
    ['consumes_quota=x', "Value 'x' for 'use_quota' is not a boolean."],
    ['all_tenants=1', 200],
  ])('volumes?%s', async (query, expected) => {
    const answer = await api.ask('GET', `/v3/volumes?${query}`, { version: '3.71', roles: 'member' })
    if (typeof expected === 'number') expect(answer.status).toBe(expected)
    else expect(answer.body).toEqual({ badRequest: { code: 400, message: expected } })
  })

  test('times, counts and parts of names filter volumes', async () => {
    const ask = async (query: string, version = '3.71') =>
      (await api.ask('GET', `/v3/volumes?${query}&with_count=true`, { version, roles: 'member' })).body
    expect((await ask('created_at=gt:2020-01-01,lt:2020-01-02')).count).toBe(0)
    expect((await ask('created_at=gte:2020-01-01')).count).toBe(3)
    expect(await ask('created_at=gte:2020-01-01&limit=1')).toMatchObject({ count: 3, volumes: [{}] })
    expect((await ask('consumes_quota=false')).count).toBe(0)
    expect((await ask('consumes_quota=true')).count).toBe(3)
    expect((await ask('size=large')).count).toBe(0)
    expect((await ask('created_at=nonsense', '3.30')).volumes).toHaveLength(3)
  })
})

test('the summary ignores filters that it does not know; lists that are not counted know no with_count', async () => {
  const ask = (path: string) => api.ask('GET', path, { version: '3.71', roles: 'member' })
  const summary = await ask('/v3/volumes/summary?color=red')
  expect(summary.body['volume-summary'].total_count).toBe(3)
  expect((await ask('/v3/volumes/summary?name=nothing')).body['volume-summary'].total_count).toBe(0)
  for (const collection of ['messages', 'attachments']) {
    expect((await ask(`/v3/${collection}?with_count=true`)).body.badRequest.message).toBe(
      'Invalid filters with_count are found in query options.',
    )
  }
})

describe('resource_filters', () => {
  const ask = (query = '', version = '3.33') =>
    api.ask('GET', `/v3/resource_filters${query}`, { version, roles: 'reader' })

  test('has the shape of the sample, and names what the lists take', async () => {
    const { body } = await ask()
    const expected = sample('resource-filters-list-response.json')
    expect(keys(body)).toEqual(keys(expected))
    expect(keys(body.resource_filters[0])).toEqual(keys(expected.resource_filters[0]))
    for (const { resource, filters } of body.resource_filters as { resource: string; filters: string[] }[]) {
      const url = { volume: 'volumes', snapshot: 'snapshots', attachment: 'attachments', message: 'messages' }[resource]
      if (url === undefined) continue
      for (const filter of filters) {
        const value = filter.endsWith('_at') ? 'gt:2020-01-01' : filter === 'metadata' ? '{}' : '1'
        const answer = await api.ask('GET', `/v3/${url}?${filter}=${value}`, { version: '3.71', roles: 'member' })
        expect([url, filter, answer.status]).toEqual([url, filter, 200])
      }
    }
  })

  test('of one resource, and of none that is not there', async () => {
    const one = await ask('?resource=message')
    expect(one.body.resource_filters).toEqual([
      {
        resource: 'message',
        filters: ['resource_uuid', 'resource_type', 'event_id', 'request_id', 'message_level'],
      },
    ])
    expect((await ask('?resource=moon')).body.resource_filters).toEqual([])
    expect((await ask('', '3.32')).status).toBe(404)
  })
})

test('a message is deleted by a member of its project, once', async () => {
  const { id } = (await list()).body.messages[0]
  const remove = (options: object) => api.ask('DELETE', `/v3/messages/${id}`, { version: '3.3', ...options })
  expect((await remove({ roles: 'reader' })).status).toBe(403)
  expect((await remove({ roles: 'member', project: OTHER_PROJECT })).status).toBe(404)
  const removed = await remove({ roles: 'member' })
  expect([removed.status, removed.text]).toEqual([204, ''])
  const again = await remove({ roles: 'member' })
  expect(again.body.itemNotFound.message).toBe(`Message ${id} could not be found.`)
})

describe('samples', () => {
  test('snapshot actions', async () => {
    const volume = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } } })
    await api.services.idle()
    const body = { snapshot: { volume_id: volume.body.volume.id } }
    const { id } = (await api.ask('POST', '/v3/snapshots', { body })).body.snapshot
    await api.services.idle()
    const act = (content: object) => api.ask('POST', `/v3/snapshots/${id}/action`, { body: content })
    await act({ 'os-reset_status': { status: 'creating' } })
    expect((await act(sample('snapshot-status-update-request.json'))).status).toBe(202)
    expect((await act(sample('snapshot-status-reset-request.json'))).status).toBe(202)
    expect((await api.ask('GET', `/v3/snapshots/${id}`)).body.snapshot).toMatchObject({
      status: 'available',
      'os-extended-snapshot-attributes:progress': '80%',
    })
    expect((await act(sample('snapshot-force-delete-request.json'))).status).toBe(202)
  })

  test('extensions: each of ours is one of the sample, word for word', async () => {
    const known = new Map<string, unknown>(
      sample('extensions/extensions-list-response.json').extensions.map((one: { alias: string }) => [one.alias, one]),
    )
    const { body } = await api.ask('GET', '/v3/extensions')
    for (const extension of body.extensions) {
      expect(extension).toEqual(known.get(extension.alias))
      expect((await api.ask('GET', `/v3/extensions/${extension.alias}`)).body).toEqual({ extension })
    }
  })

  test('versions at the root', async () => {
    const { body } = await api.ask('GET', '/', { headers: { host: '127.0.0.1:45697' } })
    const [expected] = sample('versions/versions-response.json').versions
    const [shown] = body.versions
    expect({ ...shown, updated: expected.updated }).toEqual(expected) // upstream forgot to date its last change
  })
})
