import { ServiceError, type ServiceErrorCode } from '../errors.ts'
import { BODY_BYTES_MAX } from './json.ts'

/**
 * The one place where a symbol becomes an HTTP status. The key of a fault follows from the status alone, as in Cinder's
 * wsgi.py; a symbol without a row does not compile.
 */
export const FAULTS: Record<ServiceErrorCode, { status: number }> = {
  InvalidInput: { status: 400 },
  Unauthorized: { status: 401 },
  PolicyNotAuthorized: { status: 403 },
  OperationNotAuthorized: { status: 403 },
  ResourceNotFound: { status: 404 },
  BodyTooLarge: { status: 413 },
  UnsupportedMediaType: { status: 415 },
  VersionNotFound: { status: 404 },
  VersionNotAcceptable: { status: 406 },
  InvalidVersionHeader: { status: 400 },
  VolumeNotFound: { status: 404 },
  SnapshotNotFound: { status: 404 },
  BackupNotFound: { status: 404 },
  TransferNotFound: { status: 404 },
  AttachmentNotFound: { status: 404 },
  GroupNotFound: { status: 404 },
  GroupSnapshotNotFound: { status: 404 },
  GroupTypeNotFound: { status: 404 },
  GroupTypeNotFoundByName: { status: 404 },
  GroupTypeSpecsNotFound: { status: 404 },
  VolumeTypeNotFound: { status: 404 },
  VolumeTypeNotFoundByName: { status: 404 },
  VolumeTypeExtraSpecsNotFound: { status: 404 },
  VolumeTypeAccessNotFound: { status: 404 },
  VolumeTypeEncryptionNotFound: { status: 404 },
  KeyNotFound: { status: 404 },
  VolumeTypeProjectDefaultNotFound: { status: 404 },
  VolumeTypeDefaultMisconfigured: { status: 500 },
  QoSSpecsNotFound: { status: 404 },
  QoSSpecsKeyNotFound: { status: 404 },
  QoSSpecsExists: { status: 409 },
  ProjectNotFound: { status: 404 },
  ServiceNotFound: { status: 404 },
  NoService: { status: 404 },
  BackendNotFound: { status: 404 },
  HostNotFound: { status: 404 },
  ClusterNotFound: { status: 404 },
  MessageNotFound: { status: 404 },
  MetadataKeyNotFound: { status: 404 },
  InvalidVolume: { status: 400 },
  NoRoomForHeader: { status: 400 },
  InvalidSnapshot: { status: 400 },
  InvalidGroup: { status: 400 },
  InvalidGroupSnapshot: { status: 400 },
  InvalidGroupType: { status: 400 },
  InvalidBackup: { status: 400 },
  InvalidAttachment: { status: 400 },
  InvalidAuthKey: { status: 400 },
  InvalidVolumeAttachMode: { status: 400 },
  InvalidHost: { status: 400 },
  ImageNotFound: { status: 404 },
  ImageNotAuthorized: { status: 403 },
  ImageUnacceptable: { status: 400 },
  ImageTooBig: { status: 400 },
  ImageRefused: { status: 400 },
  ComputeRefused: { status: 500 },
  ImageDownloadFailed: { status: 500 },
  ImageUploadFailed: { status: 500 },
  ImageCopyFailure: { status: 400 },
  GlanceConnectionFailed: { status: 503 },
  ImageMetadataNotFound: { status: 404 },
  InvalidVolumeType: { status: 400 },
  ResourceConflict: { status: 409 },
  QuotaExceeded: { status: 413 },
  GigabytesExceeded: { status: 413 },
  NoValidBackend: { status: 503 },
  BackendFailure: { status: 500 },
  ResultNotRecorded: { status: 500 },
  ServiceUnavailable: { status: 503 },
}

const FAULT_KEYS: Readonly<Record<number, string>> = {
  400: 'badRequest',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'itemNotFound',
  405: 'badMethod',
  409: 'conflictingRequest',
  413: 'overLimit',
  415: 'badMediaType',
  501: 'notImplemented',
  503: 'serviceUnavailable',
}

export interface Fault {
  status: number
  headers: Record<string, string>
  /** Null for the one answer without a body, 412. */
  body: Record<string, { code: number; message: string; retryAfter?: string }> | null
  /** True when the failure is ours: the caller logs it, because the answer says nothing about it. */
  unexpected: boolean
}

/** The condition of If-Match does not hold; Cinder answers it without a body. */
export class PreconditionFailed extends Error {
  override readonly name = 'PreconditionFailed'
}

/** Turns whatever was thrown into an answer. Only a ServiceError and Fastify's own refusals say what went wrong. */
export function faultOf(error: unknown): Fault {
  if (error instanceof PreconditionFailed) return { status: 412, headers: {}, body: null, unexpected: false }
  const known = error instanceof ServiceError ? error : asServiceError(error)
  if (known === null) return fault(500, UNEXPECTED_MESSAGE, { unexpected: true })
  // Quota faults tell the client that waiting is pointless: it may try again at once, after it has deleted something.
  const answer = fault(FAULTS[known.code].status, known.message, {
    retryAfter: known.code === 'QuotaExceeded' || known.code === 'GigabytesExceeded' ? '0' : undefined,
    unexpected: FAULTS[known.code].status === 500,
  })
  // The version that was asked for, though it is none.
  if (known.code === 'VersionNotAcceptable') answer.headers['openstack-api-version'] = `volume ${known.params.version}`
  return answer
}

const UNEXPECTED_MESSAGE = 'The server has either erred or is incapable of performing the requested operation.'

function fault(
  status: number,
  message: string,
  { retryAfter, unexpected }: { retryAfter?: string | undefined; unexpected: boolean },
): Fault {
  const retry = retryAfter === undefined ? {} : { retryAfter }
  return {
    status,
    headers: retryAfter === undefined ? {} : { 'retry-after': retryAfter },
    body: { [FAULT_KEYS[status] ?? 'computeFault']: { code: status, message, ...retry } },
    unexpected,
  }
}

/** What Fastify refuses before a handler runs: a body that is too large, of the wrong type, or not what it claims. */
function asServiceError(error: unknown): ServiceError | null {
  if (!(error instanceof Error) || !('code' in error)) return null
  switch (error.code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new ServiceError('BodyTooLarge', { limit_bytes: BODY_BYTES_MAX })
    case 'FST_ERR_MAX_PARAM_LENGTH': // no id and no key of ours is that long
      return new ServiceError('ResourceNotFound')
    case 'FST_ERR_BAD_URL':
      return new ServiceError('InvalidInput', {
        reason:
          'Error decoding your request. Either the URL or the request body contained characters that could not be ' +
          'decoded by Cinder.',
      })
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new ServiceError('UnsupportedMediaType')
    default:
      return 'statusCode' in error && error.statusCode === 400
        ? new ServiceError('InvalidInput', { reason: 'Malformed request body' })
        : null
  }
}
