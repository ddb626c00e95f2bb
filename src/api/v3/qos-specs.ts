import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { QosSpec } from '../../services/model.ts'
import { booleanParameter, Link, METADATA_KEY, pairsOf, text } from '../fields.ts'
import { textFilter } from '../filters.ts'
import { emptyPage, listing, nextLinks, toListRequest } from '../paging.ts'
import { defineRoute, type Route } from '../route.ts'
import { repr, shorten, WHOLE_SENTENCE } from '../validation.ts'
import { specValue } from './type-extra-specs.ts'

const QOS_SPECS = listing({
  filters: { id: textFilter, name: textFilter, consumer: textFilter },
  sortKeys: ['id', 'name', 'consumer', 'created_at', 'updated_at'],
  strict: null,
  counts: false,
})

const CONSUMERS = ['front-end', 'back-end', 'both'] as const

const consumer = text(255).transform((word, context): (typeof CONSUMERS)[number] => {
  const known = CONSUMERS.find((one) => one === word)
  if (known !== undefined) return known
  const message = `Invalid qos specs: Valid consumer of QoS specs are: ${repr([...CONSUMERS])}`
  context.addIssue({ code: 'custom', message, params: WHOLE_SENTENCE })
  return z.NEVER
})

const specsName = text(1024)
  .trim()
  .refine((name) => name.length > 0 && name.length <= 255, {
    error: ({ input }) =>
      `An invalid 'name' value was provided. The 'name' can not be ${input === '' ? 'empty' : 'greater than 255 characters'}.`,
    params: WHOLE_SENTENCE,
  })

/** As many keys as pairs have elsewhere. What a key means to whoever consumes it is not known here. */
const KEYS_MAX = 128
const withFewKeys = (body: object) => Object.keys(body).length <= KEYS_MAX
const TOO_MANY = { error: 'has too many properties' }

const CreateBody = z.strictObject({
  qos_specs: z
    .object({ name: specsName, consumer: consumer.optional() })
    .catchall(specValue)
    .refine((body) => Object.keys(body).every((key) => key.length > 0 && key.length <= 255), {
      error: 'has a key that is empty, or longer than 255 characters',
    })
    .refine(withFewKeys, TOO_MANY),
})

const UpdateBody = z.strictObject({
  qos_specs: pairsOf(METADATA_KEY, specValue).transform(({ consumer: word, ...specs }, context) => {
    if (word === undefined) return { consumer: null, specs }
    const read = consumer.safeParse(word)
    if (read.success) return { consumer: read.data, specs }
    for (const { message } of read.error.issues) {
      context.addIssue({ code: 'custom', message, params: WHOLE_SENTENCE })
    }
    return z.NEVER
  }),
})

const UnsetBody = z.strictObject({
  keys: z
    .array(text(255).min(1))
    .max(KEYS_MAX)
    .refine((keys) => new Set(keys).size === keys.length, { error: 'has non-unique elements' }),
})

const QosSpecView = z.object({
  id: z.string(),
  name: z.string(),
  consumer: z.string(),
  specs: z.record(z.string(), z.string()),
})

const OneSpec = z.object({ qos_specs: QosSpecView, links: z.array(Link) })

/** Associations are changed by GET requests, which name the type in the query. */
const TypeQuery = z.object({ vol_type_id: z.string().optional() })

