import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import { collectValues, mergeMetadata, removeMetadataKey } from './metadata.ts'
import type { Attachment, Volume } from './model.ts'
import type { Parts } from './parts.ts'
import { toAttachment, toPairs, toVolume } from './rows.ts'
import type { VolumeService } from './services.ts'
import { toListing, visibleVolume } from './visibility.ts'
import { beginDetaching, deleteVolume, extendVolume, resetStatus, rollDetaching } from './volume-actions.ts'
import { createVolume } from './volume-create.ts'

export function createVolumeService(parts: Parts): VolumeService {
  const { db, stamp } = parts

  /** Changes columns of a volume that the caller may change, in one transaction with reading them. */
  async function change(
    context: RequestContext,
    id: string,
    rule: string,
    columnsOf: (row: volumes.VolumeRow) => Partial<Omit<volumes.VolumeRow, 'id' | 'status'>>,
  ): Promise<volumes.NamedVolumeRow> {
    return db.transaction(async (trx) => {
      const row = visibleVolume(context, id, await volumes.lock(trx, id))
      context.authorize(rule, { projectId: row.project_id })
      if (row.status === 'maintenance') {
        throw new ServiceError('InvalidVolume', { reason: 'The volume cannot be updated during maintenance.' })
      }
      const columns = { ...columnsOf(row), updated_at: stamp() }
      await volumes.update(trx, id, columns)
      return { ...row, ...columns }
    })
  }

  return {
    create: (context, request) => createVolume(parts, context, request),
    get: async (context, id) => {
      const row = visibleVolume(context, id, await volumes.find(db, id))
      context.authorize('volume:get', { projectId: row.project_id })
      return withAttachments(db, row)
    },
    list: async (context, query, options) => {
      context.authorize('volume:get_all', { projectId: context.projectId })
      const { rows, ...page } = await volumes.list(db, toListing(context, query), options)
      return { ...page, items: await withAllAttachments(db, rows) }
    },
    summary: async (context, query) => {
      context.authorize('volume:get_all', { projectId: context.projectId })
      const { metadata, ...sums } = await volumes.summarize(db, toListing(context, query))
      return { ...sums, metadata: collectValues(metadata) }
    },
    update: async (context, id, { metadata, ...names }) => {
      const row = await change(context, id, 'volume:update', () =>
        metadata === undefined ? names : { ...names, metadata: JSON.stringify(metadata) },
      )
      return withAttachments(db, row)
    },
    delete: (context, id, options) => deleteVolume(parts, context, id, options),
    extend: (context, id, newSizeGib) => extendVolume(parts, context, id, newSizeGib),
    setMetadata: async (context, id, metadata, { replace }) => {
      const rule = replace ? 'volume:update_volume_metadata' : 'volume:create_volume_metadata'
      const row = await change(context, id, rule, (old) => ({
        metadata: mergeMetadata(old.metadata, metadata, replace),
      }))
      return toPairs(row.metadata)
    },
    deleteMetadataKey: async (context, id, key) => {
      await change(context, id, 'volume:delete_volume_metadata', (old) => ({
        metadata: removeMetadataKey(old.metadata, key, { owner: 'Volume', id }),
      }))
    },
    beginDetaching: (context, id) => beginDetaching(parts, context, id),
    rollDetaching: (context, id) => rollDetaching(parts, context, id),
    resetStatus: (context, id, status) => resetStatus(parts, context, id, status),
  }
}

async function withAttachments(db: Db, row: volumes.NamedVolumeRow): Promise<Volume> {
  return toVolume(row, (await attachments.ofVolume(db, row.id)).map(toAttachment))
}

async function withAllAttachments(db: Db, rows: readonly volumes.NamedVolumeRow[]): Promise<Volume[]> {
  const byVolume = new Map<string, Attachment[]>(rows.map(({ id }) => [id, []]))
  for (const row of await attachments.ofVolumes(db, [...byVolume.keys()])) {
    byVolume.get(row.volume_id)!.push(toAttachment(row))
  }
  return rows.map((row) => toVolume(row, byVolume.get(row.id)!))
}
