import { FIRST_SHEEP_OPCODE, FLAG, PROTO_VER, SHEEP_PROTO_VER } from './constants.ts'

/** Which part of the header's union a message uses (fields in header.ts). */
export type RequestVariant = 'none' | 'obj' | 'vdi' | 'cluster' | 'io'
export type ResponseVariant = 'none' | 'obj' | 'vdi' | 'node' | 'hash' | 'clusterDefault' | 'io'

interface Opcode {
  readonly code: number
  readonly request: RequestVariant
  readonly response: ResponseVariant
}

const op = <const C extends number>(code: C, request: RequestVariant, response: ResponseVariant) =>
  ({ code, request, response }) satisfies Opcode

/**
 * Every opcode that Collie knows by name: those that QEMU, tgt and `dog` send, and its own. Upstream's messages between
 * sheep are left out, as no foreign sheep joins.
 *
 * Collie's own opcodes, 0xd0 on, carry SHEEP_PROTO_VER and are understood by Collie only; upstream never used the range.
 * They move byte ranges of a VDI through its owner, so that a gateway needs no inode.
 */
export const OPCODES = {
  CREATE_AND_WRITE_OBJ: op(0x01, 'obj', 'obj'),
  READ_OBJ: op(0x02, 'obj', 'obj'),
  WRITE_OBJ: op(0x03, 'obj', 'obj'),
  REMOVE_OBJ: op(0x04, 'obj', 'obj'),
  DISCARD_OBJ: op(0x05, 'obj', 'obj'),
  /** Body: name[256]; from Collie's own client maybe followed by JSON, `{copiesMin}`. */
  NEW_VDI: op(0x11, 'vdi', 'vdi'),
  LOCK_VDI: op(0x12, 'vdi', 'vdi'),
  RELEASE_VDI: op(0x13, 'vdi', 'vdi'),
  GET_VDI_INFO: op(0x14, 'vdi', 'vdi'),
  READ_VDIS: op(0x15, 'none', 'none'),
  FLUSH_VDI: op(0x16, 'obj', 'obj'),
  DEL_VDI: op(0x17, 'vdi', 'vdi'),
  GET_CLUSTER_DEFAULT: op(0x18, 'none', 'clusterDefault'),
  GET_NODE_LIST: op(0x82, 'none', 'node'),
  MAKE_FS: op(0x84, 'cluster', 'none'),
  SHUTDOWN: op(0x85, 'none', 'none'),
  STAT_SHEEP: op(0x86, 'none', 'node'),
  /** `nodesNr` says for how many nodes each entry of the answer has room. */
  STAT_CLUSTER: op(0x87, 'cluster', 'none'),
  GET_VDI_ATTR: op(0x89, 'vdi', 'vdi'),
  FORCE_RECOVER: op(0x8a, 'none', 'none'),
  GET_STORE_LIST: op(0x90, 'none', 'none'),
  CLEANUP: op(0x94, 'none', 'none'),
  STAT_RECOVERY: op(0x97, 'none', 'none'),
  KILL_NODE: op(0x9a, 'none', 'none'),
  /** The epoch asked for is in `tgtEpoch`. */
  GET_EPOCH: op(0xa2, 'obj', 'node'),
  ENABLE_RECOVER: op(0xa8, 'none', 'none'),
  DISABLE_RECOVER: op(0xa9, 'none', 'none'),
  GET_VDI_COPIES: op(0xab, 'none', 'none'),
  MD_INFO: op(0xb1, 'none', 'none'),
  MD_PLUG: op(0xb2, 'none', 'none'),
  MD_UNPLUG: op(0xb3, 'none', 'none'),
  GET_HASH: op(0xb4, 'obj', 'hash'),
  REWEIGHT: op(0xb5, 'none', 'none'),
  STAT: op(0xb8, 'none', 'none'),
  GET_LOGLEVEL: op(0xb9, 'none', 'none'),
  SET_LOGLEVEL: op(0xba, 'none', 'none'),
  EXIST: op(0xbd, 'obj', 'obj'),
  CLUSTER_INFO: op(0xbe, 'none', 'none'),
  ALTER_CLUSTER_COPY: op(0xbf, 'none', 'none'),
  ALTER_VDI_COPY: op(0xc0, 'none', 'none'),
  DECREF_OBJ: op(0xc1, 'none', 'none'),
  REPAIR_REPLICA: op(0xc5, 'none', 'none'),
  OIDS_EXIST: op(0xc6, 'none', 'none'),
  READ_DEL_VDIS: op(0xc9, 'none', 'none'),
  GET_RECOVERY: op(0xca, 'none', 'none'),
  SET_RECOVERY: op(0xcb, 'none', 'none'),
  SET_VNODES: op(0xcc, 'none', 'none'),
  GET_VNODES: op(0xcd, 'none', 'node'),

  /** Opens a session on `vid`; answers `session` and `vdiSize`. */
  OPEN_VDI: op(0xd0, 'io', 'io'),
  CLOSE_VDI: op(0xd1, 'io', 'io'),
  READ_VDI: op(0xd2, 'io', 'io'),
  /** Flags WRITE and, when it must be durable before the answer, FUA. */
  WRITE_VDI: op(0xd3, 'io', 'io'),
  DISCARD_VDI: op(0xd4, 'io', 'io'),
  ZERO_VDI: op(0xd5, 'io', 'io'),
  FLUSH_VDI_SESSION: op(0xd6, 'io', 'io'),
  /** Answers an array of `extentEntry` (structs.ts) that covers the range from its start, as far as the buffer goes. */
  EXTENTS_VDI: op(0xd7, 'io', 'io'),
  /**
   * Answers JSON, an array of `[length in bytes, mark or null]` that covers a range of whole objects of a snapshot from its start, as far as
   * one answer goes: what has the same mark at the same offset, wherever and whenever, holds the same bytes.
   */
  MARKS_VDI: op(0xe7, 'io', 'io'),
  /** Body: JSON. */
  PUT_EXPORT: op(0xd8, 'io', 'io'),
  REMOVE_EXPORT: op(0xd9, 'io', 'io'),
  /** Body: JSON. */
  LIMIT_EXPORT: op(0xea, 'io', 'io'),
  GET_EXPORT: op(0xda, 'io', 'io'),
  /** Body: the name of a VDI. Answers JSON: the rights to it. */
  LIST_EXPORTS: op(0xdf, 'io', 'io'),
  /** Body: JSON, `{copies, copiesMin?}`, for the working VDI `vid` and its snapshots. */
  ALTER_VDI: op(0xee, 'io', 'io'),
  /** The new size is in `vdiSize`. */
  RESIZE_VDI: op(0xdb, 'io', 'io'),
  /** Body: tag[256]. Answers the new working VDI in `vdiId`. */
  SNAPSHOT_VDI: op(0xdc, 'io', 'io'),
  /** Answers JSON: with a body the VDIs of that name, else those with a vid above `vid`, as many as fit. */
  LIST_VDIS: op(0xdd, 'io', 'io'),
  /** Answers in `vdiSize` how long the VDI of `session` is now. */
  STAT_VDI_SESSION: op(0xef, 'io', 'io'),
  /** Between nodes. Answers JSON: what the VDIs take whose families the node owns. */
  USAGE_VDIS: op(0xed, 'io', 'io'),
  /** Between nodes. Answers JSON: what the node has to copy, and how far it is. */
  RECOVERY_PROGRESS: op(0xec, 'io', 'io'),
  /** Answers JSON: space of the whole store. */
  STAT_STORE: op(0xde, 'io', 'io'),
  /** Body: name[256], tag[256]; or `snapId`. The working VDI becomes what that snapshot holds; answers its new vid. */
  ROLLBACK_VDI: op(0xe0, 'vdi', 'vdi'),
  /** Body: name[256], tag[256]. Answers JSON: the attributes of the VDI or snapshot, without their values. */
  LIST_ATTRIBUTES: op(0xe1, 'io', 'io'),
  /** Answers JSON: the locks of QEMU and tgt. */
  LIST_LOCKS: op(0xe2, 'io', 'io'),
  /** Body: the name of a VDI. Ends the lock on it, and what its holder has under way. */
  UNLOCK_VDI: op(0xe3, 'io', 'io'),
  /** Body: JSON, `{database, replace}`. Answers JSON: the database of the service that drives the store from now on. */
  DRIVE_STORE: op(0xe4, 'io', 'io'),
  /** Body: JSON, `[{name, tag}]`. Snapshots of several VDIs at one moment, all or none. */
  SNAPSHOT_VDIS: op(0xe5, 'io', 'io'),
  /** Body: name[256], tag[256], new name or new tag[256]. Renames a VDI with its snapshots; with a tag, only that snapshot's tag. */
  RENAME_VDI: op(0xe6, 'io', 'io'),
} as const

