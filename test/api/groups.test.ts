import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createHarness, type Harness, OTHER_PROJECT, PROJECT } from './harness.ts'
import { keys, sample } from './sample-files.ts'

let api: Harness
let groupTypeId: string
let volumeTypeId: string

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

/** At the newest microversion, as an administrator, unless it says otherwise. */
const ask = (method: Method, path: string, body?: unknown, options: { version?: string; roles?: string } = {}) =>
  api.ask(method, `/v3${path}`, { version: '3.71', ...options, ...(body === undefined ? {} : { body }) })

/** Sends it, checks the status, waits for the work that it asks for, and answers the body. */
async function done(method: Method, path: string, body?: unknown, status = 202) {
  const answer = await ask(method, path, body)
  expect([answer.status, answer.text]).toEqual([status, expect.anything()])
  await api.services.idle()
  return answer.body
}

const newGroup = async (fields: object = {}): Promise<string> =>
  (await done('POST', '/groups', { group: { group_type: groupTypeId, volume_types: [volumeTypeId], ...fields } })).group
    .id

const newVolume = async (fields: object = {}): Promise<string> =>
  (await done('POST', '/volumes', { volume: { size: 1, volume_type: volumeTypeId, ...fields } })).volume.id

const show = async (id: string) => (await ask('GET', `/groups/${id}?list_volume=True`)).body.group
const message = (answer: { body: Record<string, { message: string }> }) => Object.values(answer.body)[0]!.message

beforeAll(async () => {
  api = await createHarness({ settings: { defaultGroupType: 'preset' } })
  await ask('PUT', `/os-quota-sets/${PROJECT}`, { quota_set: { groups: -1 } })
  const type = await done('POST', '/group_types', sample('group-type-create-request.json'))
  groupTypeId = type.group_type.id
  volumeTypeId = (await done('POST', '/types', { volume_type: { name: 'lmv' } }, 200)).volume_type.id
})
afterAll(() => api.close())

describe('group types', () => {
  it('look as in the samples', async () => {
    const created = await ask('POST', '/group_types', {
      group_type: { ...sample('group-type-create-request.json').group_type, name: 'g' },
    })
    expect(created.status).toBe(202)
    const { id } = created.body.group_type
    const shown = sample('group-type-show-response.json').group_type
    expect(created.body.group_type).toEqual({
      ...shown,
      id,
      name: 'g',
      description: 'group type 0001',
      group_specs: { consistent_group_snapshot_enabled: '<is> False' },
    })
    const updated = await ask('PUT', `/group_types/${id}`, {
      group_type: { ...sample('group-type-update-request.json').group_type, name: 'h' },
    })
    expect([updated.status, updated.body.group_type.name]).toEqual([200, 'h'])
    const listed = await ask('GET', '/group_types')
    expect(keys(listed.body)).toEqual(keys(sample('group-types-list-response.json')))
    expect(listed.body.group_types.map(keys)).toEqual(listed.body.group_types.map(() => keys(shown)))
    expect(listed.body.group_types.map((type: { name: string }) => type.name)).toEqual([
      'h',
      'grp-type-001',
      'default_cgsnapshot_type',
    ])

    const url = `/group_types/${id}/group_specs`
    const specs = await ask('POST', url, sample('group-type-specs-create-request.json'))
    expect([specs.status, specs.body]).toEqual([202, sample('group-type-specs-create-response.json')])
    expect((await ask('GET', url)).body.group_specs).toMatchObject(
      sample('group-type-specs-list-response.json').group_specs,
    )
    expect((await ask('GET', `${url}/key1`)).body).toEqual(sample('group-type-specs-show-response.json'))
    const put = await ask('PUT', `${url}/key1`, sample('group-type-specs-update-request.json'))
    expect([put.status, put.body]).toEqual([200, sample('group-type-specs-update-response.json')])
    expect((await ask('DELETE', `${url}/key1`)).status).toBe(202)
    const gone = await ask('DELETE', `${url}/key1`)
    expect([gone.status, message(gone)]).toEqual([404, `Group Type ${id} has no specs with key key1.`])
    const absent = await ask('GET', `${url}/key1`)
    expect([absent.status, message(absent)]).toEqual([404, `Group Type ${id} has no extra spec with key key1.`])
    const other = await ask('PUT', `${url}/key2`, { key1: 'x' })
    expect([other.status, message(other)]).toEqual([400, 'Request body and URI mismatch'])
    expect((await ask('DELETE', `/group_types/${id}`)).status).toBe(202)
    expect((await ask('GET', `/group_types/${id}`)).status).toBe(404)
  })

  it('are named once, and by nobody else than administrators', async () => {
    const again = await ask('POST', '/group_types', sample('group-type-create-request.json'))
    expect([again.status, message(again)]).toEqual([409, 'Group Type grp-type-001 already exists.'])
    const refused = await ask('POST', '/group_types', { group_type: { name: 'x' } }, { roles: 'member' })
    expect([refused.status, message(refused)]).toEqual([
      403,
      "Policy doesn't allow group:group_types:create to be performed.",
    ])
    const seen = await ask('GET', `/group_types/${groupTypeId}`, undefined, { roles: 'reader' })
    expect(keys(seen.body.group_type)).toEqual(['description', 'id', 'is_public', 'name'])
    expect((await ask('GET', `/group_types/${groupTypeId}/group_specs`, undefined, { roles: 'member' })).status).toBe(
      403,
    )
    await done('POST', '/group_types', { group_type: { name: 'secret', is_public: false } })
    const names = async (query: string, roles: string) =>
      (await ask('GET', `/group_types${query}`, undefined, { roles })).body.group_types.map(
        ({ name }: { name: string }) => name,
      )
    expect(await names('?is_public=None', 'reader')).not.toContain('secret')
    expect(await names('?is_public=False', 'admin')).toEqual(['secret'])
    expect((await ask('GET', '/group_types?is_public=maybe')).status).toBe(400)
    const preset = await ask('GET', '/group_types/default')
    expect([preset.status, message(preset)]).toEqual([404, 'Default group type can not be found.'])
    const { id } = (await done('POST', '/group_types', { group_type: { name: 'preset' } })).group_type
    expect((await ask('GET', '/group_types/default', undefined, { roles: 'reader' })).body.group_type).toMatchObject({
      id,
      name: 'preset',
    })
    await done('DELETE', `/group_types/${id}`)
    expect((await ask('GET', '/group_types', undefined, { version: '3.10' })).status).toBe(404)
    const empty = await ask('PUT', `/group_types/${groupTypeId}`, { group_type: {} })
    expect(message(empty)).toBe('Specify group type name, description or a combination thereof.')
  })
})

