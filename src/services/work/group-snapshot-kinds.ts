import assert from 'node:assert/strict'
import type { Db } from '../../db/database.ts'
import * as groupSnapshots from '../../db/group-snapshots.ts'
import * as groups from '../../db/groups.ts'
import * as snapshots from '../../db/snapshots.ts'
import * as volumes from '../../db/volumes.ts'
import type { SnapshotRef, VolumeDriver } from '../../drivers/driver.ts'
import { ServiceError } from '../../errors.ts'
import { dropSnapshot } from '../accounting.ts'
import type { Parts } from '../parts.ts'
import { snapshotRefOf } from '../refs.ts'
import { GROUP_SNAPSHOT_OUTCOMES, SNAPSHOT_OUTCOMES } from '../volume-status.ts'
import type { WorkKind } from './kind.ts'

type KindParts = Pick<Parts, 'db' | 'backends' | 'stamp'>

/** All volumes at one moment, in one call of the driver: there are all of the snapshots or none. */
export function groupSnapshotCreate({ db, backends, stamp }: KindParts): WorkKind {
  return {
    attempt: async (unit) => {
      const members = await snapshots.ofGroupSnapshot(db, unit.resourceId)
      const waiting = members.filter(({ status }) => status === 'creating')
      if (waiting.length > 0)
        await (await driverOf({ db, backends }, unit.lane)).createGroupSnapshot(await refsOf(db, waiting))
      return {
        commit: async (trx) => {
          const set = { progress: '100%' }
          for (const { id } of waiting) {
            await snapshots.compareAndSet(trx, id, { ...SNAPSHOT_OUTCOMES.created, updatedAt: stamp(), set })
          }
          const outcome = { ...GROUP_SNAPSHOT_OUTCOMES.created, updatedAt: stamp() }
          await groupSnapshots.compareAndSet(trx, unit.resourceId, outcome)
        },
      }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        const change = { updatedAt: stamp(), set: { status_reason: error.message } }
        for (const { id } of await snapshots.ofGroupSnapshot(trx, unit.resourceId)) {
          await snapshots.compareAndSet(trx, id, { ...SNAPSHOT_OUTCOMES.createFailed, ...change })
        }
        await groupSnapshots.compareAndSet(trx, unit.resourceId, { ...GROUP_SNAPSHOT_OUTCOMES.createFailed, ...change })
      },
    }),
  }
}

/** One after the other; then the snapshot of the group goes. */
export function groupSnapshotDelete({ db, backends, stamp }: KindParts): WorkKind {
  return {
    attempt: async (unit) => {
      const members = await snapshots.ofGroupSnapshot(db, unit.resourceId)
      const first = members.find(({ status }) => status === 'deleting')
      if (first === undefined) {
        if (members.length === 0) {
          return {
            commit: async (trx) => {
              await groupSnapshots.remove(trx, unit.resourceId)
            },
          }
        }
        const reason = `GroupSnapshot ${unit.resourceId} still has snapshots.`
        throw new ServiceError('InvalidGroupSnapshot', { reason })
      }
      for (const snapshot of await refsOf(db, [first])) {
        await (await driverOf({ db, backends }, unit.lane)).deleteSnapshot(snapshot)
      }
      return { next: 'delete', commit: (trx) => dropSnapshot(trx, first.id) }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        const change = { updatedAt: stamp(), set: { status_reason: error.message } }
        for (const { id } of await snapshots.ofGroupSnapshot(trx, unit.resourceId)) {
          await snapshots.compareAndSet(trx, id, { from: ['deleting'], to: 'error', ...change })
        }
        await groupSnapshots.compareAndSet(trx, unit.resourceId, { ...GROUP_SNAPSHOT_OUTCOMES.deleteFailed, ...change })
      },
    }),
  }
}

async function refsOf(db: Db, rows: readonly snapshots.SnapshotRow[]): Promise<SnapshotRef[]> {
  return Promise.all(
    rows.map(async (row) => {
      const volume = await volumes.find(db, row.volume_id)
      assert(volume !== undefined, 'a foreign key keeps the volume of a snapshot')
      return snapshotRefOf(row, volume)
    }),
  )
}

/** All volumes of a group are in its backend. */
async function driverOf(
  { db, backends }: { db: Db } & Pick<Parts, 'backends'>,
  groupId: string,
): Promise<VolumeDriver> {
  const group = await groups.find(db, groupId)
  if (group === undefined) throw new ServiceError('GroupNotFound', { group_id: groupId })
  if (group.host === null)
    throw new ServiceError('InvalidGroup', { reason: `Group ${groupId} was never given a place.` })
  return backends.driverOf(group.host)
}
