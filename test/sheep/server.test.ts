import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it, onTestFinished } from 'vitest'
import { FLAG, RESULT } from '../../src/protocol/constants.ts'
import type { SheepRequest } from '../../src/protocol/message.ts'
import { OP } from '../../src/protocol/opcodes.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemNetwork } from '../../src/runtime/network.ts'
import { createSheepServer, type Reply, type SheepClient, type SheepServerOptions } from '../../src/sheep/server.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

type Handle = SheepServerOptions['handle']

async function serve(handle: Handle, options: Partial<SheepServerOptions> = {}, address = '127.0.0.1:0') {
  const gone: SheepClient[] = []
  let someoneLeft = () => {}
  const left = new Promise<void>((resolve) => {
    someoneLeft = resolve
  })
  const server = createSheepServer({
    network: systemNetwork,
    clock: systemClock,
    log: createLog('silent'),
    handle,
    clientClosed: (client) => {
      gone.push(client)
      someoneLeft()
    },
    epoch: () => 7,
    ...options,
  })
  cleanups.push(() => server.close({ graceMs: 0 }))
  return { server, gone, left, address: await server.listen(address) }
}

/** A client by hand: sends bytes, collects bytes. */
async function dial(address: string) {
  const connection = await systemNetwork.connect(address)
  let chunks: Buffer[] = []
  let length = 0
  let changed = () => {}
  let closed = false
  connection.onData((chunk) => {
    chunks.push(chunk)
    length += chunk.length
    changed()
  })
  connection.onClose(() => {
    closed = true
    changed()
  })
  cleanups.push(() => connection.destroy())
  const until = async (done: () => boolean) => {
    while (!done()) {
      await new Promise<void>((resolve) => {
        changed = resolve
      })
    }
  }
  return {
    connection,
    send: (...buffers: Buffer[]) => connection.write(buffers),
    /** The next `wanted` bytes; fewer when the server closes first. */
    receive: async (wanted: number) => {
      await until(() => length >= wanted || closed)
      const received = Buffer.concat(chunks)
      chunks = [received.subarray(wanted)]
      length = chunks[0]!.length
      return received.subarray(0, wanted)
    },
    untilClosed: () => until(() => closed),
  }
}

interface Fields {
  protoVer?: number
  flags?: number
  id?: number
  dataLength?: number
}

function header(opcode: number, { protoVer = 0, flags = 0, id = 0, dataLength = 0 }: Fields = {}): Buffer {
  const bytes = Buffer.alloc(48)
  bytes.writeUInt8(protoVer, 0)
  bytes.writeUInt8(opcode, 1)
  bytes.writeUInt16LE(flags, 2)
  bytes.writeUInt32LE(id, 8)
  bytes.writeUInt32LE(dataLength, 12)
  return bytes
}

const parse = (bytes: Buffer) => ({
  opcode: bytes.readUInt8(1),
  epoch: bytes.readUInt32LE(4),
  id: bytes.readUInt32LE(8),
  dataLength: bytes.readUInt32LE(12),
  result: bytes.readUInt32LE(16),
})

