import { z } from 'zod'
import { guid, text } from '../fields.ts'
import { defineRoute, type Route } from '../route.ts'

/** Actions of the old way to attach, which Ironic, the Cinder store of Glance and os-brick's command line still go. */

const URL = '/volumes/:volume_id/action'

/** Nova and clients send null or an empty object. */
const anything = z.unknown()

/** What an initiator says about itself. Upstream takes text too and fails on it later. */
export const OldConnector = z.record(z.string(), z.unknown()).and(
  z.object({
    host: z.string().max(255).nullish(),
    ip: z.string().max(255).nullish(),
  }),
)

const AttachBody = z
  .strictObject({
    instance_uuid: guid.optional(),
    mountpoint: text(255).min(1),
    host_name: text(255).optional(),
    mode: z.enum(['rw', 'ro'], { error: "is not one of ['rw', 'ro']" }).optional(),
  })
  .refine((body) => body.instance_uuid !== undefined || body.host_name !== undefined, {
    error: 'is not valid under any of the given schemas',
  })

export const volumeConnectionRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-reserve',
    operation: 'reserve_volume',
    summary: 'Claim a volume that is about to be attached',
    policy: 'volume_extension:volume_actions:reserve',
    body: anything,
    status: 202,
    handler: ({ services, context, params }) => services.connections.reserve(context, params.volume_id),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-unreserve',
    operation: 'unreserve_volume',
    summary: 'Give up a volume that was claimed',
    policy: 'volume_extension:volume_actions:unreserve',
    body: anything,
    status: 202,
    handler: ({ services, context, params }) => services.connections.unreserve(context, params.volume_id),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-initialize_connection',
    operation: 'initialize_volume_connection',
    summary: 'Get a connection to a volume',
    policy: 'volume_extension:volume_actions:initialize_connection',
    body: z.strictObject({ connector: OldConnector }),
    response: z.object({
      connection_info: z.object({
        driver_volume_type: z.string(),
        data: z.record(z.string(), z.unknown()),
        enforce_multipath: z.boolean(),
      }),
    }),
    handler: async ({ services, context, params, body: { connector } }) => {
      const info = await services.connections.initialize(context, params.volume_id, connector)
      const { driver_volume_type, enforce_multipath, attachment_id: _, ...data } = info
      return { connection_info: { driver_volume_type, data, enforce_multipath: enforce_multipath === true } }
    },
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-terminate_connection',
    operation: 'terminate_volume_connection',
    summary: 'Cut a connection to a volume off',
    policy: 'volume_extension:volume_actions:terminate_connection',
    body: z.strictObject({ connector: OldConnector.nullable() }),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.connections.terminate(context, params.volume_id, body.connector),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-attach',
    operation: 'attach_volume',
    summary: 'Tell that a volume is attached to an instance or a host',
    policy: 'volume_extension:volume_actions:attach',
    body: AttachBody,
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.connections.attach(context, params.volume_id, {
        instanceId: body.instance_uuid ?? null,
        hostName: body.host_name ?? null,
        mountpoint: body.mountpoint,
        mode: body.mode ?? 'rw',
      }),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-detach',
    operation: 'detach_volume',
    summary: 'Take an attachment of a volume down; the only one when none is named',
    policy: 'volume_extension:volume_actions:detach',
    body: z.strictObject({ attachment_id: guid.nullish() }).nullable(),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.connections.detach(context, params.volume_id, body?.attachment_id ?? null),
  }),
  defineRoute({
    method: 'POST',
    url: URL,
    action: 'os-force_detach',
    operation: 'force_detach_volume',
    summary: 'Cut off and take down an attachment whose host is gone',
    policy: 'volume_extension:volume_admin_actions:force_detach',
    body: z.strictObject({ connector: OldConnector.nullish(), attachment_id: text(255).nullish() }),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.connections.forceDetach(context, params.volume_id, {
        attachmentId: body.attachment_id ?? null,
        connector: body.connector ?? null,
      }),
  }),
]
