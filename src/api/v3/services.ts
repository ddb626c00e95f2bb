import { z } from 'zod'
import { badRequest } from '../../errors.ts'
import type { ServiceInfo } from '../../services/services.ts'
import { text } from '../fields.ts'
import { since } from '../microversion.ts'
import { defineRoute, type Route } from '../route.ts'

const nullableText = z.string().nullable()

const ServiceView = z.object({
  binary: z.string(),
  host: z.string(),
  zone: z.string(),
  status: z.enum(['enabled', 'disabled']),
  state: z.enum(['up', 'down']),
  updated_at: nullableText,
  disabled_reason: nullableText,
  cluster: since('3.7', nullableText),
  // Only of volume services.
  replication_status: z.string().optional(),
  active_backend_id: nullableText.optional(),
  frozen: z.boolean().optional(),
  backend_state: since('3.49', nullableText.optional()),
})

/** As upstream's cinder_host: a host name with backend and pool. */
const host = text(255)
  .min(1)
  .regex(/^[a-zA-Z0-9\-._#@:/+[\]]*$/, { error: "does not match '^[a-zA-Z0-9-._#@:/+\\\\[\\\\]]*$'" })
  .nullish()

const cluster = text(255).nullish()
const serviceName = text(255).min(1)

const target = { host, cluster, binary: serviceName.optional(), service: serviceName.optional() }

/** `binary` wins over its old name `service`; one of them has to be there. */
function namingABinary<Body extends z.ZodType<{ binary?: string | undefined; service?: string | undefined }>>(
  body: Body,
) {
  return body.refine(({ binary, service }) => (binary ?? service) !== undefined, {
    error: 'is not valid under any of the given schemas',
  })
}

const Target = namingABinary(z.strictObject(target))
const TargetAndReason = namingABinary(
  z.strictObject({ ...target, disabled_reason: text(255).trim().min(1).optional() }),
)

const Changed = z.object({
  host: z.string(),
  service: z.string(),
  binary: z.string(),
  status: z.string(),
  disabled: z.boolean(),
})
const ChangedWithReason = Changed.extend({ disabled_reason: nullableText })

const Frozen = z.strictObject({ host, cluster })

const FailOver = Frozen.extend({ backend_id: text(255).nullish() })

const LogTarget = z.strictObject({
  binary: z.enum(['cinder-scheduler', 'cinder-volume', 'cinder-backup', 'cinder-api', '', '*']).optional(),
  server: text(255).nullish(),
  prefix: text(255).nullish(),
})

const policy = 'volume_extension:services:update'

export const serviceRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/os-services',
    operation: 'list_services',
    summary: 'List the services: the scheduler, and one for each backend',
    policy: 'volume_extension:services:index',
    query: z.object({ host: text(255).optional(), binary: text(255).optional() }),
    response: z.object({ services: z.array(ServiceView) }),
    handler: async ({ services, context, query }) => {
      const filters = { host: query.host ?? null, binary: query.binary ?? null }
      return { services: (await services.backends.services(context, filters)).map(serviceView) }
    },
  }),
  defineRoute({
    method: 'PUT',
    url: '/os-services/enable',
    operation: 'enable_service',
    summary: 'Let a backend take new volumes again',
    policy,
    body: Target,
    response: ChangedWithReason,
    handler: async ({ services, context, body }) => {
      const target = targetOf(body)
      await services.backends.setDisabled(context, target, false, null)
      return { ...changed(target, body, false), disabled_reason: null }
    },
  }),
  defineRoute({
    method: 'PUT',
    url: '/os-services/disable',
    operation: 'disable_service',
    summary: 'Place no new volumes in a backend',
    policy,
    body: Target,
    response: Changed,
    handler: async ({ services, context, body }) => {
      const target = targetOf(body)
      await services.backends.setDisabled(context, target, true, null)
      return changed(target, body, true)
    },
  }),
  defineRoute({
    method: 'PUT',
    url: '/os-services/disable-log-reason',
    operation: 'disable_service_with_reason',
    summary: 'Place no new volumes in a backend, and say why',
    policy,
    body: TargetAndReason,
    response: ChangedWithReason,
    handler: async ({ services, context, body }) => {
      const target = targetOf(body)
      const reason = body.disabled_reason ?? null
      await services.backends.setDisabled(context, target, true, reason)
      return { ...changed(target, body, true), disabled_reason: reason }
    },
  }),
  defineRoute({
    method: 'PUT',
    url: '/os-services/freeze',
    operation: 'freeze_backend',
    summary: 'Keep a backend as it is: no new volumes or snapshots, and none deleted',
    policy,
    body: Frozen,
    handler: ({ services, context, body, supports }) =>
      services.backends.freeze(context, hostIn(body, supports('3.26'))),
  }),
  defineRoute({
    method: 'PUT',
    url: '/os-services/thaw',
    operation: 'thaw_backend',
    summary: 'End the freezing of a backend',
    policy,
    body: Frozen,
    handler: ({ services, context, body, supports }) => services.backends.thaw(context, hostIn(body, supports('3.26'))),
  }),
  defineRoute({
    method: 'PUT',
    url: '/os-services/failover_host',
    operation: 'fail_over_backend',
    summary: 'Fail over to a replication target, of which no backend has one',
    policy,
    body: FailOver,
    status: 202,
    handler: ({ services, context, body }) => services.backends.failOver(context, hostIn(body, false)),
  }),
  defineRoute({
    method: 'PUT',
    url: '/os-services/failover',
    operation: 'fail_over_cluster',
    summary: 'Fail over to a replication target, of which no backend has one; a cluster may be named',
    since: '3.26',
    policy,
    body: FailOver,
    status: 202,
    handler: ({ services, context, body }) => services.backends.failOver(context, hostIn(body, true)),
  }),
  defineRoute({
    method: 'PUT',
    url: '/os-services/get-log',
    operation: 'show_log_levels',
    summary: 'Show what is logged',
    since: '3.32',
    policy,
    body: LogTarget,
    response: z.object({
      log_levels: z.array(z.object({ binary: z.string(), host: z.string(), levels: z.record(z.string(), z.string()) })),
    }),
    handler: async ({ services, context, body }) => ({
      log_levels: await services.backends.logLevels(context, {
        binary: body.binary ?? '',
        server: body.server ?? '',
        prefix: body.prefix ?? '',
      }),
    }),
  }),
  defineRoute({
    method: 'PUT',
    url: '/os-services/set-log',
    operation: 'set_log_level',
    summary: 'Set what is logged, until the next start',
    since: '3.32',
    policy,
    body: LogTarget.extend({ level: text(255).nullish() }),
    status: 202,
    handler: ({ services, context, body }) =>
      services.backends.setLogLevel(context, { prefix: body.prefix ?? '' }, body.level ?? ''),
  }),
]

