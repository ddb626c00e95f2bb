import { z } from 'zod'
import type { Attachment } from '../../services/model.ts'
import { guid } from '../fields.ts'
import { textFilter } from '../filters.ts'
import { since } from '../microversion.ts'
import { emptyPage, listing, toListRequest } from '../paging.ts'
import { type ApiRequest, defineRoute, type Route } from '../route.ts'

export const ATTACHMENTS = listing({
  filters: {
    volume_id: textFilter,
    status: textFilter,
    instance_id: textFilter,
    attach_status: textFilter,
  },
  sortKeys: [
    'id',
    'volume_id',
    'instance_uuid',
    'attach_status',
    'attached_host',
    'mountpoint',
    'attach_mode',
    'created_at',
    'updated_at',
  ],
  counts: false,
})

const AttachmentSummary = z.object({
  id: z.string(),
  status: z.string(),
  instance: z.string().nullable(),
  volume_id: z.string(),
})

const AttachmentDetail = AttachmentSummary.extend({
  /** Empty, not null, while it has not happened. */
  attached_at: z.string(),
  detached_at: z.string(),
  attach_mode: z.string(),
  /** Flat: `driver_volume_type` beside the data; empty until there is a connector. */
  connection_info: z.record(z.string(), z.unknown()),
})

const MODES = ['rw', 'ro'] as const

const Connector = z.record(z.string(), z.unknown()).and(
  z.object({
    host: z.string().max(255).nullish(),
    ip: z.string().max(255).nullish(),
  }),
)

const AttachmentCreateBody = z.strictObject({
  attachment: z.strictObject({
    volume_uuid: guid,
    instance_uuid: guid.optional(),
    connector: Connector.nullish(),
    mode: since('3.54', z.enum(MODES, { error: "is not one of ['rw', 'ro']" }).optional()),
  }),
})

const AttachmentUpdateBody = z.strictObject({
  attachment: z.strictObject({
    connector: Connector.refine((connector) => Object.keys(connector).length > 0, { error: 'should be non-empty' }),
  }),
})

export const attachmentRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: '/attachments',
    operation: 'create_attachment',
    summary: 'Reserve a volume for a server, or with a connector attach it',
    since: '3.27',
    policy: 'volume:attachment_create',
    body: AttachmentCreateBody,
    target: ({ services, context, body }) => services.volumes.get(context, body.attachment.volume_uuid),
    response: z.object({ attachment: AttachmentDetail }),
    handler: async ({ services, context, body: { attachment: request } }) => {
      // An empty connector says nothing about an initiator: upstream reserves, as for null.
      const connector = request.connector && Object.keys(request.connector).length > 0 ? request.connector : null
      const attachment = await services.attachments.create(context, {
        volumeId: request.volume_uuid,
        instanceId: request.instance_uuid ?? null,
        connector,
        mode: request.mode ?? null, // before 3.54 it is a key of the connector, if anywhere
      })
      return { attachment: attachmentDetail(attachment) }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/attachments',
    operation: 'list_attachments',
    summary: 'List attachments',
    since: '3.27',
    policy: null,
    query: ATTACHMENTS.query,
    response: z.object({ attachments: z.array(AttachmentSummary) }),
    handler: (request) => list(request, attachmentSummary),
  }),
  defineRoute({
    method: 'GET',
    url: '/attachments/detail',
    operation: 'list_attachments_detail',
    summary: 'List attachments with details',
    since: '3.27',
    policy: null,
    query: ATTACHMENTS.query,
    response: z.object({ attachments: z.array(AttachmentDetail) }),
    handler: (request) => list(request, attachmentDetail),
  }),
  defineRoute({
    method: 'GET',
    url: '/attachments/:attachment_id',
    operation: 'show_attachment',
    summary: 'Show an attachment',
    since: '3.27',
    policy: null,
    response: z.object({ attachment: AttachmentDetail }),
    handler: async ({ services, context, params }) => ({
      attachment: attachmentDetail(await services.attachments.get(context, params.attachment_id)),
    }),
  }),
  defineRoute({
    method: 'PUT',
    url: '/attachments/:attachment_id',
    operation: 'update_attachment',
    summary: 'Give a reserved attachment its connector; the answer says how to connect',
    since: '3.27',
    policy: 'volume:attachment_update',
    body: AttachmentUpdateBody,
    response: z.object({ attachment: AttachmentDetail }),
    handler: async ({ services, context, params, body }) => {
      const { connector } = body.attachment
      return {
        attachment: attachmentDetail(await services.attachments.update(context, params.attachment_id, connector)),
      }
    },
  }),
  defineRoute({
    method: 'DELETE',
    url: '/attachments/:attachment_id',
    operation: 'delete_attachment',
    summary: 'Cut an attachment off and remove it; answers those that are left on the volume',
    since: '3.27',
    policy: 'volume:attachment_delete',
    response: z.object({ attachments: z.array(AttachmentSummary) }),
    handler: async ({ services, context, params }) => {
      const left = await services.attachments.delete(context, params.attachment_id)
      return { attachments: left.map(attachmentSummary) }
    },
  }),
  defineRoute({
    method: 'POST',
    url: '/attachments/:attachment_id/action',
    action: 'os-complete',
    operation: 'complete_attachment',
    summary: 'Tell that the initiator is connected',
    since: '3.44',
    policy: 'volume:attachment_complete',
    body: z.unknown(),
    status: 204,
    handler: ({ services, context, params }) => services.attachments.complete(context, params.attachment_id),
  }),
]

async function list<T>(
  { services, context, client, query }: ApiRequest<unknown, z.output<typeof ATTACHMENTS.query>, unknown>,
  view: (attachment: Attachment) => T,
) {
  const request = toListRequest(ATTACHMENTS, query, client)
  const page = request.nothing
    ? emptyPage<Attachment>(request)
    : await services.attachments.list(context, request.query, { count: false })
  return { attachments: page.items.map(view) }
}

function attachmentSummary(attachment: Attachment): z.input<typeof AttachmentSummary> {
  return {
    id: attachment.id,
    status: attachment.status,
    instance: attachment.instanceId,
    volume_id: attachment.volumeId,
  }
}

function attachmentDetail(attachment: Attachment): z.input<typeof AttachmentDetail> {
  return {
    ...attachmentSummary(attachment),
    attached_at: attachment.attachedAt ?? '',
    detached_at: attachment.detachedAt ?? '',
    attach_mode: attachment.attachMode ?? 'null', // the word, as upstream, until a connector says
    connection_info: attachment.connectionInfo ?? {},
  }
}
