/**
 * Numbers of the Sheepdog protocol, as clients of upstream 1.0 send them. Names are those of the upstream headers
 * without their prefixes (SD_OP_, SD_RES_, SD_FLAG_CMD_), so that a number or a name is found by searching either.
 */

/** Highest version accepted for client opcodes; zero is always accepted. */
export const PROTO_VER = 0x02
/** Version of opcodes from FIRST_SHEEP_OPCODE on; must match exactly. Collie's own opcodes use it too. */
export const SHEEP_PROTO_VER = 0x0a
export const FIRST_SHEEP_OPCODE = 0x80

export const HEADER_SIZE_BYTES = 48
/** Longest body of a request or a response: the full inode object (12587576 bytes) rounded up. */
export const BODY_SIZE_MAX_BYTES = 16 << 20

export const VDI_NAME_SIZE_BYTES = 256
export const VDI_TAG_SIZE_BYTES = 256
export const VDI_ATTR_KEY_SIZE_BYTES = 256
export const VDI_ATTR_VALUE_SIZE_BYTES = 65536

export const VDI_COUNT = 1 << 24
/** Length of the bitmaps that READ_VDIS and READ_DEL_VDIS answer: one bit per vid. */
export const VDI_BITMAP_SIZE_BYTES = VDI_COUNT / 8

export const BLOCK_SIZE_SHIFT_DEFAULT = 22
export const OBJECT_SIZE_BYTES = 2 ** BLOCK_SIZE_SHIFT_DEFAULT
export const OBJECTS_PER_VDI_MAX = 1 << 20
export const VDI_SIZE_MAX_BYTES = OBJECTS_PER_VDI_MAX * OBJECT_SIZE_BYTES

export const NODES_MAX = 6144

export const FLAG = {
  /** The request carries a body. */
  WRITE: 0x01,
  COW: 0x02,
  CACHE: 0x04,
  DIRECT: 0x08,
  /** With WRITE: the response carries a body too. */
  PIGGYBACK: 0x10,
  /** Sent by tgt, which understands INODE_INVALIDATED. */
  TGT: 0x20,
  FORWARD: 0x40,
  RECOVERY: 0x80,
  WILDCARD: 0x100,
  /** Ours, for WRITE_VDI and ZERO_VDI: durable before it is answered. */
  FUA: 0x200,
  /** Ours, for OPEN_VDI: the session will not write. */
  READ_ONLY: 0x400,
  /** Ours, for OPEN_VDI between nodes: the gateway had it open, and goes on unless another one has opened it since. */
  RESUME: 0x800,
} as const

/** Flags of GET_VDI_ATTR, which reuses bits of FLAG. */
export const ATTR_FLAG = { CREATE: 0x100, EXCLUSIVE: 0x200, DELETE: 0x400 } as const

/** Kinds of lock of LOCK_VDI and RELEASE_VDI (`type`): QEMU takes the first, tgt the second. */
export const LOCK_TYPE = { NORMAL: 0, SHARED: 1 } as const

export const CLUSTER_FLAG = {
  STRICT: 0x01,
  DISK_MODE: 0x02,
  AUTO_VNODES: 0x04,
  USE_LOCK: 0x08,
  RECYCLE_VID: 0x10,
  AVOID_DISK_FULL: 0x20,
} as const

export const CLUSTER_STATUS = { OK: 1, WAIT: 2, SHUTDOWN: 3, KILLED: 4 } as const

export const RESULT = {
  SUCCESS: 0x00,
  UNKNOWN: 0x01,
  NO_OBJ: 0x02,
  EIO: 0x03,
  VDI_EXIST: 0x04,
  INVALID_PARMS: 0x05,
  SYSTEM_ERROR: 0x06,
  VDI_LOCKED: 0x07,
  NO_VDI: 0x08,
  NO_BASE_VDI: 0x09,
  VDI_READ: 0x0a,
  VDI_WRITE: 0x0b,
  BASE_VDI_READ: 0x0c,
  BASE_VDI_WRITE: 0x0d,
  NO_TAG: 0x0e,
  STARTUP: 0x0f,
  VDI_NOT_LOCKED: 0x10,
  SHUTDOWN: 0x11,
  NO_MEM: 0x12,
  FULL_VDI: 0x13,
  VER_MISMATCH: 0x14,
  NO_SPACE: 0x15,
  WAIT_FOR_FORMAT: 0x16,
  WAIT_FOR_JOIN: 0x17,
  JOIN_FAILED: 0x18,
  HALT: 0x19,
  READONLY: 0x1a,
  INODE_INVALIDATED: 0x1d,
  OLD_NODE_VER: 0x81,
  NEW_NODE_VER: 0x82,
  NOT_FORMATTED: 0x83,
  INVALID_CTIME: 0x84,
  INVALID_EPOCH: 0x85,
  NETWORK_ERROR: 0x86,
  NO_CACHE: 0x87,
  BUFFER_SMALL: 0x88,
  FORCE_RECOVER: 0x89,
  NO_STORE: 0x8a,
  NO_SUPPORT: 0x8b,
  NODE_IN_RECOVERY: 0x8c,
  KILLED: 0x8d,
  OID_EXIST: 0x8e,
  AGAIN: 0x8f,
  STALE_OBJ: 0x90,
  CLUSTER_ERROR: 0x91,
  VDI_NOT_EMPTY: 0x92,
  NOT_FOUND: 0x93,
  INCOMPLETE: 0x94,
  COLLECTING_CINFO: 0x95,
  GATEWAY_MODE: 0x97,
  INVALID_VNODES_STRATEGY: 0x98,
  NO_CHECKPOINT_ENTRY: 0x99,
  /** Ours. Foreign clients have no branch on them and report an I/O error, which is what they mean. */
  CORRUPT_BLOCK: 0xc0,
  FENCED: 0xc1,
  /** Between nodes: the connection of the client is over, since it has come back on another one. */
  CUT_OFF: 0xc2,
} as const

export type ResultName = keyof typeof RESULT

const RESULT_NAMES: ReadonlyMap<number, string> = new Map(Object.entries(RESULT).map(([name, code]) => [code, name]))

/** `NO_VDI` for 8; `0x7f` for a number without a name. */
export function resultName(code: number): string {
  return RESULT_NAMES.get(code) ?? `0x${code.toString(16).padStart(2, '0')}`
}
