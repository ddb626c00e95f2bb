import type { FastifyInstance } from 'fastify'
import { originOf } from './origin.ts'

/** The version of Keystone's API whose subset this is. */
const IDENTITY_VERSION = 'v3.14'
const IMAGE_VERSIONS = ['v2.9', 'v2.7', 'v2.6', 'v2.5', 'v2.4', 'v2.3', 'v2.2', 'v2.1', 'v2.0']

/** The version documents of identity: 300 at its root, 200 below `/v3`. */
export function addIdentityVersions(app: FastifyInstance, publicEndpoint: string | null): void {
  const document = (origin: string) => ({
    id: IDENTITY_VERSION,
    status: 'stable',
    updated: '2020-04-07T00:00:00Z',
    links: [{ rel: 'self', href: `${origin}/identity/v3/` }],
    'media-types': [{ base: 'application/json', type: 'application/vnd.openstack.identity-v3+json' }],
  })
  app.get('/', (request, reply) =>
    reply.code(300).send({ versions: { values: [document(originOf(request.headers, publicEndpoint))] } }),
  )
  app.get('/v3', (request) => ({ version: document(originOf(request.headers, publicEndpoint)) }))
}

/**
 * The version document of an image service that is not there: openstackclient reads it before it creates a volume,
 * from an image or not. Everything else below `/image` is 404.
 */
export function addImageDiscovery(app: FastifyInstance, publicEndpoint: string | null): void {
  const document = (origin: string) => ({
    versions: IMAGE_VERSIONS.map((id, index) => ({
      id,
      status: index === 0 ? 'CURRENT' : 'SUPPORTED',
      links: [{ rel: 'self', href: `${origin}/image/v2/` }],
    })),
  })
  for (const [url, status] of [
    ['/image', 300],
    ['/image/versions', 200],
  ] as const) {
    app.get(url, (request, reply) => reply.code(status).send(document(originOf(request.headers, publicEndpoint))))
  }
}
