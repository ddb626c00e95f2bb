import { expect } from 'vitest'
import { frame, type RawRequest, type RawResponse, RawSheepClient } from '../../tools/raw-sheep-client.ts'

/*
 * Frames as QEMU, tgt and `dog` put them on the wire, with every number written by hand: opcodes, flags, offsets of fields.
 */
export const MIB = 1024 * 1024
export const OBJECT = 4 * MIB
/** Where the block map begins in an inode. */
export const MAP = 4664
export const INODE_BYTES = 12587576

export const WRITE = 0x01
export const COW = 0x02
export const CACHE = 0x04
export const TGT = 0x20

export const SUCCESS = 0x00
export const NO_OBJ = 0x02
export const VDI_EXIST = 0x04
export const INVALID_PARMS = 0x05
export const VDI_LOCKED = 0x07
export const NO_VDI = 0x08
export const NO_TAG = 0x0e
export const VDI_NOT_LOCKED = 0x10
export const READONLY = 0x1a
export const BUFFER_SMALL = 0x88
export const NO_SUPPORT = 0x8b
export const VDI_NOT_EMPTY = 0x92

export const QEMU = 0
export const TGT_VER = 1
export const DOG = 2
/** Of opcodes from 0x80 on. */
export const ADMIN = 0x0a

export const dataOid = (vid: number, index: number) => (BigInt(vid) << 32n) | BigInt(index)
export const inodeOid = (vid: number) => 0x8000_0000_0000_0000n | (BigInt(vid) << 32n)
export const vmstateOid = (vid: number, index: number) => 0x4000_0000_0000_0000n | dataOid(vid, index)
export const attrOid = (vid: number, id: number) => 0x2000_0000_0000_0000n | dataOid(vid, id)

export const field = (text: string, bytes = 256) => Buffer.concat([Buffer.from(text)], bytes)
export const u32s = (...values: number[]) => Buffer.concat(values.map((value) => u32(value)))
export const vidOf = ({ header }: RawResponse) => header.readUInt32LE(24)

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

/** One kind of client on one connection, one request at a time. */
export class Foreign {
  readonly connection: RawSheepClient
  readonly #protoVer: number
  #lastId = 0

  private constructor(connection: RawSheepClient, protoVer: number) {
    this.connection = connection
    this.#protoVer = protoVer
  }

  static async connect(address: string, protoVer: number): Promise<Foreign> {
    return new Foreign(await RawSheepClient.connect(address), protoVer)
  }

  send(request: RawRequest): Promise<RawResponse> {
    const protoVer = request.opcode < 0x80 ? this.#protoVer : ADMIN
    return this.connection.request({ protoVer, id: ++this.#lastId, ...request })
  }

  /** Several in one go; answers in the order of the requests. */
  async sendAll(requests: RawRequest[]): Promise<RawResponse[]> {
    const frames = requests.map((request, i) => frame({ protoVer: this.#protoVer, ...request, id: i }))
    this.connection.send(Buffer.concat(frames))
    const answers: RawResponse[] = []
    for (const _ of requests) {
      const answer = await this.connection.receive()
      answers[answer.id] = answer
    }
    return answers
  }

  readObj(oid: bigint, offset: number, dataLength: number, flags = CACHE): Promise<RawResponse> {
    return this.send(readObj(oid, offset, dataLength, flags))
  }

  async write(oid: bigint, offset: number, body: Buffer, flags = CACHE): Promise<number> {
    return (await this.send(writeObj(oid, offset, body, flags))).result
  }

  async create(oid: bigint, offset: number, body: Buffer, flags = CACHE, cowOid = 0n): Promise<number> {
    return (await this.send(createObj(oid, offset, body, flags, cowOid))).result
  }

  /** CREATE_AND_WRITE and the entry in the map, as a client does it. */
  async allocate(vid: number, index: number, byte: number, bytes = 4096): Promise<void> {
    expect(await this.create(dataOid(vid, index), 0, Buffer.alloc(bytes, byte))).toBe(SUCCESS)
    expect(await this.setEntries(vid, index, vid)).toBe(SUCCESS)
  }

  setEntries(vid: number, index: number, ...values: number[]): Promise<number> {
    return this.write(inodeOid(vid), MAP + 4 * index, u32s(...values))
  }

  async entries(vid: number, index: number, count: number, flags = CACHE): Promise<number[]> {
    const { body } = await this.readObj(inodeOid(vid), MAP + 4 * index, 4 * count, flags)
    return Array.from({ length: count }, (_, i) => body.readUInt32LE(4 * i))
  }

  async newVdi(name: string, sizeBytes: number, { base = 0, snapId = 0, copies = 0 } = {}): Promise<RawResponse> {
    return this.send({
      opcode: 0x11,
      flags: WRITE,
      body: field(name),
      fields: [
        [16, 8, sizeBytes],
        [24, 4, base],
        [28, 1, copies],
        [32, 4, snapId],
      ],
    })
  }

  async made(name: string, sizeBytes: number, options = {}): Promise<number> {
    const answer = await this.newVdi(name, sizeBytes, options)
    expect(answer.result).toBe(SUCCESS)
    return vidOf(answer)
  }

  info(name: string, tag = '', snapId = 0): Promise<RawResponse> {
    return this.#named(0x14, name, tag, snapId)
  }

  lock(name: string, { tag = '', shared = false } = {}): Promise<RawResponse> {
    const fields = [[36, 4, shared ? 1 : 0]] as const
    return this.send({ opcode: 0x12, flags: WRITE, body: Buffer.concat([field(name), field(tag)]), fields })
  }

  async release(vid: number, { shared = false } = {}): Promise<number> {
    const fields = [
      [24, 4, vid],
      [36, 4, shared ? 1 : 0],
    ] as const
    return (await this.send({ opcode: 0x13, fields })).result
  }

  remove(name: string, tag = '', snapId = 0): Promise<RawResponse> {
    return this.#named(0x17, name, tag, snapId)
  }

  #named(opcode: number, name: string, tag: string, snapId: number): Promise<RawResponse> {
    const body = Buffer.concat([field(name), field(tag)])
    return this.send({ opcode, flags: WRITE, body, fields: [[32, 4, snapId]] })
  }
}

export const readObj = (oid: bigint, offset: number, dataLength: number, flags = CACHE): RawRequest => ({
  opcode: 0x02,
  flags,
  dataLength,
  fields: object(oid, offset),
})

export const writeObj = (oid: bigint, offset: number, body: Buffer, flags = CACHE): RawRequest => ({
  opcode: 0x03,
  flags: WRITE | flags,
  body,
  fields: object(oid, offset),
})

export const createObj = (oid: bigint, offset: number, body: Buffer, flags = CACHE, cowOid = 0n): RawRequest => ({
  opcode: 0x01,
  flags: WRITE | flags,
  body,
  fields: [...object(oid, offset), [24, 8, cowOid]],
})

const object = (oid: bigint, offset: number) =>
  [
    [16, 8, oid],
    [40, 4, offset],
  ] as const
