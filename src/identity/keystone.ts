import { ServiceError } from '../errors.ts'
import type { KeystoneTokens } from '../keystone/tokens.ts'
import type { Log } from '../runtime/log.ts'
import { type Authenticator, headerOf } from './authenticator.ts'

/** `auth: keystone`: tokens are those of a cloud's Keystone, which is asked about each. */
export function createKeystoneAuthenticator(options: {
  tokens: KeystoneTokens
  /** Who has one of these roles is a service, and vouches for what it passes on. */
  serviceRoles: readonly string[]
  /** Where clients get tokens. */
  publicUrl: string
  log: Pick<Log, 'error'>
}): Authenticator {
  const { serviceRoles, publicUrl, log } = options

  async function find(token: string, allowExpired: boolean) {
    try {
      return await options.tokens.find(token, { allowExpired })
    } catch (error) {
      if (!(error instanceof ServiceError) || error.code !== 'ServiceUnavailable') throw error
      log.error({ err: error }, 'a token cannot be validated')
      // Where Keystone is, and what it says to this service, is nobody's business outside.
      throw new ServiceError('ServiceUnavailable', { reason: 'The identity service cannot validate tokens now.' })
    }
  }

  return {
    authenticate: async (headers) => {
      const token = headerOf(headers, 'x-auth-token')
      if (!token) throw new ServiceError('Unauthorized')
      const serviceToken = headerOf(headers, 'x-service-token')
      const service = serviceToken === undefined ? null : await find(serviceToken, false)
      if (serviceToken !== undefined && service === null) throw new ServiceError('Unauthorized')
      const isService = service?.roles.some((role) => serviceRoles.includes(role)) === true
      const user = await find(token, isService)
      if (user === null) throw new ServiceError('Unauthorized')
      return { ...user, isService }
    },
    challenge: () => `Keystone uri="${publicUrl}"`,
  }
}
