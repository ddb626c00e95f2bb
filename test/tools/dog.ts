import { SheepConversation, SheepRefusal } from './sheep-conversation.ts'
import {
  ATTR_BYTES,
  attrOid,
  CLUSTER_INFO_BYTES,
  type ClusterInfo,
  type DiskInfo,
  dataOid,
  type EpochLog,
  FLAG,
  INODE_BYTES,
  INODE_HEADER_BYTES,
  INODE_MAP_ENTRIES,
  Inode,
  inodeOid,
  MD_INFO_BYTES,
  mapOffset,
  NAME_BYTES,
  type Node,
  OBJECT_BYTES,
  parseClusterInfo,
  parseEpochLogs,
  parseMdInfo,
  parseNodes,
  parseVdiStates,
  RESULT,
  textField,
  type VdiState,
} from './sheep-layouts.ts'

const OP = {
  RELEASE_VDI: 0x13,
  GET_VDI_INFO: 0x14,
  READ_VDIS: 0x15,
  DEL_VDI: 0x17,
  GET_NODE_LIST: 0x82,
  MAKE_FS: 0x84,
  STAT_SHEEP: 0x86,
  STAT_CLUSTER: 0x87,
  GET_VDI_ATTR: 0x89,
  GET_STORE_LIST: 0x90,
  STAT_RECOVERY: 0x97,
  GET_VDI_COPIES: 0xab,
  MD_INFO: 0xb1,
  GET_HASH: 0xb4,
  STAT: 0xb8,
  GET_LOGLEVEL: 0xb9,
  SET_LOGLEVEL: 0xba,
  EXIST: 0xbd,
  CLUSTER_INFO: 0xbe,
  OIDS_EXIST: 0xc6,
  READ_DEL_VDIS: 0xc9,
} as const

const ATTR_FLAG = { CREATE: 0x100, EXCLUSIVE: 0x200, DELETE: 0x400 } as const

const NODE_TABLE_BYTES = 491_520
const VID_BITMAP_BYTES = 1 << 21
/** `dog vdi list` reads the header of an inode with a bit of what follows. */
const LISTED_HEADER_BYTES = INODE_HEADER_BYTES + 8
/** Allocated entries of the map that one write of `dog vdi delete` zeroes. */
const DELETE_BATCH = 128
const STAT_COUNTERS = 15

/** Where `dog vdi object location` found an object. */
export type Location = 'found' | 'absent'

/**
 * The `dog` of upstream 1.0, by what it sends: each method is a command, on a connection of its own, frame for frame.
 * A command that fails rejects with a SheepRefusal.
 */
export class Dog {
  readonly #address: string

  /** `host:port` or the path of a unix socket. */
  constructor(address: string) {
    this.#address = address
  }