describe('groups', () => {
  it('look as in the samples at each microversion', async () => {
    const request = sample('group-create-request.json').group
    const created = await ask('POST', '/groups', {
      group: { ...request, group_type: groupTypeId, volume_types: [volumeTypeId], availability_zone: 'nova' },
    })
    expect(created.status).toBe(202)
    expect(keys(created.body.group)).toEqual(keys(sample('group-create-response.json').group))
    await api.services.idle()
    const { id } = created.body.group
    const full = keys({ ...sample('group-show-response.json').group, replication_status: 'disabled' })
    const versions: [string, (key: string) => boolean][] = [
      [
        '3.13',
        (key) => !['volumes', 'project_id', 'replication_status', 'group_snapshot_id', 'source_group_id'].includes(key),
      ],
      ['3.14', (key) => !['volumes', 'project_id', 'replication_status'].includes(key)],
      ['3.25', (key) => !['project_id', 'replication_status'].includes(key)],
      ['3.38', (key) => key !== 'project_id'],
      ['3.58', () => true],
    ]
    for (const [version, has] of versions) {
      const { body } = await ask('GET', `/groups/${id}?list_volume=True`, undefined, { version })
      expect(keys(body.group), version).toEqual(full.filter(has))
      const list = await ask('GET', '/groups/detail?list_volume=True', undefined, { version })
      expect(keys(list.body.groups[0]), version).toEqual(full.filter(has))
    }
    expect((await ask('GET', '/groups?list_volume=x')).status).toBe(200)
    for (const path of ['/groups/detail', `/groups/${id}`]) {
      const answer = await ask('GET', `${path}?list_volume=x`)
      expect([answer.status, message(answer)]).toEqual([400, "Value 'x' for 'list_volume' is not a boolean."])
    }
    const { body } = await ask('GET', `/groups/${id}`)
    expect(body.group).toMatchObject({
      status: 'available',
      availability_zone: 'nova',
      group_type: groupTypeId,
      volume_types: [volumeTypeId],
      group_snapshot_id: null,
      source_group_id: null,
      replication_status: 'disabled',
      project_id: PROJECT,
    })
    expect(keys((await ask('GET', '/groups')).body.groups[0])).toEqual(
      keys(sample('groups-list-response.json').groups[0]),
    )
    expect((await ask('GET', `/groups/${id}`, undefined, { version: '3.12' })).status).toBe(404)
    const brief = await ask('GET', `/groups/${id}`, undefined, { roles: 'reader' })
    expect(brief.body.group).not.toHaveProperty('project_id')
    const deleted = await ask('POST', `/groups/${id}/action`, sample('group-delete-request.json'))
    expect(deleted.status).toBe(202)
    await api.services.idle()
    const gone = await ask('GET', `/groups/${id}`)
    expect([gone.status, message(gone)]).toEqual([404, `Group ${id} could not be found.`])
  })

  it('take volumes of their types in and let them go', async () => {
    const id = await newGroup({ name: 'g' })
    const inside = await newVolume({ group_id: id })
    const outside = await newVolume()
    const other = await newVolume({ volume_type: '__DEFAULT__' })
    expect((await ask('GET', `/volumes/${inside}`)).body.volume).toMatchObject({
      group_id: id,
      consistencygroup_id: null,
    })
    expect((await ask('GET', `/volumes/${inside}`, undefined, { version: '3.12' })).body.volume).not.toHaveProperty(
      'group_id',
    )

    const update = {
      group: { ...sample('group-update-request.json').group, add_volumes: `${outside},`, remove_volumes: inside },
    }
    expect((await ask('PUT', `/groups/${id}`, update)).status).toBe(202)
    expect(await show(id)).toMatchObject({
      name: 'my_group',
      description: 'My group',
      volumes: [outside],
      status: 'available',
    })
    const refused = async (fields: object) => {
      const answer = await ask('PUT', `/groups/${id}`, { group: fields })
      expect(answer.status).toBe(400)
      return message(answer)
    }
    expect(await refused({ name: 'my_group' })).toBe(
      `Invalid Group: Cannot update group ${id} because no valid name, description, add_volumes, or remove_volumes were provided.`,
    )
    expect(await refused({ remove_volumes: inside })).toBe(
      `Invalid volume: Cannot remove volume ${inside} from group ${id} because it is not in the group.`,
    )
    expect(await refused({ add_volumes: inside, remove_volumes: inside })).toBe(
      `Invalid volume: UUIDs ['${inside}'] are in both add and remove volume list.`,
    )
    expect(await refused({ add_volumes: other })).toMatch(/is not supported by the group\.$/)
    expect(await refused({ add_volumes: 'nobody' })).toMatch(/because volume cannot be found\.$/)
    const second = await newGroup()
    const taken = await ask('PUT', `/groups/${second}`, { group: { add_volumes: outside } })
    expect(message(taken)).toBe(
      `Invalid volume: Cannot add volume ${outside} to group ${second} because it is already in group ${id}.`,
    )
    await done('POST', `/volumes/${inside}/action`, { 'os-reset_status': { status: 'error' } })
    expect(await refused({ add_volumes: inside })).toBe(
      `Invalid volume: Cannot add volume ${inside} to group ${id} because volume is in an invalid state: error. ` +
        "Valid states are: ('available', 'in-use').",
    )
    expect((await ask('PUT', `/groups/${id}`, { group: {} })).status).toBe(400)
  })

  it('keep their volumes from going alone, and are deleted with them', async () => {
    const id = await newGroup()
    const volumeId = await newVolume({ group_id: id })
    for (const answer of [
      await ask('DELETE', `/volumes/${volumeId}`),
      await ask('DELETE', `/volumes/${volumeId}?force=True`),
      await ask('POST', `/volumes/${volumeId}/action`, { 'os-unmanage': {} }),
    ]) {
      expect(answer.status).toBe(400)
      expect(message(answer)).toContain('belong to a group')
    }
    const retype = { 'os-retype': { new_type: '__DEFAULT__', migration_policy: 'never' } }
    expect((await ask('POST', `/volumes/${volumeId}/action`, retype)).status).toBe(400)
    const kept = await ask('POST', `/groups/${id}/action`, { delete: {} })
    expect([kept.status, message(kept)]).toEqual([
      400,
      `Invalid Group: Group ${id} still contains volumes. The delete-volumes flag is required to delete it.`,
    ])
    const snapshot = await done('POST', '/snapshots', { snapshot: { volume_id: volumeId } })
    const dependent = await ask('POST', `/groups/${id}/action`, { delete: { 'delete-volumes': true } })
    expect(message(dependent)).toBe('Invalid Group: Volume in group still has dependent snapshots.')
    await done('DELETE', `/snapshots/${snapshot.snapshot.id}`)
    await done('POST', `/groups/${id}/action`, { delete: { 'delete-volumes': 'true' } })
    expect((await ask('GET', `/groups/${id}`)).status).toBe(404)
    expect((await ask('GET', `/volumes/${volumeId}`)).status).toBe(404)
  })

  it('ask for a type that they have, and refuse what cannot be', async () => {
    const id = await newGroup()
    const create = (fields: object) => ask('POST', '/volumes', { volume: { size: 1, group_id: id, ...fields } })
    const untyped = await create({})
    expect([untyped.status, message(untyped)]).toEqual([
      400,
      'Invalid input received: volume_type must be provided when creating a volume in a group.',
    ])
    expect(message(await create({ volume_type: '__DEFAULT__' }))).toMatch(
      /requested type must be supported by this group/,
    )
    expect((await create({ volume_type: volumeTypeId, group_id: OTHER_PROJECT })).status).toBe(404)
    const wrong = (fields: object) =>
      ask('POST', '/groups', { group: { group_type: groupTypeId, volume_types: [volumeTypeId], ...fields } })
    expect(message(await wrong({ availability_zone: 'moon' }))).toBe(
      "Invalid input received: Availability zone 'moon' is invalid.",
    )
    expect([(await wrong({ group_type: 'nothing' })).status, message(await wrong({ group_type: 'nothing' }))]).toEqual([
      404,
      'Group type with name nothing could not be found.',
    ])
    expect((await wrong({ volume_types: [] })).status).toBe(400)
    expect((await wrong({ volume_types: [volumeTypeId, volumeTypeId] })).status).toBe(400)
    expect((await wrong({ volume_types: ['nothing'] })).status).toBe(404)
    expect((await wrong({ extra: 1 })).status).toBe(400)
    const reserved = await wrong({ group_type: 'default_cgsnapshot_type' })
    expect([reserved.status, message(reserved)]).toEqual([
      400,
      expect.stringMatching(
        /is reserved for migrating CGs to groups\. Migrated group can only be operated by CG APIs\.$/,
      ),
    ])
    const inUse = await ask('DELETE', `/group_types/${groupTypeId}`)
    expect([inUse.status, message(inUse)]).toEqual([400, 'Target group type is still in use.'])
    expect((await ask('DELETE', `/types/${volumeTypeId}`)).status).toBe(400)
  })

  it('have the statuses that an administrator writes, and no replication', async () => {
    const id = await newGroup()
    expect((await ask('POST', `/groups/${id}/action`, { reset_status: { status: 'ERROR' } })).status).toBe(202)
    expect((await show(id)).status).toBe('error')
    await done('POST', `/groups/${id}/action`, sample('group-reset-status-request.json'))
    const wrong = await ask('POST', `/groups/${id}/action`, { reset_status: { status: 'lost' } })
    expect([wrong.status, message(wrong)]).toEqual([
      400,
      'Invalid Group Status: Group status: lost is invalid, valid status are: ' +
        "('error', 'available', 'creating', 'deleting', 'deleted', 'updating', 'in-use', 'error_deleting').",
    ])
    const forbidden = await ask(
      'POST',
      `/groups/${id}/action`,
      { reset_status: { status: 'error' } },
      { roles: 'member' },
    )
    expect(forbidden.status).toBe(403)
    for (const name of ['enable', 'disable', 'failover', 'list-targets']) {
      const answer = await ask('POST', `/groups/${id}/action`, sample(`group-replication-${name}.json`))
      expect([answer.status, message(answer)], name).toEqual([
        400,
        `Invalid group type: Group ${id} is not a replication group type.`,
      ])
    }
    const replicated = await done('POST', '/group_types', {
      group_type: { name: 'replicated', group_specs: { group_replication_enabled: '<is> True' } },
    })
    const none = await newGroup({ group_type: replicated.group_type.id })
    expect((await show(none)).status).toBe('error') // no backend does that
    const answer = await ask('POST', `/groups/${none}/action`, { enable_replication: {} })
    expect(message(answer)).toMatch(/^Invalid volume type: Volume type .* does not have 'replication_enabled' spec key/)
    const { body } = await ask('GET', `/messages?resource_uuid=${none}`)
    expect(body.messages[0]).toMatchObject({
      resource_type: 'VOLUME_GROUP',
      user_message: 'create group:Could not find any available weighted backend.',
    })
    await done('POST', `/groups/${none}/action`, { delete: {} })
  })

  it('are listed in pages, by name, and not to strangers', async () => {
    const ids = [await newGroup({ name: 'page' }), await newGroup({ name: 'page' }), await newGroup({ name: 'page-3' })]
    const first = (await ask('GET', '/groups?name=page&limit=1&sort=created_at:asc')).body
    expect(first.groups).toEqual([{ id: ids[0], name: 'page' }])
    expect(first.group_links[0].href).toContain(`marker=${ids[0]}`)
    const second = await ask('GET', `/groups?name=page&limit=1&sort=created_at:asc&marker=${ids[0]}`)
    expect(second.body.groups).toEqual([{ id: ids[1], name: 'page' }])
    expect((await ask('GET', '/groups?name~=page')).body.groups).toHaveLength(3)
    expect((await ask('GET', '/groups?colour=red', undefined, { roles: 'member' })).status).toBe(400)
    const strangers = (path: string) =>
      api.ask('GET', path, { version: '3.71', project: OTHER_PROJECT, roles: 'member' })
    expect((await strangers('/v3/groups')).body.groups).toEqual([])
    expect((await strangers(`/v3/groups/${ids[0]}`)).status).toBe(404)
    const { body } = await ask('GET', '/resource_filters?resource=group')
    expect(body.resource_filters).toEqual([{ resource: 'group', filters: ['name'] }])
  })

  it('count in the quota', async () => {
    const usage = async () => (await ask('GET', `/os-quota-sets/${PROJECT}?usage=True`)).body.quota_set.groups
    const { in_use: before } = await usage()
    await ask('PUT', `/os-quota-sets/${PROJECT}`, { quota_set: { groups: before + 1 } })
    const id = await newGroup()
    expect((await usage()).in_use).toBe(before + 1)
    const over = await ask('POST', '/groups', { group: { group_type: groupTypeId, volume_types: [volumeTypeId] } })
    expect([over.status, message(over)]).toEqual([
      413,
      `GroupLimitExceeded: Maximum number of groups allowed (${before + 1}) exceeded`,
    ])
    await done('POST', `/groups/${id}/action`, { delete: {} })
    expect((await usage()).in_use).toBe(before)
    await ask('PUT', `/os-quota-sets/${PROJECT}`, { quota_set: { groups: -1 } })
  })
})

