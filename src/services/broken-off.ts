import type { Db } from '../db/database.ts'
import * as snapshots from '../db/snapshots.ts'
import type { VolumeRow } from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { endRetype, releaseGrowth } from './accounting.ts'
import { followAttachments } from './attached-status.ts'
import { breakOffSwap, SWAPPED_FROM } from './swapped-volumes.ts'

/** Drops the move of a volume in use, when an administrator says that none goes on. The caller has locked the row. */
export async function breakOffMove(trx: Db, row: VolumeRow, updatedAt: string): Promise<void> {
  if (!(await breakOffSwap(trx, row.id, updatedAt))) return
  await endRetype(trx, row, updatedAt, { isDone: false })
  await followAttachments(trx, row.id, updatedAt, { from: SWAPPED_FROM })
}

/**
 * Drops the work on a volume, whose row the caller has locked and gives another status. What the work stood halfway in is taken
 * back: growth and a type that were charged, snapshots that waited for it.
 */
export async function breakOffWork(trx: Db, row: VolumeRow, updatedAt: string): Promise<void> {
  if (row.status === 'deleting') await snapshots.restoreOfVolume(trx, row.id, 'The deletion was broken off.', updatedAt)
  await snapshots.endReverts(trx, row.id, updatedAt)
  await releaseGrowth(trx, row, updatedAt)
  await endRetype(trx, row, updatedAt, { isDone: false })
  await breakOffSwap(trx, row.id, updatedAt)
  await workRows.removeOfResource(trx, row.id)
}
