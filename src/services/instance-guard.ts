import type { AttachmentRow } from '../db/attachments.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import type { Parts } from './parts.ts'
import type { ServiceSettings } from './settings.ts'

/**
 * Keeps everybody but services, administrators too, from taking a volume from under a running guest (OSSA-2023-003). Throws
 * ResourceConflict.
 *
 * @param ofVolume all attachments of the volume
 * @param attachmentId the one that shall go; null when the caller named none
 * @param forgotten one that Nova does not know of
 */
export function checkNotProtected(
  context: RequestContext,
  settings: ServiceSettings,
  ofVolume: readonly AttachmentRow[],
  { attachmentId, forgotten }: { attachmentId: string | null; forgotten: string | null },
): void {
  if (!settings.protectInstances || context.isService) return
  const named = attachmentId === null ? ofVolume.filter(isTold) : ofVolume.filter(({ id }) => id === attachmentId)
  if (named.length === 0 && attachmentId === null) return
  const [only] = named.length === 1 ? named : []
  if (only !== undefined && (!isConnectedByNova(only) || only.id === forgotten)) return
  const reason = `ConflictNovaUsingAttachment: Detach volume from instance ${only?.instance_id ?? ''} using the Compute API`
  throw new ServiceError('ResourceConflict', { reason, ...(only && heldBy(only)) })
}

/**
 * Does what `checkNotProtected` may refuse. Then Nova is asked, where somebody may ask it: what it does not know of is left over from
 * a server that is gone, and is taken down in a second attempt. Without it an administrator lets go with os-reset_status.
 */
export async function unlessNovaHasIt<T>(
  { compute }: Parts,
  context: RequestContext,
  attempt: (forgotten: string | null) => Promise<T>,
): Promise<T> {
  try {
    return await attempt(null)
  } catch (error) {
    const held = error instanceof ServiceError && error.code === 'ResourceConflict' ? error.params : {}
    if (compute === null || held.attachment_id === undefined) throw error
    const { attachment_id: id, volume_id: volume, server } = held
    const known = await compute.attachmentOf(String(volume), String(server), context.requestId).catch((failure) => {
      // It is there, and does not tell.
      throw failure instanceof ServiceError && failure.code === 'ComputeRefused' ? error : failure
    })
    if (known === id) throw error
    return attempt(String(id))
  }
}

/** What Nova is asked about. */
const heldBy = ({ id, volume_id, instance_id }: AttachmentRow) => ({
  attachment_id: id,
  volume_id,
  server: instance_id ?? '',
})

/** Upstream has no attachment of what was only connected the old way. */
const isTold = ({ made_by_connection, status }: AttachmentRow) => !made_by_connection || status === 'attached'

/** Nova makes attachments; who goes the old way undoes what he did. */
const isConnectedByNova = ({ made_by_connection, instance_id, connection_info }: AttachmentRow) =>
  !made_by_connection && instance_id !== null && connection_info !== null
