import type { ConnectionInfo, Connector } from '../drivers/driver.ts'
import type { RequestContext } from './context.ts'
import type {
  Attachment,
  AttachmentCreate,
  Limits,
  ListQuery,
  Migration,
  OldAttach,
  Page,
  Retype,
  Snapshot,
  SnapshotCreate,
  StatusReset,
  Volume,
  VolumeCreate,
  VolumeType,
} from './model.ts'

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
  types: TypeService
  limits(context: RequestContext): Promise<Limits>
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
  delete(context: RequestContext, id: string): Promise<void>
  setMetadata(
    context: RequestContext,
    id: string,
    metadata: Record<string, string>,
    options: { replace: boolean },
  ): Promise<Record<string, string>>
  deleteMetadataKey(context: RequestContext, id: string, key: string): Promise<void>
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

export interface TypeService {
  list(context: RequestContext, query: ListQuery): Promise<Page<VolumeType>>
  /** By id; `default` names the default type. */
  get(context: RequestContext, id: string): Promise<VolumeType>
  create(
    context: RequestContext,
    request: { name: string; description: string | null; isPublic: boolean; extraSpecs: Record<string, string> },
  ): Promise<VolumeType>
  delete(context: RequestContext, id: string): Promise<void>
}
