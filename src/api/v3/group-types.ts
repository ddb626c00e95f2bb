import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { RequestContext } from '../../services/context.ts'
import type { GroupType } from '../../services/model.ts'
import { description, exactlyOne, flag, Link, metadata, name, pairsOf, readBoolean, text } from '../fields.ts'
import { textFilter } from '../filters.ts'
import { listing, nextLinks, toListRequest } from '../paging.ts'
import { defineRoute, type Route } from '../route.ts'
import { shorten, WHOLE_SENTENCE } from '../validation.ts'
import { typeName } from './types.ts'

/** Upstream looks at no other filter, and refuses none. */
const GROUP_TYPES = listing({
  filters: { is_public: textFilter },
  strict: null,
  counts: false,
  sortKeys: ['id', 'name', 'description', 'is_public', 'created_at', 'updated_at'],
})

const GroupTypeView = z.object({
  id: z.string(),
  name: z.string(),
  description: z.string().nullable(),
  is_public: z.boolean(),
  /** Absent for those who may not know them: `group:access_group_types_specs`. */
  group_specs: z.record(z.string(), z.string()).optional(),
})

const OneType = z.object({ group_type: GroupTypeView })

const GroupTypeCreateBody = z.strictObject({
  group_type: z.strictObject({
    name: typeName,
    description: description.optional(),
    is_public: flag.optional().default(true),
    group_specs: metadata.nullish(),
  }),
})

const GroupTypeUpdateBody = z.strictObject({
  group_type: z
    .strictObject({
      name: name
        .refine((given) => given === null || given !== '', {
          error: 'Group type name can not be empty.',
          params: WHOLE_SENTENCE,
        })
        .optional(),
      description: description.optional(),
      is_public: flag.optional(),
    })
    .refine((changes) => Object.values(changes).some((value) => value !== null && value !== undefined), {
      error: 'Specify group type name, description or a combination thereof.',
      params: WHOLE_SENTENCE,
    }),
})

/** A value of nothing is kept as empty text. */
const specValue = text(255)
  .nullable()
  .transform((value) => value ?? '')

const specs = pairsOf(/^[a-zA-Z0-9\-_:.]{1,255}$/, specValue)

const ManySpecs = z.object({ group_specs: z.record(z.string(), z.string()) })
const OneSpec = z.record(z.string(), z.string())