describe('the door of a sheep', () => {
  it('hands requests on and echoes opcode and id with the epoch of the cluster', async () => {
    const seen: SheepRequest[] = []
    const { address } = await serve((request, _, reply) => {
      seen.push(request)
      reply({ result: 0, body: Buffer.from('hello') })
    })
    const client = await dial(address)
    client.send(header(OP.READ_OBJ, { id: 0x01020304, dataLength: 5 }))
    expect(parse(await client.receive(48))).toEqual({ opcode: 2, epoch: 7, id: 0x01020304, dataLength: 5, result: 0 })
    expect((await client.receive(5)).toString()).toBe('hello')
    expect(seen[0]).toMatchObject({ opcode: OP.READ_OBJ, oid: 0n, dataLength: 5 })
  })

  it('answers in the order in which operations end', async () => {
    const replies: ((response: Reply) => void)[] = []
    const { address } = await serve((_, __, reply) => {
      replies.push(reply)
      if (replies.length === 3) for (const each of replies.toReversed()) each({ result: 0 })
    })
    const client = await dial(address)
    client.send(...[1, 2, 3].map((id) => header(OP.FLUSH_VDI, { id })))
    const answers = await client.receive(3 * 48)
    expect([0, 48, 96].map((at) => answers.readUInt32LE(at + 8))).toEqual([3, 2, 1])
  })

  it('serves a unix socket', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'collie-'))
    onTestFinished(() => rmSync(directory, { recursive: true }))
    const { address } = await serve(
      (_, { peer }, reply) => reply({ result: peer === 'unix' ? 0 : 1 }),
      {},
      `${directory}/sock`,
    )
    const client = await dial(address)
    client.send(header(OP.FLUSH_VDI))
    expect(parse(await client.receive(48)).result).toBe(0)
  })

  it.each([
    { name: 'READ_OBJ version 0', opcode: OP.READ_OBJ, protoVer: 0, result: RESULT.SUCCESS },
    { name: 'READ_OBJ version 2', opcode: OP.READ_OBJ, protoVer: 2, result: RESULT.SUCCESS },
    { name: 'READ_OBJ version 3', opcode: OP.READ_OBJ, protoVer: 3, result: RESULT.VER_MISMATCH },
    { name: 'GET_NODE_LIST version 10', opcode: OP.GET_NODE_LIST, protoVer: 10, result: RESULT.SUCCESS },
    { name: 'GET_NODE_LIST version 2', opcode: OP.GET_NODE_LIST, protoVer: 2, result: RESULT.VER_MISMATCH },
    { name: 'OPEN_VDI version 0', opcode: OP.OPEN_VDI, protoVer: 0, result: RESULT.VER_MISMATCH },
  ])('checks the version: $name', async ({ opcode, protoVer, result }) => {
    const { address } = await serve((_, __, reply) => reply({ result: 0 }))
    const client = await dial(address)
    client.send(header(opcode, { protoVer }))
    expect(parse(await client.receive(48))).toMatchObject({ opcode, result })
  })

  describe('keeps the client’s framing', () => {
    const cases: [string, Fields, Reply, { result: number; dataLength: number }][] = [
      ['a body after a read', { dataLength: 5 }, { result: 0 }, { result: 0, dataLength: 5 }],
      ['no body after a WRITE', { flags: FLAG.WRITE }, { result: 0 }, { result: 0, dataLength: 0 }],
      ['a body after WRITE and PIGGYBACK', { flags: 0x11, dataLength: 8 }, { result: 0 }, { result: 0, dataLength: 5 }],
      ['no body with an error', { dataLength: 5 }, { result: RESULT.NO_OBJ }, { result: RESULT.NO_OBJ, dataLength: 0 }],
      [
        'a body too long for the buffer',
        { dataLength: 4 },
        { result: 0 },
        { result: RESULT.BUFFER_SMALL, dataLength: 0 },
      ],
    ]
    it.each(cases)('%s', async (_, fields, reply, expected) => {
      const { address } = await serve((_, __, answer) => answer({ ...reply, body: Buffer.from('hello') }))
      const client = await dial(address)
      const payload = (fields.flags ?? 0) & FLAG.WRITE ? Buffer.alloc(fields.dataLength ?? 0) : Buffer.alloc(0)
      client.send(header(OP.OIDS_EXIST, { protoVer: 10, ...fields }), payload)
      expect(parse(await client.receive(48))).toMatchObject(expected)
      await client.receive(expected.dataLength)
      client.send(header(OP.READ_DEL_VDIS, { protoVer: 10, id: 9, dataLength: 5 })) // the stream is still in step
      expect(parse(await client.receive(48))).toMatchObject({ id: 9 })
    })
  })

  it('lets our own client take an answer longer than its question', async () => {
    const { address } = await serve((_, __, reply) => reply({ result: 0, body: Buffer.alloc(500) }))
    const client = await dial(address)
    client.send(
      header(OP.GET_EXPORT, { protoVer: 10, flags: FLAG.WRITE | FLAG.PIGGYBACK, dataLength: 4 }),
      Buffer.alloc(4),
    )
    expect(parse(await client.receive(48))).toMatchObject({ result: 0, dataLength: 500 })
  })

  it('refuses to promise an answer longer than any object', async () => {
    const { address } = await serve(() => expect.unreachable())
    const client = await dial(address)
    client.send(header(OP.READ_OBJ, { dataLength: 0xffffffff }))
    expect(parse(await client.receive(48)).result).toBe(RESULT.INVALID_PARMS)
  })

  it('closes a connection whose next frame would be longer than any object', async () => {
    const { address, left } = await serve(() => expect.unreachable())
    const client = await dial(address)
    client.send(header(OP.WRITE_OBJ, { flags: FLAG.WRITE, dataLength: 0xffffffff }))
    await client.untilClosed()
    await left
  })

  it('holds requests back while their answers would fill the memory, and serves all of them in the end', async () => {
    const answerBytes = 1 << 20
    let inHand = 0
    let mostInHand = 0
    const { address } = await serve(
      (_, __, reply) => {
        mostInHand = Math.max(mostInHand, ++inHand)
        setImmediate(() => {
          inHand--
          reply({ result: 0, body: Buffer.alloc(answerBytes, 1) })
        })
      },
      { limits: { outstandingMaxBytes: 4 * answerBytes } },
    )
    const client = await dial(address)
    client.send(...Array.from({ length: 64 }, (_, id) => header(OP.READ_OBJ, { id, dataLength: answerBytes })))
    for (let id = 0; id < 64; id++) {
      expect(parse(await client.receive(48))).toMatchObject({ id, dataLength: answerBytes })
      await client.receive(answerBytes)
    }
    expect(mostInHand).toBeLessThanOrEqual(4)
  })

  it('bounds answers that are ready at once, too', async () => {
    let handled = 0
    const { address } = await serve(
      (_, __, reply) => {
        handled++
        reply({ result: 0, body: Buffer.alloc(1 << 20) })
      },
      { limits: { outstandingMaxBytes: 4 << 20 } },
    )
    const client = await dial(address)
    client.connection.pause()
    client.send(...Array.from({ length: 200 }, (_, id) => header(OP.READ_OBJ, { id, dataLength: 1 << 20 })))
    const other = await dial(address)
    other.send(header(OP.FLUSH_VDI))
    await other.receive(48)
    expect(handled).toBeLessThan(60) // what the kernel's socket buffers took, and 4 more
    client.connection.resume()
    expect(await client.receive(200 * (48 + (1 << 20)))).toHaveLength(200 * (48 + (1 << 20)))
    expect(handled).toBe(201)
  })

  it('tells when a client is gone, and drops answers for it', async () => {
    let answer: ((response: Reply) => void) | undefined
    let handled = () => {}
    const inHand = new Promise<void>((resolve) => {
      handled = resolve
    })
    const { address, gone, left } = await serve((_, __, reply) => {
      answer = reply
      handled()
    })
    const client = await dial(address)
    client.send(header(OP.FLUSH_VDI))
    await inHand
    client.connection.destroy()
    await left
    expect(gone).toMatchObject([{ id: 1 }])
    expect(() => answer?.({ result: 0 })).not.toThrow()
  })

  it('answers what it has in hand before it closes, and takes nothing new', async () => {
    const replies: ((response: Reply) => void)[] = []
    let handled = () => {}
    const inHand = new Promise<void>((resolve) => {
      handled = resolve
    })
    const { server, address, gone } = await serve((_, __, reply) => {
      replies.push(reply)
      handled()
    })
    const client = await dial(address)
    client.send(header(OP.FLUSH_VDI, { id: 1 }))
    await inHand
    const closed = server.close({ graceMs: 10_000 })
    client.send(header(OP.FLUSH_VDI, { id: 2 }))
    replies[0]?.({ result: 0 })
    expect(parse(await client.receive(48)).id).toBe(1)
    await client.untilClosed()
    await closed
    expect(replies).toHaveLength(1)
    expect(gone).toHaveLength(1)
    await expect(systemNetwork.connect(address)).rejects.toThrow()
  })

  it('cuts off a client whose answer does not come in time', async () => {
    let handled = () => {}
    const inHand = new Promise<void>((resolve) => {
      handled = resolve
    })
    const { server, address, gone } = await serve(() => handled())
    const client = await dial(address)
    client.send(header(OP.FLUSH_VDI))
    await inHand
    await server.close({ graceMs: 20 })
    expect(gone).toHaveLength(1)
    await client.untilClosed()
  })

  it('refuses more clients than it has room for', async () => {
    const { address } = await serve((_, __, reply) => reply({ result: 0 }), { limits: { clientsMax: 1 } })
    const first = await dial(address)
    first.send(header(OP.FLUSH_VDI))
    await first.receive(48)
    const second = await dial(address)
    await second.untilClosed()
  })

  it('does not let an operation answer twice', async () => {
    let twice: unknown
    const { address } = await serve((_, __, reply) => {
      reply({ result: 0 })
      try {
        reply({ result: 0 })
      } catch (error) {
        twice = error
      }
    })
    const client = await dial(address)
    client.send(header(OP.FLUSH_VDI))
    await client.receive(48)
    expect(String(twice)).toContain('FLUSH_VDI was answered twice')
  })
})
