import * as attachments from '../db/attachments.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import { reserveGrowth } from './accounting.ts'
import { breakOffMove, breakOffWork } from './broken-off.ts'
import type { RequestContext } from './context.ts'
import type { StatusReset, VolumeStatus } from './model.ts'
import { refuseMoving } from './moving.ts'
import type { Parts } from './parts.ts'
import { hostOf } from './rows.ts'
import { extraSpecsOf } from './type-lookup.ts'
import { checkTypeBounds } from './type-rules.ts'
import { visibleVolume } from './visibility.ts'
import { breakOffUpload } from './volume-images.ts'
import { canResetTo, mayIn, VOLUME_ACTIONS } from './volume-status.ts'
import type { WorkUnit } from './work/kind.ts'

export async function extendVolume(
  { db, backends, pools, settings, stamp, work }: Parts,
  context: RequestContext,
  id: string,
  newSizeGib: number,
  { inUse }: { inUse: boolean },
): Promise<void> {
  const unit = await db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    const attached = inUse && row.status === 'in-use'
    context.authorize(attached ? 'volume:extend_attached_volume' : 'volume:extend', { projectId: row.project_id })
    if (newSizeGib <= row.size_gib) {
      const reason =
        'Invalid input received: New size for extend must be greater than current size. ' +
        `(current: ${row.size_gib}, extended: ${newSizeGib}).`
      throw new ServiceError('InvalidInput', { reason })
    }
    refuseMoving(row)
    const extraSpecs = await extraSpecsOf(trx, row.volume_type_id)
    checkTypeBounds(newSizeGib, row.volume_type_name, extraSpecs)
    const { from, to } =
      attached && backends.driverOf(hostOf(row)).capabilities.extendInUse
        ? VOLUME_ACTIONS.extendAttached
        : VOLUME_ACTIONS.extend
    if (!(await volumes.compareAndSet(trx, id, { from, to, updatedAt: stamp(), set: { status_reason: null } }))) {
      const reason = `Volume ${id} status must be '{'status': '${from.join(', ')}'}' to extend, currently ${row.status}.`
      throw new ServiceError('InvalidVolume', { reason })
    }
    // Without room the work looks again, and tells the owner.
    const growing = { id, host: hostOf(row), sizeGib: row.size_gib, extraSpecs }
    const hasRoom = await pools.reserveGrowth(trx, growing, newSizeGib)
    await reserveGrowth(trx, row, newSizeGib, settings.quota, stamp())
    return work.enqueue(trx, {
      kind: 'volume-extend',
      resourceId: id,
      lane: id,
      step: hasRoom ? 'extend' : 'schedule',
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
    if (volumes.isMigrating(row)) return // the migration keeps others away as well
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

/** No driver here waits for a compute host, so nothing that is extended can be completed from outside. */
export async function completeExtension({ db }: Parts, context: RequestContext, id: string): Promise<void> {
  const row = visibleVolume(context, id, await volumes.find(db, id))
  const rule = 'volume_extension:volume_admin_actions:extend_volume_completion'
  context.authorize(rule, { projectId: row.project_id })
  const reason = mayIn(row.status, 'completeExtension')
    ? 'Required volume admin metadata is malformed or missing.'
    : 'Volume is not being extended.'
  throw new ServiceError('InvalidVolume', { reason })
}

/**
 * Writes what it is told and drops the work that stood behind the old status; the backend is not asked. Attachments are
 * the exception: their exports are taken back, because nobody would know of them any more.
 */
export async function resetStatus(
  parts: Parts,
  context: RequestContext,
  id: string,
  status: string | null,
  { attachStatus = null, migrationStatus = null }: StatusReset,
): Promise<void> {
  const { db, stamp, work } = parts
  const { undoing, disconnects } = await db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    context.authorize('volume_extension:volume_admin_actions:reset_status', { projectId: row.project_id })
    const attached = await attachments.ofVolume(trx, id)
    const to = status === null ? null : resettable(status, attached.length > 0)
    const migration = migrationStatus === 'none' ? null : migrationStatus
    // The work goes, and with it the migration that it was.
    const aborted = status !== null && volumes.isMigrating(row) ? { migration_status: 'error' } : {}
    const set = migrationStatus === null ? aborted : { migration_status: migration }
    if (status !== null) await breakOffWork(trx, row, stamp())
    else if (migrationStatus !== null) await breakOffMove(trx, row, stamp())
    const undoing = status === null ? null : await breakOffUpload(trx, parts, context, row)
    const reason = { status_reason: null }
    if (to === null) await volumes.update(trx, id, { ...set, updated_at: stamp() })
    else
      await volumes.compareAndSet(trx, id, { from: [row.status], to, updatedAt: stamp(), set: { ...set, ...reason } })
    const disconnects: WorkUnit[] = []
    if (attachStatus !== 'detached') return { undoing, disconnects }
    for (const { id: resourceId } of attached) {
      disconnects.push(
        await work.enqueue(trx, {
          kind: 'attachment-disconnect',
          resourceId,
          lane: id,
          step: 'remove-export',
          requestId: context.requestId,
        }),
      )
    }
    return { undoing, disconnects }
  })
  if (undoing !== null) work.launch(undoing)
  await Promise.all(disconnects.map((unit) => work.finish(unit)))
}

function resettable(status: string, hasAttachments: boolean): VolumeStatus {
  if (canResetTo(status, hasAttachments)) return status
  const reason =
    status === 'in-use'
      ? 'Cannot reset-state to in-use because volume does not have any attachments.'
      : `Cannot reset-state to ${status}`
  throw new ServiceError('InvalidInput', { reason })
}
