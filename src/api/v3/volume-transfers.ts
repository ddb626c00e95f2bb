import { z } from 'zod'
import type { VolumeTransfer } from '../../services/model.ts'
import { flag, guid, Link, NO_SCHEMA, text } from '../fields.ts'
import { textFilter } from '../filters.ts'
import type { Links } from '../links.ts'
import { type Client, minorOf, since } from '../microversion.ts'
import { emptyPage, listing, nextLinks, toListRequest } from '../paging.ts'
import { type ApiRequest, defineRoute, type Route } from '../route.ts'

const TRANSFERS = listing({
  filters: {
    id: textFilter,
    name: textFilter,
    volume_id: textFilter,
    source_project_id: textFilter,
    project_id: textFilter,
  },
  sortKeys: ['id', 'display_name', 'volume_id', 'created_at', 'updated_at'],
  pagesSince: '3.59',
  unknownFindsNothingSince: '3.0',
  strict: null,
  counts: false,
})

/** Before there were pages, the oldest came first. */
const OLDEST_FIRST = [{ key: 'created_at', direction: 'asc' }] as const

const TransferSummary = z.object({
  id: z.string(),
  volume_id: z.string(),
  name: z.string().nullable(),
  links: z.array(Link),
})

/** Those that were accepted are gone, so nothing that is shown ever was. */
const TransferDetail = TransferSummary.extend({
  created_at: z.string(),
  no_snapshots: since('3.55', z.boolean()),
  source_project_id: since('3.57', z.string()),
  destination_project_id: since('3.57', z.null()),
  accepted: since('3.57', z.literal(false)),
})

const TransferCreated = TransferDetail.extend({ auth_key: z.string() })

const transferName = z.union(
  [
    text(1024)
      .trim()
      .refine((name) => name.length > 0 && name.length <= 255),
    z.null(),
  ],
  { error: NO_SCHEMA },
)

const OldTransferCreate = z.strictObject({ volume_id: guid, name: transferName.optional() })
const TransferCreate = OldTransferCreate.extend({ no_snapshots: since('3.55', flag.optional()) })

const AcceptBody = z.strictObject({
  accept: z.strictObject({
    auth_key: z.union([text(1024), z.int()], { error: "is not of type 'string', 'integer'" }).transform(String),
  }),
})

/** The two names of the same thing: of the older one, snapshots always go along and lists have no pages. */
interface Name {
  url: '/os-volume-transfer' | '/volume-transfers'
  /** Before the name of each operation. */
  prefix: string
  called: string
  create: typeof OldTransferCreate | typeof TransferCreate
  hasPages: boolean
}

