import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { Group, GroupSnapshot } from '../../services/model.ts'
import { description, flag, Link, name, text } from '../fields.ts'
import { textFilter } from '../filters.ts'
import { adminOnly } from '../microversion.ts'
import { emptyPage, listing, nextLinks, PAGE_SIZE_MAX, pageNumber, toListRequest } from '../paging.ts'
import { type ApiRequest, defineRoute, type Route } from '../route.ts'
import { splitIds } from './groups.ts'

/**
 * Consistency groups and their snapshots, which upstream has deprecated: groups of a type that is kept for them. As upstream, whoever
 * asks in this way sees all groups. Bodies may have any other keys; upstream's clients send some.
 */

const GROUPS = listing({
  filters: {
    name: textFilter,
    status: textFilter,
    id: adminOnly(textFilter),
    host: adminOnly(textFilter),
    project_id: adminOnly(textFilter),
  },
  strict: null,
  counts: false,
  sortKeys: ['id', 'name', 'status', 'description', 'host', 'availability_zone', 'created_at', 'updated_at'],
})

/** All that upstream looks at for their snapshots. */
const SNAPSHOT_PAGE = z.object({ limit: pageNumber('limit').optional(), offset: pageNumber('offset').optional() })

const nullableText = z.string().nullable()

const Summary = z.object({ id: z.string(), name: nullableText })

const Detail = Summary.extend({
  status: z.string(),
  availability_zone: nullableText,
  created_at: z.string(),
  description: nullableText,
  volume_types: z.array(z.string()),
})

const SnapshotDetail = Summary.extend({
  consistencygroup_id: z.string(),
  status: z.string(),
  created_at: z.string(),
  description: nullableText,
})

const words = { name: name.optional(), description: description.optional() }

