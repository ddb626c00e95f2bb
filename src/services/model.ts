import type { ConnectionInfo, Connector } from '../drivers/driver.ts'
import type {
  AttachmentStatus,
  BackupStatus,
  GroupSnapshotStatus,
  GroupStatus,
  SnapshotStatus,
  VolumeStatus,
} from './statuses.ts'

/**
 * What the service layer hands out: rows of the database with their parts joined, in Cinder's words. Times are ISO 8601
 * in UTC with microseconds and without a zone, as Cinder prints them.
 */

export type { AttachmentStatus, BackupStatus, GroupSnapshotStatus, GroupStatus, SnapshotStatus, VolumeStatus }

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
  /** What the service itself noted, in keys that users see among the metadata: `readonly`, `attached_mode`. */
  adminMetadata: Record<string, string>
  /** Of the image that the volume was made from, or as somebody set it. */
  imageMetadata: Record<string, string>
  /** Null: it was never migrated. */
  migrationStatus: string | null
  /** What its backend calls it, when that is not its id. */
  nameId: string | null
  /** Whether it counts in quotas. */
  consumesQuota: boolean
  /** Null: it is not encrypted. */
  encryptionKeyId: string | null
  groupId: string | null
  /** The same, when the group is a consistency group. */
  consistencyGroupId: string | null
  attachments: Attachment[]
  createdAt: string
  updatedAt: string | null
}

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
  groupSnapshotId: string | null
  createdAt: string
  updatedAt: string | null
}

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
  /** Of an encrypted volume. */
  encryptionKeyId: string | null
  createdAt: string
  updatedAt: string | null
}

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

/** A volume that waits for somebody with the key to take it over. */
export interface VolumeTransfer {
  id: string
  volumeId: string
  name: string | null
  /** The snapshots stay with the project that gives the volume away. */
  noSnapshots: boolean
  sourceProjectId: string
  createdAt: string
}

/** Why work failed that an accepted request had asked for. */
export interface Message {
  id: string
  /** The request that asked for the work; null when that is not known. */
  requestId: string | null
  /** `VOLUME`, `VOLUME_SNAPSHOT` or `VOLUME_BACKUP`. */
  resourceType: string
  resourceId: string | null
  /** `VOLUME_VOLUME_001_003`: resource, action and detail. */
  eventId: string
  level: string
  text: string
  createdAt: string
  /** From then on it may be removed. */
  expiresAt: string
}

export interface VolumeType {
  id: string
  name: string
  description: string | null
  isPublic: boolean
  extraSpecs: Record<string, string>
  qosSpecsId: string | null
  createdAt: string
  updatedAt: string | null
}

export interface Group {
  id: string
  projectId: string
  userId: string
  name: string | null
  description: string | null
  status: GroupStatus
  /** `host@backend#pool` once scheduled. */
  host: string | null
  availabilityZone: string | null
  groupTypeId: string
  /** The types that its volumes may have. */
  volumeTypeIds: readonly string[]
  volumeIds: readonly string[]
  groupSnapshotId: string | null
  sourceGroupId: string | null
  /** Of the type that is kept for consistency groups. */
  isConsistencyGroup: boolean
  createdAt: string
  updatedAt: string | null
}

export interface GroupCreate {
  name: string | null
  description: string | null
  /** Name or id; null makes a consistency group. */
  groupType: string | null
  /** Names or ids. */
  volumeTypes: readonly string[]
  availabilityZone: string | null
}

/** One of the two sources. */
export interface GroupCopy {
  name: string | null
  description: string | null
  groupSnapshotId: string | null
  sourceGroupId: string | null
}

export interface GroupUpdate {
  name: string | null
  description: string | null
  addVolumes: readonly string[]
  removeVolumes: readonly string[]
}

export interface GroupSnapshot {
  id: string
  projectId: string
  userId: string
  groupId: string
  groupTypeId: string
  name: string | null
  description: string | null
  status: GroupSnapshotStatus
  isConsistencyGroup: boolean
  createdAt: string
  updatedAt: string | null
}

export interface GroupType {
  id: string
  name: string
  description: string | null
  isPublic: boolean
  groupSpecs: Record<string, string>
}

/** A volume or a snapshot that a backend has, in the backend's own names. */
export interface ManageableResource {
  name: string
  /** Of a snapshot, what the backend calls its volume. */
  sourceName: string | null
  sizeGib: number
  /** Of the volume or snapshot that it is already. */
  id: string | null
  /** Why it cannot be taken over; null when it can. */
  reason: string | null
}