export type OpcodeName = keyof typeof OPCODES

/** The numbers alone: `OP.READ_OBJ` is 2. */
export const OP = Object.fromEntries(Object.entries(OPCODES).map(([name, { code }]) => [name, code])) as {
  readonly [K in OpcodeName]: (typeof OPCODES)[K]['code']
}

const BY_CODE: (Opcode & { name: OpcodeName })[] = []
for (const [name, opcode] of Object.entries(OPCODES)) BY_CODE[opcode.code] = { ...opcode, name: name as OpcodeName }

/** Variant of an opcode's request; opcodes without a name have only the common fields. */
export const requestVariant = (code: number): RequestVariant => BY_CODE[code]?.request ?? 'none'

export const responseVariant = (code: number): ResponseVariant => BY_CODE[code]?.response ?? 'none'

/** `READ_OBJ` for 2; `0x7f` for a number without a name. */
export function opcodeName(code: number): string {
  return BY_CODE[code]?.name ?? `0x${code.toString(16).padStart(2, '0')}`
}

/** The version that a client of today sends with an opcode. */
export const protoVerOf = (code: number): number => (code < FIRST_SHEEP_OPCODE ? PROTO_VER : SHEEP_PROTO_VER)

/** Whether a sheep takes the opcode with this version. Old clients send 0 or 1 with theirs. */
export function acceptsProtoVer(code: number, protoVer: number): boolean {
  return code < FIRST_SHEEP_OPCODE ? protoVer <= PROTO_VER : protoVer === SHEEP_PROTO_VER
}

/** Whether the response to a request with these flags may carry a body. */
export function mayAnswerBody(flags: number): boolean {
  return (flags & FLAG.WRITE) === 0 || (flags & FLAG.PIGGYBACK) !== 0
}