export const qosSpecRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/qos-specs',
    operation: 'list_qos_specs',
    summary: 'List QoS specs',
    policy: 'volume_extension:qos_specs_manage:get_all',
    query: QOS_SPECS.query,
    response: z.object({ qos_specs: z.array(QosSpecView), qos_specs_links: z.array(Link).optional() }),
    handler: async ({ services, context, client, query, links }) => {
      const request = toListRequest(QOS_SPECS, query, client)
      const page = request.nothing ? emptyPage<QosSpec>(request) : await services.qosSpecs.list(context, request.query)
      return { qos_specs: page.items, qos_specs_links: nextLinks(page, request, links, '/qos-specs') }
    },
  }),
  defineRoute({
    method: 'POST',
    url: '/qos-specs',
    operation: 'create_qos_specs',
    summary: 'Create QoS specs',
    policy: 'volume_extension:qos_specs_manage:create',
    body: CreateBody,
    response: OneSpec,
    handler: async ({ services, context, body: { qos_specs: request }, links }) => {
      const { name, consumer = 'back-end', ...specs } = request
      const created = await services.qosSpecs.create(context, { name, consumer, specs })
      return { qos_specs: created, links: selfLinks(links, created.id) }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/qos-specs/:qos_id',
    operation: 'show_qos_specs',
    summary: 'Show QoS specs',
    policy: 'volume_extension:qos_specs_manage:get',
    response: OneSpec,
    handler: async ({ services, context, params, links }) => {
      const spec = await services.qosSpecs.get(context, params.qos_id)
      return { qos_specs: spec, links: selfLinks(links, spec.id) }
    },
  }),
  defineRoute({
    method: 'PUT',
    url: '/qos-specs/:qos_id',
    operation: 'update_qos_specs',
    summary: 'Set keys of QoS specs',
    policy: 'volume_extension:qos_specs_manage:update',
    body: UpdateBody,
    response: z.object({ qos_specs: z.record(z.string(), z.string()) }),
    handler: async ({ services, context, params, body: { qos_specs: changes } }) => {
      await services.qosSpecs.setKeys(context, params.qos_id, changes)
      return { qos_specs: { ...changes.specs, ...(changes.consumer === null ? {} : { consumer: changes.consumer }) } }
    },
  }),
  defineRoute({
    method: 'DELETE',
    url: '/qos-specs/:qos_id',
    operation: 'delete_qos_specs',
    summary: 'Delete QoS specs; with force also while types have them',
    policy: 'volume_extension:qos_specs_manage:delete',
    query: z.object({ force: booleanParameter('force') }),
    status: 202,
    handler: ({ services, context, params, query }) =>
      services.qosSpecs.delete(context, params.qos_id, { force: query.force ?? false }),
  }),
  defineRoute({
    method: 'PUT',
    url: '/qos-specs/:qos_id/delete_keys',
    operation: 'unset_qos_specs_keys',
    summary: 'Unset keys of QoS specs',
    policy: 'volume_extension:qos_specs_manage:delete',
    body: UnsetBody,
    status: 202,
    handler: ({ services, context, params, body }) => services.qosSpecs.unsetKeys(context, params.qos_id, body.keys),
  }),
  defineRoute({
    method: 'GET',
    url: '/qos-specs/:qos_id/associations',
    operation: 'list_qos_specs_associations',
    summary: 'List the types that have the QoS specs',
    policy: 'volume_extension:qos_specs_manage:get_all',
    response: z.object({
      qos_associations: z.array(z.object({ association_type: z.string(), name: z.string(), id: z.string() })),
    }),
    handler: async ({ services, context, params }) => {
      const types = await services.qosSpecs.types(context, params.qos_id)
      return { qos_associations: types.map((type) => ({ association_type: 'volume_type', ...type })) }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/qos-specs/:qos_id/associate',
    operation: 'associate_qos_specs',
    summary: 'Give a volume type the QoS specs',
    policy: 'volume_extension:qos_specs_manage:update',
    query: TypeQuery,
    status: 202,
    handler: ({ services, context, params, query }) =>
      services.qosSpecs.associate(context, params.qos_id, typeOf(query)),
  }),
  defineRoute({
    method: 'GET',
    url: '/qos-specs/:qos_id/disassociate',
    operation: 'disassociate_qos_specs',
    summary: 'Take the QoS specs from a volume type',
    policy: 'volume_extension:qos_specs_manage:update',
    query: TypeQuery,
    status: 202,
    handler: ({ services, context, params, query }) =>
      services.qosSpecs.disassociate(context, params.qos_id, typeOf(query)),
  }),
  defineRoute({
    method: 'GET',
    url: '/qos-specs/:qos_id/disassociate_all',
    operation: 'disassociate_all_qos_specs',
    summary: 'Take the QoS specs from all volume types',
    policy: 'volume_extension:qos_specs_manage:update',
    status: 202,
    handler: ({ services, context, params }) => services.qosSpecs.disassociateAll(context, params.qos_id),
  }),
]

function typeOf({ vol_type_id: id }: z.output<typeof TypeQuery>): string {
  if (id) return shorten(id)
  throw new ServiceError('InvalidInput', { reason: 'Volume Type id must not be None.' })
}

function selfLinks(links: { self(path: string): string; bookmark(path: string): string }, id: string) {
  const path = `/qos-specs/${id}`
  return [
    { rel: 'self', href: links.self(path) },
    { rel: 'bookmark', href: links.bookmark(path) },
  ]
}
