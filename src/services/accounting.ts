import assert from 'node:assert/strict'
import * as backupUsages from '../db/backup-usages.ts'
import * as backups from '../db/backups.ts'
import type { Db } from '../db/database.ts'
import * as encryptionKeys from '../db/encryption-keys.ts'
import * as groupUsages from '../db/group-usages.ts'
import * as groups from '../db/groups.ts'
import * as quotaLimits from '../db/quota-limits.ts'
import * as quotas from '../db/quotas.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumeTypes from '../db/volume-types.ts'
import * as volumes from '../db/volumes.ts'
import {
  type Counter,
  checkPerVolume,
  explainBackupsOver,
  explainOver,
  groupsExceeded,
  growthCharge,
  limitOf,
  NOTHING,
  type QuotaSettings,
  snapshotCharge,
  usageLimits,
  volumeCharge,
} from './quota.ts'
import { extraSpecsOf } from './type-lookup.ts'
import { isShared } from './type-rules.ts'

/**
 * The only places where rows that count come, go and change their size or type. Each writes the counts, of the project
 * and of its part that has the type, in the transaction of the row, so they cannot part. Locks are taken
 * in one order: a group, a backup, a volume, its snapshots, the type that it gets, the count of the project, those by type.
 */

/** Throws QuotaExceeded, also for a single volume that is too large. */
export async function addVolume(trx: Db, row: volumes.VolumeRow, defaults: QuotaSettings): Promise<void> {
  await charge(trx, ownerOf(row), volumeCharge(row.size_gib), defaults, row.size_gib)
  await volumes.insert(trx, row)
}

export async function dropVolume(trx: Db, id: string): Promise<void> {
  const row = await volumes.lock(trx, id)
  if (row === undefined || !(await volumes.remove(trx, id))) return
  if (row.encryption_key_id !== null) await encryptionKeys.remove(trx, row.encryption_key_id)
  if (!row.consumes_quota) return
  await refund(trx, ownerOf(row), volumeCharge(row.pending_size_gib ?? row.size_gib), row.pending_volume_type_id)
}

/** Charges growth to `newSizeGib` before the backend is asked for it. Throws QuotaExceeded, as `addVolume`. */
export async function reserveGrowth(
  trx: Db,
  row: volumes.VolumeRow,
  newSizeGib: number,
  defaults: QuotaSettings,
  updatedAt: string,
): Promise<void> {
  await charge(trx, ownerOf(row), growthCharge(newSizeGib - row.size_gib), defaults, newSizeGib)
  await volumes.update(trx, row.id, { pending_size_gib: newSizeGib, updated_at: updatedAt })
}

/** The growth did not happen. */
export async function releaseGrowth(trx: Db, row: volumes.VolumeRow, updatedAt: string): Promise<void> {
  if (row.pending_size_gib === null) return
  await refund(trx, ownerOf(row), growthCharge(row.pending_size_gib - row.size_gib))
  await volumes.update(trx, row.id, { pending_size_gib: null, updated_at: updatedAt })
}

/**
 * Charges the new type of a volume before it has it, for the volume and its snapshots; what the project uses of all types stays.
 * The caller has locked the volume. Throws QuotaExceeded when a limit of the new type is in the way.
 */
export async function reserveRetype(
  trx: Db,
  row: volumes.VolumeRow,
  newTypeId: string,
  defaults: QuotaSettings,
  updatedAt: string,
): Promise<void> {
  const amounts = await amountsOf(trx, row)
  await quotas.lock(trx, [...amounts.keys()])
  for (const [projectId, amount] of amounts) {
    const rows = await quotaLimits.ofProjectAndType(trx, projectId, newTypeId)
    await chargeEach(trx, [accountOf(projectId, newTypeId, rows, defaults)], amount)
  }
  await volumes.update(trx, row.id, { pending_volume_type_id: newTypeId, updated_at: updatedAt })
}

/**
 * The retype has ended, if there was one: the volume has the new type when it was done, and the other type is given back its
 * charge. The caller has locked the volume.
 */
