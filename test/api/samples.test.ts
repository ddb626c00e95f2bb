import { readdirSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createHarness, type Harness } from './harness.ts'
import { keys, SAMPLES, sample } from './sample-files.ts'

/**
 * Replays the samples of upstream's API reference: requests are taken, and answers have the same keys at every
 * microversion.
 */

/** Microversions at which the samples of a resource change, with the folder that shows them from then on. */
function stages(resource: string): [version: string, folder: string][] {
  const folders = readdirSync(new URL(resource, SAMPLES)).filter((name) => name.startsWith('v3.'))
  const minors = folders.map((name) => Number(name.slice(3))).sort((a, b) => a - b)
  return [['3.0', resource], ...minors.map((minor): [string, string] => [`3.${minor}`, `${resource}/v3.${minor}`])]
}

let api: Harness
let volumeId: string
let snapshotId: string

beforeAll(async () => {
  api = await createHarness()
  const volume = await api.ask('POST', '/v3/volumes', {
    body: { volume: { size: 1, metadata: { name: 'metadata0' } } },
  })
  volumeId = volume.body.volume.id
  await api.services.idle()
  const snapshot = await api.ask('POST', '/v3/snapshots', { body: { snapshot: { volume_id: volumeId } } })
  snapshotId = snapshot.body.snapshot.id
  await api.services.idle()
})
afterAll(() => api.close())

describe.each(stages('volumes'))('volumes at %s', (version, folder) => {
  test('show', async () => {
    const { body } = await api.ask('GET', `/v3/volumes/${volumeId}`, { version })
    expect(keys(body.volume)).toEqual(keys(sample(`${folder}/volume-show-response.json`).volume))
  })
  test('list with details', async () => {
    const { body } = await api.ask('GET', '/v3/volumes/detail', { version })
    const expected = sample(`${folder}/volumes-list-detailed-response.json`)
    expect(keys(body)).toEqual(keys(expected))
    expect(keys(body.volumes[0])).toEqual(keys(expected.volumes[0]))
  })
  test('create', async () => {
    const { body } = await api.ask('POST', '/v3/volumes', { version, body: { volume: { size: 1 } } })
    expect(keys(body.volume)).toEqual(keys(sample(`${folder}/volume-create-response.json`).volume))
  })
  test('update', async () => {
    const { status, body } = await api.ask('PUT', `/v3/volumes/${volumeId}`, {
      version,
      body: sample('volumes/volume-update-request.json'),
    })
    expect(status).toBe(200)
    const expected = keys(sample(`${folder}/volume-update-response.json`).volume)
    expect(keys(body.volume)).toEqual(expected)
    expect(body.volume).toMatchObject({ name: 'vol-003', metadata: { name: 'metadata0' } })
  })
})

describe.each(stages('snapshots'))('snapshots at %s', (version, folder) => {
  test('show', async () => {
    const { body } = await api.ask('GET', `/v3/snapshots/${snapshotId}`, { version })
    expect(keys(body.snapshot)).toEqual(keys(sample(`${folder}/snapshot-show-response.json`).snapshot))
  })
  test('list with details', async () => {
    const { body } = await api.ask('GET', '/v3/snapshots/detail', { version })
    const expected = sample(`${folder}/snapshots-list-detailed-response.json`)
    expect(keys(body.snapshots[0])).toEqual(keys(expected.snapshots[0]))
  })
  test('create', async () => {
    const request = sample('snapshots/snapshot-create-request.json')
    const { status, body } = await api.ask('POST', '/v3/snapshots', {
      version,
      body: { snapshot: { ...request.snapshot, volume_id: volumeId } },
    })
    expect(status).toBe(202)
    expect(keys(body.snapshot)).toEqual(keys(sample(`${folder}/snapshot-create-response.json`).snapshot))
  })
  test('update', async () => {
    const { body } = await api.ask('PUT', `/v3/snapshots/${snapshotId}`, {
      version,
      body: sample('snapshots/snapshot-update-request.json'),
    })
    expect(keys(body.snapshot)).toEqual(keys(sample(`${folder}/snapshot-update-response.json`).snapshot))
    expect(body.snapshot.name).toBe('snap-002')
  })
})

