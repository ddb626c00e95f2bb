import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import * as volumes from '../db/volumes.ts'
import type { AttachmentStatus, VolumeStatus } from './model.ts'
import { STATUSES_OF_ATTACHMENTS, statusOfAttachments } from './volume-status.ts'

/**
 * Lets the attachments decide the status of their volume, after one of them changed. A volume that something else
 * works on keeps its status; that work calls this with its own status in `from` when it ends.
 */
export async function followAttachments(
  trx: Db,
  volumeId: string,
  updatedAt: string,
  options: { from?: readonly VolumeStatus[]; set?: Readonly<Record<string, unknown>> } = {},
): Promise<void> {
  await volumes.lock(trx, volumeId)
  const rows = await attachments.ofVolume(trx, volumeId)
  const to = statusOfAttachments(rows.map((row) => row.status as AttachmentStatus))
  const { from = STATUSES_OF_ATTACHMENTS, set = {} } = options
  await volumes.compareAndSet(trx, volumeId, { from, to, updatedAt, set })
}
