import type { Knex } from 'knex'
import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import * as groupSnapshots from '../db/group-snapshots.ts'
import * as groupTypes from '../db/group-types.ts'
import * as groups from '../db/groups.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { ServiceError } from '../errors.ts'
import { addGroup, dropGroup } from './accounting.ts'
import { breakOffWork } from './broken-off.ts'
import type { RequestContext } from './context.ts'
import { copyGroup } from './group-copy.ts'
import { changeMembers } from './group-members.ts'
import { toGroup, toGroups } from './group-rows.ts'
import { invalidGroup, reservedType } from './group-rules.ts'
import { groupTypeByNameOrId } from './group-types.ts'
import { removalParams } from './keys/volume-keys.ts'
import type { Group, GroupCreate, GroupUpdate } from './model.ts'
import type { Parts } from './parts.ts'
import { zonesOf } from './placement.ts'
import { toPairs } from './rows.ts'
import type { GroupService } from './services.ts'
import { heldType, typeByNameOrId } from './type-lookup.ts'
import { toListing, visibleGroup } from './visibility.ts'
import { GROUP_ACTIONS, VOLUME_ACTIONS } from './volume-status.ts'

export function createGroupService(parts: Parts): GroupService {
  const { db, stamp } = parts
  return {
    create: (context, request) => createGroup(parts, context, request),
    createCopy: (context, request) => copyGroup(parts, context, request),
    get: async (context, id) => {
      const row = visibleGroup(context, id, await groups.find(db, id))
      context.authorize('group:get', { projectId: row.project_id })
      return toGroup(db, row)
    },
    list: async (context, query, scope) => {
      context.authorize('group:get_all', { projectId: context.projectId })
      const { rows, ...page } = await groups.list(db, toListing(context, query), scope)
      return { ...page, items: await toGroups(db, rows) }
    },
    update: (context, id, request) => updateGroup(parts, context, id, request),
    delete: (context, id, options) => deleteGroup(parts, context, id, options),
    resetStatus: async (context, id, status) => {
      await db.transaction(async (trx) => {
        const row = visibleGroup(context, id, await groups.lock(trx, id))
        context.authorize('group:reset_status', { projectId: row.project_id })
        await breakOffGroupWork(trx, id, stamp())
        const set = { status_reason: null }
        await groups.compareAndSet(trx, id, { from: [row.status], to: status, updatedAt: stamp(), set })
      })
    },
    enableReplication: (context, id) => refuseReplication(parts, context, id, 'group:enable_replication'),
    disableReplication: (context, id) => refuseReplication(parts, context, id, 'group:disable_replication'),
    failOverReplication: (context, id) => refuseReplication(parts, context, id, 'group:failover_replication'),
    replicationTargets: (context, id) => refuseReplication(parts, context, id, 'group:list_replication_targets'),
  }
}

/** A group has a place from the beginning, since its volumes can be frozen together only in one backend; the work finds it. */
async function createGroup(parts: Parts, context: RequestContext, request: GroupCreate): Promise<Group> {
  const { db, random, settings, stamp, work } = parts
  context.authorize('group:create', { projectId: context.projectId })
  const { row, unit } = await db.transaction(async (trx) => {
    const groupType = await groupTypeOf(trx, context, request.groupType)
    const typeIds = new Set<string>()
    for (const identity of request.volumeTypes) {
      typeIds.add((await heldType(trx, await typeByNameOrId(trx, context, identity))).id)
    }
    const row: groups.GroupRow = {
      id: random.uuid(),
      project_id: context.projectId,
      user_id: context.userId,
      name: request.name,
      description: request.description,
      status: 'creating',
      status_reason: null,
      host: null,
      availability_zone: checkedZone(parts, request.availabilityZone),
      group_type_id: groupType.id,
      is_consistency_group: request.groupType === null,
      group_snapshot_id: null,
      source_group_id: null,
      created_at: stamp(),
      updated_at: null,
    }
    await addGroup(trx, row, [...typeIds], settings.quota)
    const order = { kind: 'group-create', resourceId: row.id, lane: row.id, step: 'place' } as const
    return { row, unit: await work.enqueue(trx, { ...order, requestId: context.requestId }) }
  })
  work.launch(unit)
  return toGroup(db, row)
}