  /** `vdi list`: working VDIs and snapshots, each with its map as far as it is used. */
  list(): Promise<Inode[]> {
    return this.#command(async (sheep) => {
      const used = (await sheep.ask({ opcode: OP.READ_VDIS, dataLength: VID_BITMAP_BYTES })).body
      const deleted = (await sheep.ask({ opcode: OP.READ_DEL_VDIS, dataLength: VID_BITMAP_BYTES })).body
      const inodes: Inode[] = []
      for (const vid of bitsOf(used)) {
        if (isSet(deleted, vid)) continue
        const head = await sheep.readObject({ oid: inodeOid(vid) }, LISTED_HEADER_BYTES)
        const inode = new Inode(head)
        if (inode.name === '') continue
        const restBytes = Math.max(0, mapOffset(objectCount(inode)) - head.length)
        const rest = await sheep.readObject({ oid: inodeOid(vid), offset: head.length }, restBytes)
        inodes.push(new Inode(Buffer.concat([head, rest])))
      }
      return inodes
    })
  }

  /** `vdi create [-P]`; resolves with the vid. */
  create(name: string, sizeBytes: number, { preallocate = false } = {}): Promise<number> {
    return this.#command(async (sheep) => {
      await sheep.ask({ opcode: OP.CLUSTER_INFO, dataLength: CLUSTER_INFO_BYTES })
      const vid = await sheep.newVdi(name, sizeBytes)
      if (preallocate) {
        const inode = await readInode(sheep, vid)
        for (let index = 0; index < objectCount(inode); index++) {
          await sheep.createObject({ oid: dataOid(vid, index), flags: FLAG.DIRECT }, Buffer.alloc(0))
          await writeOwner(sheep, vid, index)
        }
      }
      return vid
    })
  }

  /** `vdi snapshot -s`; resolves with the vid of the new working VDI. */
  snapshot(name: string, tag: string): Promise<number> {
    return this.#command(async (sheep) => {
      const taken = await sheep.askForVdi({ ...lookup(name, { tag }), expected: [RESULT.NO_TAG] })
      if (taken.result === RESULT.SUCCESS) throw new SheepRefusal(`the tag ${tag} is taken`, RESULT.VDI_EXIST)
      const { vid } = await sheep.askForVdi(lookup(name))
      const inode = await readInode(sheep, vid, INODE_HEADER_BYTES)
      await sheep.writeObject({ oid: inodeOid(vid), offset: NAME_BYTES, flags: FLAG.DIRECT }, textField(tag))
      return sheep.newVdi(name, inode.sizeBytes, { base: inode, isSnapshot: true })
    })
  }

  /** `vdi clone -s`; resolves with the vid. */
  clone(name: string, tag: string, newName: string): Promise<number> {
    return this.#command(async (sheep) => {
      const { vid } = await sheep.askForVdi(lookup(name, { tag }))
      const base = await readInode(sheep, vid)
      return sheep.newVdi(newName, base.sizeBytes, { base })
    })
  }

  /** `vdi rollback -s -f`; resolves with the vid of the new working VDI. */
  rollback(name: string, tag: string): Promise<number> {
    return this.#command(async (sheep) => {
      const { vid } = await sheep.askForVdi(lookup(name, { tag }))
      const base = await readInode(sheep, vid, INODE_HEADER_BYTES)
      await deleteVdi(sheep, name)
      return sheep.newVdi(name, base.sizeBytes, { base })
    })
  }

  /** `vdi delete [-s]`. */
  delete(name: string, tag = ''): Promise<void> {
    return this.#command((sheep) => deleteVdi(sheep, name, tag))
  }

  /** `vdi read [-s]`. */
  read(name: string, offset: number, lengthBytes: number, tag = ''): Promise<Buffer> {
    return this.#command(async (sheep) => {
      const { vid } = await sheep.askForVdi(lookup(name, { tag }))
      const inode = await readInode(sheep, vid)
      const parts: Buffer[] = []
      for (const { index, start, lengthBytes: partBytes } of cut(offset, lengthBytes)) {
        const owner = inode.ownerOf(index)
        const range = { oid: dataOid(owner, index), offset: start }
        parts.push(owner === 0 ? Buffer.alloc(partBytes) : await sheep.readObject(range, partBytes))
      }
      return Buffer.concat(parts)
    })
  }

  /** `vdi write`. */
  write(name: string, offset: number, data: Buffer): Promise<void> {
    return this.#command(async (sheep) => {
      const { vid } = await sheep.askForVdi(lookup(name))
      const inode = await readInode(sheep, vid)
      let done = 0
      for (const { index, start, lengthBytes } of cut(offset, data.length)) {
        const part = data.subarray(done, done + lengthBytes)
        const range = { oid: dataOid(vid, index), offset: start, flags: FLAG.DIRECT }
        const owner = inode.ownerOf(index)
        if (owner === vid) {
          await sheep.writeObject(range, part)
        } else {
          await sheep.createObject(range, part, owner === 0 ? 0n : dataOid(owner, index))
          await writeOwner(sheep, vid, index)
        }
        done += lengthBytes
      }
    })
  }

  /** `vdi resize`. */
  resize(name: string, sizeBytes: number): Promise<void> {
    return this.#command(async (sheep) => {
      const { vid } = await sheep.askForVdi(lookup(name))
      const { bytes } = await readInode(sheep, vid, INODE_HEADER_BYTES)
      bytes.writeBigUInt64LE(BigInt(sizeBytes), 536)
      await sheep.writeObject({ oid: inodeOid(vid), flags: FLAG.DIRECT }, bytes)
    })
  }

  /** The inode as every command reads it that works on data. */
  inode(name: string, tag = ''): Promise<Inode> {
    return this.#command(async (sheep) => readInode(sheep, (await sheep.askForVdi(lookup(name, { tag }))).vid))
  }

  /** `vdi setattr [-x]`; resolves with the id of the attribute's object. */
  setAttribute(name: string, key: string, value: Buffer, { exclusive = false } = {}): Promise<bigint> {
    const flags = ATTR_FLAG.CREATE | (exclusive ? ATTR_FLAG.EXCLUSIVE : 0)
    return this.#command((sheep) => askForAttribute(sheep, name, key, flags, value))
  }

  /** `vdi setattr -d`. */
  deleteAttribute(name: string, key: string): Promise<void> {
    return this.#command(async (sheep) => void (await askForAttribute(sheep, name, key, ATTR_FLAG.DELETE)))
  }

  /** `vdi getattr`. */
  attribute(name: string, key: string): Promise<Buffer> {
    return this.#command(async (sheep) => {
      const oid = await askForAttribute(sheep, name, key, 0)
      const attribute = await sheep.readObject({ oid }, ATTR_BYTES)
      return attribute.subarray(784, 784 + attribute.readUInt32LE(524))
    })
  }

  /** `vdi check`: the SHA-1 of each object of the VDI by its id, the inode's included. */
  check(name: string, tag = ''): Promise<Map<bigint, string>> {
    return this.#command(async (sheep) => {
      const { vid } = await sheep.askForVdi(lookup(name, { tag }))
      const hashes = new Map<bigint, string>()
      for (const oid of objectsOf(await readInode(sheep, vid))) {
        const { header } = await sheep.ask({
          opcode: OP.GET_HASH,
          fields: [
            [16, 8, oid],
            [36, 4, 1],
          ],
        })
        hashes.set(oid, header.toString('hex', 24, 44))
      }
      return hashes
    })
  }

  /** `vdi check -e`: the objects of the VDI that are not there; `others` are asked for with them. */
  missingObjects(name: string, others: readonly bigint[] = []): Promise<bigint[]> {
    return this.#command(async (sheep) => {
      const { vid } = await sheep.askForVdi(lookup(name))
      const oids = [...objectsOf(await readInode(sheep, vid)), ...others]
      const body = Buffer.from(BigUint64Array.from(oids).buffer)
      const answer = await sheep.ask({ opcode: OP.OIDS_EXIST, flags: FLAG.PIGGYBACK, body })
      return Array.from({ length: answer.body.length / 8 }, (_, i) => answer.body.readBigUInt64LE(8 * i))
    })
  }

  /** `vdi object location`. */
  locate(oid: bigint): Promise<Location> {
    return this.#command(async (sheep) => {
      const { result } = await sheep.ask({ opcode: OP.EXIST, fields: [[16, 8, oid]], expected: [RESULT.NO_OBJ] })
      return result === RESULT.SUCCESS ? 'found' : 'absent'
    })
  }

  /** `vdi lock list`. `room` is for how many VDIs the first question has room; dog itself begins with 512. */
  locks(room = 512): Promise<VdiState[]> {
    return this.#command(async (sheep) => {
      for (let count = room; ; count *= 2) {
        const question = { opcode: OP.GET_VDI_COPIES, dataLength: count * 1428 }
        const { result, body } = await sheep.ask({ ...question, expected: [RESULT.BUFFER_SMALL] })
        if (result === RESULT.SUCCESS) return parseVdiStates(body)
      }
    })
  }

  /** `vdi lock unlock`. */
  unlock(name: string): Promise<void> {
    return this.#command(async (sheep) => {
      const { vid } = await sheep.askForVdi(lookup(name))
      await sheep.ask({ opcode: OP.RELEASE_VDI, fields: [[24, 4, vid]] })
    })
  }

  /** `node list`. */
  nodes(): Promise<Node[]> {
    return this.#command(async (_sheep, nodes) => nodes)
  }

  /** `node info`. */
  nodeInfo(): Promise<{ totalBytes: number; freeBytes: number }> {
    return this.#command(async (sheep) => {
      const { header } = await sheep.ask({ opcode: OP.STAT_SHEEP })
      return { totalBytes: Number(header.readBigUInt64LE(32)), freeBytes: Number(header.readBigUInt64LE(40)) }
    })
  }

  /** `node md info`. */
  disks(): Promise<DiskInfo[]> {
    return this.#command(async (sheep) => {
      const { body } = await sheep.ask({ opcode: OP.MD_INFO, dataLength: MD_INFO_BYTES })
      if (body.length !== MD_INFO_BYTES) throw new Error(`md info of ${body.length} bytes`)
      return parseMdInfo(body)
    })
  }

  /** `node stat`: the counters in the order of the wire. */
  counters(): Promise<bigint[]> {
    return this.#command(async (sheep) => {
      const { body } = await sheep.ask({ opcode: OP.STAT, dataLength: 8 * STAT_COUNTERS })
      return Array.from({ length: STAT_COUNTERS }, (_, i) => body.readBigUInt64LE(8 * i))
    })
  }

  /** `node recovery`. */
  isRecovering(): Promise<boolean> {
    return this.#command(async (sheep) => {
      const { body } = await sheep.ask({ opcode: OP.STAT_RECOVERY, dataLength: 24 })
      return body.readUInt8(0) === 1
    })
  }

  /** `node log level get`: 0 (emergency) to 7 (debug). */
  logLevel(): Promise<number> {
    return this.#command(async (sheep) => {
      return (await sheep.ask({ opcode: OP.GET_LOGLEVEL, dataLength: 4 })).body.readInt32LE(0)
    })
  }

  /** `node log level set`. */
  setLogLevel(level: number): Promise<void> {
    return this.#command(async (sheep) => {
      const body = Buffer.alloc(4)
      body.writeInt32LE(level)
      await sheep.ask({ opcode: OP.SET_LOGLEVEL, body })
    })
  }

  /** What `vdi create`, `cluster format` and `alter-copy` ask before they begin. */
  clusterInfo(): Promise<ClusterInfo> {
    return this.#command(async (sheep) => {
      const { body } = await sheep.ask({ opcode: OP.CLUSTER_INFO, dataLength: CLUSTER_INFO_BYTES })
      if (body.length !== CLUSTER_INFO_BYTES) throw new Error(`cluster info of ${body.length} bytes`)
      return parseClusterInfo(body)
    })
  }

  /** `cluster info`: the history of the cluster, newest first. */
  epochs(): Promise<EpochLog[]> {
    return this.#command(async (sheep, nodes) => {
      const slots = nodes.length
      for (let dataLength = 48 + 80 * slots; ; dataLength *= 2) {
        const fields = [[40, 4, slots]] as const
        const question = { opcode: OP.STAT_CLUSTER, dataLength, fields, expected: [RESULT.BUFFER_SMALL] }
        const { result, body } = await sheep.ask(question)
        if (result === RESULT.SUCCESS) return parseEpochLogs(body, slots)
      }
    })
  }

  /** `cluster format`: the stores to choose from. */
  stores(): Promise<string[]> {
    return this.#command(async (sheep) => {
      const { body } = await sheep.ask({ opcode: OP.GET_STORE_LIST, dataLength: 512 })
      return body.toString().replaceAll('\0', '').trim().split(/\s+/)
    })
  }

  /** `cluster format`. */
  format(store: string, copies: number): Promise<void> {
    return this.#command(async (sheep) => {
      const fields = [
        [24, 8, 1n << 32n],
        [32, 1, copies],
        [44, 1, 22],
      ] as const
      await sheep.ask({ opcode: OP.MAKE_FS, body: Buffer.from(`${store}\0`), fields })
    })
  }

  /** Every command first asks for the nodes. */
  async #command<T>(run: (sheep: SheepConversation, nodes: Node[]) => Promise<T>): Promise<T> {
    const sheep = await SheepConversation.connect(this.#address)
    try {
      const list = await sheep.ask({ opcode: OP.GET_NODE_LIST, dataLength: NODE_TABLE_BYTES })
      const nodes = parseNodes(list.body)
      if (nodes.length === 0 || nodes.length !== list.header.readUInt32LE(20)) throw new Error('no nodes')
      const [newest] = parseEpochLogs((await sheep.ask({ opcode: OP.STAT_CLUSTER, dataLength: 48 })).body, 0)
      if (newest === undefined || newest.ctime === 0n) throw new Error('the cluster was never formatted')
      return await run(sheep, nodes)
    } finally {
      sheep.close()
    }
  }
}

