import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createHarness, type Harness, OTHER_PROJECT, PROJECT } from './harness.ts'

let api: Harness
beforeAll(async () => {
  api = await createHarness()
})
afterAll(() => api.close())

async function createVolume(body: Record<string, unknown> = {}): Promise<string> {
  const answer = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, ...body } } })
  expect(answer.status, answer.text).toBe(202)
  await api.services.idle()
  return answer.body.volume.id
}

const act = (id: string, body: unknown, options = {}) =>
  api.ask('POST', `/v3/volumes/${id}/action`, { body, ...options })
const show = async (id: string, options = {}) => (await api.ask('GET', `/v3/volumes/${id}`, options)).body.volume

describe('create', () => {
  test('an unknown key is ignored before 3.53 and refused from then on', async () => {
    const body = { volume: { size: 1, colour: 'red' } }
    expect((await api.ask('POST', '/v3/volumes', { version: '3.52', body })).status).toBe(202)
    expect((await api.ask('POST', '/v3/volumes', { version: '3.53', body })).status).toBe(400)
  })

  test('sources that are not there are refused, not ignored', async () => {
    for (const [source, status] of [
      [{ imageRef: 'x' }, 400],
      [{ imageRef: '' }, 400],
      [{ image_id: '' }, 400],
      [{ group_id: 'x' }, 404],
      [{ multiattach: true }, 400],
    ] as const) {
      const answer = await api.ask('POST', '/v3/volumes', { version: '3.70', body: { volume: { size: 1, ...source } } })
      expect(answer.status, JSON.stringify(source)).toBe(status)
    }
  })

  test('of several sources, those that are not there are found missing first', async () => {
    const [absent, id] = ['00000000-0000-4000-8000-000000000000', await createVolume()]
    const create = (volume: object) => api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, ...volume } } })
    const missing = await create({ snapshot_id: absent, source_volid: absent })
    expect([missing.status, missing.body.itemNotFound.message]).toEqual([404, `Snapshot ${absent} could not be found.`])
    expect((await create({ source_volid: absent, imageRef: absent })).status).toBe(404)
    expect((await create({ source_volid: id, imageRef: absent })).body.badRequest.message).toContain('only one of')
  })

  test('names lose white space at the ends, sizes may be digits', async () => {
    const id = await createVolume({ name: '  data ', size: '2' })
    expect(await show(id)).toMatchObject({ name: 'data', size: 2, status: 'available' })
  })
})

describe('visibility', () => {
  test("another project's volume is 404, whatever is asked of it", async () => {
    const id = await createVolume()
    const stranger = { project: OTHER_PROJECT, roles: 'member' }
    expect((await api.ask('GET', `/v3/volumes/${id}`, stranger)).status).toBe(404)
    expect((await api.ask('DELETE', `/v3/volumes/${id}`, stranger)).status).toBe(404)
    expect((await act(id, { 'os-extend': { new_size: 9 } }, stranger)).status).toBe(404)
  })

  test('a tenant sees nothing of hosts', async () => {
    const id = await createVolume()
    const seen = await show(id, { roles: 'member', version: '3.71' })
    for (const hidden of ['os-vol-host-attr:host', 'migration_status', 'provider_id', 'cluster_name']) {
      expect(seen).not.toHaveProperty([hidden])
    }
    expect(seen).toHaveProperty(['os-vol-tenant-attr:tenant_id'], PROJECT)
  })
})

