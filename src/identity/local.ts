import { ServiceError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Random } from '../runtime/random.ts'
import { type Authenticator, headerOf } from './authenticator.ts'
import { DOMAIN, ROLES } from './constants.ts'
import type { LocalAccount } from './credentials.ts'
import { originOf } from './origin.ts'
import { createPasswordChecker } from './password.ts'
import { createTokenStore, type TokenStore, type TokenVault } from './tokens.ts'

/**
 * `auth: local`: one account with one project and all roles, enough for a cloud of one tenant and for trying out. More
 * tenants need a Keystone (`auth: keystone`).
 */
export interface LocalIdentity {
  account: LocalAccount
  authenticator: Authenticator
  /** Whether name and password are right; takes the same work whichever is wrong. */
  authenticate(user: UserReference, password: string): Promise<boolean>
  tokens: TokenStore
}

/** How a client names the user: by id, or by name within a domain. */
export interface UserReference {
  id?: string | undefined
  name?: string | undefined
  domain?: { id?: string | undefined; name?: string | undefined } | undefined
}

export function createLocalIdentity(options: {
  account: LocalAccount
  vault: TokenVault
  clock: Clock
  random: Random
  publicEndpoint: string | null
}): LocalIdentity {
  const { account, publicEndpoint } = options
  const passwords = createPasswordChecker()
  const tokens = createTokenStore(options)

  return {
    account,
    authenticator: {
      authenticate: async (headers) => {
        const session = await tokens.find(headerOf(headers, 'x-auth-token') ?? '')
        if (session === null) throw new ServiceError('Unauthorized')
        const serviceToken = headerOf(headers, 'x-service-token')
        const isService = serviceToken !== undefined && (await tokens.find(serviceToken))?.scoped === true
        return {
          userId: account.userId,
          projectId: session.scoped ? account.projectId : null,
          roles: session.scoped ? ROLES : [],
          // There is one account, and it may do everything: any valid token of it vouches.
          isService,
        }
      },
      challenge: (headers) => `Keystone uri="${originOf(headers, publicEndpoint)}/identity"`,
    },
    authenticate: async (user, password) => {
      const known =
        user.id === undefined ? user.name === account.userName && isDomain(user.domain) : user.id === account.userId
      const right = await passwords.check(password, account.passwordHash)
      return known && right
    },
    tokens,
  }
}

/** Whether a reference names the one domain. */
export function isDomain(domain: UserReference['domain']): boolean {
  if (domain === undefined) return false
  return domain.id === undefined ? domain.name === DOMAIN.name : domain.id === DOMAIN.id
}
