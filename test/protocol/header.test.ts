import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BODY_SIZE_MAX_BYTES, FLAG, RESULT, resultName } from '../../src/protocol/constants.ts'
import {
  decodeRequestHeader,
  decodeResponseHeader,
  encodeRequestHeader,
  encodeResponseHeader,
  REQUEST_HEADERS,
  RESPONSE_HEADERS,
} from '../../src/protocol/header.ts'
import { INODE_SIZE_BYTES } from '../../src/protocol/inode.ts'
import type { SheepRequest, SheepResponse } from '../../src/protocol/message.ts'
import { acceptsProtoVer, mayAnswerBody, OP, OPCODES, opcodeName, protoVerOf } from '../../src/protocol/opcodes.ts'

/** Bytes as written down by hand; spaces and line ends only group them. */
const hex = (text: string) => Buffer.from(text.replace(/\s/g, ''), 'hex')

/** One message per variant: the value, and its 48 bytes. */
const REQUESTS: Record<string, [SheepRequest, Buffer]> = {
  none: [
    { opcode: OP.READ_VDIS, protoVer: 2, id: 9, dataLength: 2 << 20 },
    hex(`02 15 0000 00000000 09000000 00002000 ${'00'.repeat(32)}`),
  ],
  obj: [
    {
      opcode: OP.CREATE_AND_WRITE_OBJ,
      flags: FLAG.WRITE | FLAG.COW | FLAG.CACHE,
      epoch: 3,
      id: 0x01020304,
      body: Buffer.alloc(512),
      oid: 0x007c2b2500000005n,
      cowOid: 0x007c2b2400000005n,
      copies: 3,
      copyPolicy: 1,
      ecIndex: 2,
      tgtEpoch: 7,
      offset: 0x1000,
    },
    hex(`00 01 0700 03000000 04030201 00020000
         05000000252b7c00 05000000242b7c00 03 01 02 00 07000000 00100000 00000000`),
  ],
  vdi: [
    {
      opcode: OP.NEW_VDI,
      flags: FLAG.WRITE,
      body: Buffer.alloc(256),
      vdiSize: 0x10_0000_0001,
      baseVdiId: 0x7c2b25,
      copies: 2,
      copyPolicy: 0,
      storePolicy: 1,
      blockSizeShift: 22,
      snapId: 1,
      type: 1,
    },
    hex(`00 11 0100 00000000 00000000 00010000
         0100000010000000 252b7c00 02 00 01 16 01000000 01000000 0000000000000000`),
  ],
  cluster: [
    {
      opcode: OP.MAKE_FS,
      protoVer: 0x0a,
      flags: FLAG.WRITE,
      body: Buffer.from('plain\0'),
      oid: 0n,
      ctime: 0x5f00000000000001n,
      copies: 1,
      copyPolicy: 0,
      clusterFlags: 0x0204,
      tag: 5,
      nodesNr: 6,
      blockSizeShift: 22,
    },
    hex(`0a 84 0100 00000000 00000000 06000000
         0000000000000000 010000000000005f 01 00 0402 05000000 06000000 16 000000`),
  ],
  io: [
    {
      opcode: OP.READ_VDI,
      protoVer: 0x0a,
      dataLength: 4096,
      vid: 0x7c2b25,
      session: 9,
      offset: 2 ** 40 + 1,
      length: 4096,
    },
    hex(`0a d2 0000 00000000 00000000 00100000
         252b7c00 09000000 0100000000010000 00100000 00000000 0000000000000000`),
  ],
}

const RESPONSES: Record<string, [SheepResponse, Buffer]> = {
  none: [
    { opcode: OP.READ_VDIS, result: RESULT.WAIT_FOR_FORMAT, id: 5, epoch: 2 },
    hex(`00 15 0000 02000000 05000000 00000000 16000000 ${'00'.repeat(28)}`),
  ],
  obj: [
    { opcode: OP.READ_OBJ, result: 0, id: 5, epoch: 2, body: Buffer.alloc(16), copies: 3, offset: 0 },
    hex(`00 02 0000 02000000 05000000 10000000 00000000 03 000000 ${'00'.repeat(24)}`),
  ],
  vdi: [
    { opcode: OP.LOCK_VDI, result: RESULT.VDI_LOCKED, vdiId: 0x7c2b25, attrId: 1, copies: 2, blockSizeShift: 22 },
    hex(`00 12 0000 00000000 00000000 00000000
         07000000 00000000 252b7c00 01000000 02 16 ${'00'.repeat(14)}`),
  ],
  node: [
    { opcode: OP.STAT_SHEEP, result: 0, nrNodes: 3, storeSize: 2 ** 41, storeFree: 2 ** 33 },
    hex(`00 86 0000 00000000 00000000 00000000
         00000000 03000000 0000000000000000 0000000000020000 0000000002000000`),
  ],
  hash: [
    { opcode: OP.GET_HASH, result: 0, digest: Buffer.alloc(20, 0xab) },
    hex(`00 b4 0000 00000000 00000000 00000000 00000000 00000000 ${'ab'.repeat(20)} 00000000`),
  ],
  clusterDefault: [
    { opcode: OP.GET_CLUSTER_DEFAULT, result: 0, copies: 3, copyPolicy: 0, blockSizeShift: 22 },
    hex(`00 18 0000 00000000 00000000 00000000 00000000 03 00 16 00 ${'00'.repeat(24)}`),
  ],
  io: [
    { opcode: OP.SNAPSHOT_VDI, result: 0, session: 9, vdiSize: 2 ** 30, vdiId: 0x7c2b26 },
    hex(`00 dc 0000 00000000 00000000 00000000 00000000 09000000 0000004000000000 262b7c00 ${'00'.repeat(12)}`),
  ],
}