describe('links', () => {
  test('repeat the form of the URL, with and without the project', async () => {
    const id = await createVolume()
    const [self, bookmark] = (await api.ask('GET', `/v3/${PROJECT}/volumes/${id}`)).body.volume.links
    expect(self.href).toBe(`http://cinder.example:8776/v3/${PROJECT}/volumes/${id}`)
    expect(bookmark.href).toBe(`http://cinder.example:8776/${PROJECT}/volumes/${id}`)
    expect((await show(id)).links[0].href).toBe(`http://cinder.example:8776/v3/volumes/${id}`)
  })

  test('the next link leads through all pages, whatever its filters, and ends', async () => {
    for (const index of [1, 2, 3]) await createVolume({ name: 'paged', metadata: { index: String(index) } })
    const seen: string[] = []
    let url = `/v3/${PROJECT}/volumes/detail?limit=2&name=paged&sort=created_at:asc`
    for (let pages = 0; pages < 5; pages++) {
      const { body } = await api.ask('GET', url, { version: '3.45' })
      seen.push(...body.volumes.map((volume: { metadata: { index: string } }) => volume.metadata.index))
      if (body.volumes_links === undefined) break
      url = new URL(body.volumes_links[0].href).pathname + new URL(body.volumes_links[0].href).search
      expect(url).toMatch(/limit=2&name=paged&sort=created_at%3Aasc&marker=/)
    }
    expect(seen).toEqual(['1', '2', '3'])
  })

  test('with_count tells the number of all', async () => {
    const { body } = await api.ask('GET', '/v3/volumes?limit=1&name=paged&with_count=1', { version: '3.45' })
    expect(body).toMatchObject({ count: 3, volumes: [{ name: 'paged' }] })
  })

  test('an unknown marker is 404', async () => {
    expect((await api.ask('GET', '/v3/volumes?marker=nobody')).status).toBe(404)
  })
})

describe('filters', () => {
  test('by metadata, as clients print dictionaries', async () => {
    const id = await createVolume({ metadata: { k: 'v', other: 'x' } })
    const query = encodeURIComponent(`{'k': 'v'}`)
    const { body } = await api.ask('GET', `/v3/volumes?metadata=${query}`, { roles: 'reader', version: '3.31' })
    expect(body.volumes.map((volume: { id: string }) => volume.id)).toEqual([id])
  })

  test('by part of the name and by time', async () => {
    await createVolume({ name: 'needle in hay' })
    const like = await api.ask('GET', '/v3/volumes?name~=needle', { version: '3.34' })
    expect(like.body.volumes).toHaveLength(1)
    const late = await api.ask('GET', '/v3/volumes?created_at=gt:2999-01-01', { version: '3.60' })
    expect(late.body.volumes).toEqual([])
  })

  test('by any attribute that the database has, for administrators', async () => {
    const project = 'a'.repeat(32)
    const create = async (fields: object = {}) => {
      const { body } = await api.ask('POST', '/v3/volumes', { project, body: { volume: { size: 1, ...fields } } })
      await api.services.idle()
      return body.volume.id as string
    }
    const [plain, taken] = [await create({ description: 'Plain' }), await create()]
    const attachment = { volume_uuid: taken, connector: { host: 'node' } }
    await api.ask('POST', '/v3/attachments', { version: '3.27', project, body: { attachment } })
    const host: string = (await show(plain, { project }))['os-vol-host-attr:host']
    const found = async (query: string, version = '3.71') => {
      const { status, body } = await api.ask('GET', `/v3/volumes?sort=created_at:asc&${query}`, { project, version })
      expect(status, JSON.stringify(body)).toBe(200)
      return body.volumes.map(({ id }: { id: string }) => id)
    }
    const [backend] = host.split('#')
    const [node] = host.split('@')
    for (const query of [
      `host=${encodeURIComponent(host)}`,
      `host=${backend}`,
      `host=${node}`,
      'multiattach=no',
      'shared_targets=false',
      'use_quota=true',
      'deleted=False',
      'no_migration_targets=True',
      'group_id=None',
      'migration_status=None',
    ]) {
      expect(await found(query), query).toEqual([plain, taken])
    }
    for (const query of [
      `host=${node!.slice(0, -1)}`,
      `host=${backend!.slice(0, -1)}`,
      `host=${node!.toUpperCase()}`,
      `host=${backend}%25`,
      'multiattach=1',
      'shared_targets=true',
      'use_quota=0',
      'deleted=true',
      'no_migration_targets=False',
      'attach_status=attached',
      'attach_status=unknown',
      'status=None',
    ]) {
      expect(await found(query), query).toEqual([])
    }
    expect(await found('attach_status=detached')).toEqual([plain])
    expect(await found('attach_status=attaching')).toEqual([taken])
    expect(await found('display_description=Plain')).toEqual([plain])
    expect(await found('display_description=None')).toEqual([taken])
    expect(await found('multiattach=perhaps', '3.1')).toEqual([])
    const { body } = await api.ask('GET', '/v3/volumes?deleted=perhaps', { version: '3.2' })
    expect(body.badRequest.message).toBe("Invalid input received: 'deleted = perhaps'")
    const asMember = { project, roles: 'member', version: '3.31' }
    expect((await api.ask('GET', '/v3/volumes?group_id=None', asMember)).body.volumes).toHaveLength(2)
    expect((await api.ask('GET', '/v3/volumes?attach_status=detached', asMember)).status).toBe(400)

    const snapshot = await api.ask('POST', '/v3/snapshots', {
      project,
      body: { snapshot: { volume_id: plain, name: 's' } },
    })
    await api.services.idle()
    for (const query of ['display_name=s', `host=${node}`, `host=${backend}`, 'use_quota=true', 'deleted=false']) {
      const listed = await api.ask('GET', `/v3/snapshots?${query}`, { project })
      expect(listed.body.snapshots, query).toMatchObject([{ id: snapshot.body.snapshot.id }])
    }
    expect((await api.ask('GET', '/v3/snapshots?display_name=t', { project })).body.snapshots).toEqual([])
  })

  test('and lists are sorted by most of them', async () => {
    const keys = {
      volumes: ['project_id', 'migration_status', 'snapshot_id', 'multiattach', 'group_id', 'display_description'],
      snapshots: ['project_id'],
      attachments: ['instance_uuid', 'attach_status', 'attached_host'],
    }
    for (const [collection, names] of Object.entries(keys)) {
      const version = '3.27'
      const whole = (await api.ask('GET', `/v3/${collection}`, { version })).body[collection]
      for (const name of names) {
        const seen: string[] = []
        for (let marker = ''; ; ) {
          const url = `/v3/${collection}?limit=1&sort=${name}:asc${marker}`
          const { status, body } = await api.ask('GET', url, { version })
          expect(status, url).toBe(200)
          if (body[collection].length === 0) break
          seen.push(body[collection][0].id)
          marker = `&marker=${seen.at(-1)}`
        }
        expect(seen.toSorted(), name).toEqual(whole.map(({ id }: { id: string }) => id).toSorted())
      }
    }
  })

  test('an unknown filter is named in the refusal', async () => {
    const answer = await api.ask('GET', '/v3/volumes?colour=red', { roles: 'member', version: '3.31' })
    expect(answer.body.badRequest.message).toBe('Invalid filters colour are found in query options.')
  })
})

