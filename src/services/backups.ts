import * as backups from '../db/backups.ts'
import type { Db } from '../db/database.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { ServiceError } from '../errors.ts'
import { addBackup } from './accounting.ts'
import { restoredName } from './backup/volume-record.ts'
import { exportRecord, importRecord } from './backup-records.ts'
import { isDisabled, requireService } from './backup-service-state.ts'
import type { RequestContext } from './context.ts'
import { foreseeKey } from './encrypted-create.ts'
import { copyKey, type KeyCopy, removalParams, takeCopy, type VolumeKey, withKey } from './keys/volume-keys.ts'
import type { Backup, BackupCreate, Volume, VolumeCreate } from './model.ts'
import { refuseMoving } from './moving.ts'
import type { Parts } from './parts.ts'
import { toBackup, toVolume } from './rows.ts'
import type { BackupService } from './services.ts'
import { toListing, visibleBackup, visibleSnapshot, visibleVolume } from './visibility.ts'
import { enqueueVolume } from './volume-create.ts'
import { BACKUP_ACTIONS, SNAPSHOT_ACTIONS, VOLUME_ACTIONS, VOLUME_OUTCOMES } from './volume-status.ts'
import { dropRestoreKey, releaseSource } from './work/backup-kinds.ts'
import type { WorkUnit } from './work/kind.ts'

/** As upstream's backup drivers call theirs. */
const DEFAULT_CONTAINER = 'volumebackups'

export function createBackupService(parts: Parts): BackupService {
  const { db, stamp } = parts
  return {
    create: (context, request) => createBackup(parts, context, request),
    get: async (context, id) => {
      const row = visibleBackup(context, id, await backups.find(db, id))
      context.authorize('backup:get', { projectId: row.project_id })
      return toBackup(row)
    },
    list: async (context, query, options) => {
      context.authorize('backup:get_all', { projectId: context.projectId })
      const { rows, ...page } = await backups.list(db, toListing(context, query), options)
      return { ...page, items: rows.map(toBackup) }
    },
    update: async (context, id, { metadata, ...names }) =>
      db.transaction(async (trx) => {
        const row = visibleBackup(context, id, await backups.lock(trx, id))
        context.authorize('backup:update', { projectId: row.project_id })
        const set = metadata === undefined ? names : { ...names, metadata: JSON.stringify(metadata) }
        const columns = { ...set, updated_at: stamp() }
        await backups.update(trx, id, columns)
        return toBackup({ ...row, ...columns })
      }),
    delete: (context, id, options) => deleteBackup(parts, context, id, options),
    restore: (context, id, to) => restoreBackup(parts, context, id, to),
    createVolume: (context, id, request) => createFromBackup(parts, context, id, request),
    resetStatus: (context, id, status) => resetStatus(parts, context, id, status),
    exportRecord: (context, id) => exportRecord(parts, context, id),
    importRecord: (context, record) => importRecord(parts, context, record),
  }
}

