import * as attachments from '../../db/attachments.ts'
import * as volumes from '../../db/volumes.ts'
import { ServiceError } from '../../errors.ts'
import type { Log } from '../../runtime/log.ts'
import { removeKey } from '../keys/volume-keys.ts'
import type { Parts } from '../parts.ts'
import { nameOf, volumeRef } from '../refs.ts'
import { endSwap, endSwapLeaving, giveUpSwap, type SwapEnd } from '../swapped-volumes.ts'
import type { Outcome, WorkUnit } from './kind.ts'
import { deleteWhole } from './volume-kinds.ts'

/**
 * How work ends that has made a volume a target: → remove-source, when the two have been exchanged, or → remove-target. Its units name
 * the target, and where the volume was (`source`).
 */

type EndParts = Pick<Parts, 'db' | 'backends' | 'keys' | 'stamp'> & { log: Log }

export function idsOf({ resourceId, params }: WorkUnit): { id: string; targetId: string } {
  return { id: resourceId, targetId: String(params.targetId) }
}

export const isRemoval = ({ step }: WorkUnit): boolean => step === 'remove-source' || step === 'remove-target'

/** Takes away what the target is now. After the exchange that is what the volume was, and may have left behind. */
export async function removeTarget(parts: EndParts, unit: WorkUnit): Promise<Outcome> {
  const { db, backends, stamp } = parts
  const { id, targetId } = idsOf(unit)
  const isMoved = unit.step === 'remove-source'
  const target = await volumes.find(db, targetId)
  if (target !== undefined) {
    const driver = target.host === null ? null : backends.driverOf(target.host) // it may never have come to a backend
    for (const attachment of await attachments.ofVolume(db, targetId)) {
      await driver?.removeExport(volumeRef(target), attachment.id)
    }
    // What hung on the volume there, it has left behind.
    const ownerId = isMoved ? id : targetId
    const left = { ...target, id: ownerId, name_id: nameOf(target) }
    if (driver !== null) await whenClosed(deleteWhole(db, driver, left))
    await removeKey(parts, unit, target.encryption_key_id)
  }
  const end: SwapEnd = isMoved ? { migration_status: 'success', status_reason: null } : { migration_status: 'error' }
  return { commit: (trx) => endSwap(trx, { id, targetId }, end, stamp()) }
}

/** An attempt that was given up may have a volume open that nobody else uses. It comes to its end: so the deletion is repeated. */
export async function whenClosed(deletion: Promise<void>): Promise<void> {
  try {
    await deletion
  } catch (error) {
    if (!(error instanceof ServiceError) || error.code !== 'InvalidVolume') throw error
    throw new ServiceError('BackendFailure', { reason: error.message }, { cause: error })
  }
}

/** What could not be taken away stays, as a volume for an administrator to delete. */
export function leaveRemoval({ stamp }: Pick<Parts, 'stamp'>, unit: WorkUnit, { message }: ServiceError): Outcome {
  const ids = idsOf(unit)
  const left = `What ${unit.params.source} had of the volume is now volume ${ids.targetId}: ${message}`
  const end: SwapEnd =
    unit.step === 'remove-source' ? { migration_status: 'success', status_reason: left } : { migration_status: 'error' }
  return { commit: (trx) => endSwapLeaving(trx, ids, end, message, stamp()) }
}

export function giveUpTarget({ stamp }: Pick<Parts, 'stamp'>, unit: WorkUnit, { message }: ServiceError): Outcome {
  return { next: 'remove-target', commit: (trx) => giveUpSwap(trx, idsOf(unit), message, stamp()) }
}
