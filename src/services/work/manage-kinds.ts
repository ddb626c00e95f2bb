import * as volumes from '../../db/volumes.ts'
import { ServiceError } from '../../errors.ts'
import { copiesOf } from '../../scheduler/copies.ts'
import { reserveGrowth } from '../accounting.ts'
import type { Parts } from '../parts.ts'
import { hostOf } from '../rows.ts'
import { extraSpecsOf } from '../type-lookup.ts'
import { VOLUME_OUTCOMES } from '../volume-status.ts'
import type { WorkKind, WorkUnit } from './kind.ts'
import { snapshotMaking } from './snapshot-kinds.ts'
import { existing, snapshotRef } from './volume-kinds.ts'

type KindParts = Pick<Parts, 'db' | 'backends' | 'settings' | 'stamp'>

/** Takes over what the backend calls `params.name`. Its size is known, and counted, when it has been looked at. */
export function volumeManage({ db, backends, settings, stamp }: KindParts): WorkKind {
  return {
    attempt: async (unit) => {
      const row = await existing(db, unit.resourceId)
      const driver = backends.driverOf(hostOf(row))
      if (driver.manageVolume === undefined) throw cannotManage()
      const { sizeGib } = await driver.manageVolume({ id: row.id }, namedIn(unit))
      const copies = copiesOf(await extraSpecsOf(db, row.volume_type_id))
      if (copies !== null) await driver.alterCopies?.({ id: row.id, sizeGib }, copies)
      return {
        commit: async (trx) => {
          const locked = await volumes.lock(trx, row.id)
          if (locked?.status !== 'managing') return
          await reserveGrowth(trx, locked, sizeGib, settings.quota, stamp())
          const set = { size_gib: sizeGib, pending_size_gib: null }
          await volumes.compareAndSet(trx, row.id, { ...VOLUME_OUTCOMES.managed, updatedAt: stamp(), set })
        },
      }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        const set = { status_reason: error.message }
        await volumes.compareAndSet(trx, unit.resourceId, { ...VOLUME_OUTCOMES.manageFailed, updatedAt: stamp(), set })
      },
    }),
  }
}

/** Takes over what the backend calls `params.name` of the volume's snapshots. */
export function snapshotManage(parts: KindParts): WorkKind {
  const { db, backends } = parts
  return snapshotMaking(parts, async (unit) => {
    const snapshot = await snapshotRef(db, unit.resourceId)
    const driver = backends.driverOf(hostOf(await existing(db, snapshot.volumeId)))
    if (driver.manageSnapshot === undefined) throw cannotManage()
    await driver.manageSnapshot(snapshot, namedIn(unit))
  })
}

/** What the backend calls it. */
function namedIn({ params }: WorkUnit): string {
  if (typeof params.name === 'string' && params.name !== '') return params.name
  throw new ServiceError('InvalidInput', { reason: 'Reference must contain source-name element.' })
}

function cannotManage(): ServiceError {
  return new ServiceError('InvalidInput', { reason: 'The backend takes over nothing that somebody else has made.' })
}