async function createBackup(parts: Parts, context: RequestContext, request: BackupCreate): Promise<Backup> {
  const { db, keys, random, settings, stamp, work } = parts
  const before = visibleVolume(context, request.volumeId, await volumes.find(db, request.volumeId))
  context.authorize('backup:create', { projectId: before.project_id })
  const copy = await copyKey(keys, context, before.encryption_key_id)
  const enqueue = async (trx: Db) => {
    const parent = request.incremental ? await backups.latestOf(trx, context.projectId, request.volumeId) : undefined
    const volume = visibleVolume(context, request.volumeId, await volumes.lock(trx, request.volumeId))
    const snapshot =
      request.snapshotId === null
        ? null
        : visibleSnapshot(context, request.snapshotId, await snapshots.lock(trx, request.snapshotId))
    if (snapshot !== null && snapshot.volume_id !== volume.id) {
      const reason = `Volume ${volume.id} does not match with snapshot.volume_id ${snapshot.volume_id}.`
      throw new ServiceError('InvalidVolume', { reason })
    }
    if (request.incremental && parent === undefined) {
      throw new ServiceError('InvalidBackup', { reason: 'No backups available to do an incremental backup.' })
    }
    const createdAt = stamp()
    const row: backups.BackupRow = {
      id: random.uuid(),
      project_id: context.projectId,
      user_id: context.userId,
      volume_id: volume.id,
      snapshot_id: request.snapshotId,
      parent_id: parent?.id ?? null,
      restore_volume_id: null,
      name: request.name,
      description: request.description,
      size_gib: snapshot?.size_gib ?? volume.size_gib,
      status: 'creating',
      status_reason: null,
      metadata: JSON.stringify(request.metadata),
      availability_zone: request.availabilityZone ?? volume.availability_zone,
      // An incremental backup shares chunks with the one that it is based on.
      container: parent?.container ?? request.container ?? DEFAULT_CONTAINER,
      location_id: null,
      object_count: 0,
      next_page: 0,
      data_timestamp: snapshot?.created_at ?? createdAt,
      encryption_key_id: await takeCopy(trx, copy, volume.encryption_key_id),
      created_at: createdAt,
      updated_at: null,
    }
    if (snapshot === null) refuseMoving(volume)
    await takeSource(trx, volume, snapshot, request.force, createdAt)
    await addBackup(trx, row, settings.quota)
    const step = isDisabled(parts) ? 'schedule' : snapshot === null ? 'freeze' : 'copy'
    const unit = await work.enqueue(trx, {
      kind: 'backup-create',
      resourceId: row.id,
      lane: row.id, // copying takes long, and reads a snapshot: nobody who wants the volume has to wait for it
      step,
      requestId: context.requestId,
    })
    return { row, unit }
  }
  const { row, unit } = await withKey(copy, () => db.transaction(enqueue))
  work.launch(unit)
  return toBackup({ ...row, dependents: 0 })
}

/** Keeps what is backed up from being deleted meanwhile. */
async function takeSource(
  trx: Db,
  volume: volumes.VolumeRow,
  snapshot: snapshots.SnapshotRow | null,
  force: boolean,
  updatedAt: string,
): Promise<void> {
  if (snapshot !== null) {
    if (await snapshots.compareAndSet(trx, snapshot.id, { ...SNAPSHOT_ACTIONS.backUp, updatedAt })) return
    const reason = `Snapshot to be backed up must be available, but the current status is "${snapshot.status}".`
    throw new ServiceError('InvalidSnapshot', { reason })
  }
  const { from, to } = force ? VOLUME_ACTIONS.backUpForced : VOLUME_ACTIONS.backUp
  if (await volumes.compareAndSet(trx, volume.id, { from, to, updatedAt })) return
  const reason =
    volume.status === 'in-use'
      ? 'Backing up an in-use volume must use the force flag.'
      : `Volume to be backed up must be available or in-use, but the current status is "${volume.status}".`
  throw new ServiceError('InvalidVolume', { reason })
}

async function deleteBackup(
  parts: Parts,
  context: RequestContext,
  id: string,
  { force }: { force: boolean },
): Promise<void> {
  const { db, keys, stamp, work } = parts
  const unit = await db.transaction(async (trx) => {
    const row = visibleBackup(context, id, await backups.lock(trx, id))
    const rule = force ? 'volume_extension:backup_admin_actions:force_delete' : 'backup:delete'
    context.authorize(rule, { projectId: row.project_id })
    if (row.dependents > 0) {
      throw new ServiceError('InvalidBackup', { reason: 'Incremental backups exist for this backup.' })
    }
    const { from, to } = BACKUP_ACTIONS.delete
    const won = await backups.compareAndSet(trx, id, {
      from: force ? [row.status] : from,
      to,
      updatedAt: stamp(),
      set: { status_reason: null, restore_volume_id: null },
      where: backups.withoutDependents,
    })
    if (!won) throw new ServiceError('InvalidBackup', { reason: `Backup status must be ${from.join(' or ')}` })
    requireService(parts)
    if (force) await releaseAll(trx, row, stamp())
    return work.enqueue(trx, {
      kind: 'backup-delete',
      resourceId: id,
      lane: id,
      step: 'delete',
      params: removalParams(keys, context),
      requestId: context.requestId,
    })
  })
  work.launch(unit)
}

