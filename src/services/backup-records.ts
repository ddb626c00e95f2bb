import { z } from 'zod'
import * as backups from '../db/backups.ts'
import type { Db } from '../db/database.ts'
import { isUniqueViolation } from '../db/failures.ts'
import { ServiceError } from '../errors.ts'
import { addBackup } from './accounting.ts'
import { type BackupLocation, type Manifest, readManifest } from './backup/format.ts'
import { isDisabled, requireService } from './backup-service-state.ts'
import type { RequestContext } from './context.ts'
import { copyKey, takeCopy, withKey } from './keys/volume-keys.ts'
import type { Backup, BackupRecord } from './model.ts'
import type { Parts } from './parts.ts'
import { toBackup } from './rows.ts'
import type { ServiceSettings } from './settings.ts'
import { visibleBackup } from './visibility.ts'

/** How a backup gets from one cloud into another that has the same target. */

/** What a record tells of a backup. The rest is in its manifest on the target; what other versions wrote besides is not read. */
const Record = z.object({
  id: z.uuid(),
  container: z.string().min(1).max(255),
  /** What it lies under on the target. Records of before backups could get another id have none. */
  location: z.uuid().optional(),
  /** The key has to be there when it is imported: the target has none. */
  encryption_key_id: z.uuid().nullable().default(null),
})

export async function exportRecord(parts: Parts, context: RequestContext, id: string): Promise<BackupRecord> {
  const { db, backupTarget } = parts
  const row = visibleBackup(context, id, await backups.find(db, id))
  context.authorize('backup:export-import', { projectId: row.project_id })
  if (row.status !== 'available') {
    throw new ServiceError('InvalidBackup', {
      reason: `Backup status must be available and not ${row.status}.`,
    })
  }
  requireService(parts)
  return recordFor(backupTarget.service, row.id, backups.locationOf(row), row.encryption_key_id)
}

/** What `importRecord` takes. */
export function recordFor(
  service: string,
  id: string,
  { container, id: location }: BackupLocation,
  keyId: string | null,
): BackupRecord {
  const told = { container, id, location, ...(keyId === null ? {} : { encryption_key_id: keyId }) }
  return { service, url: Buffer.from(JSON.stringify(told)).toString('base64') }
}

export async function importRecord(parts: Parts, context: RequestContext, record: BackupRecord): Promise<Backup> {
  const { db, backupTarget, keys, settings, stamp } = parts
  context.authorize('backup:backup-import', { projectId: context.projectId })
  if (isDisabled(parts)) {
    const reason = `Service ${record.service.slice(0, 255)} could not be found.`
    throw new ServiceError('ServiceUnavailable', { reason })
  }
  if (kindOf(record.service) !== kindOf(backupTarget.service)) {
    const reason = `It is of ${record.service.slice(0, 255)}, and backups are kept by ${backupTarget.service} here.`
    throw new ServiceError('InvalidBackup', { reason })
  }
  const { id, location, encryption_key_id: keyId } = parseRecord(record.url)
  const manifest = await readManifest(backupTarget, location)
  const { projectId, userId } = context
  const row = { ...importedRow(manifest, location, { projectId, userId, settings, updatedAt: stamp() }), id }
  if (id !== location.id) row.location_id = location.id
  const copy = await copyKey(keys, context, keyId)
  try {
    await withKey(copy, () =>
      db.transaction(async (trx) => {
        row.encryption_key_id = await takeCopy(trx, copy, keyId)
        await addImported(trx, row, settings)
      }),
    )
  } catch (error) {
    if (!isUniqueViolation(error)) throw error
    throw new ServiceError(
      'InvalidBackup',
      { reason: `Backup already exists in database: ${row.id}` },
      { cause: error },
    )
  }
  return toBackup({ ...row, dependents: 0 })
}

/** The row of a backup that lies on the target; what of it the target does not have is as of a new one. */
export function importedRow(
  manifest: Manifest,
  { container }: BackupLocation,
  of: { projectId: string; userId: string; settings: Pick<ServiceSettings, 'availabilityZone'>; updatedAt: string },
): backups.BackupRow {
  return {
    id: manifest.id,
    project_id: of.projectId,
    user_id: of.userId,
    volume_id: manifest.volume_id,
    snapshot_id: manifest.snapshot_id,
    parent_id: manifest.parent_id,
    restore_volume_id: null,
    name: manifest.name,
    description: manifest.description,
    size_gib: manifest.size_gib,
    status: 'available',
    status_reason: null,
    metadata: JSON.stringify(manifest.metadata),
    availability_zone: of.settings.availabilityZone,
    container,
    location_id: null,
    object_count: manifest.object_count,
    next_page: 0,
    data_timestamp: manifest.data_timestamp,
    encryption_key_id: null,
    created_at: manifest.created_at,
    updated_at: of.updatedAt,
  }
}

/** Throws InvalidBackup when it, or what it is based on, is not there to stay. */
export async function addImported(
  trx: Db,
  row: backups.BackupRow,
  { quota }: Pick<ServiceSettings, 'quota'>,
): Promise<void> {
  const location = backups.locationOf(row)
  if ((await backups.lockAt(trx, location)).some(({ status }) => status === 'deleting')) {
    throw new ServiceError('InvalidBackup', {
      reason: `What backup ${location.id} has on the target is being deleted.`,
    })
  }
  const { parent_id: parent } = row
  const parentId = parent && (await requireParent(trx, { container: row.container, id: parent }))
  await addBackup(trx, { ...row, parent_id: parentId }, quota)
}

/** The id of the backup that another is based on; it stays until the transaction has ended, and then because of that. */
async function requireParent(trx: Db, location: BackupLocation): Promise<string> {
  const known = await backups.lockAt(trx, location)
  const parent = known.find(({ status }) => status !== 'deleting')
  if (parent !== undefined) return parent.id
  const trouble = known.length === 0 ? 'has to be imported before' : 'is deleting'
  throw new ServiceError('InvalidBackup', { reason: `It is based on backup ${location.id}, which ${trouble}.` })
}

/** What names of targets that read the same have in common: `collie.backup.s3` is what the first versions called them. */
function kindOf(service: string): string | null {
  return /^(?:cinder\.backup\.drivers\.collie|collie\.backup)\.(\w+)$/.exec(service)?.[1] ?? null
}

function parseRecord(url: string): { id: string; location: BackupLocation; encryption_key_id: string | null } {
  try {
    const { id, container, location, encryption_key_id } = Record.parse(
      JSON.parse(Buffer.from(url, 'base64').toString()),
    )
    return { id, location: { container, id: location ?? id }, encryption_key_id }
  } catch (error) {
    throw new ServiceError('InvalidInput', { reason: "Can't parse backup record." }, { cause: error })
  }
}
