import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  BLOCK_BYTES,
  BLOCKS_PER_OBJECT,
  blockCrc,
  dataWord1,
  decodeHeader,
  encodeHeader,
  entryState,
  HEADER_OFFSET,
  inheritWord1,
  newTable,
  OBJECT_FILE_BYTES,
  objectPath,
  oidWords,
  TABLE_OFFSET,
  zeroWord0,
  zeroWord1,
} from '../../src/sheep/object-format.ts'

const oid = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
const block = fc.nat({ max: BLOCKS_PER_OBJECT - 1 })
const epoch = fc.nat({ max: 2 ** 30 - 1 })
const vid = fc.integer({ min: 1, max: 0xffffff })
const storeId = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex')

describe('the layout of an object file', () => {
  it('is data, table and header, one after the other', () => {
    expect([TABLE_OFFSET, HEADER_OFFSET, OBJECT_FILE_BYTES]).toEqual([4194304, 4202496, 4206592])
    expect(objectPath(0x8000_0005_0000_0000n)).toBe('obj/00/8000000500000000')
    expect(objectPath(0x0000_0005_0000_01abn)).toBe('obj/ab/00000005000001ab')
  })

  it('has a header with these bytes', () => {
    const page = encodeHeader({ storeId, oid: 0x0000_0005_0000_0007n, version: 258 })
    const fields = '434f626a 01000000 00010203040506070809 0a0b0c0d0e0f 0700000005000000 0201000000000000 00040000'
    const used = Buffer.concat([Buffer.from(fields.replaceAll(' ', ''), 'hex')], 52)
    const crc = Buffer.alloc(4)
    crc.writeUInt32LE(crc32(used))
    expect(page.toString('hex')).toBe(Buffer.concat([used, crc], BLOCK_BYTES).toString('hex'))
    expect(decodeHeader(page)).toEqual({ storeId, oid: 0x0000_0005_0000_0007n, version: 258 })
  })

  it('does not take a header with another bit, or of another format, for one', () => {
    const page = encodeHeader({ storeId, oid: 5n, version: 1 })
    for (let bit = 0; bit < 56 * 8; bit++) {
      const flipped = Buffer.from(page)
      flipped[bit >>> 3]! ^= 1 << (bit & 7)
      expect(decodeHeader(flipped)).toHaveProperty('problem')
    }
    const newer = Buffer.from(page)
    newer.writeUInt32LE(2, 4)
    newer.writeUInt32LE(crc32(newer.subarray(0, 52)), 52)
    expect(decodeHeader(newer)).toEqual({ problem: 'its format is 2, this version reads 1' })
  })
})

describe('a block entry', () => {
  it('states what it was made as', () => {
    fc.assert(
      fc.property(oid, block, epoch, vid, (id, at, when, holder) => {
        const words = oidWords(id)
        const zero = zeroWord1(when)
        expect(entryState(words, at, zeroWord0(words, at, zero), zero)).toBe('zero')
        expect(entryState(words, at, holder, inheritWord1(words, at, holder))).toBe('inherit')
        expect(entryState(words, at, 0x12345678, dataWord1(when))).toBe('data')
      }),
    )
  })

  it('is nothing at all when the table comes back as zeros', () => {
    fc.assert(fc.property(oid, block, (id, at) => entryState(oidWords(id), at, 0, 0) === null))
  })

  it('does not turn into a hole or an inherited block by one bit, in another place, or for another object', () => {
    fc.assert(
      fc.property(oid, oid, block, block, epoch, fc.nat({ max: 63 }), (id, other, at, elsewhere, when, bit) => {
        fc.pre(id !== other && at !== elsewhere)
        const words = oidWords(id)
        const zero = zeroWord1(when)
        const entry = Uint32Array.of(zeroWord0(words, at, zero), zero)
        expect(entryState(words, elsewhere, entry[0]!, entry[1]!)).toBeNull()
        expect(entryState(oidWords(other), at, entry[0]!, entry[1]!)).toBeNull()
        entry[bit >>> 5]! ^= 1 << (bit & 31)
        expect(entryState(words, at, entry[0]!, entry[1]!)).not.toBe('zero')
        expect(entryState(words, at, entry[0]!, entry[1]!)).not.toBe('inherit')
      }),
    )
  })

  it('covers bytes, place, object and epoch with the CRC of a data block', () => {
    const bytes = Buffer.alloc(BLOCK_BYTES, 7)
    const word1 = dataWord1(3)
    const crc = blockCrc(oidWords(5n), 9, word1, bytes)
    const flipped = Buffer.from(bytes)
    flipped[4095]! ^= 0x80
    expect(blockCrc(oidWords(5n), 9, word1, flipped)).not.toBe(crc)
    expect(blockCrc(oidWords(5n), 10, word1, bytes)).not.toBe(crc)
    expect(blockCrc(oidWords(6n), 9, word1, bytes)).not.toBe(crc)
    expect(blockCrc(oidWords(5n), 9, dataWord1(4), bytes)).not.toBe(crc)
    expect(blockCrc(oidWords(5n), 9, word1, Buffer.from(bytes))).toBe(crc)
  })

  it('of a new table is a hole, or inherited where a run says so', () => {
    const words = oidWords(5n << 32n)
    const table = newTable(words, 1, [
      { first: 2, count: 3, holderVid: 9 },
      { first: 1000, count: 24, holderVid: 0xffffff },
    ])
    const states = Array.from({ length: BLOCKS_PER_OBJECT }, (_, at) =>
      entryState(words, at, table[at * 2]!, table[at * 2 + 1]!),
    )
    const inherited = states.flatMap((state, at) => (state === 'inherit' ? [at] : []))
    expect(inherited).toEqual([2, 3, 4, ...Array.from({ length: 24 }, (_, i) => 1000 + i)])
    expect(states.filter((state) => state === 'zero')).toHaveLength(BLOCKS_PER_OBJECT - 27)
    expect([table[4], table[2000]]).toEqual([9, 0xffffff])
  })
})
