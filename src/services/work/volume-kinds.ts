import assert from 'node:assert/strict'
import * as attachments from '../../db/attachments.ts'
import * as backups from '../../db/backups.ts'
import type { Db } from '../../db/database.ts'
import * as snapshots from '../../db/snapshots.ts'
import * as volumeTypes from '../../db/volume-types.ts'
import * as volumes from '../../db/volumes.ts'
import type { SnapshotRef, VolumeRef } from '../../drivers/driver.ts'
import { ServiceError } from '../../errors.ts'
import { dropSnapshot, dropVolume, releaseGrowth } from '../accounting.ts'
import { followAttachments } from '../attached-status.ts'
import type { Parts } from '../parts.ts'
import { choosePool } from '../pools.ts'
import { hostOf, toPairs } from '../rows.ts'
import { VOLUME_OUTCOMES } from '../volume-status.ts'
import type { Outcome, WorkKind, WorkUnit } from './kind.ts'

type KindParts = Pick<Parts, 'db' | 'backends' | 'pools' | 'stamp'>

/** schedule (when no pool was known at the request) → provision */
export function volumeCreate({ db, backends, pools, stamp }: KindParts): WorkKind {
  return {
    attempt: async (unit) => {
      const row = await existing(db, unit.resourceId)
      if (unit.step === 'schedule') {
        const pool = choosePool(await pools.refresh(), await placementOf(db, row))
        return {
          next: 'provision',
          commit: (trx) => volumes.update(trx, row.id, { host: pool.name, updated_at: stamp() }),
        }
      }
      const driver = backends.driverOf(hostOf(row))
      const volume = volumeRef(row)
      if (row.snapshot_id !== null)
        await driver.createVolumeFromSnapshot(volume, await snapshotRef(db, row.snapshot_id))
      else if (row.source_volid !== null) await driver.createClonedVolume(volume, await sourceRef(db, row.source_volid))
      else await driver.createVolume(volume)
      return {
        commit: async (trx) => {
          await volumes.compareAndSet(trx, row.id, { ...VOLUME_OUTCOMES.created, updatedAt: stamp() })
        },
      }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        await volumes.compareAndSet(trx, unit.resourceId, {
          ...VOLUME_OUTCOMES.createFailed,
          updatedAt: stamp(),
          set: { status_reason: error.message },
        })
      },
    }),
  }
}

/** remove-exports (when attachments are left) → delete-snapshots, one by one (when it cascades) → delete-volume */
export function volumeDelete({ db, backends, stamp }: KindParts): WorkKind {
  return {
    attempt: async (unit): Promise<Outcome> => {
      const row = await existing(db, unit.resourceId)
      if (row.host === null) return { commit: (trx) => dropVolume(trx, row.id) } // it never came to a backend
      const driver = backends.driverOf(row.host)
      const volume = volumeRef(row)
      if (unit.step === 'remove-exports') {
        for (const { id } of await attachments.ofVolume(db, volume.id)) await driver.removeExport(volume, id)
        return { next: 'delete-snapshots', commit: (trx) => attachments.removeOfVolume(trx, volume.id) }
      }
      if (unit.step === 'delete-snapshots') {
        const [first] = await snapshots.ofVolume(db, volume.id)
        if (first === undefined) return { next: 'delete-volume', commit: async () => {} }
        await driver.deleteSnapshot({ id: first.id, volumeId: volume.id, sizeGib: first.size_gib })
        return { next: 'delete-snapshots', commit: (trx) => dropSnapshot(trx, first.id) }
      }
      for (const { id } of await backups.failedOf(db, volume.id)) {
        await driver.deleteSnapshot({ id, volumeId: volume.id, sizeGib: volume.sizeGib })
      }
      await driver.deleteVolume(volume)
      return { commit: (trx) => dropVolume(trx, volume.id) }
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

export function volumeExtend({ db, backends, pools, stamp }: KindParts): WorkKind {
  const restore = { from: ['extending'] } as const
  return {
    attempt: async (unit) => {
      const row = await existing(db, unit.resourceId)
      const newSizeGib = row.pending_size_gib ?? row.size_gib
      const pool = pools.known().filter(({ name }) => name === row.host)
      if (pool.length > 0) {
        const growth = { sizeGib: newSizeGib - row.size_gib, availabilityZone: null, extraSpecs: {} }
        choosePool(pool, growth)
      }
      await backends.driverOf(hostOf(row)).extendVolume(volumeRef(row), newSizeGib)
      return {
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
        if (row === undefined) return
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

async function existing(db: Db, id: WorkUnit['resourceId']): Promise<volumes.NamedVolumeRow> {
  const row = await volumes.find(db, id)
  if (row === undefined) throw new ServiceError('VolumeNotFound', { volume_id: id })
  return row
}

async function placementOf(db: Db, row: volumes.VolumeRow) {
  const type = await volumeTypes.find(db, row.volume_type_id)
  assert(type !== undefined, 'a foreign key keeps the type of a volume')
  return { sizeGib: row.size_gib, availabilityZone: row.availability_zone, extraSpecs: toPairs(type.extra_specs) }
}

async function snapshotRef(db: Db, id: string): Promise<SnapshotRef> {
  const row = await snapshots.find(db, id)
  if (row === undefined) throw new ServiceError('SnapshotNotFound', { snapshot_id: id })
  return { id, volumeId: row.volume_id, sizeGib: row.size_gib }
}

async function sourceRef(db: Db, id: string): Promise<VolumeRef> {
  return volumeRef(await existing(db, id))
}

export function volumeRef(row: volumes.VolumeRow): VolumeRef {
  return { id: row.id, sizeGib: row.size_gib }
}
