import type { Db } from '../db/database.ts'
import * as groupSnapshots from '../db/group-snapshots.ts'
import * as groups from '../db/groups.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import { isOfCopies } from '../scheduler/copies.ts'
import { splitHost } from '../scheduler/place.ts'
import { NO_WISHES } from '../scheduler/scheduler.ts'
import { addGroup, addVolume } from './accounting.ts'
import type { RequestContext } from './context.ts'
import { toGroup } from './group-rows.ts'
import { invalidGroup } from './group-rules.ts'
import { copyKey, type KeyCopy, takeCopy, withKeys } from './keys/volume-keys.ts'
import type { Group, GroupCopy } from './model.ts'
import type { Parts } from './parts.ts'
import { extraSpecsOf } from './type-lookup.ts'
import { canSee, visibleGroup, visibleGroupSnapshot } from './visibility.ts'
import { checkClonable, checkRestorable } from './volume-create.ts'

/** A volume of the source, and the snapshot of it that is copied when there is one already. */
interface Source {
  volume: volumes.VolumeRow
  snapshot: snapshots.SnapshotRow | null
}

/**
 * A new group with copies of the volumes of another, as they are at one moment, or of what a snapshot of one holds. All rows are
 * written and charged at once; one unit of work makes all volumes, and the group is available when all of them are.
 */
export async function copyGroup(parts: Parts, context: RequestContext, request: GroupCopy): Promise<Group> {
  const { db, pools, random, settings, stamp, states, work } = parts
  context.authorize('group:create', { projectId: context.projectId })
  const copies = await copyKeys(parts, context, request)
  const enqueue = async (trx: Db) => {
    const { group, sources } = await lockSources(trx, context, request)
    const row: groups.GroupRow = {
      id: random.uuid(),
      project_id: context.projectId,
      user_id: context.userId,
      name: request.name,
      description: request.description,
      status: 'creating',
      status_reason: null,
      host: group.host,
      availability_zone: group.availability_zone,
      group_type_id: group.group_type_id,
      is_consistency_group: group.is_consistency_group,
      group_snapshot_id: request.groupSnapshotId,
      source_group_id: request.sourceGroupId,
      created_at: stamp(),
      updated_at: null,
    }
    if (row.host !== null && sources.length > 0) {
      const sourceBackend = splitHost(row.host).backend
      for (const { extraSpecs, sizeGib } of await sizesByType(trx, sources)) {
        const room = await pools.reserve(trx, row.id, { ...NO_WISHES, sizeGib, extraSpecs, sourceBackend })
        if (room === null) throw invalidGroup(`No valid host to create group ${row.id}.`)
      }
    }
    states.refuseFrozen(row.host)
    if (sources.length === 0) {
      const what = request.groupSnapshotId === null ? 'Source Group' : 'Group snapshot'
      throw invalidGroup(`${what} is empty. No group will be created.`)
    }
    await addGroup(trx, row, (await groups.typesOf(trx, [group.id])).get(group.id) ?? [], settings.quota)
    for (const source of sources) {
      const { id, encryption_key_id: keyId } = source.volume
      const encryption_key_id = await takeCopy(trx, copies.get(id) ?? null, keyId)
      const own = { id: random.uuid(), user_id: context.userId, encryption_key_id, created_at: stamp() }
      const copy = { ...copyOf(source, row), ...own }
      await addVolume(trx, copy, settings.quota)
    }
    const step = request.groupSnapshotId === null ? 'freeze' : 'copy@0'
    const order = { kind: 'group-create', resourceId: row.id, lane: row.id, step } as const
    return { row, unit: await work.enqueue(trx, { ...order, requestId: context.requestId }) }
  }
  const { row, unit } = await withKeys(copies.values(), () => db.transaction(enqueue))
  work.launch(unit)
  return toGroup(db, row)
}

