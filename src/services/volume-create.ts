import type { Db } from '../db/database.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumeTypes from '../db/volume-types.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import { satisfies } from '../scheduler/filters.ts'
import { place } from '../scheduler/scheduler.ts'
import { addVolume } from './accounting.ts'
import type { RequestContext } from './context.ts'
import type { Volume, VolumeCreate } from './model.ts'
import type { Parts } from './parts.ts'
import { checkVolumeSize } from './quota.ts'
import { toPairs, toVolume } from './rows.ts'
import { visibleSnapshot, visibleVolume } from './visibility.ts'
import { CLONE_SOURCES } from './volume-status.ts'
import type { WorkUnit } from './work/kind.ts'

/** What a new volume takes over from where it comes from. */
interface Source {
  sizeGib: number
  volumeTypeId: string
  availabilityZone: string
  bootable: boolean
}

/** Writes the row, its count and its work in one transaction, then lets the work begin. */
export async function createVolume(parts: Parts, context: RequestContext, request: VolumeCreate): Promise<Volume> {
  const { row, unit } = await parts.db.transaction((trx) => enqueueVolume(trx, parts, context, request))
  parts.work.launch(unit)
  return toVolume(row, [])
}

/** The part of `createVolume` that is one transaction; the caller launches the unit once that is committed. */
export async function enqueueVolume(
  trx: Db,
  parts: Parts,
  context: RequestContext,
  request: VolumeCreate,
): Promise<{ row: volumes.NamedVolumeRow; unit: WorkUnit }> {
  context.authorize('volume:create', { projectId: context.projectId })
  if (request.snapshotId !== null && request.sourceVolid !== null) {
    throw invalid('May specify only one of snapshot, source_volume')
  }
  const { pools, random, settings, stamp, work } = parts
  const source = await lockSource(trx, context, request)
  const type = await typeOf(trx, context, request.volumeType ?? source?.volumeTypeId ?? settings.defaultVolumeType)
  const extraSpecs = toPairs(type.extra_specs)
  const multiattach = satisfies(true, extraSpecs.multiattach ?? '')
  if (multiattach) context.authorize('volume:multiattach', { projectId: context.projectId })
  const sizeGib = checkedSize(request, source, type.name, extraSpecs)
  checkVolumeSize(sizeGib, settings.quota)
  const availabilityZone = request.availabilityZone ?? source?.availabilityZone ?? settings.availabilityZone
  if (availabilityZone !== settings.availabilityZone) {
    throw new ServiceError('InvalidInput', { reason: `Availability zone '${availabilityZone}' is invalid.` })
  }
  // Without a fitting pool the work looks again, and leaves the reason in the row.
  const pool = place(pools.known(), { sizeGib, availabilityZone, extraSpecs }).candidates[0]?.pool
  const row: volumes.NamedVolumeRow = {
    id: random.uuid(),
    project_id: context.projectId,
    user_id: context.userId,
    name: request.name,
    description: request.description,
    size_gib: sizeGib,
    pending_size_gib: null,
    status: 'creating',
    status_reason: null,
    host: pool?.name ?? null,
    availability_zone: availabilityZone,
    volume_type_id: type.id,
    volume_type_name: type.name,
    snapshot_id: request.snapshotId,
    source_volid: request.sourceVolid,
    bootable: source?.bootable ?? false,
    multiattach,
    metadata: JSON.stringify(request.metadata),
    created_at: stamp(),
    updated_at: null,
  }
  const { volume_type_name: _, ...columns } = row
  await addVolume(trx, columns, settings.quota)
  const unit = await work.enqueue(trx, {
    kind: 'volume-create',
    resourceId: row.id,
    lane: row.id,
    step: pool === undefined ? 'schedule' : 'provision',
  })
  return { row, unit }
}

/** The source stays as it is until the transaction ends, so it is not deleted before the new row names it. */
async function lockSource(trx: Db, context: RequestContext, request: VolumeCreate): Promise<Source | null> {
  if (request.snapshotId !== null) {
    const snapshot = visibleSnapshot(context, request.snapshotId, await snapshots.lock(trx, request.snapshotId))
    if (snapshot.status !== 'available') {
      const reason = "Originating snapshot status must be one of 'available' values"
      throw new ServiceError('InvalidSnapshot', { reason })
    }
    const origin = await volumes.find(trx, snapshot.volume_id)
    return origin === undefined ? null : { ...sourceOf(origin), sizeGib: snapshot.size_gib }
  }
  if (request.sourceVolid === null) return null
  const origin = visibleVolume(context, request.sourceVolid, await volumes.lock(trx, request.sourceVolid))
  if (!(CLONE_SOURCES as readonly string[]).includes(origin.status)) {
    const reason = `Originating source volume status must be one of '${CLONE_SOURCES.join(', ')}' values`
    throw new ServiceError('InvalidVolume', { reason })
  }
  return sourceOf(origin)
}

function sourceOf(row: volumes.VolumeRow): Source {
  return {
    sizeGib: row.size_gib,
    volumeTypeId: row.volume_type_id,
    availabilityZone: row.availability_zone,
    bootable: Boolean(row.bootable),
  }
}

async function typeOf(trx: Db, context: RequestContext, nameOrId: string): Promise<volumeTypes.VolumeTypeRow> {
  const row = (await volumeTypes.find(trx, nameOrId)) ?? (await volumeTypes.findByName(trx, nameOrId))
  if (row === undefined || !(row.is_public || context.isAdmin)) {
    throw new ServiceError('VolumeTypeNotFound', { volume_type_id: nameOrId })
  }
  return row
}

function checkedSize(
  request: VolumeCreate,
  source: Source | null,
  typeName: string,
  extraSpecs: Readonly<Record<string, string>>,
): number {
  const sizeGib = request.sizeGib ?? source?.sizeGib ?? null
  if (sizeGib === null || !Number.isInteger(sizeGib) || sizeGib <= 0) {
    throw invalid(`Volume size '${sizeGib ?? 'None'}' must be an integer and greater than 0`)
  }
  if (source !== null && sizeGib < source.sizeGib) {
    throw invalid(
      request.snapshotId === null
        ? `Volume size '${sizeGib}'GB cannot be smaller than original volume size  ${source.sizeGib}GB. ` +
            'They must be >= original volume size.'
        : `Volume size '${sizeGib}'GB cannot be smaller than the snapshot size ${source.sizeGib}GB. ` +
            'They must be >= original snapshot size.',
    )
  }
  checkTypeBounds(sizeGib, typeName, extraSpecs)
  return sizeGib
}

/** `provisioning:min_vol_size` and `provisioning:max_vol_size` of a type bound every size a volume of it takes. */
export function checkTypeBounds(sizeGib: number, typeName: string, extraSpecs: Readonly<Record<string, string>>): void {
  const minGib = extraSpecs['provisioning:min_vol_size']
  if (minGib !== undefined && sizeGib < Number(minGib)) {
    throw invalid(
      `Specified volume size of '${sizeGib}' is less than the minimum required size of '${minGib}' ` +
        `for volume type '${typeName}'.`,
    )
  }
  const maxGib = extraSpecs['provisioning:max_vol_size']
  if (maxGib !== undefined && sizeGib > Number(maxGib)) {
    throw invalid(
      `Specified volume size of '${sizeGib}' is greater than the maximum allowable size of '${maxGib}' ` +
        `for volume type '${typeName}'.`,
    )
  }
}

function invalid(reason: string): ServiceError {
  return new ServiceError('InvalidInput', { reason: `Invalid input received: ${reason}` })
}
