import type { IncomingHttpHeaders } from 'node:http'

/** Who a valid token speaks for. */
export interface Principal {
  userId: string
  /** Null for a token without a scope: valid, but of no use for block storage. */
  projectId: string | null
  roles: readonly string[]
  /** True when a service (Nova) vouches for the call with a valid X-Service-Token. */
  isService: boolean
}

/** One per `auth` setting: local, keystone, noauth. */
export interface Authenticator {
  /** Rejects with ServiceError Unauthorized when the token is missing, unknown, expired or revoked. */
  authenticate(headers: IncomingHttpHeaders): Promise<Principal>
  /** The WWW-Authenticate header of a 401: where the client gets a token. */
  challenge(headers: IncomingHttpHeaders): string
}

export function headerOf(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value[0] : value
}
