import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type AskOptions, createHarness, type Harness, OTHER_PROJECT } from './harness.ts'

/** Every action of volumes through the door: since when, for whom, what goes in, and what comes out. */

let api: Harness
beforeAll(async () => {
  api = await createHarness()
})
afterAll(() => api.close())

function sample(name: string) {
  return JSON.parse(readFileSync(new URL(`./samples/${name}.json`, import.meta.url), 'utf8'))
}

async function newVolume(fields: object = {}): Promise<string> {
  const { body } = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, ...fields } } })
  await api.services.idle()
  return body.volume.id
}

const act = (id: string, body: unknown, options: AskOptions = {}) =>
  api.ask('POST', `/v3/volumes/${id}/action`, { body, ...options })
const show = async (id: string, options: AskOptions = {}) =>
  (await api.ask('GET', `/v3/volumes/${id}`, options)).body.volume
const attach = (id: string, attachment: object = {}, version = '3.44') =>
  api.ask('POST', '/v3/attachments', { version, body: { attachment: { volume_uuid: id, ...attachment } } })

const ADMINS = [
  'os-reset_status',
  'os-force_delete',
  'os-force_detach',
  'os-migrate_volume',
  'os-migrate_volume_completion',
  'os-unmanage',
  'os-extend_volume_completion',
]

/** The samples of requests, by the version in which they came. Ids in them name nothing here. */
const SAMPLES: [name: string, version: string][] = [
  ['volume-attach-request', '3.0'],
  ['volume-begin-detaching-request', '3.0'],
  ['volume-bootable-status-update-request', '3.0'],
  ['volume-detach-request', '3.0'],
  ['volume-extend-request', '3.0'],
  ['volume-force-delete-request', '3.0'],
  ['volume-force-detach-request', '3.0'],
  ['volume-image-metadata-set-request', '3.0'],
  ['volume-image-metadata-unset-request', '3.0'],
  ['image-metadata-show-request', '3.0'],
  ['volume-initialize-connection-request', '3.0'],
  ['volume-os-extend_volume_completion-request', '3.0'],
  ['volume-os-migrate_volume-request', '3.0'],
  ['volume-os-migrate_volume_completion-request', '3.0'],
  ['volume-os-reimage-request', '3.68'],
  ['volume-os-retype-request', '3.0'],
  ['volume-readonly-update-request', '3.0'],
  ['volume-reserve-request', '3.0'],
  ['volume-revert-to-snapshot-request', '3.40'],
  ['volume-roll-detaching-request', '3.0'],
  ['volume-status-reset-request', '3.0'],
  ['volume-terminate-connection-request', '3.0'],
  ['volume-unmanage-request', '3.0'],
  ['volume-unreserve-request', '3.0'],
]

describe.each(SAMPLES)('the sample %s', (name, version) => {
  const body = sample(name)
  const [action] = Object.keys(body)

  test(`is taken from ${version} on`, async () => {
    const nothing = '11111111-1111-1111-1111-111111111111'
    const answer = await act(nothing, body, { version })
    expect(answer.body.itemNotFound?.message, answer.text).toBe(`Volume ${nothing} could not be found.`)
    if (version === '3.0') return
    const before = await act(nothing, body, { version: `3.${Number(version.slice(2)) - 1}` })
    expect(before.body.itemNotFound.message).toBe('The resource could not be found.')
  })

  test('is for those whose rule it is', async () => {
    const id = await newVolume()
    const asReader = await act(id, body, { version, roles: 'reader' })
    const readable = action === 'os-show_image_metadata'
    expect(asReader.status === 403, asReader.text).toBe(!readable)
    const asMember = await act(id, body, { version, roles: 'member' })
    expect(asMember.status === 403, asMember.text).toBe(ADMINS.includes(action!))
    const asStranger = await act(id, body, { version, roles: 'member', project: OTHER_PROJECT })
    expect([403, 404]).toContain(asStranger.status)
  })
})

test('an action that is not there, and one too many', async () => {
  const id = await newVolume()
  expect((await act(id, { 'os-nonsense': {} })).body.badRequest.message).toContain(
    'There is no such action: os-nonsense',
  )
  expect((await act(id, { 'os-reserve': null, 'os-unreserve': null })).status).toBe(400)
})