test('brief lists', async () => {
  const volumes = await api.ask('GET', '/v3/volumes')
  expect(keys(volumes.body.volumes[0])).toEqual(keys(sample('volumes/volumes-list-response.json').volumes[0]))
  const snapshots = await api.ask('GET', '/v3/snapshots')
  expect(keys(snapshots.body.snapshots[0])).toEqual(keys(sample('snapshots/snapshots-list-response.json').snapshots[0]))
})

test('the request of the volume sample is taken, without its scheduler hints and nulls meaning anything', async () => {
  const { status, body } = await api.ask('POST', '/v3/volumes', {
    version: '3.71',
    body: sample('volumes/volume-create-request.json'),
  })
  expect(status).toBe(202)
  expect(body.volume).toMatchObject({ size: 10, name: null, metadata: {} })
})

test('summary', async () => {
  const expected = sample('volumes/volumes-list-summary-response.json')['volume-summary']
  const { body } = await api.ask('GET', '/v3/volumes/summary', { version: '3.36' })
  expect(keys(body['volume-summary'])).toEqual(keys(expected))
  const early = await api.ask('GET', '/v3/volumes/summary', { version: '3.35' })
  expect(keys(early.body['volume-summary'])).toEqual(['total_count', 'total_size'])
})

test.each([
  ['volumes', 'volume'],
  ['snapshots', 'snapshot'],
])('metadata of %s', async (collection, resource) => {
  const url = `/v3/${collection}/${collection === 'volumes' ? volumeId : snapshotId}/metadata`
  const read = (name: string) => sample(`${collection}/${resource}-metadata-${name}.json`)
  const replaced = await api.ask('PUT', url, { body: read('update-request') })
  expect(replaced.body).toEqual(read('update-request'))
  const created = await api.ask('POST', url, { body: read('create-request') })
  expect(created.body.metadata).toMatchObject(read('create-request').metadata)
  const [key] = keys(read('update-key-request').meta)
  const changed = await api.ask('PUT', `${url}/${key}`, { body: read('update-key-request') })
  expect(changed.body).toEqual(read('update-key-response'))
  expect((await api.ask('GET', `${url}/${key}`)).body).toEqual(read('update-key-response'))
  expect((await api.ask('DELETE', `${url}/${key}`)).status).toBe(200)
  expect((await api.ask('GET', `${url}/${key}`)).status).toBe(404)
})

test('attachments', async () => {
  const ask = (method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, body?: unknown) =>
    api.ask(method, `/v3/attachments${path}`, { version: '3.44', body })
  const other = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } } })
  await api.services.idle()
  const request = sample('attachment-create-request.json').attachment
  const reserved = await ask('POST', '', {
    attachment: { ...request, volume_uuid: other.body.volume.id, connector: null },
  })
  expect(keys(reserved.body.attachment)).toEqual(keys(sample('attachment-create-response.json').attachment))
  expect(reserved.body.attachment).toMatchObject({ status: 'reserved', connection_info: {}, attached_at: '' })
  const { id } = reserved.body.attachment

  const updated = await ask('PUT', `/${id}`, sample('attachment-update-request.json'))
  expect(keys(updated.body.attachment)).toEqual(keys(sample('attachment-update-response.json').attachment))
  expect(updated.body.attachment.connection_info).toMatchObject({ driver_volume_type: expect.any(String) })
  const completed = await ask('POST', `/${id}/action`, sample('attachment-complete.json'))
  expect([completed.status, completed.text]).toEqual([204, ''])

  const shown = await ask('GET', `/${id}`)
  expect(keys(shown.body.attachment)).toEqual(keys(sample('attachment-show-response.json').attachment))
  const brief = await ask('GET', '')
  expect(keys(brief.body.attachments[0])).toEqual(keys(sample('attachment-list-response.json').attachments[0]))
  const detailed = await ask('GET', '/detail')
  const [expected] = sample('attachment-list-detailed-response.json').attachments
  expect(keys(detailed.body.attachments[0])).toEqual(keys(expected))

  const volume = await api.ask('GET', `/v3/volumes/${other.body.volume.id}`)
  expect(volume.body.volume.status).toBe('in-use')
  expect(volume.body.volume.attachments[0]).toMatchObject({
    id: other.body.volume.id,
    attachment_id: id,
    server_id: request.instance_uuid,
  })
  expect((await ask('DELETE', `/${id}`)).body).toEqual({ attachments: [] })
})

