import { z } from 'zod'
import type { RequestContext } from '../../services/context.ts'
import { reservedType } from '../../services/group-rules.ts'
import type { GroupSnapshot } from '../../services/model.ts'
import type { Services } from '../../services/services.ts'
import { GROUP_SNAPSHOT_STATUSES } from '../../services/statuses.ts'
import { description, guid, Link, name, text } from '../fields.ts'
import { textFilter } from '../filters.ts'
import { adminOnly, since } from '../microversion.ts'
import { emptyPage, listing, nextLinks, toListRequest } from '../paging.ts'
import { type ApiRequest, defineRoute, type Route } from '../route.ts'
import { tuple, WHOLE_SENTENCE } from '../validation.ts'
import { genericGroup } from './groups.ts'

export const GROUP_SNAPSHOTS = listing({
  filters: {
    name: since('3.29', textFilter),
    status: since('3.29', textFilter),
    group_id: since('3.29', textFilter),
    id: since('3.29', adminOnly(textFilter)),
    description: since('3.29', adminOnly(textFilter)),
    group_type_id: since('3.29', adminOnly(textFilter)),
    project_id: since('3.29', adminOnly(textFilter)),
    user_id: since('3.29', adminOnly(textFilter)),
  },
  counts: false,
  pagesSince: '3.29',
  sortKeys: ['id', 'name', 'status', 'description', 'group_id', 'group_type_id', 'created_at', 'updated_at'],
})

const nullableText = z.string().nullable()

const Listed = z.object({ id: z.string(), name: nullableText })

/** What create answers. */
const Created = Listed.extend({ group_type_id: z.string() })

const Detail = Created.extend({
  group_id: z.string(),
  status: z.string(),
  created_at: z.string(),
  description: nullableText,
  project_id: since('3.58', adminOnly(z.string())),
})

const status = text(255).transform((word, context): (typeof GROUP_SNAPSHOT_STATUSES)[number] => {
  const known = GROUP_SNAPSHOT_STATUSES.find((one) => one === word.toLowerCase())
  if (known !== undefined) return known
  const reason =
    word.trim() === ''
      ? "The 'status' can not be empty."
      : `Group snapshot status: ${word} is invalid, valid statuses are: ${tuple(GROUP_SNAPSHOT_STATUSES)}.`
  context.addIssue({ code: 'custom', message: `Invalid GroupSnapshot Status: ${reason}`, params: WHOLE_SENTENCE })
  return z.NEVER
})

export const groupSnapshotRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: '/group_snapshots',
    operation: 'create_group_snapshot',
    summary: 'Create snapshots of all volumes of a group, of one moment',
    since: '3.14',
    policy: 'group:create_group_snapshot',
    body: z.strictObject({
      group_snapshot: z.strictObject({
        group_id: guid,
        name: name.optional(),
        description: description.optional(),
      }),
    }),
    target: ({ services, context, body }) => services.groups.get(context, body.group_snapshot.group_id),
    response: z.object({ group_snapshot: Created }),
    status: 202,
    handler: async ({ services, context, body: { group_snapshot: request } }) => {
      await genericGroup(services, context, request.group_id)
      const snapshot = await services.groupSnapshots.create(context, {
        groupId: request.group_id,
        name: request.name ?? null,
        description: request.description ?? null,
      })
      return { group_snapshot: { id: snapshot.id, name: snapshot.name, group_type_id: snapshot.groupTypeId } }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/group_snapshots',
    operation: 'list_group_snapshots',
    summary: 'List snapshots of groups',
    since: '3.14',
    policy: 'group:get_all_group_snapshots',
    query: GROUP_SNAPSHOTS.query,
    response: z.object({ group_snapshots: z.array(Listed), group_snapshot_links: z.array(Link).optional() }),
    handler: (request) => list(request, '/group_snapshots', ({ id, name: given }) => ({ id, name: given })),
  }),
  defineRoute({
    method: 'GET',
    url: '/group_snapshots/detail',
    operation: 'list_group_snapshots_detail',
    summary: 'List snapshots of groups with details',
    since: '3.14',
    policy: 'group:get_all_group_snapshots',
    query: GROUP_SNAPSHOTS.query,
    response: z.object({ group_snapshots: z.array(Detail), group_snapshot_links: z.array(Link).optional() }),
    handler: (request) => list(request, '/group_snapshots/detail', detail),
  }),
  defineRoute({
    method: 'GET',
    url: '/group_snapshots/:group_snapshot_id',
    operation: 'show_group_snapshot',
    summary: 'Show a snapshot of a group',
    since: '3.14',
    policy: 'group:get_group_snapshot',
    response: z.object({ group_snapshot: Detail }),
    handler: async ({ services, context, params }) => ({
      group_snapshot: detail(await genericSnapshot(services, context, params.group_snapshot_id)),
    }),
  }),
  defineRoute({
    method: 'DELETE',
    url: '/group_snapshots/:group_snapshot_id',
    operation: 'delete_group_snapshot',
    summary: 'Delete a snapshot of a group',
    since: '3.14',
    policy: 'group:delete_group_snapshot',
    status: 202,
    handler: async ({ services, context, params }) => {
      await genericSnapshot(services, context, params.group_snapshot_id)
      await services.groupSnapshots.delete(context, params.group_snapshot_id)
    },
  }),
  defineRoute({
    method: 'POST',
    url: '/group_snapshots/:group_snapshot_id/action',
    action: 'reset_status',
    operation: 'reset_group_snapshot_status',
    summary: 'Write the status of a snapshot of a group without asking the backend',
    since: '3.19',
    policy: 'group:reset_group_snapshot_status',
    body: z.strictObject({ status }),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.groupSnapshots.resetStatus(context, params.group_snapshot_id, body.status),
  }),
]

async function genericSnapshot(services: Services, context: RequestContext, id: string): Promise<GroupSnapshot> {
  const snapshot = await services.groupSnapshots.get(context, id)
  if (!snapshot.isConsistencyGroup) return snapshot
  throw reservedType(snapshot.groupTypeId, 'Migrated group snapshots can only be operated by CG snapshot APIs.')
}

async function list<T>(
  { services, context, client, query, links }: ApiRequest<unknown, z.output<typeof GROUP_SNAPSHOTS.query>, unknown>,
  path: string,
  view: (snapshot: GroupSnapshot) => T,
) {
  const request = toListRequest(GROUP_SNAPSHOTS, query, client)
  const page = request.nothing
    ? emptyPage<GroupSnapshot>(request)
    : await services.groupSnapshots.list(context, request.query, 'generic')
  return { group_snapshots: page.items.map(view), group_snapshot_links: nextLinks(page, request, links, path) }
}

function detail(snapshot: GroupSnapshot): z.input<typeof Detail> {
  return {
    id: snapshot.id,
    name: snapshot.name,
    group_type_id: snapshot.groupTypeId,
    group_id: snapshot.groupId,
    status: snapshot.status,
    created_at: snapshot.createdAt,
    description: snapshot.description,
    project_id: snapshot.projectId,
  }
}
