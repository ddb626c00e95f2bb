import { z } from 'zod'
import type { Snapshot } from '../../services/model.ts'
import { booleanParameter, description, flag, guidOrNull, metadata, name } from '../fields.ts'
import { metadataFilter, quotaFilter, textFilter } from '../filters.ts'
import { adminOnly, before, refuseSince, since } from '../microversion.ts'
import { listing } from '../paging.ts'
import { type ApiRequest, defineRoute, type Route } from '../route.ts'
import { WHOLE_SENTENCE } from '../validation.ts'
import { answerList, listResponse } from './lists.ts'

export const SNAPSHOTS = listing({
  filters: {
    name: textFilter,
    status: textFilter,
    volume_id: textFilter,
    metadata: since('3.22', metadataFilter),
    availability_zone: since('3.31', textFilter),
    consumes_quota: since('3.31', quotaFilter),
    id: adminOnly(textFilter),
    host: adminOnly(textFilter),
    project_id: adminOnly(textFilter),
    user_id: adminOnly(textFilter),
    group_snapshot_id: adminOnly(textFilter),
    display_name: adminOnly(textFilter),
    use_quota: adminOnly(quotaFilter),
    deleted: adminOnly(booleanParameter('deleted')),
  },
  sortKeys: [
    'id',
    'display_name',
    'status',
    'volume_id',
    'volume_size',
    'progress',
    'project_id',
    'user_id',
    'created_at',
    'updated_at',
  ],
  sortKeysSince: { name: '3.28' },
  constants: { consumes_quota: 'true', use_quota: 'true', deleted: 'false' },
})

const nullableText = z.string().nullable()

const SnapshotSummary = z.object({
  id: z.string(),
  name: nullableText,
  description: nullableText,
  volume_id: z.string(),
  status: z.string(),
  size: z.int(),
  metadata: z.record(z.string(), z.string()),
  created_at: z.string(),
  updated_at: nullableText,
})

/** What create and update answer. */
export const SnapshotDetail = SnapshotSummary.extend({
  group_snapshot_id: since('3.14', nullableText),
  user_id: since('3.41', z.string()),
  consumes_quota: since('3.65', z.boolean()),
})

/** Attributes of upstream's extension, which show and the detailed list have and create has not. */
const SnapshotFull = SnapshotDetail.extend({
  'os-extended-snapshot-attributes:progress': z.string(),
  'os-extended-snapshot-attributes:project_id': z.string(),
})

/** Upstream's, to the letter. */
const FORCE_REASON =
  "Since microversion 3.66 the 'force' flag is invalid for this request.  For backward compatability, however, when the " +
  "'force' flag is passed with a value evaluating to True, it is silently ignored."

const SnapshotCreateBody = z.strictObject({
  snapshot: z.strictObject({
    volume_id: guidOrNull.transform((id) => id ?? 'None'), // the id of no volume
    name: name.optional(),
    display_name: name.optional(),
    description: description.optional(),
    // Whether a volume in use may be snapshotted: from 3.66 on always, before only when asked for.
    force: refuseSince(
      '3.66',
      (force) => force,
      { error: FORCE_REASON, params: WHOLE_SENTENCE },
      before('3.66', (force) => (force === undefined ? false : force), flag.optional().default(true)),
    ),
    metadata: metadata.nullish(),
  }),
})

const SnapshotUpdateBody = z.strictObject({
  snapshot: z
    .strictObject({
      name: name.optional(),
      display_name: name.optional(),
      description: description.optional(),
      display_description: description.optional(),
    })
    .refine((changes) => Object.keys(changes).length > 0, { error: 'is not valid under any of the given schemas' }),
})

