import * as attachments from '../../db/attachments.ts'
import * as backups from '../../db/backups.ts'
import type { Db } from '../../db/database.ts'
import * as snapshots from '../../db/snapshots.ts'
import * as volumes from '../../db/volumes.ts'
import type { SnapshotRef, VolumeDriver, VolumeRef } from '../../drivers/driver.ts'
import { ServiceError } from '../../errors.ts'
import type { Log } from '../../runtime/log.ts'
import { placeOf } from '../../scheduler/place.ts'
import type { PlacementRequest } from '../../scheduler/scheduler.ts'
import { dropSnapshot, dropVolume, releaseGrowth } from '../accounting.ts'
import { followAttachments } from '../attached-status.ts'
import { removeKey } from '../keys/volume-keys.ts'
import type { Parts } from '../parts.ts'
import { memoOf, type PlacementMemo, placementOf } from '../placement.ts'
import { limitExports } from '../qos.ts'
import { newVolumeRef, snapshotRefOf, volumeRef } from '../refs.ts'
import { hostOf } from '../rows.ts'
import { extraSpecsOf } from '../type-lookup.ts'
import { VOLUME_OUTCOMES } from '../volume-status.ts'
import { needsHeader, opener, writeHeader } from './encrypted-volume.ts'
import { FILL, failFill, filledColumns, fillSome, frozenAs, isFilling, resumeFill } from './image-transfer.ts'
import type { Outcome, WorkKind, WorkUnit } from './kind.ts'
import { toServiceError } from './retry.ts'
import { isNotice, noticeStep, notifyServers } from './server-notice.ts'

type KindParts = Pick<Parts, 'db' | 'backends' | 'pools' | 'stamp'>
/** How long work waits that found room which others took before it could. */
export const ROOM_RETRY_MS = 200

type CreateParts = KindParts & Pick<Parts, 'images' | 'settings' | 'keys' | 'random'> & { log: Log }

/**
 * schedule (when no pool was known at the request) → provision; once more in another pool when this one fails, which is so
 * few times that a user waits no longer for it than for one backend. One that is encrypted gets its header there. With an image: →
 * download → (convert).
 */
