import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ServiceError } from '../../src/errors.ts'
import { createKeystoneAccount } from '../../src/keystone/account.ts'
import { createKeystoneTokens, type KeystoneTokens } from '../../src/keystone/tokens.ts'
import { systemHttp } from '../../src/runtime/http-client.ts'
import { ManualClock } from '../tools/manual-clock.ts'

/** When Keystone is asked and what is made of its answers; that a real one answers so is tried in test/e2e/keystone.test.ts. */

const CACHE_MS = 60_000
const MINUTE_MS = 60_000

let server: http.Server
let clock: ManualClock
let tokens: KeystoneTokens
/** Validations that were asked for, in order: path and token. */
let asked: { path: string; subject: string; own: string }[]
let ownTokens: number
/** Own tokens that are good. */
let good: Set<string>
/** What is answered about a token of others; 404 for all that are not here. */
let known: Map<string, { status: number; document?: unknown }>
let hold: Promise<void> | null

beforeEach(async () => {
  clock = new ManualClock()
  asked = []
  ownTokens = 0
  good = new Set()
  known = new Map()
  hold = null
  server = http.createServer((request, response) => void answer(request, response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  tokens = client()
})
afterEach(() => {
  server.closeAllConnections()
  server.close()
})

function client(): KeystoneTokens {
  const exchange = { http: systemHttp, clock, timeoutMs: 20_000 }
  const account = createKeystoneAccount({
    ...exchange,
    authUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v3`,
    userName: 'cinder',
    password: 'secret',
    projectName: 'service',
    userDomainName: 'Default',
    projectDomainName: 'Default',
    interface: 'public',
    regionName: null,
    refusal: (reason) => new ServiceError('ServiceUnavailable', { reason }),
  })
  return createKeystoneTokens({ ...exchange, account, cacheMs: CACHE_MS })
}

async function answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
  const send = (status: number, document: unknown, headers = {}) =>
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(document))
  if (request.method === 'POST') {
    const own = `own-${++ownTokens}`
    good.add(own)
    const expires_at = new Date(clock.now() + 60 * MINUTE_MS).toISOString()
    return void send(201, { token: { expires_at } }, { 'x-subject-token': own })
  }
  const own = String(request.headers['x-auth-token'])
  const subject = String(request.headers['x-subject-token'])
  asked.push({ path: request.url!, subject, own })
  await hold
  if (!good.has(own)) return void send(401, { error: { code: 401 } })
  const { status, document } = known.get(subject) ?? { status: 404 }
  send(status, document ?? { error: { code: status } })
}

/** A token of a project, which ends in an hour unless told otherwise. */
function issue(token: string, changes: object = {}): void {
  const document = {
    expires_at: new Date(clock.now() + 60 * MINUTE_MS).toISOString(),
    user: { id: 'u1', name: 'demo' },
    project: { id: 'p1', name: 'demo' },
    roles: [
      { id: 'r1', name: 'member' },
      { id: 'r2', name: 'reader' },
    ],
    ...changes,
  }
  known.set(token, { status: 200, document: { token: document } })
}

const find = (token: string, allowExpired = false) => tokens.find(token, { allowExpired })
const unavailable = expect.objectContaining({ code: 'ServiceUnavailable' })

describe('a token', () => {
  it('is whom Keystone says, asked with an own token that is used again', async () => {
    issue('abc')
    issue('of-a-domain', { project: undefined, domain: { id: 'default' } })
    expect(await find('abc')).toEqual({ userId: 'u1', projectId: 'p1', roles: ['member', 'reader'] })
    expect(await find('of-a-domain')).toMatchObject({ projectId: null })
    expect(asked.map(({ path, own }) => [path, own])).toEqual([
      ['/v3/auth/tokens?nocatalog', 'own-1'],
      ['/v3/auth/tokens?nocatalog', 'own-1'],
    ])
  })

  it('is asked about once by many, and again when it has been known for long enough', async () => {
    issue('abc')
    await Promise.all(Array.from({ length: 20 }, () => find('abc')))
    clock.advance(CACHE_MS - 1)
    await find('abc')
    expect(asked).toHaveLength(1)
    clock.advance(1)
    await find('abc')
    expect(asked).toHaveLength(2)
  })

  it('that has been revoked is taken for as long as it is remembered, and no longer', async () => {
    issue('abc')
    await find('abc')
    known.delete('abc')
    clock.advance(CACHE_MS - 1)
    expect(await find('abc')).not.toBeNull()
    clock.advance(1)
    expect(await find('abc')).toBeNull()
  })

  it('ends when it says, though it is remembered', async () => {
    issue('abc', { expires_at: new Date(clock.now() + 1000).toISOString() })
    expect(await find('abc')).not.toBeNull()
    known.delete('abc')
    clock.advance(1000)
    expect(await find('abc')).toBeNull()
  })

  it('that is over is taken where a service goes on with it, by an answer of its own', async () => {
    issue('abc', { expires_at: new Date(clock.now() - 1000).toISOString() })
    expect(await find('abc', true)).toMatchObject({ userId: 'u1' })
    expect(await find('abc')).toBeNull()
    expect(asked.map(({ path }) => path)).toEqual([
      '/v3/auth/tokens?nocatalog&allow_expired=1',
      '/v3/auth/tokens?nocatalog',
    ])
  })

  it('that is unknown is asked about every few seconds', async () => {
    expect(await find('new')).toBeNull()
    issue('new')
    expect(await find('new')).toBeNull()
    clock.advance(5000)
    expect(await find('new')).not.toBeNull()
    expect(asked).toHaveLength(2)
  })

  it('that is none is not asked about', async () => {
    for (const token of ['', 'a b', 'a\nb', 'ä', 'x'.repeat(8193)]) expect(await find(token)).toBeNull()
    expect(asked).toEqual([])
  })
})

describe('Keystone', () => {
  it('that has revoked the own token is asked again with a new one', async () => {
    issue('abc')
    issue('def')
    await find('abc')
    good.clear()
    expect(await find('def')).not.toBeNull()
    expect(asked.map(({ own }) => own)).toEqual(['own-1', 'own-1', 'own-2'])
  })

  it.each([
    ['does not let the account validate', { status: 403 }],
    ['is out of order', { status: 503 }],
    ['says what is no answer', { status: 200, document: { token: {} } }],
  ])('%s: that is no word about the token, and not remembered', async (_, said) => {
    known.set('abc', said)
    await expect(find('abc')).rejects.toEqual(unavailable)
    issue('abc')
    expect(await find('abc')).not.toBeNull()
  })

  it('is away: what is remembered goes on', async () => {
    issue('abc')
    await find('abc')
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    expect(await find('abc')).not.toBeNull()
    await expect(find('def')).rejects.toEqual(unavailable)
    clock.advance(CACHE_MS)
    await expect(find('abc')).rejects.toEqual(unavailable)
  })

  it('is asked 256 questions at a time, however many there are', async () => {
    let release = (): void => {}
    hold = new Promise((resolve) => {
      release = resolve
    })
    const answers = Array.from({ length: 300 }, (_, index) => find(`t${index}`).then(String, (error) => error.code))
    const refused = await Promise.all(answers.slice(256))
    expect(new Set(refused)).toEqual(new Set(['ServiceUnavailable']))
    release()
    expect(new Set(await Promise.all(answers.slice(0, 256)))).toEqual(new Set(['null']))
  })
})
