import {
  type AttachmentStatus,
  type BackupStatus,
  GROUP_STATUSES,
  type GroupSnapshotStatus,
  type GroupStatus,
  NAMED_VOLUME_STATUSES,
  type SnapshotStatus,
  VOLUME_STATUSES,
  type VolumeStatus,
} from './statuses.ts'

/**
 * Which action is allowed in which status, and where it leads. Pure, and the only place that says so: services hand a
 * row of these tables to compareAndSet, which checks and writes in one statement.
 */
export interface Transition<Status extends string> {
  from: readonly Status[]
  to: Status
}

const REMOVABLE = ['available', 'error', 'error_restoring', 'error_extending', 'error_managing'] as const

/** What a request does to a volume: the statuses it may have, and the one it gets at once. */
export const VOLUME_ACTIONS = {
  delete: { from: REMOVABLE, to: 'deleting' },
  forceDelete: { from: VOLUME_STATUSES, to: 'deleting' },
  unmanage: { from: REMOVABLE, to: 'unmanaging' },
  extend: { from: ['available'], to: 'extending' },
  extendAttached: { from: ['in-use'], to: 'extending' },
  revert: { from: ['available'], to: 'reverting' },
  retype: { from: ['available', 'in-use'], to: 'retyping' },
  /** Together with a migration status that says that none goes on. */
  migrate: { from: ['available'], to: 'maintenance' },
  /** The same for one that the compute service moves: the guest goes on meanwhile. */
  migrateAttached: { from: ['in-use'], to: 'in-use' },
  reimage: { from: ['available', 'error'], to: 'downloading' },
  reimageReserved: { from: ['available', 'error', 'reserved'], to: 'downloading' },
  /** An attachment is made. */
  reserve: { from: ['available'], to: 'reserved' },
  reserveShared: { from: ['available', 'in-use'], to: 'reserved' },
  /** os-reserve of the old way to attach, which knows no attachments yet. */
  claim: { from: ['available'], to: 'attaching' },
  claimShared: { from: ['available', 'in-use'], to: 'attaching' },
  beginDetaching: { from: ['in-use'], to: 'detaching' },
  rollDetaching: { from: ['detaching'], to: 'in-use' },
  /** A transfer is made, called off or accepted. */
  offer: { from: ['available'], to: 'awaiting-transfer' },
  callOffOffer: { from: ['awaiting-transfer'], to: 'available' },
  acceptOffer: { from: ['awaiting-transfer'], to: 'available' },
  backUp: { from: ['available'], to: 'backing-up' },
  backUpForced: { from: ['available', 'in-use'], to: 'backing-up' },
  restoreBackup: { from: ['available'], to: 'restoring-backup' },
  upload: { from: ['available'], to: 'uploading' },
  uploadForced: { from: ['available', 'in-use'], to: 'uploading' },
} as const satisfies Record<string, Transition<VolumeStatus>>

/** Statuses in which the content of a volume is being made, replaced or taken down, so that nobody may connect to it. */
const UNFINISHED = [
  'creating',
  'managing',
  'downloading',
  'restoring-backup',
  'reverting',
  'deleting',
  'unmanaging',
] as const satisfies readonly VolumeStatus[]

const FAILED = [
  'error',
  'error_deleting',
  'error_managing',
  'error_restoring',
  'error_backing-up',
  'error_extending',
] as const satisfies readonly VolumeStatus[]

/** What a request may do in which status without changing it; what it does to the attachments may change it later. */
export const VOLUME_PERMISSIONS = {
  /** Name, description, user metadata and the bootable flag. */
  update: except('maintenance'),
  updateMetadata: except('maintenance', 'uploading'),
  updateReadonly: ['available'],
  snapshot: ['available'],
  snapshotForced: ['available', 'in-use'],
  /** Together with the others of its group; upstream looks at less, and fails later. */
  snapshotInGroup: except('maintenance', 'extending', ...FAILED, ...UNFINISHED),
  addToGroup: ['available', 'in-use'],
  removeFromGroup: ['available', 'in-use', 'error', 'error_deleting'],
  clone: ['available', 'in-use'],
  completeExtension: ['extending'],
  /** The instance that has the volume asks for it on another host. */
  reserveAgain: ['in-use', 'reserved'],
  /** An image is being written to it: it may be promised, and is reserved and connected once it is whole. */
  reserveAhead: ['downloading'],
  makeAttachment: except(...FAILED),
  /** An image is being written to one that downloads. */
  connect: except('downloading', ...FAILED),
  initializeConnection: except('maintenance', ...UNFINISHED),
  attach: ['available', 'reserved', 'attaching', 'in-use'],
  detach: except('maintenance'),
} as const satisfies Record<string, readonly VolumeStatus[]>

export type VolumePermission = keyof typeof VOLUME_PERMISSIONS

export function mayIn(status: string, permission: VolumePermission): boolean {
  return (VOLUME_PERMISSIONS[permission] as readonly string[]).includes(status)
}

function except(...statuses: readonly VolumeStatus[]): readonly VolumeStatus[] {
  return VOLUME_STATUSES.filter((status) => !statuses.includes(status))
}

/**
 * How work on a volume ends. An extension, a retype, a migration and a backup end where the attachments say: see
 * `statusOfAttachments`.
 */
