import { describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/runtime/clock.ts'
import { createLog } from '../../../src/runtime/log.ts'
import { type Connection, systemNetwork } from '../../../src/runtime/network.ts'
import { systemRandom } from '../../../src/runtime/random.ts'
import { FrameWriter } from '../../../src/sheep/peer/frames.ts'
import { encodeHello, HELLO_CODE, LINK_VERSION } from '../../../src/sheep/peer/hello.ts'
import { handler, type Kind, LinkError } from '../../../src/sheep/peer/kind.ts'
import { PeerLinks } from '../../../src/sheep/peer/links.ts'
import { PeerNetwork } from '../../../src/sheep/peer/peer-network.ts'
import { SimClock } from '../../sim/clock.ts'
import { SimNetwork } from '../../sim/network.ts'
import { SeededRandom } from '../../sim/random.ts'

const log = createLog('silent')
const KEY = Buffer.alloc(32, 1)

/** Numbers, without a limit of time. */
const NUMBER: Kind<number, number> = {
  code: 120,
  name: 'number',
  windowBytes: 2,
  waitingBytesMax: 100,
  limitMs: null,
  costBytes: () => 1,
  encodeRequest: (number, out) => out.u32(number),
  decodeRequest: (fields) => fields.u32('number'),
  encodeAnswer: (number, out) => out.u32(number),
  decodeAnswer: (fields) => fields.u32('number'),
}

/** Two nodes in virtual time; what `b` is asked is in `asked`, with a way to answer. */
function pair() {
  const random = new SeededRandom(1)
  const clock = new SimClock(random)
  const network = new SimNetwork(random)
  const asked: { number: number; reply: (number: number) => void }[] = []
  const nodes = ['a', 'b'].map((name) => {
    const sim = clock.node()
    const own = sim.mount()
    const peers = new PeerNetwork({ network: network.mount(name, sim), clock: own, random, key: KEY })
    const links = new PeerLinks({
      network: peers,
      clock: own,
      log,
      cluster: 'test',
      self: { node: name, incarnation: name },
      handlers: [handler(NUMBER, (number, _from, reply) => void asked.push({ number, reply }))],
    })
    void peers.listen(name, { node: (connection) => links.accept(connection), other: () => {} })
    return { sim, links }
  })
  const [a, b] = nodes as [(typeof nodes)[0], (typeof nodes)[0]]
  a.links.setPeers([{ node: 'b', incarnation: 'b', address: 'b:7000' }])
  const to = { node: 'b', incarnation: 'b' }
  const ask = (number: number) => {
    const outcome: { at: number; value: number | LinkError }[] = []
    a.links.ask(to, NUMBER, number, (value) => outcome.push({ at: clock.nowMs, value }))
    return outcome
  }
  const { sleep } = clock.mount()
  const run = async (script: () => Promise<void>) => {
    await clock.run(script())
    for (const { links } of nodes) links.close()
  }
  return { a, b, clock, network, asked, ask, sleep, run }
}

describe('a link', () => {
  it('waits for an answer for as long as the peer goes on, and no longer than 3 s when it is silent', async () => {
    const { clock, network, asked, ask, sleep, run } = pair()
    await run(async () => {
      const slow = ask(1)
      await sleep(60_000)
      expect(slow).toEqual([])
      asked[0]!.reply(10)
      await sleep(100)
      expect(slow.map(({ value }) => value)).toEqual([10])
      const [first, second] = [ask(2), ask(3)]
      await sleep(100)
      const cutMs = clock.nowMs
      network.cut([['a'], ['b']])
      await sleep(10_000)
      for (const [outcome] of [first, second]) {
        expect(outcome!.value).toMatchObject({ reason: 'lost', message: 'it has gone silent' })
        expect(outcome!.at - cutMs).toBeGreaterThan(1900)
        expect(outcome!.at - cutMs).toBeLessThan(3600)
      }
      const unreachable = ask(4)
      await sleep(5000)
      expect(unreachable[0]!.value).toMatchObject({ reason: 'lost', message: 'it takes no connection' })
      network.heal()
      const after = ask(5)
      await sleep(3000)
      asked.find(({ number }) => number === 5)!.reply(50)
      await sleep(100)
      expect(after.map(({ value }) => value)).toEqual([50])
    })
  })

  it('does not hand on what waited while the process stood still', async () => {
    const { b, asked, ask, sleep, run } = pair()
    await run(async () => {
      ask(1)
      await sleep(100)
      asked[0]!.reply(1)
      await sleep(100)
      b.sim.stop()
      await sleep(1000)
      const outcome = ask(2)
      await sleep(2500)
      expect(outcome).toEqual([]) // 3.5 s for b, but 2.5 s for who asks
      b.sim.resume()
      await sleep(2000)
      expect(outcome[0]!.value).toBeInstanceOf(LinkError)
      expect(asked.map(({ number }) => number)).toEqual([1])
    })
  })

  it('is not given up by a process that stood still itself, before it has read what waits', async () => {
    const { a, asked, ask, sleep, run } = pair()
    await run(async () => {
      const outcome = ask(1)
      await sleep(100)
      a.sim.stop()
      asked[0]!.reply(10)
      await sleep(20_000)
      a.sim.resume()
      await sleep(100)
      expect(outcome.map(({ value }) => value)).toEqual([10])
    })
  })
})

/** A node that says what the test wants it to. */
async function speaker() {
  const heard: number[] = []
  const network = new PeerNetwork({ network: systemNetwork, clock: systemClock, random: systemRandom, key: KEY })
  const links = new PeerLinks({
    network,
    clock: systemClock,
    log,
    cluster: 'test',
    self: { node: 'b', incarnation: 'b' },
    handlers: [handler(NUMBER, (number) => void heard.push(number))],
  })
  const listener = await network.listen('127.0.0.1:0', {
    node: (connection) => links.accept(connection),
    other: () => {},
  })
  const connect = async (attempt: number) => {
    const connection = await network.connect(listener.address)
    const closed = new Promise<void>((resolve) => connection.onClose(resolve))
    connection.onData(() => {})
    const a = { node: 'a', incarnation: 'a' }
    const to = { node: 'b', incarnation: 'b' }
    const hello = { version: LINK_VERSION, cluster: 'test', from: a, to, attempt }
    send(connection, HELLO_CODE, encodeHello(hello))
    return { connection, closed }
  }
  const close = async () => {
    links.close()
    await listener.close()
  }
  return { heard, connect, close }
}

function send(connection: Connection, kind: number, ...messages: Uint8Array[]): void {
  const writer = new FrameWriter()
  for (const [index, fields] of messages.entries()) {
    writer.begin(kind, 0, index)
    writer.bytes(fields)
    writer.end()
  }
  connection.write(writer.take())
}

const number = (value: number) => Buffer.from([value, 0, 0, 0])

describe('a link that came in', () => {
  it.each([
    ['that is not understood', NUMBER.code, [number(1), Buffer.from([2]), number(3)], [1]],
    ['of a kind that there is not', 99, [number(1)], []],
    ['beyond what may be unanswered', NUMBER.code, [1, 2, 3, 4].map(number), [1, 2]],
  ])('ends with a request %s, and what comes after it is not handed on', async (_what, kind, messages, expected) => {
    const { heard, connect, close } = await speaker()
    const { connection, closed } = await connect(1)
    send(connection, kind, ...messages)
    await closed
    expect(heard).toEqual(expected)
    await close()
  })

  it('ends when the same life has made another one, and not for an older one', async () => {
    const { connect, close } = await speaker()
    const first = await connect(2)
    const older = await connect(1)
    await older.closed
    await connect(3)
    await first.closed
    await close()
  })
})
