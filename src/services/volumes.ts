import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import * as typeEncryptions from '../db/type-encryptions.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import { collectValues } from './metadata.ts'
import type { Attachment, Volume } from './model.ts'
import type { Parts } from './parts.ts'
import { toAttachment, toVolume } from './rows.ts'
import type { VolumeService } from './services.ts'
import { toListing, visibleVolume } from './visibility.ts'
import { beginDetaching, completeExtension, extendVolume, resetStatus, rollDetaching } from './volume-actions.ts'
import { createVolume } from './volume-create.ts'
import { deleteVolume, unmanageVolume } from './volume-delete.ts'
import { reimageVolume, uploadVolume } from './volume-images.ts'
import { completeMigration, migrateVolume } from './volume-migrate.ts'
import * as properties from './volume-properties.ts'
import { retypeVolume } from './volume-retype.ts'
import { revertVolume } from './volume-revert.ts'

export function createVolumeService(parts: Parts): VolumeService {
  const { db } = parts

  return {
    create: (context, request) => createVolume(parts, context, request),
    get: async (context, id) => {
      const found = await volumes.findAttached(db, id)
      const row = visibleVolume(context, id, found?.row)
      try {
        context.authorize('volume:get', { projectId: row.project_id })
      } catch (error) {
        if (!(error instanceof ServiceError && error.code === 'PolicyNotAuthorized')) throw error
        throw new ServiceError('VolumeNotFound', { volume_id: id }) // upstream does not even tell that it is there
      }
      return toVolume(row, (found?.attachments ?? []).map(toAttachment))
    },
    list: async (context, query, options) => {
      context.authorize('volume:get_all', { projectId: context.projectId })
      const { rows, ...page } = await volumes.list(db, toListing(context, query), {
        ...options,
        targets: context.isAdmin,
      })
      return { ...page, items: await withAllAttachments(db, rows) }
    },
    summary: async (context, query) => {
      context.authorize('volume:get_all', { projectId: context.projectId })
      const { metadata, ...sums } = await volumes.summarize(db, toListing(context, query))
      return { ...sums, metadata: collectValues(metadata) }
    },
    update: async (context, id, changes) =>
      withAttachments(db, await properties.updateVolume(parts, context, id, changes)),
    delete: (context, id, options) => deleteVolume(parts, context, id, options),
    extend: (context, id, newSizeGib, options = { inUse: true }) =>
      extendVolume(parts, context, id, newSizeGib, options),
    setMetadata: (context, id, metadata, options) => properties.setMetadata(parts, context, id, metadata, options),
    deleteMetadataKey: (context, id, key) => properties.deleteMetadataKey(parts, context, id, key),
    setImageMetadata: (context, id, metadata) => properties.setImageMetadata(parts, context, id, metadata),
    unsetImageMetadata: (context, id, key) => properties.unsetImageMetadata(parts, context, id, key),
    setBootable: (context, id, bootable) => properties.setBootable(parts, context, id, bootable),
    setReadonly: (context, id, readonly) => properties.setReadonly(parts, context, id, readonly),
    encryption: async (context, id) => {
      const row = visibleVolume(context, id, await volumes.find(db, id))
      context.authorize('volume_extension:volume_encryption_metadata', { projectId: row.project_id })
      const encryption = await typeEncryptions.ofType(db, row.volume_type_id)
      const { encryption_key_id } = row
      if (encryption === undefined) return { encryption_key_id }
      const { provider, cipher, key_size, control_location } = encryption
      return { encryption_key_id, provider, cipher, key_size, control_location }
    },
    unmanage: (context, id) => unmanageVolume(parts, context, id),
    revert: (context, id, snapshotId) => revertVolume(parts, context, id, snapshotId),
    retype: (context, id, request) => retypeVolume(parts, context, id, request),
    migrate: (context, id, request) => migrateVolume(parts, context, id, request),
    completeMigration: (context, id, request) => completeMigration(parts, context, id, request),
    completeExtension: (context, id) => completeExtension(parts, context, id),
    reimage: (context, id, request) => reimageVolume(parts, context, id, request),
    uploadImage: (context, id, request) => uploadVolume(parts, context, id, request),
    beginDetaching: (context, id) => beginDetaching(parts, context, id),
    rollDetaching: (context, id) => rollDetaching(parts, context, id),
    resetStatus: (context, id, status, others = {}) => resetStatus(parts, context, id, status, others),
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
