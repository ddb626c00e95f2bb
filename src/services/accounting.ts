import * as backups from '../db/backups.ts'
import type { Db } from '../db/database.ts'
import * as quotas from '../db/quotas.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import { explainOver, growthCharge, type QuotaSettings, snapshotCharge, volumeCharge } from './quota.ts'

/**
 * The only places where rows that count come, go and change their size. Each writes the count in the transaction of
 * the row, so the two cannot part.
 */

export async function addVolume(trx: Db, row: volumes.VolumeRow, limits: QuotaSettings): Promise<void> {
  await charge(trx, row.project_id, volumeCharge(row.size_gib), limits)
  await volumes.insert(trx, row)
}

export async function dropVolume(trx: Db, id: string): Promise<void> {
  const row = await volumes.lock(trx, id)
  if (row === undefined || !(await volumes.remove(trx, id))) return
  await quotas.refund(trx, row.project_id, volumeCharge(row.pending_size_gib ?? row.size_gib))
}

/** Charges growth to `newSizeGib` before the backend is asked for it. */
export async function reserveGrowth(
  trx: Db,
  row: volumes.VolumeRow,
  newSizeGib: number,
  limits: QuotaSettings,
  updatedAt: string,
): Promise<void> {
  await charge(trx, row.project_id, growthCharge(newSizeGib - row.size_gib), limits)
  await volumes.update(trx, row.id, { pending_size_gib: newSizeGib, updated_at: updatedAt })
}

/** The growth did not happen. */
export async function releaseGrowth(trx: Db, row: volumes.VolumeRow, updatedAt: string): Promise<void> {
  if (row.pending_size_gib === null) return
  await quotas.refund(trx, row.project_id, growthCharge(row.pending_size_gib - row.size_gib))
  await volumes.update(trx, row.id, { pending_size_gib: null, updated_at: updatedAt })
}

export async function addSnapshot(trx: Db, row: snapshots.SnapshotRow, limits: QuotaSettings): Promise<void> {
  await charge(trx, row.project_id, snapshotCharge(row.size_gib), limits)
  await snapshots.insert(trx, row)
}

export async function dropSnapshot(trx: Db, id: string): Promise<void> {
  const row = await snapshots.lock(trx, id)
  if (row === undefined || !(await snapshots.remove(trx, id))) return
  await quotas.refund(trx, row.project_id, snapshotCharge(row.size_gib))
}

export async function addBackup(trx: Db, row: backups.BackupRow, _limits: QuotaSettings): Promise<void> {
  await backups.insert(trx, row)
}

export async function dropBackup(trx: Db, id: string): Promise<void> {
  await backups.remove(trx, id)
}

async function charge(trx: Db, projectId: string, amounts: quotas.Usage, limits: QuotaSettings): Promise<void> {
  if (await quotas.charge(trx, projectId, amounts, limits)) return
  const over = explainOver(await quotas.usage(trx, projectId), amounts, limits)
  throw over ?? new Error(`the usage of project ${projectId} changed inside a transaction`)
}
