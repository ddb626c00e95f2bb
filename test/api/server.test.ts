import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createHarness, type Harness, OTHER_PROJECT, PROJECT } from './harness.ts'

let api: Harness
beforeAll(async () => {
  api = await createHarness()
})
afterAll(() => api.close())

const UNKNOWN = '11111111-1111-1111-1111-111111111111'

describe('the door', () => {
  test('without a token everything below /v3 is 401 and says where to get one', async () => {
    for (const path of ['/v3/volumes', '/v3/no/such/path', `/v3/${PROJECT}/volumes/${UNKNOWN}`]) {
      const answer = await api.ask('GET', path, { headers: { 'x-auth-token': '' } })
      expect(answer.status).toBe(401)
      expect(answer.headers['www-authenticate']).toBe('Keystone uri="http://keystone.example/identity"')
      expect(answer.body.unauthorized.code).toBe(401)
    }
  })

  test('a token without a project is refused', async () => {
    const answer = await api.ask('GET', '/v3/volumes', { project: '' })
    expect(answer.status).toBe(403)
  })

  test('the path is found with and without the project, and not with another one', async () => {
    expect((await api.ask('GET', '/v3/volumes')).status).toBe(200)
    expect((await api.ask('GET', `/v3/${PROJECT}/volumes`)).status).toBe(200)
    expect((await api.ask('GET', `/v3/${PROJECT}/volumes/`)).status).toBe(404) // as of an empty id
    expect((await api.ask('GET', '/v3/volumes.json?limit=1')).status).toBe(200)
    expect((await api.ask('GET', `/v3/${PROJECT}/volumes/detail.json`)).status).toBe(200)
    const foreign = await api.ask('GET', `/v3/${OTHER_PROJECT}/volumes`)
    expect(foreign.body).toEqual({ badRequest: { code: 400, message: 'Malformed request url' } })
  })
})

describe('ids', () => {
  test.each([255, 256, 4000])('of %i characters are not found, and no defect', async (length) => {
    for (const kind of ['volumes', 'snapshots', 'attachments', 'types']) {
      const answer = await api.ask('GET', `/v3/${kind}/${'a'.repeat(length)}`, { version: '3.27' })
      expect(answer.status).toBe(404)
      expect(answer.body.itemNotFound.code).toBe(404)
    }
  })
})

describe('headers', () => {
  test('the answer repeats the microversion, and has a request id under both names', async () => {
    const answer = await api.ask('GET', '/v3/volumes', { version: '3.27' })
    expect(answer.headers).toMatchObject({ 'openstack-api-version': 'volume 3.27', vary: 'OpenStack-API-Version' })
    expect(answer.headers['x-openstack-request-id']).toMatch(/^req-[0-9a-f-]{36}$/)
    expect(answer.headers['x-compute-request-id']).toBe(answer.headers['x-openstack-request-id'])
  })

  test('latest and none', async () => {
    const latest = await api.ask('GET', '/v3/volumes', { version: 'latest' })
    expect(latest.headers['openstack-api-version']).toBe('volume 3.71')
    const none = await api.ask('GET', '/v3/volumes')
    expect(none.headers['openstack-api-version']).toBe('volume 3.0')
  })

  test('out of range is 406, nonsense is 400, a method from the future is 404', async () => {
    expect((await api.ask('GET', '/v3/volumes', { version: '3.72' })).body).toEqual({
      computeFault: {
        code: 406,
        message: 'Version 3.72 is not supported by the API. Minimum is 3.0 and maximum is 3.71.',
      },
    })
    const beyond = await api.ask('GET', '/v3/volumes', { version: '3.72' })
    expect(beyond.headers['openstack-api-version']).toBe('volume 3.72')
    expect((await api.ask('GET', '/v3/volumes', { version: 'three' })).status).toBe(400)
    const others = await api.ask('GET', '/v3/volumes', { headers: { 'openstack-api-version': 'compute 2.90' } })
    expect([others.status, others.headers['openstack-api-version']]).toEqual([400, undefined])
    const early = await api.ask('GET', '/v3/attachments', { version: '3.26' })
    expect(early.body.itemNotFound.message).toBe('The resource could not be found.')
    expect((await api.ask('GET', '/v3/volumes/summary', { version: '3.11' })).status).toBe(404)
    expect((await api.ask('GET', '/v3/volumes/summary', { version: '3.12' })).status).toBe(200)
  })
})

