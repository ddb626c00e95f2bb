import { randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { COMMAND, NBD_ERROR, ProtocolError } from '../../../src/exports/nbd/protocol.ts'
import type { ExportTerms } from '../../../src/exports/nbd/request-check.ts'
import { RequestReader } from '../../../src/exports/nbd/request-reader.ts'
import { BufferPool } from '../../../src/runtime/buffer-pool.ts'
import { cutAt, hex } from './bytes.ts'

/** Says yes to each request, but only when it is asked for the third time. */
function hesitating(): () => boolean {
  let count = 0
  return () => ++count % 3 === 0
}

const always = () => true
const TERMS: ExportTerms = { readOnly: false, structuredReplies: true, blockStatus: true }

const READ = hex('25609513 0000 0000 0102030405060708 0000000000001000 00000200')
const WRITE = hex('25609513 0001 0001 ffffffffffffffff 0000000000000003 00000005', '68656c6c6f')
const FLUSH = hex('25609513 0000 0003 0000000000000000 0000000000000000 00000000')
const WRITE_BEYOND = hex('25609513 0000 0001 00000000000000aa 8000000000000000 00000004', 'deadbeef')

interface Seen {
  type: number
  flags: number
  cookie: string
  offset: number
  lengthBytes: number
  error: number
  payload: string
}

const SEEN: Seen[] = [
  seen({ type: COMMAND.READ, cookie: '102030405060708', offset: 4096, lengthBytes: 512 }),
  seen({ type: COMMAND.WRITE, flags: 1, cookie: 'ffffffffffffffff', offset: 3, lengthBytes: 5, payload: 'hello' }),
  seen({ type: COMMAND.FLUSH }),
  seen({ type: COMMAND.WRITE, cookie: 'aa', offset: 2 ** 63, lengthBytes: 4, error: NBD_ERROR.ENOSPC }),
  seen({ type: COMMAND.FLUSH }),
]

describe('a stream of requests', () => {
  const stream = Buffer.concat([READ, WRITE, FLUSH, WRITE_BEYOND, FLUSH])

  test('is understood the same wherever it is cut', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(stream.length)), (cuts) => {
        const reader = new RequestReader(TERMS, new BufferPool(), always)
        expect(cutAt(stream, cuts).flatMap((chunk) => readAll(reader, chunk))).toEqual(SEEN)
      }),
    )
  })

  test('is understood the same in single bytes', () => {
    const reader = new RequestReader(TERMS, new BufferPool(), always)
    expect(cutAt(stream, [...stream.keys()]).flatMap((chunk) => readAll(reader, chunk))).toEqual(SEEN)
  })

  test('waits for memory, and comes whole and in order all the same', () => {
    const reader = new RequestReader(TERMS, new BufferPool(), hesitating())
    reader.push(stream)
    const seenLate: Seen[] = []
    for (let rounds = 0; rounds < 3 * SEEN.length; rounds++) {
      const some = readAll(reader, Buffer.alloc(0))
      expect(some.length).toBeLessThanOrEqual(1)
      seenLate.push(...some)
    }
    expect(seenLate).toEqual(SEEN)
  })

  test('may be pushed ahead of reading', () => {
    const reader = new RequestReader(TERMS, new BufferPool(), always)
    for (const chunk of cutAt(stream, [7, 35, 60, 61, 62, 99])) reader.push(chunk)
    expect(readAll(reader, Buffer.alloc(0))).toEqual(SEEN)
  })
})

test('a payload within one chunk is not copied', () => {
  const reader = new RequestReader(TERMS, new BufferPool(), always)
  reader.push(WRITE)
  const request = reader.next()
  expect(request?.storage).toBeNull()
  expect(request?.payload.buffer).toBe(WRITE.buffer)
})

describe('a payload that comes in pieces', () => {
  const BLOCKS = 40
  const payload = randomBytes(BLOCKS * 4096)
  const crcs = Uint32Array.from({ length: BLOCKS }, (_, i) => crc32(payload.subarray(i * 4096, (i + 1) * 4096)))

  /** Pushes a WRITE in pieces, into the memory that the reader names where it names any. */
  function write(offset: number, bytes: Buffer, cuts: readonly number[]) {
    const reader = new RequestReader(TERMS, new BufferPool(), always)
    let request: ReturnType<RequestReader['next']>
    for (const chunk of cutAt(Buffer.concat([header(COMMAND.WRITE, offset, bytes.length), bytes]), cuts)) {
      const target = reader.target()
      const there = target?.subarray(0, chunk.copy(target))
      reader.push(there?.length === chunk.length ? there : chunk)
      request = reader.next()
    }
    expect(request?.payload.equals(bytes)).toBe(true)
    return request!
  }

  test('comes with the checksum of each block, wherever it is cut', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(28 + payload.length), { minLength: 1 }), (cuts) => {
        fc.pre(cuts.some((cut) => cut > 28 && cut < 28 + payload.length))
        expect(write(3 * 4096, payload, cuts).crcs).toEqual(crcs)
      }),
    )
  })

  test('comes without when it does not consist of whole blocks of the export', () => {
    expect(write(512, payload, [9000]).crcs).toBeUndefined()
    expect(write(0, payload.subarray(512), [9000]).crcs).toBeUndefined()
  })
})