export const consistencyGroupRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: '/consistencygroups',
    operation: 'create_consistency_group',
    summary: 'Create a consistency group',
    policy: 'group:create',
    body: z.looseObject({
      consistencygroup: z.looseObject({
        ...words,
        volume_types: z.unknown(),
        availability_zone: z.unknown().optional(),
      }),
    }),
    response: z.object({ consistencygroup: Summary }),
    status: 202,
    handler: async ({ services, context, body: { consistencygroup: request } }) => {
      const { volume_types: types, availability_zone: zone } = request
      if (typeof types !== 'string' || types.replace(/,+$/, '') === '') {
        throw invalid(`volume_types must be provided to create consistency group ${request.name ?? 'None'}.`)
      }
      const group = await services.groups.create(context, {
        name: request.name ?? null,
        description: request.description ?? null,
        groupType: null,
        volumeTypes: splitIds(types),
        availabilityZone: typeof zone === 'string' ? zone : null,
      })
      return { consistencygroup: summary(group) }
    },
  }),
  defineRoute({
    method: 'POST',
    url: '/consistencygroups/create_from_src',
    operation: 'create_consistency_group_from_source',
    summary: 'Create a consistency group with copies of the volumes of another, or of a snapshot of one',
    policy: 'group:create',
    body: z.looseObject({
      'consistencygroup-from-src': z.looseObject({
        ...words,
        // Upstream's schema takes no null, which its own client sends for the other one.
        cgsnapshot_id: text(255).nullish(),
        source_cgid: text(255).nullish(),
      }),
    }),
    response: z.object({ consistencygroup: Summary }),
    status: 202,
    handler: async ({ services, context, body: { 'consistencygroup-from-src': request } }) => {
      const { cgsnapshot_id: snapshotId, source_cgid: sourceId, name: given } = request
      if (!snapshotId && !sourceId) {
        throw invalid(
          `Either 'cgsnapshot_id' or 'source_cgid' must be provided to create consistency group ${given ?? 'None'} from source.`,
        )
      }
      if (snapshotId && sourceId) {
        throw invalid(
          `Cannot provide both 'cgsnapshot_id' and 'source_cgid' to create consistency group ${given ?? 'None'} from source.`,
        )
      }
      const group = await services.groups.createCopy(context, {
        name: given ?? null,
        description: request.description ?? null,
        groupSnapshotId: snapshotId || null,
        sourceGroupId: sourceId || null,
      })
      return { consistencygroup: summary(group) }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/consistencygroups',
    operation: 'list_consistency_groups',
    summary: 'List consistency groups',
    policy: 'group:get_all',
    query: GROUPS.query,
    response: z.object({ consistencygroups: z.array(Summary), consistencygroup_links: z.array(Link).optional() }),
    handler: (request) => list(request, '/consistencygroups', summary),
  }),
  defineRoute({
    method: 'GET',
    url: '/consistencygroups/detail',
    operation: 'list_consistency_groups_detail',
    summary: 'List consistency groups with details',
    policy: 'group:get_all',
    query: GROUPS.query,
    response: z.object({ consistencygroups: z.array(Detail), consistencygroup_links: z.array(Link).optional() }),
    handler: (request) => list(request, '/consistencygroups/detail', detail),
  }),
  defineRoute({
    method: 'GET',
    url: '/consistencygroups/:consistencygroup_id',
    operation: 'show_consistency_group',
    summary: 'Show a consistency group',
    policy: 'group:get',
    response: z.object({ consistencygroup: Detail }),
    handler: async ({ services, context, params }) => ({
      consistencygroup: detail(await services.groups.get(context, params.consistencygroup_id)),
    }),
  }),
  defineRoute({
    method: 'POST',
    url: '/consistencygroups/:consistencygroup_id/delete',
    operation: 'delete_consistency_group',
    summary: 'Delete a consistency group, with `force` its volumes too',
    policy: 'group:delete',
    body: z.union(
      [
        z.looseObject({ consistencygroup: z.looseObject({ force: flag.optional() }) }),
        z.strictObject({ consistencygroup: z.undefined().optional() }),
        z.null(),
      ],
      { error: 'is not valid under any of the given schemas' },
    ),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.groups.delete(context, params.consistencygroup_id, {
        withVolumes: body?.consistencygroup?.force === true,
      }),
  }),
  updateRoute('/consistencygroups/:consistencygroup_id/update', 'update_consistency_group'),
  // As upstream's router has it besides; cinderclient asks in this way.
  updateRoute('/consistencygroups/:consistencygroup_id', 'put_consistency_group'),
  defineRoute({
    method: 'POST',
    url: '/cgsnapshots',
    operation: 'create_cgsnapshot',
    summary: 'Create snapshots of all volumes of a consistency group, of one moment',
    policy: 'group:create_group_snapshot',
    body: z.looseObject({
      cgsnapshot: z.looseObject({
        consistencygroup_id: text(255),
        // Upstream's schema takes no null, which its own client sends.
        name: text(255).trim().nullish(),
        description: text(255).trim().nullish(),
      }),
    }),
    target: ({ services, context, body }) => services.groups.get(context, body.cgsnapshot.consistencygroup_id),
    response: z.object({ cgsnapshot: Summary }),
    status: 202,
    handler: async ({ services, context, body: { cgsnapshot: request } }) => {
      const snapshot = await services.groupSnapshots.create(context, {
        groupId: request.consistencygroup_id,
        name: request.name ?? null,
        description: request.description ?? null,
      })
      return { cgsnapshot: summary(snapshot) }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/cgsnapshots',
    operation: 'list_cgsnapshots',
    summary: 'List snapshots of consistency groups',
    policy: 'group:get_all_group_snapshots',
    query: SNAPSHOT_PAGE,
    response: z.object({ cgsnapshots: z.array(Summary) }),
    handler: async (request) => ({ cgsnapshots: (await listSnapshots(request)).map(summary) }),
  }),
  defineRoute({
    method: 'GET',
    url: '/cgsnapshots/detail',
    operation: 'list_cgsnapshots_detail',
    summary: 'List snapshots of consistency groups with details',
    policy: 'group:get_all_group_snapshots',
    query: SNAPSHOT_PAGE,
    response: z.object({ cgsnapshots: z.array(SnapshotDetail) }),
    handler: async (request) => ({ cgsnapshots: (await listSnapshots(request)).map(snapshotDetail) }),
  }),
  defineRoute({
    method: 'GET',
    url: '/cgsnapshots/:cgsnapshot_id',
    operation: 'show_cgsnapshot',
    summary: 'Show a snapshot of a consistency group',
    policy: 'group:get_group_snapshot',
    response: z.object({ cgsnapshot: SnapshotDetail }),
    handler: async ({ services, context, params }) => ({
      cgsnapshot: snapshotDetail(await services.groupSnapshots.get(context, params.cgsnapshot_id)),
    }),
  }),
  defineRoute({
    method: 'DELETE',
    url: '/cgsnapshots/:cgsnapshot_id',
    operation: 'delete_cgsnapshot',
    summary: 'Delete a snapshot of a consistency group',
    policy: 'group:delete_group_snapshot',
    status: 202,
    handler: ({ services, context, params }) => services.groupSnapshots.delete(context, params.cgsnapshot_id),
  }),
]

function updateRoute(
  url: '/consistencygroups/:consistencygroup_id' | '/consistencygroups/:consistencygroup_id/update',
  operation: string,
): Route {
  return defineRoute({
    method: 'PUT',
    url,
    operation,
    summary: 'Change name or description of a consistency group, put volumes into it or take them out',
    policy: 'group:update',
    body: z.looseObject({
      consistencygroup: z.looseObject({
        ...words,
        add_volumes: z.string().nullish(),
        remove_volumes: z.string().nullish(),
      }),
    }),
    status: 202,
    handler: async ({ services, context, params, body: { consistencygroup: request }, supports }) => {
      const { name: newName, description: newText, add_volumes: added, remove_volumes: removed } = request
      if (supports('3.6')) {
        if (newName == null && newText == null && !added && !removed) {
          throw invalid(
            'Must specify one or more of the following keys to update: name, description, add_volumes, remove_volumes.',
          )
        }
      } else if (!(newName || newText || added || removed)) {
        throw invalid('Name, description, add_volumes, and remove_volumes can not be all empty in the request body.')
      }
      await services.groups.update(context, params.consistencygroup_id, {
        name: newName ?? null,
        description: newText ?? null,
        addVolumes: splitIds(added),
        removeVolumes: splitIds(removed),
      })
    },
  })
}

async function list<T>(
  { services, context, client, query, links }: ApiRequest<unknown, z.output<typeof GROUPS.query>, unknown>,
  path: string,
  view: (group: Group) => T,
) {
  const request = toListRequest(GROUPS, query, client)
  const page = request.nothing ? emptyPage<Group>(request) : await services.groups.list(context, request.query, 'all')
  return { consistencygroups: page.items.map(view), consistencygroup_links: nextLinks(page, request, links, path) }
}

async function listSnapshots({
  services,
  context,
  query,
}: ApiRequest<unknown, z.output<typeof SNAPSHOT_PAGE>, unknown>): Promise<GroupSnapshot[]> {
  const page = await services.groupSnapshots.list(
    context,
    {
      limit: Math.min(query.limit || PAGE_SIZE_MAX, PAGE_SIZE_MAX),
      offset: query.offset ?? 0,
      marker: null,
      sort: [{ key: 'created_at', direction: 'desc' }],
      filters: {},
      allProjects: false,
    },
    'all',
  )
  return page.items
}

function summary({ id, name: given }: Group | GroupSnapshot): z.input<typeof Summary> {
  return { id, name: given }
}

function detail(group: Group): z.input<typeof Detail> {
  return {
    id: group.id,
    name: group.name,
    status: group.status,
    availability_zone: group.availabilityZone,
    created_at: group.createdAt,
    description: group.description,
    volume_types: [...group.volumeTypeIds],
  }
}

function snapshotDetail(snapshot: GroupSnapshot): z.input<typeof SnapshotDetail> {
  return {
    id: snapshot.id,
    name: snapshot.name,
    consistencygroup_id: snapshot.groupId,
    status: snapshot.status,
    created_at: snapshot.createdAt,
    description: snapshot.description,
  }
}

function invalid(reason: string): ServiceError {
  return new ServiceError('InvalidInput', { reason })
}