export const VOLUME_OUTCOMES = {
  created: { from: ['creating'], to: 'available' },
  createFailed: { from: ['creating'], to: 'error' },
  /** Others keep away from it, while what another one holds is copied to it. */
  copying: { from: ['creating'], to: 'maintenance' },
  managed: { from: ['managing'], to: 'available' },
  manageFailed: { from: ['managing'], to: 'error_managing' },
  /** An image is written to it; then its attachments say what it is. */
  filling: { from: ['creating'], to: 'downloading' },
  fillFailed: { from: ['downloading'], to: 'error' },
  /** As upstream leaves it. */
  reimagedInError: { from: ['downloading'], to: 'error' },
  extendFailed: { from: ['extending'], to: 'error_extending' },
  reverted: { from: ['reverting'], to: 'available' },
  revertFailed: { from: ['reverting'], to: 'error' },
  deleteFailed: { from: ['deleting', 'unmanaging'], to: 'error_deleting' },
  deleteRefused: { from: ['deleting', 'unmanaging'], to: 'available' },
  restored: { from: ['restoring-backup'], to: 'available' },
  restoreFailed: { from: ['restoring-backup'], to: 'error_restoring' },
} as const satisfies Record<string, Transition<VolumeStatus>>

export const SNAPSHOT_ACTIONS = {
  delete: { from: ['available', 'error'], to: 'deleting' },
  unmanage: { from: ['available', 'error'], to: 'unmanaging' },
  backUp: { from: ['available'], to: 'backing-up' },
  /** Not one that is read: backed up, or reverted to. */
  deleteWithGroup: { from: ['available', 'error', 'deleting', 'error_deleting'], to: 'deleting' },
  deleteWithVolume: { from: ['available', 'error', 'deleting'], to: 'deleting' },
  revert: { from: ['available'], to: 'restoring' },
} as const satisfies Record<string, Transition<SnapshotStatus>>

/** What whoever makes or deletes a snapshot outside may say of it, by the status that it has. */
export const SNAPSHOT_REPORTS: Readonly<Partial<Record<SnapshotStatus, readonly SnapshotStatus[]>>> = {
  creating: ['creating', 'available', 'error'],
  deleting: ['deleting', 'error_deleting'],
}
/** Snapshots of which a volume can be made. */
export const RESTORABLE: readonly SnapshotStatus[] = ['available']
/** Snapshots that may change hands with their volume. */
export const MOVABLE: readonly SnapshotStatus[] = ['available']

export const SNAPSHOT_OUTCOMES = {
  created: { from: ['creating'], to: 'available' },
  createFailed: { from: ['creating'], to: 'error' },
  backedUp: { from: ['backing-up'], to: 'available' },
  deleteFailed: { from: ['deleting'], to: 'error_deleting' },
  deleteRefused: { from: ['deleting'], to: 'available' },
  /** Whether it succeeded or not: the snapshot was only read. */
  reverted: { from: ['restoring'], to: 'available' },
} as const satisfies Record<string, Transition<SnapshotStatus>>

/** What a snapshot is once nobody goes on with what its status tells of: one that was only read is whole. */
export function statusWithoutWork(status: SnapshotStatus): SnapshotStatus {
  if (status === 'error_deleting') return status
  return WHOLE.has(status) ? 'available' : 'error'
}

const WHOLE: ReadonlySet<SnapshotStatus> = new Set<SnapshotStatus>(['available', 'backing-up', 'restoring'])

export const GROUP_ACTIONS = {
  delete: { from: ['available', 'error'], to: 'deleting' },
  /** With its volumes, which upstream takes for a wish to be rid of it in any case. */
  deleteWithVolumes: { from: GROUP_STATUSES, to: 'deleting' },
} as const satisfies Record<string, Transition<GroupStatus>>

export const GROUP_OUTCOMES = {
  created: { from: ['creating'], to: 'available' },
  createFailed: { from: ['creating'], to: 'error' },
  deleteFailed: { from: ['deleting'], to: 'error_deleting' },
} as const satisfies Record<string, Transition<GroupStatus>>

export const GROUP_SNAPSHOT_ACTIONS = {
  delete: { from: ['available', 'error'], to: 'deleting' },
} as const satisfies Record<string, Transition<GroupSnapshotStatus>>

export const GROUP_SNAPSHOT_OUTCOMES = {
  created: { from: ['creating'], to: 'available' },
  createFailed: { from: ['creating'], to: 'error' },
  /** As upstream leaves it, so that it may be deleted again. */
  deleteFailed: { from: ['deleting'], to: 'error' },
} as const satisfies Record<string, Transition<GroupSnapshotStatus>>

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
  /** One that was completed before it had a connection. */
  connectCompleted: { from: ['attached'], to: 'attaching' },
  /** Also before there is a connection: upstream believes who says that it is done. */
  complete: { from: ['reserved', 'attaching', 'attached'], to: 'attached' },
  /** os-attach, which may come before there is a connection. */
  attach: { from: ['reserved', 'attaching'], to: 'attached' },
  /** os-terminate_connection: the connection goes, the attachment stays until os-detach. */
  disconnect: { from: ['attached'], to: 'attached' },
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

/**
 * Statuses that an administrator may write: all that have a name, but those of a deletion or a detachment that goes on,
 * and `in-use` only with attachments.
 */
export function canResetTo(status: string, hasAttachments: boolean): status is VolumeStatus {
  if (status === 'in-use') return hasAttachments
  return (NAMED_VOLUME_STATUSES as readonly string[]).includes(status) && !IN_PROGRESS.has(status)
}

const IN_PROGRESS: ReadonlySet<string> = new Set<VolumeStatus>(['deleting', 'error_deleting', 'detaching'])