export async function endRetype(
  trx: Db,
  row: volumes.VolumeRow,
  updatedAt: string,
  { isDone }: { isDone: boolean },
): Promise<void> {
  if (row.pending_volume_type_id === null) return
  const volumeTypeId = isDone ? row.volume_type_id : row.pending_volume_type_id
  const amounts = await amountsOf(trx, row)
  await quotas.lock(trx, [...amounts.keys()])
  for (const [projectId, amount] of amounts) await quotas.refund(trx, { projectId, volumeTypeId }, amount)
  const columns = isDone ? await columnsOfType(trx, row.pending_volume_type_id) : {}
  await volumes.update(trx, row.id, { ...columns, pending_volume_type_id: null, updated_at: updatedAt })
}

async function columnsOfType(trx: Db, id: string) {
  const multiattach = isShared(await extraSpecsOf(trx, id))
  return { volume_type_id: id, multiattach }
}

/** What a volume and its snapshots count, by project. */
async function amountsOf(trx: Db, row: volumes.VolumeRow): Promise<Map<string, quotas.Usage>> {
  const amounts = new Map([[row.project_id, volumeCharge(row.pending_size_gib ?? row.size_gib)]])
  for (const snapshot of await snapshots.ofVolume(trx, row.id)) {
    const before = amounts.get(snapshot.project_id)
    const more = snapshotCharge(snapshot.size_gib)
    amounts.set(snapshot.project_id, before === undefined ? more : sum(before, more))
  }
  return amounts
}

export async function addSnapshot(trx: Db, row: snapshots.SnapshotRow, defaults: QuotaSettings): Promise<void> {
  const { volume_type_id: volumeTypeId } = await lockedVolumeOf(trx, row.volume_id)
  await charge(trx, { projectId: row.project_id, volumeTypeId }, snapshotCharge(row.size_gib), defaults, null)
  await snapshots.insert(trx, row)
}

export async function dropSnapshot(trx: Db, id: string): Promise<void> {
  const found = await snapshots.find(trx, id)
  if (found === undefined) return
  const volume = await lockedVolumeOf(trx, found.volume_id)
  const row = await snapshots.lock(trx, id)
  if (row === undefined || !(await snapshots.remove(trx, id))) return
  const account = { projectId: row.project_id, volumeTypeId: volume.volume_type_id }
  await refund(trx, account, snapshotCharge(row.size_gib), volume.pending_volume_type_id)
}

/**
 * A volume goes to another project, and with it some of its snapshots: the new one is charged before the old one is refunded, each
 * where it counted. The caller has locked the rows, and writes whose they are. Throws QuotaExceeded, as `addVolume`.
 */
export async function moveVolume(
  trx: Db,
  row: volumes.VolumeRow,
  moved: readonly snapshots.SnapshotRow[],
  projectId: string,
  defaults: QuotaSettings,
): Promise<void> {
  await quotas.lock(trx, [row.project_id, projectId])
  const from = ownerOf(row)
  const to = { ...from, projectId }
  const ofVolume = volumeCharge(row.size_gib)
  const ofSnapshots = moved.map(({ size_gib }) => snapshotCharge(size_gib)).reduce(sum, NOTHING)
  await charge(trx, to, ofVolume, defaults, row.size_gib)
  await charge(trx, to, ofSnapshots, defaults, null)
  await refund(trx, from, sum(ofVolume, ofSnapshots))
}

/** A backup counts with the size of its volume, whatever it takes on the target. Throws QuotaExceeded. */
export async function addBackup(trx: Db, row: backups.BackupRow, defaults: QuotaSettings): Promise<void> {
  const rows = await quotaLimits.ofProject(trx, row.project_id)
  const limits = {
    backups: limitOf(rows, 'backups', defaults),
    backup_gigabytes: limitOf(rows, 'backup_gigabytes', defaults),
  }
  while (!(await backupUsages.charge(trx, row.project_id, row.size_gib, limits))) {
    const over = explainBackupsOver(await backupUsages.lockUsage(trx, row.project_id), row.size_gib, limits)
    if (over !== null) throw over // else something was refunded between the two statements
  }
  await backups.insert(trx, row)
}

export async function dropBackup(trx: Db, id: string): Promise<void> {
  const row = await backups.lock(trx, id)
  if (row === undefined || !(await backups.remove(trx, id))) return
  if (row.encryption_key_id !== null) await encryptionKeys.remove(trx, row.encryption_key_id)
  await backupUsages.refund(trx, row.project_id, row.size_gib)
}