describe('update', () => {
  test('needs a change from 3.53 on', async () => {
    const id = await createVolume()
    const put = (version: string) => api.ask('PUT', `/v3/volumes/${id}`, { version, body: { volume: {} } })
    expect((await put('3.52')).status).toBe(200)
    expect((await put('3.53')).status).toBe(400)
  })

  test('metadata has an Etag from 3.15 on, and If-Match guards it', async () => {
    const id = await createVolume({ metadata: { a: '1' } })
    const url = `/v3/volumes/${id}/metadata`
    expect((await api.ask('GET', url, { version: '3.14' })).headers.etag).toBeUndefined()
    const etag = String((await api.ask('GET', url, { version: '3.15' })).headers.etag)
    const put = (value: string, tag: string) =>
      api.ask('PUT', url, { version: '3.15', body: { metadata: { a: value } }, headers: { 'if-match': tag } })
    expect((await put('2', etag)).status).toBe(200)
    const stale = await put('3', etag)
    expect([stale.status, stale.text]).toEqual([412, ''])
    expect((await show(id)).metadata).toEqual({ a: '2' })
  })

  test('the key of the URL must be the one of the body', async () => {
    const id = await createVolume()
    const answer = await api.ask('PUT', `/v3/volumes/${id}/metadata/a`, { body: { meta: { b: '1' } } })
    expect(answer.body.badRequest.message).toBe('Request body and URI mismatch')
  })
})

