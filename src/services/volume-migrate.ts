import type { Db } from '../db/database.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import type { Migration } from './model.ts'
import type { Parts } from './parts.ts'
import { visibleVolume } from './visibility.ts'
import { mayIn } from './volume-status.ts'

/**
 * Checks a migration as Cinder does, and refuses it in the end: nothing copies a volume from one backend to another yet.
 * With a single backend the answer is Cinder's own, since there is no other destination.
 */
export async function migrateVolume(
  { db, backends, settings }: Parts,
  context: RequestContext,
  id: string,
  { host, cluster }: Migration,
): Promise<void> {
  const row = visibleVolume(context, id, await volumes.find(db, id))
  context.authorize('volume_extension:volume_admin_actions:migrate_volume', { projectId: row.project_id })
  const service = host?.split('#')[0]
  if (!backends.all.some(({ name }) => service === `${settings.hostName}@${name}`)) {
    throw new ServiceError('InvalidHost', { reason: `No available service named '${cluster ?? host ?? ''}'` })
  }
  if (host === row.host || !(await canMove(db, row))) {
    const reason =
      `Volume ${id} status must be available or in-use, must not be migrating, have snapshots, be replicated, be part of ` +
      'a group and destination host/cluster must be different than the current one'
    throw new ServiceError('InvalidVolume', { reason })
  }
  const reason = `Volumes cannot be copied from ${row.host ?? 'nowhere'} to ${host} yet.`
  throw new ServiceError('InvalidVolume', { reason })
}

async function canMove(db: Db, row: volumes.VolumeRow): Promise<boolean> {
  if (!mayIn(row.status, 'migrate') || volumes.isMigrating(row)) return false
  return (await snapshots.ofVolume(db, row.id)).length === 0
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
