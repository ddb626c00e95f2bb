/**
 * Numbers and layouts of the Sheepdog protocol for test clients, written down a second time from the upstream headers:
 * a client that shared them with the server would share its mistakes.
 */
export const FLAG = { WRITE: 0x01, COW: 0x02, CACHE: 0x04, DIRECT: 0x08, PIGGYBACK: 0x10, TGT: 0x20 } as const

export const RESULT = {
  SUCCESS: 0x00,
  NO_OBJ: 0x02,
  VDI_EXIST: 0x04,
  INVALID_PARMS: 0x05,
  VDI_LOCKED: 0x07,
  NO_VDI: 0x08,
  NO_TAG: 0x0e,
  VDI_NOT_LOCKED: 0x10,
  READONLY: 0x1a,
  BUFFER_SMALL: 0x88,
} as const

export const OBJECT_BYTES = 4 << 20
export const NAME_BYTES = 256
export const INODE_HEADER_BYTES = 4664
export const INODE_MAP_ENTRIES = 1 << 20
/** What QEMU and tgt read. */
export const INODE_CLIENT_BYTES = 4_198_968
/** What `dog` reads. */
export const INODE_BYTES = 12_587_576

export const inodeOid = (vid: number) => (1n << 63n) | (BigInt(vid) << 32n)
export const vmstateOid = (vid: number, index: number) => (1n << 62n) | dataOid(vid, index)
export const attrOid = (vid: number, attrId: number) => (1n << 61n) | (BigInt(vid) << 32n) | BigInt(attrId)
export const dataOid = (vid: number, index: number) => (BigInt(vid) << 32n) | BigInt(index)

/** The header of an inode and, as far as it was read, the map behind it. */
export class Inode {
  readonly bytes: Buffer

  constructor(bytes: Buffer) {
    if (bytes.length < INODE_HEADER_BYTES) throw new Error(`an inode of ${bytes.length} bytes`)
    this.bytes = bytes
  }

  get name(): string {
    return textAt(this.bytes, 0, NAME_BYTES)
  }

  get tag(): string {
    return textAt(this.bytes, 256, NAME_BYTES)
  }

  get createTime(): bigint {
    return this.bytes.readBigUInt64LE(512)
  }

  get snapshotTime(): bigint {
    return this.bytes.readBigUInt64LE(520)
  }

  get vmClockNsec(): bigint {
    return this.bytes.readBigUInt64LE(528)
  }

  get sizeBytes(): number {
    return Number(this.bytes.readBigUInt64LE(536))
  }

  get vmStateBytes(): number {
    return Number(this.bytes.readBigUInt64LE(544))
  }

  get copyPolicy(): number {
    return this.bytes.readUInt8(552)
  }

  get storePolicy(): number {
    return this.bytes.readUInt8(553)
  }

  get copies(): number {
    return this.bytes.readUInt8(554)
  }

  get blockSizeShift(): number {
    return this.bytes.readUInt8(555)
  }

  get snapId(): number {
    return this.bytes.readUInt32LE(556)
  }

  get vid(): number {
    return this.bytes.readUInt32LE(560)
  }

  get parentVid(): number {
    return this.bytes.readUInt32LE(564)
  }

  /** The vid that owns the object of this index; 0 when there is none. */
  ownerOf(index: number): number {
    return this.bytes.readUInt32LE(mapOffset(index))
  }

  /** The indexes that have an object. */
  allocated(): number[] {
    const count = Math.min(INODE_MAP_ENTRIES, (this.bytes.length - INODE_HEADER_BYTES) >>> 2)
    const indexes: number[] = []
    for (let index = 0; index < count; index++) if (this.ownerOf(index) !== 0) indexes.push(index)
    return indexes
  }
}

export const mapOffset = (index: number) => INODE_HEADER_BYTES + 4 * index

/** Text up to the first NUL, which must be there, with zeros after it. */
export function textAt(bytes: Buffer, offset: number, sizeBytes: number): string {
  const field = bytes.subarray(offset, offset + sizeBytes)
  const end = field.indexOf(0)
  if (end === -1 || field.subarray(end).some((byte) => byte !== 0))
    throw new Error(`not a text: ${field.toString('hex')}`)
  return field.toString('utf8', 0, end)
}

/** A text in a field of `sizeBytes`, padded with zeros. */
export function textField(text: string, sizeBytes = NAME_BYTES): Buffer {
  const field = Buffer.alloc(sizeBytes)
  field.write(text)
  return field
}

/** FNV-1a with 64 bits over all `parts`, one after the other. */
export function fnv1a(...parts: readonly Buffer[]): bigint {
  let hash = 0xcbf29ce484222325n
  for (const part of parts) {
    for (const byte of part) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n)
  }
  return hash
}

/** The vid at which a name's run begins. */
export const firstVidOf = (name: string) => Number(fnv1a(Buffer.from(name)) & 0xff_ffffn) || 1

/** An element of GET_VDI_COPIES. */
export interface VdiState {
  vid: number
  copies: number
  isSnapshot: boolean
  isDeleted: boolean
  copyPolicy: number
  blockSizeShift: number
  parentVid: number
  lock: 'unlocked' | 'locked' | 'shared'
  /** `address:port` of the node whose client has the lock, when there is one. */
  lockOwner: NodeAddress
  participants: NodeAddress[]
}

