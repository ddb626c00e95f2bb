import type { ConnectionInfo, Connector } from '../drivers/driver.ts'
import type { Capability } from '../scheduler/extra-specs.ts'
import type { RequestContext } from './context.ts'
import type { Key } from './keys/key-manager.ts'
import type {
  Attachment,
  AttachmentCreate,
  Backup,
  BackupCreate,
  BackupRecord,
  DefaultType,
  Group,
  GroupCopy,
  GroupCreate,
  GroupSnapshot,
  GroupSnapshotStatus,
  GroupStatus,
  GroupType,
  GroupUpdate,
  ListQuery,
  ManageableResource,
  Message,
  Migration,
  OldAttach,
  Page,
  QosSpec,
  QuotaUsage,
  Retype,
  Snapshot,
  SnapshotCreate,
  SnapshotManage,
  SnapshotStatus,
  StartedUpload,
  StatusReset,
  TypeEncryption,
  Volume,
  VolumeCreate,
  VolumeManage,
  VolumeTransfer,
  VolumeTransferCreate,
  VolumeType,
  VolumeUpload,
} from './model.ts'
import type { QuotaName } from './quota.ts'

/**
 * What the doors (Cinder, later EC2) may ask of the service. Every method checks that the caller may see the object (else
 * …NotFound, whoever owns it) and then `context.authorize`s its rule; nothing here knows HTTP.
 *
 * Methods that answer "accepted" (create, delete, extend) return as soon as the row and its unit of work are committed; the
 * work goes on by itself and survives the process.
 */
export interface Services {
  volumes: VolumeService
  snapshots: SnapshotService
  attachments: AttachmentService
  connections: ConnectionService
  transfers: VolumeTransferService
  types: TypeService
  backups: BackupService
  typeEncryption: TypeEncryptionService
  qosSpecs: QosSpecService
  defaultTypes: DefaultTypeService
  quotas: QuotaService
  backends: BackendService
  messages: MessageService
  groups: GroupService
  groupSnapshots: GroupSnapshotService
  groupTypes: GroupTypeService
  manageable: ManageService
  keys: KeyService
}

export interface VolumeService {
  create(context: RequestContext, request: VolumeCreate): Promise<Volume>
  get(context: RequestContext, id: string): Promise<Volume>
  list(context: RequestContext, query: ListQuery, options: { count: boolean }): Promise<Page<Volume>>
  summary(
    context: RequestContext,
    query: ListQuery,
  ): Promise<{ count: number; sizeGib: number; metadata: Record<string, string[]> }>
  update(
    context: RequestContext,
    id: string,
    changes: { name?: string | null; description?: string | null; metadata?: Record<string, string> },
  ): Promise<Volume>
  /** `cascade` deletes the snapshots too; `force` (admin) skips the check of the status. */
  delete(context: RequestContext, id: string, options: { cascade: boolean; force: boolean }): Promise<void>
  /** `inUse: false` refuses one that is in use. */
  extend(context: RequestContext, id: string, newSizeGib: number, options?: { inUse: boolean }): Promise<void>
  setMetadata(
    context: RequestContext,
    id: string,
    metadata: Record<string, string>,
    options: { replace: boolean },
  ): Promise<Record<string, string>>
  deleteMetadataKey(context: RequestContext, id: string, key: string): Promise<void>
  /** in-use → detaching, told by Nova before it detaches. */
  beginDetaching(context: RequestContext, id: string): Promise<void>
  rollDetaching(context: RequestContext, id: string): Promise<void>
  /**
   * Admin: writes statuses without asking the backend, but for `attachStatus: 'detached'`, which takes all attachments
   * with their exports away. Null leaves the status as it is.
   */
  resetStatus(context: RequestContext, id: string, status: string | null, others?: StatusReset): Promise<void>
  setBootable(context: RequestContext, id: string, bootable: boolean): Promise<void>
  setReadonly(context: RequestContext, id: string, readonly: boolean): Promise<void>
  /** Adds to the metadata of the image that the volume is made from; answers all of it. */
  setImageMetadata(
    context: RequestContext,
    id: string,
    metadata: Record<string, string>,
  ): Promise<Record<string, string>>
  unsetImageMetadata(context: RequestContext, id: string, key: string): Promise<void>
  /** How the volume is encrypted, in the keys of the API. */
  encryption(context: RequestContext, id: string): Promise<Record<string, string | number | null>>
  /** Admin: forgets the volume and leaves what the backend has of it. */
  unmanage(context: RequestContext, id: string): Promise<void>
  /** Back to the latest snapshot, which has to be named. */
  revert(context: RequestContext, id: string, snapshotId: string | null): Promise<void>
  retype(context: RequestContext, id: string, request: Retype): Promise<void>
  migrate(context: RequestContext, id: string, request: Migration): Promise<void>
  /** Answers the id under which the volume goes on. */
  completeMigration(
    context: RequestContext,
    id: string,
    request: { newVolumeId: string; failed: boolean },
  ): Promise<string>
  /** For backends that need the compute host's help to extend; no driver here does. */
  completeExtension(context: RequestContext, id: string): Promise<void>
  reimage(context: RequestContext, id: string, request: { imageId: string; reserved: boolean }): Promise<void>
  uploadImage(context: RequestContext, id: string, request: VolumeUpload): Promise<StartedUpload>
}

