import type { Knex } from 'knex'
import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import { placeOf } from '../scheduler/place.ts'
import type { RequestContext } from './context.ts'
import type { Migration } from './model.ts'
import type { Parts } from './parts.ts'
import { visibleVolume } from './visibility.ts'
import { VOLUME_ACTIONS } from './volume-status.ts'

/**
 * Moves a volume that nobody uses to another backend. It is in maintenance meanwhile, whether the lock was asked for or
 * not: what a guest wrote while its volume is copied would be lost.
 */
export async function migrateVolume(
  { db, backends, settings, stamp, work }: Parts,
  context: RequestContext,
  id: string,
  { host, cluster }: Migration,
): Promise<void> {
  const unit = await db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    context.authorize('volume_extension:volume_admin_actions:migrate_volume', { projectId: row.project_id })
    const service = host?.split('#')[0]
    if (host === null || !backends.all.some(({ name }) => service === `${settings.hostName}@${name}`)) {
      throw new ServiceError('InvalidHost', { reason: `No available service named '${cluster ?? host ?? ''}'` })
    }
    const isElsewhere = row.host !== null && placeOf(row.host) !== placeOf(host)
    if (row.status === 'in-use' && isElsewhere) {
      throw new ServiceError('InvalidVolume', {
        reason: `Volume ${id} is attached: only the compute service could move it.`,
      })
    }
    const movable = isElsewhere && (await standsAlone(trx, id))
    const change = {
      ...VOLUME_ACTIONS.migrate,
      updatedAt: stamp(),
      set: { migration_status: 'starting', status_reason: null },
      where: (query: Knex.QueryBuilder) => {
        volumes.notMigrating(query)
        volumes.notInGroup(query)
      },
    }
    if (!movable || !(await volumes.compareAndSet(trx, id, change))) {
      const reason =
        `Volume ${id} status must be available or in-use, must not be migrating, have snapshots, be replicated, be part of ` +
        'a group and destination host/cluster must be different than the current one'
      throw new ServiceError('InvalidVolume', { reason })
    }
    const params = { source: row.host!, destination: host }
    return work.enqueue(trx, {
      kind: 'volume-migrate',
      resourceId: id,
      lane: id,
      step: 'check',
      params,
      requestId: context.requestId,
    })
  })
  work.launch(unit)
}

/** Whether nothing hangs on the volume that could not go with it. Of a volume that the caller has locked it stays so. */
export async function standsAlone(trx: Db, id: string): Promise<boolean> {
  if (await volumes.isBeingCloned(trx, id)) return false
  return (await snapshots.ofVolume(trx, id)).length === 0 && (await attachments.ofVolume(trx, id)).length === 0
}

/**
 * Nova calls this at the end of a volume swap that it made itself: neither volume is migrating then, the attachments are its
 * own to move, and the answer is the new volume.
 */
export async function completeMigration(
  { db }: Parts,
  context: RequestContext,
  id: string,
  { newVolumeId }: { newVolumeId: string; failed: boolean },
): Promise<string> {
  const row = visibleVolume(context, id, await volumes.find(db, id))
  const rule = 'volume_extension:volume_admin_actions:migrate_volume_completion'
  context.authorize(rule, { projectId: row.project_id })
  const target = visibleVolume(context, newVolumeId, await volumes.find(db, newVolumeId))
  if (row.migration_status === null && target.migration_status === null) return target.id
  const reason =
    row.migration_status === null
      ? 'Source volume not mid-migration.'
      : target.migration_status === null
        ? 'Destination volume not mid-migration.'
        : `Destination has migration_status ${target.migration_status}, expected target:${id}.`
  throw new ServiceError('InvalidVolume', { reason })
}
