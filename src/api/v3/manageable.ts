import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { ManageableResource } from '../../services/model.ts'
import type { BackendName } from '../../services/services.ts'
import { description, flag, guid, metadata, name, text } from '../fields.ts'
import { since } from '../microversion.ts'
import { PAGE_SIZE_MAX, pageNumber } from '../paging.ts'
import { type ApiRequest, defineRoute, type Route } from '../route.ts'
import { SnapshotDetail, snapshotDetail } from './snapshots.ts'
import { VolumeDetail, volumeDetail } from './volume-view.ts'

/** What backends hold that is no volume or snapshot yet, in two ways to ask for it: an old one, and another since 3.8. */
const PATHS = {
  volumes: [
    { path: '/os-volume-manage', since: '3.0', suffix: '_old' },
    { path: '/manageable_volumes', since: '3.8', suffix: '' },
  ],
  snapshots: [
    { path: '/os-snapshot-manage', since: '3.0', suffix: '_old' },
    { path: '/manageable_snapshots', since: '3.8', suffix: '' },
  ],
} as const

const Query = z.object({
  host: text(255).optional(),
  cluster: since('3.17', text(255).optional()),
  limit: pageNumber('limit').optional(),
  offset: pageNumber('offset').optional(),
  marker: text(1024).optional(),
  sort: text(1024).optional(),
  sort_key: text(255).optional(),
  sort_dir: text(255).optional(),
})

const Reference = z.object({ 'source-name': z.string() })

const Brief = z.object({ reference: Reference, size: z.int(), safe_to_manage: z.boolean() })

const Full = Brief.extend({
  reason_not_safe: z.string().nullable(),
  cinder_id: z.string().nullable(),
  extra_info: z.string().nullable(),
})

const source = { source_reference: Reference }

