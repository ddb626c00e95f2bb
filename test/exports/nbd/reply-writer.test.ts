import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ReplyWriter } from '../../../src/exports/nbd/reply-writer.ts'
import { BufferPool } from '../../../src/runtime/buffer-pool.ts'
import type { Connection } from '../../../src/runtime/network.ts'
import { hex } from './bytes.ts'

/** A connection whose kernel takes bytes when the test says so. It reads a buffer only then, as a kernel does. */
class SlowConnection implements Connection {
  readonly peer = 'test'
  pendingBytes = 0
  private readonly pending: Uint8Array[] = []
  readonly taken: Buffer[] = []
  private readonly eager: boolean

  constructor(eager: boolean) {
    this.eager = eager
  }

  write(buffers: readonly Uint8Array[]): boolean {
    for (const buffer of buffers) {
      this.pending.push(buffer)
      this.pendingBytes += buffer.length
    }
    if (this.eager) this.take(this.pending.length)
    return this.pendingBytes === 0
  }

  get pendingCount(): number {
    return this.pending.length
  }

  /** The kernel takes some of what was written, in order. */
  take(count: number): void {
    for (const buffer of this.pending.splice(0, count)) {
      this.taken.push(Buffer.from(buffer))
      this.pendingBytes -= buffer.length
    }
  }

  onData(): void {}
  onClose(): void {}
  onDrain(): void {}
  pause(): void {}
  resume(): void {}
  end(): void {}
  destroy(): void {}
}

describe('memory of a reply that is given up', () => {
  test.each([100, 64 * 1024, 1024 * 1024])(
    'is used for nothing else, as %i bytes may still be put into it',
    (lengthBytes) => {
      const pool = new BufferPool()
      const writer = new ReplyWriter(new SlowConnection(true), pool, true)
      writer.sendDone({ cookieHigh: 1, cookieLow: 1 }) // in the same memory, if that is small
      const slab = writer.slabFor(lengthBytes)
      slab.take(lengthBytes)
      writer.discard(slab)
      writer.sendError({ cookieHigh: 1, cookieLow: 2 }, 5, 'no')
      writer.flush()
      writer.release()
      const room = slab.buffer.length - 4096
      const again = Array.from({ length: 8 }, () => pool.take(room))
      expect(again.every((buffer) => buffer !== slab.buffer)).toBe(true)
    },
  )
})

describe('a reply', () => {
  const cookie = { cookieHigh: 0x01020304, cookieLow: 0xf5f6f7f8 }

  test.each<[string, boolean, (writer: ReplyWriter) => void, string]>([
    ['success', false, (writer) => writer.sendDone(cookie), '67446698 00000000 01020304f5f6f7f8'],
    ['success', true, (writer) => writer.sendDone(cookie), '67446698 00000000 01020304f5f6f7f8'],
    ['an error', false, (writer) => writer.sendError(cookie, 5, 'no'), '67446698 00000005 01020304f5f6f7f8'],
    [
      'an error',
      true,
      (writer) => writer.sendError(cookie, 5, 'no'),
      '668e33ef 0001 8001 01020304f5f6f7f8 00000008 00000005 0002 6e6f',
    ],
    ['data', false, (writer) => sendData(writer, 0, 'hi'), '67446698 00000000 01020304f5f6f7f8 6869'],
    [
      'data beyond 4 GiB',
      true,
      (writer) => sendData(writer, 0x1_8000_0001, 'hi'),
      '668e33ef 0001 0001 01020304f5f6f7f8 0000000a 0000000180000001 6869',
    ],
    [
      'block status',
      true,
      (writer) =>
        writer.sendBlockStatus(cookie, [
          { kind: 'data', lengthBytes: 1 },
          { kind: 'zero', lengthBytes: 2 },
          { kind: 'hole', lengthBytes: 3 },
        ]),
      '668e33ef 0001 0005 01020304f5f6f7f8 0000001c 00000001 00000001 00000000 00000002 00000002 00000003 00000003',
    ],
  ])('of %s, structured: %s', (_title, structured, send, expected) => {
    const connection = new SlowConnection(true)
    const writer = new ReplyWriter(connection, new BufferPool(), structured)
    send(writer)
    writer.flush()
    expect(Buffer.concat(connection.taken)).toEqual(hex(expected))
  })

  function sendData(writer: ReplyWriter, offset: number, text: string): void {
    const lengthBytes = writer.dataHeaderBytes + text.length
    const slab = writer.slabFor(lengthBytes)
    const start = slab.take(lengthBytes)
    slab.buffer.write(text, start + writer.dataHeaderBytes)
    writer.sendData(slab, start, cookie, offset, text.length)
  }
})

