import { z } from 'zod'
import { badRequest } from '../../errors.ts'
import type { RequestContext } from '../../services/context.ts'
import { reservedType } from '../../services/group-rules.ts'
import type { Group } from '../../services/model.ts'
import type { Services } from '../../services/services.ts'
import { GROUP_STATUSES } from '../../services/statuses.ts'
import { booleanParameter, description, flag, guid, Link, name, readBoolean, text } from '../fields.ts'
import { textFilter } from '../filters.ts'
import { adminOnly, since } from '../microversion.ts'
import { emptyPage, type Listing, listing, nextLinks, toListRequest } from '../paging.ts'
import { type ApiRequest, defineRoute, type Route } from '../route.ts'
import { shorten, tuple, WHOLE_SENTENCE } from '../validation.ts'

const listVolumes = booleanParameter('list_volume')

/** A list without details takes any word, and does not look at it. */
function listsVolumes({ query, supports }: ApiRequest<unknown, z.output<typeof GROUPS.query>, unknown>): boolean {
  const word = supports('3.25') ? query.list_volume : undefined
  const isListed = word === undefined ? false : readBoolean(String(word))
  if (isListed === null) throw badRequest(`Value '${shorten(String(word))}' for 'list_volume' is not a boolean.`)
  return isListed
}

export const GROUPS: Listing = {
  ...listing({
    filters: {
      name: textFilter,
      list_volume: textFilter,
      id: adminOnly(textFilter),
      status: adminOnly(textFilter),
      description: adminOnly(textFilter),
      host: adminOnly(textFilter),
      availability_zone: adminOnly(textFilter),
      group_type_id: adminOnly(textFilter),
      group_snapshot_id: adminOnly(textFilter),
      source_group_id: adminOnly(textFilter),
      project_id: adminOnly(textFilter),
      user_id: adminOnly(textFilter),
    },
    counts: false,
    pagesSince: '3.13',
    sortKeys: ['id', 'name', 'status', 'description', 'host', 'availability_zone', 'created_at', 'updated_at'],
  }),
  filterNames: ['name'], // the volumes are no filter
}

const nullableText = z.string().nullable()

const GroupSummary = z.object({ id: z.string(), name: nullableText })

const GroupDetail = GroupSummary.extend({
  status: z.string(),
  availability_zone: nullableText,
  created_at: z.string(),
  description: nullableText,
  group_type: z.string(),
  volume_types: z.array(z.string()),
  group_snapshot_id: since('3.14', nullableText),
  source_group_id: since('3.14', nullableText),
  /** Only when asked for. */
  volumes: since('3.25', z.array(z.string()).optional()),
  replication_status: since('3.38', z.string()),
  project_id: since('3.58', adminOnly(z.string())),
})

const GroupCreateBody = z.strictObject({
  group: z.strictObject({
    name: name.optional(),
    description: description.optional(),
    group_type: text(255).trim().min(1, { error: 'group_type has a minimum character requirement of 1.' }),
    volume_types: z
      .array(text(255))
      .min(1, { error: 'should be non-empty' })
      .max(1000)
      .refine((types) => new Set(types).size === types.length, { error: 'has non-unique elements' }),
    availability_zone: text(255).min(1).nullish(),
  }),
})

const GroupUpdateBody = z.strictObject({
  group: z
    .strictObject({
      name: name.optional(),
      description: description.optional(),
      add_volumes: description.optional(),
      remove_volumes: description.optional(),
    })
    .refine((changes) => Object.keys(changes).length > 0, { error: 'is not valid under any of the given schemas' }),
})

const GroupCopyBody = z
  .strictObject({
    name: name.optional(),
    description: description.optional(),
    group_snapshot_id: guid.optional(),
    source_group_id: guid.optional(),
  })
  .refine((copy) => (copy.group_snapshot_id === undefined) !== (copy.source_group_id === undefined), {
    error: 'is not valid under any of the given schemas',
  })

const CG_ADVICE = 'Migrated group can only be operated by CG APIs.'

