import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import * as volumes from '../db/volumes.ts'
import { toPairs } from './rows.ts'
import type { AttachmentStatus, VolumeStatus } from './statuses.ts'
import { STATUSES_OF_ATTACHMENTS, statusOfAttachments } from './volume-status.ts'

interface FollowOptions {
  from?: readonly VolumeStatus[]
  /** Columns to write with the status. */
  set?: Readonly<Record<string, unknown>>
}

/**
 * Lets the attachments decide the status of their volume, after one of them changed. A volume that something else
 * works on keeps its status; that work calls this with its own status in `from` when it ends.
 */
export async function followAttachments(
  trx: Db,
  volumeId: string,
  updatedAt: string,
  options: FollowOptions = {},
): Promise<void> {
  await volumes.hold(trx, volumeId)
  await follow(trx, volumeId, updatedAt, options)
}

/** As `followAttachments`, of a volume that is locked already. */
async function follow(trx: Db, volumeId: string, updatedAt: string, { from, set = {} }: FollowOptions): Promise<void> {
  const rows = await attachments.ofVolume(trx, volumeId)
  const to = statusOfAttachments(rows.map((row) => row.status as AttachmentStatus))
  // While the compute service moves it, its attachments come and go.
  const where = from === undefined ? { where: volumes.notLeaving } : {}
  await volumes.compareAndSet(trx, volumeId, { from: from ?? STATUSES_OF_ATTACHMENTS, to, updatedAt, set, ...where })
}

/** Removes an attachment that has no export, and lets the others decide. */
export async function dropAttachment(
  trx: Db,
  attachment: { id: string; volume_id: string },
  updatedAt: string,
): Promise<void> {
  await attachments.remove(trx, attachment.id)
  const volume = await volumes.lock(trx, attachment.volume_id)
  if (volume !== undefined) await forgetAttachedMode(trx, volume, updatedAt)
  await follow(trx, attachment.volume_id, updatedAt, {})
}

/** os-attach notes its mode among the metadata; it goes with the attachment, whichever way that ends. */
async function forgetAttachedMode(trx: Db, volume: volumes.VolumeRow, updatedAt: string): Promise<void> {
  const { attached_mode: mode, ...others } = toPairs(volume.admin_metadata)
  if (mode === undefined) return
  await volumes.update(trx, volume.id, { admin_metadata: JSON.stringify(others), updated_at: updatedAt })
}
