import { z } from 'zod'
import type { Listing } from '../paging.ts'
import { defineRoute, type Route } from '../route.ts'
import { ATTACHMENTS } from './attachments.ts'
import { BACKUPS } from './backups.ts'
import { GROUP_SNAPSHOTS } from './group-snapshots.ts'
import { GROUPS } from './groups.ts'
import { MESSAGES } from './messages.ts'
import { POOL_FILTERS } from './pools.ts'
import { SNAPSHOTS } from './snapshots.ts'
import { TYPES } from './types.ts'
import { VOLUMES } from './volumes.ts'

/** The lists of upstream's resource_filters.json that exist here; the filters are those that each list declares. */
const LISTS: Readonly<Record<string, Pick<Listing, 'filterNames'>>> = {
  volume: VOLUMES,
  backup: BACKUPS,
  snapshot: SNAPSHOTS,
  group: GROUPS,
  group_snapshot: GROUP_SNAPSHOTS,
  attachment: ATTACHMENTS,
  message: MESSAGES,
  pool: { filterNames: POOL_FILTERS },
  volume_type: TYPES,
}

export const resourceFilterRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/resource_filters',
    operation: 'list_resource_filters',
    summary: 'List which filters the lists take, of all resources or of the one named',
    since: '3.33',
    policy: null,
    query: z.object({ resource: z.string().optional() }),
    response: z.object({
      resource_filters: z.array(z.object({ resource: z.string(), filters: z.array(z.string()) })),
    }),
    handler: ({ query }) => ({
      resource_filters: Object.entries(LISTS)
        .filter(([resource]) => !query.resource || resource === query.resource)
        .map(([resource, { filterNames }]) => ({ resource, filters: [...filterNames] })),
    }),
  }),
]
