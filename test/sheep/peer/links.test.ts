import { afterEach, describe, expect, it } from 'vitest'
import { FLAG, RESULT } from '../../../src/protocol/constants.ts'
import type { SheepRequest, SheepResponse } from '../../../src/protocol/message.ts'
import { OP } from '../../../src/protocol/opcodes.ts'
import { systemClock } from '../../../src/runtime/clock.ts'
import { createLog } from '../../../src/runtime/log.ts'
import { type Listener, systemNetwork } from '../../../src/runtime/network.ts'
import { systemRandom } from '../../../src/runtime/random.ts'
import { fetchFrom, fetchHandler } from '../../../src/sheep/peer/fetches.ts'
import { HEARTBEAT, heartbeatHandler } from '../../../src/sheep/peer/heartbeats.ts'
import { type AnyHandler, handler, type Kind } from '../../../src/sheep/peer/kind.ts'
import { type PeerAddress, PeerLinks } from '../../../src/sheep/peer/links.ts'
import { OperationDoor, RemoteSheep } from '../../../src/sheep/peer/operations.ts'
import { PeerNetwork } from '../../../src/sheep/peer/peer-network.ts'
import type { Reply, SheepClient } from '../../../src/sheep/server.ts'

const log = createLog('silent')

/** Numbers, of which three may be unanswered and four may wait. */
const NUMBERS: Kind<number, null> = {
  code: 120,
  name: 'number',
  windowBytes: 3,
  waitingBytesMax: 4,
  limitMs: null,
  costBytes: () => 1,
  encodeRequest: (number, out) => out.u32(number),
  decodeRequest: (fields) => fields.u32('number'),
  encodeAnswer: () => {},
  decodeAnswer: () => null,
}
/** Bytes, which are said to be lent or not by the first of them. */
const BYTES: Kind<Buffer, null> = {
  code: 121,
  name: 'bytes',
  windowBytes: 1 << 30,
  waitingBytesMax: 1 << 30,
  limitMs: null,
  costBytes: ({ length }) => length,
  lendsBody: (bytes) => bytes[0] === 1,
  encodeRequest: (bytes, out) => out.body(bytes),
  decodeRequest: (_fields, body) => body,
  encodeAnswer: () => {},
  decodeAnswer: () => null,
}
const BALLOT = { counter: 1, configuration: 'one', round: 0, leader: 'b' }

interface Running {
  links: PeerLinks
  address: PeerAddress
  listener: Listener
}

const running: Running[] = []

afterEach(async () => {
  for (const { links, listener } of running.splice(0)) {
    links.close()
    await listener.close()
  }
})

/** A node over real sockets. */
async function node(
  name: string,
  handlers: readonly AnyHandler[] = [],
  { cluster = 'test', key = Buffer.alloc(32, 1) } = {},
): Promise<Running> {
  const self = { node: name, incarnation: `life of ${name}` }
  const network = new PeerNetwork({ network: systemNetwork, clock: systemClock, random: systemRandom, key })
  const links = new PeerLinks({ network, clock: systemClock, log, cluster, self, handlers })
  const listener = await network.listen('127.0.0.1:0', {
    node: (connection) => links.accept(connection),
    other: () => {},
  })
  const started = { links, address: { ...self, address: listener.address }, listener }
  running.push(started)
  return started
}

function know(...nodes: readonly Running[]): void {
  for (const { links } of nodes) links.setPeers(nodes.map(({ address }) => address))
}

