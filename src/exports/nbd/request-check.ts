import { DEVICE_BLOCK_BYTES } from '../../vdi/device.ts'
import { COMMAND, COMMAND_FLAG, NBD_ERROR, PAYLOAD_BYTES_MAX } from './protocol.ts'

/** What requests on one connection are held against; fixed when the handshake ends. */
export interface ExportTerms {
  readOnly: boolean
  structuredReplies: boolean
  /** The client selected base:allocation for this very export. */
  blockStatus: boolean
}

interface Header {
  flags: number
  type: number
  /** Above 2^53 it is inexact, but then it is far beyond any export too. */
  offset: number
  lengthBytes: number
}

/**
 * Decides at the door whether a request is carried out: NBD_ERROR.NONE, or the error that answers it. Whether a range
 * lies beyond the end is for the device to say, since exports grow while they are in use.
 */
export function checkRequest(header: Header, terms: ExportTerms): number {
  const { flags, type, offset, lengthBytes } = header
  const allowed = allowedFlags(type, terms)
  if (allowed === undefined || (flags & ~allowed) !== 0) return NBD_ERROR.EINVAL
  if (type === COMMAND.DISC) return NBD_ERROR.NONE
  if (type === COMMAND.FLUSH) return offset === 0 && lengthBytes === 0 ? NBD_ERROR.NONE : NBD_ERROR.EINVAL

  const changes = type === COMMAND.WRITE || type === COMMAND.TRIM || type === COMMAND.WRITE_ZEROES
  if (changes && terms.readOnly) return NBD_ERROR.EPERM
  if (type === COMMAND.BLOCK_STATUS && !terms.blockStatus) return NBD_ERROR.EINVAL
  const carriesPayload = type === COMMAND.READ || type === COMMAND.WRITE
  if (lengthBytes === 0 || (carriesPayload && lengthBytes > PAYLOAD_BYTES_MAX)) return NBD_ERROR.EINVAL
  if (offset + lengthBytes > Number.MAX_SAFE_INTEGER) return errorBeyondEnd(type)
  if ((flags & COMMAND_FLAG.FAST_ZERO) !== 0 && !isFastZero(header)) return NBD_ERROR.ENOTSUP
  return NBD_ERROR.NONE
}

/** How a request is answered whose range lies beyond the end of the export. */
export function errorBeyondEnd(type: number): number {
  return type === COMMAND.WRITE || type === COMMAND.WRITE_ZEROES ? NBD_ERROR.ENOSPC : NBD_ERROR.EINVAL
}

/** Zeroing is faster than writing where it only says what whole blocks are; anything else moves bytes. */
function isFastZero({ flags, offset, lengthBytes }: Header): boolean {
  if ((flags & COMMAND_FLAG.NO_HOLE) !== 0) return false
  return offset % DEVICE_BLOCK_BYTES === 0 && lengthBytes % DEVICE_BLOCK_BYTES === 0
}

/** FUA is to be accepted on every command, also where it means nothing; undefined for an unknown command. */
function allowedFlags(type: number, terms: ExportTerms): number | undefined {
  switch (type) {
    case COMMAND.READ:
      return terms.structuredReplies ? COMMAND_FLAG.FUA | COMMAND_FLAG.DF : COMMAND_FLAG.FUA
    case COMMAND.WRITE_ZEROES:
      return COMMAND_FLAG.FUA | COMMAND_FLAG.NO_HOLE | COMMAND_FLAG.FAST_ZERO
    case COMMAND.BLOCK_STATUS:
      return COMMAND_FLAG.FUA | COMMAND_FLAG.REQ_ONE
    case COMMAND.WRITE:
    case COMMAND.DISC:
    case COMMAND.FLUSH:
    case COMMAND.TRIM:
    case COMMAND.CACHE:
      return COMMAND_FLAG.FUA
    default:
      return undefined
  }
}
