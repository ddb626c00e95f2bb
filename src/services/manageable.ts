import type { Db } from '../db/database.ts'
import * as snapshots from '../db/snapshots.ts'
import type * as volumeTypes from '../db/volume-types.ts'
import * as volumes from '../db/volumes.ts'
import type { Manageable } from '../drivers/driver.ts'
import { badRequest, ServiceError } from '../errors.ts'
import { splitHost } from '../scheduler/place.ts'
import { addSnapshot, addVolume } from './accounting.ts'
import type { Backend } from './backends.ts'
import type { RequestContext } from './context.ts'
import type { ManageableResource, Snapshot, SnapshotManage, Volume, VolumeManage } from './model.ts'
import { refuseMoving } from './moving.ts'
import { newSnapshot } from './new-snapshot.ts'
import type { Parts } from './parts.ts'
import { hostOf, toPairs, toSnapshot, toVolume } from './rows.ts'
import type { BackendName, ManageService } from './services.ts'
import { defaultType, heldType, typeByNameOrId } from './type-lookup.ts'
import { checkTypeCopies, isEncrypted, isShared } from './type-rules.ts'
import { visibleVolume } from './visibility.ts'

export function createManageService(parts: Parts): ManageService {
  const { db } = parts
  return {
    listVolumes: async (context, at) => {
      context.authorize('volume_extension:list_manageable', { projectId: context.projectId })
      const { volumes: found } = await listAt(parts, at)
      const known = await volumes.idsByName(db, idsOf(found.map(({ volumeId }) => volumeId)))
      return found.map(({ name, volumeId, sizeGib, reason }): ManageableResource => {
        const id = known.get(volumeId ?? '') ?? null
        return { name, sourceName: null, sizeGib, id, reason: id === null ? reason : 'already managed' }
      })
    },
    listSnapshots: async (context, at) => {
      context.authorize('snapshot_extension:list_manageable', { projectId: context.projectId })
      const { snapshots: found } = await listAt(parts, at)
      const known = await snapshots.existing(db, idsOf(found.map(({ snapshotId }) => snapshotId)))
      const managed = await volumes.idsByName(db, idsOf(found.map(({ volumeId }) => volumeId)))
      return found.map(({ name, snapshotId, volumeName, volumeId, sizeGib, reason }): ManageableResource => {
        const id = snapshotId !== null && known.has(snapshotId) ? snapshotId : null
        const isOfVolume = volumeId !== null && managed.has(volumeId)
        const why = id !== null ? 'already managed' : (reason ?? (isOfVolume ? null : 'its volume is not managed'))
        return { name, sourceName: volumeName, sizeGib, id, reason: why }
      })
    },
    manageVolume: (context, request) => manageVolume(parts, context, request),
    manageSnapshot: (context, request) => manageSnapshot(parts, context, request),
  }
}

function idsOf(ids: readonly (string | null)[]): string[] {
  return ids.filter((id) => id !== null)
}

async function listAt(parts: Parts, at: BackendName): Promise<Manageable> {
  const { driver } = serviceAt(parts, at)
  if (driver.listManageable === undefined) return { volumes: [], snapshots: [] }
  return driver.listManageable()
}

/** Throws as upstream for a service that is not there, disabled or down. */
function serviceAt(parts: Parts, { host, cluster }: BackendName): Backend {
  const found = findService(parts, host)
  if (found !== undefined) return checkUsable(parts, found)
  const service = { service_id: 'cinder-volume' }
  if (cluster !== null || host === null) throw new ServiceError('NoService', service)
  throw new ServiceError('ServiceNotFound', { ...service, host: host.split('#')[0]! })
}

/** As `serviceAt`, with what upstream says of a service that is not there to who would put a volume on it. */
function serviceFor(parts: Parts, { host, cluster }: BackendName): Backend {
  const found = findService(parts, host)
  if (found !== undefined) return checkUsable(parts, found)
  throw badRequest(host === null ? `Cluster '${cluster}' not found` : `Host '${host}' not found`)
}

function findService({ backends, settings }: Parts, host: string | null): Backend | undefined {
  const { host: name, backend } = splitHost(host ?? '')
  return backends.all.find((one) => host !== null && name === settings.hostName && one.name === backend)
}

function checkUsable({ pools, states }: Parts, found: Backend): Backend {
  const isUsable = !states.of('cinder-volume', found.name).disabled && pools.health(found.name).up
  if (!isUsable) throw badRequest('Service is unavailable at this time.')
  return found
}