export function volumeCreate(parts: CreateParts): WorkKind {
  const { db, backends, pools, stamp } = parts
  return {
    resumeAt: resumeFill,
    attempt: async (unit) => {
      const row = await existing(db, unit.resourceId)
      if (isFilling(unit.step)) {
        const open = opener(parts, unit, () => backends.driverOf(hostOf(row)).openVolume(volumeRef(row)))
        const outcome = await fillSome(parts.images, unit, { sizeGib: row.size_gib, open })
        return outcome ?? { commit: (trx) => endFill(trx, unit) }
      }
      if (unit.step === 'schedule') {
        const request = await placementOf(db, row)
        await pools.requireRoom(row.id, request)
        return goTo(request, row, memoOf(row))
      }
      const driver = backends.driverOf(hostOf(row))
      const volume = newVolumeRef(row, await extraSpecsOf(db, row.volume_type_id))
      try {
        if (row.snapshot_id !== null)
          await driver.createVolumeFromSnapshot(volume, await snapshotRef(db, row.snapshot_id))
        else if (row.source_volid !== null)
          await driver.createClonedVolume(volume, await sourceRef(db, row.source_volid))
        else await driver.createVolume(volume)
        if (needsHeader(unit)) await writeHeader(parts, unit, () => driver.openVolume(volume))
      } catch (error) {
        const elsewhere = await moveOn(row, unit, toServiceError(error))
        if (elsewhere === null) throw error
        return elsewhere
      }
      const hasImage = unit.params.image !== undefined
      const ended = hasImage ? VOLUME_OUTCOMES.filling : VOLUME_OUTCOMES.created
      return {
        ...(hasImage ? { next: FILL } : {}),
        commit: async (trx) => {
          await volumes.compareAndSet(trx, row.id, { ...ended, updatedAt: stamp(), set: { placement: null } })
        },
      }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        if (isFilling(unit.step)) return failFill(trx, unit, error, stamp())
        await volumes.compareAndSet(trx, unit.resourceId, {
          ...VOLUME_OUTCOMES.createFailed,
          updatedAt: stamp(),
          set: { status_reason: error.message, placement: null },
        })
      },
    }),
  }

  async function endFill(trx: Db, unit: WorkUnit): Promise<void> {
    await volumes.lock(trx, unit.resourceId)
    await volumes.update(trx, unit.resourceId, { ...filledColumns(unit), updated_at: stamp() })
    await followAttachments(trx, unit.resourceId, stamp(), { from: [VOLUME_OUTCOMES.filling.to] })
  }

  /** To the best pool; back to `schedule` when others took the room meanwhile. */
  function goTo(request: PlacementRequest, row: volumes.VolumeRow, memo: PlacementMemo): Outcome {
    return {
      commit: async () => {},
      decide: async (trx) => {
        await volumes.lock(trx, row.id)
        const pool = await pools.reserve(trx, row.id, request)
        await volumes.update(trx, row.id, {
          host: pool?.name ?? null,
          ...(pool === null ? {} : { availability_zone: pool.availabilityZone }),
          placement: JSON.stringify(memo),
          updated_at: stamp(),
        })
        return pool === null ? { next: 'schedule', afterMs: ROOM_RETRY_MS } : { next: 'provision' }
      },
    }
  }

  /** The way to another pool after this one has failed often enough; null when there is none, or it would not help. */
  async function moveOn(row: volumes.VolumeRow, unit: WorkUnit, error: ServiceError): Promise<Outcome | null> {
    const { attemptsPerPool, poolsMax } = parts.settings.scheduler
    const host = hostOf(row)
    const memo = memoOf(row)
    const failed = [...memo.failed, placeOf(host)]
    const isOfBackend = error.code === 'BackendFailure' || error.code === 'ServiceUnavailable'
    if (!isOfBackend || unit.attempt < attemptsPerPool || failed.length >= poolsMax) return null
    if (row.snapshot_id !== null || row.source_volid !== null) return null
    const request = { ...(await placementOf(db, row)), failed }
    const pool = await pools.find(row.id, request)
    if (pool === null) return null
    parts.log.warn({ volumeId: row.id, from: host, to: pool.name, err: error }, 'the volume is made in another pool')
    // What may be left of it there. A backend that is away keeps it, and `collie db check` finds it.
    await backends
      .driverOf(host)
      .deleteVolume(volumeRef(row))
      .catch(() => {})
    return goTo(request, row, { ...memo, failed })
  }
}

/**
 * remove-exports (when attachments are left) → delete-snapshots, one by one (when it cascades) → delete-volume. With the
 * parameter `unmanage` the backend keeps the volume, and only the row goes.
 */
export function volumeDelete(parts: KindParts & Pick<Parts, 'keys'> & { log: Log }): WorkKind {
  const { db, backends, stamp } = parts
  return {
    attempt: async (unit): Promise<Outcome> => {
      const row = await existing(db, unit.resourceId)
      const driver = row.host === null ? null : backends.driverOf(row.host) // it may never have come to a backend
      const volume = volumeRef(row)
      if (unit.step === 'remove-exports') {
        for (const { id } of await attachments.ofVolume(db, row.id)) await driver?.removeExport(volume, id)
        return { next: 'delete-snapshots', commit: (trx) => attachments.removeOfVolume(trx, row.id) }
      }
      if (unit.step === 'delete-snapshots') {
        const [first] = await snapshots.ofVolume(db, row.id)
        if (first === undefined) return { next: 'delete-volume', commit: async () => {} }
        await driver?.deleteSnapshot(snapshotRefOf(first, row))
        return { next: 'delete-snapshots', commit: (trx) => dropSnapshot(trx, first.id) }
      }
      if (unit.params.unmanage !== true) {
        // An upload was broken off that read it.
        if (unit.params.imageId !== undefined) await driver?.deleteSnapshot(frozenAs(String(unit.params.imageId), row))
        if (driver !== null) await deleteWhole(db, driver, row)
        await removeKey(parts, unit, row.encryption_key_id)
      }
      return { commit: (trx) => dropVolume(trx, row.id) }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        const change = { updatedAt: stamp(), set: { status_reason: error.message } }
        await volumes.compareAndSet(trx, unit.resourceId, { ...deletionOutcome(error), ...change })
        await snapshots.restoreOfVolume(trx, unit.resourceId, error.message, change.updatedAt)
      },
    }),
  }
}

