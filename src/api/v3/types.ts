import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { RequestContext } from '../../services/context.ts'
import type { VolumeType } from '../../services/model.ts'
import { description, flag, Link, readBoolean, text } from '../fields.ts'
import { metadataFilter, textFilter } from '../filters.ts'
import { adminOnly } from '../microversion.ts'
import { listing, nextLinks, toListRequest } from '../paging.ts'
import { defineRoute, type Route } from '../route.ts'
import { shorten, WHOLE_SENTENCE } from '../validation.ts'
import { onlyUserVisible, seesAllSpecs, specs, USER_VISIBLE_SPECS } from './type-extra-specs.ts'

/** Absent means public types only; "None" means all. Only administrators are asked what they mean. */
function scopeOf(word: string | undefined, { isAdmin }: RequestContext): 'all' | 'public' | 'private' {
  if (word === undefined || !isAdmin) return 'public'
  if (/^none$/i.test(word)) return 'all'
  const read = readBoolean(word)
  if (read === null) {
    throw new ServiceError('InvalidInput', { reason: `Invalid is_public filter [${shorten(word)}]` })
  }
  return read ? 'public' : 'private'
}

export const TYPES = listing({
  filters: {
    is_public: textFilter,
    extra_specs: metadataFilter,
    id: adminOnly(textFilter),
    name: adminOnly(textFilter),
    description: adminOnly(textFilter),
  },
  strict: '3.52',
  counts: false,
  sortKeys: ['id', 'name', 'description', 'is_public', 'created_at', 'updated_at'],
})

/** What an update answers. */
const TypeBase = z.object({
  id: z.string(),
  name: z.string(),
  description: z.string().nullable(),
  is_public: z.boolean(),
  extra_specs: z.record(z.string(), z.string()),
})

/** Absent for those who may not know it: `volume_extension:volume_type_access`. */
const access = { 'os-volume-type-access:is_public': z.boolean().optional() }
const quality = { qos_specs_id: adminOnly(z.string().nullable()) }

const TypeCreated = TypeBase.extend(access)
const TypeDefault = TypeBase.extend(quality)
const TypeFull = TypeBase.extend({ ...access, ...quality })

/** As long as the whole is not empty, spaces around it do not count. */
export const typeName = text(255)
  .min(1, { abort: true })
  .refine((name) => name.trim() !== '', {
    error: "An invalid 'name' value was provided. The 'name' can not be empty.",
    params: WHOLE_SENTENCE,
  })

const TypeCreateBody = z.strictObject({
  volume_type: z.strictObject({
    name: typeName,
    description: description.optional(),
    extra_specs: specs.optional(),
    'os-volume-type-access:is_public': flag.optional().default(true),
  }),
})

const TypeUpdateBody = z.strictObject({
  volume_type: z
    .strictObject({
      name: text(255)
        .min(1)
        .refine((name) => name.trim() !== '', {
          error: 'Volume type name can not be empty.',
          params: WHOLE_SENTENCE,
        })
        .nullish(),
      description: description.optional(),
      is_public: flag.optional(),
    })
    .refine((changes) => Object.values(changes).some((value) => value !== null && value !== undefined), {
      error: 'Specify volume type name, description, is_public or a combination thereof.',
      params: WHOLE_SENTENCE,
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
    handler: async ({ services, context, client, query, links, supports }) => {
      const { is_public: isPublic, extra_specs: wanted, ...rest } = query
      // Before 3.52 this filter was dropped, but never an administrator's.
      const bySpecs = wanted !== undefined && (context.isAdmin || supports('3.52'))
      const request = toListRequest(TYPES, bySpecs ? { ...rest, extra_specs: wanted } : rest, client)
      const scope = scopeOf(isPublic as string | undefined, context)
      const page =
        request.nothing || asksForHiddenSpecs(context, request.query.filters.extra_specs)
          ? { items: [], more: false }
          : await services.types.list(context, request.query, scope)
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
    handler: async ({ services, context }) => {
      const type = await services.types.getDefault(context)
      return { volume_type: { ...typeBase(type, context), qos_specs_id: type.qosSpecsId } }
    },
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
    method: 'PUT',
    url: '/types/:volume_type_id',
    operation: 'update_type',
    summary: 'Change name, description or visibility of a volume type',
    policy: 'volume_extension:type_update',
    body: TypeUpdateBody,
    response: z.object({ volume_type: TypeBase }),
    handler: async ({ services, context, params, body: { volume_type: request } }) => {
      const { name, description, is_public: isPublic } = request
      const type = await services.types.update(context, params.volume_type_id, {
        ...(name == null ? {} : { name }), // null leaves it as it is
        ...(description == null ? {} : { description }),
        ...(isPublic === undefined ? {} : { isPublic }),
      })
      return { volume_type: typeBase(type, context) }
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

/** A filter must not tell by its answer what the caller may not see. */
function asksForHiddenSpecs(context: RequestContext, wanted: unknown): boolean {
  if (typeof wanted !== 'object' || wanted === null || seesAllSpecs(context)) return false
  return Object.keys(wanted).some((key) => !USER_VISIBLE_SPECS.includes(key))
}

function typeBase(type: VolumeType, context: RequestContext): z.input<typeof TypeBase> {
  return {
    id: type.id,
    name: type.name,
    description: type.description,
    is_public: type.isPublic,
    extra_specs: onlyUserVisible(type.extraSpecs, context),
  }
}

function typeFull(type: VolumeType, context: RequestContext): z.input<typeof TypeFull> {
  const seesAccess = context.allows('volume_extension:volume_type_access')
  return {
    ...typeBase(type, context),
    qos_specs_id: type.qosSpecsId,
    ...(seesAccess ? { 'os-volume-type-access:is_public': type.isPublic } : {}),
  }
}
