import { z } from 'zod'
import type { Clock } from '../runtime/clock.ts'
import type { HttpClient } from '../runtime/http-client.ts'
import { parseAnswer, postJson, shown } from './json-exchange.ts'

/** An account of this service in the cloud, for what users may not do themselves. */
export interface KeystoneAccount {
  /** Where Keystone is, up to and with `/v3`. */
  readonly url: string
  /** Its token, and where the catalog says that a service of that type is. The token is kept until shortly before it ends. */
  enter(serviceType: string): Promise<{ token: string; url: string | null }>
  /** The token was refused: it is not used again. */
  forget(token: string): void
}

export interface KeystoneAccountOptions {
  http: HttpClient
  clock: Pick<Clock, 'now'>
  authUrl: string
  userName: string
  password: string
  projectName: string
  userDomainName: string
  projectDomainName: string
  /** Of the endpoints in the catalog. */
  interface: 'public' | 'internal' | 'admin'
  /** Null: of any region. */
  regionName: string | null
  timeoutMs: number
  /** What is thrown when Keystone gives no token. */
  refusal: (reason: string) => Error
}

const TokenDocument = z.object({
  token: z.object({
    expires_at: z.iso.datetime({ offset: true }),
    catalog: z
      .array(
        z.object({
          type: z.string(),
          endpoints: z.array(
            z.object({
              interface: z.string(),
              region: z.string().nullish(),
              region_id: z.string().nullish(),
              url: z.string(),
            }),
          ),
        }),
      )
      .default([]),
  }),
})

interface Session {
  token: string
  expiresAtMs: number
  catalog: z.output<typeof TokenDocument>['token']['catalog']
}

/** A token that ends while a request is under way is of no use. */
const MARGIN_MS = 60_000

export function createKeystoneAccount(options: KeystoneAccountOptions): KeystoneAccount {
  const { http, clock, timeoutMs } = options
  const url = `${options.authUrl.replace(/\/+$/, '').replace(/\/v3$/, '')}/v3`
  let session: Session | null = null

  async function authenticate(): Promise<Session> {
    const answer = await postJson(http, 'Keystone', {
      url: `${url}/auth/tokens`,
      headers: {},
      timeoutMs,
      document: credentials(options),
    })
    const token = answer.headers['x-subject-token']
    const document = parseAnswer(TokenDocument, answer)
    if (answer.status !== 201 || typeof token !== 'string' || document === null) {
      const reason = `Keystone gives ${options.userName} no token: ${answer.status === 201 ? 'its answer has none' : shown(answer)}`
      throw options.refusal(reason)
    }
    const { expires_at, catalog } = document.token
    return { token, expiresAtMs: Date.parse(expires_at), catalog }
  }

  return {
    url,
    enter: async (serviceType) => {
      if (session === null || session.expiresAtMs - MARGIN_MS <= clock.now()) session = await authenticate()
      const { token, catalog } = session
      const endpoints = catalog.filter(({ type }) => type === serviceType).flatMap((service) => service.endpoints)
      const found = endpoints.find(
        (endpoint) =>
          endpoint.interface === options.interface &&
          (options.regionName === null || options.regionName === (endpoint.region_id ?? endpoint.region)),
      )
      return { token, url: found?.url ?? null }
    },
    forget: (token) => {
      if (session?.token === token) session = null
    },
  }
}

function credentials(options: KeystoneAccountOptions) {
  const { userName, password, projectName, userDomainName, projectDomainName } = options
  const user = { name: userName, password, domain: { name: userDomainName } }
  return {
    auth: {
      identity: { methods: ['password'], password: { user } },
      scope: { project: { name: projectName, domain: { name: projectDomainName } } },
    },
  }
}