test('os-set_bootable takes the words that upstream takes', async () => {
  const id = await newVolume()
  for (const [word, shown] of [
    ['yes', 'true'],
    ['f', 'false'],
    [true, 'true'],
    ['0', 'false'],
  ]) {
    expect((await act(id, { 'os-set_bootable': { bootable: word } })).status).toBe(200)
    expect((await show(id)).bootable).toBe(shown)
  }
  for (const word of ['maybe', 'F', null, 1, undefined]) {
    expect((await act(id, { 'os-set_bootable': { bootable: word } })).status, String(word)).toBe(400)
  }
})

test('the read-only flag shows among the metadata, but is none of the user', async () => {
  const id = await newVolume({ metadata: { a: 'b' } })
  expect((await act(id, { 'os-update_readonly_flag': { readonly: 'true' } })).status).toBe(202)
  expect((await show(id)).metadata).toEqual({ a: 'b', readonly: 'True' })
  const list = await api.ask('GET', '/v3/volumes/detail?name=none')
  expect(list.status).toBe(200)
  expect((await api.ask('GET', `/v3/volumes/${id}/metadata`)).body).toEqual({ metadata: { a: 'b' } })
  const renamed = await api.ask('PUT', `/v3/volumes/${id}`, { body: { volume: { name: 'n' } } })
  expect(renamed.body.volume.metadata).toEqual({ a: 'b', readonly: 'True' })
  const { body } = await attach(id, { connector: { host: 'h' }, mode: 'rw' }, '3.54')
  expect(body.attachment).toMatchObject({ attach_mode: 'ro', connection_info: { access_mode: 'ro' } })
  expect((await act(id, { 'os-update_readonly_flag': { readonly: false } })).body.badRequest.message).toBe(
    `Invalid volume: Volume ${id} status must be available to update readonly flag, but current status is: attaching.`,
  )
})

test('image metadata is set, shown, filtered by since 3.4, and unset', async () => {
  const id = await newVolume()
  expect(await show(id)).not.toHaveProperty('volume_image_metadata')
  const set = sample('volume-image-metadata-set-request')
  expect((await act(id, set)).body).toEqual(set['os-set_image_metadata'])
  const more = await act(id, { 'os-set_image_metadata': { metadata: { min_disk: '1' } } })
  const all = { ...set['os-set_image_metadata'].metadata, min_disk: '1' }
  expect(more.body).toEqual({ metadata: all })
  expect((await act(id, sample('image-metadata-show-request'), { roles: 'reader' })).body).toEqual({ metadata: all })
  expect((await show(id)).volume_image_metadata).toEqual(all)
  const listed = async (version: string) => {
    const filter = encodeURIComponent("{'min_disk': '1'}")
    const { body } = await api.ask('GET', `/v3/volumes/detail?glance_metadata=${filter}`, { version })
    return body.volumes.map((volume: { id: string }) => volume.id)
  }
  expect(await listed('3.4')).toEqual([id])
  expect((await listed('3.3')).length).toBeGreaterThan(1) // not known yet, so ignored
  const unset = await act(id, sample('volume-image-metadata-unset-request'))
  expect([unset.status, unset.text]).toEqual([200, ''])
  expect((await show(id)).volume_image_metadata).not.toHaveProperty('ramdisk_id')
  expect((await act(id, sample('volume-image-metadata-unset-request'))).body.itemNotFound.message).toBe(
    `Glance metadata for volume/snapshot ${id} cannot be found.`,
  )
})

test('os-reset_status takes three statuses in any case, and wants one', async () => {
  const id = await newVolume()
  const reset = (body: object) => act(id, { 'os-reset_status': body })
  expect((await reset({ status: 'Error_Backing-Up' })).status).toBe(202)
  expect((await show(id)).status).toBe('error_backing-up')
  expect((await reset({ status: null, attach_status: null, migration_status: 'Migrating' })).status).toBe(202)
  expect(await show(id)).toMatchObject({
    status: 'error_backing-up',
    migration_status: 'migrating',
    'os-vol-mig-status-attr:migstat': 'migrating',
  })
  expect(await show(id, { roles: 'member' })).not.toHaveProperty('migration_status')
  expect((await reset({ migration_status: 'none' })).status).toBe(202)
  expect((await show(id)).migration_status).toBeNull()
  for (const wrong of [{}, { status: null }, { status: 'gone' }, { attach_status: 'reserved' }, { size: 1 }]) {
    expect((await reset(wrong)).status, JSON.stringify(wrong)).toBe(400)
  }
  expect((await reset({ status: 'deleting' })).body.badRequest.message).toBe('Cannot reset-state to deleting')
  expect((await reset({ status: 'in-use' })).body.badRequest.message).toContain('does not have any attachments')
  expect((await reset({ status: 'error_managing' })).status).toBe(202)
  expect((await show(id)).status).toBe('error') // in the older word
  expect((await reset({ status: 'available', attach_status: 'detached' })).status).toBe(202)
})

