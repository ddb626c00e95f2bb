import type { Knex } from 'knex'
import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { ServiceError } from '../errors.ts'
import { placeOf } from '../scheduler/place.ts'
import type { RequestContext } from './context.ts'
import type { Migration } from './model.ts'
import type { Parts } from './parts.ts'
import { exchange } from './swapped-volumes.ts'
import { visibleVolume } from './visibility.ts'
import { VOLUME_ACTIONS } from './volume-status.ts'
import type { WorkOrder } from './work/engine.ts'

/**
 * Moves a volume to another backend. One that nobody uses is in maintenance meanwhile, whether the lock was asked for or not: what
 * a guest wrote while its volume is copied would be lost. One that is in use is moved by the compute service.
 */
export async function migrateVolume(
  parts: Parts,
  context: RequestContext,
  id: string,
  { host, cluster }: Migration,
): Promise<void> {
  const { db, backends, settings, stamp, work } = parts
  const unit = await db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    context.authorize('volume_extension:volume_admin_actions:migrate_volume', { projectId: row.project_id })
    const service = host?.split('#')[0]
    if (host === null || !backends.all.some(({ name }) => service === `${settings.hostName}@${name}`)) {
      throw new ServiceError('InvalidHost', { reason: `No available service named '${cluster ?? host ?? ''}'` })
    }
    const isElsewhere = row.host !== null && placeOf(row.host) !== placeOf(host)
    const isAttached = row.status === 'in-use'
    if (isAttached) refuseSwap(row)
    const movable = isElsewhere && (isAttached ? await hasNoCopies(trx, id) : await standsAlone(trx, id))
    const change = {
      ...VOLUME_ACTIONS[isAttached ? 'migrateAttached' : 'migrate'],
      updatedAt: stamp(),
      set: { migration_status: 'starting', status_reason: null },
      where: (query: Knex.QueryBuilder) => {
        volumes.notMigrating(query)
        volumes.notInGroup(query)
      },
    }
    if (!movable || !(await volumes.compareAndSet(trx, id, change))) {
      const reason =
        `Volume ${id} status must be available or in-use, must not be migrating, have snapshots, be replicated, be part of ` +
        'a group and destination host/cluster must be different than the current one'
      throw new ServiceError('InvalidVolume', { reason })
    }
    return work.enqueue(trx, moveOrder(parts, context, row, host, { isAttached }))
  })
  work.launch(unit)
}

/** Nova refuses to exchange volumes that it decrypts, so it is not even asked. */
export function refuseSwap({ id, encryption_key_id }: volumes.VolumeRow): void {
  if (encryption_key_id === null) return
  const reason = `Volume ${id} is encrypted: it can be moved when it is attached nowhere.`
  throw new ServiceError('InvalidVolume', { reason })
}

/** The work that moves a volume, which is attached or not, to another backend. */
export function moveOrder(
  { random }: Parts,
  { requestId }: RequestContext,
  { id, host: source }: volumes.VolumeRow,
  destination: string,
  { isAttached }: { isAttached: boolean },
): WorkOrder {
  const order = { resourceId: id, lane: id, step: 'check', requestId }
  const params = { source: source!, destination }
  return isAttached
    ? { ...order, kind: 'volume-swap', params: { ...params, targetId: random.uuid() } }
    : { ...order, kind: 'volume-migrate', params }
}

/** Whether nothing hangs on the volume that could not go with it. Of a volume that the caller has locked it stays so. */
export async function standsAlone(trx: Db, id: string): Promise<boolean> {
  return (await hasNoCopies(trx, id)) && (await attachments.ofVolume(trx, id)).length === 0
}

/** The same of one that is attached. */
export async function hasNoCopies(trx: Db, id: string): Promise<boolean> {
  return !(await volumes.isBeingCloned(trx, id)) && (await snapshots.ofVolume(trx, id)).length === 0
}

/**
 * Nova says how a swap of volumes ended. After one that it was asked for here, the volume goes on under its id; after one of its
 * own, neither volume is migrating, the attachments are its own to move, and the answer is the new volume.
 */
export async function completeMigration(
  { db, stamp, work }: Parts,
  context: RequestContext,
  id: string,
  { newVolumeId, failed }: { newVolumeId: string; failed: boolean },
): Promise<string> {
  const unit = await db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    const rule = 'volume_extension:volume_admin_actions:migrate_volume_completion'
    context.authorize(rule, { projectId: row.project_id })
    const target = visibleVolume(context, newVolumeId, await volumes.lock(trx, newVolumeId))
    if (row.migration_status === null && target.migration_status === null) return null
    const before = await workRows.findByResource(trx, id)
    checkCompletes(row, target, before)
    if (!failed) await exchange(trx, row, target, stamp())
    return work.enqueue(trx, {
      kind: 'volume-swap',
      resourceId: id,
      lane: id,
      step: failed ? 'failed' : 'remove-source',
      params: JSON.parse(before!.params),
      requestId: context.requestId,
    })
  })
  if (unit === null) return newVolumeId
  work.launch(unit)
  return id
}

function checkCompletes(row: volumes.VolumeRow, target: volumes.VolumeRow, unit: workRows.WorkRow | undefined): void {
  const expected = volumes.targetOf(row.id)
  const reason =
    row.migration_status === null
      ? 'Source volume not mid-migration.'
      : target.migration_status === null
        ? 'Destination volume not mid-migration.'
        : target.migration_status !== expected || unit?.kind !== 'volume-swap'
          ? `Destination has migration_status ${target.migration_status}, expected ${expected}.`
          : null
  if (reason !== null) throw new ServiceError('InvalidVolume', { reason })
}