/** Throws QuotaExceeded. */
export async function addGroup(
  trx: Db,
  row: groups.GroupRow,
  volumeTypeIds: readonly string[],
  defaults: QuotaSettings,
): Promise<void> {
  const limit = limitOf(await quotaLimits.ofProject(trx, row.project_id), 'groups', defaults)
  if (!(await groupUsages.charge(trx, row.project_id, limit))) throw groupsExceeded(limit)
  await groups.insert(trx, row, volumeTypeIds)
}

export async function dropGroup(trx: Db, id: string): Promise<void> {
  const row = await groups.lock(trx, id)
  if (row === undefined || !(await groups.remove(trx, id))) return
  await groupUsages.refund(trx, row.project_id)
}

/** The volume of a snapshot, which no other transaction changes until this one has ended. */
async function lockedVolumeOf(trx: Db, volumeId: string): Promise<volumes.VolumeRow> {
  const volume = await volumes.lock(trx, volumeId)
  assert(volume !== undefined, 'a foreign key keeps the volume of a snapshot')
  return volume
}

/** Who is charged for a volume. */
function ownerOf(row: volumes.VolumeRow): quotas.Account {
  return { projectId: row.project_id, volumeTypeId: row.volume_type_id }
}

interface LimitedAccount extends quotas.Account {
  limits: quotas.UsageLimits
}

/** `volumeGib` is how large the volume is then; null for what is no volume. */
async function charge(
  trx: Db,
  { projectId, volumeTypeId }: quotas.Account,
  amounts: quotas.Usage,
  defaults: QuotaSettings,
  volumeGib: number | null,
): Promise<void> {
  const rows = await quotaLimits.ofProjectAndType(trx, projectId, volumeTypeId)
  if (volumeGib !== null) checkPerVolume(volumeGib, limitOf(rows, 'per_volume_gigabytes', defaults))
  const accounts = [null, volumeTypeId].map((typeId) => accountOf(projectId, typeId, rows, defaults))
  await chargeEach(trx, accounts, amounts)
}

function accountOf(
  projectId: string,
  volumeTypeId: string | null,
  rows: readonly quotaLimits.QuotaLimitRow[],
  defaults: QuotaSettings,
): LimitedAccount {
  return { projectId, volumeTypeId, limits: usageLimits(rows, volumeTypeId, defaults) }
}

/** Throws QuotaExceeded for the first account that does not take the charge; the caller's transaction undoes the others. */
async function chargeEach(trx: Db, accounts: readonly LimitedAccount[], amounts: quotas.Usage): Promise<void> {
  for (const [index, account] of accounts.entries()) {
    while (!(await quotas.charge(trx, account, amounts, account.limits))) {
      const counters: Counter[] = []
      for (const left of accounts.slice(index)) {
        const typeName = await nameOf(trx, left.volumeTypeId)
        counters.push({ typeName, usage: await quotas.lockUsage(trx, left), limits: left.limits })
      }
      const over = explainOver(counters, amounts)
      if (over !== null) throw over // else something was refunded between the two statements
    }
  }
}

/** `pendingTypeId` is the type that the volume is being changed to, which was charged as well. */
async function refund(
  trx: Db,
  { projectId, volumeTypeId }: quotas.Account,
  amounts: quotas.Usage,
  pendingTypeId: string | null = null,
): Promise<void> {
  const types = pendingTypeId === null ? [volumeTypeId] : [volumeTypeId, pendingTypeId]
  for (const account of [null, ...types]) {
    await quotas.refund(trx, { projectId, volumeTypeId: account }, amounts)
  }
}

async function nameOf(db: Db, typeId: string | null): Promise<string | null> {
  return typeId === null ? null : ((await volumeTypes.find(db, typeId))?.name ?? null)
}

function sum(a: quotas.Usage, b: quotas.Usage): quotas.Usage {
  return {
    volumes: a.volumes + b.volumes,
    snapshots: a.snapshots + b.snapshots,
    gigabytes: a.gigabytes + b.gigabytes,
  }
}
