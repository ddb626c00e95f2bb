import { ServiceError } from '../errors.ts'
import { type Authenticator, headerOf } from './authenticator.ts'
import { originOf } from './origin.ts'

/**
 * `auth: noauth`: the token is `user:project` and is believed, every caller is an administrator. For trials on loopback
 * only, which the settings enforce.
 */
export function createNoauth({ publicEndpoint }: { publicEndpoint: string | null }): Authenticator {
  return {
    authenticate: async (headers) => {
      const token = headerOf(headers, 'x-auth-token')
      if (!token) throw new ServiceError('Unauthorized')
      const [userId = '', projectId = ''] = token.split(':')
      return {
        userId,
        projectId: projectId || userId,
        roles: ['admin', 'member', 'reader'],
        isService: headerOf(headers, 'x-service-token') !== undefined,
      }
    },
    challenge: (headers) => `Keystone uri="${originOf(headers, publicEndpoint)}"`,
  }
}
