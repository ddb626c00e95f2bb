import { createHash } from 'node:crypto'
import type { Clock } from '../runtime/clock.ts'
import type { Random } from '../runtime/random.ts'

/**
 * Tokens are 256 random bits, known to this process by their hash only, and gone with it. That makes a revoked token
 * worthless at once and leaves nothing on disk to steal; after a restart clients get a 401 and authenticate again, which
 * keystoneauth does by itself. Looking one up costs a hash and a map.
 */
export interface Session {
  methods: string[]
  /** False for a token without a scope, which may list projects and be exchanged for one that has it. */
  scoped: boolean
  auditId: string
  /** Milliseconds since 1970, for people to read. */
  issuedAt: number
  expiresAt: number
  /** The end on the clock that never goes back, which is the one that counts. */
  deadlineMs: number
}

export interface TokenStore {
  /** A token got for another one, its parent, ends with it. */
  issue(session: { methods: string[]; scoped: boolean; parent: Session | null }): { token: string; session: Session }
  find(token: string): Session | null
  /** Answers whether there was such a token. */
  revoke(token: string): boolean
}

export const TOKEN_LIFETIME_MS = 8 * 3600 * 1000

/** Sessions kept at once; beyond it the oldest ends early, and its client authenticates again. */
export const SESSIONS_MAX = 10_000

const TOKEN_BYTES = 32

export function createTokenStore({ clock, random }: { clock: Clock; random: Random }): TokenStore {
  const sessions = new Map<string, Session>() // in order of issue, so the first is the oldest
  return {
    issue: ({ methods, scoped, parent }) => {
      const issuedAt = clock.now()
      const nowMs = clock.monotonicMs()
      const session: Session = {
        methods,
        scoped,
        auditId: random.bytes(16).toString('base64url'),
        issuedAt,
        expiresAt: parent?.expiresAt ?? issuedAt + TOKEN_LIFETIME_MS,
        deadlineMs: parent?.deadlineMs ?? nowMs + TOKEN_LIFETIME_MS,
      }
      const token = random.bytes(TOKEN_BYTES).toString('base64url')
      sessions.set(hashOf(token), session)
      for (const [hash, oldest] of sessions) {
        if (sessions.size <= SESSIONS_MAX && oldest.deadlineMs > nowMs) break
        sessions.delete(hash)
      }
      return { token, session }
    },
    find: (token) => {
      const session = sessions.get(hashOf(token))
      return session !== undefined && session.deadlineMs > clock.monotonicMs() ? session : null
    },
    revoke: (token) => sessions.delete(hashOf(token)),
  }
}

function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('base64')
}
