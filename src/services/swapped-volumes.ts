import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { dropVolume, endRetype } from './accounting.ts'
import { followAttachments } from './attached-status.ts'
import { nameOf } from './refs.ts'
import type { VolumeStatus } from './statuses.ts'
import { ATTACHMENT_ACTIONS, STATUSES_OF_ATTACHMENTS, VOLUME_ACTIONS, VOLUME_OUTCOMES } from './volume-status.ts'
import type { WorkKindName } from './work/kind.ts'

/**
 * A volume that is moved in use, or is copied to be encrypted in another way, and its target: a volume of its own until the compute
 * service has gone over to it, or it holds all that the volume does. Then the two exchange backends, names, keys and attachments, and
 * the target is what there is to delete. Whoever locks both locks the target last.
 */

/** The work whose units name a target. */
const SWAPS: readonly string[] = ['volume-swap', 'volume-reencrypt'] satisfies readonly WorkKindName[]

export interface Target {
  id: string
  /** Null: it is still to be found. */
  host: string | null
  availabilityZone: string
  multiattach: boolean
  /** Of one that is encrypted. */
  keyId: string | null
}

/** What the volume may be when its move ends, and its attachments say again what it is. */
export const SWAPPED_FROM: readonly VolumeStatus[] = [...STATUSES_OF_ATTACHMENTS, VOLUME_ACTIONS.retype.to]

export async function addTarget(
  trx: Db,
  { volume_type_name: _, ...row }: volumes.NamedVolumeRow,
  target: Target,
  createdAt: string,
): Promise<void> {
  const { attached_mode: __, ...admin } = JSON.parse(row.admin_metadata)
  await volumes.insert(trx, {
    ...row,
    id: target.id,
    name_id: null,
    consumes_quota: false,
    encryption_key_id: target.keyId,
    status: VOLUME_OUTCOMES.created.from[0],
    status_reason: null,
    migration_status: volumes.targetOf(row.id),
    host: target.host,
    availability_zone: target.availabilityZone,
    volume_type_id: row.pending_volume_type_id ?? row.volume_type_id,
    pending_volume_type_id: null,
    multiattach: target.multiattach,
    admin_metadata: JSON.stringify(admin),
    snapshot_id: null,
    source_volid: null,
    created_at: createdAt,
    updated_at: null,
  })
}

/** The volume is now what its target was, and the target what is left of the volume. Both are locked. */
export async function exchange(
  trx: Db,
  row: volumes.VolumeRow,
  target: volumes.VolumeRow,
  updatedAt: string,
): Promise<void> {
  const [left, made] = [await attachments.ofVolume(trx, row.id), await attachments.ofVolume(trx, target.id)]
  await nameServer(trx, left, made, updatedAt)
  await attachments.move(trx, idsOf(made), row.id, updatedAt)
  await attachments.move(trx, idsOf(left), target.id, updatedAt)
  await volumes.update(trx, row.id, { ...placeOf(target, row.id), updated_at: updatedAt })
  await volumes.update(trx, target.id, { ...placeOf(row, target.id), updated_at: updatedAt })
  await takeAway(trx, target, updatedAt)
  await endRetype(trx, row, updatedAt, { isDone: true })
  const set = { migration_status: 'completing' }
  await followAttachments(trx, row.id, updatedAt, { from: SWAPPED_FROM, set })
}

/** Nobody may attach the target any more, or complete its migration: it is being deleted. */
async function takeAway(trx: Db, target: volumes.VolumeRow, updatedAt: string): Promise<void> {
  const set = { migration_status: 'deleting' }
  const { to } = VOLUME_ACTIONS.forceDelete
  await volumes.compareAndSet(trx, target.id, { from: [target.status], to, updatedAt, set })
}

/** Why it failed, the volume says from then on when that was given up. */
export type SwapEnd = { migration_status: 'success'; status_reason: string | null } | { migration_status: 'error' }

