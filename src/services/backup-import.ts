import * as backups from '../db/backups.ts'
import type { Db } from '../db/database.ts'
import * as encryptionKeys from '../db/encryption-keys.ts'
import { isUniqueViolation } from '../db/failures.ts'
import { ServiceError } from '../errors.ts'
import type { FoundBackup, FoundBackups } from './backup-comparison.ts'
import { addImported, importedRow } from './backup-records.ts'
import type { ServiceSettings } from './settings.ts'
import type { Stamp } from './stamp.ts'

/**
 * Takes backups over that lie on the target and that the database does not know: after the loss of the database, or in another cloud.
 * Each becomes a row as it was, of the project that it was of unless another is named, and what it is based on comes before it. To
 * repeat it changes nothing.
 */
export interface ImportOptions {
  db: Db
  stamp: Stamp
  settings: Pick<ServiceSettings, 'availabilityZone' | 'quota'>
  /** Whether the keys of encrypted volumes are in this database; otherwise they are where they were. */
  keepsKeys: boolean
  /** Null for the project that each was of. */
  projectId: string | null
}

export interface ImportedBackup {
  id: string
  outcome: 'imported' | 'known' | 'refused'
  /** Why it was refused. */
  reason: string | null
}

/** Those that are wanted, with what they are based on as far as that is there, each after what it is based on. Pure. */
export function inOrder(found: FoundBackups, wanted: Iterable<string>): string[] {
  const ordered = new Set<string>()
  for (const id of wanted) {
    const chain: string[] = []
    for (
      let next: string | null | undefined = id;
      next && !ordered.has(next) && !chain.includes(next);
      next = found.get(next)?.manifest?.parent_id
    ) {
      chain.push(next)
    }
    for (const one of chain.reverse()) ordered.add(one)
  }
  return [...ordered]
}

export async function importBackups(
  options: ImportOptions,
  found: FoundBackups,
  wanted: Iterable<string>,
): Promise<ImportedBackup[]> {
  const results: ImportedBackup[] = []
  for (const id of inOrder(found, wanted)) results.push({ id, ...(await importOne(options, id, found.get(id))) })
  return results
}

async function importOne(
  options: ImportOptions,
  id: string,
  backup: FoundBackup | undefined,
): Promise<Omit<ImportedBackup, 'id'>> {
  const { db } = options
  if ((await backups.find(db, id)) !== undefined) return { outcome: 'known', reason: null }
  if (backup === undefined) return refused('it is not on the target')
  const { manifest, container, state } = backup
  if (manifest === null || state !== 'whole') return refused(`it is ${state} on the target`)
  const projectId = options.projectId ?? manifest.project_id
  if (projectId === null) return refused('it is from before backups said whose they are: name a project')
  const userId = manifest.user_id ?? ''
  const row = importedRow(manifest, { container, id }, { ...options, projectId, userId, updatedAt: options.stamp() })
  row.encryption_key_id = manifest.encryption_key_id
  try {
    return await db.transaction(async (trx) => {
      if ((await backups.lockAt(trx, { container, id })).length > 0) return { outcome: 'known', reason: null } // under another id
      if (row.encryption_key_id !== null && options.keepsKeys) {
        const key = await encryptionKeys.find(trx, row.encryption_key_id)
        if (key === undefined)
          return refused(`it is encrypted, and its key ${row.encryption_key_id} was in the database that is lost`)
      }
      await addImported(trx, row, options.settings)
      return { outcome: 'imported', reason: null }
    })
  } catch (error) {
    if (isUniqueViolation(error)) return { outcome: 'known', reason: null } // by somebody else, meanwhile
    if (error instanceof ServiceError) return refused(error.message)
    throw error
  }
}

const refused = (reason: string) => ({ outcome: 'refused', reason }) as const