describe('links', () => {
  it('carry heartbeats, of the node that sends them only', async () => {
    const heard: unknown[] = []
    const a = await node('a')
    const b = await node('b', [heartbeatHandler((heartbeat) => heard.push(heartbeat) === 1)])
    know(a, b)
    const { address: _address, ...self } = a.address
    const heartbeat = { ...self, appliedIndex: 2 ** 40 }
    expect(await a.links.request(b.address, HEARTBEAT, heartbeat)).toBe(true)
    expect(await a.links.request(b.address, HEARTBEAT, heartbeat)).toBe(false)
    await expect(a.links.request(b.address, HEARTBEAT, { ...heartbeat, node: 'c' })).rejects.toThrow('sent by another')
    expect(heard).toEqual([heartbeat, heartbeat])
  })

  it('carry entries of the log, as many as fit', async () => {
    const items = Array.from({ length: 40 }, (_, index) => ({
      index: index + 1,
      origin: { life: 'l', sequence: index + 1 },
      payload: '"'.repeat(100_000),
      ...(index === 3 && { voters: ['a', 'b'] }),
    }))
    const asked: unknown[] = []
    const a = await node('a')
    const answer = async (...question: unknown[]) => {
      asked.push(question)
      return items
    }
    const b = await node('b', [fetchHandler(answer)])
    know(a, b)
    const fetched = await fetchFrom(a.links, b.address, BALLOT, 7)
    expect(asked).toEqual([[BALLOT, 7]])
    expect(fetched).toEqual(items.slice(0, 20))
  })

  it('carry a state of any length', async () => {
    const state = systemRandom.bytes(9_000_000)
    const a = await node('a')
    const b = await node('b', [fetchHandler(async () => ({ state }))])
    know(a, b)
    const fetched = await fetchFrom(a.links, b.address, BALLOT, 0)
    expect('state' in fetched && fetched.state.equals(state)).toBe(true)
  })

  it('say why a fetch has failed', async () => {
    const a = await node('a')
    const b = await node('b', [fetchHandler(() => Promise.reject(new Error('no log of that ballot')))])
    know(a, b)
    await expect(fetchFrom(a.links, b.address, BALLOT, 0)).rejects.toThrow('no log of that ballot')
  })

  it('are refused by a node of another cluster, another life of a node, and to who has another key', async () => {
    const a = await node('a')
    const b = await node('b', [heartbeatHandler(() => true)])
    const other = await node('other', [], { cluster: 'other' })
    const stranger = await node('stranger', [], { key: Buffer.alloc(32, 2) })
    const heartbeat = { node: 'a', incarnation: a.address.incarnation, appliedIndex: 0 }
    const ask = (from: Running, to: PeerAddress) => {
      from.links.setPeers([to])
      return from.links.request(to, HEARTBEAT, heartbeat)
    }
    await expect(ask(other, b.address)).rejects.toThrow('this is a node of another cluster')
    await expect(ask(a, { ...b.address, incarnation: 'before' })).rejects.toThrow('b of that start is not here')
    await expect(ask(stranger, b.address)).rejects.toThrow('key')
    expect(await ask(a, b.address)).toBe(true)
  })

  it('reject what was asked of a node that is out', async () => {
    const a = await node('a')
    const b = await node('b', [handler(NUMBERS, () => {})])
    know(a, b)
    const asked = a.links.request(b.address, NUMBERS, 1)
    a.links.setPeers([])
    await expect(asked).rejects.toThrow('b is out of the cluster')
    await expect(a.links.request(b.address, NUMBERS, 1)).rejects.toThrow('nobody knows where b is')
  })

  it('bring bodies into memory that is used again once they are answered, if they were lent', async () => {
    const asked: { bytes: Buffer; reply: () => void }[] = []
    const a = await node('a')
    const b = await node('b', [
      handler(BYTES, (bytes, _from, reply) => asked.push({ bytes, reply: () => reply(null) })),
    ])
    know(a, b)
    const sent = [1, 1, 1, 2, 2, 2].map((first, at) => Buffer.alloc(300_000, at).fill(first, 0, 1))
    const memory: ArrayBufferLike[] = []
    for (const bytes of sent) {
      const answered = a.links.request(b.address, BYTES, bytes)
      while (asked.length === 0) await new Promise((resolve) => setImmediate(resolve))
      const { bytes: received, reply } = asked.shift()!
      expect(received.equals(bytes)).toBe(true)
      memory.push(received.buffer)
      reply()
      await answered
    }
    const [first, second, third, fourth, fifth, sixth] = memory
    expect([second, third, fourth].every((each) => each === first)).toBe(true)
    expect(new Set([fourth, fifth, sixth]).size).toBe(3)
  })

  it('keep what one kind waits for away from the others, refuse what is too much, and send the rest in order', async () => {
    const heard: number[] = []
    const release: (() => void)[] = []
    const a = await node('a')
    const b = await node('b', [
      handler(NUMBERS, (number, _from, reply) => {
        heard.push(number)
        release.push(() => reply(null))
      }),
      heartbeatHandler(() => true),
    ])
    know(a, b)
    const heartbeat = { node: 'a', incarnation: a.address.incarnation, appliedIndex: 0 }
    expect(await a.links.request(b.address, HEARTBEAT, heartbeat)).toBe(true) // the link is there
    const asked = Array.from({ length: 8 }, (_, number) => a.links.request(b.address, NUMBERS, number))
    await expect(asked[7]).rejects.toMatchObject({ reason: 'busy' })
    expect(await a.links.request(b.address, HEARTBEAT, heartbeat)).toBe(true)
    expect(heard).toEqual([0, 1, 2])
    for (let count = 0; count < 7; count++) {
      release.shift()!()
      await asked[count]
      await a.links.request(b.address, HEARTBEAT, heartbeat) // by then what took its place has arrived
    }
    expect(heard).toEqual([0, 1, 2, 3, 4, 5, 6])
  })
})

