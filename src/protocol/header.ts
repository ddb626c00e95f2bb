import { FLAG, HEADER_SIZE_BYTES } from './constants.ts'
import type { SheepRequest, SheepResponse } from './message.ts'
import { type RequestVariant, type ResponseVariant, requestVariant, responseVariant } from './opcodes.ts'
import { bits64, bytes, type Field, type Struct, struct, u8, u16, u32, u64 } from './struct.ts'

/**
 * The 48-byte header of every message:
 *
 *   protoVer u8@0  opcode u8@1  flags u16@2  epoch u32@4  id u32@8  dataLength u32@12  union[32]@16
 *
 * `dataLength` counts the body that follows, except in a request without the flag WRITE: there it is what the client
 * offers to take, and nothing follows.
 */
const common = {
  protoVer: u8(0),
  opcode: u8(1),
  flags: u16(2),
  epoch: u32(4),
  id: u32(8),
  dataLength: u32(12),
}

export type RequestHeader = SheepRequest & { flags: number; dataLength: number }
export type ResponseHeader = SheepResponse & { dataLength: number }

type Union<T> = { readonly [K in keyof T]?: Field<NonNullable<T[K]>> }

const request = (union: Union<SheepRequest>) =>
  struct(HEADER_SIZE_BYTES, { ...common, ...union }) as unknown as Struct<RequestHeader>

const response = (union: Union<SheepResponse>) =>
  struct(HEADER_SIZE_BYTES, { ...common, result: u32(16), ...union }) as unknown as Struct<ResponseHeader>

export const REQUEST_HEADERS = {
  none: request({}),
  // QEMU writes `offset` as 64 bits; objects are shorter than 4 GiB, so the upper half is zero.
  obj: request({
    oid: bits64(16),
    cowOid: bits64(24),
    copies: u8(32),
    copyPolicy: u8(33),
    ecIndex: u8(34),
    tgtEpoch: u32(36),
    offset: u32(40),
  }),
  vdi: request({
    vdiSize: u64(16),
    baseVdiId: u32(24),
    copies: u8(28),
    copyPolicy: u8(29),
    storePolicy: u8(30),
    blockSizeShift: u8(31),
    snapId: u32(32),
    type: u32(36),
  }),
  cluster: request({
    oid: bits64(16),
    ctime: bits64(24),
    copies: u8(32),
    copyPolicy: u8(33),
    clusterFlags: u16(34),
    tag: u32(36),
    nodesNr: u32(40),
    blockSizeShift: u8(44),
  }),
  io: request({ vid: u32(16), session: u32(20), offset: u64(24), length: u32(32), opening: u32(36), vdiSize: u64(40) }),
} satisfies Record<RequestVariant, unknown>

export const RESPONSE_HEADERS = {
  none: response({}),
  obj: response({ copies: u8(20), offset: u64(24) }),
  vdi: response({ vdiId: u32(24), attrId: u32(28), copies: u8(32), blockSizeShift: u8(33) }),
  node: response({ nrNodes: u32(20), storeSize: u64(32), storeFree: u64(40) }),
  hash: response({ digest: bytes(24, 20) }),
  clusterDefault: response({ copies: u8(20), copyPolicy: u8(21), blockSizeShift: u8(22) }),
  io: response({ session: u32(20), vdiSize: u64(24), vdiId: u32(32), opening: u32(36) }),
} satisfies Record<ResponseVariant, unknown>

/** The header that precedes `message.body`. `dataLength` on the wire is the body's length with WRITE. */
export function encodeRequestHeader(message: SheepRequest): Buffer {
  const writes = ((message.flags ?? 0) & FLAG.WRITE) !== 0
  const dataLength = writes ? (message.body?.length ?? 0) : (message.dataLength ?? 0)
  const header = REQUEST_HEADERS[requestVariant(message.opcode)].encode(message)
  header.writeUInt32LE(dataLength, common.dataLength.offset)
  return header
}

/** A request without its body. The byte count that belongs to it is `dataLength`, whatever the flags. */
export function decodeRequestHeader(source: Buffer, at = 0): RequestHeader {
  return REQUEST_HEADERS[requestVariant(source.readUInt8(at + 1))].decode(source, at)
}

export function encodeResponseHeader(message: SheepResponse): Buffer {
  const header = RESPONSE_HEADERS[responseVariant(message.opcode)].encode(message)
  header.writeUInt32LE(message.body?.length ?? 0, common.dataLength.offset)
  return header
}

export function decodeResponseHeader(source: Buffer, at = 0): ResponseHeader {
  return RESPONSE_HEADERS[responseVariant(source.readUInt8(at + 1))].decode(source, at)
}
