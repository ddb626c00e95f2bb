import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../runtime/clock.ts'
import type { Random } from '../runtime/random.ts'
import type { LocalAccount } from './credentials.ts'

/**
 * A token says itself what it is good for, under a signature whose key all processes share: none has to be kept, and each process
 * honours those of the others, also after a restart.
 *
 * ```
 * token     = payload "." signature                                  both base64url, 255 characters at most
 * payload   = JSON [1, id, issued at ms, expires at ms, scoped 0|1, method...]
 * signature = HMAC-SHA-256 of the payload as it is written
 * ```
 *
 * The key of the signature comes from the shared one and from the account: with another password or another account no token of
 * before counts. What is kept of a token is only, until it ends, that it was revoked: here at once, in other processes within
 * `REVOCATION_AGE_MS`.
 */
export interface Session {
  methods: string[]
  /** False for a token without a scope, which may list projects and be exchanged for one that has it. */
  scoped: boolean
  auditId: string
  /** Milliseconds since 1970. */
  issuedAt: number
  expiresAt: number
}

export interface TokenStore {
  /** A token got for another one, its parent, ends with it. */
  issue(session: {
    methods: string[]
    scoped: boolean
    parent: Session | null
  }): Promise<{ token: string; session: Session }>
  find(token: string): Promise<Session | null>
  /** Answers whether there was such a token. */
  revoke(token: string): Promise<boolean>
}

/** What all processes of one installation have in common. */
export interface TokenVault {
  /** `newKey` becomes the key when there is none yet. */
  read(newKey: string): Promise<{ key: string; revoked: readonly string[] }>
  /** `newKey` is for when too many tokens are revoked to remember each. */
  revoke(token: { id: string; expiresAtMs: number }, newKey: string): Promise<void>
}

export const TOKEN_LIFETIME_MS = 8 * 3600 * 1000

/** What was revoked in another process counts here after so long at the latest. */
export const REVOCATION_AGE_MS = 2000

const FORMAT = 1
const KEY_BYTES = 32
const TOKEN_CHARACTERS_MAX = 255

interface Known {
  signingKey: Buffer
  revoked: ReadonlySet<string>
  readAtMs: number
}

export function createTokenStore(options: {
  account: Pick<LocalAccount, 'userId' | 'passwordHash'>
  vault: TokenVault
  clock: Clock
  random: Random
}): TokenStore {
  const { account, vault, clock, random } = options
  let known: Known | null = null
  let reading: Promise<Known> | null = null

  const newKey = () => random.bytes(KEY_BYTES).toString('base64url')

  function current(): Known | Promise<Known> {
    if (known !== null && clock.monotonicMs() - known.readAtMs < REVOCATION_AGE_MS) return known
    if (reading !== null) return reading
    const mine: Promise<Known> = read().then(
      (answer) => {
        if (reading === mine) [known, reading] = [answer, null]
        return answer
      },
      (error: unknown) => {
        if (reading === mine) reading = null
        throw error
      },
    )
    reading = mine
    return mine
  }

  async function read(): Promise<Known> {
    const readAtMs = clock.monotonicMs()
    const { key, revoked } = await vault.read(newKey())
    const shared = Buffer.from(key, 'base64url')
    const signingKey = hmac(shared, `${account.userId} ${account.passwordHash}`)
    return { signingKey, revoked: new Set(revoked), readAtMs }
  }

  async function find(token: string): Promise<Session | null> {
    const { signingKey, revoked } = await current()
    const session = verified(token, signingKey)
    return session !== null && session.expiresAt > clock.now() && !revoked.has(session.auditId) ? session : null
  }

  return {
    issue: async ({ methods, scoped, parent }) => {
      const { signingKey } = await current()
      const issuedAt = clock.now()
      const session: Session = {
        methods,
        scoped,
        auditId: random.bytes(16).toString('base64url'),
        issuedAt,
        expiresAt: parent?.expiresAt ?? issuedAt + TOKEN_LIFETIME_MS,
      }
      return { token: signed(session, signingKey), session }
    },
    find,
    revoke: async (token) => {
      const session = await find(token)
      if (session === null) return false
      await vault.revoke({ id: session.auditId, expiresAtMs: session.expiresAt }, newKey())
      known = null
      reading = null // one that is under way may have begun before
      return true
    },
  }
}

function signed(session: Session, key: Buffer): string {
  const { auditId, issuedAt, expiresAt, scoped, methods } = session
  const fields = [FORMAT, auditId, issuedAt, expiresAt, scoped ? 1 : 0, ...methods]
  const payload = Buffer.from(JSON.stringify(fields)).toString('base64url')
  return `${payload}.${hmac(key, payload).toString('base64url')}`
}

/** What a token says; null unless somebody with the key wrote it. */
function verified(token: string, key: Buffer): Session | null {
  if (token.length > TOKEN_CHARACTERS_MAX) return null
  const [payload = '', signature = '', ...more] = token.split('.')
  const expected = Buffer.from(hmac(key, payload).toString('base64url'))
  const given = Buffer.from(signature)
  if (more.length > 0 || given.length !== expected.length || !timingSafeEqual(given, expected)) return null
  const [format, auditId, issuedAt, expiresAt, scoped, ...methods] = JSON.parse(
    Buffer.from(payload, 'base64url').toString(),
  )
  return format === FORMAT ? { auditId, issuedAt, expiresAt, scoped: scoped === 1, methods } : null
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}
