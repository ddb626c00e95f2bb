import type { FastifyInstance } from 'fastify'
import { originOf } from '../../identity/origin.ts'
import { MAX_VERSION, MIN_VERSION } from '../microversion.ts'
import type { ApiSettings } from '../route.ts'
import { addVersionHeaders } from '../visit.ts'

/** When upstream's API last changed; a client compares it with nothing but shows it. */
const UPDATED = '2023-08-31T00:00:00Z'

/**
 * The root, readable without a token: clients ask for it before they have one. It answers 300 because it leads to choices,
 * though there is only one.
 */
export function addVersions(app: FastifyInstance, settings: ApiSettings): void {
  app.get('/', (request, reply) => {
    addVersionHeaders(request, reply)
    return reply.code(300).send(versionDocument(originOf(request.headers, settings.publicEndpoint)))
  })
}

/** The same document within the API, behind its door as everything there; without its last slash the path leads to the one with it. */
export function addVersion(v3: FastifyInstance, settings: ApiSettings): void {
  v3.get('/', (request, reply) => {
    const origin = originOf(request.headers, settings.publicEndpoint)
    if (request.url.split('?')[0]!.endsWith('/')) return versionDocument(origin)
    return reply.code(302).header('location', `${origin}/v3/`).type('text/plain; charset=utf8').send('')
  })
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
