import type { Knex } from 'knex'
import type { StatusChange } from '../db/compare-and-set.ts'
import type { Db } from '../db/database.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { ServiceError } from '../errors.ts'
import { addSnapshot, dropSnapshot } from './accounting.ts'
import type { RequestContext } from './context.ts'
import { mergeMetadata, removeMetadataKey } from './metadata.ts'
import type { Snapshot, SnapshotCreate, SnapshotStatus } from './model.ts'
import { refuseMoving } from './moving.ts'
import { imageMetadataOf, newSnapshot } from './new-snapshot.ts'
import type { Parts } from './parts.ts'
import { toPairs, toSnapshot } from './rows.ts'
import type { SnapshotService } from './services.ts'
import { toListing, visibleSnapshot, visibleVolume } from './visibility.ts'
import { SNAPSHOT_ACTIONS, SNAPSHOT_REPORTS, VOLUME_PERMISSIONS } from './volume-status.ts'

export function createSnapshotService(parts: Parts): SnapshotService {
  const { db, stamp } = parts

  async function change(
    context: RequestContext,
    id: string,
    rule: string,
    columnsOf: (row: snapshots.SnapshotRow) => Partial<Omit<snapshots.SnapshotRow, 'id' | 'status'>>,
  ): Promise<snapshots.SnapshotRow> {
    return db.transaction(async (trx) => {
      const row = visibleSnapshot(context, id, await snapshots.lock(trx, id))
      context.authorize(rule, { projectId: row.project_id })
      const columns = { ...columnsOf(row), updated_at: stamp() }
      await snapshots.update(trx, id, columns)
      return { ...row, ...columns }
    })
  }

  return {
    create: (context, request) => createSnapshot(parts, context, request),
    get: async (context, id) => {
      const row = visibleSnapshot(context, id, await snapshots.find(db, id))
      context.authorize('volume:get_snapshot', { projectId: row.project_id })
      return toSnapshot(row)
    },
    list: async (context, query, options) => {
      context.authorize('volume:get_all_snapshots', { projectId: context.projectId })
      const { rows, ...page } = await snapshots.list(db, toListing(context, query), options)
      return { ...page, items: rows.map(toSnapshot) }
    },
    update: async (context, id, changes) =>
      toSnapshot(await change(context, id, 'volume:update_snapshot', () => changes)),
    delete: (context, id, options = { force: false }) => deleteSnapshot(parts, context, id, options),
    resetStatus: (context, id, status) => resetStatus(parts, context, id, status),
    updateStatus: (context, id, report) => updateStatus(parts, context, id, report),
    unmanage: (context, id) => unmanage(parts, context, id),
    setMetadata: async (context, id, metadata, { replace }) => {
      const row = await change(context, id, 'volume:update_snapshot_metadata', (old) => ({
        metadata: mergeMetadata(old.metadata, metadata, replace),
      }))
      return toPairs(row.metadata)
    },
    deleteMetadataKey: async (context, id, key) => {
      await change(context, id, 'volume:delete_snapshot_metadata', (old) => ({
        metadata: removeMetadataKey(old.metadata, key, { owner: 'Snapshot', id }),
      }))
    },
  }
}

async function createSnapshot(parts: Parts, context: RequestContext, request: SnapshotCreate): Promise<Snapshot> {
  const { db, settings, states, work } = parts
  const { row, unit } = await db.transaction(async (trx) => {
    const volume = visibleVolume(context, request.volumeId, await volumes.lock(trx, request.volumeId))
    context.authorize('volume:create_snapshot', { projectId: volume.project_id })
    states.refuseFrozen(volume.host)
    checkSource(volume, request.force)
    const row = newSnapshot(parts, context, volume, {
      name: request.name,
      description: request.description,
      metadata: JSON.stringify(request.metadata),
      image_metadata: imageMetadataOf(volume),
      group_snapshot_id: null,
    })
    await addSnapshot(trx, row, settings.quota)
    const unit = await work.enqueue(trx, {
      kind: 'snapshot-create',
      resourceId: row.id,
      lane: volume.id,
      step: 'create',
      requestId: context.requestId,
    })
    return { row, unit }
  })
  work.launch(unit)
  return toSnapshot(row)
}

function checkSource(volume: volumes.VolumeRow, force: boolean): void {
  if (volume.status === 'maintenance') {
    const reason = 'The snapshot cannot be created when the volume is in maintenance mode.'
    throw new ServiceError('InvalidVolume', { reason })
  }
  if (volume.status === 'error') {
    const reason = 'The snapshot cannot be created when the volume is in error status.'
    throw new ServiceError('InvalidVolume', { reason })
  }
  const allowed: readonly string[] = VOLUME_PERMISSIONS[force ? 'snapshotForced' : 'snapshot']
  refuseMoving(volume)
  if (allowed.includes(volume.status)) return
  const reason = `Volume ${volume.id} status must be ${allowed.join(', ')}, but current status is: ${volume.status}.`
  throw new ServiceError('InvalidVolume', { reason })
}

