import * as attachments from '../../db/attachments.ts'
import * as backups from '../../db/backups.ts'
import type { Db } from '../../db/database.ts'
import * as groupSnapshots from '../../db/group-snapshots.ts'
import * as groups from '../../db/groups.ts'
import * as snapshots from '../../db/snapshots.ts'
import * as volumes from '../../db/volumes.ts'
import { followAttachments } from '../attached-status.ts'
import { leaveTarget, SWAPPED_FROM } from '../swapped-volumes.ts'
import {
  ATTACHMENT_OUTCOMES,
  BACKUP_OUTCOMES,
  GROUP_OUTCOMES,
  SNAPSHOT_OUTCOMES,
  VOLUME_ACTIONS,
  VOLUME_OUTCOMES,
} from '../volume-status.ts'
import type { WorkKindName, WorkUnit } from './kind.ts'

/** How every status ends that the abandoned work alone would have ended. */
interface End {
  updatedAt: string
  set: { status_reason: string }
}

type Abandon = (trx: Db, unit: WorkUnit, end: End) => Promise<unknown>

/**
 * Leaves what a unit worked on in a status that an administrator can act on, after neither the work nor its `giveUp` could be
 * written. Nothing is decided and nothing counted here, since just that may be what fails: charges and pending sizes stay as they
 * are, and go with the resource.
 */
export async function abandonResource(trx: Db, unit: WorkUnit, reason: string, updatedAt: string): Promise<void> {
  await ABANDON[unit.kind](trx, unit, { updatedAt, set: { status_reason: reason } })
}