describe('snapshots of groups', () => {
  it('look as in the samples, and are what a group is made of', async () => {
    const id = await newGroup()
    const volumeIds = [await newVolume({ group_id: id }), await newVolume({ group_id: id, size: 2 })]
    const request = sample('group-snapshots-create-request.json').group_snapshot
    const created = await ask('POST', '/group_snapshots', { group_snapshot: { ...request, group_id: id } })
    expect(created.status).toBe(202)
    expect(keys(created.body.group_snapshot)).toEqual(
      keys(sample('group-snapshots-create-response.json').group_snapshot),
    )
    await api.services.idle()
    const snapshotId = created.body.group_snapshot.id
    const shown = await ask('GET', `/group_snapshots/${snapshotId}`)
    expect(keys(shown.body.group_snapshot)).toEqual(keys(sample('group-snapshots-show-response.json').group_snapshot))
    expect(shown.body.group_snapshot).toMatchObject({ status: 'available', group_id: id, group_type_id: groupTypeId })
    const early = await ask('GET', `/group_snapshots/${snapshotId}`, undefined, { version: '3.57' })
    expect(early.body.group_snapshot).not.toHaveProperty('project_id')
    const listed = (await ask('GET', '/group_snapshots')).body
    expect(keys(listed.group_snapshots[0])).toEqual(
      keys(sample('group-snapshots-list-response.json').group_snapshots[0]),
    )
    const detailed = (await ask('GET', `/group_snapshots/detail?group_id=${id}`)).body
    expect(detailed.group_snapshots.map(keys)).toEqual([
      keys(sample('group-snapshots-list-detailed-response.json').group_snapshots[0]),
    ])

    const members = (await ask('GET', '/snapshots/detail')).body.snapshots.filter(
      (one: { group_snapshot_id: string }) => one.group_snapshot_id === snapshotId,
    )
    expect(
      members.map(({ volume_id, status, size }: Record<string, unknown>) => [volume_id, status, size]).sort(),
    ).toEqual(
      [
        [volumeIds[0], 'available', 1],
        [volumeIds[1], 'available', 2],
      ].sort(),
    )
    const alone = await ask('DELETE', `/snapshots/${members[0].id}`)
    expect([alone.status, message(alone)]).toEqual([
      400,
      'Invalid snapshot: Snapshot status must be available or error and must not be part of a group.',
    ])
    const kept = await ask('POST', `/groups/${id}/action`, { delete: { 'delete-volumes': true } })
    expect(message(kept)).toBe('Invalid Group: Group has existing snapshots.')

    const { source_group_id: _, ...copy } = sample('group-create-from-src-request.json')['create-from-src']
    const made = await ask('POST', '/groups/action', { 'create-from-src': { ...copy, group_snapshot_id: snapshotId } })
    expect(made.status).toBe(202)
    expect(keys(made.body.group)).toEqual(keys(sample('group-create-from-src-response.json').group))
    await api.services.idle()
    const copied = await show(made.body.group.id)
    expect(copied).toMatchObject({ status: 'available', group_snapshot_id: snapshotId, volume_types: [volumeTypeId] })
    expect(copied.volumes).toHaveLength(2)
    for (const volumeId of copied.volumes) {
      const { volume } = (await ask('GET', `/volumes/${volumeId}`)).body
      expect(volume).toMatchObject({ status: 'available', group_id: made.body.group.id, name: null })
      expect(members.map((one: { id: string }) => one.id)).toContain(volume.snapshot_id)
    }
    const twin = await done('POST', '/groups/action', { 'create-from-src': { name: 'twin', source_group_id: id } })
    expect(await show(twin.group.id)).toMatchObject({ name: 'twin', status: 'available', source_group_id: id })

    await done('POST', `/group_snapshots/${snapshotId}/action`, sample('group-snapshot-reset-status-request.json'))
    const wrong = await ask('POST', `/group_snapshots/${snapshotId}/action`, { reset_status: { status: 'in-use' } })
    expect(message(wrong)).toBe(
      'Invalid GroupSnapshot Status: Group snapshot status: in-use is invalid, valid statuses are: ' +
        "('error', 'available', 'creating', 'deleting', 'deleted', 'updating', 'error_deleting').",
    )
    await done('DELETE', `/group_snapshots/${snapshotId}`)
    const gone = await ask('GET', `/group_snapshots/${snapshotId}`)
    expect([gone.status, message(gone)]).toEqual([404, `GroupSnapshot ${snapshotId} could not be found.`])
    for (const one of [id, made.body.group.id, twin.group.id]) {
      await done('POST', `/groups/${one}/action`, { delete: { 'delete-volumes': true } })
    }
  })

  it('are of groups that are there, and are copied from nothing else', async () => {
    const create = (fields: object) => ask('POST', '/group_snapshots', { group_snapshot: fields })
    expect((await create({ group_id: OTHER_PROJECT })).status).toBe(404)
    expect((await create({ group_id: 'x' })).status).toBe(400)
    expect((await create({})).status).toBe(400)
    const copy = (fields: object) => ask('POST', '/groups/action', { 'create-from-src': fields })
    expect((await copy({})).status).toBe(400)
    expect((await copy({ group_snapshot_id: OTHER_PROJECT, source_group_id: OTHER_PROJECT })).status).toBe(400)
    expect((await copy({ group_snapshot_id: OTHER_PROJECT })).status).toBe(404)
    const id = await newGroup()
    const empty = await copy({ source_group_id: id })
    expect([empty.status, message(empty)]).toEqual([
      400,
      'Invalid Group: Source Group is empty. No group will be created.',
    ])
    const nothing = await done('POST', '/group_snapshots', { group_snapshot: { group_id: id } })
    expect(message(await copy({ group_snapshot_id: nothing.group_snapshot.id }))).toBe(
      'Invalid Group: Group snapshot is empty. No group will be created.',
    )
    const wrongState = await newVolume({ group_id: id })
    await done('POST', `/volumes/${wrongState}/action`, { 'os-reset_status': { status: 'maintenance' } })
    const answer = await create({ group_id: id })
    expect(message(answer)).toBe(
      'Invalid volume: The snapshot cannot be created when the volume is in maintenance mode.',
    )
    expect((await ask('GET', `/group_snapshots/detail?group_id=${id}`)).body.group_snapshots).toHaveLength(1)
    expect((await ask('GET', '/group_snapshots?limit=1', undefined, { version: '3.28' })).body).not.toHaveProperty(
      'group_snapshot_links',
    )
  })
})

