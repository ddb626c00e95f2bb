import type { ConnectionInfo, Connector } from '../drivers/driver.ts'

/**
 * What the service layer hands out: rows of the database with their parts joined, in Cinder's words. Times are ISO 8601
 * in UTC with microseconds and without a zone, as Cinder prints them.
 */

export type VolumeStatus =
  | 'creating'
  | 'available'
  | 'reserved'
  | 'attaching'
  | 'in-use'
  | 'detaching'
  | 'maintenance'
  | 'deleting'
  | 'extending'
  | 'error'
  | 'error_deleting'
  | 'error_extending'
  | 'backing-up'
  | 'restoring-backup'
  | 'error_restoring'

export interface Volume {
  id: string
  projectId: string
  userId: string
  name: string | null
  description: string | null
  sizeGib: number
  status: VolumeStatus
  /** `host@backend#pool` once scheduled. */
  host: string | null
  availabilityZone: string
  volumeTypeId: string
  volumeTypeName: string
  snapshotId: string | null
  sourceVolid: string | null
  bootable: boolean
  multiattach: boolean
  metadata: Record<string, string>
  attachments: Attachment[]
  createdAt: string
  updatedAt: string | null
}

export type SnapshotStatus = 'creating' | 'available' | 'deleting' | 'error' | 'error_deleting' | 'backing-up'

export interface Snapshot {
  id: string
  projectId: string
  userId: string
  volumeId: string
  name: string | null
  description: string | null
  sizeGib: number
  status: SnapshotStatus
  progress: string
  metadata: Record<string, string>
  createdAt: string
  updatedAt: string | null
}

export type BackupStatus = 'creating' | 'available' | 'deleting' | 'restoring' | 'error' | 'error_deleting'

export interface Backup {
  id: string
  projectId: string
  userId: string
  volumeId: string
  snapshotId: string | null
  name: string | null
  description: string | null
  sizeGib: number
  status: BackupStatus
  failReason: string | null
  metadata: Record<string, string>
  availabilityZone: string | null
  container: string
  objectCount: number
  isIncremental: boolean
  hasDependentBackups: boolean
  /** When the volume held what the backup holds. */
  dataTimestamp: string
  createdAt: string
  updatedAt: string | null
}

export type AttachmentStatus =
  | 'reserved'
  | 'attaching'
  | 'attached'
  | 'detached'
  | 'error_attaching'
  | 'error_detaching'

export interface Attachment {
  id: string
  projectId: string
  volumeId: string
  instanceId: string | null
  /** Host of the connector, once there is one. */
  attachedHost: string | null
  mountpoint: string | null
  status: AttachmentStatus
  attachMode: 'rw' | 'ro' | null
  connector: Connector | null
  connectionInfo: ConnectionInfo | null
  attachedAt: string | null
  detachedAt: string | null
}

export interface VolumeType {
  id: string
  name: string
  description: string | null
  isPublic: boolean
  extraSpecs: Record<string, string>
  createdAt: string
  updatedAt: string | null
}

/** What a list asks for. The API has checked types, limits and names; the service knows which rows are visible. */
export interface ListQuery {
  limit: number
  offset: number
  marker: string | null
  /** Never empty; keys are those that the resource allows. */
  sort: readonly { key: string; direction: 'asc' | 'desc' }[]
  /** Equality by key; `metadata` filters by containing all given pairs. `name~` means "contains". */
  filters: Readonly<Record<string, string | number | boolean | Record<string, string>>>
  allProjects: boolean
}

export interface Page<T> {
  items: T[]
  /** Whether more rows follow the last item. */
  more: boolean
  /** How many rows match in all; counted only when asked for. */
  total?: number
}

export interface VolumeCreate {
  sizeGib: number | null
  name: string | null
  description: string | null
  /** Name or id; null asks for the default type. */
  volumeType: string | null
  snapshotId: string | null
  sourceVolid: string | null
  availabilityZone: string | null
  metadata: Record<string, string>
}

export interface SnapshotCreate {
  volumeId: string
  name: string | null
  description: string | null
  /** Snapshot a volume that is in use. */
  force: boolean
  metadata: Record<string, string>
}

export interface BackupCreate {
  volumeId: string
  /** Back up this snapshot of the volume instead of what it holds now. */
  snapshotId: string | null
  name: string | null
  description: string | null
  container: string | null
  availabilityZone: string | null
  incremental: boolean
  /** Back up a volume that is in use. */
  force: boolean
  metadata: Record<string, string>
}

/** What another cloud needs to know to take over a backup from the target. */
export interface BackupRecord {
  /** The kind of target. */
  service: string
  /** JSON in Base64. */
  url: string
}

export interface AttachmentCreate {
  volumeId: string
  instanceId: string | null
  connector: Connector | null
  /** Null leaves it to the connector's `mode`, and that to `rw`. */
  mode: 'rw' | 'ro' | null
}

export interface Limits {
  maxTotalVolumes: number
  maxTotalSnapshots: number
  maxTotalVolumeGigabytes: number
  maxTotalBackups: number
  maxTotalBackupGigabytes: number
  totalVolumesUsed: number
  totalSnapshotsUsed: number
  totalGigabytesUsed: number
  totalBackupsUsed: number
  totalBackupGigabytesUsed: number
}
