import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  decodeMeta,
  encodeMeta,
  type FrameHeader,
  type JournalRecord,
  metaPagesFor,
  peekHeader,
  recordBytes,
} from '../../src/sheep/journal-format.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../../src/sheep/object-format.ts'

const u32 = fc.nat({ max: 0xffffffff })
const oid = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
const version = fc.nat({ max: 2 ** 48 - 1 })
const count53 = fc.maxSafeNat()
/** The second word of an entry that has bytes: the two top bits are 01. */
const dataWord = fc.nat({ max: 0x3fffffff }).map((low) => low + 0x40000000)
/** Blocks of one object. */
const range = (countMax: number) =>
  fc
    .integer({ min: 1, max: countMax })
    .chain((count) => fc.record({ first: fc.nat({ max: BLOCKS_PER_OBJECT - count }), count: fc.constant(count) }))

const copyVersion = fc.record({
  generation: fc.record({ epoch: u32, index: count53, incarnation: fc.string({ maxLength: 40 }) }),
  sequence: count53,
})
const someBlocks = fc.array(range(BLOCKS_PER_OBJECT), { maxLength: 8 })
const image = fc.record({
  version: copyVersion,
  epochs: fc.array(u32, { maxLength: 16 }),
  kind: fc.constantFrom('full' as const, 'partial' as const, 'stale' as const, 'removed' as const),
  valid: fc.option(fc.array(u32, { minLength: 32, maxLength: 32 }).map((words) => Uint32Array.from(words))),
})

const record: fc.Arbitrary<JournalRecord> = fc.oneof(
  fc.record({ kind: fc.constant('copy' as const), oid, image: fc.option(image) }),
  fc.record({
    kind: fc.constant('wrote' as const),
    oid,
    version: copyVersion,
    previous: fc.option(copyVersion),
    ranges: someBlocks,
  }),
  fc.record({ kind: fc.constant('settled' as const), oid }),
  fc.record({ kind: fc.constant('watermark' as const), vid: fc.nat({ max: 0xffffff }), version: copyVersion }),
  fc.record({ kind: fc.constant('horizon' as const), clean: u32, accepted: u32, lost: u32 }),
  fc.record({
    kind: fc.constant('create' as const),
    oid,
    version,
    epoch: u32,
    tag: fc.nat({ max: 0xffff }),
    disk: fc.nat({ max: 0xffff }),
    runs: fc.array(
      fc.tuple(range(BLOCKS_PER_OBJECT), fc.nat({ max: 0xffffff })).map(([run, holderVid]) => ({ ...run, holderVid })),
      { maxLength: 20 },
    ),
  }),
  fc
    .tuple(
      fc.record({ kind: fc.constantFrom('blocks' as const, 'placed' as const), oid, version }),
      range(30),
      fc.array(fc.tuple(u32, dataWord), { minLength: 30, maxLength: 30 }),
    )
    .map(([rest, blocks, words]) => ({
      ...rest,
      ...blocks,
      words: Uint32Array.from(words.slice(0, blocks.count).flat()),
    })),
  fc
    .tuple(fc.record({ oid, version, epoch: u32 }), range(BLOCKS_PER_OBJECT))
    .map(([rest, blocks]) => ({ kind: 'zero' as const, ...rest, ...blocks })),
  fc
    .tuple(fc.record({ oid, version, holderVid: u32 }), range(BLOCKS_PER_OBJECT))
    .map(([rest, blocks]) => ({ kind: 'inherit' as const, ...rest, ...blocks })),
  fc.record({ kind: fc.constant('remove' as const), oid, version }),
  fc
    .record({ index: version, bytes: fc.uint8Array({ maxLength: 5000 }) })
    .map(({ index, bytes }) => ({ kind: 'entry' as const, index, bytes: Buffer.from(bytes) })),
  fc.record({
    kind: fc.constant('account' as const),
    vid: fc.nat({ max: 0xffffff }),
    whole: fc.boolean(),
    blocks: fc.array(fc.tuple(u32, count53), { maxLength: 20 }),
  }),
)

