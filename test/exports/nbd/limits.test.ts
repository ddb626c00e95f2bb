import type net from 'node:net'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { NbdLimits } from '../../../src/exports/nbd/limits.ts'
import { ByteStream } from '../../tools/byte-stream.ts'
import { ManualClock } from '../../tools/manual-clock.ts'
import { MemoryDevice } from '../../tools/memory-device.ts'
import { connectSocket, NbdClient, NbdError } from '../../tools/nbd-client.ts'
import { hex } from './bytes.ts'
import { EXPORT_NAME, gate, type Harness, quiet, RIGHT_ID, startServer, until } from './harness.ts'

const KIB = 1024
const MIB = 1024 * 1024
const MINUTE_MS = 60_000
const ENTER = hex('00000003 49484156454f5054 00000001 00000006 633066666565')
const WRITE_1_MIB = hex('25609513 0000 0001 0000000000000001 0000000000000000 00100000')
const READ_1_MIB = hex('25609513 0000 0000 0000000000000002 0000000000000000 00100000')
const DISC = hex('25609513 0000 0002 0000000000000003 0000000000000000 00000000')

/** A server whose time stands still until it is advanced. */
async function frozenServer(limits: Partial<NbdLimits> = {}): Promise<Harness & { clock: ManualClock }> {
  const clock = new ManualClock()
  return { ...(await startServer({ sizeBytes: 64 * MIB, limits, clock })), clock }
}

/** A connection in the transmission phase that sends what it is told and reads nothing. */
async function rawClient(harness: Harness): Promise<net.Socket & { over: Promise<void> }> {
  const socket = await connectSocket(harness.unixPath)
  onTestFinished(() => void socket.destroy()) // it does not see by itself that the server ends
  const stream = new ByteStream(socket)
  socket.write(ENTER)
  await stream.take(18 + 10)
  socket.pause()
  socket.on('error', () => {})
  return Object.assign(socket, { over: new Promise<void>((resolve) => socket.once('close', () => resolve())) })
}

/** The raw client is gone: it sees that only when it reads. */
async function isDropped(socket: net.Socket & { over: Promise<void> }): Promise<void> {
  socket.resume()
  await socket.over
}

describe('a client that does not go on', () => {
  test.each<[string, (socket: net.Socket) => void]>([
    ['in a request header', (socket) => socket.write(WRITE_1_MIB.subarray(0, 27))],
    ['in a payload', (socket) => socket.write(Buffer.concat([WRITE_1_MIB, Buffer.alloc(MIB - 1)]))],
    [
      'in the payload of a refused write',
      (socket) => socket.write(hex('25609513 8000 0001', '00'.repeat(16), 'ffffffff')),
    ],
    ['reading its replies', (socket) => socket.write(Buffer.concat(Array(16).fill(READ_1_MIB)))],
  ])('is dropped when it stops %s', async (_title, stop) => {
    const harness = await frozenServer({ stuckMs: 10 * MINUTE_MS })
    const socket = await rawClient(harness)
    const idle = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    stop(socket)
    await until(() => socket.writableLength === 0)
    await quiet(() => harness.server.stats.requests)
    harness.clock.advance(10 * MINUTE_MS - 1)
    expect(harness.server.stats).toMatchObject({ connections: 2, stuckConnections: 0 })
    harness.clock.advance(MINUTE_MS)
    expect(harness.server.stats.stuckConnections).toBe(1)
    await isDropped(socket)
    await until(() => harness.server.stats.connections === 1)
    expect(harness.server.stats.commonBytes).toBe(0)
    await idle.flush()
  })

  test('may be as slow as it likes while it does', async () => {
    const harness = await frozenServer({ stuckMs: 10 * MINUTE_MS })
    const socket = await rawClient(harness)
    socket.write(WRITE_1_MIB)
    for (let sent = 0; sent < MIB; sent += 64 * KIB) {
      socket.write(Buffer.alloc(64 * KIB, 7))
      await until(() => socket.writableLength === 0)
      await quiet(() => harness.server.stats.requests)
      harness.clock.advance(9 * MINUTE_MS)
    }
    await until(() => harness.server.stats.bytesWritten === MIB)
    expect(harness.server.stats).toMatchObject({ connections: 1, stuckConnections: 0 })
  })

  test('is not the one that waits for the device', async () => {
    const device = gate()
    const clock = new ManualClock()
    const harness = await startServer({ clock, schedule: device.schedule, limits: { requestsMax: 1, stuckMs: 1000 } })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const writes = [1, 2, 3].map((n) => client.write(n * 4096, Buffer.alloc(4096, n)))
    await until(() => device.heldCount === 1)
    await quiet(() => harness.server.stats.requests)
    clock.advance(MINUTE_MS)
    device.release()
    await Promise.all(writes)
    expect(harness.server.stats.stuckConnections).toBe(0)
  })
})

