import { z } from 'zod'
import { badRequest } from '../../errors.ts'
import { text } from '../fields.ts'
import { defineRoute, type Route } from '../route.ts'

const HostView = z.object({
  host_name: z.string(),
  service: z.string(),
  zone: z.string(),
  'service-status': z.enum(['available', 'unavailable']),
  'service-state': z.enum(['enabled', 'disabled']),
  'last-update': z.string().nullable(),
})

/** Numbers are texts, as upstream answers them. */
const Resource = z.object({
  resource: z.object({
    host: z.string(),
    project: z.string(),
    volume_count: z.string(),
    total_volume_gb: z.string(),
    snapshot_count: z.string(),
    total_snapshot_gb: z.string(),
  }),
})

const policy = 'volume_extension:hosts'

export const hostRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/os-hosts',
    operation: 'list_hosts',
    summary: 'List the hosts of enabled services',
    policy,
    query: z.object({ zone: text(255).optional() }),
    response: z.object({ hosts: z.array(HostView) }),
    handler: async ({ services, context, query }) => {
      const hosts = await services.backends.hosts(context, query.zone || null)
      return {
        hosts: hosts.map((service) => ({
          host_name: service.host,
          service: service.binary,
          zone: service.zone,
          'service-status': service.up ? ('available' as const) : ('unavailable' as const),
          'service-state': service.disabled ? ('disabled' as const) : ('enabled' as const),
          'last-update': service.updatedAt,
        })),
      }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/os-hosts/:host',
    operation: 'show_host',
    summary: 'Show what is on a backend, in all and by project',
    policy,
    response: z.object({ host: z.array(Resource) }),
    handler: async ({ services, context, params }) => {
      const resources = await services.backends.hostResources(context, params.host)
      return {
        host: resources.map((one) => ({
          resource: {
            host: params.host,
            project: one.projectId,
            volume_count: String(one.volumes),
            total_volume_gb: String(one.volumesGib),
            snapshot_count: String(one.snapshots),
            total_snapshot_gb: String(one.snapshotsGib),
          },
        })),
      }
    },
  }),
  defineRoute({
    method: 'PUT',
    url: '/os-hosts/:host',
    operation: 'update_host',
    summary: 'Enable or disable the service of a host',
    policy,
    body: z.record(text(255), text(255)),
    response: z.object({ host: z.string().optional(), status: z.string().optional() }),
    handler: async ({ services, context, params, body }) => {
      const answer: { host?: string; status?: string } = {}
      for (const [key, value] of Object.entries(body)) {
        if (key.toLowerCase().trim() !== 'status') throw badRequest(`Invalid update setting: '${key}'`)
        const wish = value.toLowerCase().trim()
        if (wish !== 'enable' && wish !== 'disable') throw badRequest(`Invalid status: '${value}'`)
        await services.backends.setHostEnabled(context, params.host, wish === 'enable')
        Object.assign(answer, { host: params.host, status: `${wish}d` })
      }
      return answer
    },
  }),
]
