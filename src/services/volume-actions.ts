import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumeTypes from '../db/volume-types.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { ServiceError } from '../errors.ts'
import { releaseGrowth, reserveGrowth } from './accounting.ts'
import type { RequestContext } from './context.ts'
import type { VolumeStatus } from './model.ts'
import type { Parts } from './parts.ts'
import { hostOf, toPairs } from './rows.ts'
import { visibleVolume } from './visibility.ts'
import { checkTypeBounds } from './volume-create.ts'
import { canResetTo, SNAPSHOT_ACTIONS, VOLUME_ACTIONS } from './volume-status.ts'

export async function deleteVolume(
  { db, stamp, states, work }: Parts,
  context: RequestContext,
  id: string,
  { cascade, force }: { cascade: boolean; force: boolean },
): Promise<void> {
  const unit = await db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    context.authorize('volume:delete', { projectId: row.project_id })
    if (force) context.authorize('volume:force_delete', { projectId: row.project_id })
    states.refuseFrozen(row.host)
    const attached = await attachments.ofVolume(trx, id)
    const children = await snapshots.lockOfVolume(trx, id) // so that no volume is made from one meanwhile
    const deletable =
      !attached.some(({ status }) => status === 'attached') &&
      (cascade ? children.every((child) => canCascade(context, row, child, force)) : children.length === 0)
    const { from, to } = VOLUME_ACTIONS.delete
    const won =
      deletable &&
      (await volumes.compareAndSet(trx, id, {
        from: force ? [row.status] : from,
        to,
        updatedAt: stamp(),
        set: { status_reason: null },
        where: volumes.notBeingCloned,
      }))
    if (!won) throw undeletable(force)
    for (const child of children) {
      const taken = await snapshots.compareAndSet(trx, child.id, {
        from: [child.status],
        to: SNAPSHOT_ACTIONS.deleteWithVolume.to,
        updatedAt: stamp(),
        set: { previous_status: child.status === 'deleting' ? null : child.status },
        where: snapshots.notBeingRead,
      })
      if (!taken) throw undeletable(force)
    }
    for (const part of [...attached, ...children]) await workRows.removeOfResource(trx, part.id)
    const step = attached.length > 0 ? 'remove-exports' : children.length > 0 ? 'delete-snapshots' : 'delete-volume'
    return work.enqueue(trx, { kind: 'volume-delete', resourceId: id, lane: id, step, requestId: context.requestId })
  })
  work.launch(unit)
}

function canCascade(
  context: RequestContext,
  volume: volumes.VolumeRow,
  child: snapshots.SnapshotRow,
  force: boolean,
): boolean {
  if (!context.isAdmin && child.project_id !== volume.project_id) return false
  return force || (SNAPSHOT_ACTIONS.deleteWithVolume.from as readonly string[]).includes(child.status)
}

function undeletable(force: boolean): ServiceError {
  const statuses = force
    ? ''
    : 'status must be available or error or error_restoring or error_extending or error_managing and'
  return new ServiceError('InvalidVolume', {
    reason:
      `Volume ${statuses} must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, ` +
      'or be disassociated from snapshots after volume transfer.',
  })
}

export async function extendVolume(
  { db, backends, settings, stamp, work }: Parts,
  context: RequestContext,
  id: string,
  newSizeGib: number,
): Promise<void> {
  const unit = await db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    const attached = row.status === 'in-use'
    context.authorize(attached ? 'volume:extend_attached_volume' : 'volume:extend', { projectId: row.project_id })
    if (newSizeGib <= row.size_gib) {
      const reason =
        'Invalid input received: New size for extend must be greater than current size. ' +
        `(current: ${row.size_gib}, extended: ${newSizeGib}).`
      throw new ServiceError('InvalidInput', { reason })
    }
    const type = await volumeTypes.find(trx, row.volume_type_id)
    checkTypeBounds(newSizeGib, row.volume_type_name, toPairs(type?.extra_specs ?? '{}'))
    const { from, to } =
      attached && backends.driverOf(hostOf(row)).capabilities.extendInUse
        ? VOLUME_ACTIONS.extendAttached
        : VOLUME_ACTIONS.extend
    if (!(await volumes.compareAndSet(trx, id, { from, to, updatedAt: stamp(), set: { status_reason: null } }))) {
      const reason = `Volume ${id} status must be '${from.join(', ')}' to extend, currently ${row.status}.`
      throw new ServiceError('InvalidVolume', { reason })
    }
    await reserveGrowth(trx, row, newSizeGib, settings.quota, stamp())
    return work.enqueue(trx, {
      kind: 'volume-extend',
      resourceId: id,
      lane: id,
      step: 'extend',
      requestId: context.requestId,
    })
  })
  work.launch(unit)
}

export async function beginDetaching({ db, stamp }: Parts, context: RequestContext, id: string): Promise<void> {
  await db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    context.authorize('volume_extension:volume_actions:begin_detaching', { projectId: row.project_id })
    const attached = (await attachments.ofVolume(trx, id)).some(({ status }) => status === 'attached')
    const change = { ...VOLUME_ACTIONS.beginDetaching, updatedAt: stamp() }
    if (!attached || !(await volumes.compareAndSet(trx, id, change))) {
      const reason =
        "Unable to detach volume. Volume status must be 'in-use' and attach_status must be 'attached' to detach."
      throw new ServiceError('InvalidVolume', { reason })
    }
  })
}

/** Succeeds in any status, as in Cinder: Nova calls it to be sure. */
export async function rollDetaching({ db, stamp }: Parts, context: RequestContext, id: string): Promise<void> {
  const row = visibleVolume(context, id, await volumes.find(db, id))
  context.authorize('volume_extension:volume_actions:roll_detaching', { projectId: row.project_id })
  await volumes.compareAndSet(db, id, { ...VOLUME_ACTIONS.rollDetaching, updatedAt: stamp() })
}

/** Writes the status and drops the work that stood behind the old one; the backend is not asked. */
export async function resetStatus(
  { db, stamp }: Parts,
  context: RequestContext,
  id: string,
  status: string,
): Promise<void> {
  await db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    context.authorize('volume_extension:volume_admin_actions:reset_status', { projectId: row.project_id })
    const to = await resettable(trx, id, status)
    await releaseGrowth(trx, row, stamp())
    await workRows.removeOfResource(trx, id)
    await volumes.compareAndSet(trx, id, { from: [row.status], to, updatedAt: stamp(), set: { status_reason: null } })
  })
}

async function resettable(trx: Db, id: string, status: string): Promise<VolumeStatus> {
  const attached = (await attachments.ofVolume(trx, id)).length > 0
  if (canResetTo(status, attached)) return status
  const reason =
    status === 'in-use'
      ? 'Cannot reset-state to in-use because volume does not have any attachments.'
      : `Cannot reset-state to ${status}`
  throw new ServiceError('InvalidInput', { reason })
}