/** By kind, so that a kind without an end does not compile. */
const ABANDON: Record<WorkKindName, Abandon> = {
  'volume-create': async (trx, { resourceId }, end) => {
    await volumes.compareAndSet(trx, resourceId, { ...VOLUME_OUTCOMES.createFailed, ...end })
    await volumes.compareAndSet(trx, resourceId, { ...VOLUME_OUTCOMES.fillFailed, ...end })
  },
  'volume-delete': async (trx, { resourceId }, end) => {
    await volumes.compareAndSet(trx, resourceId, { ...VOLUME_OUTCOMES.deleteFailed, ...end })
    await snapshots.restoreOfVolume(trx, resourceId, end.set.status_reason, end.updatedAt)
  },
  'volume-extend': (trx, { resourceId }, end) =>
    volumes.compareAndSet(trx, resourceId, { ...VOLUME_OUTCOMES.extendFailed, ...end }),
  'volume-retype': (trx, { resourceId }, end) =>
    volumes.compareAndSet(trx, resourceId, { from: [VOLUME_ACTIONS.retype.to], to: 'error', ...end }),
  'volume-migrate': (trx, { resourceId }, { updatedAt, set }) =>
    volumes.compareAndSet(trx, resourceId, {
      from: [VOLUME_ACTIONS.migrate.to, VOLUME_ACTIONS.retype.to],
      to: 'error',
      updatedAt,
      set: { ...set, migration_status: 'error' },
    }),
  'volume-swap': async (trx, { resourceId, params }, { updatedAt, set }) => {
    await leaveTarget(trx, String(params.targetId), set.status_reason, updatedAt)
    const ended = { ...set, migration_status: 'error' }
    await followAttachments(trx, resourceId, updatedAt, { from: SWAPPED_FROM, set: ended })
  },
  'volume-reencrypt': async (trx, { resourceId, params }, { updatedAt, set }) => {
    await volumes.lock(trx, resourceId)
    await leaveTarget(trx, String(params.targetId), set.status_reason, updatedAt)
    await volumes.update(trx, resourceId, { ...set, migration_status: 'error', updated_at: updatedAt })
    await volumes.compareAndSet(trx, resourceId, { from: [VOLUME_ACTIONS.retype.to], to: 'error', updatedAt, set })
  },
  'volume-revert': async (trx, { resourceId, params }, end) => {
    await volumes.compareAndSet(trx, resourceId, { ...VOLUME_OUTCOMES.revertFailed, ...end })
    await snapshots.compareAndSet(trx, String(params.snapshotId), { ...SNAPSHOT_OUTCOMES.reverted, ...end })
  },
  'volume-reimage': (trx, { resourceId }, end) =>
    volumes.compareAndSet(trx, resourceId, { ...VOLUME_OUTCOMES.fillFailed, ...end }),
  // The volume still names the image, so that a deletion finds the snapshot.
  'volume-upload': (trx, { params }, end) =>
    followAttachments(trx, String(params.volumeId), end.updatedAt, { from: [VOLUME_ACTIONS.upload.to], set: end.set }),
  'volume-manage': (trx, { resourceId }, end) =>
    volumes.compareAndSet(trx, resourceId, { ...VOLUME_OUTCOMES.manageFailed, ...end }),
  'snapshot-manage': (trx, { resourceId }, end) =>
    snapshots.compareAndSet(trx, resourceId, { ...SNAPSHOT_OUTCOMES.createFailed, ...end }),
  'group-create': async (trx, { resourceId }, end) => {
    await groups.compareAndSet(trx, resourceId, { ...GROUP_OUTCOMES.createFailed, ...end })
    for (const { id } of await volumes.ofGroup(trx, resourceId)) {
      await volumes.compareAndSet(trx, id, { ...VOLUME_OUTCOMES.createFailed, ...end })
    }
  },
  'group-delete': async (trx, { resourceId }, end) => {
    await groups.compareAndSet(trx, resourceId, { ...GROUP_OUTCOMES.deleteFailed, ...end })
    for (const { id } of await volumes.ofGroup(trx, resourceId)) {
      await volumes.compareAndSet(trx, id, { ...VOLUME_OUTCOMES.deleteFailed, ...end })
    }
  },
  'group-snapshot-create': (trx, { resourceId }, end) => endGroupSnapshot(trx, resourceId, end),
  'group-snapshot-delete': (trx, { resourceId }, end) => endGroupSnapshot(trx, resourceId, end),
  'snapshot-create': (trx, { resourceId }, end) =>
    snapshots.compareAndSet(trx, resourceId, { ...SNAPSHOT_OUTCOMES.createFailed, ...end }),
  'snapshot-delete': (trx, { resourceId }, end) =>
    snapshots.compareAndSet(trx, resourceId, { ...SNAPSHOT_OUTCOMES.deleteFailed, ...end }),
  'attachment-connect': async (trx, { resourceId, lane }, end) => {
    await attachments.compareAndSet(trx, resourceId, { ...ATTACHMENT_OUTCOMES.connectFailed, ...end })
    await followAttachments(trx, lane, end.updatedAt)
  },
  'attachment-disconnect': async (trx, { resourceId, lane }, end) => {
    await attachments.compareAndSet(trx, resourceId, { ...ATTACHMENT_OUTCOMES.disconnectFailed, ...end })
    await followAttachments(trx, lane, end.updatedAt)
  },
  'backup-create': async (trx, { resourceId }, end) => {
    const row = await backups.find(trx, resourceId)
    await backups.compareAndSet(trx, resourceId, { ...BACKUP_OUTCOMES.createFailed, ...end })
    if (row === undefined) return
    if (row.snapshot_id !== null) {
      await snapshots.compareAndSet(trx, row.snapshot_id, { ...SNAPSHOT_OUTCOMES.backedUp, ...end })
    } else
      await followAttachments(trx, row.volume_id, end.updatedAt, { from: [VOLUME_ACTIONS.backUp.to], set: end.set })
  },
  'backup-delete': (trx, { resourceId }, end) =>
    backups.compareAndSet(trx, resourceId, { ...BACKUP_OUTCOMES.deleteFailed, ...end }),
  'backup-restore': async (trx, { resourceId }, { updatedAt, set }) => {
    const row = await backups.find(trx, resourceId)
    const freed = { ...set, restore_volume_id: null }
    await backups.compareAndSet(trx, resourceId, { ...BACKUP_OUTCOMES.restoreEnded, updatedAt, set: freed })
    if (row?.restore_volume_id) {
      await volumes.compareAndSet(trx, row.restore_volume_id, { ...VOLUME_OUTCOMES.restoreFailed, updatedAt, set })
    }
  },
}

async function endGroupSnapshot(trx: Db, id: string, end: End): Promise<void> {
  const change = { from: ['creating', 'deleting'], to: 'error', ...end }
  await groupSnapshots.compareAndSet(trx, id, change)
  for (const snapshot of await snapshots.ofGroupSnapshot(trx, id))
    await snapshots.compareAndSet(trx, snapshot.id, change)
}
