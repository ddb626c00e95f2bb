import type { Db } from '../db/database.ts'
import * as groups from '../db/groups.ts'
import * as snapshots from '../db/snapshots.ts'
import type { VolumeTypeRow } from '../db/volume-types.ts'
import * as volumes from '../db/volumes.ts'
import { invalidInput, ServiceError } from '../errors.ts'
import { addVolume } from './accounting.ts'
import type { RequestContext } from './context.ts'
import { foreseeKey, takeKey } from './encrypted-create.ts'
import { invalidGroup } from './group-rules.ts'
import type { Image } from './images/image-service.ts'
import { requireImages } from './images/images.ts'
import { checkedSource, IMAGE_KEY } from './images/rules.ts'
import { encryptionDiffers, type VolumeKey, withKey } from './keys/volume-keys.ts'
import type { Volume, VolumeCreate } from './model.ts'
import { refuseMoving } from './moving.ts'
import type { Parts } from './parts.ts'
import { type PlacementMemo, placementRequest, zonesFor, zonesOf } from './placement.ts'
import { toPairs, toVolume } from './rows.ts'
import { defaultType, extraSpecsOf, heldType, typeByNameOrId } from './type-lookup.ts'
import { checkTypeBounds, checkTypeCopies, isShared } from './type-rules.ts'
import { visibleGroup, visibleSnapshot, visibleVolume } from './visibility.ts'
import { FROM_IMAGES, resolveImage } from './volume-images.ts'
import { mayIn, RESTORABLE, VOLUME_PERMISSIONS } from './volume-status.ts'
import { fillParams } from './work/image-transfer.ts'
import type { WorkUnit } from './work/kind.ts'

/** What a new volume takes over from where it comes from. */
interface Source {
  sizeGib: number
  volumeTypeId: string
  availabilityZone: string
  bootable: boolean
  /** JSON, as in the row. */
  imageMetadata: string
  encryptionKeyId: string | null
  /** What to do about a type that does not fit. */
  advice: string
}

/** Writes the row, its count and its work in one transaction, then lets the work begin. */
export async function createVolume(parts: Parts, context: RequestContext, request: VolumeCreate): Promise<Volume> {
  await refuseSeveralSources(parts, context, request)
  const { imageRef } = request
  const { image, snapshotId } = imageRef
    ? await resolveImage(parts, context, { ...request, imageRef })
    : { image: null, snapshotId: request.snapshotId }
  const id = parts.random.uuid()
  const order = { ...request, snapshotId }
  const { row, unit } = await withKey(await foreseeKey(parts, context, order, { image }), (key) =>
    parts.db.transaction((trx) => enqueueVolume(trx, parts, context, order, { id, image, key })),
  )
  parts.work.launch(unit)
  return toVolume(row, [])
}

