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
    expect((await api.ask('GET', `/v3/${PROJECT}/volumes/`)).status).toBe(200)
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
    expect((await api.ask('GET', '/v3/volumes', { version: 'three' })).status).toBe(400)
    const early = await api.ask('GET', '/v3/attachments', { version: '3.26' })
    expect(early.body.itemNotFound.message).toBe('API version 3.26 is not supported on this method.')
    expect((await api.ask('GET', '/v3/volumes/summary', { version: '3.11' })).status).toBe(404)
    expect((await api.ask('GET', '/v3/volumes/summary', { version: '3.12' })).status).toBe(200)
  })
})

describe('faults', () => {
  test.each([
    ['GET', '/v3/nothing/here', undefined, 404, 'itemNotFound', 'The resource could not be found.'],
    ['GET', '/elsewhere', undefined, 404, 'itemNotFound', 'The resource could not be found.'],
    ['GET', '/v3/volumes/a%00b', undefined, 404, 'itemNotFound', 'The resource could not be found.'],
    ['PATCH', '/v3/volumes', undefined, 405, 'badMethod', 'The method is not allowed for this resource.'],
    ['GET', `/v3/volumes/${UNKNOWN}`, undefined, 404, 'itemNotFound', `Volume ${UNKNOWN} could not be found.`],
    ['POST', '/v3/volumes', {}, 400, 'badRequest', "'volume' is a required property"],
    ['POST', '/v3/volumes', [], 400, 'badRequest', 'Malformed request body'],
    [
      'POST',
      '/v3/volumes',
      { volume: { size: 'big' } },
      400,
      'badRequest',
      'Invalid input for field/attribute size. Value: "big". is not a whole number',
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
      "'new_size' is a required property",
    ],
    ['POST', `/v3/volumes/${UNKNOWN}/action`, { a: 1, b: 2 }, 400, 'badRequest', 'Malformed request body'],
    ['GET', '/v3/volumes?limit=-1', undefined, 400, 'badRequest', 'limit param must be positive'],
  ] as const)('%s %s %j is %i', async (method, path, body, status, key, message) => {
    const answer = await api.ask(method, path, { body })
    expect(answer.status).toBe(status)
    expect(answer.body).toEqual({ [key]: { code: status, message } })
  })

  test('405 lists what is allowed', async () => {
    expect((await api.ask('PATCH', `/v3/volumes/${UNKNOWN}`)).headers.allow).toBe('GET, HEAD, PUT, DELETE')
  })

  test('a body that is no JSON, too large, too deep or of another type', async () => {
    const json = { 'content-type': 'application/json' }
    const send = (body: string, headers: Record<string, string>) => api.ask('POST', '/v3/volumes', { body, headers })
    expect((await send('{"volume"', json)).body.badRequest.message).toMatch(/^Malformed request body/)
    expect((await send('['.repeat(60_000), json)).body.badRequest.message).toMatch(/nested more than/)
    expect((await send(JSON.stringify({ volume: { name: 'x'.repeat(120_000) } }), json)).body.overLimit.code).toBe(413)
    expect((await send('<volume/>', { 'content-type': 'application/xml' })).body.badMediaType.code).toBe(415)
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
  test('GET / is 300 and GET /v3/ is 200, without a token, with links as the client came', async () => {
    const headers = { 'x-auth-token': '', 'x-forwarded-host': 'cloud.example', 'x-forwarded-proto': 'https' }
    const root = await api.ask('GET', '/', { headers })
    const v3 = await api.ask('GET', '/v3/', { headers })
    expect([root.status, v3.status]).toEqual([300, 200])
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
