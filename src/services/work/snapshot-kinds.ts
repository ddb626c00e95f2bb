import assert from 'node:assert/strict'
import type { Db } from '../../db/database.ts'
import * as snapshots from '../../db/snapshots.ts'
import * as volumes from '../../db/volumes.ts'
import type { SnapshotRef } from '../../drivers/driver.ts'
import { ServiceError } from '../../errors.ts'
import { dropSnapshot } from '../accounting.ts'
import type { Parts } from '../parts.ts'
import { snapshotRefOf } from '../refs.ts'
import { hostOf } from '../rows.ts'
import { SNAPSHOT_OUTCOMES } from '../volume-status.ts'
import type { WorkKind, WorkUnit } from './kind.ts'

type KindParts = Pick<Parts, 'db' | 'backends' | 'stamp'>

export function snapshotCreate(parts: KindParts): WorkKind {
  const { db, backends } = parts
  return snapshotMaking(parts, async (unit) => {
    const { snapshot, host } = await existing(db, unit.resourceId)
    await backends.driverOf(host).createSnapshot(snapshot)
  })
}

/** The snapshot of the unit is there when `make` has come to its end. */
export function snapshotMaking({ stamp }: KindParts, make: (unit: WorkUnit) => Promise<void>): WorkKind {
  return {
    attempt: async (unit) => {
      await make(unit)
      return {
        commit: async (trx) => {
          const change = { updatedAt: stamp(), set: { progress: '100%' } }
          await snapshots.compareAndSet(trx, unit.resourceId, { ...SNAPSHOT_OUTCOMES.created, ...change })
        },
      }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        const change = { updatedAt: stamp(), set: { status_reason: error.message } }
        await snapshots.compareAndSet(trx, unit.resourceId, { ...SNAPSHOT_OUTCOMES.createFailed, ...change })
      },
    }),
  }
}

export function snapshotDelete({ db, backends, stamp }: KindParts): WorkKind {
  return {
    attempt: async (unit) => {
      const { snapshot, host } = await existing(db, unit.resourceId)
      await backends.driverOf(host).deleteSnapshot(snapshot)
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

/** A snapshot and the place of its volume. */
async function existing(db: Db, id: string): Promise<{ snapshot: SnapshotRef; host: string }> {
  const row = await snapshots.find(db, id)
  if (row === undefined) throw new ServiceError('SnapshotNotFound', { snapshot_id: id })
  const volume = await volumes.find(db, row.volume_id)
  assert(volume !== undefined, 'a foreign key keeps the volume of a snapshot')
  return { snapshot: snapshotRefOf(row, volume), host: hostOf(volume) }
}
