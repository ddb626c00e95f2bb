import { afterEach, describe, expect, it } from 'vitest'
import { FLAG, RESULT } from '../../src/protocol/constants.ts'
import { RequestReader } from '../../src/protocol/frame-reader.ts'
import { encodeResponseHeader } from '../../src/protocol/header.ts'
import type { SheepRequest, SheepResponse } from '../../src/protocol/message.ts'
import { OP } from '../../src/protocol/opcodes.ts'
import { type Connection, systemNetwork } from '../../src/runtime/network.ts'
import { createSocketTransport, type SocketTransportOptions } from '../../src/vdi/socket-transport.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

type Send = (response: Omit<SheepResponse, 'opcode'> & { opcode?: number }) => void

/** A sheep that does with each request what the test says; `connections` is every one that was ever made. */
async function sheep(handle: (request: SheepRequest, send: Send, connection: Connection) => void) {
  const connections: Connection[] = []
  const listener = await systemNetwork.listen('127.0.0.1:0', (connection) => {
    connections.push(connection)
    const reader = new RequestReader()
    connection.onData((chunk) => {
      reader.push(chunk)
      for (let next = reader.next(); next !== undefined; next = reader.next()) {
        const request = next
        const send: Send = (response) => {
          const message = { opcode: request.opcode, id: request.id ?? 0, ...response }
          connection.write([encodeResponseHeader(message), ...(message.body ? [message.body] : [])])
        }
        handle(request, send, connection)
      }
    })
  })
  const stop = async () => {
    for (const connection of connections) connection.destroy()
    await listener.close()
  }
  cleanups.push(stop)
  return { address: listener.address, connections, stop }
}

function transportTo(address: string, options: Partial<SocketTransportOptions> = {}) {
  const transport = createSocketTransport({ network: systemNetwork, address, ...options })
  cleanups.push(() => transport.close())
  const submit = (request: SheepRequest) => new Promise<SheepResponse>((done) => transport.submit(request, done))
  return { transport, submit }
}

