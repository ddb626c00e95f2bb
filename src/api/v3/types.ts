import { z } from 'zod'
import type { RequestContext } from '../../services/context.ts'
import type { VolumeType } from '../../services/model.ts'
import { description, flag, Link, text } from '../fields.ts'
import { metadataFilter, textFilter } from '../filters.ts'
import { adminOnly, since } from '../microversion.ts'
import { listing, nextLinks, toListRequest } from '../paging.ts'
import { isAllowed } from '../policy.ts'
import { defineRoute, type Route } from '../route.ts'

/** Absent means public types only; "None" means all that the caller may see. */
const publicFilter = z
  .union([z.stringFormat('none', /^none$/i).transform(() => null), flag], { error: 'is not a boolean' })
  .optional()
  .default(true)

export const TYPES = listing({
  filters: {
    is_public: publicFilter,
    extra_specs: since('3.52', metadataFilter),
    name: adminOnly(textFilter),
  },
  strict: '3.52',
  sortKeys: ['id', 'name', 'created_at', 'updated_at'],
})

/** Extra specs that tell a tenant something; all others tell how the backend is built. */
const USER_VISIBLE_SPECS = ['multiattach', 'RESKEY:availability_zones', 'replication_enabled']

const TypeBase = z.object({
  id: z.string(),
  name: z.string(),
  description: z.string().nullable(),
  is_public: z.boolean(),
  extra_specs: z.record(z.string(), z.string()),
})

const access = { 'os-volume-type-access:is_public': z.boolean() }

/** What create answers. */
const TypeCreated = TypeBase.extend(access)
const TypeDefault = TypeBase.extend({ qos_specs_id: adminOnly(z.string().nullable()) })
const TypeFull = TypeDefault.extend(access)

const SPECS_MAX = 128

const specs = z
  .record(z.string().regex(/^[a-zA-Z0-9\-_:. /]{1,255}$/, { error: 'is not the name of an extra spec' }), text(255))
  .refine((pairs) => Object.keys(pairs).length <= SPECS_MAX, { error: `has more than ${SPECS_MAX} keys` })

const TypeCreateBody = z.strictObject({
  volume_type: z.strictObject({
    name: text(255).trim().min(1, { error: 'is empty' }),
    description: description.optional(),
    extra_specs: specs.optional(),
    'os-volume-type-access:is_public': flag.optional().default(true),
  }),
})

export const typeRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/types',
    operation: 'list_types',
    summary: 'List volume types',
    policy: 'volume_extension:type_get_all',
    query: TYPES.query,
    response: z.object({ volume_types: z.array(TypeFull), volume_type_links: z.array(Link).optional() }),
    handler: async ({ services, context, client, query, links }) => {
      const { is_public: isPublic, ...rest } = query
      const request = toListRequest(TYPES, rest, client)
      const filters = { ...request.query.filters }
      if (!context.isAdmin) filters.is_public = true
      else if (typeof isPublic === 'boolean') filters.is_public = isPublic
      const hidden = asksForHiddenSpecs(context, filters.extra_specs)
      const page =
        request.nothing || hidden
          ? { items: [], more: false }
          : await services.types.list(context, { ...request.query, filters })
      return {
        volume_types: page.items.map((type) => typeFull(type, context)),
        volume_type_links: nextLinks(page, request, links, '/types'),
      }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/types/default',
    operation: 'show_default_type',
    summary: 'Show the volume type that is used when none is named',
    policy: 'volume_extension:type_get',
    response: z.object({ volume_type: TypeDefault }),
    handler: async ({ services, context }) => ({
      volume_type: typeDefault(await services.types.get(context, 'default'), context),
    }),
  }),
  defineRoute({
    method: 'GET',
    url: '/types/:volume_type_id',
    operation: 'show_type',
    summary: 'Show a volume type',
    policy: 'volume_extension:type_get',
    response: z.object({ volume_type: TypeFull }),
    handler: async ({ services, context, params }) => ({
      volume_type: typeFull(await services.types.get(context, params.volume_type_id), context),
    }),
  }),
  defineRoute({
    method: 'POST',
    url: '/types',
    operation: 'create_type',
    summary: 'Create a volume type',
    policy: 'volume_extension:type_create',
    body: TypeCreateBody,
    response: z.object({ volume_type: TypeCreated }),
    handler: async ({ services, context, body: { volume_type: request } }) => {
      const type = await services.types.create(context, {
        name: request.name,
        description: request.description ?? null,
        isPublic: request['os-volume-type-access:is_public'],
        extraSpecs: request.extra_specs ?? {},
      })
      return { volume_type: typeFull(type, context) }
    },
  }),
  defineRoute({
    method: 'DELETE',
    url: '/types/:volume_type_id',
    operation: 'delete_type',
    summary: 'Delete a volume type that no volume uses',
    policy: 'volume_extension:type_delete',
    status: 202,
    handler: ({ services, context, params }) => services.types.delete(context, params.volume_type_id),
  }),
]

function seesAllSpecs(context: RequestContext): boolean {
  return isAllowed('volume_extension:types_extra_specs:read_sensitive', context, context)
}

/** A filter must not tell by its answer what the caller may not see. */
function asksForHiddenSpecs(context: RequestContext, filter: unknown): boolean {
  if (typeof filter !== 'object' || filter === null || seesAllSpecs(context)) return false
  return Object.keys(filter).some((key) => !USER_VISIBLE_SPECS.includes(key))
}

function typeDefault(type: VolumeType, context: RequestContext): z.input<typeof TypeDefault> {
  const visible = Object.entries(type.extraSpecs).filter(([key]) => USER_VISIBLE_SPECS.includes(key))
  return {
    id: type.id,
    name: type.name,
    description: type.description,
    is_public: type.isPublic,
    extra_specs: seesAllSpecs(context) ? type.extraSpecs : Object.fromEntries(visible),
    qos_specs_id: null,
  }
}

function typeFull(type: VolumeType, context: RequestContext): z.input<typeof TypeFull> {
  return { ...typeDefault(type, context), 'os-volume-type-access:is_public': type.isPublic }
}
