import assert from 'node:assert'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Adoption, BlockContents, BlockRange, CopyState } from '../../../src/sheep/copies/copy-store.ts'
import type { CopyAnswer, CopyRequest, CopyResults, RequestType } from '../../../src/sheep/copies/messages.ts'
import type { Generation, Version } from '../../../src/sheep/copies/version.ts'
import { VersionArray } from '../../../src/sheep/copies/version-array.ts'
import { COPY } from '../../../src/sheep/copies/wire.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../../../src/sheep/object-format.ts'
import { ByteReader, MalformedMessage } from '../../../src/sheep/peer/byte-reader.ts'
import { FrameReader, FrameWriter } from '../../../src/sheep/peer/frames.ts'
import { SeededRandom } from '../../sim/random.ts'
import { runInputs } from '../../sim/seeds.ts'

/** Objects as those that are decoded. */
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }) => fc.record(model, { noNullPrototype: true })

const u32 = fc.nat(0xffff_ffff)
const oid = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })
const generation = record<Generation>({
  epoch: u32,
  index: fc.maxSafeNat(),
  incarnation: fc.constantFrom('', 'a', '0123456789abcdef', 'é∂🐑'),
})
const range = fc
  .tuple(fc.nat(BLOCKS_PER_OBJECT), fc.nat(BLOCKS_PER_OBJECT))
  .map(([a, b]): BlockRange => ({ first: Math.min(a, b), count: Math.abs(a - b) }))
const ranges = fc.array(range, { maxLength: 5 })
const contents = fc.record<BlockContents>(
  {
    blocks: fc.array(
      fc
        .tuple(fc.nat(BLOCKS_PER_OBJECT - 3), fc.nat(3), fc.nat(255))
        .map(([first, count, byte]) => ({ first, bytes: Buffer.alloc(count * BLOCK_BYTES, byte) })),
      { maxLength: 3 },
    ),
    zeros: ranges,
    inherited: record({ base: oid, ranges }),
  },
  { noNullPrototype: true, requiredKeys: ['blocks', 'zeros'] },
)

/** Versions of the generation that asks, and of others. */
const versionOf = (own: Generation) =>
  record<Version>({ generation: fc.oneof(fc.constant(own), generation), sequence: fc.maxSafeNat() })

const requests: fc.Arbitrary<CopyRequest> = generation.chain((own) => {
  const version = versionOf(own)
  const of = { vid: u32, generation: fc.constant(own) }
  return fc.oneof(
    record({ ...of, type: fc.constant('open' as const), oids: fc.array(oid, { maxLength: 9 }) }),
    record({ ...of, type: fc.constant('look' as const), oids: fc.array(oid, { maxLength: 9 }) }),
    record({ ...of, type: fc.constant('blocks-since' as const), oid, since: version }),
    record({
      ...of,
      type: fc.constant('adopt' as const),
      adoption: record<Adoption>({ oid, version, kind: fc.constantFrom('full', 'partial'), valid: ranges }),
    }),
    record({ ...of, type: fc.constant('fill' as const), oid, contents }),
    record({ ...of, type: fc.constant('settle' as const), oid }),
    record({ ...of, type: fc.constant('reserve' as const), oid, blocks: ranges }),
    record({
      ...of,
      type: fc.constant('write' as const),
      write: fc
        .tuple(contents, record({ oid, version, previous: fc.option(version) }))
        .map(([what, where]) => ({ ...what, ...where })),
      durable: fc.boolean(),
      watermark: fc.option(version),
    }),
    record({ ...of, type: fc.constant('read' as const), oid, range }),
    record({ ...of, type: fc.constant('sync' as const) }),
    record({ ...of, type: fc.constant('watermark' as const), watermark: version }),
    record({ ...of, type: fc.constant('remove' as const), oid, version }),
    record({ ...of, type: fc.constant('list' as const) }),
    record({ ...of, type: fc.constant('layout' as const), oid, range }),
    record({ ...of, type: fc.constant('remains' as const), oid, range }),
    record({ ...of, type: fc.constant('mend' as const), oid, contents }),
  )
})