describe('memory that all connections share', () => {
  const LIMITS = { ownBytes: 64 * KIB, commonBytesMax: MIB, stuckMs: 10 * MINUTE_MS, stuckUnderPressureMs: 10_000 }

  test('is waited for, small requests go on, and who keeps it for nothing is dropped', async () => {
    const harness = await frozenServer(LIMITS)
    const hoarder = await rawClient(harness)
    hoarder.write(WRITE_1_MIB)
    await until(() => harness.server.stats.commonBytes > 900 * KIB)

    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const read = client.read(0, MIB)
    await until(() => harness.server.stats.waitingConnections === 1)
    const other = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    for (let count = 0; count < 50; count++) await other.write(count * 4096, Buffer.alloc(64 * KIB, count))

    harness.clock.advance(9_000)
    await quiet(() => harness.server.stats.requests)
    expect(harness.server.stats).toMatchObject({ waitingConnections: 1, stuckConnections: 0 })
    harness.clock.advance(5_000)
    expect(await read).toHaveLength(MIB)
    await isDropped(hoarder)
    await until(() => harness.server.stats.connections === 2)
    expect(harness.server.stats).toMatchObject({ waitingConnections: 0, stuckConnections: 1, commonBytes: 0 })
  })

  test('is taken for replies without data too: refusals cannot be piled up', async () => {
    const harness = await startServer({ limits: { ownBytes: 4 * KIB, commonBytesMax: 64 * KIB } })
    const structured = hex('00000003 49484156454f5054 00000008 00000000')
    const go = hex('49484156454f5054 00000007 0000000c 00000006 633066666565 0000')
    const unknown = hex('25609513 0000 00ff 0000000000000001 0000000000000000 00000000')
    const flood = Buffer.concat(Array(60_000).fill(unknown)) // their replies are more than a socket has room for
    const clients = await Promise.all([1, 2, 3].map(() => connectSocket(harness.unixPath)))
    for (const socket of clients) {
      onTestFinished(() => void socket.destroy())
      socket.write(Buffer.concat([structured, go, flood]))
    }
    await until(() => harness.server.stats.waitingConnections > 0)
    await quiet(() => harness.server.stats.requests)
    expect(harness.server.stats.requests).toBeLessThan(3 * 60_000)
    expect(harness.server.stats.commonBytes).toBeLessThanOrEqual(64 * KIB)
    for (const socket of clients) socket.resume()
    await until(() => harness.server.stats.requests === 3 * 60_000)
    expect(harness.server.stats.errors).toBe(3 * 60_000)
  })

  test('is not waited for by who has gone', async () => {
    const harness = await frozenServer(LIMITS)
    const hoarder = await rawClient(harness)
    hoarder.write(WRITE_1_MIB)
    await until(() => harness.server.stats.commonBytes > 900 * KIB)
    const [first, second] = [await rawClient(harness), await NbdClient.connect(harness.unixPath, EXPORT_NAME)]
    first.write(WRITE_1_MIB)
    await until(() => harness.server.stats.waitingConnections === 1)
    const write = second.write(0, Buffer.alloc(MIB, 1))
    await until(() => harness.server.stats.waitingConnections === 2)
    first.destroy()
    hoarder.destroy()
    await write
    await until(() => harness.server.stats.connections === 1)
    expect(harness.server.stats).toMatchObject({ waitingConnections: 0, commonBytes: 0, stuckConnections: 0 })
  })

  test('suffices for any number of connections that all go on', async () => {
    const harness = await startServer({ sizeBytes: 16 * MIB, limits: { ...LIMITS, commonBytesMax: 2 * MIB } })
    let mostBytes = 0
    const clients = await Promise.all(Array.from({ length: 8 }, () => NbdClient.connect(harness.unixPath, EXPORT_NAME)))
    await Promise.all(
      clients.map(async (client, index) => {
        for (let round = 0; round < 6; round++) {
          const data = Buffer.alloc((round + 1) * 256 * KIB, index + 1)
          await client.write(index * 2 * MIB, data)
          mostBytes = Math.max(mostBytes, harness.server.stats.commonBytes)
          const reads = [1, 2, 3].map(() => client.read(index * 2 * MIB, data.length))
          for (const read of reads) expect((await read).equals(data)).toBe(true)
        }
      }),
    )
    expect(mostBytes).toBeGreaterThan(0)
    expect(mostBytes).toBeLessThanOrEqual(2 * MIB + 8 * 64 * KIB) // headers come on top of what was asked for
    await until(() => harness.server.stats.commonBytes === 0)
  })

  test('is kept by a client that says goodbye and does not read, until it is cut', async () => {
    const harness = await frozenServer({ closeMs: 5000 })
    const socket = await rawClient(harness)
    socket.write(Buffer.concat([...Array(16).fill(READ_1_MIB), DISC]))
    await until(() => harness.server.stats.bytesRead === 16 * MIB)
    await quiet(() => harness.server.stats.requests)
    expect(harness.server.stats.connections).toBe(1)
    expect(harness.server.stats.commonBytes).toBeGreaterThan(4 * MIB)
    harness.clock.advance(5000)
    await isDropped(socket)
    await until(() => harness.server.stats.connections === 0)
    expect(harness.server.stats.commonBytes).toBe(0)
  })
})

