import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { TOKEN_LIFETIME_MS } from '../../src/identity/tokens.ts'
import { createIdentityHarness, PASSWORD, SCOPE } from './harness.ts'

let id: Awaited<ReturnType<typeof createIdentityHarness>>
beforeAll(async () => {
  id = await createIdentityHarness()
})
afterAll(() => id.close())

const TOKENS = '/identity/v3/auth/tokens'

describe('password', () => {
  test('gives a scoped token with roles and a catalog', async () => {
    const { status, body, token } = await id.login()
    expect(status).toBe(201)
    expect(token).toMatch(/^[\w-]+\.[\w-]{43}$/)
    expect(body.token).toMatchObject({
      methods: ['password'],
      user: { id: id.account.userId, name: 'admin', domain: { id: 'default', name: 'Default' } },
      project: { id: id.account.projectId, name: 'collie', domain: { id: 'default', name: 'Default' } },
      is_domain: false,
    })
    expect(body.token.roles.map((role: { name: string }) => role.name)).toEqual(['admin', 'member', 'reader'])
    expect(body.token.expires_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
    const urls = Object.fromEntries(
      body.token.catalog.map((entry: { type: string; endpoints: { url: string }[] }) => [
        entry.type,
        entry.endpoints[0]!.url,
      ]),
    )
    const origin = 'http://cloud.example:8776'
    expect(urls).toEqual({
      'block-storage': `${origin}/v3/${id.account.projectId}`,
      volumev3: `${origin}/v3/${id.account.projectId}`,
      'key-manager': `${origin}/key-manager`,
      identity: `${origin}/identity`,
      image: `${origin}/image`,
    })
  })

  test('user and project by id; no scope gives a token that is good for nothing but asking', async () => {
    const byId = await id.login({ project: { id: id.account.projectId } }, PASSWORD, { id: id.account.userId })
    expect(byId.status).toBe(201)
    const { status, body, token } = await id.login('unscoped')
    expect(status).toBe(201)
    expect(body.token).not.toHaveProperty('project')
    expect(body.token).not.toHaveProperty('catalog')
    expect(await id.identity.authenticator.authenticate({ 'x-auth-token': token })).toMatchObject({
      projectId: null,
      roles: [],
    })
    expect((await id.ask('GET', '/identity/v3/auth/projects', { token })).body.projects).toHaveLength(1)
  })

  test.each([
    ['wrong password', SCOPE, 'wrong', undefined],
    ['empty password', SCOPE, '', undefined],
    ['unknown user', SCOPE, PASSWORD, { name: 'root', domain: { id: 'default' } }],
    ['user of another domain', SCOPE, PASSWORD, { name: 'admin', domain: { id: 'other' } }],
    ['user without a domain', SCOPE, PASSWORD, { name: 'admin' }],
    ['unknown project', { project: { name: 'other', domain: { id: 'default' } } }, PASSWORD, undefined],
    ['project without a domain', { project: { name: 'collie' } }, PASSWORD, undefined],
    ['scope of another kind', { system: { all: true } }, PASSWORD, undefined],
  ])('%s is 401 in the words of Keystone, and says no more', async (_, scope, password, user) => {
    const { status, body, headers } = await id.login(scope, password, user)
    expect(status).toBe(401)
    expect(body).toEqual({
      error: { code: 401, message: 'The request you have made requires authentication.', title: 'Unauthorized' },
    })
    expect(headers['www-authenticate']).toBe('Keystone uri="http://cloud.example:8776/identity"')
  })

  test.each([{}, null, [], { auth: {} }, { auth: { identity: { methods: [] } } }, { auth: 'x' }])(
    'a request of another form is 400 (%j)',
    async (body) => {
      const answer = await id.ask('POST', TOKENS, {
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json' },
      })
      expect(answer.status).toBe(400)
      expect(answer.body.error.title).toBe('Bad Request')
    },
  )

  test('attempts beyond what may wait are turned away, and the others are all answered', async () => {
    const answers = await Promise.all(Array.from({ length: 40 }, () => id.login(SCOPE, 'wrong')))
    const statuses = answers.map(({ status }) => status)
    expect(new Set(statuses)).toEqual(new Set([401, 503]))
    expect(statuses.filter((status) => status === 401)).toHaveLength(34)
    expect((await id.login()).status).toBe(201)
  })
})

describe('token', () => {
  test('is exchanged for one that ends with it', async () => {
    const first = await id.login('unscoped')
    await id.pass(1000)
    const body = { auth: { identity: { methods: ['token'], token: { id: first.token } }, scope: SCOPE } }
    const second = await id.ask('POST', TOKENS, { body })
    expect(second.body.token.methods).toEqual(['password', 'token'])
    expect(second.body.token.project.name).toBe('collie')
    expect(second.body.token.expires_at).toBe(first.body.token.expires_at)
    const unknown = { auth: { identity: { methods: ['token'], token: { id: 'x' } } } }
    expect((await id.ask('POST', TOKENS, { body: unknown })).status).toBe(401)
  })

  test('is shown, checked and revoked; revoked it is worth nothing at once', async () => {
    const { token } = await id.login()
    const { token: subject } = await id.login()
    const shown = await id.ask('GET', TOKENS, { token, subject })
    expect(shown.body.token.project.id).toBe(id.account.projectId)
    expect(shown.headers['x-subject-token']).toBe(subject)
    expect((await id.ask('GET', `${TOKENS}?nocatalog`, { token, subject })).body.token).not.toHaveProperty('catalog')
    expect((await id.ask('HEAD', TOKENS, { token, subject })).status).toBe(200)
    expect((await id.ask('DELETE', TOKENS, { token, subject })).status).toBe(204)
    expect((await id.ask('HEAD', TOKENS, { token, subject })).status).toBe(404)
    expect((await id.ask('GET', TOKENS, { token: subject, subject: token })).status).toBe(401)
    await expect(id.identity.authenticator.authenticate({ 'x-auth-token': subject })).rejects.toMatchObject({
      code: 'Unauthorized',
    })
  })

  test('ends after its life', async () => {
    const { token } = await id.login()
    await id.pass(TOKEN_LIFETIME_MS - 1)
    expect((await id.ask('GET', '/identity/v3/auth/catalog', { token })).status).toBe(200)
    await id.pass(2)
    expect((await id.ask('GET', '/identity/v3/auth/catalog', { token })).status).toBe(401)
  })

  test('of a service vouches for a call', async () => {
    const { token } = await id.login()
    const { authenticate } = id.identity.authenticator
    expect(await authenticate({ 'x-auth-token': token, 'x-service-token': token })).toMatchObject({ isService: true })
    expect(await authenticate({ 'x-auth-token': token, 'x-service-token': 'x' })).toMatchObject({ isService: false })
    expect(await authenticate({ 'x-auth-token': token })).toMatchObject({
      isService: false,
      roles: ['admin', 'member', 'reader'],
    })
  })
})

describe('what clients look up', () => {
  test('their project and user, and nobody else', async () => {
    const { token } = await id.login()
    const get = async (path: string) => id.ask('GET', `/identity/v3${path}`, { token })
    expect((await get(`/projects/${id.account.projectId}`)).body.project.name).toBe('collie')
    expect((await get('/projects?name=collie')).body.projects).toHaveLength(1)
    expect((await get('/projects?name=other')).body.projects).toHaveLength(0)
    expect((await get('/projects/collie')).body.error).toEqual({
      code: 404,
      message: 'Could not find project: collie.',
      title: 'Not Found',
    })
    expect((await get(`/users/${id.account.userId}`)).body.user.name).toBe('admin')
    expect((await get('/users/other')).status).toBe(404)
    expect((await id.ask('GET', '/identity/v3/projects')).status).toBe(401)
  })

  test('version documents of identity and image, without a token', async () => {
    const root = await id.ask('GET', '/identity')
    expect([root.status, root.body.versions.values[0].id]).toEqual([300, 'v3.14'])
    const v3 = await id.ask('GET', '/identity/v3')
    expect(v3.body.version.links[0].href).toBe('http://cloud.example:8776/identity/v3/')
    const image = await id.ask('GET', '/image/')
    expect([image.status, image.body.versions[0].status]).toEqual([300, 'CURRENT'])
    expect((await id.ask('GET', '/image/versions')).status).toBe(200)
  })
})