test('volume types', async () => {
  const created = await api.ask('POST', '/v3/types', { body: sample('volume_type/volume-type-create-request.json') })
  const expected = sample('volume_type/volume-type-create-response.json').volume_type
  expect(created.body.volume_type).toEqual({ ...expected, id: created.body.volume_type.id })
  const { id } = created.body.volume_type
  const shown = await api.ask('GET', `/v3/types/${id}`)
  expect(keys(shown.body.volume_type)).toEqual(keys(sample('volume_type/volume-type-show-response.json').volume_type))
  const listed = await api.ask('GET', '/v3/types')
  const [first] = sample('volume_type/volume-types-list-response.json').volume_types
  expect(listed.body.volume_types.map(keys)).toEqual([keys(first), keys(first)])
  const preset = await api.ask('GET', '/v3/types/default')
  expect(keys(preset.body.volume_type)).toEqual(
    keys(sample('volume_type/volume-type-default-response.json').volume_type),
  )
  expect((await api.ask('DELETE', `/v3/types/${id}`)).status).toBe(202)
})

test('a volume type is changed, and its extra specs, access and encryption', async () => {
  const read = (name: string) => sample(`volume_type/${name}.json`)
  const specs = { extra_specs: read('volume-type-all-extra-specs-show-response').extra_specs }
  const created = await api.ask('POST', '/v3/types', { body: { volume_type: { name: 'vol-type-002', ...specs } } })
  const { id } = created.body.volume_type
  const url = `/v3/types/${id}`

  const updated = await api.ask('PUT', url, { body: read('volume-type-update-request') })
  const expected = read('volume-type-update-response').volume_type
  expect(updated.body.volume_type).toEqual({ ...expected, id })

  expect((await api.ask('GET', `${url}/extra_specs`)).body).toEqual(specs)
  expect((await api.ask('GET', `${url}/extra_specs/capabilities`)).body).toEqual(
    read('volume-type-specific-extra-specs-show-response'),
  )
  const added = await api.ask('POST', `${url}/extra_specs`, {
    body: read('volume-type-extra-specs-create-update-request'),
  })
  expect([added.status, added.body]).toEqual([200, read('volume-type-extra-specs-create-update-response')])
  const changed = await api.ask('PUT', `${url}/extra_specs/key1`, {
    body: read('volume-type-specific-extra-specs-update-request'),
  })
  expect([changed.status, changed.body]).toEqual([200, read('volume-type-specific-extra-specs-update-response')])

  const encryption = await api.ask('POST', `${url}/encryption`, { body: read('encryption-type-create-request') })
  const made = read('encryption-type-create-response').encryption
  const { encryption_id } = encryption.body.encryption
  expect(encryption.body).toEqual({ encryption: { ...made, volume_type_id: id, encryption_id } })
  const shown = await api.ask('GET', `${url}/encryption`)
  const { created_at } = shown.body
  const all = read('encryption-type-show-response')
  expect(shown.body).toEqual({ ...all, volume_type_id: id, encryption_id, created_at })
  expect((await api.ask('GET', `${url}/encryption/cipher`)).body).toEqual(
    read('encryption-type-specific-specs-show-response'),
  )
  const request = read('encryption-type-update-request')
  const put = await api.ask('PUT', `${url}/encryption/${encryption_id}`, { body: request })
  expect([put.status, put.body]).toEqual([200, read('encryption-type-update-response')])
  expect((await api.ask('DELETE', `${url}/encryption/${encryption_id}`)).status).toBe(202)

  await api.ask('PUT', url, { body: { volume_type: { is_public: false } } })
  const give = await api.ask('POST', `${url}/action`, { body: read('volume-type-access-add-request') })
  expect([give.status, give.text]).toEqual([202, ''])
  const [access] = read('volume-type-access-list-response').volume_type_access
  expect((await api.ask('GET', `${url}/os-volume-type-access`)).body).toEqual({
    volume_type_access: [{ ...access, volume_type_id: id }],
  })
  const other = sample('volume-type-access-delete-request.json')
  await api.ask('POST', `${url}/action`, { body: { addProjectAccess: other.removeProjectAccess } })
  expect((await api.ask('POST', `${url}/action`, { body: other })).status).toBe(202)
  expect((await api.ask('DELETE', url)).status).toBe(202)
})