async function groupTypeOf(
  trx: Db,
  context: RequestContext,
  identity: string | null,
): Promise<groupTypes.GroupTypeRow> {
  if (identity !== null) {
    const row = await groupTypeByNameOrId(trx, context, identity)
    if (row.name !== groupTypes.CONSISTENCY_GROUP_TYPE) return row
    throw reservedType(row.id, 'Migrated group can only be operated by CG APIs.')
  }
  const row = await groupTypes.findByName(trx, groupTypes.CONSISTENCY_GROUP_TYPE)
  if (row !== undefined) return row
  throw new ServiceError('InvalidInput', {
    reason:
      `Group type ${groupTypes.CONSISTENCY_GROUP_TYPE} not found. Rerun migration script to create the default ` +
      'cgsnapshot type.',
  })
}

function checkedZone({ backends, settings, states }: Parts, asked: string | null): string {
  const zone = asked ?? settings.availabilityZone
  if (zone === settings.availabilityZone || zonesOf(backends, states).some(({ name }) => name === zone)) return zone
  throw new ServiceError('InvalidInput', { reason: `Invalid input received: Availability zone '${zone}' is invalid.` })
}

async function updateGroup(
  { db, stamp }: Parts,
  context: RequestContext,
  id: string,
  request: GroupUpdate,
): Promise<void> {
  await db.transaction(async (trx) => {
    const row = visibleGroup(context, id, await groups.lock(trx, id))
    context.authorize('group:update', { projectId: row.project_id })
    const name = request.name === row.name ? null : request.name
    const description = request.description === row.description ? null : request.description
    const updatedAt = stamp()
    const changed = await changeMembers(trx, context, row, request, updatedAt)
    if (name === null && description === null && !changed) {
      throw invalidGroup(
        `Cannot update group ${id} because no valid name, description, add_volumes, or remove_volumes were provided.`,
      )
    }
    const set = { ...(name === null ? {} : { name }), ...(description === null ? {} : { description }) }
    const isIdle = row.status === 'available'
    if (changed && !isIdle) throw invalidGroup('Group status must be available.')
    // Upstream calls a group available whose name was changed, also one that work goes on with.
    await groups.update(trx, id, { ...set, updated_at: updatedAt })
  })
}

async function deleteGroup(
  parts: Parts,
  context: RequestContext,
  id: string,
  { withVolumes }: { withVolumes: boolean },
): Promise<void> {
  const { db, keys, stamp, states, work } = parts
  const unit = await db.transaction(async (trx) => {
    const row = visibleGroup(context, id, await groups.lock(trx, id))
    context.authorize('group:delete', { projectId: row.project_id })
    if (row.host === null) {
      await workRows.removeOfResource(trx, id)
      await dropGroup(trx, id)
      return null
    }
    states.refuseFrozen(row.host)
    if (!withVolumes && !(GROUP_ACTIONS.delete.from as readonly string[]).includes(row.status)) {
      throw invalidGroup(`Group status must be available or error, but current status is: ${row.status}`)
    }
    if (await groupSnapshots.isAnyOf(trx, id)) throw invalidGroup('Group has existing snapshots.')
    const members = await volumes.lockOfGroup(trx, id)
    if (members.length > 0 && !withVolumes) {
      throw invalidGroup(`Group ${id} still contains volumes. The delete-volumes flag is required to delete it.`)
    }
    for (const volume of members) await takeForDeletion(trx, row, volume, stamp())
    const won = await groups.compareAndSet(trx, id, {
      ...GROUP_ACTIONS[withVolumes ? 'deleteWithVolumes' : 'delete'],
      updatedAt: stamp(),
      set: { status_reason: null },
      where: groups.notBeingCopied,
    })
    if (!won) throw notRemovable(id, withVolumes)
    const order = { kind: 'group-delete', resourceId: id, lane: id, step: 'delete-volumes' } as const
    return work.enqueue(trx, { ...order, params: removalParams(keys, context), requestId: context.requestId })
  })
  if (unit !== null) work.launch(unit)
}

