import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  decodeTime,
  encodeTime,
  INODE_CLIENT_SIZE_BYTES,
  INODE_HEADER_SIZE_BYTES,
  INODE_SIZE_BYTES,
  inodeHeader,
} from '../../src/protocol/inode.ts'
import { decodeText, struct, text, u32 } from '../../src/protocol/struct.ts'
import {
  clusterInfo,
  encodeClusterInfo,
  encodeEpochLog,
  encodeNodeAddress,
  epochLogHead,
  nodeId,
  sdNode,
  vdiAttr,
  vdiState,
} from '../../src/protocol/structs.ts'

const addr = encodeNodeAddress('127.0.0.1')
const node = {
  nid: { addr, port: 7000, ioAddr: Buffer.alloc(16), ioPort: 0 },
  vnodeCount: 128,
  zone: 0x0100007f,
  spaceBytes: 2 ** 33,
}
/** sd_node of the sheep at 127.0.0.1:7000 with 8 GiB, as upstream sends it. */
const NODE_HEX = [
  '00'.repeat(24),
  `${'00'.repeat(12)}7f000001`,
  '581b',
  '00'.repeat(16),
  '0000',
  '00000000',
  '8000',
  '0000',
  '7f000001',
  '0000000002000000',
].join('')

describe('struct', () => {
  const pair = struct(12, { name: text(0, 4), count: u32(8) })

  it('clears what no field covers', () => {
    const target = Buffer.alloc(16, 0xee)
    pair.encodeInto(target, 2, { name: 'ab', count: 1 })
    expect(target.toString('hex')).toBe('eeee616200000000000001000000eeee')
  })

  it('refuses text that does not fit instead of cutting it', () => {
    expect(() => pair.encode({ name: 'äbc' })).not.toThrow()
    expect(() => pair.encode({ name: 'äbcd' })).toThrow(RangeError)
  })

  it('reads text of the full size, which has no NUL', () => {
    expect(pair.decode(pair.encode({ name: 'abcd' })).name).toBe('abcd')
  })

  it('refuses a buffer that ends too early', () => {
    expect(() => pair.decode(Buffer.alloc(13), 2)).toThrow(RangeError)
  })

  it('decodes text up to its NUL, and only UTF-8', () => {
    expect(decodeText(Buffer.from('vol\0rest'))).toBe('vol')
    expect(decodeText(Buffer.from('vol'))).toBe('vol')
    expect(decodeText(Buffer.from([0xff, 0x41, 0]))).toBeNull()
  })
})

describe('inode', () => {
  it('has the sizes that clients ask for', () => {
    expect([INODE_HEADER_SIZE_BYTES, INODE_CLIENT_SIZE_BYTES, INODE_SIZE_BYTES]).toEqual([4664, 4198968, 12587576])
  })

  it('puts every field where upstream has it', () => {
    const expected = Buffer.alloc(4664)
    expected.write('volume-1', 0)
    expected.write('daily', 256)
    expected.writeBigUInt64LE(0x0000000500000006n, 512)
    expected.writeBigUInt64LE(0x0000000700000008n, 520)
    expected.writeBigUInt64LE(9n, 528)
    expected.writeBigUInt64LE(2n ** 40n, 536)
    expected.writeBigUInt64LE(10n, 544)
    expected.set([0, 0, 3, 22], 552)
    expected.writeUInt32LE(4, 556)
    expected.writeUInt32LE(0x7c2b25, 560)
    expected.writeUInt32LE(0x7c2b24, 564)
    const header = {
      name: 'volume-1',
      tag: 'daily',
      createTime: 0x0000000500000006n,
      snapshotTime: 0x0000000700000008n,
      vmClockNsec: 9n,
      vdiSize: 2 ** 40,
      vmStateSize: 10,
      copyPolicy: 0,
      storePolicy: 0,
      copies: 3,
      blockSizeShift: 22,
      snapId: 4,
      vdiId: 0x7c2b25,
      parentVdiId: 0x7c2b24,
    }
    expect(inodeHeader.encode(header).equals(expected)).toBe(true)
    expect(inodeHeader.decode(expected)).toEqual(header)
  })

  it('keeps times to the microsecond', () => {
    expect(encodeTime(1500)).toBe((1n << 32n) | 500_000_000n)
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4e12 }), (unixMs) => {
        expect(decodeTime(encodeTime(unixMs))).toBeCloseTo(unixMs, 3)
      }),
    )
  })
})