const header = fc
  .record({
    storeId: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes)),
    incarnation: u32,
    generation: count53,
    sequence: count53,
    syncedSequence: count53,
    payloadPages: u32,
  })
  .map((fields) => ({ ...fields, metaPages: 0 }))

const sized = (fields: FrameHeader, records: readonly JournalRecord[]): FrameHeader => ({
  ...fields,
  metaPages: metaPagesFor(records.reduce((sum, each) => sum + recordBytes(each), 0)),
})

const storeId = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex')

describe('a journal frame', () => {
  it('says the same after encoding and decoding', () => {
    fc.assert(
      fc.property(header, fc.array(record, { maxLength: 12 }), (fields, records) => {
        const frame = sized(fields, records)
        const meta = encodeMeta(frame, records)
        expect(meta.length).toBe(frame.metaPages * BLOCK_BYTES)
        expect(peekHeader(meta.subarray(0, BLOCK_BYTES))).toEqual(frame)
        expect(decodeMeta(meta)).toEqual(records)
      }),
    )
  })

  it('has these bytes', () => {
    const words = Uint32Array.of(0x11111111, 0x40000001)
    const run = { first: 1, count: 2, holderVid: 3 }
    const version = { generation: { epoch: 4, index: 2 ** 32 + 9, incarnation: 'ab' }, sequence: 17 }
    const valid = new Uint32Array(32)
    valid[0] = 6
    const versionHex = '04000000 0900000001000000 1100000000000000 02 6162'
    const records: JournalRecord[] = [
      { kind: 'blocks', oid: 0x0000_0005_0000_0007n, version: 3, first: 9, count: 1, words },
      { kind: 'zero', oid: 0x0000_0005_0000_0007n, version: 4, epoch: 2, first: 0x102, count: 0x203 },
      { kind: 'inherit', oid: 0x0000_0005_0000_0007n, version: 5, first: 0x102, count: 0x203, holderVid: 6 },
      { kind: 'create', oid: 0x0000_0005_0000_0007n, version: 1, epoch: 2, tag: 4, disk: 0x0908, runs: [run] },
      { kind: 'placed', oid: 0x0000_0005_0000_0007n, version: 2, first: 9, count: 1, words },
      { kind: 'entry', index: 77, bytes: Buffer.from('{}') },
      { kind: 'account', vid: 0xabcdef, whole: true, blocks: [[5, 2 ** 32 + 7]] },
      { kind: 'copy', oid: 0x0000_0005_0000_0007n, image: { version, epochs: [3, 4], kind: 'stale', valid } },
      { kind: 'copy', oid: 0x0000_0005_0000_0007n, image: null },
      { kind: 'wrote', oid: 0x0000_0005_0000_0007n, version, previous: version, ranges: [{ first: 1, count: 0x203 }] },
      { kind: 'settled', oid: 0x0000_0005_0000_0007n },
      { kind: 'watermark', vid: 0xabcdef, version },
      { kind: 'horizon', clean: 2, accepted: 4, lost: 3 },
    ]
    const frame = { storeId, incarnation: 0xaabbccdd, generation: 6, sequence: 2 ** 32 + 1, syncedSequence: 8 }
    const meta = encodeMeta({ ...frame, metaPages: 1, payloadPages: 1 }, records)
    const expected = Buffer.from(
      [
        '434a726e 04000000', // magic, format
        '00010203 04050607 08090a0b 0c0d0e0f', // store id
        'ddccbbaa 0600000000000000 0100000001000000 0800000000000000', // incarnation, generation, sequence, synced
        '01000000 01000000 0d000000 00000000 00000000', // pages of meta and payload, records, nothing, CRC below
        '01000000 0700000005000000 030000000000 0000 09000000 01000000 11111111 01000040',
        '02000000 0700000005000000 040000000000 0000 02000000 0302 0201',
        '07000000 0700000005000000 050000000000 0000 06000000 0302 0201',
        '00000000 0700000005000000 010000000000 0809 02000000 0100 0400 01000000 02000000 03000000',
        '05000000 0700000005000000 020000000000 0000 09000000 01000000 11111111 01000040',
        '04000000 0000000000000000 4d0000000000 0000 00000000 02000000 7b7d',
        '06000000 0000000000000000 efcdab000000 0000 01000000 01000000 05000000 0700000001000000',
        `08000000 0700000005000000 010000000000 0000 06000000 02000000 ${versionHex} 03000000 04000000`,
        `06000000 ${'00000000'.repeat(31)}`,
        '08000000 0700000005000000 000000000000 0000 00000000 00000000',
        `09000000 0700000005000000 010000000000 0000 00000000 01000000 ${versionHex} ${versionHex} 0100 0302`,
        '0a000000 0700000005000000 000000000000 0000 00000000 00000000',
        `0b000000 0000000000000000 efcdab000000 0000 00000000 00000000 ${versionHex}`,
        '0c000000 0000000000000000 020000000000 0000 04000000 03000000',
      ]
        .join('')
        .replaceAll(' ', ''),
      'hex',
    )
    const whole = Buffer.concat([expected], BLOCK_BYTES)
    whole.writeUInt32LE(crc32(Buffer.concat([whole.subarray(0, 68), whole.subarray(72)])), 68)
    expect(meta.equals(whole)).toBe(true)
  })

  it.each<[string, JournalRecord]>([
    ['blocks', { kind: 'blocks', oid: 5n, version: 1, first: 1024, count: 1, words: Uint32Array.of(0, 0x40000000) }],
    ['zeros', { kind: 'zero', oid: 5n, version: 1, epoch: 1, first: 1000, count: 25 }],
    ['blocks of another', { kind: 'inherit', oid: 5n, version: 1, first: 1000, count: 25, holderVid: 3 }],
    [
      'inherited blocks',
      {
        kind: 'create',
        oid: 5n,
        version: 1,
        epoch: 1,
        tag: 0,
        disk: 0,
        runs: [{ first: 0, count: 1025, holderVid: 1 }],
      },
    ],
    [
      'written blocks',
      {
        kind: 'wrote',
        oid: 5n,
        version: { generation: { epoch: 1, index: 1, incarnation: '' }, sequence: 1 },
        previous: null,
        ranges: [{ first: 1000, count: 25 }],
      },
    ],
  ])('is refused with %s behind the end of an object, although its CRC is right', (_, record) => {
    const frame = { storeId, incarnation: 1, generation: 1, sequence: 1, syncedSequence: 1, payloadPages: 1 }
    const meta = encodeMeta(sized({ ...frame, metaPages: 0 }, [record]), [record])
    expect(() => decodeMeta(meta)).toThrow(expect.objectContaining({ code: 'CorruptBlock' }))
  })

  it('is not one when any bit of its meta pages is another', () => {
    const records: JournalRecord[] = [{ kind: 'remove', oid: 5n, version: 2 }]
    const frame = { storeId, incarnation: 1, generation: 1, sequence: 1, syncedSequence: 1 }
    const meta = encodeMeta({ ...frame, metaPages: 1, payloadPages: 0 }, records)
    fc.assert(
      fc.property(fc.nat({ max: meta.length * 8 - 1 }), (bit) => {
        const flipped = Buffer.from(meta)
        flipped[bit >>> 3]! ^= 1 << (bit & 7)
        expect(decodeMeta(flipped)).toBeNull()
      }),
      { numRuns: 2000 },
    )
  })

  it('is not looked for in pages of anything else', () => {
    expect(peekHeader(Buffer.alloc(BLOCK_BYTES))).toBeNull()
    expect(peekHeader(Buffer.alloc(10))).toBeNull()
  })
})
