import { createHash } from 'node:crypto'
import { z } from 'zod'
import { ServiceError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import type { HttpClient } from '../runtime/http-client.ts'
import type { KeystoneAccount } from './account.ts'
import { getJson, type JsonAnswer, parseAnswer, shown, unavailable } from './json-exchange.ts'

/** Whom a token speaks for: of Keystone's document, what is asked for here. */
export interface Token {
  userId: string
  /** Null for tokens of a domain, of the system, or of no scope. */
  projectId: string | null
  roles: readonly string[]
}

/** Validates tokens of others: `GET /v3/auth/tokens` (Identity API v3, "Validate and show information for token"). */
export interface KeystoneTokens {
  /**
   * Null for a token that is unknown, revoked or over; `allowExpired` takes one that ended a while ago too (Keystone knows for how
   * long), for work that a service goes on with. Rejects with ServiceUnavailable while Keystone cannot say.
   */
  find(token: string, options: { allowExpired: boolean }): Promise<Token | null>
}

const TokenDocument = z.object({
  token: z.object({
    expires_at: z.iso.datetime({ offset: true }),
    user: z.object({ id: z.string() }),
    project: z.object({ id: z.string() }).optional(),
    roles: z.array(z.object({ name: z.string() })).default([]),
  }),
})

/** Answers that are remembered. One is some hundred bytes. */
const KNOWN_MAX = 10_000
/** Requests to Keystone at a time, beyond which it is not asked: who invents tokens must not fill the memory. */
const ASKING_MAX = 256
/** A token that Keystone does not know is asked about again after this: it may be one of a Keystone that is behind another. */
const UNKNOWN_MS = 5000
/** What a header may carry, and more than any token has. */
const TOKEN_FORM = /^[\x21-\x7e]{1,8192}$/

interface Known {
  token: Token | null
  /** On the wall clock, since the end of a token is. */
  untilMs: number
}

export function createKeystoneTokens(options: {
  http: HttpClient
  clock: Pick<Clock, 'now'>
  /** Which may validate tokens: a role `service` or `admin` in Keystone's default rules. */
  account: KeystoneAccount
  /** For so long at most a token is believed that has been revoked meanwhile. */
  cacheMs: number
  timeoutMs: number
}): KeystoneTokens {
  const { http, clock, account, cacheMs, timeoutMs } = options
  /** By the hash of the token, oldest answer first. What is in here is of no use to who reads the memory. */
  const known = new Map<string, Known>()
  const asking = new Map<string, Promise<Token | null>>()

  async function ask(subject: string, allowExpired: boolean): Promise<JsonAnswer> {
    const { token: own } = await account.enter('identity')
    const url = `${account.url}/auth/tokens?nocatalog${allowExpired ? '&allow_expired=1' : ''}`
    const headers = { 'x-auth-token': own, 'x-subject-token': subject }
    const answer = await getJson(http, 'Keystone', { url, headers, timeoutMs })
    if (answer.status === 401) account.forget(own)
    return answer
  }

  async function validate(subject: string, allowExpired: boolean): Promise<Known> {
    let answer = await ask(subject, allowExpired)
    if (answer.status === 401) answer = await ask(subject, allowExpired) // the own token had been revoked
    const now = clock.now()
    if (answer.status === 404) return { token: null, untilMs: now + UNKNOWN_MS }
    const document = answer.status === 200 ? parseAnswer(TokenDocument, answer) : null
    if (document === null)
      throw unavailable('Keystone', `it does not validate tokens for this service: ${shown(answer)}`)
    const { expires_at, user, project, roles } = document.token
    const endsMs = allowExpired ? Number.POSITIVE_INFINITY : Date.parse(expires_at)
    if (endsMs <= now) return { token: null, untilMs: now + UNKNOWN_MS }
    const token = { userId: user.id, projectId: project?.id ?? null, roles: roles.map(({ name }) => name) }
    return { token, untilMs: Math.min(endsMs, now + cacheMs) }
  }

  function remember(key: string, answer: Known): void {
    known.delete(key)
    if (known.size >= KNOWN_MAX) known.delete(known.keys().next().value!)
    known.set(key, answer)
  }

  return {
    find: async (subject, { allowExpired }) => {
      if (!TOKEN_FORM.test(subject)) return null
      const key = createHash('sha256').update(subject).digest('base64') + (allowExpired ? '+' : '')
      const answer = known.get(key)
      if (answer !== undefined && clock.now() < answer.untilMs) return answer.token
      const underWay = asking.get(key)
      if (underWay !== undefined) return underWay
      if (asking.size >= ASKING_MAX) {
        throw new ServiceError('ServiceUnavailable', { reason: 'Too many tokens are being validated.' })
      }
      const asked = validate(subject, allowExpired)
        .then((found) => {
          remember(key, found)
          return found.token
        })
        .finally(() => asking.delete(key))
      asking.set(key, asked)
      return asked
    },
  }
}
