import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import { mergeMetadata, removeMetadataKey } from './metadata.ts'
import type { Parts } from './parts.ts'
import { toPairs } from './rows.ts'
import { visibleVolume } from './visibility.ts'
import { mayIn, type VolumePermission } from './volume-status.ts'

/** What can be said about a volume without its backend: names, metadata of three kinds, flags. */

type Columns = Partial<Omit<volumes.VolumeRow, 'id' | 'status'>>

interface Change {
  rule: string
  permission: VolumePermission
  /** Why it is refused in a status without the permission. */
  refusal(row: volumes.VolumeRow): string
  columns(row: volumes.VolumeRow): Columns
  /** Throws when there is nothing to change, whatever the status. */
  check?(row: volumes.VolumeRow): void
}

/** Changes columns of a volume that the caller may change, in one transaction with reading them. */
async function change(
  { db, stamp }: Parts,
  context: RequestContext,
  id: string,
  { rule, permission, refusal, columns, check }: Change,
): Promise<volumes.NamedVolumeRow> {
  return db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    context.authorize(rule, { projectId: row.project_id })
    check?.(row)
    if (!mayIn(row.status, permission)) throw new ServiceError('InvalidVolume', { reason: refusal(row) })
    const changed = { ...columns(row), updated_at: stamp() }
    await volumes.update(trx, id, changed)
    return { ...row, ...changed }
  })
}

const inMaintenance = () => 'The volume cannot be updated during maintenance.'
const notChanged = ({ status }: volumes.VolumeRow) =>
  `Updating volume metadata is not allowed for volumes in ${status} status.`
const notRemoved = ({ status }: volumes.VolumeRow) =>
  `Deleting volume metadata is not allowed for volumes in ${status} status.`

export function updateVolume(
  parts: Parts,
  context: RequestContext,
  id: string,
  { metadata, ...names }: { name?: string | null; description?: string | null; metadata?: Record<string, string> },
): Promise<volumes.NamedVolumeRow> {
  return change(parts, context, id, {
    rule: 'volume:update',
    permission: 'update',
    refusal: inMaintenance,
    columns: () => (metadata === undefined ? names : { ...names, metadata: JSON.stringify(metadata) }),
  })
}

export async function setBootable(parts: Parts, context: RequestContext, id: string, bootable: boolean): Promise<void> {
  await change(parts, context, id, {
    rule: 'volume:update',
    permission: 'update',
    refusal: inMaintenance,
    columns: () => ({ bootable }),
  })
}

/** Attachments that are made while the flag is set can only read. */
export async function setReadonly(parts: Parts, context: RequestContext, id: string, readonly: boolean): Promise<void> {
  await change(parts, context, id, {
    rule: 'volume:update_readonly_flag',
    permission: 'updateReadonly',
    refusal: ({ status }) =>
      `Volume ${id} status must be available to update readonly flag, but current status is: ${status}.`,
    columns: (row) => ({
      admin_metadata: mergeMetadata(row.admin_metadata, { readonly: readonly ? 'True' : 'False' }, false),
    }),
  })
}

export async function setMetadata(
  parts: Parts,
  context: RequestContext,
  id: string,
  metadata: Record<string, string>,
  { replace }: { replace: boolean },
): Promise<Record<string, string>> {
  const row = await change(parts, context, id, {
    rule: replace ? 'volume:update_volume_metadata' : 'volume:create_volume_metadata',
    permission: 'updateMetadata',
    refusal: notChanged,
    columns: (old) => ({ metadata: mergeMetadata(old.metadata, metadata, replace) }),
  })
  return toPairs(row.metadata)
}

export async function deleteMetadataKey(parts: Parts, context: RequestContext, id: string, key: string): Promise<void> {
  await change(parts, context, id, {
    rule: 'volume:delete_volume_metadata',
    permission: 'updateMetadata',
    refusal: notRemoved,
    check: (old) => void removeMetadataKey(old.metadata, key, { owner: 'Volume', id }),
    columns: (old) => ({ metadata: removeMetadataKey(old.metadata, key, { owner: 'Volume', id }) }),
  })
}

export async function setImageMetadata(
  parts: Parts,
  context: RequestContext,
  id: string,
  metadata: Record<string, string>,
): Promise<Record<string, string>> {
  const row = await change(parts, context, id, {
    rule: 'volume_extension:volume_image_metadata:set',
    permission: 'updateMetadata',
    refusal: notChanged,
    columns: (old) => ({ image_metadata: mergeMetadata(old.image_metadata, metadata, false) }),
  })
  return toPairs(row.image_metadata)
}

export async function unsetImageMetadata(
  parts: Parts,
  context: RequestContext,
  id: string,
  key: string,
): Promise<void> {
  await change(parts, context, id, {
    rule: 'volume_extension:volume_image_metadata:remove',
    permission: 'updateMetadata',
    refusal: notRemoved,
    check: (old) => {
      if (!Object.hasOwn(toPairs(old.image_metadata), key)) throw new ServiceError('ImageMetadataNotFound', { id })
    },
    columns: (old) => ({ image_metadata: removeMetadataKey(old.image_metadata, key, { owner: 'Volume', id }) }),
  })
}
