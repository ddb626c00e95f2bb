import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { RequestContext } from '../../services/context.ts'
import { exactlyOne, METADATA_KEY, pairsOf, text } from '../fields.ts'
import { defineRoute, type Route } from '../route.ts'

/** Extra specs that tell a tenant something; all others tell how the backend is built. */
export const USER_VISIBLE_SPECS: readonly string[] = ['multiattach', 'RESKEY:availability_zones', 'replication_enabled']

/** A value of nothing is kept as empty text. */
export const specValue = text(255)
  .nullable()
  .transform((value) => value ?? '')

/** Extra specs that come with a new type. */
export const specs = pairsOf(METADATA_KEY, specValue)

const specsWithoutSpaces = pairsOf(/^[a-zA-Z0-9\-_:.]{1,255}$/, specValue)

const oneSpec = exactlyOne(specsWithoutSpaces)

const ManySpecs = z.object({ extra_specs: z.record(z.string(), z.string()) })
const OneSpec = z.record(z.string(), z.string())

export const typeExtraSpecRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/types/:volume_type_id/extra_specs',
    operation: 'list_type_extra_specs',
    summary: 'Show the extra specs of a volume type',
    policy: 'volume_extension:types_extra_specs:index',
    response: ManySpecs,
    handler: async ({ services, context, params }) => {
      const type = await services.types.get(context, params.volume_type_id)
      return { extra_specs: onlyUserVisible(type.extraSpecs, context) }
    },
  }),
  defineRoute({
    method: 'POST',
    url: '/types/:volume_type_id/extra_specs',
    operation: 'create_type_extra_specs',
    summary: 'Set extra specs of a volume type that no volume has',
    policy: 'volume_extension:types_extra_specs:create',
    body: z.strictObject({ extra_specs: specsWithoutSpaces }),
    response: ManySpecs,
    handler: async ({ services, context, params, body }) => {
      await services.types.addSpecs(context, params.volume_type_id, body.extra_specs)
      return body
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/types/:volume_type_id/extra_specs/:key',
    operation: 'show_type_extra_spec',
    summary: 'Show one extra spec of a volume type',
    policy: 'volume_extension:types_extra_specs:show',
    response: OneSpec,
    handler: async ({ services, context, params: { volume_type_id: id, key } }) => {
      const { extraSpecs } = await services.types.get(context, id)
      const visible = onlyUserVisible(extraSpecs, context)
      if (Object.hasOwn(visible, key)) return { [key]: visible[key]! }
      throw new ServiceError('VolumeTypeExtraSpecsNotFound', { volume_type_id: id, extra_specs_key: key })
    },
  }),
  defineRoute({
    method: 'PUT',
    url: '/types/:volume_type_id/extra_specs/:key',
    operation: 'update_type_extra_spec',
    summary: 'Set one extra spec of a volume type that no volume has',
    policy: 'volume_extension:types_extra_specs:update',
    body: oneSpec,
    response: OneSpec,
    handler: async ({ services, context, params: { volume_type_id: id, key }, body }) => {
      if (!Object.hasOwn(body, key)) {
        throw new ServiceError('InvalidInput', { reason: 'Request body and URI mismatch' })
      }
      await services.types.setSpec(context, id, key, body[key]!)
      return body
    },
  }),
  defineRoute({
    method: 'DELETE',
    url: '/types/:volume_type_id/extra_specs/:key',
    operation: 'delete_type_extra_spec',
    summary: 'Remove one extra spec of a volume type that no volume has',
    policy: 'volume_extension:types_extra_specs:delete',
    status: 202,
    handler: ({ services, context, params }) => services.types.removeSpec(context, params.volume_type_id, params.key),
  }),
]

export function seesAllSpecs(context: RequestContext): boolean {
  return context.allows('volume_extension:types_extra_specs:read_sensitive')
}

/** The extra specs that this caller may see. */
export function onlyUserVisible(
  extraSpecs: Readonly<Record<string, string>>,
  context: RequestContext,
): Record<string, string> {
  const pairs = Object.entries(extraSpecs)
  return Object.fromEntries(seesAllSpecs(context) ? pairs : pairs.filter(([key]) => USER_VISIBLE_SPECS.includes(key)))
}
