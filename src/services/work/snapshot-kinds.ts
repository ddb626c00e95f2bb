import type { Db } from '../../db/database.ts'
import * as snapshots from '../../db/snapshots.ts'
import type { SnapshotRef } from '../../drivers/driver.ts'
import { ServiceError } from '../../errors.ts'
import { dropSnapshot } from '../accounting.ts'
import type { Parts } from '../parts.ts'
import { SNAPSHOT_OUTCOMES } from '../volume-status.ts'
import type { WorkKind } from './kind.ts'

type KindParts = Pick<Parts, 'db' | 'driver' | 'stamp'>

export function snapshotCreate({ db, driver, stamp }: KindParts): WorkKind {
  return {
    attempt: async (unit) => {
      const snapshot = await existing(db, unit.resourceId)
      await driver.createSnapshot(snapshot)
      return {
        commit: async (trx) => {
          const set = { progress: '100%' }
          await snapshots.compareAndSet(trx, snapshot.id, { ...SNAPSHOT_OUTCOMES.created, updatedAt: stamp(), set })
        },
      }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        const set = { status_reason: error.message }
        await snapshots.compareAndSet(trx, unit.resourceId, {
          ...SNAPSHOT_OUTCOMES.createFailed,
          updatedAt: stamp(),
          set,
        })
      },
    }),
  }
}

export function snapshotDelete({ db, driver, stamp }: KindParts): WorkKind {
  return {
    attempt: async (unit) => {
      const snapshot = await existing(db, unit.resourceId)
      await driver.deleteSnapshot(snapshot)
      return { commit: (trx) => dropSnapshot(trx, snapshot.id) }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        const outcome =
          error.code === 'InvalidSnapshot' ? SNAPSHOT_OUTCOMES.deleteRefused : SNAPSHOT_OUTCOMES.deleteFailed
        const set = { status_reason: error.message }
        await snapshots.compareAndSet(trx, unit.resourceId, { ...outcome, updatedAt: stamp(), set })
      },
    }),
  }
}

async function existing(db: Db, id: string): Promise<SnapshotRef> {
  const row = await snapshots.find(db, id)
  if (row === undefined) throw new ServiceError('SnapshotNotFound', { snapshot_id: id })
  return { id, volumeId: row.volume_id, sizeGib: row.size_gib }
}