export interface NodeAddress {
  host: string
  port: number
}

const VDI_STATE_BYTES = 1428
const LOCKS = ['', 'unlocked', 'locked', 'shared'] as const

export function parseVdiStates(bytes: Buffer): VdiState[] {
  return elements(bytes, VDI_STATE_BYTES).map((state) => {
    const lock = LOCKS[state.readUInt32LE(16)]
    if (!lock) throw new Error(`lock state ${state.readUInt32LE(16)}`)
    const count = state.readUInt32LE(60)
    return {
      vid: state.readUInt32LE(0),
      copies: state.readUInt8(4),
      isSnapshot: state.readUInt8(5) === 1,
      isDeleted: state.readUInt8(6) === 1,
      copyPolicy: state.readUInt8(7),
      blockSizeShift: state.readUInt8(8),
      parentVid: state.readUInt32LE(12),
      lock,
      lockOwner: nodeAddress(state, 20),
      participants: Array.from({ length: count }, (_, i) => nodeAddress(state, 188 + 40 * i)),
    }
  })
}

export interface Node extends NodeAddress {
  vnodes: number
  zone: number
  spaceBytes: number
}

const NODE_BYTES = 80

export function parseNodes(bytes: Buffer): Node[] {
  return elements(bytes, NODE_BYTES).map((node) => ({
    ...nodeAddress(node, 24),
    vnodes: node.readUInt16LE(64),
    zone: node.readUInt32LE(68),
    spaceBytes: Number(node.readBigUInt64LE(72)),
  }))
}

function nodeAddress(bytes: Buffer, offset: number): NodeAddress {
  return {
    host: [...bytes.subarray(offset + 12, offset + 16)].join('.'),
    port: bytes.readUInt16LE(offset + 16),
  }
}

/** Head of an entry of STAT_CLUSTER, and its nodes. */
export interface EpochLog {
  ctime: bigint
  time: bigint
  epoch: number
  copies: number
  copyPolicy: number
  flags: number
  driver: string
  nodes: Node[]
}

const EPOCH_HEAD_BYTES = 48

/** `slots`: for how many nodes each entry has room. */
export function parseEpochLogs(bytes: Buffer, slots: number): EpochLog[] {
  return elements(bytes, EPOCH_HEAD_BYTES + slots * NODE_BYTES).map((entry) => ({
    ctime: entry.readBigUInt64LE(0),
    time: entry.readBigUInt64LE(8),
    epoch: entry.readUInt32LE(16),
    copies: entry.readUInt8(25),
    copyPolicy: entry.readUInt8(26),
    flags: entry.readUInt16LE(30),
    driver: textAt(entry, 32, 16),
    nodes: parseNodes(entry.subarray(EPOCH_HEAD_BYTES)).slice(0, slots === 0 ? 0 : entry.readUInt32LE(20)),
  }))
}

export const CLUSTER_INFO_BYTES = 491_568

export interface ClusterInfo {
  protoVer: number
  epoch: number
  ctime: bigint
  flags: number
  copies: number
  copyPolicy: number
  /** 1 OK, 2 waiting, 3 shut down, 4 killed. */
  status: number
  blockSizeShift: number
  store: string
  nodes: Node[]
}

export function parseClusterInfo(bytes: Buffer): ClusterInfo {
  const count = bytes.readInt16LE(2)
  return {
    protoVer: bytes.readUInt8(0),
    epoch: bytes.readUInt32LE(4),
    ctime: bytes.readBigUInt64LE(8),
    flags: bytes.readUInt16LE(16),
    copies: bytes.readUInt8(18),
    copyPolicy: bytes.readUInt8(19),
    status: bytes.readUInt8(20),
    blockSizeShift: bytes.readUInt8(21),
    store: textAt(bytes, 25, 16),
    nodes: parseNodes(bytes.subarray(48, 48 + count * NODE_BYTES)),
  }
}

export const MD_INFO_BYTES = 263_688
const MD_DISK_BYTES = 4120
const MD_COUNT_OFFSET = 263_680

export interface DiskInfo {
  index: number
  freeBytes: number
  usedBytes: number
  path: string
}

export function parseMdInfo(bytes: Buffer): DiskInfo[] {
  const disks = elements(bytes.subarray(0, bytes.readInt32LE(MD_COUNT_OFFSET) * MD_DISK_BYTES), MD_DISK_BYTES)
  return disks.map((disk) => ({
    index: disk.readInt32LE(0),
    freeBytes: Number(disk.readBigUInt64LE(8)),
    usedBytes: Number(disk.readBigUInt64LE(16)),
    path: textAt(disk, 24, 4096),
  }))
}

export const ATTR_BYTES = 66_320

function elements(bytes: Buffer, sizeBytes: number): Buffer[] {
  if (bytes.length % sizeBytes !== 0) throw new Error(`${bytes.length} bytes are no array of elements of ${sizeBytes}`)
  return Array.from({ length: bytes.length / sizeBytes }, (_, i) => bytes.subarray(i * sizeBytes, (i + 1) * sizeBytes))
}
