import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import { reserveRetype } from './accounting.ts'
import type { RequestContext } from './context.ts'
import type { Retype } from './model.ts'
import type { Parts } from './parts.ts'
import { toPairs } from './rows.ts'
import { visibleVolume } from './visibility.ts'
import { checkTypeBounds, isShared, typeOf } from './volume-create.ts'
import { VOLUME_ACTIONS } from './volume-status.ts'

/** Gives a volume another type. Whether its backend suits that is looked at by the work that follows. */
export async function retypeVolume(
  { db, stamp, work }: Parts,
  context: RequestContext,
  id: string,
  { newType, migrationPolicy }: Retype,
): Promise<void> {
  const unit = await db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    const target = { projectId: row.project_id }
    context.authorize('volume:retype', target)
    const type = await typeOf(trx, context, newType)
    const extraSpecs = toPairs(type.extra_specs)
    checkTypeBounds(row.size_gib, type.name, extraSpecs)
    const shared = isShared(extraSpecs)
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
      (await volumes.compareAndSet(trx, id, {
        ...VOLUME_ACTIONS.retype,
        updatedAt: stamp(),
        set: { status_reason: null },
        where: volumes.notMigrating,
      }))
    if (!won) {
      const reason =
        'Retype needs volume to be in available or in-use state, not be part of an active migration or a consistency ' +
        'group, requested type has to be different that the one from the volume, and for in-use volumes front-end qos ' +
        'specs cannot change.'
      throw new ServiceError('InvalidVolume', { reason })
    }
    await reserveRetype(trx, row, type.id, stamp())
    const params = { migrationPolicy }
    return work.enqueue(trx, { kind: 'volume-retype', resourceId: id, lane: id, step: 'retype', params })
  })
  work.launch(unit)
}