function routesOf({ url, prefix, called, create, hasPages }: Name): Route[] {
  return [
    defineRoute({
      method: 'POST',
      url,
      operation: `create_${prefix}volume_transfer`,
      summary: `Offer a volume to another project${called}`,
      policy: 'volume:create_transfer',
      body: z.strictObject({ transfer: create }),
      response: z.object({ transfer: TransferCreated }),
      status: 202,
      target: ({ services, context, body }) => services.volumes.get(context, body.transfer.volume_id),
      handler: async ({ services, context, body: { transfer: request }, links, supports }) => {
        const transfer = await services.transfers.create(context, {
          volumeId: request.volume_id,
          name: request.name ?? null,
          noSnapshots: 'no_snapshots' in request && request.no_snapshots === true,
          allowEncrypted: hasPages && supports('3.70'),
        })
        return { transfer: { ...detail(transfer, links), auth_key: transfer.authKey } }
      },
    }),
    defineRoute({
      method: 'GET',
      url,
      operation: `list_${prefix}volume_transfers`,
      summary: `List volumes that wait for a new owner${called}`,
      policy: 'volume:get_all_transfers',
      query: TRANSFERS.query,
      response: listResponse(TransferSummary),
      handler: (request) => list(request, hasPages, summary),
    }),
    defineRoute({
      method: 'GET',
      url: `${url}/detail`,
      operation: `list_${prefix}volume_transfers_detail`,
      summary: `List volumes that wait for a new owner, with details${called}`,
      policy: 'volume:get_all_transfers',
      query: TRANSFERS.query,
      response: listResponse(TransferDetail),
      handler: (request) => list(request, hasPages, detail),
    }),
    defineRoute({
      method: 'GET',
      url: `${url}/:transfer_id`,
      operation: `show_${prefix}volume_transfer`,
      summary: `Show a transfer${called}`,
      policy: 'volume:get_transfer',
      response: z.object({ transfer: TransferDetail }),
      handler: async ({ services, context, params, links }) => ({
        transfer: detail(await services.transfers.get(context, params.transfer_id), links),
      }),
    }),
    defineRoute({
      method: 'DELETE',
      url: `${url}/:transfer_id`,
      operation: `delete_${prefix}volume_transfer`,
      summary: `Call a transfer off${called}`,
      policy: 'volume:delete_transfer',
      status: 202,
      target: ({ services, context, params }) => services.transfers.get(context, params.transfer_id),
      handler: ({ services, context, params }) => services.transfers.delete(context, params.transfer_id),
    }),
    defineRoute({
      method: 'POST',
      url: `${url}/:transfer_id/accept`,
      operation: `accept_${prefix}volume_transfer`,
      summary: `Take over a volume of another project${called}`,
      policy: 'volume:accept_transfer',
      body: AcceptBody,
      response: z.object({ transfer: TransferSummary }),
      status: 202,
      handler: async ({ services, context, params, body: { accept }, links }) => ({
        transfer: summary(await services.transfers.accept(context, params.transfer_id, accept.auth_key), links),
      }),
    }),
  ]
}

export const volumeTransferRoutes: Route[] = [
  ...routesOf({ url: '/volume-transfers', prefix: '', called: '', create: TransferCreate, hasPages: true }),
  ...routesOf({
    url: '/os-volume-transfer',
    prefix: 'old_',
    called: ', by the older name',
    create: OldTransferCreate,
    hasPages: false,
  }),
]

function listResponse<S extends z.ZodType>(item: S) {
  return z.object({ transfers: z.array(item), transfers_links: z.array(Link).optional() })
}

async function list<T>(
  { services, context, client, query, links }: ApiRequest<unknown, z.output<typeof TRANSFERS.query>, unknown>,
  hasPages: boolean,
  view: (transfer: VolumeTransfer, links: Links) => T,
) {
  const paged = hasPages && client.minor >= PAGES_SINCE
  const request = toListRequest(TRANSFERS, query, paged ? client : beforePages(client))
  const asked = paged ? request.query : { ...request.query, sort: OLDEST_FIRST }
  const page = request.nothing ? emptyPage<VolumeTransfer>(request) : await services.transfers.list(context, asked)
  return {
    transfers: page.items.map((transfer) => view(transfer, links)),
    transfers_links: nextLinks(page, request, links, OLD_PATH),
  }
}

const PAGES_SINCE = minorOf('3.59')

/** The older name never came to have pages. */
function beforePages(client: Client): Client {
  return { ...client, minor: Math.min(client.minor, PAGES_SINCE - 1) }
}

/** Where all links lead, whichever name was asked. */
const OLD_PATH = '/os-volume-transfer'

function summary(transfer: VolumeTransfer, links: Links): z.input<typeof TransferSummary> {
  const path = `${OLD_PATH}/${transfer.id}`
  return {
    id: transfer.id,
    volume_id: transfer.volumeId,
    name: transfer.name,
    links: [
      { rel: 'self', href: links.self(path) },
      { rel: 'bookmark', href: links.bookmark(path) },
    ],
  }
}

function detail(transfer: VolumeTransfer, links: Links): z.input<typeof TransferDetail> {
  return {
    ...summary(transfer, links),
    created_at: transfer.createdAt,
    no_snapshots: transfer.noSnapshots,
    source_project_id: transfer.sourceProjectId,
    destination_project_id: null,
    accepted: false,
  }
}