/** The part of `createVolume` that is one transaction; the caller launches the unit once it is committed. */
export async function enqueueVolume(
  trx: Db,
  parts: Parts,
  context: RequestContext,
  request: VolumeCreate,
  /** `copyOf` is the key that opens what the volume will be filled with, where nothing else tells. */
  {
    id,
    image = null,
    key,
    copyOf = null,
  }: { id: string; image?: Image | null; key: VolumeKey | null; copyOf?: string | null },
): Promise<{ row: volumes.NamedVolumeRow; unit: WorkUnit }> {
  context.authorize('volume:create', { projectId: context.projectId })
  const { backends, pools, settings, stamp, states, work } = parts
  const group = await heldGroup(trx, context, request)
  const source = await lockSource(trx, context, request)
  const named = request.volumeType ?? source?.volumeTypeId ?? image?.properties.cinder_img_volume_type ?? null
  const found = await (named === null
    ? defaultType(trx, context, settings.defaultVolumeType)
    : typeByNameOrId(trx, context, named))
  const type = await heldType(trx, found)
  if (request.volumeType !== null && source !== null) await checkTypeOfCopy(trx, parts, source, type)
  if (group !== null) await checkTypeInGroup(trx, request, group, type)
  const extraSpecs = toPairs(type.extra_specs)
  const multiattach = isShared(extraSpecs)
  const opensWith = source?.encryptionKeyId ?? image?.properties[IMAGE_KEY] ?? copyOf
  const keyId = await takeKey(trx, type.id, { key, copyOf: opensWith, multiattach })
  if (multiattach) context.authorize('volume:multiattach', { projectId: context.projectId })
  const sizeGib = checkedSize(request, source, type.name, extraSpecs)
  const content = image && checkedSource(image, sizeGib)
  const zones = zonesFor(
    {
      asked: group?.availability_zone ?? request.availabilityZone,
      source: source?.availabilityZone ?? null,
      sourceIs: request.snapshotId === null ? 'source volume' : 'snapshot',
    },
    extraSpecs,
    zonesOf(backends, states).map(({ name }) => name),
    settings,
  )
  const memo: PlacementMemo = {
    zones,
    hints: request.hints ?? null,
    hintsProject: context.isAdmin ? null : context.projectId,
    failed: [],
  }
  const placed = {
    size_gib: sizeGib,
    snapshot_id: request.snapshotId,
    source_volid: request.sourceVolid,
    group_id: group?.id ?? null,
  }
  // Without a fitting pool the work looks again, and leaves the reason in the row.
  const pool = await pools.reserve(trx, id, await placementRequest(trx, placed, extraSpecs, memo))
  const row: volumes.NamedVolumeRow = {
    id,
    project_id: context.projectId,
    user_id: context.userId,
    name: request.name,
    description: request.description,
    size_gib: sizeGib,
    pending_size_gib: null,
    status: 'creating',
    status_reason: null,
    host: pool?.name ?? null,
    availability_zone: pool?.availabilityZone ?? zones[0]!,
    volume_type_id: type.id,
    volume_type_name: type.name,
    snapshot_id: request.snapshotId,
    source_volid: request.sourceVolid,
    bootable: source?.bootable ?? false,
    multiattach,
    metadata: JSON.stringify(request.metadata),
    placement: JSON.stringify(memo),
    admin_metadata: '{}',
    image_metadata: source?.imageMetadata ?? '{}',
    upload_image_id: null,
    migration_status: null,
    pending_volume_type_id: null,
    group_id: group?.id ?? null,
    consistencygroup_id: group?.is_consistency_group ? group.id : null,
    name_id: null,
    consumes_quota: true,
    encryption_key_id: keyId,
    created_at: stamp(),
    updated_at: null,
  }
  const { volume_type_name: _, ...columns } = row
  await addVolume(trx, columns, settings.quota)
  const unit = await work.enqueue(trx, {
    kind: 'volume-create',
    resourceId: row.id,
    lane: row.id,
    step: pool === null ? 'schedule' : 'provision',
    params: {
      ...(keyId === null ? {} : key?.header),
      ...(content === null ? {} : fillParams(requireImages(parts.images, FROM_IMAGES), content, context.token)),
    },
    requestId: context.requestId,
  })
  return { row, unit }
}

async function refuseSeveralSources(
  { db }: Parts,
  context: RequestContext,
  { snapshotId, sourceVolid, imageRef }: VolumeCreate,
): Promise<void> {
  const sources = [snapshotId, sourceVolid, imageRef || null].filter((source) => source !== null)
  if (sources.length < 2) return
  if (snapshotId !== null) visibleSnapshot(context, snapshotId, await snapshots.find(db, snapshotId))
  if (sourceVolid !== null) visibleVolume(context, sourceVolid, await volumes.find(db, sourceVolid))
  throw invalidInput('May specify only one of backup, imageRef, snapshot, source volume')
}

/** The source stays as it is until the transaction ends, so it is not deleted before the new row names it. */
async function lockSource(trx: Db, context: RequestContext, request: VolumeCreate): Promise<Source | null> {
  if (request.snapshotId !== null) {
    const snapshot = visibleSnapshot(context, request.snapshotId, await snapshots.lock(trx, request.snapshotId))
    checkRestorable(snapshot)
    const origin = await volumes.find(trx, snapshot.volume_id)
    return origin === undefined
      ? null
      : {
          ...sourceOf(origin, 'recommend omitting the type argument'),
          sizeGib: snapshot.size_gib,
          imageMetadata: origin.bootable ? snapshot.image_metadata : '{}',
        }
  }
  if (request.sourceVolid === null) return null
  const origin = visibleVolume(context, request.sourceVolid, await volumes.lock(trx, request.sourceVolid))
  checkClonable(origin)
  return sourceOf(origin, 'either match source volume, or omit type argument')
}

