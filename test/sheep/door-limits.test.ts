import type net from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { FLAG, RESULT } from '../../src/protocol/constants.ts'
import { OP } from '../../src/protocol/opcodes.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemNetwork } from '../../src/runtime/network.ts'
import type { DoorLimits } from '../../src/sheep/door-limits.ts'
import { createSheepServer, type Reply, type SheepServerOptions } from '../../src/sheep/server.ts'
import { quiet, until } from '../exports/nbd/harness.ts'
import { ManualClock } from '../tools/manual-clock.ts'
import { connectSocket } from '../tools/nbd-client.ts'
import { frame, RawSheepClient } from '../tools/raw-sheep-client.ts'

const KIB = 1024
const MIB = 1024 * 1024
const MINUTE_MS = 60_000
const FLUSH = frame({ opcode: OP.FLUSH_VDI })
const write = (bytes: number) => frame({ opcode: OP.WRITE_OBJ, flags: FLAG.WRITE, body: Buffer.alloc(bytes, 7) })
const read = (bytes: number) => frame({ opcode: OP.READ_OBJ, dataLength: bytes })

const MEMORY = { ownBytes: 64 * KIB, commonBytesMax: 2 * MIB, stuckMs: 10 * MINUTE_MS, stuckUnderPressureMs: 10_000 }

/** A door whose time stands still until it is advanced; what it is asked for is answered at once, unless the test says otherwise. */
async function openDoor(limits: Partial<DoorLimits> = {}, handle: SheepServerOptions['handle'] = answer) {
  const clock = new ManualClock()
  const server = createSheepServer({
    network: systemNetwork,
    clock,
    log: createLog('silent'),
    handle,
    clientClosed: () => {},
    epoch: () => 1,
    limits: { ...MEMORY, ...limits },
  })
  const address = await server.listen('127.0.0.1:0')
  onTestFinished(async () => {
    const closed = server.close({ graceMs: 1 })
    clock.advance(1)
    await closed
  })
  const quietly = async () => {
    await quiet(() => server.stats.commonBytes + server.stats.connections)
  }
  return { server, clock, address, quietly }
}

const answer: SheepServerOptions['handle'] = ({ opcode, dataLength = 0 }, _, reply) => {
  reply(opcode === OP.READ_OBJ ? { result: 0, body: Buffer.alloc(dataLength, 1) } : { result: 0 })
}

/** A connection that sends what it is told, and reads nothing before `isDropped` looks. */
async function rawClient(address: string): Promise<net.Socket & { isDropped(): Promise<void> }> {
  const socket = await connectSocket(address)
  const over = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  socket.on('error', () => {})
  onTestFinished(() => void socket.destroy())
  const isDropped = async () => {
    socket.resume()
    await over
  }
  return Object.assign(socket, { isDropped })
}

async function client(address: string): Promise<RawSheepClient> {
  const connected = await RawSheepClient.connect(address)
  onTestFinished(() => connected.close())
  return connected
}

async function ask(asker: RawSheepClient, request: Buffer): Promise<number> {
  asker.send(request)
  return (await asker.receive()).result
}