describe('operations for clients of another node', () => {
  /** A sheep that keeps what it is asked, and answers when the test says so. */
  async function sheepAt(name: string) {
    const asked: { request: SheepRequest; client: SheepClient; reply: (reply: Reply) => void }[] = []
    const closed: SheepClient[] = []
    let noticed = () => {}
    const door = new OperationDoor({
      handle: (request, client, reply) => {
        asked.push({ request, client, reply })
        noticed()
      },
      whenKnown: () => null,
      isRepeatable: () => false,
      clientClosed: async (client) => {
        closed.push(client)
        noticed()
      },
    })
    const until = async (condition: () => boolean) => {
      while (!condition()) {
        await new Promise<void>((resolve) => {
          noticed = resolve
        })
      }
    }
    return { ...(await node(name, [door.handler])), asked, closed, until }
  }

  const submit = (sheep: RemoteSheep, request: SheepRequest) =>
    new Promise<SheepResponse>((resolve) => sheep.submit(request, resolve))

  it('come as they were sent, large bodies and checksums too, and so do the answers', async () => {
    const a = await node('a')
    const b = await sheepAt('b')
    know(a, b)
    const sheep = new RemoteSheep(a.links, b.address, 1, () => 0)

    const body = systemRandom.bytes(12 << 20)
    const crcs = Uint32Array.from({ length: 3072 }, (_, block) => block * 1_000_003)
    const written = submit(sheep, {
      opcode: OP.WRITE_VDI,
      flags: FLAG.WRITE | FLAG.FUA,
      session: 7,
      offset: 2 ** 40,
      body,
      crcs,
    })
    await b.until(() => b.asked.length === 1)
    const { request } = b.asked[0]!
    expect(request).toMatchObject({ opcode: OP.WRITE_VDI, flags: FLAG.WRITE | FLAG.FUA, session: 7, offset: 2 ** 40 })
    expect(request.body!.equals(body)).toBe(true)
    expect(request.crcs).toEqual(crcs)
    b.asked[0]!.reply({ result: RESULT.SUCCESS })
    expect(await written).toMatchObject({ opcode: OP.WRITE_VDI, result: RESULT.SUCCESS })

    const target = Buffer.alloc(1 << 20)
    const read = submit(sheep, {
      opcode: OP.READ_VDI,
      session: 7,
      offset: 4096,
      length: 1 << 20,
      dataLength: 1 << 20,
      target,
    })
    await b.until(() => b.asked.length === 2)
    expect(b.asked[1]!.request).toMatchObject({
      opcode: OP.READ_VDI,
      length: 1 << 20,
      dataLength: 1 << 20,
      offset: 4096,
    })
    expect(b.asked[1]!.client).toBe(b.asked[0]!.client)
    b.asked[1]!.reply({ result: RESULT.SUCCESS, body: body.subarray(0, 1 << 20) })
    expect((await read).body).toBe(target)
    expect(target.equals(body.subarray(0, 1 << 20))).toBe(true)

    const opened = submit(sheep, { opcode: OP.OPEN_VDI, flags: FLAG.WRITE, body: Buffer.from('hash') })
    await b.until(() => b.asked.length === 3)
    expect(b.asked[2]!.request.body).toEqual(Buffer.from('hash'))
    expect(b.asked[2]!.request.protoVer).toBe(0x0a)
    b.asked[2]!.reply({ result: RESULT.SUCCESS, session: 9, vdiSize: 2 ** 42 })
    expect(await opened).toMatchObject({ result: RESULT.SUCCESS, session: 9, vdiSize: 2 ** 42 })
  })

  it('are those of several clients, each of which ends by itself or with the link', async () => {
    const a = await node('a')
    const b = await sheepAt('b')
    know(a, b)
    const [one, two] = [
      new RemoteSheep(a.links, b.address, 1, () => 0),
      new RemoteSheep(a.links, b.address, 2, () => 0),
    ]
    const answers = [one, two].map((sheep) => submit(sheep, { opcode: OP.LIST_VDIS }))
    await b.until(() => b.asked.length === 2)
    const [first, second] = b.asked.map(({ client }) => client)
    expect(first).not.toBe(second)
    b.asked[0]!.reply({ result: RESULT.SUCCESS })
    expect((await answers[0])!.result).toBe(RESULT.SUCCESS)
    one.close()
    expect((await submit(one, { opcode: OP.LIST_VDIS })).result).toBe(RESULT.NETWORK_ERROR)
    await b.until(() => b.closed.length === 1)
    expect(b.closed).toEqual([first])
    a.links.close()
    expect((await answers[1])!.result).toBe(RESULT.NETWORK_ERROR)
    await b.until(() => b.closed.length === 2)
    expect(b.closed).toEqual([first, second])
    b.asked[1]!.reply({ result: RESULT.SUCCESS }) // too late for anybody
  })

  it('are over for a client that is cut off, and go on for others', async () => {
    const a = await node('a')
    const b = await sheepAt('b')
    know(a, b)
    const [one, two] = [
      new RemoteSheep(a.links, b.address, 1, () => 0),
      new RemoteSheep(a.links, b.address, 2, () => 0),
    ]
    const answer = submit(one, { opcode: OP.LIST_VDIS })
    await b.until(() => b.asked.length === 1)
    b.asked[0]!.client.cut()
    expect(b.closed).toEqual([b.asked[0]!.client])
    b.asked[0]!.reply({ result: RESULT.SUCCESS })
    expect((await answer).result).toBe(RESULT.CUT_OFF)
    expect((await submit(one, { opcode: OP.LIST_VDIS })).result).toBe(RESULT.CUT_OFF)
    const other = submit(two, { opcode: OP.LIST_VDIS })
    await b.until(() => b.asked.length === 2)
    b.asked[1]!.reply({ result: RESULT.NO_VDI })
    expect((await other).result).toBe(RESULT.NO_VDI)
  })
})