test('default types', async () => {
  const ask = (method: 'GET' | 'PUT' | 'DELETE', path: string, body?: unknown) =>
    api.ask(method, `/v3/default-types${path}`, { version: '3.62', body })
  const request = sample('set-default-type-request.json')
  const name = request.default_type.volume_type
  const type = await api.ask('POST', '/v3/types', { body: { volume_type: { name } } })
  const volume_type_id = type.body.volume_type.id
  const expected = sample('set-default-type-response.json').default_type
  const set = await ask('PUT', `/${expected.project_id}`, request)
  expect(set.body).toEqual({ default_type: { ...expected, volume_type_id } })
  expect(keys((await ask('GET', `/${expected.project_id}`)).body.default_type)).toEqual(
    keys(sample('get-default-type-response.json').default_type),
  )
  const [first] = sample('get-default-types-response.json').default_types
  expect((await ask('GET', '')).body).toEqual({ default_types: [{ ...first, volume_type_id }] })
  expect((await ask('DELETE', `/${expected.project_id}`)).status).toBe(204)
  await api.ask('DELETE', `/v3/types/${volume_type_id}`)
})

test('quota sets and classes', async () => {
  const read = (name: string) => sample(`quota_sets/quotas-${name}.json`)
  const url = '/v3/os-quota-sets/fake_tenant'
  const updated = await api.ask('PUT', url, { body: read('update-request') })
  const ofHarness = { volumes: 2000 } // instead of upstream's 10, so that tests have room
  expect(updated.body).toEqual(read('update-response'))
  expect((await api.ask('DELETE', url)).status).toBe(200)
  for (const [path, name] of [
    ['', 'show-response'],
    ['/defaults', 'show-defaults-response'],
  ] as const) {
    const { body } = await api.ask('GET', url + path)
    expect(body).toEqual({ quota_set: { ...read(name).quota_set, ...ofHarness } })
  }
  const usage = read('show-usage-response').quota_set
  expect((await api.ask('GET', `${url}?usage=True`)).body).toEqual({
    quota_set: { ...usage, volumes: { ...usage.volumes, limit: ofHarness.volumes } },
  })

  const shown = await api.ask('GET', '/v3/os-quota-class-sets/test_class')
  const expected = sample('quota_classes/quota-classes-show-response.json').quota_class_set
  expect(shown.body).toEqual({ quota_class_set: { ...expected, ...ofHarness } })
  const changed = await api.ask('PUT', '/v3/os-quota-class-sets/test_class', {
    body: sample('quota_classes/quota-classes-update-request.json'),
  })
  expect(changed.body).toEqual(sample('quota_classes/quota-classes-update-response.json'))
  await api.ask('POST', '/v3/types', { body: { volume_type: { name: 'lmv' } } })
  const ofType = sample('quota-classes-update-request.json')
  const types = await api.ask('PUT', '/v3/os-quota-class-sets/test_class', { body: ofType })
  expect(types.body.quota_class_set).toMatchObject(ofType.quota_class_set)
})

test('limits, availability zones, versions, encryption', async () => {
  const limits = await api.ask('GET', '/v3/limits')
  const expected = sample('limits/limits-show-response.json').limits
  expect(keys(limits.body.limits)).toEqual(keys(expected))
  expect(keys(limits.body.limits.absolute)).toEqual(keys(expected.absolute))
  const zones = await api.ask('GET', '/v3/os-availability-zone')
  expect(zones.body).toEqual(sample('availability-zone-list-response.json'))
  const versions = await api.ask('GET', '/v3/', { headers: { host: '127.0.0.1:44895' } })
  expect(versions.body).toEqual(sample('versions/version-show-response.json'))
  const encryption = await api.ask('GET', `/v3/volumes/${volumeId}/encryption`)
  expect(encryption.body).toEqual({ encryption_key_id: null })
})

