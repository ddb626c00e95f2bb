import { ServiceError } from '../../errors.ts'
import type { KeystoneAccount } from '../../keystone/account.ts'
import type { ObjectPorts } from './object-requests.ts'
import { createObjectRequests } from './object-requests.ts'

/** Where the account of this service is in Swift, and what opens it. */
export interface SwiftLogin {
  /** What opened it before is kept until `forget`. `url` has no `/` at its end. */
  enter(): Promise<{ url: string; token: string }>
  forget(token: string): void
}

/** With a token of Keystone. `url` is that of the account, when not where the catalog says. */
export function keystoneLogin(account: KeystoneAccount, url: string | null): SwiftLogin {
  return {
    enter: async () => {
      const found = await account.enter('object-store')
      const place = url ?? found.url
      if (place === null) {
        const reason =
          "the backup target: Keystone's catalog has no object-store for backup_swift.interface and .region"
        throw new ServiceError('BackendFailure', { reason })
      }
      return { url: place.replace(/\/+$/, ''), token: found.token }
    },
    forget: (token) => account.forget(token),
  }
}

/** As Swift's own tempauth and other stores have it: a user and a key in headers ("v1 auth"). */
export function legacyLogin(
  ports: ObjectPorts,
  options: { authUrl: string; user: string; key: string; url: string | null; timeoutMs: number },
): SwiftLogin {
  const who = `Swift's login at ${options.authUrl}`
  const requests = createObjectRequests(ports, { who, timeoutMs: options.timeoutMs })
  let session: { url: string; token: string } | null = null

  async function logIn(): Promise<{ url: string; token: string }> {
    const headers = { 'x-auth-user': options.user, 'x-auth-key': options.key }
    const { status, headers: told } = await requests.send(async () => ({
      method: 'GET',
      url: options.authUrl,
      headers,
    }))
    const url = options.url ?? told['x-storage-url']
    const token = told['x-auth-token']
    if (status >= 300 || typeof url !== 'string' || typeof token !== 'string') {
      const reason = `the backup target: ${who} gives no token for backup_swift.username with backup_swift.password (status ${status})`
      throw new ServiceError('BackendFailure', { reason })
    }
    return { url: url.replace(/\/+$/, ''), token }
  }

  return {
    enter: async () => {
      session ??= await logIn()
      return session
    },
    forget: (token) => {
      if (session?.token === token) session = null
    },
  }
}
