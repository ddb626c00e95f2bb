/**
 * Every failure that a user may see, by symbol. Nobody below the edges knows HTTP, Cinder faults or the result codes
 * of a wire: src/api/faults.ts and src/results.ts map these symbols, each with one total table.
 */

/** Failures of the service: what a tenant or an operator asked for cannot be done. Parameters fill the message. */
export const SERVICE_ERRORS = {
  InvalidInput: '{reason}',
  Unauthorized: 'The request you have made requires authentication.',
  PolicyNotAuthorized: "Policy doesn't allow {action} to be performed.",
  OperationNotAuthorized: 'You are not authorized to perform this operation.',
  ResourceNotFound: 'The resource could not be found.',
  BodyTooLarge: 'Request body is larger than {limit_bytes} bytes.',
  UnsupportedMediaType: 'Unsupported Content-Type',
  VersionNotFound: 'The resource could not be found.', // upstream keeps to itself that it came later or went
  VersionNotAcceptable:
    'Version {version} is not supported by the API. Minimum is {min_version} and maximum is {max_version}.',
  InvalidVersionHeader: 'API Version String {version} is of invalid format. Must be of format MajorNum.MinorNum.',
  VolumeNotFound: 'Volume {volume_id} could not be found.',
  SnapshotNotFound: 'Snapshot {snapshot_id} could not be found.',
  BackupNotFound: 'Backup {backup_id} could not be found.',
  TransferNotFound: 'Transfer {transfer_id} could not be found.',
  AttachmentNotFound: 'Volume attachment could not be found with filter: attachment_id = {attachment_id}.',
  GroupNotFound: 'Group {group_id} could not be found.',
  GroupSnapshotNotFound: 'GroupSnapshot {group_snapshot_id} could not be found.',
  GroupTypeNotFound: 'Group type {group_type_id} could not be found.',
  GroupTypeNotFoundByName: 'Group type with name {group_type_name} could not be found.',
  GroupTypeSpecsNotFound: '{reason}',
  VolumeTypeNotFound: 'Volume type {volume_type_id} could not be found.',
  VolumeTypeNotFoundByName: 'Volume type with name {volume_type_name} could not be found.',
  VolumeTypeExtraSpecsNotFound: 'Volume Type {volume_type_id} has no extra specs with key {extra_specs_key}.',
  VolumeTypeAccessNotFound: '{reason}',
  VolumeTypeEncryptionNotFound: 'Volume type encryption for type {type_id} does not exist.',
  VolumeTypeProjectDefaultNotFound: 'Default type for project {project_id} not found.',
  VolumeTypeDefaultMisconfigured:
    'The request cannot be fulfilled as the default volume type {volume_type_name} cannot be found.',
  QoSSpecsNotFound: 'No such QoS spec {specs_id}.',
  QoSSpecsKeyNotFound: 'QoS spec {specs_id} has no spec with key {specs_key}.',
  QoSSpecsExists: 'QoS Specs {specs_id} already exists.',
  ProjectNotFound: 'Project {project_id} could not be found.',
  ServiceNotFound: 'Service {service_id} could not be found on host {host}.',
  NoService: 'Service {service_id} could not be found.',
  BackendNotFound: "Can't find service: {host}",
  HostNotFound: 'Host {host} could not be found.',
  ClusterNotFound: 'Cluster {id} could not be found.',
  MessageNotFound: 'Message {message_id} could not be found.',
  MetadataKeyNotFound: '{owner} {id} has no metadata with key {key}.',
  KeyNotFound: 'Secret {key_id} could not be found.',
  InvalidVolume: 'Invalid volume: {reason}',
  NoRoomForHeader:
    'Invalid volume: An encrypted volume has {header_mib} MiB less for its content, and what volume {volume_id} holds goes to its end ' +
    '(a GPT has its backup there). Extend it by 1 GiB, and ask again.',
  InvalidSnapshot: 'Invalid snapshot: {reason}',
  InvalidGroup: 'Invalid Group: {reason}',
  InvalidGroupSnapshot: 'Invalid GroupSnapshot: {reason}',
  InvalidGroupType: 'Invalid group type: {reason}',
  InvalidBackup: 'Invalid backup: {reason}',
  InvalidAttachment: 'Invalid attachment: {reason}',
  InvalidAuthKey: 'Invalid auth key: {reason}',
  InvalidVolumeAttachMode: "Invalid attaching mode '{mode}' for volume {volume_id}.",
  InvalidHost: 'Invalid host: {reason}',
  ImageNotFound: 'Image {image_id} could not be found.',
  ImageNotAuthorized: 'Not authorized for image {image_id}.',
  ImageUnacceptable: 'Image {image_id} is unacceptable: {reason}',
  ImageTooBig: 'Image {image_id} size exceeded available disk space: {reason}',
  ImageRefused: 'The image service refused the request: {reason}',
  ImageDownloadFailed: 'Failed to download image {image_id}, reason: {reason}',
  ImageUploadFailed: 'Failed to upload image {image_id}, reason: {reason}',
  ImageCopyFailure: 'Failed to copy image: {reason}',
  GlanceConnectionFailed: 'Connection to glance failed: {reason}',
  ComputeRefused: 'The compute service did not do what it was asked for: {reason}',
  ImageMetadataNotFound: 'Glance metadata for volume/snapshot {id} cannot be found.',
  InvalidVolumeType: 'Invalid volume type: {reason}',
  ResourceConflict: '{reason}',
  QuotaExceeded: '{kind}: {reason}',
  GigabytesExceeded: '{reason}',
  NoValidBackend: 'No valid backend was found. {reason}',
  BackendFailure: 'The storage backend failed: {reason}',
  ResultNotRecorded: 'What was done could not be recorded: {reason}',
  ServiceUnavailable: '{reason}',
} as const