describe('a sheep client that does not go on', () => {
  it.each<[string, Buffer]>([
    ['in a header', FLUSH.subarray(0, 47)],
    ['behind the header of a write', write(MIB).subarray(0, 48)],
    ['in the middle of a body', write(MIB).subarray(0, MIB / 2)],
    ['with its answers unread', Buffer.concat(Array(64).fill(read(MIB)))],
  ])('is dropped after a while: %s', async (_, bytes) => {
    const { server, clock, address, quietly } = await openDoor({
      commonBytesMax: 16 * MIB,
      outstandingMaxBytes: 8 * MIB,
    })
    const [socket, idle] = [await rawClient(address), await client(address)]
    expect(await ask(idle, FLUSH)).toBe(0)
    socket.write(bytes)
    await until(() => socket.writableLength === 0)
    await quietly()
    clock.advance(10 * MINUTE_MS - 1)
    expect(server.stats).toMatchObject({ connections: 2, stuckConnections: 0 })
    clock.advance(MINUTE_MS)
    expect(server.stats.stuckConnections).toBe(1)
    await socket.isDropped()
    await until(() => server.stats.connections === 1)
    expect(server.stats.commonBytes).toBe(0)
    expect(await ask(idle, FLUSH)).toBe(0)
  })

  it('may be as slow as it likes while it does', async () => {
    const { server, clock, address } = await openDoor()
    const slow = await client(address)
    const request = write(MIB)
    for (let sent = 0; sent < request.length; sent += 128 * KIB) {
      slow.send(request.subarray(sent, sent + 128 * KIB))
      await quiet(() => server.stats.commonBytes)
      clock.advance(6 * MINUTE_MS)
    }
    expect((await slow.receive()).result).toBe(0)
    expect(server.stats).toMatchObject({ connections: 1, stuckConnections: 0, commonBytes: 0 })
  })

  it('is not the one that waits for the store', async () => {
    const held: (() => void)[] = []
    const { server, clock, address, quietly } = await openDoor({ outstandingMaxBytes: 1 }, (_, __, reply) => {
      held.push(() => reply({ result: 0 }))
    })
    const patient = await client(address)
    patient.send(Buffer.concat([write(4 * KIB), write(4 * KIB), write(4 * KIB).subarray(0, 60)]))
    await until(() => held.length === 1)
    await quietly()
    clock.advance(60 * MINUTE_MS)
    expect(server.stats).toMatchObject({ connections: 1, stuckConnections: 0 })
    held.shift()!()
    expect((await patient.receive()).result).toBe(0)
  })
})

describe('memory that all sheep clients share', () => {
  it('is waited for, small requests go on, and who keeps it for nothing is dropped', async () => {
    const { server, clock, address, quietly } = await openDoor()
    const hoarder = await rawClient(address)
    hoarder.write(write(2 * MIB).subarray(0, MIB))
    await until(() => server.stats.commonBytes > 1.9 * MIB)

    const [large, small] = [await client(address), await client(address)]
    large.send(write(MIB))
    await until(() => server.stats.waitingConnections === 1)
    for (let count = 0; count < 20; count++) expect(await ask(small, write(32 * KIB))).toBe(0)

    clock.advance(9_000)
    await quietly()
    expect(server.stats).toMatchObject({ waitingConnections: 1, stuckConnections: 0 })
    clock.advance(5_000)
    expect((await large.receive()).result).toBe(0)
    await hoarder.isDropped()
    await until(() => server.stats.connections === 2)
    expect(server.stats).toMatchObject({ waitingConnections: 0, stuckConnections: 1, commonBytes: 0 })
  })

  it('is all that a crowd gets, however much its bodies and answers claim', async () => {
    const { server, address, quietly } = await openDoor({ commonBytesMax: 8 * MIB })
    const bodies = await Promise.all(Array.from({ length: 30 }, () => rawClient(address)))
    const answers = await Promise.all(Array.from({ length: 30 }, () => rawClient(address)))
    for (const socket of bodies) socket.write(write(4 * MIB).subarray(0, 4 * MIB))
    for (const socket of answers) socket.write(Buffer.concat(Array(8).fill(read(4 * MIB))))
    await quietly()
    expect(server.stats.waitingConnections).toBeGreaterThan(50)
    expect(server.stats.commonBytes).toBeGreaterThan(4 * MIB)
    expect(server.stats.commonBytes).toBeLessThanOrEqual(8 * MIB)
    const other = await client(address)
    expect(await ask(other, write(32 * KIB))).toBe(0)
    expect(await ask(other, read(32 * KIB))).toBe(0)
    for (const socket of [...bodies, ...answers]) socket.destroy()
    await until(() => server.stats.connections === 1)
    expect(server.stats).toMatchObject({ waitingConnections: 0, commonBytes: 0, stuckConnections: 0 })
  })

  it('suffices for any number of clients that all go on', async () => {
    const { server, address } = await openDoor()
    let mostBytes = 0
    const clients = await Promise.all(Array.from({ length: 8 }, () => client(address)))
    await Promise.all(
      clients.map(async (each) => {
        for (let size = 256 * KIB; size <= MIB; size += 256 * KIB) {
          each.send(Buffer.concat([write(size), read(size), read(size)]))
          mostBytes = Math.max(mostBytes, server.stats.commonBytes)
          for (let count = 0; count < 3; count++) expect((await each.receive()).result).toBe(0)
        }
      }),
    )
    expect(mostBytes).toBeLessThanOrEqual(2 * MIB)
    await until(() => server.stats.commonBytes === 0)
  })

  it('is kept, and so is the place, while the requests of a client that has gone are being done', async () => {
    const replies: ((response: Reply) => void)[] = []
    const handle: SheepServerOptions['handle'] = ({ opcode }, _, reply) =>
      opcode === OP.WRITE_OBJ ? replies.push(reply) : reply({ result: 0 })
    const { server, address } = await openDoor({ clientsMax: 1 }, handle)
    const gone = await rawClient(address)
    gone.write(write(MIB))
    await until(() => replies.length === 1)
    gone.destroy()
    await until(() => server.stats.connections === 0)
    expect(server.stats.commonBytes).toBeGreaterThan(0.9 * MIB)
    await expect((await client(address)).receive()).rejects.toThrow('the stream ended')
    replies[0]!({ result: 0 })
    expect(server.stats.commonBytes).toBe(0)
    expect(await ask(await client(address), FLUSH)).toBe(0)
  })

  it('is not waited for by who was cut off, even while a request of it is being done', async () => {
    const cuts: (() => void)[] = []
    const { server, address } = await openDoor({}, (_, { cut }) => cuts.push(cut))
    const hoarder = await rawClient(address)
    hoarder.write(write(2 * MIB).subarray(0, MIB))
    await until(() => server.stats.commonBytes > 1.9 * MIB)
    const waiter = await rawClient(address)
    waiter.write(Buffer.concat([FLUSH, write(MIB)]))
    await until(() => server.stats.waitingConnections === 1)
    cuts[0]!()
    expect(server.stats.waitingConnections).toBe(0)
    await waiter.isDropped()
  })

  it('is not given to answers of any length: a few are made at a time, and without room they become AGAIN', async () => {
    let inHand = 0
    let mostInHand = 0
    const handle: SheepServerOptions['handle'] = (_, __, reply) => {
      mostInHand = Math.max(mostInHand, ++inHand)
      setImmediate(() => {
        inHand--
        reply({ result: 0, body: Buffer.alloc(MIB, 1) })
      })
    }
    const { server, address } = await openDoor({ unforeseenMax: 3 }, handle)
    const list = { opcode: OP.LIST_VDIS, protoVer: 10, flags: FLAG.WRITE | FLAG.PIGGYBACK, body: Buffer.from('name') }
    const hoarder = await rawClient(address)
    hoarder.write(write(2 * MIB).subarray(0, MIB))
    await until(() => server.stats.commonBytes > 1.9 * MIB)
    const lister = await client(address)
    lister.send(Buffer.concat(Array.from({ length: 40 }, (_, id) => frame({ ...list, id }))))
    for (let id = 0; id < 40; id++) expect(await lister.receive()).toMatchObject({ id, result: RESULT.AGAIN })
    expect(mostInHand).toBe(3)
    hoarder.destroy()
    await until(() => server.stats.connections === 1)
    expect(await lister.request(list)).toMatchObject({ result: 0 })
  })
})

