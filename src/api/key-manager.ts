import { STATUS_CODES } from 'node:http'
import type { FastifyInstance } from 'fastify'
import type { Authenticator } from '../identity/authenticator.ts'
import { originOf } from '../identity/origin.ts'
import type { Log } from '../runtime/log.ts'
import type { KeyMetadata, KeyService } from '../services/services.ts'
import { faultOf } from './faults.ts'
import type { Policy } from './policy.ts'
import type { ApiSettings } from './route.ts'
import { addContextDoor, visitOf } from './visit.ts'

export const KEY_MANAGER_PATH = '/key-manager'

const PAYLOAD_TYPE = 'application/octet-stream'

/**
 * As much of Barbican's API (version 1.0) as whoever opens an encrypted volume asks for: Nova's castellan reads a secret and its payload, that
 * of Glance deletes the secret of an image. Nobody stores or lists secrets here, so this is no Barbican; it is there because Nova asks no
 * other kind of service for a key that is kept here.
 *
 *     GET /key-manager, /key-manager/v1          versions, without a token
 *     GET /key-manager/v1/secrets/{id}           what it is
 *     GET /key-manager/v1/secrets/{id}/payload   its bytes
 *     DELETE /key-manager/v1/secrets/{id}
 */
export function addKeyManager(
  app: FastifyInstance,
  options: { keys: KeyService; authenticator: Authenticator; policy: Policy; settings: ApiSettings; log: Log },
): void {
  const { keys, authenticator, policy, settings, log } = options
  app.register(
    async (door) => {
      door.setErrorHandler((error, request, reply) => {
        const { status, unexpected } = faultOf(error)
        if (unexpected) log.error({ err: error, request_id: request.id }, 'a request for a key failed')
        if (status === 401) reply.header('www-authenticate', authenticator.challenge(request.headers))
        const description = unexpected ? 'The key could not be read.' : (error as Error).message
        return reply.code(status).send({ code: status, title: STATUS_CODES[status], description })
      })
      door.setNotFoundHandler((_request, reply) =>
        reply.code(404).send({ code: 404, title: 'Not Found', description: 'There is no such path.' }),
      )
      const origin = (headers: Parameters<typeof originOf>[0]) =>
        originOf(headers, settings.publicEndpoint) + KEY_MANAGER_PATH
      door.get('/', ({ headers }, reply) =>
        reply.code(300).send({ versions: { values: [versionAt(origin(headers))] } }),
      )
      door.get('/v1', ({ headers }) => ({ version: versionAt(origin(headers)) }))
      door.register(async (v1) => {
        addContextDoor(v1, authenticator, policy)
        v1.get<{ Params: { id: string } }>('/v1/secrets/:id', async (request) => {
          const key = await keys.get(visitOf(request).context, request.params.id)
          return secretView(key, origin(request.headers))
        })
        v1.get<{ Params: { id: string } }>('/v1/secrets/:id/payload', async (request, reply) => {
          const { secret } = await keys.payload(visitOf(request).context, request.params.id)
          return reply.type(PAYLOAD_TYPE).header('cache-control', 'no-store').send(secret)
        })
        v1.delete<{ Params: { id: string } }>('/v1/secrets/:id', async (request, reply) => {
          await keys.delete(visitOf(request).context, request.params.id)
          return reply.code(204).send()
        })
      })
    },
    { prefix: KEY_MANAGER_PATH },
  )
}

function versionAt(origin: string) {
  return {
    id: 'v1',
    status: 'stable',
    links: [{ rel: 'self', href: `${origin}/v1/` }],
    'media-types': [{ base: 'application/json', type: 'application/vnd.openstack.key-manager-v1+json' }],
  }
}

function secretView({ id, algorithm, bitLength, userId, createdAt }: KeyMetadata, origin: string) {
  return {
    name: id, // barbicanclient asks again, for every property, while a secret has no name
    secret_type: 'symmetric',
    algorithm,
    bit_length: bitLength,
    mode: null,
    status: 'ACTIVE',
    creator_id: userId,
    content_types: { default: PAYLOAD_TYPE },
    expiration: null,
    created: createdAt,
    updated: createdAt,
    secret_ref: `${origin}/v1/secrets/${id}`,
  }
}
