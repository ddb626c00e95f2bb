import type { FastifyInstance } from 'fastify'
import { originOf } from '../../identity/origin.ts'
import { MAX_VERSION, MIN_VERSION } from '../microversion.ts'
import type { ApiSettings } from '../route.ts'

/** When upstream's API last changed; a client compares it with nothing but shows it. */
const UPDATED = '2023-08-31T00:00:00Z'

/**
 * The version documents, readable without a token: clients ask for them before they have one. The root answers 300
 * because it leads to choices, though there is only one.
 */
export function addVersions(app: FastifyInstance, settings: ApiSettings): void {
  for (const [url, status] of [
    ['/', 300],
    ['/v3', 200],
  ] as const) {
    app.get(url, (request, reply) =>
      reply.code(status).send(versionDocument(originOf(request.headers, settings.publicEndpoint))),
    )
  }
}

export function versionDocument(origin: string) {
  return {
    versions: [
      {
        id: 'v3.0',
        status: 'CURRENT',
        version: MAX_VERSION,
        min_version: MIN_VERSION,
        updated: UPDATED,
        links: [
          { rel: 'describedby', type: 'text/html', href: 'https://docs.openstack.org/' },
          { rel: 'self', href: `${origin}/v3/` },
        ],
        'media-types': [{ base: 'application/json', type: 'application/vnd.openstack.volume+json;version=3' }],
      },
    ],
  }
}
