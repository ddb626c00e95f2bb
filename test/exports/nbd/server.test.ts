import { describe, expect, test } from 'vitest'
import { type Clock, systemClock } from '../../../src/runtime/clock.ts'
import { MemoryDevice, seededSchedule } from '../../tools/memory-device.ts'
import { connectSocket, NbdClient, NbdError } from '../../tools/nbd-client.ts'
import { hex } from './bytes.ts'
import { EXPORT_NAME, gate, quiet, RIGHT_ID, startServer, until } from './harness.ts'

const KIB = 1024
const MIB = 1024 * 1024

describe('cutting off a right', () => {
  test('waits for what is in the device, and answers nothing of it', async () => {
    const device = gate()
    const harness = await startServer({ schedule: device.schedule })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const write = client.write(0, Buffer.alloc(4096, 7))
    const writeFails = expect(write).rejects.toThrow('the stream ended')
    await until(() => device.heldCount === 1)

    harness.rights.delete(EXPORT_NAME)
    let done = false
    const cut = harness.server.cutOff(RIGHT_ID).then(() => {
      done = true
    })
    await writeFails
    await client.closed
    expect(done).toBe(false)

    device.release()
    await cut
    expect(harness.disk.requests).toBe(1)
    await expect(NbdClient.connect(harness.unixPath, EXPORT_NAME)).rejects.toThrow(NbdError)
  })

  test('what was sent and not read yet never runs', async () => {
    const device = gate()
    const harness = await startServer({ schedule: device.schedule, limits: { requestsMax: 2 } })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const writes = Array.from({ length: 50 }, (_, index) => client.write(index * 4096, Buffer.alloc(4096, 7)))
    const allFail = Promise.all(writes.map((write) => expect(write).rejects.toThrow('the stream ended')))
    await until(() => device.heldCount === 2)
    harness.rights.delete(EXPORT_NAME)
    const cut = harness.server.cutOff(RIGHT_ID)
    device.release()
    await cut
    await allFail
    expect(harness.disk.requests).toBe(2)
  })

  test('overtakes a look-up that is under way', async () => {
    const harness = await startServer()
    let answerLookup: () => void = () => {}
    let lookups = 0
    harness.lookupDelay = new Promise((resolve) => {
      answerLookup = resolve
    })
    const find = harness.rights.get.bind(harness.rights)
    harness.rights.get = (name) => {
      lookups++
      return find(name)
    }
    const refused = expect(NbdClient.connect(harness.unixPath, EXPORT_NAME, { structured: false })).rejects.toThrow(
      'the stream ended',
    )
    await until(() => lookups === 1)
    harness.rights.delete(EXPORT_NAME)
    await harness.server.cutOff(RIGHT_ID)
    answerLookup()
    await refused
    expect(lookups).toBe(2)
  })

  test('catches a client whose volume is being opened', async () => {
    const harness = await startServer()
    const right = harness.rights.get(EXPORT_NAME)!
    let opening: () => void = () => {}
    let openedCount = 0
    harness.rights.set(EXPORT_NAME, {
      ...right,
      open: async () => {
        openedCount++
        await new Promise<void>((resolve) => {
          opening = resolve
        })
        return right.open()
      },
    })
    const refused = expect(NbdClient.connect(harness.unixPath, EXPORT_NAME)).rejects.toThrow('the stream ended')
    await until(() => openedCount === 1)
    harness.rights.delete(EXPORT_NAME)
    const cut = harness.server.cutOff(RIGHT_ID)
    opening()
    await cut
    await refused
    expect(harness.server.stats.connections).toBe(0)
  })

  test('leaves other rights alone, and a right that is granted again is honoured', async () => {
    const harness = await startServer()
    const right = harness.rights.get(EXPORT_NAME)!
    harness.rights.set('other', { ...right, id: 'attachment-2' })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const other = await NbdClient.connect(harness.unixPath, 'other')
    harness.rights.delete(EXPORT_NAME)
    await harness.server.cutOff(RIGHT_ID)
    await client.closed
    await other.write(0, Buffer.from('still here'))

    harness.rights.set(EXPORT_NAME, right)
    const again = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    expect((await again.read(0, 10)).toString()).toBe('still here')
  })
})

describe('the end of a connection', () => {
  test('a farewell is honoured after everything in flight is answered', async () => {
    const device = gate()
    const harness = await startServer({ schedule: device.schedule })
    const client = await NbdClient.connect(harness.tcpAddress, EXPORT_NAME)
    const write = client.write(0, Buffer.from('last words'))
    const closed = client.disconnect()
    await until(() => device.heldCount === 1)
    device.release()
    await write
    await closed
    await until(() => harness.server.stats.connections === 0)
  })

  test('a client that vanishes leaves nothing behind', async () => {
    const device = gate()
    let closedCount = 0
    const harness = await startServer()
    harness.rights.set(EXPORT_NAME, {
      id: RIGHT_ID,
      readOnly: false,
      open: async () => {
        const memory = new MemoryDevice(harness.disk, { schedule: device.schedule })
        const close = memory.close.bind(memory)
        memory.close = () => close().then(() => void closedCount++)
        return memory
      },
    })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const lost = expect(client.read(0, 4096)).rejects.toThrow()
    await until(() => device.heldCount === 1)
    client.destroy()
    await lost
    expect(closedCount).toBe(0)
    device.release()
    await until(() => harness.server.stats.connections === 0)
    expect(closedCount).toBe(1)
  })

  test('closing the server answers what is in flight first', async () => {
    const device = gate()
    const harness = await startServer({ schedule: device.schedule })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const write = client.write(0, Buffer.from('in time'))
    await until(() => device.heldCount === 1)
    const closed = harness.server.close()
    device.release()
    await Promise.all([write, closed, client.closed])
    await expect(connectSocket(harness.tcpAddress)).rejects.toThrow('ECONNREFUSED')
  })

  test('closing the server does not wait for ever for a client that does not read', async () => {
    const harness = await startServer({ sizeBytes: 16 * MIB, limits: { closeMs: 50 } })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    client.stopReading()
    const lost = expect(client.read(0, 16 * MIB)).rejects.toThrow('the stream ended')
    await until(() => harness.server.stats.bytesRead > 0)
    await harness.server.close()
    client.resumeReading()
    await lost
  })
})

