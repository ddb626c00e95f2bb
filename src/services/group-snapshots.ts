import type { Db } from '../db/database.ts'
import * as groupSnapshots from '../db/group-snapshots.ts'
import * as groups from '../db/groups.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { ServiceError } from '../errors.ts'
import { addSnapshot } from './accounting.ts'
import type { RequestContext } from './context.ts'
import { toGroupSnapshot } from './group-rows.ts'
import type { GroupSnapshot } from './model.ts'
import { imageMetadataOf, newSnapshot } from './new-snapshot.ts'
import type { Parts } from './parts.ts'
import type { GroupSnapshotService } from './services.ts'
import { toListing, visibleGroup, visibleGroupSnapshot } from './visibility.ts'
import { GROUP_SNAPSHOT_ACTIONS, mayIn, SNAPSHOT_ACTIONS, VOLUME_PERMISSIONS } from './volume-status.ts'

export function createGroupSnapshotService(parts: Parts): GroupSnapshotService {
  const { db, stamp } = parts
  return {
    create: (context, request) => createGroupSnapshot(parts, context, request),
    get: async (context, id) => {
      const row = visibleGroupSnapshot(context, id, await groupSnapshots.find(db, id))
      context.authorize('group:get_group_snapshot', { projectId: row.project_id })
      return toGroupSnapshot(row)
    },
    list: async (context, query, scope) => {
      context.authorize('group:get_all_group_snapshots', { projectId: context.projectId })
      const { rows, ...page } = await groupSnapshots.list(db, toListing(context, query), scope)
      return { ...page, items: rows.map(toGroupSnapshot) }
    },
    delete: (context, id) => deleteGroupSnapshot(parts, context, id),
    resetStatus: async (context, id, status) => {
      await db.transaction(async (trx) => {
        const row = await lockWithGroup(trx, context, id)
        context.authorize('group:reset_group_snapshot_status', { projectId: row.project_id })
        await breakOff(trx, id, stamp())
        const set = { status_reason: null }
        await groupSnapshots.compareAndSet(trx, id, { from: [row.status], to: status, updatedAt: stamp(), set })
      })
    },
  }
}

/** Snapshots of all volumes of a group: the rows now, and what they hold at one moment when the work is done. */
async function createGroupSnapshot(
  parts: Parts,
  context: RequestContext,
  { groupId, name, description }: { groupId: string; name: string | null; description: string | null },
): Promise<GroupSnapshot> {
  const { db, random, settings, stamp, states, work } = parts
  const { row, unit } = await db.transaction(async (trx) => {
    const group = visibleGroup(context, groupId, await groups.lock(trx, groupId))
    context.authorize('group:create_group_snapshot', { projectId: group.project_id })
    states.refuseFrozen(group.host)
    const members = await volumes.lockOfGroup(trx, groupId)
    for (const volume of members) {
      context.authorize('volume:create_snapshot', { projectId: volume.project_id })
      checkMember(volume)
    }
    const row: groupSnapshots.GroupSnapshotRow = {
      id: random.uuid(),
      project_id: context.projectId,
      user_id: context.userId,
      group_id: groupId,
      group_type_id: group.group_type_id,
      is_consistency_group: group.is_consistency_group,
      name,
      description,
      status: 'creating',
      status_reason: null,
      created_at: stamp(),
      updated_at: null,
    }
    await groupSnapshots.insert(trx, row)
    for (const volume of members) {
      const snapshot = newSnapshot(parts, context, volume, {
        name,
        description,
        metadata: '{}',
        image_metadata: imageMetadataOf(volume),
        group_snapshot_id: row.id,
      })
      await addSnapshot(trx, snapshot, settings.quota)
    }
    const order = { kind: 'group-snapshot-create', resourceId: row.id, lane: groupId, step: 'freeze' } as const
    return { row, unit: await work.enqueue(trx, { ...order, requestId: context.requestId }) }
  })
  work.launch(unit)
  return toGroupSnapshot(row)
}

function checkMember(volume: volumes.VolumeRow): void {
  const refuse = (reason: string) => new ServiceError('InvalidVolume', { reason })
  if (volume.host === null) {
    throw refuse('The snapshot cannot be created because volume has not been scheduled to any host.')
  }
  if (volume.status === 'maintenance') {
    throw refuse('The snapshot cannot be created when the volume is in maintenance mode.')
  }
  if (volumes.isMigrating(volume)) throw refuse('Snapshot cannot be created while volume is migrating.')
  if (volume.status === 'error') throw refuse('The snapshot cannot be created when the volume is in error status.')
  if (mayIn(volume.status, 'snapshotInGroup')) return
  const allowed = VOLUME_PERMISSIONS.snapshotForced.join(', ')
  throw refuse(`Volume ${volume.id} status must be ${allowed}, but current status is: ${volume.status}.`)
}

async function deleteGroupSnapshot(
  { db, stamp, states, work }: Parts,
  context: RequestContext,
  id: string,
): Promise<void> {
  const unit = await db.transaction(async (trx) => {
    const row = await lockWithGroup(trx, context, id)
    context.authorize('group:delete_group_snapshot', { projectId: row.project_id })
    states.refuseFrozen((await groups.find(trx, row.group_id))?.host ?? null)
    const change = { updatedAt: stamp(), set: { status_reason: null } }
    const where = groupSnapshots.notBeingRead
    let won = await groupSnapshots.compareAndSet(trx, id, { ...GROUP_SNAPSHOT_ACTIONS.delete, ...change, where })
    for (const snapshot of await snapshots.ofGroupSnapshot(trx, id)) {
      const taken = { ...SNAPSHOT_ACTIONS.deleteWithGroup, ...change, where: snapshots.notBeingRead }
      won = won && (await snapshots.compareAndSet(trx, snapshot.id, taken))
    }
    if (!won) {
      const reason =
        'GroupSnapshot status must be available or error, and no Group can be currently using it as source for its creation.'
      throw new ServiceError('InvalidGroupSnapshot', { reason })
    }
    const order = { kind: 'group-snapshot-delete', resourceId: id, lane: row.group_id, step: 'delete' } as const
    return work.enqueue(trx, { ...order, requestId: context.requestId })
  })
  work.launch(unit)
}

/** Everybody locks a group before its snapshots, and its volumes before theirs. */
async function lockWithGroup(trx: Db, context: RequestContext, id: string): Promise<groupSnapshots.GroupSnapshotRow> {
  const found = visibleGroupSnapshot(context, id, await groupSnapshots.find(trx, id))
  await groups.lock(trx, found.group_id)
  const row = visibleGroupSnapshot(context, id, await groupSnapshots.lock(trx, id))
  for (const { volume_id } of await snapshots.ofGroupSnapshot(trx, id)) await volumes.hold(trx, volume_id)
  return row
}

/** Drops the work on it. Its snapshots that only that would have ended are in error. */
async function breakOff(trx: Db, id: string, updatedAt: string): Promise<void> {
  await workRows.removeOfResource(trx, id)
  const set = { status_reason: 'The work on the snapshots of its group was broken off.' }
  for (const snapshot of await snapshots.ofGroupSnapshot(trx, id)) {
    const change = { from: ['creating', 'deleting'], to: 'error', updatedAt, set }
    await snapshots.compareAndSet(trx, snapshot.id, change)
  }
}
