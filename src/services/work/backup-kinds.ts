import * as backups from '../../db/backups.ts'
import type { Db } from '../../db/database.ts'
import * as encryptionKeys from '../../db/encryption-keys.ts'
import * as snapshots from '../../db/snapshots.ts'
import * as volumes from '../../db/volumes.ts'
import type { SnapshotRef } from '../../drivers/driver.ts'
import { ServiceError } from '../../errors.ts'
import type { Log } from '../../runtime/log.ts'
import { dropBackup } from '../accounting.ts'
import { followAttachments } from '../attached-status.ts'
import type { BackupCopies } from '../backup/copies.ts'
import { type Parent, pagesOfBackup } from '../backup/copy.ts'
import { hasManifest, readManifest, removeBackup, writeManifest } from '../backup/format.ts'
import { pageCount } from '../backup/marked-pages.ts'
import { recordOf, restoredColumns } from '../backup/volume-record.ts'
import { removeKey } from '../keys/volume-keys.ts'
import type { Parts } from '../parts.ts'
import { snapshotRefOf, volumeRef } from '../refs.ts'
import { hostOf, toPairs } from '../rows.ts'
import { using } from '../using.ts'
import { BACKUP_OUTCOMES, SNAPSHOT_OUTCOMES, VOLUME_ACTIONS, VOLUME_OUTCOMES } from '../volume-status.ts'
import type { Outcome, WorkKind } from './kind.ts'

const { locationOf } = backups

type KindParts = Pick<Parts, 'db' | 'backends' | 'stamp' | 'backupTarget'>
interface Copying {
  copies: BackupCopies
}
type KeyParts = KindParts & Pick<Parts, 'keys'> & { log: Log }

/**
 * freeze (unless a snapshot was named) → copy, page by page → finish; when one of them is given up → undo.
 *
 * While the backup service is disabled a backup begins at schedule, and fails there.
 *
 * A volume is backed up as a snapshot of the backup's own, under the backup's id, so that it may be written to meanwhile and a
 * repeat copies the same bytes. Each `copy` is short and remembers in the row how far it came.
 */
export function backupCreate(parts: KindParts & Copying): WorkKind {
  const { db, backends, stamp, backupTarget: target, copies } = parts

  async function parentOf({ parent_id: id }: backups.BackupRow): Promise<Parent | null> {
    if (id === null) return null
    const location = locationOf(await existing(db, id))
    return { location, pages: (await readManifest(target, location)).pages }
  }

  return {
    attempt: async (unit): Promise<Outcome> => {
      if (unit.step === 'schedule') {
        throw new ServiceError('InvalidInput', { reason: 'Service not found for creating backup.' })
      }
      const row = await existing(db, unit.resourceId)
      const source = await sourceOf(db, row)
      const host = hostOf(source)
      const driver = backends.driverOf(host)
      const snapshot = frozenOf(row, source)
      if (unit.step === 'freeze') {
        await driver.createSnapshot(snapshot)
        return { next: 'copy', commit: async () => {} }
      }
      if (unit.step === 'copy') {
        const { nextPage, chunksWritten } = await copies.backUp({
          host,
          snapshot,
          location: locationOf(row),
          parent: await parentOf(row),
          page: row.next_page,
        })
        const set = { next_page: nextPage, object_count: row.object_count + chunksWritten }
        return {
          next: nextPage < pageCount(row.size_gib * GIB) ? 'copy' : 'finish',
          commit: (trx) => backups.update(trx, row.id, { ...set, updated_at: stamp() }),
        }
      }
      const isOwnSnapshot = row.snapshot_id === null
      if (unit.step === 'finish') {
        // Once it is there the snapshot may be gone.
        if (!(await hasManifest(target, locationOf(row)))) {
          const parent = await parentOf(row)
          const pages = await using(await driver.openSnapshot(snapshot), (source) =>
            pagesOfBackup({ source, target, location: locationOf(row) }, parent),
          )
          const volume = recordOf(source)
          await writeManifest(target, locationOf(row), { ...row, metadata: toPairs(row.metadata), pages, volume })
        }
        if (isOwnSnapshot) await driver.deleteSnapshot(snapshot)
        return {
          commit: async (trx) => {
            await backups.compareAndSet(trx, row.id, { ...BACKUP_OUTCOMES.created, updatedAt: stamp() })
            await releaseSource(trx, row, stamp())
          },
        }
      }
      await removeBackup(target, locationOf(row))
      if (isOwnSnapshot) await driver.deleteSnapshot(snapshot)
      return { commit: (trx) => fail(trx, row, unit.lastError, stamp()) }
    },
    giveUp: (unit, error) => {
      if (unit.step !== 'undo')
        return { next: 'undo', commit: (trx) => noteFailure(trx, unit.resourceId, error, stamp()) }
      return {
        commit: async (trx) => {
          const row = await backups.find(trx, unit.resourceId)
          if (row !== undefined) await fail(trx, row, error.message, stamp())
        },
      }
    },
  }
}