/** Deletes a volume with the snapshots that failed backups, and copies of its group, may have left of it. */
export async function deleteWhole(db: Db, driver: VolumeDriver, row: volumes.VolumeRow): Promise<void> {
  const left = [
    ...(await backups.failedOf(db, row.id)).map(({ id }) => id),
    ...(await volumes.groupCopiesOf(db, row.id)),
  ]
  for (const id of left) await driver.deleteSnapshot(snapshotRefOf({ id, size_gib: row.size_gib }, row))
  await driver.deleteVolume(volumeRef(row))
}

/** (schedule, when the request found no room →) extend → notify, when servers have the volume. */
export function volumeExtend(parts: KindParts & Pick<Parts, 'compute'>): WorkKind {
  const { db, backends, pools, stamp } = parts
  const restore = { from: ['extending'] } as const
  return {
    attempt: async (unit) => {
      const row = await existing(db, unit.resourceId)
      if (isNotice(unit)) return notifyServers(parts, unit, { name: 'volume-extended', volumeId: row.id })
      // A snapshot that is taken together with others has the size that its row says.
      if (await snapshots.isFreezingWithGroup(db, row.id))
        return { next: unit.step, afterMs: 100, commit: async () => {} }
      const newSizeGib = row.pending_size_gib ?? row.size_gib
      if (unit.step === 'schedule') {
        const extraSpecs = await extraSpecsOf(db, row.volume_type_id)
        const growing = { id: row.id, host: hostOf(row), sizeGib: row.size_gib, extraSpecs }
        await pools.requireGrowth(growing, newSizeGib)
        return {
          commit: async () => {},
          decide: async (trx) => {
            await volumes.lock(trx, row.id)
            const hasRoom = await pools.reserveGrowth(trx, growing, newSizeGib)
            return hasRoom ? { next: 'extend' } : { next: 'schedule', afterMs: ROOM_RETRY_MS }
          },
        }
      }
      const driver = backends.driverOf(hostOf(row))
      await driver.extendVolume(volumeRef(row), newSizeGib)
      await limitExports(db, driver, { ...row, size_gib: newSizeGib }) // some limits are per GiB
      return {
        ...(await noticeStep(parts, row.id)),
        commit: (trx) =>
          followAttachments(trx, row.id, stamp(), {
            ...restore,
            set: { size_gib: newSizeGib, pending_size_gib: null },
          }),
      }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        const row = await volumes.lock(trx, unit.resourceId)
        if (row === undefined || isNotice(unit)) return
        await releaseGrowth(trx, row, stamp())
        const set = { status_reason: error.message }
        // Without room the backend was never asked, so the volume is as it was.
        if (error.code === 'NoValidBackend') await followAttachments(trx, row.id, stamp(), { ...restore, set })
        else await volumes.compareAndSet(trx, row.id, { ...VOLUME_OUTCOMES.extendFailed, updatedAt: stamp(), set })
      },
    }),
  }
}

/** A backend that refuses to delete has changed nothing; after any other failure nobody knows what is left. */
function deletionOutcome(error: ServiceError) {
  return error.code === 'InvalidVolume' || error.code === 'InvalidSnapshot'
    ? VOLUME_OUTCOMES.deleteRefused
    : VOLUME_OUTCOMES.deleteFailed
}

export async function existing(db: Db, id: WorkUnit['resourceId']): Promise<volumes.NamedVolumeRow> {
  const row = await volumes.find(db, id)
  if (row === undefined) throw new ServiceError('VolumeNotFound', { volume_id: id })
  return row
}

export async function snapshotRef(db: Db, id: string): Promise<SnapshotRef> {
  const row = await snapshots.find(db, id)
  if (row === undefined) throw new ServiceError('SnapshotNotFound', { snapshot_id: id })
  return snapshotRefOf(row, await existing(db, row.volume_id))
}

async function sourceRef(db: Db, id: string): Promise<VolumeRef> {
  return volumeRef(await existing(db, id))
}