export interface VolumeManage {
  /** `host@backend` or `host@backend#pool`; or a cluster. */
  host: string | null
  cluster: string | null
  /** What the backend calls it; null when the reference names nothing. */
  sourceName: string | null
  name: string | null
  description: string | null
  /** Name or id. */
  volumeType: string | null
  availabilityZone: string | null
  bootable: boolean
  metadata: Record<string, string>
}

export interface SnapshotManage {
  volumeId: string
  sourceName: string | null
  name: string | null
  description: string | null
  metadata: Record<string, string>
}

export interface TypeEncryption {
  id: string
  volumeTypeId: string
  provider: string
  controlLocation: 'front-end' | 'back-end'
  cipher: string | null
  /** Bits. */
  keySize: number | null
  createdAt: string
  updatedAt: string | null
}

/** What volumes of the types that have it are promised. */
export interface QosSpec {
  id: string
  name: string
  /** Who keeps the promise: the hypervisor, this service, or each. */
  consumer: 'front-end' | 'back-end' | 'both'
  specs: Record<string, string>
}

/** The type of a project's volumes that ask for none. */
export interface DefaultType {
  projectId: string
  volumeTypeId: string
}

/** One quota of a project; limit -1 is none. */
export interface QuotaUsage {
  limit: number
  used: number
}

/** What a list asks for. The API has checked types, limits and names; the service knows which rows are visible. */
export interface ListQuery {
  limit: number
  offset: number
  marker: string | null
  /** Never empty; keys are those that the resource allows. */
  sort: readonly { key: string; direction: 'asc' | 'desc' }[]
  /** Equality by key; `metadata` filters by containing all given pairs. `name~` means "contains"; null is for what has none. */
  filters: Readonly<Record<string, string | number | boolean | null | Record<string, string>>>
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
  /** The group that it is to be in. */
  groupId?: string | null
  /** Id or name of the image that it is to hold. */
  imageRef?: string | null
  /** Whether an image of Nova's that stands for a snapshot means that snapshot. */
  takesBootSnapshots?: boolean
  hints?: VolumeHints | null
}

/** Where a user wishes a new volume to be (`OS-SCH-HNT:scheduler_hints`); empty lists and nulls wish nothing. */
export interface VolumeHints {
  /** In the pool of one of these volumes. */
  sameHost: readonly string[]
  /** In no pool of these volumes. */
  differentHost: readonly string[]
  /** On the host of the instance. */
  localToInstance: string | null
  /** A list in the grammar of upstream's JSON filter, or the JSON text of one. */
  query: unknown
}

/** What os-reset_status writes besides the status; null or nothing leaves it. */
export interface StatusReset {
  attachStatus?: 'attached' | 'detached' | null
  /** `none` clears it. */
  migrationStatus?: string | null
}

export interface Retype {
  /** Name or id. */
  newType: string
  /** Whether the volume may go to another backend when its own does not suit the new type. */
  migrationPolicy: 'never' | 'on-demand'
}

/** A destination: one of the two. */
export interface Migration {
  /** `host@backend#pool` */
  host: string | null
  cluster: string | null
}

/** An image that is to be made of a volume. */
export interface VolumeUpload {
  imageName: string
  diskFormat: string
  containerFormat: string
  /** Null leaves them to the image service. */
  visibility: string | null
  isProtected: boolean | null
  /** Upload a volume that is in use. */
  force: boolean
}

/** What an upload begins with: the volume as it is then, and its image, which has no content yet. */
export interface StartedUpload {
  volume: Volume
  image: {
    id: string
    name: string | null
    diskFormat: string | null
    containerFormat: string | null
    visibility: string | null
    isProtected: boolean
  }
}

export interface OldAttach {
  instanceId: string | null
  hostName: string | null
  mountpoint: string
  mode: 'rw' | 'ro'
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

export interface VolumeTransferCreate {
  volumeId: string
  name: string | null
  noSnapshots: boolean
  /** Whether the caller knows that a volume whose type is encrypted may be given away. */
  allowEncrypted: boolean
}

export interface AttachmentCreate {
  volumeId: string
  instanceId: string | null
  connector: Connector | null
  /** Null leaves it to the connector's `mode`, and that to `rw`. */
  mode: 'rw' | 'ro' | null
}