export const snapshotRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: '/snapshots',
    operation: 'create_snapshot',
    summary: 'Create a snapshot of a volume',
    policy: 'volume:create_snapshot',
    body: SnapshotCreateBody,
    target: ({ services, context, body }) => services.volumes.get(context, body.snapshot.volume_id),
    response: z.object({ snapshot: SnapshotDetail }),
    status: 202,
    handler: async ({ services, context, body: { snapshot: request } }) => {
      const snapshot = await services.snapshots.create(context, {
        volumeId: request.volume_id,
        name: request.name ?? request.display_name ?? null,
        description: request.description ?? null,
        force: request.force,
        metadata: request.metadata ?? {},
      })
      return { snapshot: snapshotDetail(snapshot) }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/snapshots',
    operation: 'list_snapshots',
    summary: 'List snapshots',
    policy: 'volume:get_all_snapshots',
    query: SNAPSHOTS.query,
    response: listResponse('snapshots', SnapshotSummary),
    handler: (request) => list(request, '/snapshots', snapshotDetail),
  }),
  defineRoute({
    method: 'GET',
    url: '/snapshots/detail',
    operation: 'list_snapshots_detail',
    summary: 'List snapshots with details',
    policy: 'volume:get_all_snapshots',
    query: SNAPSHOTS.query,
    response: listResponse('snapshots', SnapshotFull),
    handler: (request) => list(request, '/snapshots/detail', snapshotFull),
  }),
  defineRoute({
    method: 'GET',
    url: '/snapshots/:snapshot_id',
    operation: 'show_snapshot',
    summary: 'Show a snapshot',
    policy: 'volume:get_snapshot',
    response: z.object({ snapshot: SnapshotFull }),
    handler: async ({ services, context, params }) => ({
      snapshot: snapshotFull(await services.snapshots.get(context, params.snapshot_id)),
    }),
  }),
  defineRoute({
    method: 'PUT',
    url: '/snapshots/:snapshot_id',
    operation: 'update_snapshot',
    summary: 'Change name or description of a snapshot',
    policy: 'volume:update_snapshot',
    body: SnapshotUpdateBody,
    response: z.object({ snapshot: SnapshotDetail }),
    handler: async ({ services, context, params, body: { snapshot: request } }) => {
      const newName = request.name === undefined ? request.display_name : request.name
      const newText = request.description === undefined ? request.display_description : request.description
      const snapshot = await services.snapshots.update(context, params.snapshot_id, {
        ...(newName === undefined ? {} : { name: newName }),
        ...(newText === undefined ? {} : { description: newText }),
      })
      return { snapshot: snapshotDetail(snapshot) }
    },
  }),
  defineRoute({
    method: 'DELETE',
    url: '/snapshots/:snapshot_id',
    operation: 'delete_snapshot',
    summary: 'Delete a snapshot',
    policy: 'volume:delete_snapshot',
    status: 202,
    handler: ({ services, context, params }) => services.snapshots.delete(context, params.snapshot_id),
  }),
]

function list<T>(
  request: ApiRequest<unknown, z.output<typeof SNAPSHOTS.query>, unknown>,
  path: string,
  view: (snapshot: Snapshot) => T,
) {
  const { services, context } = request
  return answerList(request, {
    collection: 'snapshots',
    listing: SNAPSHOTS,
    path,
    find: (query, options) => services.snapshots.list(context, query, options),
    view,
  })
}

export function snapshotDetail(snapshot: Snapshot): z.input<typeof SnapshotDetail> {
  return {
    id: snapshot.id,
    name: snapshot.name,
    description: snapshot.description,
    volume_id: snapshot.volumeId,
    status: snapshot.status,
    size: snapshot.sizeGib,
    metadata: snapshot.metadata,
    created_at: snapshot.createdAt,
    updated_at: snapshot.updatedAt,
    group_snapshot_id: snapshot.groupSnapshotId,
    user_id: snapshot.userId,
    consumes_quota: true,
  }
}

function snapshotFull(snapshot: Snapshot): z.input<typeof SnapshotFull> {
  return {
    ...snapshotDetail(snapshot),
    'os-extended-snapshot-attributes:progress': snapshot.progress,
    'os-extended-snapshot-attributes:project_id': snapshot.projectId,
  }
}
