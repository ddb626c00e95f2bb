import type { Capability } from '../scheduler/extra-specs.ts'
import type { RequestContext } from './context.ts'
import type {
  Attachment,
  AttachmentCreate,
  Limits,
  ListQuery,
  Page,
  Snapshot,
  SnapshotCreate,
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
  types: TypeService
  backends: BackendService
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
  extend(context: RequestContext, id: string, newSizeGib: number): Promise<void>
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
  /** Admin: writes the status without asking the backend. */
  resetStatus(context: RequestContext, id: string, status: string): Promise<void>
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