export const groupTypeRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/group_types',
    operation: 'list_group_types',
    summary: 'List group types',
    since: '3.11',
    policy: null,
    query: GROUP_TYPES.query,
    response: z.object({ group_types: z.array(GroupTypeView), group_type_links: z.array(Link).optional() }),
    handler: async ({ services, context, client, query, links }) => {
      const { is_public: isPublic, ...rest } = query
      const known = Object.fromEntries(
        Object.entries(rest).filter(([key]) => Object.hasOwn(GROUP_TYPES.query.shape, key)),
      )
      const request = toListRequest(GROUP_TYPES, known, client)
      const scope = scopeOf(isPublic as string | undefined, context)
      const page = await services.groupTypes.list(context, request.query, scope)
      return {
        group_types: page.items.map((type) => view(type, context)),
        group_type_links: nextLinks(page, request, links, '/group_types'),
      }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/group_types/default',
    operation: 'show_default_group_type',
    summary: 'Show the group type that the settings name as the default',
    since: '3.11',
    policy: null,
    response: OneType,
    handler: async ({ services, context }) => ({
      group_type: view(await services.groupTypes.getDefault(context), context),
    }),
  }),
  defineRoute({
    method: 'GET',
    url: '/group_types/:group_type_id',
    operation: 'show_group_type',
    summary: 'Show a group type',
    since: '3.11',
    policy: null,
    response: OneType,
    handler: async ({ services, context, params }) => ({
      group_type: view(await services.groupTypes.get(context, params.group_type_id), context),
    }),
  }),
  defineRoute({
    method: 'POST',
    url: '/group_types',
    operation: 'create_group_type',
    summary: 'Create a group type',
    since: '3.11',
    policy: 'group:group_types:create',
    body: GroupTypeCreateBody,
    response: OneType,
    status: 202,
    handler: async ({ services, context, body: { group_type: request } }) => {
      const type = await services.groupTypes.create(context, {
        name: request.name,
        description: request.description ?? null,
        isPublic: request.is_public,
        groupSpecs: request.group_specs ?? {},
      })
      return { group_type: view(type, context) }
    },
  }),
  defineRoute({
    method: 'PUT',
    url: '/group_types/:group_type_id',
    operation: 'update_group_type',
    summary: 'Change name, description or visibility of a group type',
    since: '3.11',
    policy: 'group:group_types:update',
    body: GroupTypeUpdateBody,
    response: OneType,
    handler: async ({ services, context, params, body: { group_type: request } }) => {
      const { name: newName, description: newText, is_public: isPublic } = request
      const type = await services.groupTypes.update(context, params.group_type_id, {
        ...(newName == null ? {} : { name: newName }), // null leaves it as it is
        ...(newText == null ? {} : { description: newText }),
        ...(isPublic === undefined ? {} : { isPublic }),
      })
      return { group_type: view(type, context) }
    },
  }),
  defineRoute({
    method: 'DELETE',
    url: '/group_types/:group_type_id',
    operation: 'delete_group_type',
    summary: 'Delete a group type that no group has',
    since: '3.11',
    policy: 'group:group_types:delete',
    status: 202,
    handler: ({ services, context, params }) => services.groupTypes.delete(context, params.group_type_id),
  }),
  defineRoute({
    method: 'GET',
    url: '/group_types/:group_type_id/group_specs',
    operation: 'list_group_specs',
    summary: 'Show the specs of a group type',
    since: '3.11',
    policy: 'group:group_types_specs:get_all',
    response: ManySpecs,
    handler: async ({ services, context, params }) => ({
      group_specs: await services.groupTypes.specs(context, params.group_type_id),
    }),
  }),
  defineRoute({
    method: 'POST',
    url: '/group_types/:group_type_id/group_specs',
    operation: 'create_group_specs',
    summary: 'Set specs of a group type',
    since: '3.11',
    policy: 'group:group_types_specs:create',
    body: z.strictObject({ group_specs: specs }),
    response: ManySpecs,
    status: 202,
    handler: async ({ services, context, params, body }) => {
      await services.groupTypes.addSpecs(context, params.group_type_id, body.group_specs)
      return body
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/group_types/:group_type_id/group_specs/:key',
    operation: 'show_group_spec',
    summary: 'Show one spec of a group type',
    since: '3.11',
    policy: 'group:group_types_specs:get',
    response: OneSpec,
    handler: async ({ services, context, params: { group_type_id: id, key } }) => ({
      [key]: await services.groupTypes.spec(context, id, key),
    }),
  }),
  defineRoute({
    method: 'PUT',
    url: '/group_types/:group_type_id/group_specs/:key',
    operation: 'update_group_spec',
    summary: 'Set one spec of a group type',
    since: '3.11',
    policy: 'group:group_types_specs:update',
    body: exactlyOne(specs),
    response: OneSpec,
    handler: async ({ services, context, params: { group_type_id: id, key }, body }) => {
      if (!Object.hasOwn(body, key)) throw new ServiceError('InvalidInput', { reason: 'Request body and URI mismatch' })
      await services.groupTypes.setSpec(context, id, key, body[key]!)
      return body
    },
  }),
  defineRoute({
    method: 'DELETE',
    url: '/group_types/:group_type_id/group_specs/:key',
    operation: 'delete_group_spec',
    summary: 'Remove one spec of a group type',
    since: '3.11',
    policy: 'group:group_types_specs:delete',
    status: 202,
    handler: ({ services, context, params }) =>
      services.groupTypes.removeSpec(context, params.group_type_id, params.key),
  }),
]

/** Absent means public types only; "None" means all. Others than administrators see public ones. */
function scopeOf(word: string | undefined, { isAdmin }: RequestContext): 'all' | 'public' | 'private' {
  if (word === undefined || !isAdmin) return 'public'
  if (/^none$/i.test(word)) return 'all'
  const read = readBoolean(word)
  if (read === null) throw new ServiceError('InvalidInput', { reason: `Invalid is_public filter [${shorten(word)}]` })
  return read ? 'public' : 'private'
}

function view(type: GroupType, context: RequestContext): z.input<typeof GroupTypeView> {
  const seesSpecs = context.allows('group:access_group_types_specs')
  return {
    id: type.id,
    name: type.name,
    description: type.description,
    is_public: type.isPublic,
    ...(seesSpecs ? { group_specs: type.groupSpecs } : {}),
  }
}
