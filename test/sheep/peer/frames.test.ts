import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ByteReader, MalformedMessage } from '../../../src/sheep/peer/byte-reader.ts'
import { BODY_BYTES_MAX, FrameReader, FrameWriter } from '../../../src/sheep/peer/frames.ts'

interface Sent {
  kind: number
  flags: number
  id: number
  fields: Uint8Array
  body: Uint8Array[]
}

const sentFrames = fc.array(
  fc.record<Sent>({
    kind: fc.integer({ min: 0, max: 255 }),
    flags: fc.integer({ min: 0, max: 3 }),
    id: fc.integer({ min: 0, max: 0xffff_ffff }),
    fields: fc.uint8Array({ maxLength: 3000 }),
    body: fc.array(fc.uint8Array({ maxLength: 6000 }), { maxLength: 3 }),
  }),
  { maxLength: 8 },
)

function write(frames: readonly Sent[]): Buffer[] {
  const writer = new FrameWriter()
  for (const { kind, flags, id, fields, body } of frames) {
    writer.begin(kind, flags, id)
    writer.bytes(fields)
    for (const part of body) writer.body(part)
    writer.end()
  }
  return writer.take()
}

/** The same without the writer: header by header, as the comment in frames.ts has it. */
function written({ kind, flags, id, fields, body }: Sent): Buffer {
  const header = Buffer.alloc(16)
  header[0] = kind
  header[1] = flags
  header.writeUInt32LE(id, 4)
  header.writeUInt32LE(fields.length, 8)
  header.writeUInt32LE(Buffer.concat(body).length, 12)
  return Buffer.concat([header, fields, ...body])
}

describe('frames', () => {
  it('are written as the grammar says', () => {
    fc.assert(
      fc.property(sentFrames, (frames) => {
        expect(Buffer.concat(write(frames)).equals(Buffer.concat(frames.map(written)))).toBe(true)
      }),
    )
  })

  it('come out as they went in, wherever the stream is cut', () => {
    fc.assert(
      fc.property(
        sentFrames,
        fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 8 }),
        (frames, cuts) => {
          const bytes = Buffer.concat(frames.map(written))
          const received: unknown[] = []
          const targets = new Map<number, Buffer>()
          const reader = new FrameReader(
            (kind, flags, id, fields, body) => {
              if (targets.has(id) && (flags & 1) !== 0 && body.length > 0) expect(body).toBe(targets.get(id))
              received.push([kind, flags, id, Buffer.from(fields), Buffer.from(body)])
            },
            (_kind, flags, id) => {
              if ((flags & 1) === 0) return undefined
              if (id % 2 === 0) return undefined
              const length = frames.find((frame) => frame.id === id)!.body.reduce((sum, part) => sum + part.length, 0)
              targets.set(id, Buffer.alloc(length))
              return targets.get(id)
            },
          )
          for (let at = 0, turn = 0; at < bytes.length; turn++) {
            const end = Math.min(bytes.length, at + cuts[turn % cuts.length]!)
            reader.read(bytes.subarray(at, end))
            at = end
          }
          expect(received).toEqual(
            frames.map(({ kind, flags, id, fields, body }) => [
              kind,
              flags,
              id,
              Buffer.from(fields),
              Buffer.concat(body),
            ]),
          )
        },
      ),
    )
  })

  it('leave nothing behind when they are taken back', () => {
    const writer = new FrameWriter()
    writer.begin(16, 0, 1)
    writer.u32(7)
    writer.end()
    writer.begin(16, 0, 2)
    for (let count = 0; count < 20_000; count++) writer.u32(count) // more than a slab
    writer.body(Buffer.alloc(5000))
    writer.undo()
    writer.begin(16, 0, 3)
    expect(() => {
      writer.body(Buffer.alloc(BODY_BYTES_MAX))
      writer.body(Buffer.alloc(1))
      writer.end()
    }).toThrow('too long')
    writer.begin(16, 0, 4)
    writer.end()
    const fields = Buffer.alloc(4)
    fields.writeUInt32LE(7)
    const frame = { kind: 16, flags: 0, fields, body: [] }
    expect(Buffer.concat(writer.take())).toEqual(
      Buffer.concat([written({ ...frame, id: 1 }), written({ ...frame, id: 4, fields: Buffer.alloc(0) })]),
    )
  })

  it('that are too long are refused before there is memory for them', () => {
    const reader = new FrameReader(() => {})
    const header = written({ kind: 16, flags: 1, id: 1, fields: Buffer.alloc(0), body: [] })
    header.writeUInt32LE(BODY_BYTES_MAX + 1, 12)
    expect(() => reader.read(header)).toThrow(MalformedMessage)
  })
})

describe('fields', () => {
  it('come out as they went in', () => {
    fc.assert(
      fc.property(
        fc.tuple(
          fc.nat(255),
          fc.nat(65_535),
          fc.nat(0xffff_ffff),
          fc.maxSafeNat(),
          fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
          fc.string({ unit: fc.constantFrom('a', '\0', 'é', '🐑'), maxLength: 60 }),
        ),
        ([u8, u16, u32, whole, bits, text]) => {
          const writer = new FrameWriter()
          writer.begin(16, 0, 1)
          writer.u8(u8)
          writer.u16(u16)
          writer.u32(u32)
          writer.whole(whole)
          writer.bits64(bits)
          writer.shortText(text)
          writer.end()
          const reader = new ByteReader(Buffer.concat(writer.take()).subarray(16))
          const read = [reader.u8('a'), reader.u16('b'), reader.u32('c'), reader.whole('d'), reader.bits64('e')]
          expect([...read, reader.shortText('f')]).toEqual([u8, u16, u32, whole, bits, text])
          reader.end('test')
        },
      ),
    )
  })

  it('that are not there, or cannot be, are named', () => {
    const of = (...bytes: number[]) => new ByteReader(Buffer.from(bytes))
    expect(() => of(1).u16('epoch')).toThrow('the message ends before epoch does')
    expect(() => of(3, 65).shortText('node')).toThrow('the message ends before node does')
    expect(() => of(1, 0xff).shortText('node')).toThrow('node is no text')
    expect(() => of(9, 0, 0, 0, 1).count('oids', 8)).toThrow('oids: there is no room for 9')
    expect(() => of(0, 0, 0, 0, 0, 0, 0, 1).whole('sequence')).toThrow('sequence is more than 2^53')
    expect(() => of(1).end('open')).toThrow('1 bytes are left after the open')
  })
})