describe('request headers', () => {
  it('has an example of every variant', () => {
    expect(Object.keys(REQUESTS)).toEqual(Object.keys(REQUEST_HEADERS))
  })

  for (const [variant, [message, bytes]] of Object.entries(REQUESTS)) {
    it(`encodes ${variant}`, () => {
      expect(encodeRequestHeader(message).toString('hex')).toBe(bytes.toString('hex'))
    })

    it(`decodes ${variant}`, () => {
      const { body, ...fields } = message
      const decoded = decodeRequestHeader(bytes)
      expect(decoded).toMatchObject(fields)
      expect(decoded.dataLength).toBe(body?.length ?? message.dataLength)
    })
  }

  it('says how long the body is, whatever dataLength was set to', () => {
    const header = encodeRequestHeader({
      opcode: OP.WRITE_OBJ,
      flags: FLAG.WRITE,
      dataLength: 9,
      body: Buffer.alloc(3),
    })
    expect(header.readUInt32LE(12)).toBe(3)
  })

  it('takes the 64-bit offset that QEMU writes', () => {
    const header = encodeRequestHeader({ opcode: OP.READ_OBJ, offset: 0 })
    header.writeBigUInt64LE(0x1238n, 40)
    expect(decodeRequestHeader(header).offset).toBe(0x1238)
  })

  it('keeps what is too large too large', () => {
    const header = encodeRequestHeader({ opcode: OP.NEW_VDI })
    header.fill(0xff, 16, 24)
    expect(decodeRequestHeader(header).vdiSize).toBeGreaterThanOrEqual(2 ** 64 - 1)
  })

  it('refuses a value that does not fit its field', () => {
    expect(() => encodeRequestHeader({ opcode: OP.NEW_VDI, copies: 256 })).toThrow(RangeError)
    expect(() => encodeRequestHeader({ opcode: OP.NEW_VDI, vdiSize: -1 })).toThrow(RangeError)
  })

  it('reads any 48 bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 48, maxLength: 48 }), (bytes) => {
        expect(decodeRequestHeader(Buffer.from(bytes))).toMatchObject({ opcode: bytes[1], protoVer: bytes[0] })
        expect(decodeResponseHeader(Buffer.from(bytes))).toMatchObject({ opcode: bytes[1] })
      }),
    )
  })
})

describe('response headers', () => {
  it('has an example of every variant', () => {
    expect(Object.keys(RESPONSES)).toEqual(Object.keys(RESPONSE_HEADERS))
  })

  for (const [variant, [message, bytes]] of Object.entries(RESPONSES)) {
    it(`encodes ${variant}`, () => {
      expect(encodeResponseHeader(message).toString('hex')).toBe(bytes.toString('hex'))
    })

    it(`decodes ${variant}`, () => {
      const { body, ...fields } = message
      expect(decodeResponseHeader(bytes)).toMatchObject({ ...fields, dataLength: body?.length ?? 0 })
    })
  }
})

describe('the tables', () => {
  it('keeps the fields of a header within its 48 bytes and apart', () => {
    for (const { fields, sizeBytes } of [...Object.values(REQUEST_HEADERS), ...Object.values(RESPONSE_HEADERS)]) {
      let end = 0
      for (const field of Object.values(fields).sort((a, b) => a.offset - b.offset)) {
        expect(field.offset).toBeGreaterThanOrEqual(end)
        end = field.offset + field.sizeBytes
      }
      expect(end).toBeLessThanOrEqual(sizeBytes)
    }
  })

  it('gives every opcode and result one number', () => {
    const codes = Object.values(OPCODES).map(({ code }) => code)
    expect(new Set(codes).size).toBe(codes.length)
    expect(new Set(Object.values(RESULT)).size).toBe(Object.keys(RESULT).length)
  })

  it('names numbers, known or not', () => {
    expect(opcodeName(OP.OPEN_VDI)).toBe('OPEN_VDI')
    expect(opcodeName(0x7f)).toBe('0x7f')
    expect(resultName(0x1a)).toBe('READONLY')
    expect(resultName(0xfe)).toBe('0xfe')
  })

  it('lets a request with WRITE be answered with a body only when it says PIGGYBACK', () => {
    expect([0, FLAG.WRITE, FLAG.PIGGYBACK, FLAG.WRITE | FLAG.PIGGYBACK].map(mayAnswerBody)).toEqual([
      true,
      false,
      true,
      true,
    ])
  })

  it('takes versions 0 to 2 with the opcodes of clients, and exactly 10 with the others', () => {
    const accepted = (code: number) =>
      Array.from({ length: 256 }, (_, ver) => ver).filter((ver) => acceptsProtoVer(code, ver))
    expect(accepted(OP.READ_OBJ)).toEqual([0, 1, 2])
    expect(accepted(OP.GET_NODE_LIST)).toEqual([10])
    expect([OP.READ_OBJ, OP.GET_NODE_LIST].map(protoVerOf)).toEqual([2, 10])
  })

  it('has room for the longest object', () => {
    expect(BODY_SIZE_MAX_BYTES).toBeGreaterThanOrEqual(INODE_SIZE_BYTES)
  })
})