const cinderHost = text(255)
  .min(1)
  .regex(/^[a-zA-Z0-9-._#@:/+[\]]*$/)
  .nullish()

/** In the driver's own words; what has no name in it is told of as a failure of the work, as upstream. */
const reference = z.union([z.string(), z.record(z.string(), z.unknown())])

const VolumeManageBody = z.strictObject({
  volume: z.strictObject({
    host: cinderHost,
    cluster: since('3.16', text(255).nullish()),
    ref: reference,
    name: name.optional(),
    description: description.optional(),
    volume_type: name.optional(),
    availability_zone: name.optional(),
    bootable: flag.optional(),
    metadata: metadata.nullish(),
  }),
})

const SnapshotManageBody = z.strictObject({
  snapshot: z.strictObject({
    volume_id: guid,
    ref: reference.nullable(),
    name: name.optional(),
    description: description.optional(),
    metadata: metadata.nullish(),
  }),
})

/** Upstream shows the same at every microversion. */
const ManagedVolume = VolumeDetail.omit({
  group_id: true,
  provider_id: true,
  shared_targets: true,
  service_uuid: true,
  cluster_name: true,
  volume_type_id: true,
  consumes_quota: true,
})

export const manageableRoutes: Route[] = [
  ...PATHS.volumes.flatMap(({ path, since, suffix }) => [
    defineRoute({
      method: 'POST',
      url: path,
      operation: `manage_volume${suffix}`,
      summary: 'Take over something that a backend holds as a volume',
      since,
      policy: 'volume_extension:volume_manage',
      body: VolumeManageBody,
      response: z.object({ volume: ManagedVolume }),
      status: 202,
      handler: async ({ services, context, body: { volume: request }, links, supports }) => {
        const volume = await services.manageable.manageVolume(context, {
          ...placeOf({ host: request.host ?? null, cluster: request.cluster ?? null }, supports('3.16')),
          sourceName: nameIn(request.ref),
          name: request.name || null,
          description: request.description || null,
          volumeType: request.volume_type || null,
          availabilityZone: request.availability_zone ?? null,
          bootable: request.bootable ?? false,
          metadata: request.metadata ?? {},
        })
        return { volume: volumeDetail(volume, context, links) }
      },
    }),
    defineRoute({
      method: 'GET',
      url: path,
      operation: `list_manageable_volumes${suffix}`,
      summary: 'List what a backend holds that may become a volume',
      since,
      policy: 'volume_extension:list_manageable',
      query: Query,
      response: z.object({ 'manageable-volumes': z.array(Brief) }),
      handler: async (request) => ({ 'manageable-volumes': (await listVolumes(request)).map(brief) }),
    }),
    defineRoute({
      method: 'GET',
      url: `${path}/detail`,
      operation: `list_manageable_volumes_detail${suffix}`,
      summary: 'List what a backend holds that may become a volume, with details',
      since,
      policy: 'volume_extension:list_manageable',
      query: Query,
      response: z.object({ 'manageable-volumes': z.array(Full) }),
      handler: async (request) => ({ 'manageable-volumes': (await listVolumes(request)).map(full) }),
    }),
  ]),
  ...PATHS.snapshots.flatMap(({ path, since, suffix }) => [
    defineRoute({
      method: 'POST',
      url: path,
      operation: `manage_snapshot${suffix}`,
      summary: 'Take over something that a backend holds as a snapshot of a volume',
      since,
      policy: 'snapshot_extension:snapshot_manage',
      body: SnapshotManageBody,
      target: ({ services, context, body }) => services.volumes.get(context, body.snapshot.volume_id),
      response: z.object({ snapshot: SnapshotDetail }),
      status: 202,
      handler: async ({ services, context, body: { snapshot: request } }) => {
        const snapshot = await services.manageable.manageSnapshot(context, {
          volumeId: request.volume_id,
          sourceName: nameIn(request.ref),
          name: request.name ?? null,
          description: request.description ?? null,
          metadata: request.metadata ?? {},
        })
        return { snapshot: snapshotDetail(snapshot) }
      },
    }),
    defineRoute({
      method: 'GET',
      url: path,
      operation: `list_manageable_snapshots${suffix}`,
      summary: 'List what a backend holds that may become a snapshot',
      since,
      policy: 'snapshot_extension:list_manageable',
      query: Query,
      response: z.object({ 'manageable-snapshots': z.array(Brief.extend(source)) }),
      handler: async (request) => ({
        'manageable-snapshots': (await listSnapshots(request)).map((one) => ({ ...brief(one), ...sourceOf(one) })),
      }),
    }),
    defineRoute({
      method: 'GET',
      url: `${path}/detail`,
      operation: `list_manageable_snapshots_detail${suffix}`,
      summary: 'List what a backend holds that may become a snapshot, with details',
      since,
      policy: 'snapshot_extension:list_manageable',
      query: Query,
      response: z.object({ 'manageable-snapshots': z.array(Full.extend(source)) }),
      handler: async (request) => ({
        'manageable-snapshots': (await listSnapshots(request)).map((one) => ({ ...full(one), ...sourceOf(one) })),
      }),
    }),
  ]),
]

type ListRequest = ApiRequest<unknown, z.output<typeof Query>, unknown>

async function listVolumes({ services, context, query, supports }: ListRequest): Promise<ManageableResource[]> {
  const page = pageOf(query)
  return page(await services.manageable.listVolumes(context, backendOf(query, supports('3.17'))))
}

async function listSnapshots({ services, context, query, supports }: ListRequest): Promise<ManageableResource[]> {
  const page = pageOf(query)
  return page(await services.manageable.listSnapshots(context, backendOf(query, supports('3.17'))))
}

function backendOf({ host, cluster }: z.output<typeof Query>, knowsClusters: boolean): BackendName {
  return placeOf({ host: host ?? null, cluster: cluster ?? null }, knowsClusters)
}

/** One of the two has to be named, and not both. */
function placeOf({ host, cluster }: BackendName, knowsClusters: boolean): BackendName {
  if (!host === !cluster) {
    const what = knowsClusters ? 'One and only one of cluster and host must be set.' : 'Host field is missing.'
    throw invalid(`Invalid input received: ${what}`)
  }
  return { host: host || null, cluster: cluster || null }
}

/** The order and the part of a list that are asked for. The marker is the reference of the last one, as JSON. */
function pageOf(query: z.output<typeof Query>): (all: readonly ManageableResource[]) => ManageableResource[] {
  const { sort, sort_key: key = 'reference', sort_dir: direction = 'desc', marker, offset = 0 } = query
  if (sort !== undefined && (query.sort_key !== undefined || query.sort_dir !== undefined)) {
    throw invalid(
      "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter.",
    )
  }
  const orders = (sort ?? `${key}:${direction}`).split(',').map((part) => {
    const [by = '', towards = 'desc'] = part.split(':')
    return { key: by.trim(), direction: towards.trim() }
  })
  const badKeys = orders.filter((order) => order.key !== 'reference' && order.key !== 'size').map((order) => order.key)
  if (badKeys.length > 0) throw invalid(`Invalid sort keys passed: ${badKeys.join(', ')}`)
  const badDirections = orders.map((order) => order.direction).filter((word) => word !== 'asc' && word !== 'desc')
  if (badDirections.length > 0) throw invalid(`Invalid sort dirs passed: ${badDirections.join(', ')}`)
  const after = marker === undefined ? null : markerName(marker)
  const limit = Math.min(query.limit ?? PAGE_SIZE_MAX, PAGE_SIZE_MAX)
  return (all) => {
    const sorted = all.toSorted((a, b) => {
      for (const order of orders) {
        const [left, right] = order.key === 'size' ? [a.sizeGib, b.sizeGib] : [a.name, b.name]
        if (left !== right) return left < right === (order.direction === 'asc') ? -1 : 1
      }
      return 0
    })
    const start = after === null ? 0 : sorted.findIndex((one) => one.name === after) + 1
    if (after !== null && start === 0) throw invalid(`Invalid input received: marker not found: ${marker}`)
    return sorted.slice(start + offset, start + offset + limit)
  }
}

function markerName(marker: string): string {
  try {
    return nameIn(JSON.parse(marker) as z.output<typeof reference>) ?? ''
  } catch {
    throw invalid(`Invalid input received: marker ${marker} can not be analysed, please use json like format`)
  }
}

function nameIn(given: z.output<typeof reference> | null): string | null {
  if (given === null || typeof given === 'string') return given || null
  const named = given['source-name']
  return typeof named === 'string' && named !== '' ? named : null
}

function brief({ name: sourceName, sizeGib, reason }: ManageableResource): z.input<typeof Brief> {
  return { reference: { 'source-name': sourceName }, size: sizeGib, safe_to_manage: reason === null }
}

function full(resource: ManageableResource): z.input<typeof Full> {
  return { ...brief(resource), reason_not_safe: resource.reason, cinder_id: resource.id, extra_info: null }
}

function sourceOf({ sourceName }: ManageableResource) {
  return { source_reference: { 'source-name': sourceName ?? '' } }
}

function invalid(reason: string): ServiceError {
  return new ServiceError('InvalidInput', { reason })
}