describe('connections', () => {
  test('of one right are bounded, and leave room for others', async () => {
    const harness = await startServer({ limits: { exportConnectionsMax: 2 } })
    const right = harness.rights.get(EXPORT_NAME)!
    harness.rights.set('other', { ...right, id: 'attachment-2' })
    const clients = await Promise.all([1, 2].map(() => NbdClient.connect(harness.unixPath, EXPORT_NAME)))
    const refusal = await NbdClient.connect(harness.unixPath, EXPORT_NAME).catch((error: unknown) => error)
    expect(refusal).toBeInstanceOf(NbdError)
    expect(refusal).toMatchObject({ code: 0x8000_0002, message: 'the export has too many connections' })
    const oldStyle = NbdClient.connect(harness.unixPath, EXPORT_NAME, { structured: false })
    await expect(oldStyle).rejects.toThrow('the stream ended')
    await (await NbdClient.connect(harness.unixPath, 'other')).flush()
    await clients[0]!.disconnect()
    await until(() => harness.server.stats.connections === 2)
    await (await NbdClient.connect(harness.unixPath, EXPORT_NAME)).flush()
  })

  test('in the handshake have so long, however busily they send', async () => {
    const harness = await frozenServer({ handshakeMs: 30_000 })
    const socket = await connectSocket(harness.unixPath)
    socket.on('error', () => {})
    const over = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    socket.resume()
    const bytes = Buffer.concat([ENTER.subarray(0, 12), hex('00000099 00000200'), Buffer.alloc(0x200)])
    for (const [index, byte] of bytes.subarray(0, 29).entries()) {
      expect(harness.server.stats.connections, `${index} seconds`).toBe(1)
      socket.write(Buffer.of(byte))
      await quiet(() => socket.bytesWritten)
      harness.clock.advance(1000)
    }
    harness.clock.advance(1000)
    await over
    await until(() => harness.server.stats.connections === 0)
    expect(harness.server.stats.refusedConnections).toBe(1)
  })
})

describe('a right that is cut off', () => {
  test('ends a handshake that has opened its volume and asks for more', async () => {
    const harness = await startServer()
    const socket = await connectSocket(harness.unixPath)
    const stream = new ByteStream(socket)
    socket.write(hex('00000003 49484156454f5054 00000006 0000000c 00000006 633066666565 0000'))
    await stream.take(18 + 32 + 20) // greeting, INFO and ACK
    harness.rights.delete(EXPORT_NAME)
    await harness.server.cutOff(RIGHT_ID)
    socket.write(hex('49484156454f5054 00000007 0000000c 00000006 633066666565 0000'))
    expect(await stream.rest()).toHaveLength(0)
    expect(harness.server.stats.connections).toBe(0)
  })

  test('leaves nothing of a write that is half received', async () => {
    const harness = await startServer()
    const socket = await rawClient(harness)
    socket.write(Buffer.concat([WRITE_1_MIB, Buffer.alloc(MIB / 2, 7)]))
    await until(() => harness.server.stats.commonBytes > 0)
    harness.rights.delete(EXPORT_NAME)
    await harness.server.cutOff(RIGHT_ID)
    socket.write(Buffer.alloc(MIB / 2, 7))
    await isDropped(socket)
    expect(harness.disk.requests).toBe(0)
    expect(harness.server.stats).toMatchObject({ connections: 0, commonBytes: 0 })
  })

  test('does not wait for a client that leaves its replies unread', async () => {
    const harness = await startServer({ sizeBytes: 16 * MIB })
    const socket = await rawClient(harness)
    socket.write(Buffer.concat(Array(16).fill(READ_1_MIB)))
    await until(() => harness.server.stats.bytesRead === 16 * MIB)
    harness.rights.delete(EXPORT_NAME)
    await harness.server.cutOff(RIGHT_ID)
    expect(harness.server.stats).toMatchObject({ connections: 0, commonBytes: 0 })
    await isDropped(socket)
  })

  test('ends a client that waits for memory', async () => {
    const harness = await startServer({ limits: { ownBytes: 0, commonBytesMax: MIB } })
    const right = harness.rights.get(EXPORT_NAME)!
    const open = async () => new MemoryDevice(harness.disk)
    harness.rights.set('other', { ...right, id: 'attachment-2', open })
    const hoarder = await rawClient(harness)
    hoarder.write(WRITE_1_MIB)
    await until(() => harness.server.stats.commonBytes === MIB)
    const other = await NbdClient.connect(harness.unixPath, 'other')
    const lost = expect(other.read(0, 4096)).rejects.toThrow('the stream ended')
    await until(() => harness.server.stats.waitingConnections === 1)
    await harness.server.cutOff('attachment-2')
    await lost
    expect(harness.server.stats).toMatchObject({ connections: 1, waitingConnections: 0, commonBytes: MIB })
  })
})