/** The reason that the work failed for stays, whatever becomes of undoing it. */
async function noteFailure(trx: Db, id: string, error: ServiceError, updatedAt: string): Promise<void> {
  await backups.update(trx, id, { status_reason: error.message, updated_at: updatedAt })
}

async function fail(trx: Db, row: backups.BackupRow, reason: string | null, updatedAt: string): Promise<void> {
  const set = { status_reason: row.status_reason ?? reason, object_count: 0 }
  await backups.compareAndSet(trx, row.id, { ...BACKUP_OUTCOMES.createFailed, updatedAt, set })
  await releaseSource(trx, row, updatedAt)
}

/** What was backed up goes back to what it was. */
export async function releaseSource(trx: Db, row: backups.BackupRow, updatedAt: string): Promise<void> {
  if (row.snapshot_id !== null)
    await snapshots.compareAndSet(trx, row.snapshot_id, { ...SNAPSHOT_OUTCOMES.backedUp, updatedAt })
  else await followAttachments(trx, row.volume_id, updatedAt, { from: [VOLUME_ACTIONS.backUp.to] })
}

export function backupDelete(parts: KeyParts): WorkKind {
  const { db, backends, stamp, backupTarget: target } = parts
  return {
    attempt: async (unit) => {
      const row = await existing(db, unit.resourceId)
      if (!(await liesThereForOthers(db, row))) await removeBackup(target, locationOf(row))
      const volume = await volumes.find(db, row.volume_id)
      // One that failed may have left it.
      if (row.snapshot_id === null && volume?.host)
        await backends.driverOf(volume.host).deleteSnapshot(frozenOf(row, volume))
      await removeKey(parts, unit, row.encryption_key_id)
      return { commit: (trx) => dropBackup(trx, row.id) }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        const set = { status_reason: error.message }
        await backups.compareAndSet(trx, unit.resourceId, { ...BACKUP_OUTCOMES.deleteFailed, updatedAt: stamp(), set })
      },
    }),
  }
}

/**
 * begin → copy, page by page. A new volume is made by work of its own in the same lane: `begin` waits until that is done.
 */
