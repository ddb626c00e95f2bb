import { NODES_MAX, VDI_ATTR_VALUE_SIZE_BYTES } from './constants.ts'
import { arrayOf, bits64, bytes, nested, struct, text, u8, u16, u32, u64, type ValueOf } from './struct.ts'

/** Bodies of the messages that `dog` and gateways exchange with a sheep, as upstream lays them out on x86-64. */

export const nodeId = struct(40, {
  /** IPv6, or IPv4 in the last 4 bytes after zeros. */
  addr: bytes(0, 16),
  port: u16(16),
  ioAddr: bytes(18, 16),
  ioPort: u16(34),
})

/** Bytes 0..23 are pointers of the sender and mean nothing. */
export const sdNode = struct(80, {
  nid: nested(24, nodeId),
  vnodeCount: u16(64),
  zone: u32(68),
  spaceBytes: u64(72),
})

/** The body of CLUSTER_INFO always has room for NODES_MAX nodes. */
export const clusterInfo = struct(48 + NODES_MAX * sdNode.sizeBytes, {
  protoVer: u8(0),
  disableRecovery: u8(1),
  nodeCount: u16(2),
  epoch: u32(4),
  ctime: bits64(8),
  flags: u16(16),
  copies: u8(18),
  copyPolicy: u8(19),
  status: u8(20),
  blockSizeShift: u8(21),
  defaultStore: text(25, 16),
})

/** Head of one entry of STAT_CLUSTER; `nodeCount` sdNodes follow it. Only the newest entry carries more than the nodes. */
export const epochLogHead = struct(48, {
  ctime: bits64(0),
  time: bits64(8),
  epoch: u32(16),
  nodeCount: u32(20),
  disableRecovery: u8(24),
  copies: u8(25),
  copyPolicy: u8(26),
  flags: u16(30),
  driverName: text(32, 16),
})

/** How many may have a shared lock on a VDI. */
export const PARTICIPANTS_MAX = 31

export const vdiState = struct(1428, {
  vid: u32(0),
  copies: u8(4),
  snapshot: u8(5),
  deleted: u8(6),
  copyPolicy: u8(7),
  blockSizeShift: u8(8),
  parentVid: u32(12),
  /** 1 unlocked, 2 locked, 3 shared. */
  lockState: u32(16),
  lockOwner: nested(20, nodeId),
  participantCount: u32(60),
  participantStates: arrayOf(64, PARTICIPANTS_MAX, u32(0)),
  participants: arrayOf(188, PARTICIPANTS_MAX, nested(0, nodeId)),
})

export const vdiAttr = struct(66320, {
  name: text(0, 256),
  tag: text(256, 256),
  ctime: bits64(512),
  snapId: u32(520),
  valueLength: u32(524),
  key: text(528, 256),
  value: bytes(784, VDI_ATTR_VALUE_SIZE_BYTES),
})

export const recoveryState = struct(24, {
  inRecovery: u8(0),
  /** 0 makes its list, 1 copies objects, 2 tells the others. */
  state: u32(4),
  finished: u64(8),
  total: u64(16),
})

export const recoveryThrottling = struct(24, { objectsMax: u32(0), intervalMs: u64(8), on: u8(16) })

export const mdDisk = struct(4120, { index: u32(0), freeBytes: u64(8), usedBytes: u64(16), path: text(24, 4096) })

export const mdInfo = struct(263688, {
  disks: arrayOf(0, 64, nested(0, mdDisk)),
  diskCount: u32(263680),
})

/** The body of STAT. Counts of peers, between these fields, are zero: requests between nodes are our own. */
export const sdStat = struct(120, {
  gatewayActive: u64(0),
  gatewayTotal: u64(16),
  gatewayReceivedBytes: u64(32),
  gatewaySentBytes: u64(40),
  gatewayRemoves: u64(64),
  gatewayReads: u64(72),
  gatewayWrites: u64(80),
  gatewayFlushes: u64(88),
})

/** One element of the answer to EXTENTS_VDI (Collie's own). */
export const extentEntry = struct(8, { lengthBytes: u32(0), kind: u32(4) })

/** `extentEntry.kind`, by the number on the wire. */
export const EXTENT_KINDS = ['data', 'zero', 'hole'] as const
export type ExtentKind = (typeof EXTENT_KINDS)[number]

