import { z } from 'zod'
import { defineRoute, type Route } from '../route.ts'

const Zone = z.object({ zoneName: z.string(), zoneState: z.object({ available: z.boolean() }) })

export const availabilityZoneRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/os-availability-zone',
    operation: 'list_availability_zones',
    summary: 'List availability zones',
    policy: null,
    response: z.object({ availabilityZoneInfo: z.array(Zone) }),
    handler: async ({ services }) => ({
      availabilityZoneInfo: (await services.backends.zones()).map(({ name: zoneName, available }) => ({
        zoneName,
        zoneState: { available },
      })),
    }),
  }),
]
