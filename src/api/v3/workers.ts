import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { CleanedService } from '../../services/services.ts'
import { flag, guid, text } from '../fields.ts'
import { defineRoute, type Route } from '../route.ts'

/** As upstream's hostname: the name of a host, with a backend or without. */
const host = text(255)
  .min(1, { error: 'is empty' })
  .regex(/^[a-zA-Z0-9\-._#@:/+]*$/, { error: 'is not the name of a host' })
  .nullish()

const serviceId = z
  .union(
    [
      z.int().min(0),
      z
        .string()
        .regex(/^\d{0,11}$/)
        .transform((digits) => (digits === '' ? null : Number(digits))),
    ],
    { error: 'is not the id of a service' },
  )
  .nullish()

const CleanUp = z.strictObject({
  cluster_name: host,
  disabled: flag.nullish(),
  host,
  is_up: flag.nullish(),
  binary: z.enum(['cinder-volume', 'cinder-scheduler'], { error: 'is not a service' }).optional(),
  resource_id: guid.nullish(),
  resource_type: text(40).nullish(),
  service_id: serviceId,
})

const ServiceView = z.object({
  id: z.int(),
  host: z.string(),
  binary: z.string(),
  cluster_name: z.string().nullable(),
})

const RESOURCE_TYPES = ['Snapshot', 'Volume']

/**
 * Upstream asks services to put right what dead ones left. Here every process looks for that each second; this is one look more, and
 * says of which services the work is.
 */
export const workerRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: '/workers/cleanup',
    operation: 'clean_up_workers',
    summary: 'Look now for what dead processes left undone, and go on with it',
    since: '3.24',
    policy: 'workers:cleanup',
    status: 202,
    body: CleanUp,
    response: z.object({ cleaning: z.array(ServiceView), unavailable: z.array(ServiceView) }),
    handler: async ({ services, context, body }) => {
      if (body.resource_type && !RESOURCE_TYPES.includes(titled(body.resource_type))) {
        const reason = `Invalid input received: Resource type ${titled(body.resource_type)} not valid, must be ${RESOURCE_TYPES.join(' or ')}`
        throw new ServiceError('InvalidInput', { reason })
      }
      // As upstream, which looks whether a location is named at all, if only by null.
      const isLocated = ['service_id', 'cluster_name', 'host'].some((key) => Object.hasOwn(body, key))
      const { cleaning, unavailable } = await services.backends.cleanUp(context, {
        serviceId: body.service_id ?? null,
        cluster: body.cluster_name ?? null,
        host: body.host ?? null,
        binary: body.binary ?? null,
        isUp: body.is_up ?? (Object.hasOwn(body, 'is_up') ? null : false),
        disabled: body.disabled ?? null,
        resourceId: isLocated ? null : (body.resource_id ?? null),
      })
      return { cleaning: cleaning.map(serviceView), unavailable: unavailable.map(serviceView) }
    },
  }),
]

function serviceView({ id, host, binary }: CleanedService): z.input<typeof ServiceView> {
  return { id, host, binary, cluster_name: null }
}

/** As Python's `title` for one word. */
function titled(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1).toLowerCase()
}