async function restoreBackup(
  parts: Parts,
  context: RequestContext,
  id: string,
  to: { volumeId: string | null; name: string | null },
): Promise<{ volumeId: string; volumeName: string | null }> {
  const { db } = parts
  // Only a volume of an encrypted type can be read afterwards.
  const { volume_id: originId, encryption_key_id: keyId } = visibleBackup(context, id, await backups.find(db, id))
  const origin = keyId === null ? undefined : await volumes.find(db, originId)
  const toNew = (row: backups.BackupRow): VolumeCreate => ({
    sizeGib: row.size_gib,
    name: to.name ?? restoredName(id),
    description: row.description,
    volumeType: origin?.volume_type_id ?? null,
    snapshotId: null,
    sourceVolid: null,
    availabilityZone: null,
    metadata: {},
  })
  const volume = await restoreTo(parts, context, id, to.volumeId ?? toNew, 'backup:restore')
  return { volumeId: volume.id, volumeName: volume.name }
}

/** A volume with what a backup holds, and otherwise as it is asked for. */
async function createFromBackup(
  parts: Parts,
  context: RequestContext,
  id: string,
  request: VolumeCreate,
): Promise<Volume> {
  const toNew = (row: backups.BackupRow): VolumeCreate => {
    if (request.snapshotId !== null || request.sourceVolid !== null) {
      const reason = 'Invalid input received: May specify only one of snapshot, source_volume, backup'
      throw new ServiceError('InvalidInput', { reason })
    }
    if (row.status !== 'available') {
      throw new ServiceError('InvalidBackup', { reason: "Originating backup status must be one of 'available' values" })
    }
    const sizeGib = request.sizeGib ?? row.size_gib
    if (sizeGib < row.size_gib) {
      const reason = `Invalid input received: Volume size ${sizeGib}GB cannot be smaller than the backup size ${row.size_gib}GB. It must be >= backup size.`
      throw new ServiceError('InvalidInput', { reason })
    }
    return { ...request, sizeGib }
  }
  return toVolume(await restoreTo(parts, context, id, toNew, 'backup:get'), [])
}

