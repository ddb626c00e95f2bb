import { fastify } from 'fastify'
import { parseJson } from '../../src/api/json.ts'
import { openDatabase } from '../../src/db/database.ts'
import { createTokenVault } from '../../src/db/tokens.ts'
import { createLocalIdentity } from '../../src/identity/local.ts'
import { hashPassword } from '../../src/identity/password.ts'
import { addLocalIdentity } from '../../src/identity/routes.ts'
import { addImageDiscovery } from '../../src/identity/versions.ts'
import { SimClock } from '../sim/clock.ts'
import { SeededRandom } from '../sim/random.ts'

export const PASSWORD = 'correct horse'

/** The local identity on virtual time, with one account whose password is PASSWORD. */
export async function createIdentityHarness() {
  const random = new SeededRandom(1)
  const sim = new SimClock(random)
  const clock = sim.mount()
  const account = {
    userId: 'a'.repeat(32),
    userName: 'admin',
    projectId: 'b'.repeat(32),
    projectName: 'collie',
    passwordHash: await hashPassword(PASSWORD, random),
  }
  const db = await openDatabase({ file: ':memory:' })
  const vault = createTokenVault(db, clock)
  const identity = createLocalIdentity({ account, vault, clock, random, publicEndpoint: null })
  const app = fastify({ routerOptions: { ignoreTrailingSlash: true } })
  app.removeContentTypeParser('application/json')
  app.addContentTypeParser('application/json', { parseAs: 'string' }, async (_: unknown, source: unknown) =>
    parseJson(String(source)),
  )
  addLocalIdentity(app, identity, { publicEndpoint: null, imageUrl: null })
  addImageDiscovery(app, null)
  await app.ready()

  const ask = async (method: 'GET' | 'HEAD' | 'POST' | 'DELETE', url: string, options: Ask = {}) => {
    const { body, token, subject, headers } = options
    const answer = await app.inject({
      method,
      url,
      headers: {
        host: 'cloud.example:8776',
        ...(token === undefined ? {} : { 'x-auth-token': token }),
        ...(subject === undefined ? {} : { 'x-subject-token': subject }),
        ...headers,
      },
      ...(body === undefined ? {} : { payload: body as object }),
    })
    return {
      status: answer.statusCode,
      headers: answer.headers,
      body: answer.body === '' ? null : answer.json(),
      token: String(answer.headers['x-subject-token']),
    }
  }
  return {
    account,
    identity,
    ask,
    login: (scope: unknown = SCOPE, password = PASSWORD, user: object = USER) =>
      ask('POST', '/identity/v3/auth/tokens', {
        body: { auth: { identity: { methods: ['password'], password: { user: { ...user, password } } }, scope } },
      }),
    pass: (milliseconds: number) => sim.run(clock.sleep(milliseconds)),
    close: async () => {
      await app.close()
      await db.destroy()
    },
  }
}

interface Ask {
  body?: unknown
  token?: string
  subject?: string
  headers?: Record<string, string>
}

export const USER = { name: 'admin', domain: { id: 'default' } }
export const SCOPE = { project: { name: 'collie', domain: { name: 'Default' } } }