/**
 * Attaching as it was before there were attachments: claim the volume, get a connection, tell that it is attached. Each
 * connection is an attachment all the same.
 */
export interface ConnectionService {
  reserve(context: RequestContext, volumeId: string): Promise<void>
  unreserve(context: RequestContext, volumeId: string): Promise<void>
  /** Makes an export for the connector, or answers the one that it has. */
  initialize(context: RequestContext, volumeId: string, connector: Connector): Promise<ConnectionInfo>
  /** Cuts off the connection of the connector; all of them without one. */
  terminate(context: RequestContext, volumeId: string, connector: Connector | null): Promise<void>
  attach(context: RequestContext, volumeId: string, request: OldAttach): Promise<void>
  /** Without an id: the only attachment. */
  detach(context: RequestContext, volumeId: string, attachmentId: string | null): Promise<void>
  /** Admin: both of the above, whatever has become of the host. */
  forceDetach(
    context: RequestContext,
    volumeId: string,
    request: { attachmentId: string | null; connector: Connector | null },
  ): Promise<void>
}

export interface SnapshotService {
  create(context: RequestContext, request: SnapshotCreate): Promise<Snapshot>
  get(context: RequestContext, id: string): Promise<Snapshot>
  list(context: RequestContext, query: ListQuery, options: { count: boolean }): Promise<Page<Snapshot>>
  update(
    context: RequestContext,
    id: string,
    changes: { name?: string | null; description?: string | null },
  ): Promise<Snapshot>
  /** `force` (admin) skips the check of the status. */
  delete(context: RequestContext, id: string, options?: { force: boolean }): Promise<void>
  setMetadata(
    context: RequestContext,
    id: string,
    metadata: Record<string, string>,
    options: { replace: boolean },
  ): Promise<Record<string, string>>
  deleteMetadataKey(context: RequestContext, id: string, key: string): Promise<void>
  /** Admin: writes the status without asking the backend. */
  resetStatus(context: RequestContext, id: string, status: SnapshotStatus): Promise<void>
  /** How far a snapshot is that somebody else makes or deletes: Nova, for backends that are files. */
  updateStatus(context: RequestContext, id: string, change: { status: string; progress: string | null }): Promise<void>
  /** Admin: forgets the snapshot; the backend keeps it. */
  unmanage(context: RequestContext, id: string): Promise<void>
}