export type ServiceErrorCode = keyof typeof SERVICE_ERRORS

export class ServiceError extends Error {
  override readonly name = 'ServiceError'
  readonly code: ServiceErrorCode
  readonly params: Readonly<Record<string, string | number>>

  constructor(code: ServiceErrorCode, params: Record<string, string | number> = {}, options?: { cause?: unknown }) {
    super(
      SERVICE_ERRORS[code].replace(/\{(\w+)\}/g, (_, key: string) => String(params[key] ?? '')),
      options,
    )
    this.code = code
    this.params = params
  }
}

/** A request that makes no sense, in a whole sentence. */
export function badRequest(reason: string): ServiceError {
  return new ServiceError('InvalidInput', { reason })
}

/** The same in the words that upstream puts before most of its reasons. */
export function invalidInput(reason: string): ServiceError {
  return badRequest(`Invalid input received: ${reason}`)
}

/** Failures of the store, in Sheepdog's words. */
export const STORE_ERRORS = {
  NoVdi: 'no such VDI',
  VdiExists: 'a VDI of that name exists',
  NoBaseVdi: 'the base VDI does not exist',
  NoTag: 'the VDI has no such snapshot',
  VdiLocked: 'the VDI is locked',
  VdiInUse: 'the VDI is in use',
  FullVdi: 'no free VDI id is left',
  NoObject: 'no such object',
  NoExport: 'no such export',
  ReadOnly: 'the VDI is a snapshot or the right is read-only',
  InvalidParameters: 'invalid parameters',
  VersionMismatch: 'unsupported protocol version',
  NoSpace: 'no space left on the disks of the store',
  CorruptBlock: 'a block does not match its checksum',
  DiskFailed: 'the disk failed',
  OldEpoch: 'the request is of an older epoch or generation',
  Fenced: 'the right to this VDI was revoked',
  NoQuorum: 'too few nodes of the cluster are there to agree on anything',
  Unsure: 'whether the change took effect could not be told',
  Busy: 'requests under way were not answered in time',
  Stopping: 'the node is stopping',
  Disconnected: 'the connection to the node was lost',
  Unsupported: 'not supported',
} as const

export type StoreErrorCode = keyof typeof STORE_ERRORS

export class StoreError extends Error {
  override readonly name = 'StoreError'
  readonly code: StoreErrorCode

  constructor(code: StoreErrorCode, detail?: string, options?: { cause?: unknown }) {
    super(detail === undefined ? STORE_ERRORS[code] : `${STORE_ERRORS[code]}: ${detail}`, options)
    this.code = code
  }
}

/** A failure as the store reports it; one that is not symbolic comes from the disk. */
export function toStoreError(error: unknown): StoreError {
  if (error instanceof StoreError) return error
  return new StoreError('DiskFailed', error instanceof Error ? error.message : String(error), { cause: error })
}

/** A mistake of the person at the command line or in a settings file; `main` prints it and exits with EX_USAGE or EX_CONFIG. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** What the process was asked to work on must not be touched as things are; the message says what to do instead. */
export class StartRefused extends Error {
  override readonly name = 'StartRefused'
}