export const groupRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: '/groups',
    operation: 'create_group',
    summary: 'Create a group of volumes',
    since: '3.13',
    policy: 'group:create',
    body: GroupCreateBody,
    response: z.object({ group: GroupSummary }),
    status: 202,
    handler: async ({ services, context, body: { group: request } }) => {
      const group = await services.groups.create(context, {
        name: request.name ?? null,
        description: request.description ?? null,
        groupType: request.group_type,
        volumeTypes: request.volume_types,
        availabilityZone: request.availability_zone ?? null,
      })
      return { group: { id: group.id, name: group.name } }
    },
  }),
  defineRoute({
    method: 'POST',
    url: '/groups/action',
    action: 'create-from-src',
    operation: 'create_group_from_source',
    summary: 'Create a group with copies of the volumes of a group, or of a snapshot of one',
    since: '3.14',
    policy: 'group:create',
    body: GroupCopyBody,
    response: z.object({ group: GroupSummary }),
    status: 202,
    handler: async ({ services, context, body }) => {
      const { group_snapshot_id: groupSnapshotId = null, source_group_id: sourceGroupId = null } = body
      if (groupSnapshotId !== null) {
        const { isConsistencyGroup, groupTypeId } = await services.groupSnapshots.get(context, groupSnapshotId)
        if (isConsistencyGroup) throw reservedType(groupTypeId, CG_ADVICE)
      } else await genericGroup(services, context, sourceGroupId!)
      const group = await services.groups.createCopy(context, {
        name: body.name ?? null,
        description: body.description ?? null,
        groupSnapshotId,
        sourceGroupId,
      })
      return { group: { id: group.id, name: group.name } }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/groups',
    operation: 'list_groups',
    summary: 'List groups of volumes',
    since: '3.13',
    policy: 'group:get_all',
    query: GROUPS.query,
    response: z.object({ groups: z.array(GroupSummary), group_links: z.array(Link).optional() }),
    handler: (request) => list(request, '/groups', ({ id, name: groupName }) => ({ id, name: groupName })),
  }),
  defineRoute({
    method: 'GET',
    url: '/groups/detail',
    operation: 'list_groups_detail',
    summary: 'List groups of volumes with details',
    since: '3.13',
    policy: 'group:get_all',
    query: GROUPS.query,
    response: z.object({ groups: z.array(GroupDetail), group_links: z.array(Link).optional() }),
    handler: (request) => list(request, '/groups/detail', (group) => detail(group, listsVolumes(request))),
  }),
  defineRoute({
    method: 'GET',
    url: '/groups/:group_id',
    operation: 'show_group',
    summary: 'Show a group of volumes',
    since: '3.13',
    policy: 'group:get',
    query: z.object({ list_volume: since('3.25', listVolumes) }),
    response: z.object({ group: GroupDetail }),
    handler: async ({ services, context, params, query }) => {
      const group = await genericGroup(services, context, params.group_id)
      return { group: detail(group, query.list_volume === true) }
    },
  }),
  defineRoute({
    method: 'PUT',
    url: '/groups/:group_id',
    operation: 'update_group',
    summary: 'Change name or description of a group, put volumes into it or take them out',
    since: '3.13',
    policy: 'group:update',
    body: GroupUpdateBody,
    status: 202,
    handler: async ({ services, context, params, body: { group: request } }) => {
      await genericGroup(services, context, params.group_id)
      await services.groups.update(context, params.group_id, {
        name: request.name ?? null,
        description: request.description ?? null,
        addVolumes: splitIds(request.add_volumes),
        removeVolumes: splitIds(request.remove_volumes),
      })
    },
  }),
  action({
    action: 'delete',
    operation: 'delete_group',
    summary: 'Delete a group, with `delete-volumes` its volumes too',
    since: '3.13',
    policy: 'group:delete',
    body: z.strictObject({ 'delete-volumes': flag.optional() }),
    status: 202,
    handler: async ({ services, context, params, body }) => {
      await genericGroup(services, context, params.group_id)
      await services.groups.delete(context, params.group_id, { withVolumes: body['delete-volumes'] === true })
    },
  }),
  action({
    action: 'reset_status',
    operation: 'reset_group_status',
    summary: 'Write the status of a group without asking the backend',
    since: '3.20',
    policy: 'group:reset_status',
    body: z.strictObject({ status: groupStatus() }),
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.groups.resetStatus(context, params.group_id, body.status),
  }),
  action({
    action: 'enable_replication',
    operation: 'enable_group_replication',
    summary: 'Refused: nothing is replicated to another backend',
    since: '3.38',
    policy: 'group:enable_replication',
    body: z.looseObject({}),
    status: 202,
    handler: ({ services, context, params }) => services.groups.enableReplication(context, params.group_id),
  }),
  action({
    action: 'disable_replication',
    operation: 'disable_group_replication',
    summary: 'Refused: nothing is replicated to another backend',
    since: '3.38',
    policy: 'group:disable_replication',
    body: z.looseObject({}),
    status: 202,
    handler: ({ services, context, params }) => services.groups.disableReplication(context, params.group_id),
  }),
  action({
    action: 'failover_replication',
    operation: 'failover_group_replication',
    summary: 'Refused: nothing is replicated to another backend',
    since: '3.38',
    policy: 'group:failover_replication',
    body: z.strictObject({ allow_attached_volume: flag.optional(), secondary_backend_id: text(255).nullish() }),
    status: 202,
    handler: ({ services, context, params }) => services.groups.failOverReplication(context, params.group_id),
  }),
  action({
    action: 'list_replication_targets',
    operation: 'list_group_replication_targets',
    summary: 'Refused: nothing is replicated to another backend',
    since: '3.38',
    policy: 'group:list_replication_targets',
    body: z.looseObject({}),
    status: 202,
    handler: ({ services, context, params }) => services.groups.replicationTargets(context, params.group_id),
  }),
]