/** The group's own work deletes the volume; whatever else goes on with it ends. */
async function takeForDeletion(
  trx: Db,
  group: groups.GroupRow,
  volume: volumes.VolumeRow,
  updatedAt: string,
): Promise<void> {
  const attached = await attachments.ofVolume(trx, volume.id)
  if (attached.some(({ status }) => status === 'attached')) {
    throw invalidGroup(`Volume in group ${group.id} is attached. Need to detach first.`)
  }
  if ((await snapshots.ofVolume(trx, volume.id)).length > 0) {
    throw invalidGroup('Volume in group still has dependent snapshots.')
  }
  await breakOffWork(trx, volume, updatedAt)
  const won = await volumes.compareAndSet(trx, volume.id, {
    ...VOLUME_ACTIONS.forceDelete,
    updatedAt,
    set: { status_reason: null },
    where: (query: Knex.QueryBuilder) => {
      volumes.notBeingCloned(query)
      volumes.notMigrating(query)
    },
  })
  if (!won) throw notRemovable(group.id, true)
  for (const { id } of attached) await workRows.removeOfResource(trx, id)
  if (volume.upload_image_id !== null) await workRows.removeOfResource(trx, volume.upload_image_id)
}

function notRemovable(id: string, withVolumes: boolean): ServiceError {
  const reason = withVolumes
    ? 'Group status must be available or error and must not have dependent group snapshots'
    : 'Group must not have attached volumes, volumes with snapshots, or dependent group snapshots'
  return invalidGroup(
    `Cannot delete group ${id}. ${reason}, and it cannot be the source for an ongoing group or group snapshot creation.`,
  )
}

/** Drops the work on a group that an administrator gives another status. Its volumes that only that would have ended are in error. */
async function breakOffGroupWork(trx: Db, id: string, updatedAt: string): Promise<void> {
  await workRows.removeOfResource(trx, id)
  for (const volume of await volumes.lockOfGroup(trx, id)) {
    if ((await workRows.findByResource(trx, volume.id)) !== undefined) continue // work of its own
    const set = { status_reason: 'The work on its group was broken off.' }
    await volumes.compareAndSet(trx, volume.id, { from: ['creating'], to: 'error', updatedAt, set })
    await volumes.compareAndSet(trx, volume.id, { from: ['deleting'], to: 'error_deleting', updatedAt, set })
  }
}

/** Nothing here is replicated, as no backend could: upstream refuses groups, and volumes, that are not of such types. */
async function refuseReplication({ db }: Parts, context: RequestContext, id: string, rule: string): Promise<never> {
  const row = visibleGroup(context, id, await groups.find(db, id))
  context.authorize(rule, { projectId: row.project_id })
  const specs = toPairs((await groupTypes.find(db, row.group_type_id))?.group_specs ?? '{}')
  const isReplicated = REPLICATION_SPECS.some((spec) => specs[spec] === '<is> True')
  if (!isReplicated) {
    throw new ServiceError('InvalidGroupType', { reason: `Group ${id} is not a replication group type.` })
  }
  const typeIds = (await groups.typesOf(db, [id])).get(id) ?? []
  const reason = `Volume type ${typeIds[0]} does not have 'replication_enabled' spec key set to '<is> True'.`
  throw new ServiceError('InvalidVolumeType', { reason })
}

const REPLICATION_SPECS = ['group_replication_enabled', 'consistent_group_replication_enabled']