/** Groups of volumes; `generic` leaves consistency groups out, which the old API alone works on. */
export interface GroupService {
  create(context: RequestContext, request: GroupCreate): Promise<Group>
  /** With copies of the volumes of another group, all of one moment, or of a snapshot of one. */
  createCopy(context: RequestContext, request: GroupCopy): Promise<Group>
  get(context: RequestContext, id: string): Promise<Group>
  list(context: RequestContext, query: ListQuery, scope: 'generic' | 'all'): Promise<Page<Group>>
  update(context: RequestContext, id: string, request: GroupUpdate): Promise<void>
  /** `withVolumes` deletes its volumes too; otherwise it must have none. */
  delete(context: RequestContext, id: string, options: { withVolumes: boolean }): Promise<void>
  /** Admin: writes the status without asking the backend. */
  resetStatus(context: RequestContext, id: string, status: GroupStatus): Promise<void>
  /** Always refused, as the three that follow: nothing here is replicated to another backend. */
  enableReplication(context: RequestContext, id: string): Promise<never>
  disableReplication(context: RequestContext, id: string): Promise<never>
  failOverReplication(context: RequestContext, id: string): Promise<never>
  replicationTargets(context: RequestContext, id: string): Promise<never>
}

/** Snapshots of all volumes of a group at one moment. */
export interface GroupSnapshotService {
  create(
    context: RequestContext,
    request: { groupId: string; name: string | null; description: string | null },
  ): Promise<GroupSnapshot>
  get(context: RequestContext, id: string): Promise<GroupSnapshot>
  list(context: RequestContext, query: ListQuery, scope: 'generic' | 'all'): Promise<Page<GroupSnapshot>>
  delete(context: RequestContext, id: string): Promise<void>
  /** Admin: writes the status without asking the backend. */
  resetStatus(context: RequestContext, id: string, status: GroupSnapshotStatus): Promise<void>
}

export interface GroupTypeService {
  /** Only administrators see private types. */
  list(context: RequestContext, query: ListQuery, scope: 'public' | 'private' | 'all'): Promise<Page<GroupType>>
  get(context: RequestContext, id: string): Promise<GroupType>
  /** The one that the settings name. */
  getDefault(context: RequestContext): Promise<GroupType>
  create(
    context: RequestContext,
    request: { name: string; description: string | null; isPublic: boolean; groupSpecs: Record<string, string> },
  ): Promise<GroupType>
  update(
    context: RequestContext,
    id: string,
    changes: { name?: string; description?: string; isPublic?: boolean },
  ): Promise<GroupType>
  /** Refused while a group has the type. */
  delete(context: RequestContext, id: string): Promise<void>
  specs(context: RequestContext, id: string): Promise<Record<string, string>>
  spec(context: RequestContext, id: string, key: string): Promise<string>
  addSpecs(context: RequestContext, id: string, specs: Readonly<Record<string, string>>): Promise<void>
  setSpec(context: RequestContext, id: string, key: string, value: string): Promise<void>
  removeSpec(context: RequestContext, id: string, key: string): Promise<void>
}

/** For administrators: what backends hold that no volume is, and taking it over. */
export interface ManageService {
  /** All that a backend holds, in no order; throws ServiceNotFound for a host that there is not. */
  listVolumes(context: RequestContext, at: BackendName): Promise<ManageableResource[]>
  listSnapshots(context: RequestContext, at: BackendName): Promise<ManageableResource[]>
  manageVolume(context: RequestContext, request: VolumeManage): Promise<Volume>
  manageSnapshot(context: RequestContext, request: SnapshotManage): Promise<Snapshot>
}

/** One of the two: `host@backend`, or a cluster, of which there are none. */
export interface BackendName {
  host: string | null
  cluster: string | null
}

export interface AttachmentService {
  /** Reserves the volume; with a connector also makes the export and fills `connectionInfo`. */
  create(context: RequestContext, request: AttachmentCreate): Promise<Attachment>
  get(context: RequestContext, id: string): Promise<Attachment>
  list(context: RequestContext, query: ListQuery, options: { count: boolean }): Promise<Page<Attachment>>
  /** Gives a reserved attachment its connector: makes the export, volume becomes `attaching`. */
  update(
    context: RequestContext,
    id: string,
    connector: NonNullable<AttachmentCreate['connector']>,
  ): Promise<Attachment>
  /** The initiator is connected: attachment `attached`, volume `in-use`. */
  complete(context: RequestContext, id: string): Promise<void>
  /** Cuts the export off and removes the row; returns what is left on the volume. */
  delete(context: RequestContext, id: string): Promise<Attachment[]>
}