describe('places at the door', () => {
  it('are not kept from others by a crowd that says nothing', async () => {
    const { server, address } = await openDoor({ clientsMax: 100 })
    const first = await client(address)
    expect(await ask(first, FLUSH)).toBe(0)
    const crowd: net.Socket[] = []
    for (let count = 0; count < 1000; count++) {
      const socket = await rawClient(address)
      if (count % 2 === 0) socket.write(FLUSH.subarray(0, 20))
      crowd.push(socket)
    }
    const late = await client(address)
    expect(await ask(late, FLUSH)).toBe(0)
    expect(await ask(first, FLUSH)).toBe(0)
    expect(server.stats.connections).toBeLessThanOrEqual(100)
    expect(server.stats.refusedConnections).toBe(902)
    for (const socket of crowd) socket.destroy()
    await until(() => server.stats.connections === 2)
  })

  it('are kept by those who have spoken', async () => {
    const { server, address } = await openDoor({ clientsMax: 2 })
    const clients = [await client(address), await client(address)]
    for (const each of clients) expect(await ask(each, FLUSH)).toBe(0)
    await expect((await client(address)).receive()).rejects.toThrow('the stream ended')
    for (const each of clients) expect(await ask(each, FLUSH)).toBe(0)
    expect(server.stats).toMatchObject({ connections: 2, refusedConnections: 1 })
  })
})
