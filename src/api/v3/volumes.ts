import { z } from 'zod'
import { badRequest, ServiceError } from '../../errors.ts'
import type { Volume, VolumeCreate, VolumeHints } from '../../services/model.ts'
import {
  booleanParameter,
  guid,
  metadata,
  optionalFlag,
  optionalGuid,
  sizeGib,
  text,
  volumeDescription,
  volumeName,
} from '../fields.ts'
import {
  booleanFilter,
  metadataFilter,
  noTargetsFilter,
  numberFilter,
  quotaFilter,
  textFilter,
  timeFilter,
} from '../filters.ts'
import { adminOnly, before, refuseSince, since, strictSince } from '../microversion.ts'
import { listing, toListRequest } from '../paging.ts'
import { type ApiRequest, defineRoute, type Route } from '../route.ts'
import { str } from '../validation.ts'
import { answerList, listResponse } from './lists.ts'
import { VolumeDetail, VolumeFull, VolumeSummary, volumeDetail, volumeFull, volumeSummary } from './volume-view.ts'

const LIST = {
  filters: {
    name: textFilter,
    status: textFilter,
    metadata: metadataFilter,
    bootable: booleanFilter('bootable'),
    migration_status: textFilter,
    availability_zone: textFilter,
    group_id: since('3.10', textFilter),
    size: numberFilter,
    // Upstream's document says 3.60 and 3.65 for these; its code takes them since filters are configured.
    created_at: since('3.31', timeFilter),
    updated_at: since('3.31', timeFilter),
    consumes_quota: since('3.31', quotaFilter),
    id: adminOnly(textFilter),
    display_name: adminOnly(textFilter),
    glance_metadata: since('3.4', adminOnly(metadataFilter)),
    project_id: adminOnly(textFilter),
    user_id: adminOnly(textFilter),
    host: adminOnly(textFilter),
    volume_type_id: adminOnly(textFilter),
    snapshot_id: adminOnly(textFilter),
    source_volid: adminOnly(textFilter),
    consistencygroup_id: adminOnly(textFilter),
    display_description: adminOnly(textFilter),
    attach_status: adminOnly(textFilter),
    multiattach: adminOnly(booleanFilter('multiattach')),
    shared_targets: adminOnly(booleanFilter('shared_targets')),
    use_quota: adminOnly(quotaFilter),
    deleted: adminOnly(booleanFilter('deleted')),
    no_migration_targets: adminOnly(noTargetsFilter),
  },
  nullable: [
    'migration_status',
    'group_id',
    'consistencygroup_id',
    'snapshot_id',
    'source_volid',
    'display_description',
  ],
  constants: { deleted: 'false' },
  sortKeys: [
    'id',
    'name',
    'display_name',
    'status',
    'size',
    'availability_zone',
    'bootable',
    'host',
    'project_id',
    'user_id',
    'migration_status',
    'snapshot_id',
    'source_volid',
    'multiattach',
    'volume_type_id',
    'group_id',
    'consistencygroup_id',
    'display_description',
    'created_at',
    'updated_at',
  ],
} satisfies Parameters<typeof listing>[0]

export const VOLUMES = listing(LIST)

/** The summary takes the same filters, and has never refused another one. */
const SUMMARY = listing({ ...LIST, strict: null })

/** Ids of volumes: one, or several that differ. */
const volumeIds = z.union([
  guid.transform((id) => [id]),
  z
    .array(guid)
    .max(100)
    .refine((ids) => new Set(ids).size === ids.length),
])

const SchedulerHints = z.looseObject({
  same_host: volumeIds.optional(),
  different_host: volumeIds.optional(),
  local_to_instance: optionalGuid,
  query: z
    .union([text(4096), z.array(z.unknown()), z.record(z.string(), z.unknown())], {
      error: "is not of type 'string', 'object'",
    })
    .optional(),
})

