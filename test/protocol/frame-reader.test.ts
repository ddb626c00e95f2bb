import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FrameError, RequestReader, ResponseReader } from '../../src/protocol/frame-reader.ts'
import type { SheepRequest, SheepResponse } from '../../src/protocol/message.ts'

/** A header by hand: opcode, flags, id, dataLength; the rest zero. */
function header(opcode: number, flags: number, id: number, dataLength: number): Buffer {
  const bytes = Buffer.alloc(48)
  bytes[1] = opcode
  bytes.writeUInt16LE(flags, 2)
  bytes.writeUInt32LE(id, 8)
  bytes.writeUInt32LE(dataLength, 12)
  return bytes
}

const READ = 0x02
const WRITE = 0x03
const FLAG_WRITE = 0x01

/** Cuts `stream` at the given positions. */
function cut(stream: Buffer, positions: readonly number[]): Buffer[] {
  const ends = [...new Set(positions.map((position) => position % (stream.length + 1)))].sort((a, b) => a - b)
  return [0, ...ends].map((start, index) => stream.subarray(start, ends[index] ?? stream.length))
}

/** All requests that a chunk completes. */
function take(reader: RequestReader, chunk: Buffer): SheepRequest[] {
  const seen: SheepRequest[] = []
  reader.push(chunk)
  for (let request = reader.next(); request !== undefined; request = reader.next()) seen.push(request)
  return seen
}

const readRequests = (chunks: readonly Buffer[], reader = new RequestReader()) => {
  const seen = chunks.flatMap((chunk) => take(reader, chunk))
  return seen.map(({ opcode, id, body, dataLength }) => ({ opcode, id, dataLength, body: body?.toString('hex') }))
}

const readResponses = (chunks: readonly Buffer[]) => {
  const seen: SheepResponse[] = []
  const reader = new ResponseReader()
  for (const chunk of chunks) reader.read(chunk, (response) => seen.push(response))
  return seen.map(({ opcode, id, body }) => ({ opcode, id, body: body?.toString('hex') }))
}

const cuts = fc.array(fc.nat(400), { maxLength: 8 })
const bodies = fc.array(fc.uint8Array({ maxLength: 70 }), { maxLength: 4 })

