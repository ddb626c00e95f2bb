import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import { STATUSES_OF_ATTACHMENTS } from './volume-status.ts'

/**
 * Throws InvalidVolume for a volume that is moved while it is in use, and for the one that it is moved to: neither says so by its
 * status, and what is begun with them now would be about the wrong one when they have changed places.
 */
export function refuseMoving(row: volumes.VolumeRow): void {
  if (!volumes.isMigrating(row) || !(STATUSES_OF_ATTACHMENTS as readonly string[]).includes(row.status)) return
  const reason = `Volume ${row.id} is being migrated: its migration status is ${row.migration_status}.`
  throw new ServiceError('InvalidVolume', { reason })
}