const VolumeCreateBody = z.strictObject({
  volume: strictSince(
    '3.53',
    z.object({
      name: volumeName.optional(),
      display_name: volumeName.optional(),
      description: volumeDescription.optional(),
      display_description: volumeDescription.optional(),
      size: sizeGib.nullish(),
      volume_type: text(255).nullish(),
      metadata: metadata.nullish(),
      snapshot_id: optionalGuid,
      source_volid: optionalGuid,
      availability_zone: text(255).min(1).nullish(),
      multiattach: optionalFlag,
      imageRef: text(255).nullish(),
      image_id: text(255).nullish(),
      consistencygroup_id: optionalGuid,
      // Upstream has always looked at these, though it took them for unknown keys before.
      group_id: before('3.13', asText, text(255).nullish()),
      backup_id: before('3.47', asText, optionalGuid),
    }),
  ),
  'OS-SCH-HNT:scheduler_hints': SchedulerHints.nullish(),
})

const VolumeUpdateBody = z.strictObject({
  volume: refuseSince(
    '3.53',
    (changes) => Object.keys(changes).length > 0,
    { error: 'is not valid under any of the given schemas' },
    z.strictObject({
      name: volumeName.optional(),
      display_name: volumeName.optional(),
      description: volumeDescription.optional(),
      display_description: volumeDescription.optional(),
      metadata: metadata.optional(),
    }),
  ),
})

const SummaryResponse = z.object({
  'volume-summary': z.object({
    total_count: z.int(),
    total_size: z.int(),
    metadata: since('3.36', z.record(z.string(), z.array(z.string()))),
  }),
})