function serviceView(service: ServiceInfo): z.input<typeof ServiceView> {
  const ofBackend =
    service.frozen === null
      ? {}
      : {
          replication_status: 'disabled',
          active_backend_id: null,
          frozen: service.frozen,
          // Upstream's scheduler tells it of backends that it places volumes in.
          backend_state: service.disabled ? null : service.up ? 'up' : 'down',
        }
  return {
    binary: service.binary,
    host: service.host,
    zone: service.zone,
    status: service.disabled ? 'disabled' : 'enabled',
    state: service.up ? 'up' : 'down',
    updated_at: service.updatedAt,
    disabled_reason: service.disabledReason,
    cluster: null,
    ...ofBackend,
  }
}

function targetOf(body: z.output<typeof Target>): { host: string; binary: string } {
  return { host: hostIn(body, false), binary: (body.binary ?? body.service)! } // the schema saw that there is one
}

function changed(target: { host: string }, body: z.output<typeof Target>, disabled: boolean) {
  const status = disabled ? 'disabled' : 'enabled'
  return { host: target.host, service: body.service ?? '', binary: body.binary ?? '', status, disabled }
}

/** Of clusters, which some requests may name instead, there is none. */
function hostIn(body: { host?: string | null | undefined; cluster?: string | null | undefined }, clustered: boolean) {
  const clusterName = clustered ? body.cluster : null
  if (Boolean(clusterName) === Boolean(body.host)) {
    throw badRequest(
      `Invalid input received: ${clustered ? 'One and only one of cluster and host must be set.' : 'Host field is missing.'}`,
    )
  }
  if (clusterName) throw badRequest(`No service found with cluster=${clusterName}`)
  return body.host!
}