/** `to` is the id of a volume, or says what volume is made of a backup. */
async function restoreTo(
  parts: Parts,
  context: RequestContext,
  id: string,
  to: string | ((row: backups.BackupRow) => VolumeCreate),
  rule: 'backup:restore' | 'backup:get',
): Promise<volumes.NamedVolumeRow> {
  const { db, keys, random, stamp, work } = parts
  const newId = random.uuid()
  const before = visibleBackup(context, id, await backups.find(db, id))
  context.authorize(rule, { projectId: before.project_id })
  const { encryption_key_id: copyOf } = before
  const key: KeyCopy | VolumeKey | null =
    typeof to === 'string'
      ? await copyKey(keys, context, copyOf)
      : await foreseeKey(parts, context, to(before), { copyOf })
  const enqueue = async (trx: Db) => {
    const row = visibleBackup(context, id, await backups.lock(trx, id))
    if (typeof to === 'string' && row.status !== 'available') throw notAvailable()
    let params = {}
    const units: WorkUnit[] = []
    let volume: volumes.NamedVolumeRow
    if (typeof to === 'string') {
      volume = visibleVolume(context, to, await volumes.lock(trx, to))
      if (volume.status !== 'available') {
        throw new ServiceError('InvalidVolume', { reason: 'Volume to be restored to must be available' })
      }
      if (volume.size_gib < row.size_gib) {
        const reason = `volume size ${volume.size_gib} is too small to restore backup of size ${row.size_gib}.`
        throw new ServiceError('InvalidVolume', { reason })
      }
      refuseMoving(volume)
      await checkKeys(trx, row, volume)
      const keyId = await takeCopy(trx, key as KeyCopy | null, row.encryption_key_id)
      if (keyId !== null) params = { keyId, ...removalParams(keys, context) }
    } else {
      const created = await enqueueVolume(trx, parts, context, to(row), {
        id: newId,
        key: key as VolumeKey | null,
        copyOf,
      })
      volume = created.row
      await checkKeys(trx, row, volume)
      units.push(created.unit)
    }
    const set = { restore_volume_id: volume.id, next_page: 0, status_reason: null }
    if (!(await backups.compareAndSet(trx, id, { ...BACKUP_ACTIONS.restore, updatedAt: stamp(), set }))) {
      throw notAvailable()
    }
    requireService(parts)
    let step = 'begin'
    if (typeof to === 'string') {
      await volumes.compareAndSet(trx, volume.id, { ...VOLUME_ACTIONS.restoreBackup, updatedAt: stamp() })
      step = 'copy'
    }
    units.push(
      await work.enqueue(trx, {
        kind: 'backup-restore',
        resourceId: id,
        lane: volume.id,
        step,
        params,
        requestId: context.requestId,
      }),
    )
    return { volume, units }
  }
  const { volume, units } = await withKey(key, () => db.transaction(enqueue))
  for (const unit of units) work.launch(unit)
  return volume
}

function notAvailable(): ServiceError {
  return new ServiceError('InvalidBackup', { reason: 'Backup status must be available' })
}

/** What a backup holds is encrypted or not, and so is the volume afterwards; what its snapshots hold goes on to open with its own key. */
async function checkKeys(trx: Db, backup: backups.BackupRow, volume: volumes.VolumeRow): Promise<void> {
  const isEncrypted = backup.encryption_key_id !== null
  if (isEncrypted !== (volume.encryption_key_id !== null)) {
    const reason = `The backup is ${isEncrypted ? '' : 'not '}of an encrypted volume, and the volume is ${isEncrypted ? 'not ' : ''}of an encrypted type.`
    throw new ServiceError('InvalidVolume', { reason })
  }
  if (isEncrypted && (await snapshots.ofVolume(trx, volume.id)).length > 0) {
    const reason = 'An encrypted volume that has snapshots cannot get the encryption key of a backup.'
    throw new ServiceError('InvalidVolume', { reason })
  }
}

async function resetStatus(
  parts: Parts,
  context: RequestContext,
  id: string,
  status: 'available' | 'error',
): Promise<void> {
  const { db, stamp } = parts
  await db.transaction(async (trx) => {
    const row = visibleBackup(context, id, await backups.lock(trx, id))
    context.authorize('volume_extension:backup_admin_actions:reset_status', { projectId: row.project_id })
    requireService(parts)
    await releaseAll(trx, row, stamp())
    await workRows.removeOfResource(trx, id)
    const set = { restore_volume_id: null }
    await backups.compareAndSet(trx, id, { from: [row.status], to: status, updatedAt: stamp(), set })
  })
}

/** Work on a backup ends without being finished: whatever it held is let go. The caller writes the row of the backup. */
async function releaseAll(trx: Db, row: backups.BackupRow, updatedAt: string): Promise<void> {
  if (row.status === 'creating') await releaseSource(trx, row, updatedAt)
  await dropRestoreKey(trx, await workRows.findByResource(trx, row.id))
  if (row.restore_volume_id === null) return
  await volumes.compareAndSet(trx, row.restore_volume_id, { ...VOLUME_OUTCOMES.restoreFailed, updatedAt })
}