/** Volumes change their project: one offers, and whoever is told the key accepts. */
export interface VolumeTransferService {
  /** The key is told this once. Snapshots go with the volume unless the request says otherwise. */
  create(context: RequestContext, request: VolumeTransferCreate): Promise<VolumeTransfer & { authKey: string }>
  get(context: RequestContext, id: string): Promise<VolumeTransfer>
  /** Of volumes that the project has. */
  list(context: RequestContext, query: ListQuery): Promise<Page<VolumeTransfer>>
  /** The volume is available again. */
  delete(context: RequestContext, id: string): Promise<void>
  /** Throws InvalidAuthKey, and QuotaExceeded when the caller's project has no room. */
  accept(context: RequestContext, id: string, authKey: string): Promise<VolumeTransfer>
}

export interface MessageService {
  get(context: RequestContext, id: string): Promise<Message>
  list(context: RequestContext, query: ListQuery): Promise<Page<Message>>
  delete(context: RequestContext, id: string): Promise<void>
}

export interface BackupService {
  create(context: RequestContext, request: BackupCreate): Promise<Backup>
  get(context: RequestContext, id: string): Promise<Backup>
  list(context: RequestContext, query: ListQuery, options: { count: boolean }): Promise<Page<Backup>>
  update(
    context: RequestContext,
    id: string,
    changes: { name?: string | null; description?: string | null; metadata?: Record<string, string> },
  ): Promise<Backup>
  /** Refused while incremental backups are based on it. `force` (admin) skips the check of the status. */
  delete(context: RequestContext, id: string, options: { force: boolean }): Promise<void>
  /** To a volume that is available and large enough, or to a new one of the backup's size. */
  restore(
    context: RequestContext,
    id: string,
    to: { volumeId: string | null; name: string | null },
  ): Promise<{ volumeId: string; volumeName: string | null }>
  /** A new volume that holds what the backup holds; as large as that when the request names no size. */
  createVolume(context: RequestContext, id: string, request: VolumeCreate): Promise<Volume>
  /** Admin: ends what goes on with it. */
  resetStatus(context: RequestContext, id: string, status: 'available' | 'error'): Promise<void>
  exportRecord(context: RequestContext, id: string): Promise<BackupRecord>
  importRecord(context: RequestContext, record: BackupRecord): Promise<Backup>
}

export interface TypeService {
  /** `public` has private types with access for the caller's project too. Only administrators see others. */
  list(context: RequestContext, query: ListQuery, scope: 'public' | 'private' | 'all'): Promise<Page<VolumeType>>
  get(context: RequestContext, id: string): Promise<VolumeType>
  /** What a volume of the caller's project gets that asks for no type. */
  getDefault(context: RequestContext): Promise<VolumeType>
  create(
    context: RequestContext,
    request: { name: string; description: string | null; isPublic: boolean; extraSpecs: Record<string, string> },
  ): Promise<VolumeType>
  update(
    context: RequestContext,
    id: string,
    changes: { name?: string; description?: string; isPublic?: boolean },
  ): Promise<VolumeType>
  /** Refused while a volume has the type, or volumes that ask for none get it. */
  delete(context: RequestContext, id: string): Promise<void>
  /** Writes extra specs beside the old ones. Like every change of them, only while no volume has the type. */
  addSpecs(context: RequestContext, id: string, specs: Readonly<Record<string, string>>): Promise<void>
  setSpec(context: RequestContext, id: string, key: string, value: string): Promise<void>
  removeSpec(context: RequestContext, id: string, key: string): Promise<void>
  /** Lets a project use a private type. */
  addAccess(context: RequestContext, id: string, projectId: string): Promise<void>
  removeAccess(context: RequestContext, id: string, projectId: string): Promise<void>
  /** Ids of the projects that may use a private type. */
  listAccess(context: RequestContext, id: string): Promise<string[]>
}