function resultsOf(request: CopyRequest): fc.Arbitrary<CopyResults[RequestType]> {
  const { type, generation: own } = request
  const version = versionOf(own)
  if (type === 'read' || type === 'remains') return contents
  if (type === 'mend') return fc.boolean()
  if (type === 'blocks-since') return ranges
  if (type === 'layout')
    return contents.map(({ zeros, inherited }) => ({ data: zeros, ...(inherited && { inherited }) }))
  if (type === 'list') return fc.array(oid, { maxLength: 9 })
  if (request.type === 'look') {
    const { length } = request.oids
    return fc.array(fc.option(version), { minLength: length, maxLength: length }).map(versionArray)
  }
  if (type !== 'open') return fc.constant(null)
  const state = record<CopyState>({
    version,
    kind: fc.constantFrom('full', 'partial', 'stale', 'removed'),
    valid: ranges,
  })
  const entry = fc.tuple(range, version, fc.option(version)).map(([blocks, own, previous]) => ({
    ...blocks,
    version: own,
    previous,
  }))
  const copy = record({ oid, state: fc.option(state), allocated: ranges, tail: fc.array(entry, { maxLength: 3 }) })
  return record({ copies: fc.array(copy, { maxLength: 4 }), lostThroughEpoch: u32 })
}

function versionArray(versions: readonly (Version | null)[]): VersionArray {
  const array = new VersionArray(versions.length)
  for (const [at, version] of versions.entries()) array.set(at, version)
  return array
}

const exchanges = requests.chain((request) =>
  fc.tuple(
    fc.constant(request),
    fc.oneof(
      record({
        refused: fc.constantFrom('old generation' as const, 'stale' as const, 'no space' as const, 'rotten' as const),
      }),
      resultsOf(request).map((result): CopyAnswer => ({ refused: null, result })),
    ),
  ),
)

interface Parts {
  fields: Buffer
  body: Buffer
}

/** What `encode` writes, as the other side finds it. */
function framed(encode: (out: FrameWriter) => void): Parts {
  const writer = new FrameWriter()
  writer.begin(COPY.code, 0, 1)
  encode(writer)
  writer.end()
  const received: Parts[] = []
  new FrameReader((_kind, _flags, _id, fields, body) => received.push({ fields, body })).read(
    Buffer.concat(writer.take()),
  )
  return received[0]!
}

const requestParts = (request: CopyRequest) => framed((out) => COPY.encodeRequest(request, out))
const answerParts = (answer: CopyAnswer, request: CopyRequest) =>
  framed((out) => COPY.encodeAnswer(answer, out, request))

function decodeRequest({ fields, body }: Parts): CopyRequest {
  const reader = new ByteReader(fields)
  const request = COPY.decodeRequest(reader, body)
  reader.end('request')
  return request
}

function decodeAnswer({ fields, body }: Parts, request: CopyRequest): CopyAnswer {
  const reader = new ByteReader(fields)
  const answer = COPY.decodeAnswer(reader, body, request)
  reader.end('answer')
  return answer
}