/** A type that the caller does not see is, to upstream, one that cannot be had. */
async function requestedType(trx: Db, context: RequestContext, identity: string): Promise<volumeTypes.VolumeTypeRow> {
  try {
    return await typeByNameOrId(trx, context, identity)
  } catch (error) {
    if (!(error instanceof ServiceError) || !error.code.startsWith('VolumeTypeNotFound')) throw error
    throw new ServiceError('InvalidVolumeType', { reason: `Cannot find requested '${identity}' volume type` })
  }
}

/** Writes the row with a size of nothing; the work asks the backend for what the reference names. */
async function manageVolume(parts: Parts, context: RequestContext, request: VolumeManage): Promise<Volume> {
  const { db, random, settings, stamp, work } = parts
  context.authorize('volume_extension:volume_manage', { projectId: context.projectId })
  const known = await parts.pools.current()
  const { row, unit } = await db.transaction(async (trx) => {
    const found =
      request.volumeType === null
        ? await defaultType(trx, context, settings.defaultVolumeType)
        : await requestedType(trx, context, request.volumeType)
    await refuseManaged(trx, request.sourceName)
    const type = await heldType(trx, found)
    const multiattach = isShared(toPairs(type.extra_specs))
    if (await isEncrypted(trx, type.id)) {
      const reason = 'Managing to an encrypted volume type is not supported.'
      throw new ServiceError('InvalidVolumeType', { reason })
    }
    checkTypeCopies(type.name, toPairs(type.extra_specs))
    const backend = serviceFor(parts, request)
    const pool = known.find(
      ({ name, backendName }) =>
        backendName === backend.name && (!request.host?.includes('#') || name === request.host),
    )
    const row: volumes.NamedVolumeRow = {
      id: random.uuid(),
      project_id: context.projectId,
      user_id: context.userId,
      name: request.name,
      description: request.description,
      size_gib: 0,
      pending_size_gib: null,
      status: 'managing',
      status_reason: null,
      host: pool?.name ?? request.host,
      availability_zone: request.availabilityZone ?? backend.availabilityZone,
      volume_type_id: type.id,
      volume_type_name: type.name,
      snapshot_id: null,
      source_volid: null,
      bootable: request.bootable,
      multiattach,
      metadata: JSON.stringify(request.metadata),
      placement: null,
      admin_metadata: '{}',
      image_metadata: '{}',
      upload_image_id: null,
      migration_status: null,
      pending_volume_type_id: null,
      group_id: null,
      consistencygroup_id: null,
      name_id: null,
      consumes_quota: true,
      encryption_key_id: null,
      created_at: stamp(),
      updated_at: null,
    }
    const { volume_type_name: _, ...columns } = row
    await addVolume(trx, columns, settings.quota)
    const order = { kind: 'volume-manage', resourceId: row.id, lane: row.id, step: 'manage' } as const
    const params = { name: request.sourceName ?? '' }
    return { row, unit: await work.enqueue(trx, { ...order, params, requestId: context.requestId }) }
  })
  work.launch(unit)
  return toVolume(row, [])
}

/** Upstream looks for an id in the name by its template, whatever the backend calls its volumes. */
async function refuseManaged(trx: Db, name: string | null): Promise<void> {
  const id = name?.startsWith('volume-') ? name.slice('volume-'.length) : name
  if (id === null || id === undefined || !(await volumes.idsByName(trx, [id])).has(id)) return
  const reason = 'Unable to manage existing volume. The volume is already managed'
  throw new ServiceError('InvalidVolume', { reason })
}

async function manageSnapshot(parts: Parts, context: RequestContext, request: SnapshotManage): Promise<Snapshot> {
  const { db, settings, work } = parts
  const { row, unit } = await db.transaction(async (trx) => {
    const volume = visibleVolume(context, request.volumeId, await volumes.lock(trx, request.volumeId))
    context.authorize('snapshot_extension:snapshot_manage', { projectId: volume.project_id })
    refuseMoving(volume)
    const [service = ''] = hostOf(volume).split('#')
    serviceAt(parts, { host: service, cluster: null })
    const row = newSnapshot(parts, context, volume, {
      name: request.name,
      description: request.description,
      metadata: JSON.stringify(request.metadata),
      image_metadata: '{}',
      group_snapshot_id: null,
    })
    await addSnapshot(trx, row, settings.quota)
    const order = { kind: 'snapshot-manage', resourceId: row.id, lane: volume.id, step: 'manage' } as const
    const params = { name: request.sourceName ?? '' }
    return { row, unit: await work.enqueue(trx, { ...order, params, requestId: context.requestId }) }
  })
  work.launch(unit)
  return toSnapshot(row)
}