test('revert: 202, or 400 for the wrong snapshot and 409 for the wrong status', async () => {
  const id = await newVolume()
  const make = { snapshot: { volume_id: id } }
  const { body } = await api.ask('POST', '/v3/snapshots', { body: make })
  await api.services.idle()
  const revert = (snapshot_id: unknown) => act(id, { revert: { snapshot_id } }, { version: '3.40' })
  expect((await revert(null)).status).toBe(400)
  expect((await revert(id)).body.badRequest.message).toContain('not the latest one of volume')
  expect((await revert(body.snapshot.id)).status).toBe(202)
  await api.services.idle()
  expect((await show(id)).status).toBe('available')
  await act(id, { 'os-reset_status': { status: 'maintenance' } })
  expect((await revert(body.snapshot.id)).body.conflictingRequest.message).toBe(
    `Invalid volume: Can't revert volume ${id} to its latest snapshot ${body.snapshot.id}. ` +
      "Volume's status must be 'available'.",
  )
})

test('retype takes a name or an id, and two policies', async () => {
  const id = await newVolume()
  const type = await api.ask('POST', '/v3/types', { body: { volume_type: { name: 'gold' } } })
  const retype = (body: object) => act(id, { 'os-retype': body })
  expect((await retype({ new_type: 'gold', migration_policy: 'sometimes' })).status).toBe(400)
  expect((await retype({ new_type: 'silver' })).status).toBe(404)
  expect((await retype({ new_type: 'gold', migration_policy: 'on-demand' })).status).toBe(202)
  await api.services.idle()
  expect(await show(id, { version: '3.63' })).toMatchObject({
    volume_type: 'gold',
    volume_type_id: type.body.volume_type.id,
  })
  expect((await retype({ new_type: type.body.volume_type.id })).body.badRequest.message).toContain(
    'requested type has to be different',
  )
})

test('migration wants a host before 3.16, and then a host or a cluster that is there', async () => {
  const id = await newVolume()
  const migrate = (body: object, version?: string) =>
    act(id, { 'os-migrate_volume': body }, version === undefined ? {} : { version })
  expect((await migrate({ host: '' })).body.badRequest.message).toBe('Invalid input received: Host field is missing.')
  expect((await migrate({ host: 'a', cluster: 'b' })).status).toBe(400) // unknown key
  for (const both of [{}, { host: 'a', cluster: 'b' }]) {
    expect((await migrate(both, '3.16')).body.badRequest.message).toBe(
      'Invalid input received: One and only one of cluster and host must be set.',
    )
  }
  expect((await migrate({ cluster: 'b' }, '3.16')).body.badRequest.message).toBe(
    "Invalid host: No available service named 'b'",
  )
  const { 'os-vol-host-attr:host': host } = await show(id)
  expect((await migrate({ host, lock_volume: true })).body.badRequest.message).toContain(
    'destination host/cluster must be different than the current one',
  )
  const other = await newVolume()
  const completed = await act(id, { 'os-migrate_volume_completion': { new_volume: other, error: false } })
  expect([completed.status, completed.body]).toEqual([200, { save_volume_id: other }])
})

test('reimage and the completion of an extension are checked, and refused as far as there is nothing behind them', async () => {
  const id = await newVolume()
  const reimage = { 'os-reimage': { image_id: id, reimage_reserved: true } }
  expect((await act(id, reimage, { version: '3.68' })).body.badRequest.message).toContain('no image service')
  const complete = { 'os-extend_volume_completion': {} }
  for (const version of ['3.0', '3.71']) {
    const { body } = await act(id, complete, { version })
    expect(body.badRequest.message).toBe('Invalid volume: Volume is not being extended.')
  }
})

test('a key that is not among the metadata is not there, whatever the status', async () => {
  const id = await newVolume()
  await act(id, { 'os-reset_status': { status: 'maintenance' } })
  const key = await api.ask('DELETE', `/v3/volumes/${id}/metadata/none`)
  expect([key.status, key.body.itemNotFound.message]).toEqual([404, `Volume ${id} has no metadata with key none.`])
  for (const action of [{ 'os-unset_image_metadata': { key: 'none' } }, { 'os-show_image_metadata': {} }]) {
    const { status, body } = await act(id, action)
    const message = `Glance metadata for volume/snapshot ${id} cannot be found.`
    expect([status, body.itemNotFound.message]).toEqual([404, message])
  }
})

