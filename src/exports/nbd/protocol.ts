/**
 * Numbers of the NBD protocol, fixed newstyle, as its document has them (github.com/NetworkBlockDevice/nbd,
 * doc/proto.md). Every integer on the wire is big-endian. The grammar of each message stands above the code that
 * reads or writes it: option-reader.ts, options.ts, request-reader.ts, reply-writer.ts.
 */

/** "NBDMAGIC" and "IHAVEOPT"; the second also opens each option of the client. */
export const NBD_MAGIC = 'NBDMAGIC'
export const OPTION_MAGIC = 'IHAVEOPT'
export const OPTION_MAGIC_HIGH = 0x49484156
export const OPTION_MAGIC_LOW = 0x454f5054
/** 0x3e889045565a9, in two halves. */
export const OPTION_REPLY_MAGIC_HIGH = 0x0003e889
export const OPTION_REPLY_MAGIC_LOW = 0x045565a9
export const REQUEST_MAGIC = 0x25609513
export const SIMPLE_REPLY_MAGIC = 0x67446698
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef

export const REQUEST_HEADER_BYTES = 28
export const SIMPLE_REPLY_HEADER_BYTES = 16
export const CHUNK_HEADER_BYTES = 20
/** An OFFSET_DATA chunk says in 8 bytes where its data begins. */
export const DATA_CHUNK_HEADER_BYTES = CHUNK_HEADER_BYTES + 8

/** Limits that the document gives for strings and, as defaults, for payloads and blocks. */
export const STRING_BYTES_MAX = 4096
export const PAYLOAD_BYTES_MAX = 32 * 1024 * 1024
export const BLOCK_BYTES_MIN = 1

/** The server's 16 bits and the client's 32 bits that open the handshake have the same meaning. */
export const HANDSHAKE_FLAG = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const

export const OPTION = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
} as const

export const OPTION_REPLY = {
  ACK: 1,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x8000_0001,
  ERR_POLICY: 0x8000_0002,
  ERR_INVALID: 0x8000_0003,
  ERR_TLS_REQD: 0x8000_0005,
  ERR_UNKNOWN: 0x8000_0006,
  ERR_SHUTDOWN: 0x8000_0007,
} as const

export const INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const

export const TRANSMISSION_FLAG = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
} as const

export const COMMAND = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const

export const COMMAND_FLAG = { FUA: 1 << 0, NO_HOLE: 1 << 1, DF: 1 << 2, REQ_ONE: 1 << 3, FAST_ZERO: 1 << 4 } as const

export const CHUNK_FLAG_DONE = 1
export const CHUNK = { NONE: 0, OFFSET_DATA: 1, BLOCK_STATUS: 5, ERROR: 0x8001 } as const

/** The one metadata context of the document, and the meaning of the status it reports. */
export const BASE_ALLOCATION = 'base:allocation'
export const STATE = { HOLE: 1, ZERO: 2 } as const

/** Errors of a reply; 0 is success. */
export const NBD_ERROR = {
  NONE: 0,
  EPERM: 1,
  EIO: 5,
  EINVAL: 22,
  ENOSPC: 28,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const

/** The peer broke the protocol in a way that no reply can mend: its connection is dropped. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
}