export function checkRestorable({ status }: snapshots.SnapshotRow): void {
  if ((RESTORABLE as readonly string[]).includes(status)) return
  const reason = "Originating snapshot status must be one of 'available' values"
  throw new ServiceError('InvalidSnapshot', { reason })
}

export function checkClonable(row: volumes.VolumeRow): void {
  refuseMoving(row)
  if (mayIn(row.status, 'clone')) return
  const reason = `Originating source volume status must be one of '${VOLUME_PERMISSIONS.clone.join(', ')}' values`
  throw new ServiceError('InvalidVolume', { reason })
}

/** The group that a volume is to be in, which stays until the transaction has ended. */
async function heldGroup(trx: Db, context: RequestContext, { groupId }: VolumeCreate): Promise<groups.GroupRow | null> {
  if (groupId === undefined || groupId === null) return null
  const group = visibleGroup(context, groupId, await groups.hold(trx, groupId))
  context.authorize('group:get', { projectId: group.project_id })
  if (group.status === 'available' || group.status === 'creating') return group
  throw invalidGroup("Originating group status must be one of 'available, creating' values")
}

async function checkTypeInGroup(
  trx: Db,
  request: VolumeCreate,
  group: groups.GroupRow,
  type: VolumeTypeRow,
): Promise<void> {
  if (request.volumeType === null) throw invalidInput('volume_type must be provided when creating a volume in a group.')
  if ((await groups.typesOf(trx, [group.id])).get(group.id)?.includes(type.id)) return
  throw invalidInput(`Invalid volume_type provided: ${type.id} (requested type must be supported by this group).`)
}

function sourceOf(row: volumes.VolumeRow, advice: string): Source {
  return {
    advice,
    sizeGib: row.size_gib,
    volumeTypeId: row.volume_type_id,
    availabilityZone: row.availability_zone,
    bootable: Boolean(row.bootable),
    encryptionKeyId: row.encryption_key_id,
    imageMetadata: row.bootable ? row.image_metadata : '{}', // as upstream: only who boots has to know it
  }
}

/**
 * A copy is made by the backend that has its source, of bytes that only the key of the source opens. So its type must be that of the source,
 * unless all volumes are in one backend, or both types name the same; and be encrypted in the same way.
 */
async function checkTypeOfCopy(trx: Db, { backends }: Parts, source: Source, type: VolumeTypeRow): Promise<void> {
  if (type.id === source.volumeTypeId) return
  const isOther = await encryptionDiffers(trx, type.id, source.volumeTypeId)
  if (!isOther && backends.all.length === 1) return
  const original = await extraSpecsOf(trx, source.volumeTypeId)
  const wanted = toPairs(type.extra_specs).volume_backend_name
  if (!isOther && wanted !== undefined && wanted === original.volume_backend_name) return
  throw invalidInput(`Invalid volume_type provided: ${type.id} (requested type is not compatible; ${source.advice}).`)
}

function checkedSize(
  request: VolumeCreate,
  source: Source | null,
  typeName: string,
  extraSpecs: Readonly<Record<string, string>>,
): number {
  const sizeGib = request.sizeGib ?? source?.sizeGib ?? null
  if (sizeGib === null || !Number.isInteger(sizeGib) || sizeGib <= 0) {
    throw invalidInput(`Volume size '${sizeGib ?? 'None'}' must be an integer and greater than 0`)
  }
  if (source !== null && sizeGib < source.sizeGib) {
    throw invalidInput(
      request.snapshotId === null
        ? `Volume size '${sizeGib}'GB cannot be smaller than original volume size  ${source.sizeGib}GB. ` +
            'They must be >= original volume size.'
        : `Volume size '${sizeGib}'GB cannot be smaller than the snapshot size ${source.sizeGib}GB. ` +
            'They must be >= original snapshot size.',
    )
  }
  checkTypeBounds(sizeGib, typeName, extraSpecs)
  checkTypeCopies(typeName, extraSpecs)
  return sizeGib
}