describe('memory of replies', () => {
  type Step =
    | { kind: 'begin'; lengthBytes: number }
    | { kind: 'finish'; pick: number }
    | { kind: 'fail'; pick: number }
    | { kind: 'flush' }
    | { kind: 'take'; count: number }
  const pick = fc.nat()
  const steps = fc.array(
    fc.oneof(
      fc.constantFrom(100, 4096, 60_000, 300_000).map((lengthBytes): Step => ({ kind: 'begin', lengthBytes })),
      pick.map((pick): Step => ({ kind: 'finish', pick })),
      pick.map((pick): Step => ({ kind: 'fail', pick })),
      fc.constant<Step>({ kind: 'flush' }),
      fc.integer({ min: 1, max: 4 }).map((count): Step => ({ kind: 'take', count })),
    ),
    { minLength: 50, maxLength: 200 },
  )

  test('is not used again before the kernel has taken the bytes', () => {
    fc.assert(
      fc.property(steps, fc.boolean(), (all, eager) => {
        const connection = new SlowConnection(eager)
        const writer = new ReplyWriter(connection, new BufferPool(), false)
        const expected: Buffer[] = []
        const begun: { slab: ReturnType<ReplyWriter['slabFor']>; start: number; lengthBytes: number; stamp: number }[] =
          []
        for (const [stamp, step] of all.entries()) {
          if (step.kind === 'begin') {
            const slab = writer.slabFor(16 + step.lengthBytes)
            const start = slab.take(16 + step.lengthBytes)
            slab.buffer.fill(stamp, start + 16, start + 16 + step.lengthBytes) // the device's read
            begun.push({ slab, start, lengthBytes: step.lengthBytes, stamp })
          } else if (step.kind === 'finish' || step.kind === 'fail') {
            const [reply] = begun.splice(step.pick % Math.max(begun.length, 1), 1)
            if (reply === undefined) continue
            const cookie = { cookieHigh: 0, cookieLow: reply.stamp }
            const header = hex('67446698 00000000 0000000000000000')
            header.writeUInt32BE(reply.stamp, 12)
            if (step.kind === 'finish') {
              writer.sendData(reply.slab, reply.start, cookie, 0, reply.lengthBytes)
              expected.push(header, Buffer.alloc(reply.lengthBytes, reply.stamp))
            } else {
              writer.discard(reply.slab)
              writer.sendError(cookie, 5, '')
              header.writeUInt32BE(5, 4)
              expected.push(header)
            }
          } else if (step.kind === 'flush') {
            writer.flush()
          } else {
            connection.take(step.count)
          }
        }
        writer.flush()
        connection.take(Number.POSITIVE_INFINITY)
        expect(Buffer.concat(connection.taken).equals(Buffer.concat(expected))).toBe(true)
      }),
    )
  })

  test('is used again when it has, though there is always something that it has not', () => {
    const pool = new BufferPool()
    const connection = new SlowConnection(false)
    const writer = new ReplyWriter(connection, pool, true)
    const buffers = new Set<ArrayBufferLike>()
    for (let round = 0; round < 300; round++) {
      for (const lengthBytes of [28 + 4096, 28 + 60_000, 28 + 1024 * 1024]) {
        const slab = writer.slabFor(lengthBytes)
        const start = slab.take(lengthBytes)
        buffers.add(slab.buffer.buffer)
        writer.sendData(slab, start, { cookieHigh: 0, cookieLow: round }, 0, lengthBytes - 28)
      }
      writer.flush()
      connection.take(connection.pendingCount - 1)
    }
    expect(buffers.size).toBeLessThan(10)
  })
})