test('an attachment has no mode until somebody says which', async () => {
  const modeOf = async (fields: object, version = '3.71') => {
    const { status, body } = await attach(await newVolume(), fields, version)
    expect(status, JSON.stringify(body)).toBe(200)
    return body.attachment.attach_mode
  }
  expect(await modeOf({})).toBe('null')
  expect(await modeOf({}, '3.27')).toBe('null')
  expect(await modeOf({ mode: 'ro' })).toBe('ro')
  expect(await modeOf({ connector: { host: 'node', mode: 'ro' } })).toBe('ro')
  expect(await modeOf({ connector: { host: 'node' } })).toBe('rw')
})

test('unmanage and force_delete', async () => {
  const one = await newVolume()
  expect((await act(one, { 'os-unmanage': null })).status).toBe(202)
  const two = await newVolume()
  await act(two, { 'os-reset_status': { status: 'uploading' } })
  expect((await api.ask('DELETE', `/v3/volumes/${two}`)).body.badRequest.message).toBe(
    'Invalid volume: Volume status must be available or error or error_restoring or error_extending or error_managing and ' +
      'must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from ' +
      'snapshots after volume transfer.',
  )
  expect((await api.ask('DELETE', `/v3/volumes/${two}?force=true`, { version: '3.22' })).status).toBe(400)
  expect((await act(two, { 'os-force_delete': {} })).status).toBe(202)
  await api.services.idle()
  for (const id of [one, two]) expect((await api.ask('GET', `/v3/volumes/${id}`)).status).toBe(404)
})

test('the old way to attach, as Ironic and Glance go it', async () => {
  const id = await newVolume()
  const asMember = { roles: 'member' }
  expect((await act(id, { 'os-reserve': null }, asMember)).status).toBe(202)
  const request = sample('volume-initialize-connection-request')
  const connected = await act(id, request, asMember)
  expect(connected.status).toBe(200)
  expect(connected.body.connection_info).toEqual({
    driver_volume_type: 'memory',
    data: expect.objectContaining({ access_mode: 'rw', encrypted: false, qos_specs: null }),
    enforce_multipath: false,
  })
  expect(connected.body.connection_info.data).not.toHaveProperty('attachment_id')
  const host = request['os-initialize_connection'].connector.host
  const body = { 'os-attach': { host_name: host, mountpoint: '/dev/vdc' } }
  expect((await act(id, body, asMember)).status).toBe(202)
  const volume = await show(id)
  expect(volume).toMatchObject({
    status: 'in-use',
    metadata: { readonly: 'False', attached_mode: 'rw' },
    attachments: [{ id, volume_id: id, server_id: null, host_name: host, device: '/dev/vdc' }],
  })
  expect((await show(id, asMember)).attachments[0].host_name).toBeNull()
  expect((await act(id, sample('volume-terminate-connection-request'), asMember)).status).toBe(202)
  const { attachment_id } = volume.attachments[0]
  expect((await act(id, { 'os-detach': { attachment_id } }, asMember)).status).toBe(202)
  expect(await show(id)).toMatchObject({ status: 'available', attachments: [], metadata: { readonly: 'False' } })

  for (const wrong of [{}, { mountpoint: '/dev/vdc' }, { host_name: 'h', mountpoint: '', mode: 'rw' }]) {
    expect((await act(id, { 'os-attach': wrong })).status, JSON.stringify(wrong)).toBe(400)
  }
  expect((await act(id, { 'os-attach': { host_name: 'h', mountpoint: '/m', mode: 'wo' } })).status).toBe(400)
  expect((await act(id, { 'os-detach': null })).status).toBe(202)
  expect((await act(id, { 'os-detach': { attachment_id: 'x' } })).status).toBe(400)
  expect((await act(id, { 'os-initialize_connection': { connector: 'x' } })).status).toBe(400)
})

test('force_detach ends an attachment of a host that is gone', async () => {
  const id = await newVolume()
  const { body } = await attach(id, {
    connector: { host: 'gone' },
    instance_uuid: '11111111-1111-1111-1111-111111111111',
  })
  await api.ask('POST', `/v3/attachments/${body.attachment.id}/action`, {
    version: '3.44',
    body: { 'os-complete': null },
  })
  const connector = sample('volume-force-detach-request')['os-force_detach'].connector
  const force = { 'os-force_detach': { attachment_id: body.attachment.id, connector } }
  expect((await act(id, force)).status).toBe(202)
  expect(await show(id)).toMatchObject({ status: 'available', attachments: [] })
})

