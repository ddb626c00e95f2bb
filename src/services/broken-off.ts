import type { Db } from '../db/database.ts'
import * as snapshots from '../db/snapshots.ts'
import type { VolumeRow } from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { endRetype, releaseGrowth } from './accounting.ts'

/**
 * Drops the work on a volume, whose row the caller has locked and gives another status. What the work stood halfway in is taken
 * back: growth and a type that were charged, snapshots that waited for it.
 */
export async function breakOffWork(trx: Db, row: VolumeRow, updatedAt: string): Promise<void> {
  if (row.status === 'deleting') await snapshots.restoreOfVolume(trx, row.id, 'The deletion was broken off.', updatedAt)
  await snapshots.endReverts(trx, row.id, updatedAt)
  await releaseGrowth(trx, row, updatedAt)
  await endRetype(trx, row, updatedAt, { isDone: false })
  await workRows.removeOfResource(trx, row.id)
}