/** The body of an answer to EXTENTS_VDI: as many entries as fit in `maxBytes`. */
export function encodeExtents(extents: readonly { lengthBytes: number; kind: ExtentKind }[], maxBytes: number): Buffer {
  const count = Math.min(extents.length, Math.floor(maxBytes / extentEntry.sizeBytes))
  const body = Buffer.alloc(count * extentEntry.sizeBytes)
  for (let i = 0; i < count; i++) {
    const { lengthBytes, kind } = extents[i]!
    extentEntry.encodeInto(body, i * extentEntry.sizeBytes, { lengthBytes, kind: EXTENT_KINDS.indexOf(kind) })
  }
  return body
}

export function decodeExtents(body: Buffer): { lengthBytes: number; kind: ExtentKind }[] {
  return Array.from({ length: Math.floor(body.length / extentEntry.sizeBytes) }, (_, i) => {
    const { lengthBytes, kind } = extentEntry.decode(body, i * extentEntry.sizeBytes)
    return { lengthBytes, kind: EXTENT_KINDS[kind] ?? 'data' }
  })
}

export type NodeId = ValueOf<typeof nodeId>
export type SdNode = ValueOf<typeof sdNode>
export type ClusterInfo = ValueOf<typeof clusterInfo>
export type EpochLogHead = ValueOf<typeof epochLogHead>
export type VdiState = ValueOf<typeof vdiState>
export type VdiAttr = ValueOf<typeof vdiAttr>

/** The body of CLUSTER_INFO. */
export function encodeClusterInfo(info: Partial<Omit<ClusterInfo, 'nodeCount'>>, nodes: readonly SdNode[]): Buffer {
  const body = clusterInfo.encode({ ...info, nodeCount: nodes.length })
  nodes.forEach((node, index) => {
    sdNode.encodeInto(body, 48 + index * sdNode.sizeBytes, node)
  })
  return body
}

/**
 * One entry of STAT_CLUSTER: the head and its nodes. Every entry of an answer has room for `slots` nodes, the number in the
 * request; 0 asks for the head alone. More nodes than slots are a RangeError: the caller answers BUFFER_SMALL instead.
 */
export function encodeEpochLog(
  head: Partial<Omit<EpochLogHead, 'nodeCount'>>,
  nodes: readonly SdNode[],
  slots: number,
): Buffer {
  if (nodes.length > slots) throw new RangeError(`${nodes.length} nodes do not fit into ${slots} slots`)
  const entry = Buffer.alloc(epochLogHead.sizeBytes + slots * sdNode.sizeBytes)
  epochLogHead.encodeInto(entry, 0, { ...head, nodeCount: nodes.length })
  nodes.forEach((node, index) => {
    sdNode.encodeInto(entry, epochLogHead.sizeBytes + index * sdNode.sizeBytes, node)
  })
  return entry
}

/** The 16 address bytes of a node id: `10.0.0.1` or an IPv6 address. Throws a TypeError for anything else. */
export function encodeNodeAddress(host: string): Buffer {
  const address = Buffer.alloc(16)
  const v4 = parseIpv4(host)
  if (v4) {
    address.set(v4, 12)
    return address
  }
  const [head = '', tail, ...rest] = host.split('::')
  const before = parseGroups(head)
  const after = tail === undefined ? [] : parseGroups(tail)
  const fits = tail === undefined ? before?.length === 8 : (before?.length ?? 8) + (after?.length ?? 8) < 8
  if (!before || !after || !fits || rest.length > 0) throw new TypeError(`"${host}" is not an IP address`)
  before.forEach((group, index) => {
    address.writeUInt16BE(group, index * 2)
  })
  after.forEach((group, index) => {
    address.writeUInt16BE(group, 16 - (after.length - index) * 2)
  })
  return address
}

function parseIpv4(host: string): number[] | null {
  const parts = host.split('.')
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256)) return null
  return parts.map(Number)
}

function parseGroups(part: string): number[] | null {
  if (part === '') return []
  const groups = part.split(':')
  return groups.every((group) => /^[\da-f]{1,4}$/i.test(group))
    ? groups.map((group) => Number.parseInt(group, 16))
    : null
}
