import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import { addSnapshot } from './accounting.ts'
import type { RequestContext } from './context.ts'
import { mergeMetadata, removeMetadataKey } from './metadata.ts'
import type { Snapshot, SnapshotCreate } from './model.ts'
import type { Parts } from './parts.ts'
import { toPairs, toSnapshot } from './rows.ts'
import type { SnapshotService } from './services.ts'
import { toListing, visibleSnapshot, visibleVolume } from './visibility.ts'
import { SNAPSHOT_ACTIONS, VOLUME_PERMISSIONS } from './volume-status.ts'

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
    delete: (context, id) => deleteSnapshot(parts, context, id),
    setMetadata: async (context, id, metadata, { replace }) => {
      const row = await change(context, id, 'volume:update_snapshot_metadata', (old) => ({
        metadata: mergeMetadata(old.metadata, metadata, replace),
      }))
      return toPairs(row.metadata)
    },
    deleteMetadataKey: async (context, id, key) => {
      await change(context, id, 'volume:delete_snapshot_metadata', (old) => ({
        metadata: removeMetadataKey(old.metadata, key),
      }))
    },
  }
}

async function createSnapshot(
  { db, random, settings, stamp, work }: Parts,
  context: RequestContext,
  request: SnapshotCreate,
): Promise<Snapshot> {
  const { row, unit } = await db.transaction(async (trx) => {
    const volume = visibleVolume(context, request.volumeId, await volumes.lock(trx, request.volumeId))
    context.authorize('volume:create_snapshot', { projectId: volume.project_id })
    checkSource(volume, request.force)
    const row: snapshots.SnapshotRow = {
      id: random.uuid(),
      project_id: context.projectId,
      user_id: context.userId,
      volume_id: volume.id,
      name: request.name,
      description: request.description,
      size_gib: volume.size_gib,
      status: 'creating',
      previous_status: null,
      status_reason: null,
      progress: '0%',
      metadata: JSON.stringify(request.metadata),
      created_at: stamp(),
      updated_at: null,
    }
    await addSnapshot(trx, row, settings.quota)
    const unit = await work.enqueue(trx, {
      kind: 'snapshot-create',
      resourceId: row.id,
      lane: volume.id,
      step: 'create',
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
  if (allowed.includes(volume.status)) return
  const reason = `Volume ${volume.id} status must be ${allowed.join(', ')}, but current status is: ${volume.status}.`
  throw new ServiceError('InvalidVolume', { reason })
}

async function deleteSnapshot({ db, stamp, work }: Parts, context: RequestContext, id: string): Promise<void> {
  const unit = await db.transaction(async (trx) => {
    const row = visibleSnapshot(context, id, await snapshots.lock(trx, id))
    context.authorize('volume:delete_snapshot', { projectId: row.project_id })
    const won = await snapshots.compareAndSet(trx, id, {
      ...SNAPSHOT_ACTIONS.delete,
      updatedAt: stamp(),
      set: { status_reason: null },
      where: snapshots.notBeingRead,
    })
    if (!won) {
      const reason = (SNAPSHOT_ACTIONS.delete.from as readonly string[]).includes(row.status)
        ? `Snapshot ${id} is in use: a volume is being created from it.`
        : 'Snapshot status must be available or error and must not be part of a group.'
      throw new ServiceError('InvalidSnapshot', { reason })
    }
    return work.enqueue(trx, { kind: 'snapshot-delete', resourceId: id, lane: row.volume_id, step: 'delete' })
  })
  work.launch(unit)
}
