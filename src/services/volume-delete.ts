import * as attachments from '../db/attachments.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { ServiceError } from '../errors.ts'
import { breakOffWork } from './broken-off.ts'
import type { RequestContext } from './context.ts'
import { removalParams } from './keys/volume-keys.ts'
import type { Parts } from './parts.ts'
import type { SnapshotStatus } from './statuses.ts'
import { visibleVolume } from './visibility.ts'
import { SNAPSHOT_ACTIONS, statusWithoutWork, VOLUME_ACTIONS } from './volume-status.ts'

interface Removal {
  /** Its snapshots too; otherwise it must have none. */
  cascade: boolean
  /** Whatever its status is. */
  force: boolean
  /** Leaves the backend what it has. */
  unmanage: boolean
}

export function deleteVolume(
  parts: Parts,
  context: RequestContext,
  id: string,
  options: { cascade: boolean; force: boolean },
): Promise<void> {
  return removeVolume(parts, context, id, { ...options, unmanage: false })
}

export function unmanageVolume(parts: Parts, context: RequestContext, id: string): Promise<void> {
  return removeVolume(parts, context, id, { cascade: false, force: false, unmanage: true })
}

async function removeVolume(
  { db, keys, stamp, states, work }: Parts,
  context: RequestContext,
  id: string,
  { cascade, force, unmanage }: Removal,
): Promise<void> {
  const unit = await db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    const target = { projectId: row.project_id }
    if (unmanage) context.authorize('volume_extension:volume_unmanage', target)
    context.authorize('volume:delete', target)
    if (force) context.authorize('volume:force_delete', target)
    if (!unmanage) states.refuseFrozen(row.host)
    else if (row.encryption_key_id !== null) {
      throw new ServiceError('InvalidInput', { reason: 'Unmanaging encrypted volumes is not supported.' })
    }
    if (force) await breakOffWork(trx, row, stamp())
    const attached = await attachments.ofVolume(trx, id)
    const children = await snapshots.lockOfVolume(trx, id) // so that no volume is made from one meanwhile
    const removable =
      !attached.some(({ status }) => status === 'attached') &&
      (cascade ? children.every((child) => canCascade(context, row, child, force)) : children.length === 0)
    const won =
      removable &&
      (await volumes.compareAndSet(trx, id, {
        ...VOLUME_ACTIONS[unmanage ? 'unmanage' : force ? 'forceDelete' : 'delete'],
        updatedAt: stamp(),
        set: { status_reason: null },
        where: (query) => {
          volumes.notBeingCloned(query)
          volumes.notMigrating(query)
          volumes.notInGroup(query)
        },
      }))
    if (!won) throw notRemovable(force)
    for (const child of children) {
      const taken = await snapshots.compareAndSet(trx, child.id, {
        from: [child.status],
        to: SNAPSHOT_ACTIONS.deleteWithVolume.to,
        updatedAt: stamp(),
        set: { previous_status: statusWithoutWork(child.status as SnapshotStatus) },
        where: (query) => {
          snapshots.notBeingRead(query)
          snapshots.notInGroup(query)
        },
      })
      if (!taken) throw notRemovable(force)
    }
    for (const part of [...attached, ...children]) await workRows.removeOfResource(trx, part.id)
    const { upload_image_id: imageId } = row
    if (imageId !== null) await workRows.removeOfResource(trx, imageId)
    const step = attached.length > 0 ? 'remove-exports' : children.length > 0 ? 'delete-snapshots' : 'delete-volume'
    return work.enqueue(trx, {
      kind: 'volume-delete',
      resourceId: id,
      lane: id,
      step,
      params: { unmanage, ...(imageId === null ? {} : { imageId }), ...removalParams(keys, context) },
      requestId: context.requestId,
    })
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

function notRemovable(force: boolean): ServiceError {
  const statuses = force ? '' : `status must be ${VOLUME_ACTIONS.delete.from.join(' or ')} and`
  return new ServiceError('InvalidVolume', {
    reason:
      `Volume ${statuses} must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, ` +
      'or be disassociated from snapshots after volume transfer.',
  })
}