describe.each(stages('volume_transfers'))('transfers at %s', (version, folder) => {
  // The folder has no samples of its own: what it shows before 3.55 is what the older name shows.
  const read = (name: string) =>
    folder === 'volume_transfers'
      ? sample(`volume_transfer/volume-transfer-${name}.json`)
      : sample(`${folder}/volume-transfers-${name}.json`)

  test('by both names', async () => {
    for (const path of ['/v3/volume-transfers', '/v3/os-volume-transfer']) {
      const request = read('create-request').transfer
      if (path === '/v3/os-volume-transfer') delete request.no_snapshots
      const volume = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } } })
      await api.services.idle()
      const body = { transfer: { ...request, volume_id: volume.body.volume.id } }
      const created = await api.ask('POST', path, { version, body })
      expect(created.status).toBe(202)
      const expected = read('create-response').transfer
      expect(keys(created.body.transfer)).toEqual(keys(expected))
      const { id, auth_key, links } = created.body.transfer
      expect(links.map((link: { href: string }) => new URL(link.href).pathname)).toEqual([
        `/v3/os-volume-transfer/${id}`,
        `/os-volume-transfer/${id}`,
      ])
      const shown = await api.ask('GET', `${path}/${id}`, { version })
      expect(keys(shown.body.transfer)).toEqual(keys(read('show-response').transfer))
      const list = await api.ask('GET', path, { version })
      expect(keys(list.body.transfers[0])).toEqual(
        keys(sample('volume_transfer/volume-transfers-list-response.json').transfers[0]),
      )
      const details = await api.ask('GET', `${path}/detail`, { version })
      expect(keys(details.body.transfers[0])).toEqual(keys(shown.body.transfer))

      const wrong = await api.ask('POST', `${path}/${id}/accept`, {
        version,
        body: sample('volume_transfers/volume-transfers-accept-request.json'),
      })
      expect([wrong.status, wrong.body.badRequest.message]).toEqual([
        400,
        `Invalid auth key: Attempt to transfer ${id} with invalid auth key.`,
      ])
      const accepted = await api.ask('POST', `${path}/${id}/accept`, { version, body: { accept: { auth_key } } })
      expect(accepted.status).toBe(202)
      expect(keys(accepted.body.transfer)).toEqual(
        keys(sample('volume_transfers/volume-transfers-accept-response.json').transfer),
      )
      expect((await api.ask('GET', `${path}/${id}`, { version })).status).toBe(404)
    }
  })
})

test('QoS specs', async () => {
  const read = (name: string) => sample(`qos/${name}.json`)
  const created = await api.ask('POST', '/v3/qos-specs', { body: read('qos-create-request') })
  expect(created.status).toBe(200)
  const { id } = created.body.qos_specs
  const expected = read('qos-create-response')
  expect(keys(created.body)).toEqual(keys(expected))
  expect(created.body.qos_specs).toEqual({ ...expected.qos_specs, id })
  const url = `/v3/qos-specs/${id}`
  const shown = await api.ask('GET', url)
  expect(shown.body.qos_specs).toEqual({ ...read('qos-show-response').qos_specs, id })
  expect(keys(shown.body)).toEqual(keys(read('qos-show-response')))
  expect((await api.ask('GET', `${url}/associations`)).body).toEqual(read('qos_show_response'))
  expect((await api.ask('GET', '/v3/qos-specs')).body.qos_specs.map(keys)).toEqual(
    read('qos-list-response').qos_specs.map(keys),
  )
  const updated = await api.ask('PUT', url, { body: read('qos-update-request') })
  expect([updated.status, updated.body]).toEqual([200, read('qos-update-response')])
  await api.ask('PUT', url, { body: { qos_specs: { key1: 'v' } } })
  const unset = await api.ask('PUT', `${url}/delete_keys`, { body: read('qos-unset-request') })
  expect([unset.status, unset.text]).toEqual([202, ''])
  expect((await api.ask('GET', url)).body.qos_specs.specs).toEqual({ delay: '1' })
  expect((await api.ask('DELETE', url)).status).toBe(202)
})
