import type { AttachmentRow } from '../db/attachments.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import type { ServiceSettings } from './settings.ts'

/**
 * Keeps everybody but services, administrators too, from taking a volume from under a running guest (OSSA-2023-003). Upstream asks
 * Nova whether the guest has it; here an administrator who knows that it has not may let go of it with os-reset_status. Throws
 * ResourceConflict.
 *
 * @param ofVolume all attachments of the volume
 * @param attachmentId the one that shall go; null when the caller named none
 */
export function checkNotProtected(
  context: RequestContext,
  settings: ServiceSettings,
  ofVolume: readonly AttachmentRow[],
  attachmentId: string | null,
): void {
  if (!settings.protectInstances || context.isService) return
  const named = attachmentId === null ? ofVolume.filter(isTold) : ofVolume.filter(({ id }) => id === attachmentId)
  if (named.length === 0 && attachmentId === null) return
  const [only] = named.length === 1 ? named : []
  if (only !== undefined && !isConnectedByNova(only)) return
  throw new ServiceError('ResourceConflict', {
    reason: `ConflictNovaUsingAttachment: Detach volume from instance ${only?.instance_id ?? ''} using the Compute API`,
  })
}

/** Upstream has no attachment of what was only connected the old way. */
const isTold = ({ made_by_connection, status }: AttachmentRow) => !made_by_connection || status === 'attached'

/** Nova makes attachments; who goes the old way undoes what he did. */
const isConnectedByNova = ({ made_by_connection, instance_id, connection_info }: AttachmentRow) =>
  !made_by_connection && instance_id !== null && connection_info !== null