/** GET_VDI_INFO. */
function lookup(name: string, { tag = '', snapId = 0 } = {}) {
  const body = Buffer.concat([textField(name), textField(tag)])
  return { opcode: OP.GET_VDI_INFO, body, fields: [[32, 4, snapId]] as const }
}

async function readInode(sheep: SheepConversation, vid: number, lengthBytes = INODE_BYTES): Promise<Inode> {
  const inode = new Inode(await sheep.readObject({ oid: inodeOid(vid) }, lengthBytes))
  if (inode.vid !== vid) throw new Error(`the inode of ${vid} says that it is ${inode.vid}`)
  return inode
}

async function writeOwner(sheep: SheepConversation, vid: number, index: number): Promise<void> {
  const entry = Buffer.alloc(4)
  entry.writeUInt32LE(vid)
  await sheep.writeObject({ oid: inodeOid(vid), offset: mapOffset(index), flags: FLAG.DIRECT }, entry)
}

/** dog gives the references back itself, before it deletes: zeros over the map, so many entries at a time. */
async function deleteVdi(sheep: SheepConversation, name: string, tag = ''): Promise<void> {
  const { vid } = await sheep.askForVdi(lookup(name, { tag }))
  const inode = await readInode(sheep, vid)
  const allocated = inode.allocated()
  for (let i = 0; i < allocated.length; i += DELETE_BATCH) {
    const first = allocated[i]!
    const last = allocated[Math.min(i + DELETE_BATCH, allocated.length) - 1]!
    const zeros = Buffer.alloc(4 * (last - first + 1))
    await sheep.writeObject({ oid: inodeOid(vid), offset: mapOffset(first), flags: FLAG.DIRECT }, zeros)
  }
  const body = Buffer.concat([textField(name), textField(tag)])
  await sheep.ask({ opcode: OP.DEL_VDI, body })
}