async function deleteSnapshot(
  { db, stamp, states, work }: Parts,
  context: RequestContext,
  id: string,
  { force }: { force: boolean },
): Promise<void> {
  const unit = await db.transaction(async (trx) => {
    const row = visibleSnapshot(context, id, await snapshots.lock(trx, id))
    if (force) context.authorize('volume_extension:snapshot_admin_actions:force_delete', { projectId: row.project_id })
    context.authorize('volume:delete_snapshot', { projectId: row.project_id })
    states.refuseFrozen((await volumes.find(trx, row.volume_id))?.host ?? null)
    const { from, to } = SNAPSHOT_ACTIONS.delete
    await take(trx, row, { from: force ? [row.status] : from, to, updatedAt: stamp(), set: { status_reason: null } })
    return work.enqueue(trx, {
      kind: 'snapshot-delete',
      resourceId: id,
      lane: row.volume_id,
      step: 'delete',
      requestId: context.requestId,
    })
  })
  work.launch(unit)
}

/** Moves a snapshot that nothing reads into the status of its end. */
async function take(
  trx: Db,
  { id, status, group_snapshot_id: groupSnapshotId }: snapshots.SnapshotRow,
  change: StatusChange,
): Promise<void> {
  const where = (query: Knex.QueryBuilder) => {
    snapshots.notBeingRead(query)
    snapshots.notInGroup(query)
  }
  if (await snapshots.compareAndSet(trx, id, { ...change, where })) return
  const reason =
    change.from.includes(status) && groupSnapshotId === null
      ? `Snapshot ${id} is in use: a volume is being created from it.`
      : 'Snapshot status must be available or error and must not be part of a group.'
  throw new ServiceError('InvalidSnapshot', { reason })
}

/** Nothing is asked of the backend, so the row can go at once. What is left there holds on to its volume. */
async function unmanage({ db, stamp }: Parts, context: RequestContext, id: string): Promise<void> {
  await db.transaction(async (trx) => {
    const { volume_id } = visibleSnapshot(context, id, await snapshots.find(trx, id))
    await volumes.lock(trx, volume_id) // first, as everybody does who needs both
    const row = visibleSnapshot(context, id, await snapshots.lock(trx, id))
    context.authorize('snapshot_extension:snapshot_unmanage', { projectId: row.project_id })
    context.authorize('volume:delete_snapshot', { projectId: row.project_id })
    await take(trx, row, { ...SNAPSHOT_ACTIONS.unmanage, updatedAt: stamp() })
    await dropSnapshot(trx, id)
  })
}

/** Writes the status and drops the work that stood behind the old one. */
async function resetStatus(
  { db, stamp }: Parts,
  context: RequestContext,
  id: string,
  status: SnapshotStatus,
): Promise<void> {
  await db.transaction(async (trx) => {
    const row = visibleSnapshot(context, id, await snapshots.lock(trx, id))
    context.authorize('volume_extension:snapshot_admin_actions:reset_status', { projectId: row.project_id })
    await workRows.removeOfResource(trx, id)
    const change = { from: [row.status], to: status, updatedAt: stamp(), set: { status_reason: null } }
    await snapshots.compareAndSet(trx, id, change)
  })
}

async function updateStatus(
  { db, stamp }: Parts,
  context: RequestContext,
  id: string,
  { status, progress }: { status: string; progress: string | null },
): Promise<void> {
  await db.transaction(async (trx) => {
    const row = visibleSnapshot(context, id, await snapshots.lock(trx, id))
    context.authorize('snapshot_extension:snapshot_actions:update_snapshot_status', { projectId: row.project_id })
    const reports = SNAPSHOT_REPORTS[row.status as SnapshotStatus]
    if (reports === undefined) {
      throw new ServiceError('InvalidInput', {
        reason: `Snapshot status ${row.status} not allowed for update_snapshot_status`,
      })
    }
    const to = reports.find((report) => report === status)
    if (to === undefined) {
      throw new ServiceError('InvalidInput', {
        reason: `Provided snapshot status ${status} not allowed for snapshot with status ${row.status}.`,
      })
    }
    const set = progress === null ? {} : { progress }
    await snapshots.compareAndSet(trx, id, { from: [row.status], to, updatedAt: stamp(), set })
  })
}
