import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createHarness, type Harness, OTHER_PROJECT } from './harness.ts'

const UNKNOWN = '11111111-1111-1111-1111-111111111111'

let api: Harness
beforeAll(async () => {
  api = await createHarness()
})
afterAll(() => api.close())

async function newVolume(): Promise<string> {
  const { body } = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } } })
  await api.services.idle()
  return body.volume.id
}

async function newSnapshot(volume_id?: string): Promise<string> {
  const snapshot = { volume_id: volume_id ?? (await newVolume()), metadata: { a: 'b' } }
  const { body } = await api.ask('POST', '/v3/snapshots', { body: { snapshot } })
  await api.services.idle()
  return body.snapshot.id
}

const act = (id: string, action: string, content: unknown = {}, options: { roles?: string; project?: string } = {}) =>
  api.ask('POST', `/v3/snapshots/${id}/action`, { ...options, body: { [action]: content } })

const show = (id: string) => api.ask('GET', `/v3/snapshots/${id}`).then(({ body }) => body.snapshot)

describe('os-reset_status', () => {
  test('writes any status of upstream, in any case of letters', async () => {
    const id = await newSnapshot()
    for (const status of ['error', 'Backing-Up', 'unmanaging', 'AVAILABLE']) {
      expect((await act(id, 'os-reset_status', { status })).status).toBe(202)
      expect((await show(id)).status).toBe(status.toLowerCase())
    }
  })

  test('refuses others, and says which there are', async () => {
    const answer = await act(await newSnapshot(), 'os-reset_status', { status: 'in-use' })
    expect(answer.body.badRequest.message).toBe(
      "Snapshot status: in-use is invalid, valid statuses are: ('error', 'available', 'creating', 'deleting', " +
        "'deleted', 'updating', 'error_deleting', 'unmanaging', 'backing-up', 'restoring').",
    )
    const surplus = await act(await newSnapshot(), 'os-reset_status', { status: 'error', progress: '1%' })
    expect(surplus.body.badRequest.message).toBe(
      "Invalid input for field/attribute os-reset_status. Value: {'status': 'error', 'progress': '1%'}. " +
        "Additional properties are not allowed ('progress' was unexpected)",
    )
  })
})

describe('os-force_delete', () => {
  test('deletes in any status, which a plain delete refuses', async () => {
    const id = await newSnapshot()
    await act(id, 'os-reset_status', { status: 'creating' })
    const refused = await api.ask('DELETE', `/v3/snapshots/${id}`)
    expect(refused.body.badRequest.message).toBe(
      'Invalid snapshot: Snapshot status must be available or error and must not be part of a group.',
    )
    expect((await act(id, 'os-force_delete')).status).toBe(202)
    await api.services.idle()
    expect((await api.ask('GET', `/v3/snapshots/${id}`)).status).toBe(404)
  })
})

describe('os-update_snapshot_status', () => {
  test('follows the making and the deleting of a snapshot outside, and nothing else', async () => {
    const id = await newSnapshot()
    const report = (status: string, progress?: unknown) =>
      act(id, 'os-update_snapshot_status', { status, ...(progress === undefined ? {} : { progress }) })
    expect((await report('error')).body.badRequest.message).toBe(
      'Snapshot status available not allowed for update_snapshot_status',
    )
    await act(id, 'os-reset_status', { status: 'creating' })
    expect((await report('creating', '80%')).status).toBe(202)
    expect(await show(id)).toMatchObject({
      status: 'creating',
      'os-extended-snapshot-attributes:progress': '80%',
    })
    expect((await report('deleting')).body.badRequest.message).toBe(
      'Provided snapshot status deleting not allowed for snapshot with status creating.',
    )
    for (const progress of ['101%', '-1%', '80', 'most', 80]) {
      expect((await report('available', progress)).status).toBe(400)
    }
    expect((await report('available', null)).status).toBe(202)
    expect((await show(id)).status).toBe('available')
    await act(id, 'os-reset_status', { status: 'deleting' })
    expect((await report('error_deleting')).status).toBe(202)
    expect((await show(id)).status).toBe('error_deleting')
  })
})