describe('RequestReader', () => {
  it('expects a body only after the flag WRITE', () => {
    const stream = Buffer.concat([header(READ, 0, 1, 4096), header(WRITE, FLAG_WRITE, 2, 3), Buffer.from('abc')])
    expect(readRequests([stream])).toEqual([
      { opcode: READ, id: 1, dataLength: 4096, body: undefined },
      { opcode: WRITE, id: 2, dataLength: 3, body: '616263' },
    ])
  })

  it('gives an empty body to a WRITE of no bytes', () => {
    expect(readRequests([header(WRITE, FLAG_WRITE, 1, 0)])[0]?.body).toBe('')
  })

  it('reads the same requests however the stream is cut', () => {
    fc.assert(
      fc.property(bodies, cuts, (contents, positions) => {
        const stream = Buffer.concat(
          contents.flatMap((body, id) => [header(WRITE, FLAG_WRITE, id, body.length), body, header(READ, 0, id, 99)]),
        )
        const expected = contents.flatMap((body, id) => [
          { opcode: WRITE, id, dataLength: body.length, body: Buffer.from(body).toString('hex') },
          { opcode: READ, id, dataLength: 99, body: undefined },
        ])
        expect(readRequests(cut(stream, positions))).toEqual(expected)
        expect(readRequests(cut(stream, [...stream.keys()]))).toEqual(expected)
      }),
    )
  })

  it('reads the same when bytes of long bodies are put where they belong, as many at a time as come', () => {
    const lengths = fc.array(fc.constantFrom(0, 10, 65_535, 65_536, 200_000), { maxLength: 4 })
    fc.assert(
      fc.property(lengths, fc.infiniteStream(fc.integer({ min: 1, max: 100_000 })), (bodyLengths, counts) => {
        const contents = bodyLengths.map((length, id) => Buffer.alloc(length, id + 1))
        const stream = Buffer.concat(contents.flatMap((body, id) => [header(WRITE, FLAG_WRITE, id, body.length), body]))
        const reader = new RequestReader()
        const found: string[] = []
        for (let at = 0; at < stream.length; ) {
          const room = reader.room()
          const rest = stream.subarray(at, at + counts.next().value!)
          const count = room === null ? rest.length : rest.copy(room)
          at += count
          for (const { body } of take(reader, room === null ? Buffer.from(rest) : room.subarray(0, count)))
            found.push(body!.toString('hex'))
        }
        expect(found).toEqual(contents.map((body) => body.toString('hex')))
      }),
      { numRuns: 50 },
    )
    const reader = new RequestReader()
    take(reader, header(WRITE, FLAG_WRITE, 1, 100_000))
    expect(reader.room()?.length).toBe(100_000)
    take(reader, reader.room()!.subarray(0, 40_000))
    expect(reader.room()).toBeNull() // what is missing is not worth it
  })

  it('hands out a body that lies in one chunk without copying it', () => {
    const chunk = Buffer.concat([header(WRITE, FLAG_WRITE, 1, 4), Buffer.from('data')])
    const [request] = take(new RequestReader(), chunk)
    expect(request?.body?.buffer).toBe(chunk.buffer)
    expect(request?.body?.byteOffset).toBe(chunk.byteOffset + 48)
  })

  it('refuses a body above the limit, before any of it has come', () => {
    const reader = new RequestReader({ bodyMaxBytes: 10 })
    expect(take(reader, Buffer.concat([header(WRITE, FLAG_WRITE, 1, 10), Buffer.alloc(10)]))).toHaveLength(1)
    expect(take(reader, header(READ, 0, 2, 0xffffffff))).toHaveLength(1)
    expect(() => take(reader, header(WRITE, FLAG_WRITE, 3, 11))).toThrow(FrameError)
  })

  it('asks for each request whether it may be read, and leaves what comes after until it may', () => {
    fc.assert(
      fc.property(bodies, cuts, (contents, positions) => {
        const stream = Buffer.concat(contents.flatMap((body, id) => [header(WRITE, FLAG_WRITE, id, body.length), body]))
        const asked: number[] = []
        let isOpen = false
        const reader = new RequestReader({
          admit: ({ id = 0 }) => {
            asked.push(id)
            return isOpen
          },
        })
        for (const chunk of cut(stream, positions)) expect(take(reader, chunk)).toEqual([])
        expect(new Set(asked)).toEqual(new Set(contents.length > 0 ? [0] : []))
        expect(reader.isMidRequest).toBe(contents.length > 0)
        isOpen = true
        expect(take(reader, Buffer.alloc(0)).map(({ body }) => body?.toString('hex'))).toEqual(
          contents.map((body) => Buffer.from(body).toString('hex')),
        )
        expect(reader.isMidRequest).toBe(false)
      }),
    )
  })

  it('says whether a request has begun and is not whole', () => {
    const reader = new RequestReader()
    const stream = Buffer.concat([header(WRITE, FLAG_WRITE, 1, 2), Buffer.from('ab')])
    const seen = [...stream].map((byte) => [take(reader, Buffer.of(byte)).length, reader.isMidRequest])
    expect(seen.pop()).toEqual([1, false])
    expect(seen.every(([count, isMid]) => count === 0 && isMid)).toBe(true)
  })

  it('survives any bytes: each is part of a request or ends the stream with a FrameError', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 }), (chunks) => {
        const reader = new RequestReader({ bodyMaxBytes: 100 })
        try {
          for (const { body } of chunks.flatMap((chunk) => take(reader, Buffer.from(chunk))))
            expect(body?.length ?? 0).toBeLessThan(101)
        } catch (error) {
          expect(error).toBeInstanceOf(FrameError)
        }
      }),
    )
  })
})

describe('ResponseReader', () => {
  it('expects exactly the bytes that a response declares, whatever its flags', () => {
    const stream = Buffer.concat([header(READ, 0, 1, 3), Buffer.from('abc'), header(WRITE, FLAG_WRITE, 2, 0)])
    expect(readResponses([stream])).toEqual([
      { opcode: READ, id: 1, body: '616263' },
      { opcode: WRITE, id: 2, body: undefined },
    ])
  })

  it('fills the waiting buffers however the stream is cut', () => {
    fc.assert(
      fc.property(bodies, cuts, (contents, positions) => {
        const stream = Buffer.concat(contents.flatMap((body, id) => [header(READ, 0, id, body.length), body]))
        const targets = contents.map((body) => Buffer.alloc(body.length))
        const reader = new ResponseReader({ targetOf: ({ id }) => targets[id!] })
        const seen: SheepResponse[] = []
        for (const chunk of cut(stream, positions)) reader.read(chunk, (response) => seen.push(response))
        expect(seen.map(({ id }) => id)).toEqual([...contents.keys()])
        for (const [index, target] of targets.entries()) {
          expect(target.equals(contents[index]!)).toBe(true)
          if (target.length > 0) expect(seen[index]?.body).toBe(target)
        }
      }),
    )
  })

  it('leaves a waiting buffer of another length alone', () => {
    const target = Buffer.from('....')
    const reader = new ResponseReader({ targetOf: () => target })
    const seen: SheepResponse[] = []
    reader.read(Buffer.concat([header(READ, 0, 1, 3), Buffer.from('abc')]), (response) => seen.push(response))
    expect(target.toString()).toBe('....')
    expect(seen[0]?.body?.toString()).toBe('abc')
  })

  it('refuses a body above the limit', () => {
    const reader = new ResponseReader({ bodyMaxBytes: 10 })
    expect(() => reader.read(header(READ, 0, 1, 11), () => undefined)).toThrow(FrameError)
  })
})
