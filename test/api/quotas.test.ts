import { afterAll, beforeAll, expect, test } from 'vitest'
import { createHarness, type Harness, OTHER_PROJECT, PROJECT } from './harness.ts'

let api: Harness
beforeAll(async () => {
  api = await createHarness()
})
afterAll(() => api.close())

const SET = `/v3/os-quota-sets/${OTHER_PROJECT}`
const put = (quota_set: unknown) => ['PUT', SET, { body: { quota_set } }] as const
const tenant = { roles: 'member', project: OTHER_PROJECT }

test('a set has an id where upstream has one, and usage when it is asked for', async () => {
  const shown = await api.ask('GET', SET)
  expect(shown.body.quota_set).toMatchObject({ id: OTHER_PROJECT, gigabytes: 1000, volumes___DEFAULT__: -1 })
  const used = await api.ask('GET', `${SET}?usage=True`)
  expect(used.body.quota_set).toMatchObject({
    id: OTHER_PROJECT,
    gigabytes: { limit: 1000, in_use: 0, reserved: 0 },
  })
  expect((await api.ask('GET', `${SET}?usage=perhaps`)).status).toBe(400)
  expect((await api.ask(...put({ backups: 4 }))).body.quota_set.id).toBeUndefined()
  expect((await api.ask('GET', `${SET}/defaults`)).body.quota_set).toMatchObject({ id: OTHER_PROJECT, backups: 10 })
  expect((await api.ask('GET', SET, tenant)).body.quota_set.backups).toBe(4)
  expect((await api.ask('GET', SET, { roles: 'member' })).status).toBe(403)
  const removed = await api.ask('DELETE', SET)
  expect([removed.status, removed.text]).toEqual([200, ''])
  expect((await api.ask('GET', SET)).body.quota_set.backups).toBe(10)
})

test('limits are whole numbers from -1 on, of quotas that there are', async () => {
  const taken = await api.ask(...put({ volumes: '7', snapshots: -1, id: 'x', tenant_id: {} }))
  expect(taken.body.quota_set).toMatchObject({ volumes: 7, snapshots: -1 })
  const wrong = [{}, { volumes: -2 }, { volumes: 1.5 }, { volumes: 'many' }, { volumes: null }, { volumes: 2 ** 31 }]
  for (const content of [...wrong, { volumes: true }, null, []]) {
    expect((await api.ask(...put(content))).status, JSON.stringify(content)).toBe(400)
  }
  const unknown = await api.ask(...put({ volumes: 1, cores: 2, volumes_absent: 3 }))
  expect(unknown.body.badRequest.message).toBe('Invalid input received: Bad key(s) in quota set: cores, volumes_absent')
  expect((await api.ask('GET', SET)).body.quota_set.volumes).toBe(7)
  await api.ask('DELETE', SET)
})

test('what exceeds a quota is 413 and says so', async () => {
  await api.ask('POST', '/v3/types', { body: { volume_type: { name: 'gold' } } })
  await api.ask(...put({ volumes_gold: 1, gigabytes: 10 }))
  const create = (size: number, volume_type: string | null = null) =>
    api.ask('POST', '/v3/volumes', { ...tenant, body: { volume: { size, volume_type } } })
  expect((await create(1, 'gold')).status).toBe(202)
  const second = await create(1, 'gold')
  expect(second.status).toBe(413)
  expect(second.headers['retry-after']).toBe('0')
  expect(second.body).toEqual({
    overLimit: {
      code: 413,
      message: "VolumeLimitExceeded: Maximum number of volumes allowed (1) exceeded for quota 'volumes_gold'.",
      retryAfter: '0',
    },
  })
  const large = await create(10)
  expect(large.body.overLimit.message).toBe(
    'VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. ' +
      'Requested 10G, quota is 10G and 1G has been consumed.',
  )
})

test('the class default holds for every project without limits of its own', async () => {
  const url = '/v3/os-quota-class-sets/default'
  const changed = await api.ask('PUT', url, { body: { quota_class_set: { volumes: 55, per_volume_gigabytes: '9' } } })
  expect(changed.body.quota_class_set).toMatchObject({ volumes: 55, per_volume_gigabytes: 9 })
  expect(changed.body.quota_class_set.id).toBeUndefined()
  expect((await api.ask('GET', url)).body.quota_class_set).toMatchObject({ id: 'default', volumes: 55 })
  expect((await api.ask('GET', `/v3/os-quota-sets/${PROJECT}`)).body.quota_set.volumes).toBe(55)
  expect((await api.ask('GET', '/v3/limits', { roles: 'reader' })).body.limits.absolute.maxTotalVolumes).toBe(55)
  const large = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 10 } } })
  expect(large.body.overLimit.message).toBe(
    'VolumeSizeExceedsLimit: Requested volume size 10G is larger than maximum allowed limit 9G.',
  )
  const bad = await api.ask('PUT', url, { body: { quota_class_set: { cores: 1 } } })
  expect(bad.body.badRequest.message).toBe('Invalid input received: Bad key(s) in quota class set: cores')
  for (const volumes of ['-1', -2, null, 'x', 2 ** 31]) {
    expect((await api.ask('PUT', url, { body: { quota_class_set: { volumes } } })).status, String(volumes)).toBe(400)
  }
})

test('limits are of the caller’s project, for administrators of another one from 3.39 on', async () => {
  const used = async (query: string, version: string, roles = 'admin') =>
    (await api.ask('GET', `/v3/limits${query}`, { version, roles })).body.limits.absolute.maxTotalVolumeGigabytes
  expect(await used(`?project_id=${OTHER_PROJECT}`, '3.39')).toBe(10)
  expect(await used(`?tenant_id=${OTHER_PROJECT}`, '3.39')).toBe(10)
  expect(await used(`?project_id=${OTHER_PROJECT}`, '3.38')).toBe(1000)
  expect(await used(`?project_id=${OTHER_PROJECT}`, '3.39', 'member')).toBe(1000)
  const stranger = await api.ask('GET', '/v3/limits', { roles: 'nobody' })
  expect(Object.keys(stranger.body.limits.absolute).filter((key) => key.startsWith('total'))).toEqual([])
})