/** Of the volumes that will be copied, as far as that can be told: by their ids. */
async function copyKeys(
  { db, keys }: Parts,
  context: RequestContext,
  { groupSnapshotId, sourceGroupId }: GroupCopy,
): Promise<Map<string, KeyCopy>> {
  const found = groupSnapshotId === null ? undefined : await groupSnapshots.find(db, groupSnapshotId)
  const members = await volumes.ofGroup(db, found?.group_id ?? sourceGroupId ?? '')
  const copies = new Map<string, KeyCopy>()
  for (const { id, project_id, encryption_key_id } of members) {
    const copy = canSee(context, { project_id }) ? await copyKey(keys, context, encryption_key_id) : null
    if (copy !== null) copies.set(id, copy)
  }
  return copies
}

/** What is copied stays until the transaction has ended; from then on the new rows name it. */
async function lockSources(
  trx: Db,
  context: RequestContext,
  { groupSnapshotId, sourceGroupId }: GroupCopy,
): Promise<{ group: groups.GroupRow; sources: Source[] }> {
  if (groupSnapshotId === null) {
    const id = String(sourceGroupId)
    const group = visibleGroup(context, id, await groups.lock(trx, id))
    context.authorize('group:get', { projectId: group.project_id })
    const members = await volumes.lockOfGroup(trx, id)
    for (const member of members) checkClonable(member)
    return { group, sources: members.map((volume) => ({ volume, snapshot: null })) }
  }
  const found = visibleGroupSnapshot(context, groupSnapshotId, await groupSnapshots.find(trx, groupSnapshotId))
  context.authorize('group:get_group_snapshot', { projectId: found.project_id })
  const group = visibleGroup(context, found.group_id, await groups.lock(trx, found.group_id))
  visibleGroupSnapshot(context, groupSnapshotId, await groupSnapshots.lock(trx, groupSnapshotId))
  const sources: Source[] = []
  for (const { id, volume_id } of await snapshots.ofGroupSnapshot(trx, groupSnapshotId)) {
    const volume = await volumes.lock(trx, volume_id)
    const snapshot = await snapshots.lock(trx, id)
    if (volume === undefined || snapshot === undefined) continue // it went before it was locked
    checkRestorable(snapshot)
    sources.push({ volume, snapshot })
  }
  return { group, sources }
}

const sizeOf = ({ volume, snapshot }: Source): number => snapshot?.size_gib ?? volume.size_gib

/** What the volumes of a source need together; apart by type, which may say how many copies of them there are. */
async function sizesByType(
  trx: Db,
  sources: readonly Source[],
): Promise<{ extraSpecs: Record<string, string>; sizeGib: number }[]> {
  const sizes = new Map<string, number>()
  for (const source of sources) {
    const { volume_type_id: typeId } = source.volume
    sizes.set(typeId, (sizes.get(typeId) ?? 0) + sizeOf(source))
  }
  const needs = []
  for (const [typeId, sizeGib] of sizes) {
    const specs = Object.entries(await extraSpecsOf(trx, typeId)).filter(([key]) => isOfCopies(key))
    needs.push({ extraSpecs: Object.fromEntries(specs), sizeGib })
  }
  return needs
}

/** As upstream, the copies have no names. */
function copyOf(
  source: Source,
  group: groups.GroupRow,
): Omit<volumes.VolumeRow, 'id' | 'user_id' | 'encryption_key_id' | 'created_at'> {
  const { volume, snapshot } = source
  return {
    project_id: group.project_id,
    name: null,
    description: null,
    size_gib: sizeOf(source),
    pending_size_gib: null,
    status: 'creating',
    status_reason: null,
    host: group.host,
    availability_zone: group.availability_zone ?? volume.availability_zone,
    volume_type_id: volume.volume_type_id,
    snapshot_id: snapshot?.id ?? null,
    source_volid: snapshot === null ? volume.id : null,
    bootable: Boolean(volume.bootable),
    multiattach: Boolean(volume.multiattach),
    metadata: '{}',
    placement: null,
    admin_metadata: '{}',
    image_metadata: volume.bootable ? (snapshot ?? volume).image_metadata : '{}',
    upload_image_id: null,
    migration_status: null,
    pending_volume_type_id: null,
    group_id: group.id,
    consistencygroup_id: group.is_consistency_group ? group.id : null,
    name_id: null,
    consumes_quota: true,
    updated_at: null,
  }
}