describe('actions', () => {
  test('extend, reset_status and delete', async () => {
    const id = await createVolume()
    expect((await act(id, { 'os-extend': { new_size: 3 } })).status).toBe(202)
    await api.services.idle()
    expect(await show(id)).toMatchObject({ size: 3, status: 'available' })
    expect((await act(id, { 'os-reset_status': { status: 'ERROR' } })).status).toBe(202)
    expect((await show(id)).status).toBe('error')
    expect((await act(id, { 'os-reset_status': { status: 'happy' } })).status).toBe(400)
    expect((await act(id, { 'os-reset_status': { status: 'error' } }, { roles: 'member' })).status).toBe(403)
    expect((await api.ask('DELETE', `/v3/volumes/${id}`)).status).toBe(202)
    await api.services.idle()
    expect((await api.ask('GET', `/v3/volumes/${id}`)).status).toBe(404)
  })

  test('the detach path of Nova; extend in use comes with 3.42', async () => {
    const id = await createVolume()
    const attach = await api.ask('POST', '/v3/attachments', {
      version: '3.54',
      body: { attachment: { volume_uuid: id, connector: { host: 'node', ip: '192.0.2.1' }, mode: 'ro' } },
    })
    expect(attach.body.attachment).toMatchObject({ status: 'attaching', attach_mode: 'ro' })
    const attachment = `/v3/attachments/${attach.body.attachment.id}`
    await api.ask('POST', `${attachment}/action`, { version: '3.44', body: { 'os-complete': null } })
    expect((await act(id, { 'os-extend': { new_size: 2 } }, { version: '3.41' })).status).toBe(400)
    expect((await act(id, { 'os-begin_detaching': null })).status).toBe(202)
    expect((await show(id)).status).toBe('detaching')
    expect((await act(id, { 'os-roll_detaching': {} })).status).toBe(202)
    expect((await show(id)).status).toBe('in-use')
    expect((await api.ask('DELETE', attachment, { version: '3.27' })).status).toBe(200)
    expect((await show(id)).status).toBe('available')
  })

  test('mode is unknown before 3.54, complete before 3.44', async () => {
    const id = await createVolume()
    const body = { attachment: { volume_uuid: id, mode: 'ro' } }
    expect((await api.ask('POST', '/v3/attachments', { version: '3.53', body })).status).toBe(400)
    const complete = { version: '3.43', body: { 'os-complete': null } }
    expect((await api.ask('POST', `/v3/attachments/${id}/action`, complete)).status).toBe(404)
  })
})

describe('snapshots', () => {
  test('force is for volumes in use before 3.66, and nothing to refuse with afterwards', async () => {
    const id = await createVolume()
    const snap = (version: string, extra: Record<string, unknown>) =>
      api.ask('POST', '/v3/snapshots', { version, body: { snapshot: { volume_id: id, ...extra } } })
    const attach = await api.ask('POST', '/v3/attachments', {
      version: '3.27',
      body: { attachment: { volume_uuid: id, connector: { host: 'node' } } },
    })
    await api.ask('POST', `/v3/attachments/${attach.body.attachment.id}/action`, {
      version: '3.44',
      body: { 'os-complete': {} },
    })
    expect((await show(id)).status).toBe('in-use')
    expect((await snap('3.65', {})).status).toBe(400)
    expect((await snap('3.65', { force: 'True' })).status).toBe(202)
    await api.services.idle()
    expect((await snap('3.66', {})).status).toBe(202)
    expect((await snap('3.66', { force: true })).status).toBe(202)
    const refused = await snap('3.66', { force: false })
    expect(refused.body.badRequest.message).toMatch(/Since microversion 3.66 the 'force' flag is invalid/)
    await api.services.idle()
  })
})

describe('volume types', () => {
  test('a tenant sees only extra specs that are meant for tenants', async () => {
    const extra_specs = { multiattach: '<is> False', volume_backend_name: 'secret' }
    const created = await api.ask('POST', '/v3/types', { body: { volume_type: { name: 'fast', extra_specs } } })
    const url = `/v3/types/${created.body.volume_type.id}`
    expect((await api.ask('GET', url)).body.volume_type.extra_specs).toEqual(extra_specs)
    const seen = (await api.ask('GET', url, { roles: 'reader' })).body.volume_type
    expect(seen.extra_specs).toEqual({ multiattach: '<is> False' })
    expect(seen).not.toHaveProperty('qos_specs_id')
    const query = encodeURIComponent(`{'volume_backend_name': 'secret'}`)
    const listed = await api.ask('GET', `/v3/types?extra_specs=${query}`, { roles: 'reader', version: '3.52' })
    expect(listed.body.volume_types).toEqual([])
  })
})