type ActionOptions<Body extends z.ZodType> = Omit<
  Parameters<typeof defineRoute<'/groups/:group_id/action', Body>>[0],
  'method' | 'url'
>

function action<Body extends z.ZodType>(options: ActionOptions<Body>): Route {
  return defineRoute({ method: 'POST', url: '/groups/:group_id/action', ...options })
}

/** A status that an administrator may write; upstream shows one among them that it does not take. */
function groupStatus() {
  return text(255).transform((word, context): (typeof GROUP_STATUSES)[number] => {
    const status = GROUP_STATUSES.find((known) => known === word.toLowerCase() && known !== 'in-use')
    if (status !== undefined) return status
    const reason =
      word.trim() === ''
        ? "The 'status' can not be empty."
        : `Group status: ${word} is invalid, valid status are: ${tuple(GROUP_STATUSES)}.`
    context.addIssue({ code: 'custom', message: `Invalid Group Status: ${reason}`, params: WHOLE_SENTENCE })
    return z.NEVER
  })
}

/** A group that is no consistency group; of such, upstream says that it is for others to work on. */
export async function genericGroup(services: Services, context: RequestContext, id: string): Promise<Group> {
  const group = await services.groups.get(context, id)
  if (group.isConsistencyGroup) throw reservedType(group.groupTypeId, CG_ADVICE)
  return group
}

/** `id,id`, with commas around it as they come. */
export function splitIds(list: string | null | undefined): string[] {
  const trimmed = (list ?? '').replace(/^,+|,+$/g, '')
  return trimmed === '' ? [] : trimmed.split(',')
}

async function list<T>(
  { services, context, client, query, links }: ApiRequest<unknown, z.output<typeof GROUPS.query>, unknown>,
  path: string,
  view: (group: Group) => T,
) {
  const { list_volume: _, ...filters } = query
  const request = toListRequest(GROUPS, filters, client)
  const page = request.nothing
    ? emptyPage<Group>(request)
    : await services.groups.list(context, request.query, 'generic')
  return { groups: page.items.map(view), group_links: nextLinks(page, request, links, path) }
}

function detail(group: Group, withVolumes: boolean): z.input<typeof GroupDetail> {
  return {
    id: group.id,
    name: group.name,
    status: group.status,
    availability_zone: group.availabilityZone,
    created_at: group.createdAt,
    description: group.description,
    group_type: group.groupTypeId,
    volume_types: [...group.volumeTypeIds],
    group_snapshot_id: group.groupSnapshotId,
    source_group_id: group.sourceGroupId,
    ...(withVolumes ? { volumes: [...group.volumeIds] } : {}),
    replication_status: 'disabled',
    project_id: group.projectId,
  }
}