describe('requests for copies, and their answers', () => {
  it('come out as they went in', () => {
    fc.assert(
      fc.property(exchanges, ([request, answer]) => {
        assert.deepStrictEqual(decodeRequest(requestParts(request)), request)
        assert.deepStrictEqual(decodeAnswer(answerParts(answer, request), request), answer)
      }),
      { numRuns: 300 },
    )
  })

  it('cost the receiver what they cost the sender', () => {
    fc.assert(
      fc.property(requests, (request) => {
        expect(COPY.costBytes(decodeRequest(requestParts(request)))).toBe(COPY.costBytes(request))
      }),
    )
  })

  it('are laid out as the grammar says', () => {
    const own = { epoch: 3, index: 2 ** 33, incarnation: 'ab' }
    const bytes = Buffer.alloc(BLOCK_BYTES, 9)
    const { fields, body } = requestParts({
      vid: 7,
      generation: own,
      type: 'write',
      durable: true,
      watermark: null,
      write: {
        oid: 0x0700000000000001n,
        version: { generation: own, sequence: 5 },
        previous: { generation: { ...own, epoch: 2 }, sequence: 4 },
        blocks: [{ first: 1023, bytes }],
        zeros: [{ first: 0, count: 1023 }],
        inherited: { base: 0x0600000000000001n, ranges: [{ first: 0, count: 0 }] },
      },
    })
    const generationOf = (epoch: string) => `${epoch}000000 0000000002000000 026162`
    const expected = [
      '06 07000000',
      generationOf('03'),
      '0100000000000007 03',
      '00 0500000000000000',
      `01 ${generationOf('02')} 0400000000000000`,
      '01000000 ff030100',
      '01000000 0000ff03',
      '01 0100000000000006 01000000 00000000',
    ]
    expect(fields.toString('hex')).toBe(expected.join('').replaceAll(' ', ''))
    expect(body).toEqual(bytes)
  })

  it('name the field that is wrong', () => {
    const own = { epoch: 3, index: 4, incarnation: 'ab' }
    const read = requestParts({ vid: 7, generation: own, type: 'read', oid: 1n, range: { first: 0, count: 1 } })
    const wrong = (at: number, byte: number) => {
      const fields = Buffer.from(read.fields)
      fields[at] = byte
      return { ...read, fields }
    }
    expect(() => decodeRequest(wrong(0, 99))).toThrow('type is of no request')
    expect(() => decodeRequest(wrong(read.fields.length - 1, 0xff))).toThrow('range goes beyond its object')
    expect(() => decodeRequest({ ...read, fields: read.fields.subarray(0, -1) })).toThrow('ends before range does')
    expect(() => decodeRequest({ ...read, body: Buffer.alloc(1) })).toThrow('body: 1 bytes where there is none')
    const fill = requestParts({
      vid: 7,
      generation: own,
      type: 'fill',
      oid: 1n,
      contents: { blocks: [{ first: 0, bytes: Buffer.alloc(BLOCK_BYTES) }], zeros: [] },
    })
    expect(() => decodeRequest({ ...fill, body: fill.body.subarray(1) })).toThrow(
      'body: 4095 bytes where runs have 4096',
    )
    const look: CopyRequest = { vid: 7, generation: own, type: 'look', oids: [1n] }
    const versions = versionArray([{ generation: own, sequence: 1 }])
    const said = answerParts({ refused: null, result: versions }, look)
    expect(() => decodeAnswer(said, { ...look, oids: [1n, 2n] })).toThrow('ends before version does')
    expect(() => decodeAnswer(said, { ...look, oids: [] })).toThrow('are left after the answer')
    said.fields[said.fields.length - 9] = 2
    expect(() => decodeAnswer(said, look)).toThrow('version 2 is of no generation')
  })

  it('do nothing but name a field, or come out as something, when they are damaged', async () => {
    const known = fc.sample(exchanges, { numRuns: 300, seed: 1 })
    const count = await runInputs('test/sheep/copies/wire.test.ts', 10_000, 1000, async (seed, inputs) => {
      const random = new SeededRandom(seed)
      for (let input = 0; input < inputs; input++) {
        const [request, answer] = random.pick(known)
        const isRequest = random.chance(0.5)
        const parts = damaged(isRequest ? requestParts(request) : answerParts(answer, request), random)
        try {
          if (isRequest) requestParts(decodeRequest(parts))
          else answerParts(decodeAnswer(parts, request), request)
        } catch (error) {
          if (!(error instanceof MalformedMessage)) throw error
        }
      }
    })
    expect(count).toBeGreaterThan(0)
  })
})

function damaged({ fields, body }: Parts, random: SeededRandom): Parts {
  let changed: Buffer = Buffer.from(fields)
  const deeds = [
    () => changed.length > 0 && changed.writeUInt8(random.below(256), random.below(changed.length)),
    () => changed.length > 4 && changed.writeUInt32LE(0xffff_ffff, random.below(changed.length - 3)),
    () => {
      changed = changed.subarray(0, random.below(changed.length + 1))
    },
    () => {
      changed = Buffer.concat([changed, random.bytes(random.below(20))])
    },
    () => {
      changed = random.bytes(random.below(80))
    },
  ]
  for (let left = 1 + random.below(3); left > 0; left--) random.pick(deeds)()
  return { fields: changed, body: random.chance(0.1) ? body.subarray(0, random.below(body.length + 1)) : body }
}
