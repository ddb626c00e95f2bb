import * as attachments from '../../db/attachments.ts'
import type { Db } from '../../db/database.ts'
import * as volumes from '../../db/volumes.ts'
import { ServiceError } from '../../errors.ts'
import type { Log } from '../../runtime/log.ts'
import { computeRefusal } from '../compute/nova.ts'
import type { Parts } from '../parts.ts'
import { newVolumeRef } from '../refs.ts'
import { hostOf } from '../rows.ts'
import { addTarget, exchange } from '../swapped-volumes.ts'
import { extraSpecsOf } from '../type-lookup.ts'
import { isShared } from '../type-rules.ts'
import { VOLUME_OUTCOMES } from '../volume-status.ts'
import type { Outcome, WorkKind, WorkUnit } from './kind.ts'
import { requireDestination } from './migrate-kind.ts'
import { giveUpTarget, idsOf, isRemoval, leaveRemoval, removeTarget } from './swap-target.ts'
import { existing } from './volume-kinds.ts'

type KindParts = Pick<Parts, 'db' | 'backends' | 'pools' | 'compute' | 'settings' | 'keys' | 'stamp'> & { log: Log }

/**
 * Moves a volume in use, with the help of the compute service: check → create-target → ask → await. There it says through our API
 * how it ended, and the unit goes on at remove-source, or at failed → remove-target. When it says nothing for too long, `await` looks
 * at the attachments of the target: the guest uses it once its attachment is complete.
 *
 * Until `ask` nobody else knows of the target. From then on the volume and its target are what the compute service makes of them, so
 * that `ask` first looks whether it has begun.
 */
export function volumeSwap(parts: KindParts): WorkKind {
  const { db, backends, pools, compute, settings, stamp } = parts

  async function check(row: volumes.NamedVolumeRow, { params }: WorkUnit): Promise<Outcome> {
    if (compute === null) throw computeRefusal('there is none in the settings')
    const destination = String(params.destination)
    await serverOf(db, row.id)
    await requireDestination(db, pools, row, destination)
    const { availabilityZone } = backends.backendOf(destination)
    return {
      next: 'create-target',
      commit: async (trx) => {
        const locked = await volumes.lock(trx, row.id)
        if (locked === undefined) return
        const multiattach = isShared(await extraSpecsOf(trx, locked.pending_volume_type_id ?? locked.volume_type_id))
        const target = { id: String(params.targetId), host: destination, availabilityZone, multiattach, keyId: null }
        await addTarget(trx, locked, target, stamp())
        await volumes.update(trx, row.id, { migration_status: 'migrating', updated_at: stamp() })
      },
    }
  }

  async function ask(row: volumes.VolumeRow, unit: WorkUnit): Promise<Outcome> {
    const { targetId } = idsOf(unit)
    const hasBegun = async () => (await attachments.ofVolume(db, targetId)).length > 0
    if (!(await hasBegun())) {
      try {
        await compute?.swap({ oldId: row.id, newId: targetId }, await serverOf(db, row.id), unit.requestId)
      } catch (error) {
        if (!(await hasBegun())) throw error // else it refuses the second request after the first
      }
    }
    return { next: 'await', afterMs: settings.swapTimeoutMs, commit: async () => {} }
  }

  /** Nobody said how it ended, and nobody is waited for any more. */
  async function decide({ id, targetId }: { id: string; targetId: string }): Promise<Outcome> {
    const isUsed = async (trx: Db) => (await attachments.ofVolume(trx, targetId)).some(isAttached)
    if (!(await isUsed(db))) {
      throw computeRefusal(`it has not moved the volume within ${settings.swapTimeoutMs / 1000} seconds`)
    }
    return {
      next: 'remove-source',
      commit: async (trx) => {
        const [row, target] = [await volumes.lock(trx, id), await volumes.lock(trx, targetId)]
        if (row !== undefined && target !== undefined) await exchange(trx, row, target, stamp())
      },
    }
  }

  return {
    waitsAt: (step) => step === 'await',
    attempt: async (unit) => {
      if (isRemoval(unit)) return removeTarget(parts, unit)
      if (unit.step === 'failed') throw computeRefusal('it could not move the volume')
      if (unit.step === 'await') return decide(idsOf(unit))
      const row = await existing(db, unit.resourceId)
      if (unit.step === 'check') return check(row, unit)
      if (unit.step === 'ask') return ask(row, unit)
      const target = await existing(db, String(unit.params.targetId))
      const extraSpecs = await extraSpecsOf(db, row.pending_volume_type_id ?? row.volume_type_id)
      await backends.driverOf(hostOf(target)).createVolume(newVolumeRef(target, extraSpecs))
      return {
        next: 'ask',
        commit: async (trx) => {
          await volumes.compareAndSet(trx, target.id, { ...VOLUME_OUTCOMES.created, updatedAt: stamp() })
        },
      }
    },
    giveUp: (unit, error) => {
      return isRemoval(unit) ? leaveRemoval(parts, unit, error) : giveUpTarget(parts, unit, error)
    },
  }
}

/** The one server that has the volume. Throws InvalidVolume. */
async function serverOf(db: Db, id: string): Promise<string> {
  const [only, ...others] = await attachments.ofVolume(db, id)
  if (only?.instance_id && isAttached(only) && others.length === 0) return only.instance_id
  const reason = `Volume ${id} is attached to no server, or more than once: the compute service cannot move it.`
  throw new ServiceError('InvalidVolume', { reason })
}

const isAttached = ({ status }: attachments.AttachmentRow) => status === 'attached'
