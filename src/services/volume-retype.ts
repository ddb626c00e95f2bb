import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import { reserveRetype } from './accounting.ts'
import type { RequestContext } from './context.ts'
import { encryptionDiffers, withKey } from './keys/volume-keys.ts'
import type { Retype } from './model.ts'
import type { Parts } from './parts.ts'
import { placeElsewhere } from './placement.ts'
import { mayChangeInUse } from './qos.ts'
import { toPairs } from './rows.ts'
import { extraSpecsOf, heldType, typeByNameOrId } from './type-lookup.ts'
import { checkTypeBounds, checkTypeCopies, isEncrypted, isShared } from './type-rules.ts'
import { visibleVolume } from './visibility.ts'
import { hasNoCopies, moveOrder, refuseSwap, standsAlone } from './volume-migrate.ts'
import {
  enqueueReencryption,
  foreseeReencryption,
  notAsForeseen,
  type Reencryption,
  refuseInUse,
} from './volume-reencrypt.ts'
import { VOLUME_ACTIONS } from './volume-status.ts'
import type { WorkUnit } from './work/kind.ts'

/** Gives a volume another type. Whether its backend suits that is looked at by the work that follows. */
export async function retypeVolume(parts: Parts, context: RequestContext, id: string, request: Retype): Promise<void> {
  const foreseen = await foreseeReencryption(parts, context, id, request)
  const unit = await withKey(foreseen?.key ?? null, () => enqueueRetype(parts, context, id, request, foreseen))
  parts.work.launch(unit)
}

async function enqueueRetype(
  parts: Parts,
  context: RequestContext,
  id: string,
  { newType, migrationPolicy }: Retype,
  foreseen: Reencryption | null,
): Promise<WorkUnit> {
  const { db, pools, settings, stamp, work } = parts
  const known = migrationPolicy === 'on-demand' ? await pools.current() : []
  return db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    const target = { projectId: row.project_id }
    context.authorize('volume:retype', target)
    const type = await heldType(trx, await typeByNameOrId(trx, context, newType))
    const extraSpecs = toPairs(type.extra_specs)
    checkTypeBounds(row.size_gib, type.name, extraSpecs)
    checkTypeCopies(type.name, extraSpecs)
    const shared = isShared(extraSpecs)
    if (shared && (await isEncrypted(trx, type.id))) {
      const reason = 'Retype requested both encryption and multi-attach, which is not supported.'
      throw new ServiceError('InvalidInput', { reason })
    }
    if (shared !== Boolean(row.multiattach)) {
      if (row.status !== 'available') {
        const reason =
          'Invalid input received: Invalid volume_type passed, retypes affecting multiattach are only allowed on available ' +
          `volumes, the specified volume however currently has a status of: ${row.status}.`
        throw new ServiceError('InvalidInput', { reason })
      }
      if (shared) context.authorize('volume:multiattach', target)
    }
    const won =
      row.volume_type_id !== type.id &&
      (row.status !== 'in-use' || (await mayChangeInUse(trx, row.volume_type_id, type.id))) &&
      (await volumes.compareAndSet(trx, id, {
        ...VOLUME_ACTIONS.retype,
        updatedAt: stamp(),
        set: { status_reason: null },
        where: (query) => {
          volumes.notMigrating(query)
          volumes.notInGroup(query)
        },
      }))
    if (!won) {
      const reason =
        'Retype needs volume to be in available or in-use state, not be part of an active migration or a consistency ' +
        'group, requested type has to be different that the one from the volume, and for in-use volumes front-end qos ' +
        'specs cannot change.'
      throw new ServiceError('InvalidVolume', { reason })
    }
    await reserveRetype(trx, row, type.id, settings.quota, stamp())
    const isAttached = row.status === 'in-use'
    const movable = isAttached ? await hasNoCopies(trx, id) : await standsAlone(trx, id)
    const mayMove = migrationPolicy === 'on-demand'
    const isReencrypted = await encryptionDiffers(trx, row.volume_type_id, type.id)
    if (mayMove && isReencrypted) {
      if (isAttached) throw refuseInUse(row)
      if (movable) return enqueueReencryption(trx, parts, context, row, type, foreseen)
    }
    if (foreseen !== null) throw notAsForeseen()
    const destination =
      mayMove && movable && !isReencrypted
        ? placeElsewhere(
            known,
            row,
            await extraSpecsOf(trx, row.volume_type_id),
            extraSpecs,
            settings.scheduler.weights,
          )
        : null
    if (destination === null) {
      const order = { resourceId: id, lane: id, requestId: context.requestId }
      return work.enqueue(trx, { ...order, kind: 'volume-retype', step: 'retype', params: { migrationPolicy } })
    }
    if (isAttached) refuseSwap(row)
    await volumes.update(trx, id, { migration_status: 'starting', updated_at: stamp() })
    return work.enqueue(trx, moveOrder(parts, context, row, destination.name, { isAttached }))
  })
}
