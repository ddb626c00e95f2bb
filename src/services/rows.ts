import type { AttachmentRow } from '../db/attachments.ts'
import type { ListedBackupRow } from '../db/backups.ts'
import type { SnapshotRow } from '../db/snapshots.ts'
import type { VolumeTypeRow } from '../db/volume-types.ts'
import type { NamedVolumeRow, VolumeRow } from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import type {
  Attachment,
  AttachmentStatus,
  Backup,
  BackupStatus,
  Snapshot,
  SnapshotStatus,
  Volume,
  VolumeStatus,
  VolumeType,
} from './model.ts'

/** Rows of the database in the words of the model. The statuses are ours: nobody else writes the tables. */

export function toVolume(row: NamedVolumeRow, attachments: Attachment[]): Volume {
  return {
    id: row.id,
    projectId: row.project_id,
    userId: row.user_id,
    name: row.name,
    description: row.description,
    sizeGib: row.size_gib,
    status: row.status as VolumeStatus,
    host: row.host,
    availabilityZone: row.availability_zone,
    volumeTypeId: row.volume_type_id,
    volumeTypeName: row.volume_type_name,
    snapshotId: row.snapshot_id,
    sourceVolid: row.source_volid,
    bootable: Boolean(row.bootable),
    multiattach: Boolean(row.multiattach),
    metadata: toPairs(row.metadata),
    adminMetadata: toPairs(row.admin_metadata),
    imageMetadata: toPairs(row.image_metadata),
    migrationStatus: row.migration_status,
    nameId: row.name_id,
    consumesQuota: Boolean(row.consumes_quota),
    encryptionKeyId: row.encryption_key_id,
    groupId: row.group_id,
    consistencyGroupId: row.consistencygroup_id,
    attachments,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}

export function toSnapshot(row: SnapshotRow): Snapshot {
  return {
    id: row.id,
    projectId: row.project_id,
    userId: row.user_id,
    volumeId: row.volume_id,
    name: row.name,
    description: row.description,
    sizeGib: row.size_gib,
    status: row.status as SnapshotStatus,
    progress: row.progress,
    metadata: toPairs(row.metadata),
    groupSnapshotId: row.group_snapshot_id,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}

export function toBackup(row: ListedBackupRow): Backup {
  return {
    id: row.id,
    projectId: row.project_id,
    userId: row.user_id,
    volumeId: row.volume_id,
    snapshotId: row.snapshot_id,
    name: row.name,
    description: row.description,
    sizeGib: row.size_gib,
    status: row.status as BackupStatus,
    failReason: row.status_reason,
    metadata: toPairs(row.metadata),
    availabilityZone: row.availability_zone,
    container: row.container,
    objectCount: row.object_count,
    isIncremental: row.parent_id !== null,
    hasDependentBackups: row.dependents > 0,
    dataTimestamp: row.data_timestamp,
    encryptionKeyId: row.encryption_key_id,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}

export function toAttachment(row: AttachmentRow): Attachment {
  return {
    id: row.id,
    projectId: row.project_id,
    volumeId: row.volume_id,
    instanceId: row.instance_id,
    attachedHost: row.attached_host,
    mountpoint: row.mountpoint,
    status: row.status as AttachmentStatus,
    attachMode: row.attach_mode,
    connector: row.connector === null ? null : JSON.parse(row.connector),
    connectionInfo: row.connection_info === null ? null : JSON.parse(row.connection_info),
    attachedAt: row.attached_at,
    detachedAt: row.detached_at,
  }
}

export function toVolumeType(row: VolumeTypeRow, qosSpecsId: string | null = null): VolumeType {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    isPublic: Boolean(row.is_public),
    extraSpecs: toPairs(row.extra_specs),
    qosSpecsId,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}

export function toPairs(json: string): Record<string, string> {
  return json === '{}' ? {} : JSON.parse(json)
}

/** Where a volume is that was scheduled. */
export function hostOf(row: VolumeRow): string {
  if (row.host === null)
    throw new ServiceError('InvalidVolume', { reason: `Volume ${row.id} was never given a place.` })
  return row.host
}