export const volumeRoutes: Route[] = [
  defineRoute({
    method: 'POST',
    url: '/volumes',
    operation: 'create_volume',
    summary: 'Create a volume: empty, from a snapshot, a backup or an image, or as a copy of a volume',
    policy: 'volume:create',
    asks: ({ body }) => imageOf(body.volume) !== null && 'volume:create_from_image',
    body: VolumeCreateBody,
    response: z.object({ volume: VolumeDetail }),
    status: 202,
    handler: async ({ services, context, body, links, supports }) => {
      const { volume: request, 'OS-SCH-HNT:scheduler_hints': hints } = body
      refuseWhatIsNotThere(request)
      const create: VolumeCreate = {
        name: request.name ?? request.display_name ?? null,
        description: request.description ?? request.display_description ?? null,
        sizeGib: request.size ?? null,
        volumeType: request.volume_type || null,
        snapshotId: request.snapshot_id ?? null,
        sourceVolid: request.source_volid ?? null,
        availabilityZone: request.availability_zone ?? null,
        metadata: request.metadata ?? {},
        imageRef: imageOf(request),
        takesBootSnapshots: supports('3.46'),
        hints: hints ? toHints(hints) : null,
        groupId: request.group_id ?? request.consistencygroup_id ?? null,
      }
      const volume = await (request.backup_id
        ? services.backups.createVolume(context, request.backup_id, create)
        : services.volumes.create(context, create))
      return { volume: volumeDetail(volume, context, links) }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/volumes',
    operation: 'list_volumes',
    summary: 'List volumes',
    policy: 'volume:get_all',
    query: VOLUMES.query,
    response: listResponse('volumes', VolumeSummary),
    handler: (request) => list(request, '/volumes', (volume) => volumeSummary(volume, request.links)),
  }),
  defineRoute({
    method: 'GET',
    url: '/volumes/detail',
    operation: 'list_volumes_detail',
    summary: 'List volumes with details',
    policy: 'volume:get_all',
    query: VOLUMES.query,
    response: listResponse('volumes', VolumeFull),
    handler: (request) =>
      list(request, '/volumes/detail', (volume) => volumeFull(volume, request.context, request.links)),
  }),
  defineRoute({
    method: 'GET',
    url: '/volumes/summary',
    operation: 'summarize_volumes',
    summary: 'Number and total size of volumes',
    since: '3.12',
    policy: 'volume:get_all',
    query: SUMMARY.query,
    response: SummaryResponse,
    handler: async ({ services, context, client, query }) => {
      const request = toListRequest(SUMMARY, query, client)
      const {
        count,
        sizeGib: size,
        metadata: pairs,
      } = request.nothing
        ? { count: 0, sizeGib: 0, metadata: {} }
        : await services.volumes.summary(context, request.query)
      return { 'volume-summary': { total_count: count, total_size: size, metadata: pairs } }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/volumes/:volume_id',
    operation: 'show_volume',
    summary: 'Show a volume',
    policy: 'volume:get',
    response: z.object({ volume: VolumeFull }),
    handler: async ({ services, context, params, links }) => {
      const volume = await services.volumes.get(context, params.volume_id)
      return { volume: volumeFull(volume, context, links) }
    },
  }),
  defineRoute({
    method: 'PUT',
    url: '/volumes/:volume_id',
    operation: 'update_volume',
    summary: 'Change name, description or metadata of a volume',
    policy: 'volume:update',
    body: VolumeUpdateBody,
    response: z.object({ volume: VolumeDetail }),
    handler: async ({ services, context, params, body: { volume: request }, links }) => {
      const newName = request.name === undefined ? request.display_name : request.name
      const newText = request.description === undefined ? request.display_description : request.description
      const volume = await services.volumes.update(context, params.volume_id, {
        ...(newName === undefined ? {} : { name: newName }),
        ...(newText === undefined ? {} : { description: newText }),
        ...(request.metadata === undefined ? {} : { metadata: request.metadata }),
      })
      return { volume: volumeDetail(volume, context, links) }
    },
  }),
  defineRoute({
    method: 'DELETE',
    url: '/volumes/:volume_id',
    operation: 'delete_volume',
    summary: 'Delete a volume, with `cascade` its snapshots too',
    policy: 'volume:delete',
    asks: ({ query }) => query.force === true && 'volume:force_delete',
    query: z.object({ cascade: booleanParameter('cascade'), force: since('3.23', booleanParameter('force')) }),
    status: 202,
    handler: async ({ services, context, params, query }) => {
      const force = query.force === true // absent before 3.23
      if (force) context.authorize('volume:force_delete', context)
      await services.volumes.delete(context, params.volume_id, { cascade: query.cascade === true, force })
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/volumes/:volume_id/encryption',
    operation: 'show_volume_encryption',
    summary: 'Show how a volume is encrypted; Nova asks at every attach',
    policy: 'volume_extension:volume_encryption_metadata',
    response: z.record(z.string(), z.union([z.string(), z.number(), z.null()])),
    handler: ({ services, context, params }) => services.volumes.encryption(context, params.volume_id),
  }),
  defineRoute({
    method: 'GET',
    url: '/volumes/:volume_id/encryption/:key',
    operation: 'show_volume_encryption_key',
    summary: 'Show one attribute of the encryption of a volume',
    policy: 'volume_extension:volume_encryption_metadata',
    response: z.union([z.string(), z.number(), z.null()]),
    handler: async ({ services, context, params }) => {
      const encryption = await services.volumes.encryption(context, params.volume_id)
      if (!Object.hasOwn(encryption, params.key)) throw new ServiceError('ResourceNotFound')
      return encryption[params.key] ?? null
    },
  }),
]

function list<T>(
  request: ApiRequest<unknown, z.output<typeof VOLUMES.query>, unknown>,
  path: string,
  view: (volume: Volume) => T,
) {
  const { services, context } = request
  return answerList(request, {
    collection: 'volumes',
    listing: VOLUMES,
    path,
    find: (query, options) => services.volumes.list(context, query, options),
    view,
  })
}

/** Hints of other names are for schedulers of others, and mean nothing here. */
function toHints(hints: z.output<typeof SchedulerHints>): VolumeHints {
  return {
    sameHost: hints.same_host ?? [],
    differentHost: hints.different_host ?? [],
    localToInstance: hints.local_to_instance ?? null,
    query: hints.query ?? null,
  }
}

/** Null for a volume that is not made of an image. */
function imageOf({ image_id, imageRef }: z.output<typeof VolumeCreateBody>['volume']): string | null {
  return (image_id === undefined ? imageRef : image_id) ?? null
}

/** Sources that are not there are refused, instead of making an empty volume without a word. */
function refuseWhatIsNotThere(request: z.output<typeof VolumeCreateBody>['volume']): void {
  if (imageOf(request) === '') throw badRequest('Invalid image identifier or unable to access requested image.')
  if (request.multiattach === null) throw badRequest("Value 'None' for 'multiattach' is not a boolean.")
  if (request.multiattach) {
    throw badRequest(
      'multiattach parameter has been removed. The default behavior is to use multiattach enabled volume types. ' +
        'Contact your administrator to create a multiattach enabled volume type and use it to create multiattach volumes.',
    )
  }
}

/** Python's words for what is no text. */
function asText(value: unknown): unknown {
  return value === null || value === undefined ? value : str(value)
}
