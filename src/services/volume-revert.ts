import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import { badRequest, ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import { refuseMoving } from './moving.ts'
import type { Parts } from './parts.ts'
import { visibleVolume } from './visibility.ts'
import { SNAPSHOT_ACTIONS, VOLUME_ACTIONS } from './volume-status.ts'

/** Only the latest snapshot: what was written after it is lost, and later snapshots would tell of a past that never was. */
export async function revertVolume(
  { db, stamp, work }: Parts,
  context: RequestContext,
  id: string,
  snapshotId: string | null,
): Promise<void> {
  const unit = await db.transaction(async (trx) => {
    const volume = visibleVolume(context, id, await volumes.lock(trx, id))
    const latest = (await snapshots.ofVolume(trx, id)).at(-1)
    if (latest === undefined) throw badRequest(`Volume ${id} doesn't have any snapshots.`)
    if (latest.id !== snapshotId) {
      throw badRequest(`Specified snapshot ${snapshotId ?? 'None'} is None or not the latest one of volume ${id}.`)
    }
    const about = `Can't revert volume ${id} to its latest snapshot ${snapshotId}.`
    if (latest.size_gib !== volume.size_gib) {
      throw badRequest(`${about} The volume size must be equal to the snapshot size.`)
    }
    context.authorize('volume:revert_to_snapshot', { projectId: volume.project_id })
    refuseMoving(volume)
    const set = { status_reason: null }
    if (!(await volumes.compareAndSet(trx, id, { ...VOLUME_ACTIONS.revert, updatedAt: stamp(), set }))) {
      throw conflict(`Invalid volume: ${about} Volume's status must be 'available'.`)
    }
    if (!(await snapshots.compareAndSet(trx, latest.id, { ...SNAPSHOT_ACTIONS.revert, updatedAt: stamp(), set }))) {
      throw conflict(`Invalid snapshot: ${about} Snapshot's status must be 'available'.`)
    }
    const params = { snapshotId: latest.id }
    return work.enqueue(trx, {
      kind: 'volume-revert',
      resourceId: id,
      lane: id,
      step: 'revert',
      params,
      requestId: context.requestId,
    })
  })
  work.launch(unit)
}

function conflict(reason: string): ServiceError {
  return new ServiceError('ResourceConflict', { reason })
}