describe('os-unmanage', () => {
  test('forgets the snapshot, gives its quota back, and leaves it to the backend, which keeps the volume for it', async () => {
    const volumeId = await newVolume()
    const id = await newSnapshot(volumeId)
    const used = async () => (await api.ask('GET', '/v3/limits')).body.limits.absolute.totalSnapshotsUsed
    const before = await used()
    expect((await act(id, 'os-unmanage', null)).status).toBe(202)
    expect((await api.ask('GET', `/v3/snapshots/${id}`)).status).toBe(404)
    expect(await used()).toBe(before - 1)
    expect((await api.ask('DELETE', `/v3/volumes/${volumeId}`)).status).toBe(202)
    await api.services.idle()
    expect((await api.ask('GET', `/v3/volumes/${volumeId}`)).body.volume.status).toBe('available')
    const told = await api.ask('GET', `/v3/messages?resource_uuid=${volumeId}`, { version: '3.5' })
    expect(told.body.messages[0].user_message).toBe('delete volume:Volume status is invalid.')
  })

  test('not while it is being made', async () => {
    const id = await newSnapshot()
    await act(id, 'os-reset_status', { status: 'creating' })
    expect((await act(id, 'os-unmanage')).body.badRequest.message).toMatch(/^Invalid snapshot: Snapshot status must be/)
  })
})

test('who may: administrators; the report is for members; strangers find nothing', async () => {
  const id = await newSnapshot()
  const status = { status: 'error' }
  for (const [action, content] of [
    ['os-reset_status', status],
    ['os-force_delete', {}],
    ['os-unmanage', {}],
  ] as const) {
    expect((await act(id, action, content, { roles: 'member' })).status).toBe(403)
    expect((await act(UNKNOWN, action, content, { roles: 'member' })).status).toBe(404)
    expect((await act(id, action, content, { roles: 'member', project: OTHER_PROJECT })).status).toBe(404)
  }
  expect((await act(id, 'os-update_snapshot_status', status, { roles: 'member' })).status).toBe(400)
  expect((await act(id, 'os-update_snapshot_status', status, { roles: 'reader' })).status).toBe(403)
})

describe('the list', () => {
  test('is filtered by metadata from 3.22 on, and sorted by name from 3.28 on', async () => {
    const id = await newSnapshot()
    const ask = (query: string, version: string, roles = 'member') =>
      api.ask('GET', `/v3/snapshots?${query}`, { version, roles })
    const noSuchPair = encodeURIComponent("{'a': 'nothing'}")
    expect((await ask(`metadata=${noSuchPair}`, '3.21')).body.snapshots.length).toBeGreaterThan(0)
    expect((await ask(`metadata=${noSuchPair}`, '3.22')).body.snapshots).toEqual([])
    expect((await ask(`metadata=${encodeURIComponent("{'a': 'b'}")}`, '3.22')).body.snapshots[0].id).toBe(id)
    expect((await ask('metadata=nonsense', '3.22')).body.snapshots).toEqual([])
    expect((await ask('sort=name:asc', '3.27')).body.badRequest.message).toMatch(/Invalid sort key$/)
    expect((await ask('sort=name:asc', '3.28')).status).toBe(200)
    expect((await ask('sort_key=display_name', '3.0')).status).toBe(200)
  })

  test('is filtered by the zone of the volume', async () => {
    await newSnapshot()
    const ask = (zone: string) =>
      api.ask('GET', `/v3/snapshots?availability_zone=${zone}&with_count=true`, { version: '3.45', roles: 'member' })
    expect((await ask('nova')).body.count).toBeGreaterThan(0)
    expect((await ask('elsewhere')).body).toMatchObject({ snapshots: [], count: 0 })
  })
})