describe('faults', () => {
  test.each([
    ['GET', '/v3/volumes/a%00b', undefined, 404, 'itemNotFound', 'The resource could not be found.'],
    ['POST', '/v3/limits', {}, 404, 'itemNotFound', 'The resource could not be found.'],
    ['GET', `/v3/volumes/${UNKNOWN}`, undefined, 404, 'itemNotFound', `Volume ${UNKNOWN} could not be found.`],
    ['POST', '/v3/volumes', {}, 400, 'badRequest', "'volume' is a required property"],
    ['POST', '/v3/volumes', [], 400, 'badRequest', "[] is not of type 'object'"],
    [
      'POST',
      '/v3/volumes',
      { volume: { size: 'big' } },
      400,
      'badRequest',
      "Invalid input for field/attribute size. Value: big. 'big' does not match '^[0-9]+$'",
    ],
    [
      'POST',
      '/v3/volumes',
      { volume: { size: 1 }, extra: 1 },
      400,
      'badRequest',
      "Additional properties are not allowed ('extra' was unexpected)",
    ],
    [
      'POST',
      `/v3/volumes/${UNKNOWN}/action`,
      { 'os-fly': {} },
      400,
      'badRequest',
      'There is no such action: os-fly. Verify the request body and Content-Type header and try again.',
    ],
    [
      'POST',
      `/v3/volumes/${UNKNOWN}/action`,
      { 'os-extend': {} },
      400,
      'badRequest',
      "Invalid input for field/attribute os-extend. Value: {}. 'new_size' is a required property",
    ],
    ['POST', `/v3/volumes/${UNKNOWN}/action`, { a: 1, b: 2 }, 400, 'badRequest', 'Malformed request body'],
    ['GET', '/v3/volumes?limit=-1', undefined, 400, 'badRequest', 'limit param must be positive'],
  ] as const)('%s %s %j is %i', async (method, path, body, status, key, message) => {
    const answer = await api.ask(method, path, { body })
    expect(answer.status).toBe(status)
    expect(answer.body).toEqual({ [key]: { code: status, message } })
  })

  test.each([
    [
      undefined,
      'text/html; charset=UTF-8',
      /^<html>[\s\S]*<h1>404 Not Found<\/h1>\n {2}The resource could not be found\.<br \/>/,
    ],
    ['*/*', 'text/html; charset=UTF-8', /^<html>/],
    [
      'application/json',
      'application/json; charset=utf-8',
      /^\{"message":"The resource could not be found\.<br \/><br \/>/,
    ],
    [
      'text/html;q=0.1, application/*',
      'application/json; charset=utf-8',
      /"code":"404 Not Found","title":"Not Found"\}$/,
    ],
    ['image/png', 'text/plain; charset=UTF-8', /^404 Not Found\n\nThe resource could not be found\.\n/],
  ])('a path that leads nowhere is a page in what the client accepts: %s', async (accept, type, page) => {
    const headers = accept === undefined ? {} : { accept }
    for (const [method, path] of [
      ['GET', '/v3/nothing/here'],
      ['POST', '/v3/nothing'],
      ['GET', '/elsewhere'],
      ['PATCH', '/v3/volumes'],
    ] as const) {
      const answer = await api.ask(method, path, { headers })
      expect([answer.status, answer.headers['content-type']]).toEqual([404, type])
      expect(answer.text).toMatch(page)
      expect(answer.headers['x-openstack-request-id']).toMatch(/^req-/)
    }
  })

  test('a method that a path has not is not found, with HEAD among them, as if the path were not there', async () => {
    for (const method of ['HEAD', 'PATCH', 'POST', 'PUT'] as const) {
      expect((await api.ask(method, `/v3/volumes/${UNKNOWN}/encryption`)).status).toBe(404)
    }
    expect((await api.ask('PATCH', '/v3/volumes', { headers: { 'x-auth-token': '' } })).status).toBe(401)
  })

  test('OPTIONS is answered with nothing, whatever the path and whoever asks', async () => {
    for (const url of ['/v3/volumes', '/v3/nowhere', '/']) {
      const { statusCode, body } = await api.app.inject({ method: 'OPTIONS', url })
      expect([statusCode, body]).toEqual([200, ''])
    }
  })

  test('a path that cannot be decoded is refused, with a request id like every answer', async () => {
    for (const path of ['/v3/volumes/%ZZ', '/v3/volumes/%C3%28', '/v3/%E0%A4%A']) {
      const answer = await api.ask('GET', path)
      expect([answer.status, answer.body.badRequest.message]).toEqual([400, expect.stringContaining('be decoded')])
      expect(answer.headers['x-openstack-request-id']).toMatch(/^req-/)
    }
  })

  test('a body that is no JSON, too large, too deep or of another type', async () => {
    const json = { 'content-type': 'application/json' }
    const send = (body: string | Buffer, headers: Record<string, string>) =>
      api.ask('POST', '/v3/volumes', { body, headers })
    expect((await send('{"volume"', json)).body.badRequest.message).toBe('Malformed request body')
    const notUtf8 = Buffer.from('{"volume": {"size": 1, "name": "\xe9"}}', 'latin1')
    expect((await send(notUtf8, json)).body.badRequest.message).toBe('Malformed request body')
    expect((await send('['.repeat(60_000), json)).body.badRequest.message).toMatch(/nested more than/)
    expect((await send(JSON.stringify({ volume: { name: 'x'.repeat(120_000) } }), json)).body.overLimit.code).toBe(413)
    expect((await send('<volume/>', { 'content-type': 'application/xml' })).body.badMediaType.code).toBe(415)
    expect((await send('a=b', { 'content-type': 'application/x-www-form-urlencoded' })).status).toBe(415)
    const untyped = await send('{"volume": {"size": 1}}', {})
    expect(untyped.body.badRequest.message).toBe("None is not of type 'object'")
  })

  test('validation comes before policy, policy before the object', async () => {
    const reader = { roles: 'reader' }
    expect((await api.ask('POST', '/v3/volumes', { ...reader, body: { volume: { size: 0 } } })).status).toBe(400)
    const denied = await api.ask('POST', '/v3/volumes', { ...reader, body: { volume: { size: 1 } } })
    expect(denied.body).toEqual({
      forbidden: { code: 403, message: "Policy doesn't allow volume:create to be performed." },
    })
    expect((await api.ask('GET', '/v3/volumes', { roles: 'nobody' })).status).toBe(403)
  })

  test('a refusal names the rule that upstream asks, which may depend on the request or on the volume', async () => {
    const [plain, reserved] = await Promise.all(
      ['available', 'reserved'].map(
        async () => (await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } } })).body.volume.id,
      ),
    )
    await api.services.idle()
    const refusal = async (method: 'POST' | 'DELETE', path: string, body?: object, version = '3.71') => {
      const answer = await api.ask(method, path, { roles: 'reader', version, ...(body === undefined ? {} : { body }) })
      expect(answer.status).toBe(403)
      return /allow (\S+) to be/.exec(answer.body.forbidden.message)?.[1]
    }
    const imageRef = UNKNOWN
    expect(await refusal('POST', '/v3/volumes', { volume: { size: 1, imageRef } })).toBe('volume:create_from_image')
    expect(await refusal('DELETE', `/v3/volumes/${plain}?force=true`)).toBe('volume:force_delete')
    expect(await refusal('DELETE', `/v3/volumes/${plain}?force=true`, undefined, '3.22')).toBe('volume:delete')
    const reimage = { 'os-reimage': { image_id: UNKNOWN } }
    const extend = { 'os-extend': { new_size: 2 } }
    expect(await refusal('POST', `/v3/volumes/${plain}/action`, reimage)).toBe('volume:reimage')
    expect(await refusal('POST', `/v3/volumes/${plain}/action`, extend)).toBe('volume:extend')
    const attachment = { volume_uuid: reserved, instance_uuid: UNKNOWN }
    await api.ask('POST', '/v3/attachments', { version: '3.71', body: { attachment } })
    expect(await refusal('POST', `/v3/volumes/${reserved}/action`, reimage)).toBe('volume:reimage_reserved')
    await api.ask('POST', `/v3/volumes/${plain}/action`, {
      body: { 'os-attach': { instance_uuid: UNKNOWN, mountpoint: '/dev/vdb' } },
    })
    expect(await refusal('POST', `/v3/volumes/${plain}/action`, extend)).toBe('volume:extend_attached_volume')
    expect(await refusal('POST', `/v3/volumes/${plain}/action`, extend, '3.41')).toBe('volume:extend')
    const preset = { roles: 'member', version: '3.71' }
    expect((await api.ask('GET', '/v3/default-types', preset)).body.forbidden.message).toBe(
      'You are not authorized to perform this operation.',
    )
  })

  test('what the caller may not see is not found, also by one who may not touch it; of types the rule comes first', async () => {
    const made = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } } })
    await api.services.idle()
    const { id } = made.body.volume
    const ask = (method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, options: object = {}) =>
      api.ask(method, path, { roles: 'reader', version: '3.71', ...options }).then(({ status }) => status)
    expect(await ask('DELETE', `/v3/volumes/${id}`)).toBe(403)
    expect(await ask('DELETE', `/v3/volumes/${UNKNOWN}`)).toBe(404)
    expect(await ask('DELETE', `/v3/volumes/${id}`, { project: OTHER_PROJECT })).toBe(404)
    const meta = { body: { metadata: { a: 'b' } } }
    expect(await ask('PUT', `/v3/volumes/${id}/metadata`, meta)).toBe(403)
    expect(await ask('PUT', `/v3/volumes/${id}/metadata`, { ...meta, project: OTHER_PROJECT })).toBe(404)
    for (const action of ['os-reset_status', 'os-force_delete']) {
      const body = { [action]: action === 'os-reset_status' ? { status: 'error' } : {} }
      expect(await ask('POST', `/v3/volumes/${id}/action`, { body })).toBe(403)
      expect(await ask('POST', `/v3/volumes/${UNKNOWN}/action`, { body })).toBe(404)
    }
    for (const collection of ['snapshots', 'attachments', 'messages']) {
      expect(await ask('DELETE', `/v3/${collection}/${UNKNOWN}`)).toBe(404)
    }
    expect(await ask('POST', '/v3/snapshots', { body: { snapshot: { volume_id: UNKNOWN } } })).toBe(404)
    expect(await ask('POST', '/v3/snapshots', { body: { snapshot: { volume_id: id } } })).toBe(403)
    expect(await ask('POST', '/v3/attachments', { body: { attachment: { volume_uuid: UNKNOWN } } })).toBe(404)
    expect(await ask('POST', '/v3/attachments', { body: { attachment: { volume_uuid: id } } })).toBe(403)
    expect(await ask('DELETE', `/v3/types/${UNKNOWN}`)).toBe(403)
    expect((await api.ask('GET', `/v3/volumes/${id}`, { roles: 'nobody' })).status).toBe(404)
  })

  test('a failure of ours has no details in the answer, and all of them in the log under the id of the answer', async () => {
    const { list } = api.services.types
    api.services.types.list = () => Promise.reject(new TypeError('secret of the house'))
    const answer = await api.ask('GET', '/v3/types')
    api.services.types.list = list
    expect(answer.status).toBe(500)
    expect(answer.text).not.toContain('secret')
    const line = api.logged.find((entry) => entry.includes('secret of the house'))
    expect(JSON.parse(line!)).toMatchObject({ level: 50, request_id: answer.headers['x-compute-request-id'] })
  })
})