describe('consistency groups', () => {
  it('look as in the samples, at the first microversion', async () => {
    const old = (method: Method, path: string, body?: unknown) =>
      api.ask(method, `/v3${path}`, body === undefined ? {} : { body })
    const request = sample('consistency-group-create-request.json').consistencygroup
    const created = await old('POST', '/consistencygroups', {
      consistencygroup: { ...request, volume_types: 'lmv,', availability_zone: 'nova' },
    })
    expect([created.status, keys(created.body.consistencygroup)]).toEqual([202, ['id', 'name']])
    await api.services.idle()
    const { id } = created.body.consistencygroup
    const shown = await old('GET', `/consistencygroups/${id}`)
    expect(keys(shown.body.consistencygroup)).toEqual(
      keys(sample('consistency-group-show-response.json').consistencygroup),
    )
    expect(shown.body.consistencygroup).toMatchObject({
      status: 'available',
      volume_types: [volumeTypeId],
      name: 'firstcg',
    })
    const [listed] = (await old('GET', '/consistencygroups')).body.consistencygroups
    expect(keys(listed)).toEqual(keys(sample('consistency-groups-list-response.json').consistencygroups[0]))
    const [detailed] = (await old('GET', '/consistencygroups/detail?name=firstcg')).body.consistencygroups
    expect(keys(detailed)).toEqual(keys(sample('consistency-groups-list-detailed-response.json').consistencygroups[0]))

    const volume = await old('POST', '/volumes', { volume: { size: 1, volume_type: 'lmv', consistencygroup_id: id } })
    expect(volume.body.volume.consistencygroup_id).toBe(id)
    const loose = await newVolume()
    const update = {
      ...sample('consistency-group-update-request.json').consistencygroup,
      add_volumes: loose,
      remove_volumes: null,
    }
    expect((await old('PUT', `/consistencygroups/${id}/update`, { consistencygroup: update })).status).toBe(202)
    expect((await old('GET', `/volumes/${loose}`)).body.volume.consistencygroup_id).toBe(id)
    expect((await old('PUT', `/consistencygroups/${id}`, { consistencygroup: { name: 'put' } })).status).toBe(202)
    const nothing = await old('PUT', `/consistencygroups/${id}/update`, { consistencygroup: { name: '' } })
    expect(message(nothing)).toBe(
      'Name, description, add_volumes, and remove_volumes can not be all empty in the request body.',
    )

    const generic = await ask('GET', `/groups/${id}`)
    expect([generic.status, message(generic)]).toEqual([
      400,
      expect.stringMatching(/can only be operated by CG APIs\.$/),
    ])
    expect((await ask('GET', '/groups')).body.groups.map((one: { id: string }) => one.id)).not.toContain(id)

    const snapshot = await old('POST', '/cgsnapshots', {
      cgsnapshot: { ...sample('cgsnapshots-create-request.json').cgsnapshot, consistencygroup_id: id },
    })
    expect([snapshot.status, keys(snapshot.body)]).toEqual([202, ['cgsnapshot']])
    await api.services.idle()
    const snapshotId = snapshot.body.cgsnapshot.id
    const shownSnapshot = await old('GET', `/cgsnapshots/${snapshotId}`)
    expect(keys(shownSnapshot.body.cgsnapshot)).toEqual(keys(sample('cgsnapshots-show-response.json').cgsnapshot))
    expect(shownSnapshot.body.cgsnapshot).toMatchObject({ status: 'available', consistencygroup_id: id })
    expect(keys((await old('GET', '/cgsnapshots')).body.cgsnapshots[0])).toEqual(
      keys(sample('cgsnapshots-list-response.json').cgsnapshots[0]),
    )
    expect(keys((await old('GET', '/cgsnapshots/detail')).body.cgsnapshots[0])).toEqual(
      keys(sample('cgsnapshots-list-detailed-response.json').cgsnapshots[0]),
    )
    const nameless = { consistencygroup_id: OTHER_PROJECT, name: null, description: null } // as cinderclient sends it
    expect((await old('POST', '/cgsnapshots', { cgsnapshot: nameless })).status).toBe(404)
    const hidden = await ask('GET', `/group_snapshots/${snapshotId}`)
    expect(message(hidden)).toMatch(/Migrated group snapshots can only be operated by CG snapshot APIs\.$/)

    const copy = (fields: object) =>
      old('POST', '/consistencygroups/create_from_src', { 'consistencygroup-from-src': { name: 'copy', ...fields } })
    expect(message(await copy({}))).toBe(
      "Either 'cgsnapshot_id' or 'source_cgid' must be provided to create consistency group copy from source.",
    )
    expect(message(await copy({ cgsnapshot_id: snapshotId, source_cgid: id }))).toBe(
      "Cannot provide both 'cgsnapshot_id' and 'source_cgid' to create consistency group copy from source.",
    )
    const copies = [await copy({ cgsnapshot_id: snapshotId }), await copy({ source_cgid: id })]
    await api.services.idle()
    for (const one of copies) {
      expect(one.status).toBe(202)
      const made = await old('GET', `/consistencygroups/${one.body.consistencygroup.id}`)
      expect(made.body.consistencygroup.status).toBe('available')
    }
    expect((await old('DELETE', `/cgsnapshots/${snapshotId}`)).status).toBe(202)
    await api.services.idle()
    const kept = await old('POST', `/consistencygroups/${id}/delete`, sample('consistency-group-delete-request.json'))
    expect(kept.status).toBe(400)
    expect((await old('POST', `/consistencygroups/${id}/delete`, { consistencygroup: { force: true } })).status).toBe(
      202,
    )
    await api.services.idle()
    expect((await old('GET', `/consistencygroups/${id}`)).status).toBe(404)
    const untyped = await old('POST', '/consistencygroups', { consistencygroup: { name: 'c', volume_types: ',' } })
    expect(message(untyped)).toBe('volume_types must be provided to create consistency group c.')
  })
})