describe('bounds', () => {
  test('a client that does not read its replies is not read either', async () => {
    const requestBytesMax = 2 * MIB
    const harness = await startServer({ sizeBytes: MIB, limits: { requestBytesMax } })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    client.stopReading()
    const stamps = Buffer.alloc(MIB, 0xee)
    for (let offset = 0; offset < MIB; offset += 512) stamps.writeUInt32BE(offset, offset)
    harness.disk.copyIn(0, stamps)
    const reads = Array.from({ length: 200 }, (_, index) => client.read(index * 512, 256 * KIB))
    await quiet(() => harness.server.stats.requests)
    const startedBytes = harness.server.stats.bytesRead
    expect(startedBytes).toBeGreaterThanOrEqual(requestBytesMax)
    expect(startedBytes).toBeLessThan(3 * requestBytesMax) // what the kernel's socket buffers took, up to 2 MiB, comes on top
    client.resumeReading()
    for (const [index, read] of reads.entries()) {
      expect((await read).equals(stamps.subarray(index * 512, index * 512 + 256 * KIB))).toBe(true)
    }
  })

  test('no more requests are in the device than allowed, and all are answered in the end', async () => {
    const device = gate()
    const harness = await startServer({ schedule: device.schedule, limits: { requestsMax: 8 } })
    const client = await NbdClient.connect(harness.tcpAddress, EXPORT_NAME)
    const writes = Array.from({ length: 100 }, (_, index) => client.write(index * KIB, Buffer.alloc(KIB, index)))
    await quiet(() => harness.server.stats.requests)
    expect(device.heldCount).toBe(8)
    device.release()
    await Promise.all(writes)
    expect(harness.disk.requests).toBe(100)
  })

  test('a limit below what is answered at once does not stop the connection', async () => {
    const harness = await startServer({ limits: { requestBytesMax: 64 * KIB } })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const reads = Array.from({ length: 100 }, () => client.read(0, 16 * KIB))
    for (const read of reads) expect(await read).toHaveLength(16 * KIB)
  })

  test('one request beyond the limit of bytes is served when it is the only one', async () => {
    const harness = await startServer({ schedule: seededSchedule(3), limits: { requestBytesMax: 64 * KIB } })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const data = Buffer.alloc(512 * KIB, 'x')
    await Promise.all([client.write(0, data), client.write(512 * KIB, data), client.flush()])
    expect((await client.read(0, MIB)).equals(Buffer.alloc(MIB, 'x'))).toBe(true)
  })

  test('connections beyond the limit are closed at once', async () => {
    const harness = await startServer({ limits: { connectionsMax: 1 } })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    await expect(NbdClient.connect(harness.unixPath, EXPORT_NAME)).rejects.toThrow('the stream ended')
    await client.flush()
  })
})

test('a process that stood still drops its connections unread', async () => {
  let skippedMs = 0
  const clock: Clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + skippedMs }
  const harness = await startServer({ clock, limits: { stallMs: 4000 } })
  const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
  await client.write(0, Buffer.from('before'))
  skippedMs = 3000
  await client.write(0, Buffer.from('slowly'))
  skippedMs = 8000
  await expect(client.write(0, Buffer.from('too late'))).rejects.toThrow()
  await until(() => harness.server.stats.connections === 0)
  expect(harness.server.stats.stalls).toBe(1)

  const again = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
  expect((await again.read(0, 8)).toString()).toBe('slowly\0\0')
})

test('garbage in the transmission phase ends the connection, also when it is read late', async () => {
  const device = gate()
  const harness = await startServer({ schedule: device.schedule, limits: { requestsMax: 1 } })
  const socket = await connectSocket(harness.unixPath)
  socket.on('error', () => {})
  const over = new Promise((resolve) => socket.once('close', resolve))
  socket.resume()
  const greeting = '00000003 49484156454f5054 00000001 00000006 633066666565'
  const flush = '25609513 0000 0003 0000000000000000 0000000000000000 00000000'
  socket.write(hex(greeting, flush, 'ff'.repeat(28)))
  await until(() => device.heldCount === 1)
  device.release()
  await over
  await until(() => harness.server.stats.connections === 0)
  expect(harness.server.stats).toMatchObject({ requests: 1, refusedConnections: 1 })
})
