import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import { booleanParameter, text } from '../fields.ts'
import { defineRoute, type Route } from '../route.ts'

/**
 * Upstream's clusters are volume services that share a backend. Here whoever runs the API may drive every backend, and
 * there is nothing to be grouped: the list is empty, and no name is found.
 */
const FILTERS = ['name', 'binary', 'is_up', 'disabled', 'num_hosts', 'num_down_hosts']
const REPLICATION_FILTERS = ['replication_status', 'frozen', 'active_backend_id']

const NoClusters = z.object({ clusters: z.array(z.never()) })
const name = text(255).trim().min(1)

export const clusterRoutes: Route[] = [
  ...(['', '/detail'] as const).map((path) =>
    defineRoute({
      method: 'GET',
      url: `/clusters${path}`,
      operation: path === '' ? 'list_clusters' : 'list_clusters_detail',
      summary: 'List clusters of services, of which there are none',
      since: '3.7',
      policy: 'clusters:get_all',
      query: z.object({ is_up: booleanParameter('is_up'), disabled: booleanParameter('disabled') }).loose(),
      response: NoClusters,
      handler: ({ query, supports }) => {
        const allowed = supports('3.26') ? [...FILTERS, ...REPLICATION_FILTERS] : FILTERS
        const unknown = Object.keys(query).filter((key) => !allowed.includes(key))
        if (unknown.length > 0) {
          const reason = `Invalid input received: Invalid filter keys: ${unknown.join(', ').slice(0, 200)}`
          throw new ServiceError('InvalidInput', { reason })
        }
        return { clusters: [] }
      },
    }),
  ),
  defineRoute({
    method: 'GET',
    url: '/clusters/:name',
    operation: 'show_cluster',
    summary: 'Show a cluster of services, of which there are none',
    since: '3.7',
    policy: 'clusters:get',
    response: z.never(),
    handler: ({ params }): never => notFound(params.name),
  }),
  defineRoute({
    method: 'PUT',
    url: '/clusters/enable',
    operation: 'enable_cluster',
    summary: 'Enable a cluster of services, of which there are none',
    since: '3.7',
    policy: 'clusters:update',
    body: z.strictObject({ name, binary: text(255).nullish() }),
    response: z.never(),
    handler: ({ body }): never => notFound(body.name),
  }),
  defineRoute({
    method: 'PUT',
    url: '/clusters/disable',
    operation: 'disable_cluster',
    summary: 'Disable a cluster of services, of which there are none',
    since: '3.7',
    policy: 'clusters:update',
    body: z.strictObject({ name, binary: text(255).nullish(), disabled_reason: text(255).trim().min(1).nullish() }),
    response: z.never(),
    handler: ({ body }): never => notFound(body.name),
  }),
]

function notFound(id: string): never {
  throw new ServiceError('ClusterNotFound', { id })
}