describe('large writes one after the other', () => {
  const LENGTH_BYTES = 256 * 1024
  const payloads = Array.from({ length: 4 }, () => randomBytes(LENGTH_BYTES))
  const stream = Buffer.concat([
    ...payloads.flatMap((bytes, i) => [header(COMMAND.WRITE, i * LENGTH_BYTES, LENGTH_BYTES), bytes]),
    WRITE,
    READ,
    FLUSH,
  ])
  const expected = [...payloads.map((bytes) => bytes.toString('latin1')), 'hello', '', '']

  /** Hands over what arrives as a connection does, `atMost` so many bytes at a time: where the reader says, or in memory of its own. */
  function transfer(atMost: () => number): { payloads: string[]; ownBytes: number[] } {
    const reader = new RequestReader(TERMS, new BufferPool(), always)
    const received: string[] = []
    const ownBytes: number[] = []
    for (let at = 0; at < stream.length; ) {
      const target = reader.target()
      const chunk = target ?? Buffer.alloc(LENGTH_BYTES)
      const count = stream.copy(chunk, 0, at, at + Math.min(chunk.length, atMost()))
      if (target === null) ownBytes.push(count)
      at += count
      received.push(...readAll(reader, chunk.subarray(0, count)).map(({ payload }) => payload))
    }
    return { payloads: received, ownBytes }
  }

  test('take no memory of the connection but for the first of them', () => {
    const { payloads, ownBytes } = transfer(() => 100_000)
    expect(payloads).toEqual(expected)
    // The header of the small write is read alone, too; what comes behind it is not.
    expect(ownBytes).toEqual([100_000, 'hello'.length + READ.length + FLUSH.length])
  })

  test('are understood the same in pieces of any size', () => {
    fc.assert(
      fc.property(fc.infiniteStream(fc.integer({ min: 1, max: LENGTH_BYTES })), (sizes) => {
        expect(transfer(() => sizes.next().value).payloads).toEqual(expected)
      }),
      { numRuns: 10 },
    )
  })
})

test('a payload that claims 4 GiB is dropped as it comes', () => {
  const reader = new RequestReader(TERMS, new BufferPool(), always)
  reader.push(hex('25609513 0000 0001 0000000000000001 0000000000000000 ffffffff'))
  expect(reader.next()).toBeUndefined()
  const chunk = Buffer.alloc(64 * 1024 * 1024 - 1)
  for (let missing = 0xffff_ffff; missing > 0; missing -= chunk.length) {
    reader.push(chunk.subarray(0, Math.min(missing, chunk.length)))
    if (missing > chunk.length) expect(reader.next()).toBeUndefined()
  }
  expect(reader.next()).toMatchObject({ error: NBD_ERROR.EINVAL, storage: null })
  expect(readAll(reader, FLUSH)).toEqual([seen({ type: COMMAND.FLUSH })])
})

test('anything else than a request is refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 28, maxLength: 64 }), (bytes) => {
      fc.pre(Buffer.from(bytes).readUInt32BE(0) !== 0x25609513)
      const reader = new RequestReader(TERMS, new BufferPool(), always)
      reader.push(Buffer.from(bytes))
      expect(() => reader.next()).toThrow(ProtocolError)
    }),
  )
})

function header(type: number, offset: number, lengthBytes: number): Buffer {
  const bytes = Buffer.from(FLUSH)
  bytes.writeUInt16BE(type, 6)
  bytes.writeBigUInt64BE(BigInt(offset), 16)
  bytes.writeUInt32BE(lengthBytes, 24)
  return bytes
}

function seen(known: Partial<Seen>): Seen {
  return { type: 0, flags: 0, cookie: '0', offset: 0, lengthBytes: 0, error: 0, payload: '', ...known }
}

function readAll(reader: RequestReader, chunk: Buffer): Seen[] {
  const all: Seen[] = []
  reader.push(chunk)
  for (let request = reader.next(); request !== undefined; request = reader.next()) {
    const { type, flags, offset, lengthBytes, error, cookieHigh, cookieLow } = request
    const cookie = (BigInt(cookieHigh) * 2n ** 32n + BigInt(cookieLow)).toString(16)
    all.push({ type, flags, cookie, offset, lengthBytes, error, payload: request.payload.toString('latin1') })
  }
  return all
}
