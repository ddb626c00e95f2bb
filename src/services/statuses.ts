/**
 * Every status that a volume, a snapshot or an attachment can have, in Cinder's words. What may happen in which of them
 * stands in volume-status.ts.
 */

/** Those that upstream names in its field, and so those that os-reset_status knows. */
export const NAMED_VOLUME_STATUSES = [
  'creating',
  'available',
  'deleting',
  'error',
  'error_deleting',
  'error_managing',
  'managing',
  'attaching',
  'in-use',
  'detaching',
  'maintenance',
  'restoring-backup',
  'error_restoring',
  'reserved',
  'awaiting-transfer',
  'backing-up',
  'error_backing-up',
  'error_extending',
  'downloading',
  'uploading',
  'retyping',
  'extending',
] as const

/** With two that a volume only passes through. */
export const VOLUME_STATUSES = [...NAMED_VOLUME_STATUSES, 'reverting', 'unmanaging'] as const

export type VolumeStatus = (typeof VOLUME_STATUSES)[number]

/** All of upstream's, since an administrator may write any; work here leads to none of `deleted`, `updating`. */
export const SNAPSHOT_STATUSES = [
  'error',
  'available',
  'creating',
  'deleting',
  'deleted',
  'updating',
  'error_deleting',
  'unmanaging',
  'backing-up',
  'restoring',
] as const

export type SnapshotStatus = (typeof SNAPSHOT_STATUSES)[number]

export const ATTACHMENT_STATUSES = [
  'reserved',
  'attaching',
  'attached',
  'detached',
  'error_attaching',
  'error_detaching',
] as const

export type AttachmentStatus = (typeof ATTACHMENT_STATUSES)[number]

/** All of upstream's, since an administrator may write any but `in-use`. */
export const GROUP_STATUSES = [
  'error',
  'available',
  'creating',
  'deleting',
  'deleted',
  'updating',
  'in-use',
  'error_deleting',
] as const

export type GroupStatus = (typeof GROUP_STATUSES)[number]

export const GROUP_SNAPSHOT_STATUSES = [
  'error',
  'available',
  'creating',
  'deleting',
  'deleted',
  'updating',
  'error_deleting',
] as const

export type GroupSnapshotStatus = (typeof GROUP_SNAPSHOT_STATUSES)[number]

/** What os-reset_status may write; null in the database stands for `none`. */
export const MIGRATION_STATUSES = ['migrating', 'error', 'success', 'completing', 'none', 'starting'] as const

export const BACKUP_STATUSES = ['creating', 'available', 'deleting', 'restoring', 'error', 'error_deleting'] as const

export type BackupStatus = (typeof BACKUP_STATUSES)[number]