/** The move is given up. Its target, if there is one yet, is nobody's any more. */
export async function giveUpSwap(
  trx: Db,
  { id, targetId }: { id: string; targetId: string },
  reason: string,
  updatedAt: string,
): Promise<void> {
  const row = await volumes.lock(trx, id)
  if (row !== undefined) await volumes.update(trx, id, { status_reason: reason, updated_at: updatedAt })
  const target = await volumes.lock(trx, targetId)
  if (target !== undefined) await takeAway(trx, target, updatedAt)
}

/** The move has ended, whichever way; the target is gone. */
export async function endSwap(
  trx: Db,
  { id, targetId }: { id: string; targetId: string },
  end: SwapEnd,
  updatedAt: string,
): Promise<void> {
  const row = await volumes.lock(trx, id)
  await attachments.removeOfVolume(trx, targetId)
  await dropVolume(trx, targetId)
  if (row !== undefined) await settle(trx, row, end, updatedAt)
}

/** As `endSwap`, when the target could not be deleted: it stays, for an administrator. */
export async function endSwapLeaving(
  trx: Db,
  { id, targetId }: { id: string; targetId: string },
  end: SwapEnd,
  reason: string,
  updatedAt: string,
): Promise<void> {
  const row = await volumes.lock(trx, id)
  await leaveTarget(trx, targetId, reason, updatedAt)
  if (row !== undefined) await settle(trx, row, end, updatedAt)
}

/** A type that it was to get on the way it has got already when it has moved. */
async function settle(trx: Db, row: volumes.VolumeRow, set: SwapEnd, updatedAt: string): Promise<void> {
  await endRetype(trx, row, updatedAt, { isDone: false })
  await followAttachments(trx, row.id, updatedAt, { from: SWAPPED_FROM, set })
}

/** The target stays, with whatever right to it there is, until an administrator deletes it. */
export async function leaveTarget(trx: Db, targetId: string, reason: string, updatedAt: string): Promise<void> {
  const target = await volumes.lock(trx, targetId)
  if (target === undefined) return
  const set = { migration_status: 'deleting', status_reason: reason }
  await volumes.compareAndSet(trx, targetId, { from: [target.status], to: 'error', updatedAt, set })
}

/** Drops the move of a volume, whose row the caller has locked. Answers whether there was one. */
export async function breakOffSwap(trx: Db, id: string, updatedAt: string): Promise<boolean> {
  const unit = await workRows.findByResource(trx, id)
  if (unit === undefined || !SWAPS.includes(unit.kind)) return false
  await leaveTarget(trx, JSON.parse(unit.params).targetId, `The migration of volume ${id} was broken off.`, updatedAt)
  await workRows.removeOfResource(trx, id)
  return true
}

/** Where the other one is, its name there, and what opens it. */
function placeOf(other: volumes.VolumeRow, id: string) {
  const name = nameOf(other)
  return {
    host: other.host,
    availability_zone: other.availability_zone,
    name_id: name === id ? null : name,
    encryption_key_id: other.encryption_key_id,
  }
}

/** Before there were attachments a connection named no server; the one that it takes the place of does. */
async function nameServer(
  trx: Db,
  left: readonly attachments.AttachmentRow[],
  made: readonly attachments.AttachmentRow[],
  updatedAt: string,
): Promise<void> {
  const nameless = made.filter(({ instance_id, connection_info }) => instance_id === null && connection_info !== null)
  const before = left.find(({ instance_id }) => instance_id !== null)
  const [connection] = nameless
  if (connection === undefined || before === undefined || made.length > 1) return
  const { instance_id, mountpoint, attached_host } = before
  const set = { instance_id, mountpoint, attached_host: connection.attached_host ?? attached_host }
  await attachments.compareAndSet(trx, connection.id, { ...ATTACHMENT_ACTIONS.attach, updatedAt, set })
}

const idsOf = (rows: readonly attachments.AttachmentRow[]) => rows.map(({ id }) => id)
