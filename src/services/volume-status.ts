import type { AttachmentStatus, BackupStatus, SnapshotStatus, VolumeStatus } from './model.ts'

/**
 * Which action is allowed in which status, and where it leads. Pure, and the only place that says so: services hand a
 * row of these tables to compareAndSet, which checks and writes in one statement.
 */
export interface Transition<Status extends string> {
  from: readonly Status[]
  to: Status
}

/** What a request does to a volume. */
export const VOLUME_ACTIONS = {
  delete: { from: ['available', 'error', 'error_extending', 'error_restoring'], to: 'deleting' },
  extend: { from: ['available'], to: 'extending' },
  extendAttached: { from: ['in-use'], to: 'extending' },
  reserve: { from: ['available'], to: 'reserved' },
  reserveShared: { from: ['available', 'in-use'], to: 'reserved' },
  beginDetaching: { from: ['in-use'], to: 'detaching' },
  rollDetaching: { from: ['detaching'], to: 'in-use' },
  backUp: { from: ['available'], to: 'backing-up' },
  backUpForced: { from: ['available', 'in-use'], to: 'backing-up' },
  restoreBackup: { from: ['available'], to: 'restoring-backup' },
} as const satisfies Record<string, Transition<VolumeStatus>>

/** How work on a volume ends. An extension or a backup ends where the attachments say: see `statusOfAttachments`. */
export const VOLUME_OUTCOMES = {
  created: { from: ['creating'], to: 'available' },
  createFailed: { from: ['creating'], to: 'error' },
  extendFailed: { from: ['extending'], to: 'error_extending' },
  deleteFailed: { from: ['deleting'], to: 'error_deleting' },
  deleteRefused: { from: ['deleting'], to: 'available' },
  restored: { from: ['restoring-backup'], to: 'available' },
  restoreFailed: { from: ['restoring-backup'], to: 'error_restoring' },
} as const satisfies Record<string, Transition<VolumeStatus>>

/** Statuses in which a volume can be read to make another object. */
export const SNAPSHOT_SOURCES: readonly VolumeStatus[] = ['available']
export const SNAPSHOT_SOURCES_FORCED: readonly VolumeStatus[] = [
  'available',
  'reserved',
  'attaching',
  'in-use',
  'detaching',
]
export const CLONE_SOURCES: readonly VolumeStatus[] = ['available', 'in-use']

export const SNAPSHOT_ACTIONS = {
  delete: { from: ['available', 'error'], to: 'deleting' },
  backUp: { from: ['available'], to: 'backing-up' },
  deleteWithVolume: { from: ['available', 'error', 'deleting'], to: 'deleting' },
} as const satisfies Record<string, Transition<SnapshotStatus>>

export const SNAPSHOT_OUTCOMES = {
  created: { from: ['creating'], to: 'available' },
  createFailed: { from: ['creating'], to: 'error' },
  backedUp: { from: ['backing-up'], to: 'available' },
  deleteFailed: { from: ['deleting'], to: 'error_deleting' },
  deleteRefused: { from: ['deleting'], to: 'available' },
} as const satisfies Record<string, Transition<SnapshotStatus>>

export const BACKUP_ACTIONS = {
  delete: { from: ['available', 'error'], to: 'deleting' },
  restore: { from: ['available'], to: 'restoring' },
} as const satisfies Record<string, Transition<BackupStatus>>

export const BACKUP_OUTCOMES = {
  created: { from: ['creating'], to: 'available' },
  createFailed: { from: ['creating'], to: 'error' },
  /** Restored or not, the backup is what it was. */
  restoreEnded: { from: ['restoring'], to: 'available' },
  deleteFailed: { from: ['deleting'], to: 'error_deleting' },
} as const satisfies Record<string, Transition<BackupStatus>>

export const ATTACHMENT_ACTIONS = {
  connect: { from: ['reserved', 'attaching', 'error_attaching'], to: 'attaching' },
  complete: { from: ['attaching', 'attached'], to: 'attached' },
} as const satisfies Record<string, Transition<AttachmentStatus>>

export const ATTACHMENT_OUTCOMES = {
  connected: { from: ['attaching'], to: 'attaching' },
  /** The export was taken back, and the attachment may be given another connector. */
  connectUndone: { from: ['attaching'], to: 'reserved' },
  connectFailed: { from: ['attaching'], to: 'error_attaching' },
  disconnectFailed: {
    from: ['reserved', 'attaching', 'attached', 'error_attaching', 'error_detaching'],
    to: 'error_detaching',
  },
} as const satisfies Record<string, Transition<AttachmentStatus>>

/** Statuses that only tell what the attachments are; in any other, something else decides. */
export const STATUSES_OF_ATTACHMENTS: readonly VolumeStatus[] = [
  'available',
  'reserved',
  'attaching',
  'in-use',
  'detaching',
]

/**
 * The status of a volume that nothing but its attachments decides. The most attached one counts. One that could not be
 * detached may still be written through, so it is in use; one that could not be attached was told to nobody.
 */
export function statusOfAttachments(statuses: readonly AttachmentStatus[]): VolumeStatus {
  if (statuses.includes('attached') || statuses.includes('error_detaching')) return 'in-use'
  if (statuses.includes('attaching')) return 'attaching'
  if (statuses.includes('reserved')) return 'reserved'
  return 'available'
}

/** Statuses that an administrator may write: all but those of a deletion or a detachment that goes on. */
export function canResetTo(status: string, hasAttachments: boolean): status is VolumeStatus {
  if (status === 'in-use') return hasAttachments
  return RESETTABLE.has(status)
}

const RESETTABLE: ReadonlySet<string> = new Set<VolumeStatus>([
  'creating',
  'available',
  'reserved',
  'attaching',
  'maintenance',
  'extending',
  'error',
  'error_extending',
  'backing-up',
  'restoring-backup',
  'error_restoring',
])