export function backupRestore(parts: KeyParts & Copying): WorkKind {
  const { db, stamp, backupTarget: target, copies } = parts
  return {
    attempt: async (unit): Promise<Outcome> => {
      const row = await existing(db, unit.resourceId)
      const volume = row.restore_volume_id === null ? undefined : await volumes.find(db, row.restore_volume_id)
      if (volume === undefined) throw new ServiceError('InvalidVolume', { reason: 'The volume to restore to is gone.' })
      if (unit.step === 'begin') {
        if (volume.status === 'creating')
          throw new ServiceError('ServiceUnavailable', { reason: 'It is being created.' })
        if (volume.status !== 'available') {
          throw new ServiceError('InvalidVolume', { reason: `Volume ${volume.id} is ${volume.status}.` })
        }
        return {
          next: 'copy',
          commit: async (trx) => {
            await volumes.compareAndSet(trx, volume.id, { ...VOLUME_ACTIONS.restoreBackup, updatedAt: stamp() })
          },
        }
      }
      if (volume.status !== VOLUME_ACTIONS.restoreBackup.to) {
        throw new ServiceError('InvalidVolume', { reason: `Volume ${volume.id} is ${volume.status}.` })
      }
      const { pages, volume: record } = await readManifest(target, locationOf(row))
      const sizeBytes = row.size_gib * GIB
      const nextPage = await copies.restore({
        host: hostOf(volume),
        volume: volumeRef(volume),
        container: row.container,
        pages,
        sizeBytes,
        page: row.next_page,
      })
      if (nextPage < pageCount(sizeBytes)) {
        return {
          next: 'copy',
          commit: (trx) => backups.update(trx, row.id, { next_page: nextPage, updated_at: stamp() }),
        }
      }
      if (unit.params.keyId !== undefined) await removeKey(parts, unit, volume.encryption_key_id)
      return {
        commit: async (trx) => {
          await endRestore(trx, row.id, null, stamp())
          const now = await volumes.lock(trx, volume.id)
          if (unit.params.keyId !== undefined) await takeKey(trx, now, String(unit.params.keyId), stamp())
          if (record !== null && now?.status === VOLUME_ACTIONS.restoreBackup.to) {
            await volumes.update(trx, volume.id, { ...restoredColumns(record, now), updated_at: stamp() })
          }
          await volumes.compareAndSet(trx, volume.id, { ...VOLUME_OUTCOMES.restored, updatedAt: stamp() })
        },
      }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        await dropRestoreKey(trx, { params: JSON.stringify(unit.params) })
        const row = await backups.find(trx, unit.resourceId)
        if (row === undefined) return
        await endRestore(trx, row.id, error.message, stamp())
        const set = { status_reason: error.message }
        const change = { ...VOLUME_OUTCOMES.restoreFailed, updatedAt: stamp(), set }
        if (row.restore_volume_id !== null) await volumes.compareAndSet(trx, row.restore_volume_id, change)
      },
    }),
  }
}

/** What the volume holds now opens with that key, and no longer with its own. */
async function takeKey(trx: Db, row: volumes.VolumeRow | undefined, keyId: string, updatedAt: string): Promise<void> {
  if (row === undefined) return void (await encryptionKeys.remove(trx, keyId))
  await volumes.update(trx, row.id, { encryption_key_id: keyId, updated_at: updatedAt })
  if (row.encryption_key_id !== null) await encryptionKeys.remove(trx, row.encryption_key_id)
}

/** Of a restore that came to nothing; `unit` is its row, if there is one. */
export async function dropRestoreKey(trx: Db, unit: { params: string } | undefined): Promise<void> {
  const keyId: unknown = unit && JSON.parse(unit.params).keyId
  if (typeof keyId === 'string') await encryptionKeys.remove(trx, keyId)
}

async function endRestore(trx: Db, id: string, reason: string | null, updatedAt: string): Promise<void> {
  const set = { restore_volume_id: null, status_reason: reason }
  await backups.compareAndSet(trx, id, { ...BACKUP_OUTCOMES.restoreEnded, updatedAt, set })
}

const GIB = 1024 ** 3

/** Whether other backups go on to need what it has on the target. */
async function liesThereForOthers(db: Db, row: backups.BackupRow): Promise<boolean> {
  const all = await db.transaction((trx) => backups.lockAt(trx, locationOf(row)))
  return all.some(({ id, status }) => id !== row.id && status !== 'deleting')
}

/** The snapshot whose bytes are copied: the one that was named, or the backup's own. */
function frozenOf(row: backups.BackupRow, volume: volumes.VolumeRow): SnapshotRef {
  return snapshotRefOf({ id: row.snapshot_id ?? row.id, size_gib: row.size_gib }, volume)
}

async function existing(db: Db, id: string): Promise<backups.ListedBackupRow> {
  const row = await backups.find(db, id)
  if (row === undefined) throw new ServiceError('BackupNotFound', { backup_id: id })
  return row
}

async function sourceOf(db: Db, row: backups.BackupRow): Promise<volumes.VolumeRow> {
  const volume = await volumes.find(db, row.volume_id)
  if (volume === undefined) throw new ServiceError('VolumeNotFound', { volume_id: row.volume_id })
  return volume
}
