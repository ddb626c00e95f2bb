import { z } from 'zod'
import type { PoolReport } from '../../services/services.ts'
import { VERSION } from '../../version.ts'
import { booleanParameter, text } from '../fields.ts'
import { strictSince } from '../microversion.ts'
import { defineRoute, type Route } from '../route.ts'

const Single = z.union([z.string(), z.number(), z.boolean()])
const Capability = z.union([Single, z.null(), z.array(Single).readonly()])

const PoolView = z.object({ name: z.string(), capabilities: z.record(z.string(), Capability).optional() })

export const POOL_FILTERS = ['name', 'volume_type'] as const

/** Unlike other lists, this one refuses what it does not know from administrators too. */
const PoolQuery = strictSince(
  '3.31',
  z
    .object({ detail: booleanParameter('detail'), name: text(255).optional(), volume_type: text(255).optional() })
    .loose(),
)

const nullableText = z.string().nullable()

const CapabilitiesView = z.object({
  namespace: z.string(),
  vendor_name: nullableText,
  volume_backend_name: nullableText,
  pool_name: nullableText,
  driver_version: nullableText,
  storage_protocol: nullableText,
  display_name: nullableText,
  description: nullableText,
  visibility: nullableText,
  replication_targets: z.array(z.never()),
  properties: z.record(z.string(), z.object({ title: z.string(), description: z.string(), type: z.string() })),
})

export const poolRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/scheduler-stats/get_pools',
    operation: 'list_pools',
    summary: 'List the pools that volumes can be placed in',
    policy: 'scheduler_extension:scheduler_stats:get_pools',
    query: PoolQuery,
    response: z.object({ pools: z.array(PoolView) }),
    handler: async ({ services, context, query, supports }) => {
      const { detail = false, name, volume_type: volumeType, ...others } = query
      const filters = supports('3.28') ? { ...(name === undefined ? {} : { name }), ...others } : {}
      const pools = await services.backends.pools(context, {
        volumeType: supports('3.35') ? (volumeType ?? null) : null,
        matching: (pool) => matches(pool, filters),
      })
      return {
        pools: pools.map(({ name, capabilities }) =>
          detail ? { name, capabilities: { ...capabilities, driver_version: VERSION } } : { name },
        ),
      }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/capabilities/:host_name',
    operation: 'show_capabilities',
    summary: 'Show what a backend can do',
    policy: 'volume_extension:capabilities',
    response: CapabilitiesView,
    handler: async ({ services, context, params }) => {
      const known = await services.backends.capabilities(context, params.host_name)
      return {
        namespace: `OS::Storage::Capabilities::${params.host_name}`,
        vendor_name: 'Collie',
        volume_backend_name: known.volumeBackendName,
        pool_name: known.poolName,
        driver_version: VERSION,
        storage_protocol: known.storageProtocol,
        display_name: known.displayName,
        description: null,
        visibility: null,
        replication_targets: [],
        properties: known.properties,
      }
    },
  }),
]

/** By name and, as upstream, by anything that a pool says of itself; words for booleans mean those. */
function matches(pool: PoolReport, filters: Readonly<Record<string, unknown>>): boolean {
  return Object.entries(filters).every(([key, wanted]) => {
    if (key === 'name') return pool.name === wanted
    const offered = Object.hasOwn(pool.capabilities, key) ? pool.capabilities[key] : undefined
    return String(offered).toLowerCase() === String(wanted).toLowerCase()
  })
}
