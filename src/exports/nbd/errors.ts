import { STORE_ERRORS, type StoreErrorCode } from '../../errors.ts'
import { NBD_ERROR } from './protocol.ts'
import { errorBeyondEnd } from './request-check.ts'

/** What a client is told of each failure of the store. ESHUTDOWN asks it to disconnect; it may then try elsewhere. */
const STORE_ERROR_TO_NBD: Record<StoreErrorCode, number> = {
  NoVdi: NBD_ERROR.EIO,
  VdiExists: NBD_ERROR.EIO,
  NoBaseVdi: NBD_ERROR.EIO,
  NoTag: NBD_ERROR.EIO,
  VdiLocked: NBD_ERROR.EIO,
  VdiInUse: NBD_ERROR.EIO,
  FullVdi: NBD_ERROR.EIO,
  NoObject: NBD_ERROR.EIO,
  NoExport: NBD_ERROR.ESHUTDOWN,
  ReadOnly: NBD_ERROR.EPERM,
  InvalidParameters: NBD_ERROR.EINVAL,
  VersionMismatch: NBD_ERROR.EIO,
  NoSpace: NBD_ERROR.ENOSPC,
  CorruptBlock: NBD_ERROR.EIO,
  DiskFailed: NBD_ERROR.EIO,
  OldEpoch: NBD_ERROR.EIO,
  Fenced: NBD_ERROR.ESHUTDOWN,
  NoQuorum: NBD_ERROR.EIO,
  Unsure: NBD_ERROR.EIO,
  Busy: NBD_ERROR.EIO,
  Stopping: NBD_ERROR.ESHUTDOWN,
  Disconnected: NBD_ERROR.EIO,
  Unsupported: NBD_ERROR.EINVAL,
}

/** For people, in error chunks. */
export const NBD_ERROR_MESSAGE: Readonly<Record<number, string>> = {
  [NBD_ERROR.EPERM]: 'the export is read-only',
  [NBD_ERROR.EINVAL]: 'the request is not valid for this export',
  [NBD_ERROR.ENOSPC]: 'the range is beyond the end of the export',
  [NBD_ERROR.ENOTSUP]: 'zeroing this range would be no faster than writing it',
}

/** The answer to a command of `type` that the device refused. Of a checked request only its range can be invalid. */
export function answerTo(type: number, refusal: StoreErrorCode): { error: number; message: string } {
  if (refusal !== 'InvalidParameters') return { error: STORE_ERROR_TO_NBD[refusal], message: STORE_ERRORS[refusal] }
  return { error: errorBeyondEnd(type), message: 'the range is beyond the end of the export' }
}