test('encryption of a volume that has none, for Nova and by key', async () => {
  const id = await newVolume()
  const all = await api.ask('GET', `/v3/volumes/${id}/encryption`, { roles: 'reader' })
  expect([all.status, all.body]).toEqual([200, { encryption_key_id: null }])
  const one = await api.ask('GET', `/v3/volumes/${id}/encryption/encryption_key_id`)
  expect([one.status, one.text]).toEqual([200, ''])
  expect((await api.ask('GET', `/v3/volumes/${id}/encryption/cipher`)).status).toBe(404)
  expect(
    (await api.ask('GET', `/v3/volumes/${id}/encryption`, { project: OTHER_PROJECT, roles: 'member' })).status,
  ).toBe(404)
})

test('attachments by version, filter and project', async () => {
  const id = await newVolume()
  expect((await attach(id, {}, '3.26')).status).toBe(404)
  expect((await attach(id, { mode: 'ro' }, '3.53')).status).toBe(400)
  expect((await attach(id, { mode: 'wo' }, '3.54')).status).toBe(400)
  expect((await attach(id, { connector: 'x' })).status).toBe(400)
  const { body } = await attach(id, { instance_uuid: id })
  expect(body.attachment).toMatchObject({ status: 'reserved', instance: id, connection_info: {}, attached_at: '' })
  const list = async (query: string, options: AskOptions = {}) =>
    (await api.ask('GET', `/v3/attachments?${query}`, { version: '3.44', ...options })).body.attachments.map(
      (attachment: { id: string }) => attachment.id,
    )
  for (const filter of [`volume_id=${id}`, `instance_id=${id}`, `volume_id=${id}&attach_status=reserved`]) {
    expect(await list(filter), filter).toEqual([body.attachment.id])
    expect(await list(filter, { project: OTHER_PROJECT })).toEqual([])
    expect(await list(`${filter}&all_tenants=1`, { project: OTHER_PROJECT })).toEqual([body.attachment.id])
    expect(await list(`${filter}&all_tenants=1`, { project: OTHER_PROJECT, roles: 'member' })).toEqual([])
  }
  expect(await list(`volume_id=${id}&status=attached`)).toEqual([])
  const unknown = await api.ask('GET', '/v3/attachments?device=x', { version: '3.44', roles: 'member' })
  expect(unknown.status).toBe(400)
  const complete = { version: '3.43', body: { 'os-complete': null } }
  expect((await api.ask('POST', `/v3/attachments/${body.attachment.id}/action`, complete)).status).toBe(404)
  const url = `/v3/attachments/${body.attachment.id}`
  expect((await api.ask('PUT', url, { version: '3.44', body: { attachment: { connector: {} } } })).status).toBe(400)
  await act(id, { 'os-reset_status': { status: 'error' } })
  const inError = await api.ask('PUT', url, { version: '3.44', body: { attachment: { connector: { host: 'h' } } } })
  expect(inError.body.conflictingRequest.message).toBe(
    'Resource conflict: Volume attachments can not be updated if the volume is in an error state. ' +
      `The Volume ${id} currently has a status of: error `,
  )
  expect((await attach(id)).body.badRequest.message).toContain('Volume attachments can not be created')
})

test('create names what is missing in upstream’s words', async () => {
  const create = (volume: object, version = '3.47') =>
    api.ask('POST', '/v3/volumes', { version, body: { volume: { size: 1, ...volume } } })
  const nothing = '11111111-1111-1111-1111-111111111111'
  expect((await create({ group_id: nothing })).body.itemNotFound.message).toBe(`Group ${nothing} could not be found.`)
  expect((await create({ consistencygroup_id: nothing })).status).toBe(404)
  expect((await create({ imageRef: nothing })).body.badRequest.message).toContain('no image service')
  expect((await create({ image_id: nothing })).status).toBe(400)
  expect((await create({ multiattach: 'on' }, '3.50')).body.badRequest.message).toContain(
    'multiattach parameter has been removed',
  )
  expect((await create({ multiattach: false }, '3.50')).status).toBe(202)
  // Not keys of volumes yet, but upstream looks at them all the same.
  expect((await create({ group_id: 7 }, '3.12')).body.itemNotFound.message).toBe('Group 7 could not be found.')
  expect((await create({ backup_id: nothing }, '3.46')).status).toBe(404)
  expect((await create({ backup_id: nothing })).body.itemNotFound.message).toBe(`Backup ${nothing} could not be found.`)
})