/** How volumes of a type are to be encrypted. Changes only while no volume has the type. */
export interface TypeEncryptionService {
  /** Null when they are not. */
  get(context: RequestContext, typeId: string): Promise<TypeEncryption | null>
  create(context: RequestContext, typeId: string, request: EncryptionRequest): Promise<TypeEncryption>
  update(context: RequestContext, typeId: string, changes: Partial<EncryptionRequest>): Promise<void>
  delete(context: RequestContext, typeId: string): Promise<void>
}

/** Keys of encrypted volumes that are kept here. Throws KeyNotFound for those of other projects. */
export interface KeyService {
  get(context: RequestContext, id: string): Promise<KeyMetadata>
  payload(context: RequestContext, id: string): Promise<Key>
  /** Of an image that is no more; refused while a volume or a backup needs it. */
  delete(context: RequestContext, id: string): Promise<void>
}

export interface KeyMetadata {
  id: string
  algorithm: string
  bitLength: number
  /** Who asked for what it opens. */
  userId: string
  createdAt: string
}

export type EncryptionRequest = Pick<TypeEncryption, 'provider' | 'controlLocation' | 'cipher' | 'keySize'>

/** For administrators: promises about the speed of volumes, and the types that have them. */
export interface QosSpecService {
  create(context: RequestContext, request: Omit<QosSpec, 'id'>): Promise<QosSpec>
  get(context: RequestContext, id: string): Promise<QosSpec>
  list(context: RequestContext, query: ListQuery): Promise<Page<QosSpec>>
  /** A consumer of null stays what it is. */
  setKeys(
    context: RequestContext,
    id: string,
    changes: { consumer: QosSpec['consumer'] | null; specs: Record<string, string> },
  ): Promise<void>
  /** In order, up to the first that is not there: then throws QoSSpecsKeyNotFound. */
  unsetKeys(context: RequestContext, id: string, keys: readonly string[]): Promise<void>
  /** Refused while types have it, without force. */
  delete(context: RequestContext, id: string, options: { force: boolean }): Promise<void>
  types(context: RequestContext, id: string): Promise<{ id: string; name: string }[]>
  /** Throws InvalidVolumeType when the type has others. */
  associate(context: RequestContext, id: string, typeId: string): Promise<void>
  disassociate(context: RequestContext, id: string, typeId: string): Promise<void>
  disassociateAll(context: RequestContext, id: string): Promise<void>
}

/** For administrators: the types of a project's volumes that ask for none. */
export interface DefaultTypeService {
  list(context: RequestContext): Promise<DefaultType[]>
  get(context: RequestContext, projectId: string): Promise<DefaultType>
  set(context: RequestContext, projectId: string, nameOrId: string): Promise<DefaultType>
  unset(context: RequestContext, projectId: string): Promise<void>
}

/** Limits by name: `volumes`, `volumes_fast` for those of the type `fast`, and so on; -1 is none. */
export interface QuotaService {
  get(context: RequestContext, projectId: string): Promise<Record<string, number>>
  usage(context: RequestContext, projectId: string): Promise<Record<string, QuotaUsage>>
  /** What a project has that nobody has set limits for. */
  defaults(context: RequestContext, projectId: string): Promise<Record<string, number>>
  /** Answers all limits of the project. Throws InvalidInput for a name that is no quota. */
  update(
    context: RequestContext,
    projectId: string,
    limits: Readonly<Record<string, number>>,
  ): Promise<Record<string, number>>
  /** Back to the defaults. */
  reset(context: RequestContext, projectId: string): Promise<void>
  getClass(context: RequestContext, name: string): Promise<Record<string, number>>
  /** The class `default` holds for every project that has no limit of its own. */
  updateClass(
    context: RequestContext,
    name: string,
    limits: Readonly<Record<string, number>>,
  ): Promise<Record<string, number>>
  /** The quotas that are not of a type. Everybody's own; administrators see those of any project. */
  limits(context: RequestContext, projectId: string): Promise<Record<QuotaName, QuotaUsage>>
}

