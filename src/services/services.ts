import type { RequestContext } from './context.ts'
import type {
  Attachment,
  AttachmentCreate,
  Backup,
  BackupCreate,
  BackupRecord,
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
  backups: BackupService
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
  /** Admin: ends what goes on with it. */
  resetStatus(context: RequestContext, id: string, status: 'available' | 'error'): Promise<void>
  exportRecord(context: RequestContext, id: string): Promise<BackupRecord>
  importRecord(context: RequestContext, record: BackupRecord): Promise<Backup>
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