describe('what a backend holds', () => {
  it('is listed and taken over, in both ways to ask', async () => {
    const id = await newVolume({ name: 'kept' })
    const snapshot = await done('POST', '/snapshots', { snapshot: { volume_id: id } })
    const host = 'test@memory'
    for (const [path, version] of [
      ['os-volume-manage', '3.0'],
      ['manageable_volumes', '3.8'],
    ] as const) {
      const brief = await ask('GET', `/${path}?host=${host}&limit=1`, undefined, { version })
      expect(keys(brief.body['manageable-volumes'][0])).toEqual(
        keys(sample('volume-manage-list-response.json')['manageable-volumes'][0]),
      )
      const detailed = await ask('GET', `/${path}/detail?host=${host}&sort=reference:asc`, undefined, { version })
      const all = detailed.body['manageable-volumes']
      expect(keys(all[0])).toEqual(keys(sample('volume-manage-list-detail-response.json')['manageable-volumes'][0]))
      const names = all.map((one: { reference: { 'source-name': string } }) => one.reference['source-name'])
      expect(names).toEqual([...names].sort())
      expect(all).toContainEqual({
        reference: { 'source-name': id },
        size: 1,
        safe_to_manage: false,
        reason_not_safe: 'already managed',
        cinder_id: id,
        extra_info: null,
      })
      const marker = encodeURIComponent(JSON.stringify({ 'source-name': names[0] }))
      const rest = await ask('GET', `/${path}?host=${host}&sort=reference:asc&marker=${marker}`, undefined, { version })
      expect(rest.body['manageable-volumes']).toHaveLength(names.length - 1)
    }
    for (const [path, version] of [
      ['os-snapshot-manage', '3.0'],
      ['manageable_snapshots', '3.8'],
    ] as const) {
      const brief = await ask('GET', `/${path}?host=${host}`, undefined, { version })
      expect(keys(brief.body['manageable-snapshots'][0])).toEqual(
        keys(sample('snapshot-manage-list-response.json')['manageable-snapshots'][0]),
      )
      const { body } = await ask('GET', `/${path}/detail?host=${host}`, undefined, { version })
      expect(keys(body['manageable-snapshots'][0])).toEqual(
        keys(sample('snapshot-manage-list-detail-response.json')['manageable-snapshots'][0]),
      )
    }

    // Let go, they are there to be taken over again.
    await done('POST', `/snapshots/${snapshot.snapshot.id}/action`, { 'os-unmanage': {} })
    await done('POST', `/volumes/${id}/action`, { 'os-unmanage': {} })
    const request = sample('volume_manage_extensions/volume-manage-request.json').volume
    const managed = await ask('POST', '/manageable_volumes', {
      volume: { ...request, host, ref: { 'source-name': id }, availability_zone: 'nova' },
    })
    expect(managed.status).toBe(202)
    expect(managed.body.volume).toMatchObject({ status: 'creating', size: 0, name: 'New Volume' })
    expect(managed.body.volume).not.toHaveProperty('group_id')
    await api.services.idle()
    const volume = (await ask('GET', `/volumes/${managed.body.volume.id}`)).body.volume
    expect(volume).toMatchObject({ status: 'available', size: 1, bootable: 'true', metadata: request.metadata })
    const ref = { 'source-name': snapshot.snapshot.id }
    const again = sample('snapshot_manage_extensions/snapshot-manage-request.json').snapshot
    const taken = await ask('POST', '/manageable_snapshots', { snapshot: { ...again, volume_id: volume.id, ref } })
    expect([taken.status, taken.body.snapshot.status]).toEqual([202, 'creating'])
    await api.services.idle()
    expect((await ask('GET', `/snapshots/${taken.body.snapshot.id}`)).body.snapshot).toMatchObject({
      status: 'available',
      size: 1,
    })
    const cluster = sample('volume-manage-request-cluster.json').volume
    const nobody = await ask('POST', '/manageable_volumes', { volume: cluster })
    expect([nobody.status, message(nobody)]).toEqual([400, "Cluster 'cluster@backend' not found"])
  })

  it('is refused as upstream refuses it', async () => {
    const list = (query: string) => ask('GET', `/manageable_volumes?${query}`)
    const host = 'host=test@memory'
    expect(message(await list(''))).toBe('Invalid input received: One and only one of cluster and host must be set.')
    const early = await ask('GET', '/os-volume-manage', undefined, { version: '3.0' })
    expect(message(early)).toBe('Invalid input received: Host field is missing.')
    const absent = await list('host=test@nowhere')
    expect([absent.status, message(absent)]).toEqual([
      404,
      'Service cinder-volume could not be found on host test@nowhere.',
    ])
    expect(message(await list('cluster=test@nowhere'))).toBe('Service cinder-volume could not be found.')
    expect(message(await list(`${host}&sort=colour`))).toBe('Invalid sort keys passed: colour')
    expect(message(await list(`${host}&sort=size:up`))).toBe('Invalid sort dirs passed: up')
    expect(message(await list(`${host}&marker=x`))).toMatch(/can not be analysed/)
    expect((await ask('GET', `/manageable_volumes?${host}`, undefined, { roles: 'member' })).status).toBe(403)
    expect((await ask('GET', `/manageable_volumes?${host}`, undefined, { version: '3.7' })).status).toBe(404)

    const manage = (fields: object) =>
      ask('POST', '/manageable_volumes', { volume: { host: 'test@memory', ref: {}, ...fields } })
    const elsewhere = await manage({ host: 'elsewhere@memory' })
    expect([elsewhere.status, message(elsewhere)]).toEqual([400, "Host 'elsewhere@memory' not found"])
    const untyped = await manage({ volume_type: 'none' })
    expect([untyped.status, message(untyped)]).toEqual([
      400,
      "Invalid volume type: Cannot find requested 'none' volume type",
    ])
    const service = { binary: 'cinder-volume', host: 'test@memory' }
    await ask('PUT', '/os-services/disable', service)
    for (const answer of [await manage({}), await list(host)]) {
      expect([answer.status, message(answer)]).toEqual([400, 'Service is unavailable at this time.'])
    }
    await ask('PUT', '/os-services/enable', service)
    const id = await newVolume()
    const twice = await manage({ ref: { 'source-name': id } })
    expect([twice.status, message(twice)]).toEqual([
      400,
      'Invalid volume: Unable to manage existing volume. The volume is already managed',
    ])
    for (const ref of [{ 'source-id': '1' }, { 'source-name': 'nothing' }]) {
      const accepted = await manage({ ref })
      expect(accepted.status).toBe(202)
      await api.services.idle()
      const failed = (await ask('GET', `/volumes/${accepted.body.volume.id}`)).body.volume
      expect(failed.status).toBe('error') // error_managing, in older words
      await done('DELETE', `/volumes/${failed.id}`)
    }
    const missing = await ask('POST', '/manageable_snapshots', {
      snapshot: { volume_id: id, ref: { 'source-name': 'nothing' } },
    })
    await api.services.idle()
    expect((await ask('GET', `/snapshots/${missing.body.snapshot.id}`)).body.snapshot.status).toBe('error')
  })
})