/** Backends and their pools, and what administrators do with them. Hosts are `host` or `host@backend`, as services have them. */
export interface BackendService {
  /** All zones of backends, and whether an enabled one is in them. */
  zones(): Promise<{ name: string; available: boolean }[]>
  /** `host` also names all backends of a host; null filters nothing. */
  services(context: RequestContext, filters: { host: string | null; binary: string | null }): Promise<ServiceInfo[]>
  /** A disabled backend takes no new volumes; those it has stay usable. */
  setDisabled(
    context: RequestContext,
    service: { host: string; binary: string },
    disabled: boolean,
    reason: string | null,
  ): Promise<void>
  /** A frozen backend is disabled, and also refuses to delete volumes, and to make or delete snapshots. */
  freeze(context: RequestContext, host: string): Promise<void>
  thaw(context: RequestContext, host: string): Promise<void>
  /** Always refused: nothing is replicated to another backend. */
  failOver(context: RequestContext, host: string): Promise<void>
  /** Empty texts filter nothing; `binary` may be `*`. */
  logLevels(
    context: RequestContext,
    filters: { binary: string; server: string; prefix: string },
  ): Promise<{ binary: string; host: string; levels: Record<string, string> }[]>
  /** Of the whole process, whichever service is named. */
  setLogLevel(context: RequestContext, filters: { prefix: string }, level: string): Promise<void>
  /**
   * Lets what dead processes left be taken over now. Answers the services whose work that is: those that are up, and those whose
   * backend nobody reaches. Throws InvalidInput when nothing is to be done about the resource that is named.
   */
  cleanUp(
    context: RequestContext,
    which: CleanupRequest,
  ): Promise<{ cleaning: CleanedService[]; unavailable: CleanedService[] }>
  /** Enabled services, as hosts. */
  hosts(context: RequestContext, zone: string | null): Promise<ServiceInfo[]>
  setHostEnabled(context: RequestContext, host: string, enabled: boolean): Promise<void>
  /** What is on a backend: the sum first, then each project. */
  hostResources(context: RequestContext, host: string): Promise<HostResources[]>
  /** Pools that take volumes now; of those, the ones that the type (id or name) allows and that match. */
  pools(
    context: RequestContext,
    filters: { volumeType: string | null; matching: (pool: PoolReport) => boolean },
  ): Promise<PoolReport[]>
  capabilities(context: RequestContext, host: string): Promise<BackendCapabilities>
}

export interface ServiceInfo {
  binary: string
  host: string
  zone: string
  disabled: boolean
  disabledReason: string | null
  up: boolean
  /** When it was last seen up; null for never. */
  updatedAt: string | null
  /** Null for what is no backend. */
  frozen: boolean | null
}

/** Null for what makes no difference. */
export interface CleanupRequest {
  serviceId: number | null
  cluster: string | null
  /** Also names all backends of a host. */
  host: string | null
  binary: string | null
  isUp: boolean | null
  disabled: boolean | null
  /** A volume or a snapshot: only the service that its work waits for. */
  resourceId: string | null
}

/** `id` numbers the services in the order in which they are listed, from 1. */
export type CleanedService = ServiceInfo & { id: number }

export interface HostResources {
  projectId: string
  volumes: number
  volumesGib: number
  snapshots: number
  snapshotsGib: number
}

export interface PoolReport {
  name: string
  capabilities: Readonly<Record<string, Capability>>
}

export interface BackendCapabilities {
  volumeBackendName: string
  poolName: string | null
  storageProtocol: string
  displayName: string
  properties: Readonly<Record<string, { title: string; description: string; type: string }>>
}
