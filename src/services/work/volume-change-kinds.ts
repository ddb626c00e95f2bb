import * as attachments from '../../db/attachments.ts'
import * as snapshots from '../../db/snapshots.ts'
import * as volumes from '../../db/volumes.ts'
import { ServiceError } from '../../errors.ts'
import { copiesOf, sameCopies } from '../../scheduler/copies.ts'
import { explainDropped } from '../../scheduler/scheduler.ts'
import { endRetype } from '../accounting.ts'
import { followAttachments } from '../attached-status.ts'
import { encryptionDiffers } from '../keys/volume-keys.ts'
import type { Parts } from '../parts.ts'
import { placeWhereItIs } from '../placement.ts'
import { limitExports } from '../qos.ts'
import { volumeRef } from '../refs.ts'
import { hostOf } from '../rows.ts'
import { extraSpecsOf } from '../type-lookup.ts'
import { SNAPSHOT_OUTCOMES, VOLUME_OUTCOMES } from '../volume-status.ts'
import type { Outcome, WorkKind } from './kind.ts'
import { existing, snapshotRef } from './volume-kinds.ts'

type KindParts = Pick<Parts, 'db' | 'backends' | 'pools' | 'stamp'>

export function volumeRevert({ db, backends, stamp }: KindParts): WorkKind {
  return {
    attempt: async (unit) => {
      const row = await existing(db, unit.resourceId)
      const snapshotId = String(unit.params.snapshotId)
      await backends.driverOf(hostOf(row)).revertToSnapshot(await snapshotRef(db, snapshotId))
      return {
        commit: async (trx) => {
          await volumes.compareAndSet(trx, row.id, { ...VOLUME_OUTCOMES.reverted, updatedAt: stamp() })
          await snapshots.compareAndSet(trx, snapshotId, { ...SNAPSHOT_OUTCOMES.reverted, updatedAt: stamp() })
        },
      }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        const set = { status_reason: error.message }
        await volumes.compareAndSet(trx, unit.resourceId, {
          ...VOLUME_OUTCOMES.revertFailed,
          updatedAt: stamp(),
          set,
        })
        const snapshotId = String(unit.params.snapshotId)
        await snapshots.compareAndSet(trx, snapshotId, { ...SNAPSHOT_OUTCOMES.reverted, updatedAt: stamp() })
      },
    }),
  }
}

/**
 * retype → alter-copies, when the new type has another number of them → limit, when it is attached. Takes the new type when the pool that
 * has the volume suits it, and then what that promises of its speed. Where it does not suit, a migration took this one's place.
 * Nobody waits for copies: the backend makes them in the background. When altering them is given up, nobody knows how many there are to
 * be: restore-copies says that again before the volume goes on with its old type.
 */
export function volumeRetype({ db, backends, pools, stamp }: KindParts): WorkKind {
  const restore = { from: ['retyping'] } as const

  /** The volume has its new type, and is for everybody again once its exports keep to that. */
  async function take(row: volumes.VolumeRow): Promise<Outcome> {
    const isAttached = (await attachments.ofVolume(db, row.id)).length > 0
    return {
      ...(isAttached ? { next: 'limit' } : {}),
      commit: async (trx) => {
        const locked = await volumes.lock(trx, row.id) // a snapshot that goes meanwhile is given back under both types
        if (locked === undefined) return
        await endRetype(trx, locked, stamp(), { isDone: true })
        if (!isAttached) await followAttachments(trx, row.id, stamp(), restore)
      },
    }
  }

  /** It keeps its old type. */
  const leave = (id: string, reason: string | null): Outcome => ({
    commit: async (trx) => {
      const row = await volumes.lock(trx, id)
      if (row === undefined) return
      await endRetype(trx, row, stamp(), { isDone: false })
      await followAttachments(trx, id, stamp(), { ...restore, set: { status_reason: reason } })
    },
  })

  return {
    attempt: async (unit) => {
      const row = await existing(db, unit.resourceId)
      const driver = backends.driverOf(hostOf(row))
      if (unit.step === 'limit') {
        await limitExports(db, driver, row)
        return { commit: (trx) => followAttachments(trx, row.id, stamp(), restore) }
      }
      const heldSpecs = await extraSpecsOf(db, row.volume_type_id)
      if (unit.step === 'restore-copies') {
        await driver.alterCopies?.(volumeRef(row), copiesOf(heldSpecs))
        return leave(row.id, unit.lastError)
      }
      const extraSpecs = await extraSpecsOf(db, row.pending_volume_type_id ?? row.volume_type_id)
      if (unit.step === 'alter-copies') {
        await driver.alterCopies?.(volumeRef(row), copiesOf(extraSpecs))
        return take(row)
      }
      if (await encryptionDiffers(db, row.volume_type_id, row.pending_volume_type_id ?? row.volume_type_id)) {
        throw new ServiceError('InvalidVolume', { reason: needsEncryption(unit) })
      }
      await pools.refresh()
      const { candidates, dropped } = placeWhereItIs(await pools.current(), row, heldSpecs, extraSpecs)
      if (candidates.length === 0) throw new ServiceError('InvalidVolume', { reason: needsMigration(unit, dropped) })
      return sameCopies(heldSpecs, extraSpecs) ? take(row) : { next: 'alter-copies', commit: async () => {} }
    },
    giveUp: (unit, error) => {
      if (unit.step === 'alter-copies') return { next: 'restore-copies', commit: async () => {} }
      return leave(unit.resourceId, unit.step === 'restore-copies' ? (unit.lastError ?? error.message) : error.message)
    },
  }
}

function needsEncryption({ params }: Parameters<WorkKind['attempt']>[0]): string {
  return params.migrationPolicy === 'never'
    ? 'Retype requires migration but is not allowed.'
    : 'The types are encrypted in different ways, so the volume has to be copied: it must not have snapshots, and none may be made of it.'
}

function needsMigration(
  { params }: Parameters<WorkKind['attempt']>[0],
  dropped: Parameters<typeof explainDropped>[0],
): string {
  const reason =
    params.migrationPolicy === 'never'
      ? 'Retype requires migration but is not allowed.'
      : 'Retype requires migration, and there is nowhere to go, or the volume is being copied, or has snapshots.'
  return `${reason} ${explainDropped(dropped)}`
}
