import type { AttachmentRow } from '../db/attachments.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import type { ServiceSettings } from './settings.ts'

/**
 * Keeps users from taking a volume from under a running guest (OSSA-2023-003). Upstream asks Nova whether the guest has
 * it; here an administrator may decide that instead. Throws ResourceConflict.
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
  if (!settings.protectInstances || context.isService || context.isAdmin) return
  const named = ofVolume.filter(({ id }) => attachmentId === null || id === attachmentId)
  if (named.length === 0) return
  const [only] = named.length === 1 ? named : []
  if (only !== undefined && (only.instance_id === null || only.connection_info === null)) return
  throw new ServiceError('ResourceConflict', {
    reason: `ConflictNovaUsingAttachment: Detach volume from instance ${only?.instance_id ?? ''} using the Compute API`,
  })
}
