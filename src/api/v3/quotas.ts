import { z } from 'zod'
import { booleanParameter, wholeNumber } from '../fields.ts'
import { defineRoute, type Route } from '../route.ts'
import { FIELD_SENTENCE } from '../validation.ts'

const LIMIT_MAX = 2_147_483_647

/** -1 is no limit. Upstream says what is wrong with the quotas of a project in other words than with those of a class. */
const setLimit = z
  .unknown()
  .meta({ type: ['integer', 'string'] })
  .transform((sent, context) => {
    const value = typeof sent === 'string' && /^\s*[-+]?\d{1,10}\s*$/.test(sent) ? Number(sent) : sent
    if (Number.isInteger(value) && Number(value) >= -1 && Number(value) <= LIMIT_MAX) return Number(value)
    const bound = Number(value) < -1 ? '>= -1' : `<= ${LIMIT_MAX}`
    const message = Number.isInteger(value) ? `must be ${bound}` : 'must be an integer'
    context.addIssue({ code: 'custom', message, params: FIELD_SENTENCE })
    return z.NEVER
  })
const classLimit = wholeNumber({ min: -1, pattern: /^[0-9]*$/ })

/** Also the quotas of each type are taken: `volumes_fast`. */
function limitsOf<Limit extends z.ZodType<number>>(value: Limit) {
  const optional = value.optional()
  return {
    volumes: optional,
    snapshots: optional,
    gigabytes: optional,
    per_volume_gigabytes: optional,
    backups: optional,
    backup_gigabytes: optional,
    groups: optional,
  }
}

const QuotaSetBody = z.strictObject({
  quota_set: z
    .object({ ...limitsOf(setLimit), id: z.unknown(), tenant_id: z.unknown() }) // what a client may have read is ignored
    .partial()
    .catchall(setLimit)
    .refine((limits) => Object.keys(limits).length > 0, { error: 'should be non-empty' }),
})

const QuotaClassBody = z.strictObject({ quota_class_set: z.object(limitsOf(classLimit)).catchall(classLimit) })

const Usage = z.object({ limit: z.int(), in_use: z.int(), reserved: z.int() })

/** Limits by name; `id` is that of the project or the class, which an update does not repeat. */
const Limits = z.record(z.string(), z.union([z.int(), z.string()]))
const LimitsOrUsage = z.record(z.string(), z.union([z.int(), z.string(), Usage]))

export const quotaRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/os-quota-sets/:id',
    operation: 'show_quota_set',
    summary: 'Show the quotas of a project, with `usage` also what is used of them',
    policy: 'volume_extension:quotas:show',
    query: z.object({ usage: booleanParameter('usage') }),
    response: z.object({ quota_set: LimitsOrUsage }),
    handler: async ({ services, context, params: { id }, query }) => {
      if (!query.usage) return { quota_set: { ...(await services.quotas.get(context, id)), id } }
      const usages = Object.entries(await services.quotas.usage(context, id))
      // What a request takes is counted with its row, so that nothing is ever only reserved.
      const views = usages.map(([name, { limit, used }]) => [name, { limit, in_use: used, reserved: 0 }] as const)
      return { quota_set: { ...Object.fromEntries(views), id } }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/os-quota-sets/:id/defaults',
    operation: 'show_default_quota_set',
    summary: 'Show the quotas of projects that have none of their own',
    policy: 'volume_extension:quotas:show',
    response: z.object({ quota_set: Limits }),
    handler: async ({ services, context, params: { id } }) => ({
      quota_set: { ...(await services.quotas.defaults(context, id)), id },
    }),
  }),
  defineRoute({
    method: 'PUT',
    url: '/os-quota-sets/:id',
    operation: 'update_quota_set',
    summary: 'Set quotas of a project',
    policy: 'volume_extension:quotas:update',
    body: QuotaSetBody,
    response: z.object({ quota_set: Limits }),
    handler: async ({ services, context, params, body }) => {
      const { id: _id, tenant_id: _tenant, ...limits } = body.quota_set
      return { quota_set: await services.quotas.update(context, params.id, given(limits)) }
    },
  }),
  defineRoute({
    method: 'DELETE',
    url: '/os-quota-sets/:id',
    operation: 'delete_quota_set',
    summary: 'Give a project the default quotas again',
    policy: 'volume_extension:quotas:delete',
    handler: ({ services, context, params }) => services.quotas.reset(context, params.id),
  }),
  defineRoute({
    method: 'GET',
    url: '/os-quota-class-sets/:id',
    operation: 'show_quota_class_set',
    summary: 'Show the quotas of a class; those of the class `default` are the default quotas',
    policy: 'volume_extension:quota_classes:get',
    response: z.object({ quota_class_set: Limits }),
    handler: async ({ services, context, params: { id } }) => ({
      quota_class_set: { ...(await services.quotas.getClass(context, id)), id },
    }),
  }),
  defineRoute({
    method: 'PUT',
    url: '/os-quota-class-sets/:id',
    operation: 'update_quota_class_set',
    summary: 'Set quotas of a class',
    policy: 'volume_extension:quota_classes:update',
    body: QuotaClassBody,
    response: z.object({ quota_class_set: Limits }),
    handler: async ({ services, context, params, body }) => ({
      quota_class_set: await services.quotas.updateClass(context, params.id, given(body.quota_class_set)),
    }),
  }),
]

/** Without the quotas that the request left out. */
function given(limits: Readonly<Record<string, number | undefined>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(limits).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  )
}