describe('around the API', () => {
  test('GET / is 300 without a token, GET /v3/ is 200 with one, with links as the client came', async () => {
    const headers = { 'x-forwarded-host': 'cloud.example', 'x-forwarded-proto': 'https' }
    const nobody = { 'x-auth-token': '' }
    const root = await api.ask('GET', '/', { headers: { ...headers, ...nobody } })
    const v3 = await api.ask('GET', '/v3/', { headers })
    expect([root.status, v3.status]).toEqual([300, 200])
    const bare = await api.ask('GET', '/v3', { headers })
    expect([bare.status, bare.headers.location, bare.text]).toEqual([302, 'https://cloud.example/v3/', ''])
    const stranger = await api.ask('GET', '/v3/', { headers: nobody })
    expect([stranger.status, stranger.body.unauthorized.code]).toEqual([401, 401])
    expect(stranger.headers['www-authenticate']).toMatch(/^Keystone uri=/)
    expect(v3.body).toEqual(root.body)
    expect(root.body.versions[0].links[1]).toEqual({ rel: 'self', href: 'https://cloud.example/v3/' })
  })

  test('/healthcheck needs no token', async () => {
    const answer = await api.ask('GET', '/healthcheck', { headers: { 'x-auth-token': '' } })
    expect([answer.status, answer.text]).toEqual([200, 'OK'])
  })

  test('/docs shows the document', async () => {
    const page = await api.ask('GET', '/docs/')
    expect(page.status).toBe(200)
    expect(page.text).toContain('swagger-ui')
    expect((await api.ask('GET', '/docs/static/swagger-ui.css')).status).toBe(200)
    expect((await api.ask('GET', '/docs/json')).body.paths).toHaveProperty(['/v3/{project_id}/volumes'])
  })

  test('requests are logged with the id of the whole chain, and without tokens', async () => {
    const chain = 'req-22222222-2222-2222-2222-222222222222'
    await api.ask('GET', '/v3/limits', { headers: { 'x-openstack-request-id': chain, 'x-service-token': 'hush' } })
    const line = api.logged.find((entry) => entry.includes(chain))
    expect(JSON.parse(line!)).toMatchObject({ method: 'GET', url: '/v3/limits', status: 200, project_id: PROJECT })
    expect(api.logged.join('')).not.toMatch(/hush|user:0123/)
  })
})