describe('bodies that dog reads', () => {
  it('has the sizes of upstream', () => {
    expect([nodeId, sdNode, clusterInfo, epochLogHead, vdiState, vdiAttr].map((layout) => layout.sizeBytes)).toEqual([
      40, 80, 491568, 48, 1428, 66320,
    ])
  })

  it('lays out a node', () => {
    expect(sdNode.encode(node).toString('hex')).toBe(NODE_HEX)
    expect(sdNode.decode(Buffer.from(NODE_HEX, 'hex'))).toEqual(node)
  })

  it('lays out the cluster', () => {
    const body = encodeClusterInfo(
      {
        protoVer: 10,
        epoch: 3,
        ctime: 1n << 32n,
        flags: 0x14,
        copies: 2,
        status: 1,
        blockSizeShift: 22,
        defaultStore: 'plain',
      },
      [node, node],
    )
    expect(body.subarray(0, 48).toString('hex')).toBe(
      '0a000200030000000000000001000000140002000116000000706c61696e'.padEnd(96, '0'),
    )
    expect(body.subarray(48, 208).toString('hex')).toBe(NODE_HEX + NODE_HEX)
    expect(body.subarray(208).every((byte) => byte === 0)).toBe(true)
  })

  it('lays out an entry of the epoch log with room for the nodes asked for', () => {
    const head = { ctime: 1n, time: 2n, epoch: 3, copies: 2, flags: 0x14, driverName: 'plain' }
    const entry = encodeEpochLog(head, [node], 2)
    expect(entry.length).toBe(48 + 2 * 80)
    expect(entry.subarray(0, 48).toString('hex')).toBe(
      '01000000000000000200000000000000030000000100000000020000000014 00706c61696e'.replace(' ', '').padEnd(96, '0'),
    )
    expect(entry.subarray(48, 128).toString('hex')).toBe(NODE_HEX)
    expect(encodeEpochLog(head, [], 0).length).toBe(48)
    expect(() => encodeEpochLog(head, [node], 0)).toThrow(RangeError)
  })

  it('lays out the state of a VDI', () => {
    const states = Array.from({ length: 31 }, (_, index) => index)
    const participants = states.map((port) => ({ ...node.nid, port }))
    const state = {
      vid: 0x7c2b25,
      copies: 2,
      snapshot: 1,
      deleted: 0,
      copyPolicy: 0,
      blockSizeShift: 22,
      parentVid: 0x7c2b24,
      lockState: 2,
      lockOwner: node.nid,
      participantCount: 31,
      participantStates: states,
      participants,
    }
    const bytes = vdiState.encode(state)
    expect(bytes.subarray(0, 20).toString('hex')).toBe('252b7c000201000016000000242b7c0002000000')
    expect(bytes.readUInt16LE(20 + 16)).toBe(7000)
    expect(bytes.readUInt32LE(60)).toBe(31)
    expect(bytes.readUInt32LE(64 + 4 * 30)).toBe(30)
    expect(bytes.readUInt16LE(188 + 40 * 30 + 16)).toBe(30)
    expect(vdiState.decode(bytes)).toEqual(state)
  })

  it('lays out an attribute', () => {
    const bytes = vdiAttr.encode({
      name: 'n',
      tag: 't',
      ctime: 1n,
      snapId: 2,
      valueLength: 3,
      key: 'k',
      value: Buffer.from('abc'),
    })
    expect(
      bytes.toString('latin1', 0, 1) + bytes.toString('latin1', 256, 257) + bytes.toString('latin1', 528, 529),
    ).toBe('ntk')
    expect(bytes.subarray(512, 528).toString('hex')).toBe('01000000000000000200000003000000')
    expect(bytes.subarray(784, 788).toString('latin1')).toBe('abc\0')
  })
})

describe('node addresses', () => {
  it('puts IPv4 into the last four bytes', () => {
    expect(encodeNodeAddress('10.1.2.255').toString('hex')).toBe(`${'00'.repeat(12)}0a0102ff`)
  })

  it('takes IPv6, short or long', () => {
    expect(encodeNodeAddress('fd00:1::2:ab').toString('hex')).toBe('fd0000010000000000000000000200ab')
    expect(encodeNodeAddress('::1').toString('hex')).toBe(`${'00'.repeat(15)}01`)
    expect(encodeNodeAddress('::').toString('hex')).toBe('00'.repeat(16))
    expect(encodeNodeAddress('1:2:3:4:5:6:7:8').toString('hex')).toBe('00010002000300040005000600070008')
  })

  it.each([
    '',
    'localhost',
    '1.2.3',
    '1.2.3.256',
    '1::2::3',
    '1:2:3:4:5:6:7:8:9',
    '1:2',
    '12345::',
    '1:2:3:4:5:6:7::8',
  ])('refuses "%s"', (host) => {
    expect(() => encodeNodeAddress(host)).toThrow(TypeError)
  })
})