describe('socket transport', () => {
  it('sends a request and gives back its answer', async () => {
    const seen: SheepRequest[] = []
    const { address } = await sheep((request, send) => {
      seen.push(request)
      send({ result: RESULT.VDI_LOCKED, vdiId: 0x7c2b25 })
    })
    const { submit } = transportTo(address)
    const body = Buffer.from('name')
    const answer = await submit({ opcode: OP.LOCK_VDI, flags: FLAG.WRITE, body, type: 1 })
    expect(answer).toMatchObject({ opcode: OP.LOCK_VDI, result: RESULT.VDI_LOCKED, vdiId: 0x7c2b25 })
    expect(seen[0]).toMatchObject({ opcode: OP.LOCK_VDI, type: 1, protoVer: 2 })
    expect(seen[0]?.body?.toString()).toBe('name')
  })

  it('puts what it reads into the target', async () => {
    const { address } = await sheep(({ dataLength = 0, offset = 0 }, send) =>
      send({ result: 0, body: Buffer.alloc(dataLength, offset) }),
    )
    const { submit } = transportTo(address)
    const targets = Array.from({ length: 8 }, () => Buffer.alloc(100_000))
    await Promise.all(
      targets.map((target, offset) => submit({ opcode: OP.READ_VDI, dataLength: target.length, target, offset })),
    )
    for (const [index, target] of targets.entries()) expect(target.every((byte) => byte === index)).toBe(true)
  })

  it('leaves the target alone when the read fails', async () => {
    const { address } = await sheep((_, send) => send({ result: RESULT.NO_OBJ }))
    const target = Buffer.from('untouched')
    const answer = await transportTo(address).submit({ opcode: OP.READ_OBJ, dataLength: target.length, target })
    expect(answer.result).toBe(RESULT.NO_OBJ)
    expect(target.toString()).toBe('untouched')
  })

  it('matches answers by id, in any order, on one connection', async () => {
    const held: (() => void)[] = []
    const { address, connections } = await sheep(({ offset = 0 }, send) => {
      held.push(() => send({ result: 0, vdiSize: offset }))
      if (held.length === 20) for (const answer of held.toReversed()) answer()
    })
    const { submit } = transportTo(address)
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, offset) => submit({ opcode: OP.READ_VDI, offset })),
    )
    expect(answers.map(({ vdiSize }) => vdiSize)).toEqual([...answers.keys()])
    expect(connections).toHaveLength(1)
  })

  it('keeps no more in flight than its window', async () => {
    let inFlight = 0
    let most = 0
    const { address } = await sheep((_, send) => {
      most = Math.max(most, ++inFlight)
      setImmediate(() => {
        inFlight--
        send({ result: 0 })
      })
    })
    const { submit } = transportTo(address, { windowRequests: 3 })
    await Promise.all(Array.from({ length: 50 }, () => submit({ opcode: OP.FLUSH_VDI_SESSION })))
    expect(most).toBe(3)
  })

  it('refuses what would wait without bound', async () => {
    const { address } = await sheep(() => {})
    const { transport, submit } = transportTo(address, { waitingRequestsMax: 2 })
    const waiting = [1, 2].map(() => submit({ opcode: OP.READ_OBJ }))
    expect((await submit({ opcode: OP.READ_OBJ })).result).toBe(RESULT.AGAIN)
    transport.close()
    for (const answer of await Promise.all(waiting)) expect(answer.result).toBe(RESULT.NETWORK_ERROR)
  })

  it('answers everything in flight with NETWORK_ERROR when the connection is lost, and connects anew', async () => {
    let calls = 0
    const { address, connections } = await sheep((_, send, connection) => {
      calls++
      if (calls < 3) return
      if (calls === 3) connection.destroy()
      else send({ result: 0 })
    })
    const { submit } = transportTo(address, { windowRequests: 3 })
    const lost = await Promise.all([1, 2, 3, 4].map(() => submit({ opcode: OP.READ_OBJ })))
    expect(lost.map(({ result }) => result)).toEqual(Array(4).fill(RESULT.NETWORK_ERROR))
    expect((await submit({ opcode: OP.READ_OBJ })).result).toBe(RESULT.SUCCESS)
    expect(connections).toHaveLength(2)
  })

  it('answers NETWORK_ERROR when nobody listens, and tries again the next time', async () => {
    const gone = await sheep(() => {})
    await gone.stop()
    const { submit } = transportTo(gone.address)
    expect((await submit({ opcode: OP.READ_OBJ })).result).toBe(RESULT.NETWORK_ERROR)
    const listener = await systemNetwork.listen(gone.address, (connection) => {
      cleanups.push(() => connection.destroy())
      connection.onData((chunk) =>
        connection.write([encodeResponseHeader({ opcode: 2, result: 0, id: chunk.readUInt32LE(8) })]),
      )
    })
    cleanups.push(() => listener.close())
    expect((await submit({ opcode: OP.READ_OBJ })).result).toBe(RESULT.SUCCESS)
  })

  it.each<[string, Parameters<Send>[0]]>([
    ['for a request that nobody made', { result: 0, id: 99 }],
    ['for another operation', { result: 0, opcode: OP.WRITE_OBJ }],
    ['with fewer bytes than asked for', { result: 0, body: Buffer.alloc(3) }],
    ['with more bytes than asked for', { result: 0, body: Buffer.alloc(5) }],
    ['without the bytes asked for', { result: 0 }],
  ])('gives up on a connection that brings an answer %s', async (_, answer) => {
    const { address } = await sheep((__, send) => send(answer))
    const target = Buffer.alloc(4)
    const { result } = await transportTo(address).submit({ opcode: OP.READ_OBJ, dataLength: 4, target })
    expect(result).toBe(RESULT.NETWORK_ERROR)
  })

  it('answers NETWORK_ERROR once it is closed', async () => {
    const { address, connections } = await sheep(() => {})
    const { transport, submit } = transportTo(address)
    transport.close()
    expect((await submit({ opcode: OP.READ_OBJ })).result).toBe(RESULT.NETWORK_ERROR)
    expect(connections).toHaveLength(0)
  })

  it('takes new requests from within an answer', async () => {
    const { address } = await sheep((_, send) => send({ result: 0 }))
    const { transport } = transportTo(address)
    await new Promise<void>((resolve) => {
      const next = (left: number) => {
        if (left === 0) resolve()
        else transport.submit({ opcode: OP.FLUSH_VDI_SESSION }, () => next(left - 1))
      }
      next(100)
    })
  })
})