/** GET_VDI_ATTR; resolves with the id of the attribute's object. */
async function askForAttribute(sheep: SheepConversation, name: string, key: string, flags: number, value?: Buffer) {
  const body = Buffer.alloc(ATTR_BYTES)
  body.write(name, 0)
  body.write(key, 528)
  body.writeUInt32LE(value?.length ?? 0, 524)
  value?.copy(body, 784)
  const { header } = await sheep.ask({ opcode: OP.GET_VDI_ATTR, flags, body })
  return attrOid(header.readUInt32LE(24), header.readUInt32LE(28))
}

function objectsOf(inode: Inode): bigint[] {
  return [inodeOid(inode.vid), ...inode.allocated().map((index) => dataOid(inode.ownerOf(index), index))]
}

const objectCount = ({ sizeBytes }: Inode) => Math.min(INODE_MAP_ENTRIES, Math.ceil(sizeBytes / OBJECT_BYTES))

/** The pieces of a range by object. */
function* cut(offset: number, lengthBytes: number): Generator<{ index: number; start: number; lengthBytes: number }> {
  for (let at = offset; at < offset + lengthBytes; ) {
    const start = at % OBJECT_BYTES
    const length = Math.min(OBJECT_BYTES - start, offset + lengthBytes - at)
    yield { index: Math.floor(at / OBJECT_BYTES), start, lengthBytes: length }
    at += length
  }
}

const isSet = (bitmap: Buffer, bit: number) => ((bitmap[bit >>> 3]! >>> (bit & 7)) & 1) === 1

function* bitsOf(bitmap: Buffer): Generator<number> {
  if (bitmap.length !== VID_BITMAP_BYTES) throw new Error(`a bitmap of ${bitmap.length} bytes`)
  const words = new Uint32Array(VID_BITMAP_BYTES / 4)
  bitmap.copy(Buffer.from(words.buffer))
  for (const [at, word] of words.entries()) {
    for (let bit = 0; word !== 0 && bit < 32; bit++) if ((word >>> bit) & 1) yield at * 32 + bit
  }
}
