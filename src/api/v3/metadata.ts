import { createHash } from 'node:crypto'
import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { RequestContext } from '../../services/context.ts'
import type { Services } from '../../services/services.ts'
import { PreconditionFailed } from '../faults.ts'
import { exactlyOne, metadata, pairsOf, text } from '../fields.ts'
import type { Rule } from '../policy.ts'
import { type ApiRequest, defineRoute, type Route } from '../route.ts'

/**
 * The six routes of user metadata, the same below volumes and below snapshots. Those of volumes have an Etag since 3.15,
 * so that a client that reads, changes and writes can notice that somebody else was faster.
 */
interface Owner {
  /** `/volumes`; the routes are below `/volumes/:id/metadata`. */
  collection: '/volumes' | '/snapshots'
  resource: string
  etag: boolean
  bodies: { all: z.ZodType<z.output<typeof Metadata>>; one: z.ZodType<z.output<typeof Meta>> }
  rules: { read: Rule; create: Rule; update: Rule; delete: Rule }
  service(services: Services): {
    get(context: RequestContext, id: string): Promise<{ metadata: Record<string, string> }>
    setMetadata(
      context: RequestContext,
      id: string,
      metadata: Record<string, string>,
      options: { replace: boolean },
    ): Promise<Record<string, string>>
    deleteMetadataKey(context: RequestContext, id: string, key: string): Promise<void>
  }
}

const Metadata = z.object({ metadata })
const Meta = z.object({ meta: metadata })

/** What is sent to those of snapshots: keys with fewer characters, and unknown things beside are ignored. */
const snapshotMetadata = pairsOf(/^[a-zA-Z0-9\-_:. ]{1,255}$/, text(255))

export const volumeMetadataRoutes = metadataRoutes({
  collection: '/volumes',
  resource: 'volume',
  etag: true,
  bodies: { all: Metadata.strict(), one: z.strictObject({ meta: exactlyOne(metadata) }) },
  rules: {
    read: 'volume:get_volume_metadata',
    create: 'volume:create_volume_metadata',
    update: 'volume:update_volume_metadata',
    delete: 'volume:delete_volume_metadata',
  },
  service: (services) => services.volumes,
})

export const snapshotMetadataRoutes = metadataRoutes({
  collection: '/snapshots',
  resource: 'snapshot',
  etag: false,
  bodies: { all: z.object({ metadata: snapshotMetadata }), one: z.object({ meta: exactlyOne(snapshotMetadata) }) },
  rules: {
    read: 'volume:get_snapshot_metadata',
    create: 'volume:update_snapshot_metadata',
    update: 'volume:update_snapshot_metadata',
    delete: 'volume:delete_snapshot_metadata',
  },
  service: (services) => services.snapshots,
})

function metadataRoutes({ collection, resource, etag, bodies, rules, service }: Owner): Route[] {
  const ownerName = collection === '/volumes' ? 'Volume' : 'Snapshot'
  const url = `${collection}/:id/metadata` as const
  const item = `${collection}/:id/metadata/:key` as const
  return [
    defineRoute({
      method: 'GET',
      url,
      operation: `list_${resource}_metadata`,
      summary: `Show the metadata of a ${resource}`,
      policy: rules.read,
      response: Metadata,
      handler: async ({ services, context, params, supports, setHeader }) => {
        const found = await service(services).get(context, params.id)
        if (etag && supports('3.15')) setHeader('etag', `"${etagOf(found.metadata)}"`)
        return { metadata: found.metadata }
      },
    }),
    defineRoute({
      method: 'POST',
      url,
      operation: `create_${resource}_metadata`,
      summary: `Add to the metadata of a ${resource}`,
      policy: rules.create,
      body: bodies.all,
      response: Metadata,
      handler: async ({ services, context, params, body }) => ({
        metadata: await service(services).setMetadata(context, params.id, body.metadata, { replace: false }),
      }),
    }),
    defineRoute({
      method: 'PUT',
      url,
      operation: `replace_${resource}_metadata`,
      summary: `Replace the metadata of a ${resource}`,
      policy: rules.update,
      body: bodies.all,
      response: Metadata,
      handler: async (request) => {
        await checkIfMatch(request)
        const { services, context, params, body } = request
        return { metadata: await service(services).setMetadata(context, params.id, body.metadata, { replace: true }) }
      },
    }),
    defineRoute({
      method: 'GET',
      url: item,
      operation: `show_${resource}_metadata_item`,
      summary: `Show one pair of the metadata of a ${resource}`,
      policy: rules.read,
      response: Meta,
      handler: async ({ services, context, params }) => {
        const found = await service(services).get(context, params.id)
        if (!Object.hasOwn(found.metadata, params.key))
          throw new ServiceError('MetadataKeyNotFound', { owner: ownerName, id: params.id, key: params.key })
        return { meta: { [params.key]: found.metadata[params.key]! } }
      },
    }),
    defineRoute({
      method: 'PUT',
      url: item,
      operation: `update_${resource}_metadata_item`,
      summary: `Set one pair of the metadata of a ${resource}`,
      policy: rules.update,
      body: bodies.one,
      response: Meta,
      handler: async (request) => {
        await checkIfMatch(request)
        const { services, context, params, body } = request
        if (!Object.hasOwn(body.meta, params.key)) {
          throw new ServiceError('InvalidInput', { reason: 'Request body and URI mismatch' })
        }
        await service(services).setMetadata(context, params.id, body.meta, { replace: false })
        return { meta: body.meta }
      },
    }),
    defineRoute({
      method: 'DELETE',
      url: item,
      operation: `delete_${resource}_metadata_item`,
      summary: `Remove one pair of the metadata of a ${resource}`,
      policy: rules.delete,
      handler: ({ services, context, params }) => service(services).deleteMetadataKey(context, params.id, params.key),
    }),
  ]

  async function checkIfMatch({
    services,
    context,
    params,
    headers,
    supports,
  }: Pick<ApiRequest<unknown, unknown, { id: string }>, 'services' | 'context' | 'params' | 'headers' | 'supports'>) {
    const wanted = headers['if-match']
    if (!etag || !wanted || !supports('3.15')) return
    const current = etagOf((await service(services).get(context, params.id)).metadata)
    const tags = wanted.split(',').map((tag) => tag.trim().replace(/^"|"$/g, ''))
    if (!tags.includes(current) && !tags.includes('*')) throw new PreconditionFailed()
  }
}

function etagOf(pairs: Record<string, string>): string {
  const sorted = Object.entries(pairs).sort(([a], [b]) => (a < b ? -1 : 1))
  return createHash('sha256').update(JSON.stringify(sorted)).digest('hex').slice(0, 32)
}
