import assert from 'node:assert/strict'
import type { Db } from './database.ts'
import { ceiling } from './quotas.ts'

/** What the backups of a project come to: a row per project, charged and refunded as those of volumes are; see quotas.ts. */
export interface BackupUsage {
  backups: number
  backup_gigabytes: number
}

const NOTHING: BackupUsage = { backups: 0, backup_gigabytes: 0 }

/** Adds a backup unless that would exceed a limit (-1 is none). Answers whether it did. */
export async function charge(trx: Db, projectId: string, sizeGib: number, limits: BackupUsage): Promise<boolean> {
  const attempt = () =>
    trx('backup_usages')
      .where({ project_id: projectId })
      .where('backups', '<=', ceiling(limits.backups) - 1)
      .where('backup_gigabytes', '<=', ceiling(limits.backup_gigabytes) - sizeGib)
      .update(sums(trx, sizeGib, '+'))
  if ((await attempt()) === 1) return true
  await trx('backup_usages')
    .insert({ project_id: projectId, ...NOTHING })
    .onConflict('project_id')
    .ignore()
  return (await attempt()) === 1
}

export async function refund(trx: Db, projectId: string, sizeGib: number): Promise<void> {
  const count = await trx('backup_usages')
    .where({ project_id: projectId })
    .update(sums(trx, sizeGib, '-'))
  assert(count === 1, `project ${projectId} is refunded a backup that it was never charged`)
}

export async function usage(db: Db, projectId: string): Promise<BackupUsage> {
  const row: BackupUsage | undefined = await db('backup_usages')
    .where({ project_id: projectId })
    .first('backups', 'backup_gigabytes')
  return row ?? NOTHING
}

/** As `usage`; no other transaction changes it until this one has ended. */
export async function lockUsage(trx: Db, projectId: string): Promise<BackupUsage> {
  const row: BackupUsage | undefined = await trx('backup_usages')
    .where({ project_id: projectId })
    .forUpdate()
    .first('backups', 'backup_gigabytes')
  return row ?? NOTHING
}

function sums(trx: Db, sizeGib: number, sign: '+' | '-') {
  return {
    backups: trx.raw(`?? ${sign} 1`, ['backups']),
    backup_gigabytes: trx.raw(`?? ${sign} ?`, ['backup_gigabytes', sizeGib]),
  }
}
