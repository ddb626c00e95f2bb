import assert from 'node:assert'
import type { Clock } from '../../../src/runtime/clock.ts'
import { createLog } from '../../../src/runtime/log.ts'
import type { Life } from '../../../src/sheep/membership/view.ts'
import { type Done, handler, type Kind, LinkError } from '../../../src/sheep/peer/kind.ts'
import { type PeerAddress, PeerLinks } from '../../../src/sheep/peer/links.ts'
import { PeerNetwork } from '../../../src/sheep/peer/peer-network.ts'
import { SimClock } from '../../sim/clock.ts'
import { SimNetwork } from '../../sim/network.ts'
import { SeededRandom } from '../../sim/random.ts'

/** What a test takes from the links, to see that the checks notice. */
export interface LinkBreak {
  /** Links know nothing of epochs: what comes after a lost request goes out over the next link. */
  forgetsEpochs?: boolean
}

interface Numbered {
  epoch: number
  /** Counts what one life asks of another in an epoch, from 1. */
  sequence: number
  body: Buffer
}

interface Echo {
  number: number
  body: Buffer
  target: Buffer
}

/** What is slower than the limit shows that late answers do no harm. */
const ORDERED_LIMIT_MS = 2000
const WINDOW_BYTES = 100_000

function orderedKind({ forgetsEpochs }: LinkBreak): Kind<Numbered, number> {
  let calls = 0
  return {
    code: 100,
    name: 'ordered',
    windowBytes: WINDOW_BYTES,
    waitingBytesMax: 4 * WINDOW_BYTES,
    limitMs: ORDERED_LIMIT_MS,
    epochOf: ({ epoch }) => (forgetsEpochs ? ++calls : epoch),
    costBytes: ({ body }) => 512 + body.length,
    encodeRequest: ({ epoch, sequence, body }, out) => {
      out.whole(epoch)
      out.u32(sequence)
      out.body(body)
    },
    decodeRequest: (fields, body) => ({ epoch: fields.whole('epoch'), sequence: fields.u32('sequence'), body }),
    encodeAnswer: (sequence, out) => out.u32(sequence),
    decodeAnswer: (fields) => fields.u32('sequence'),
  }
}

const ECHO: Kind<Echo, { number: number; body: Buffer }> = {
  code: 101,
  name: 'echo',
  windowBytes: WINDOW_BYTES,
  waitingBytesMax: 4 * WINDOW_BYTES,
  limitMs: null,
  costBytes: ({ body }) => 512 + 2 * body.length,
  targetOf: ({ target }) => target,
  encodeRequest: ({ number, body }, out) => {
    out.whole(number)
    out.body(body.subarray(0, 5000)) // in two parts, as gathered data is
    out.body(body.subarray(5000))
  },
  decodeRequest: (fields, body) => ({ number: fields.whole('number'), body, target: body }),
  encodeAnswer: ({ number, body }, out) => {
    out.whole(number)
    out.body(body)
  },
  decodeAnswer: (fields, body) => ({ number: fields.whole('number'), body }),
}

interface Node {
  name: string
  sim: SimClock
  process: Process | null
}

interface Process {
  clock: Clock
  self: Life
  links: PeerLinks
  /** By the life that was asked: the number of the last ordered request, and the highest epoch that one was rejected in. */
  asked: Map<string, { sequences: Map<number, number>; rejectedEpoch: number }>
}

const KEY = Buffer.alloc(32, 7)
const log = createLog('silent')

/**
 * Nodes that ask each other for things, while some are stopped, killed and started, and the network is cut. Checked of each request: it
 * is settled once and in time; what is answered was handed on once, at the life that was asked, as it was sent; and of the
 * ordered ones no life hears one without having heard all before it.
 */
export class LinkModel {
  readonly counts = { asked: 0, answered: 0, rejected: 0, cuts: 0, stops: 0, kills: 0, views: 0 }
  readonly #random: SeededRandom
  readonly #clock: SimClock
  readonly #network: SimNetwork
  readonly #ordered: Kind<Numbered, number>
  readonly #nodes: Node[]
  #epoch = 1
  #starts = 0
  #echoes = 0
  #unsettled = 0
  /** No more faults: all goes well from the next view on. */
  #isCalm = false
  /** By sender, receiver and epoch, the last that was handed on; and what was. */
  readonly #heard = new Map<string, number>()
  readonly #echoed = new Set<number>()

  constructor(seed: number, broken: LinkBreak = {}) {
    this.#random = new SeededRandom(seed)
    this.#clock = new SimClock(this.#random)
    this.#network = new SimNetwork(this.#random, { pieceBytesMax: this.#random.pick([300, 5000, 65_536]) })
    this.#ordered = orderedKind(broken)
    this.#nodes = ['a', 'b', 'c'].map((name) => ({ name, sim: this.#clock.node(), process: null }))
  }

  async run(steps: number): Promise<void> {
    const watch = this.#clock.mount()
    const script = async () => {
      for (const node of this.#nodes) this.#start(node)
      this.#view()
      for (let step = 0; step < steps; step++) {
        this.#act()
        await watch.sleep(this.#random.chance(0.2) ? this.#random.next() * 3000 : this.#random.next() * 20)
      }
      this.#calm()
      await watch.sleep(30_000)
      assert.strictEqual(this.#unsettled, 0, 'requests that are never settled')
      this.#view()
      const before = { ...this.counts }
      for (const from of this.#nodes) for (const to of this.#nodes) if (from !== to) this.#ask(from, to)
      await watch.sleep(10_000)
      assert.strictEqual(this.counts.rejected, before.rejected, 'all is well, and requests are rejected')
      assert.strictEqual(this.#unsettled, 0)
      for (const { process } of this.#nodes) process?.links.close()
    }
    await this.#clock.run(script())
  }

  #act(): void {
    const { random } = this.#network
    const node = random.pick(this.#nodes)
    const dice = random.below(100)
    if (dice < 80) return this.#askSome()
    if (dice < 84) return this.#cut()
    if (dice < 88) return this.#network.heal()
    if (dice < 91) {
      this.counts.stops++
      return node.sim.stop()
    }
    if (dice < 95) for (const each of this.#nodes) each.sim.resume()
    else if (dice < 97) this.#restart(node)
    else this.#view()
  }

  #askSome(): void {
    for (let count = this.#random.below(8); count > 0; count--) {
      const [from, to] = [this.#random.pick(this.#nodes), this.#random.pick(this.#nodes)]
      if (from !== to) this.#ask(from, to)
    }
  }

  #cut(): void {
    this.counts.cuts++
    const left = this.#nodes.filter(() => this.#random.chance(0.5)).map(({ name }) => name)
    this.#network.cut([left, this.#nodes.map(({ name }) => name).filter((name) => !left.includes(name))])
  }

  #calm(): void {
    this.#isCalm = true
    this.#network.heal()
    for (const node of this.#nodes) node.sim.resume()
  }

  #restart(node: Node): void {
    this.counts.kills++
    this.#network.kill(node.name)
    node.sim.endProcess()
    this.#unsettled -= this.#openOf(node.process!)
    node.process = null
    this.#start(node)
  }

  readonly #open = new Map<Process, number>()

  #openOf(process: Process): number {
    return this.#open.get(process) ?? 0
  }

  #start(node: Node): void {
    const clock = node.sim.mount()
    const network = new PeerNetwork({
      network: this.#network.mount(node.name, node.sim),
      clock,
      random: this.#random,
      key: KEY,
    })
    const self = { node: node.name, incarnation: `start ${++this.#starts}` }
    const later = () => (!this.#isCalm && this.#random.chance(0.01) ? 1.5 * ORDERED_LIMIT_MS : this.#random.next() * 50)
    const links = new PeerLinks({
      network,
      clock,
      log,
      cluster: 'test',
      self,
      handlers: [
        handler(this.#ordered, ({ epoch, sequence, body }, { member }, reply) => {
          const key = `${member.incarnation}, ${self.incarnation}, epoch ${epoch}`
          assert.strictEqual(sequence, (this.#heard.get(key) ?? 0) + 1, `${key}: one before it was lost`)
          assert(body.every((byte) => byte === sequence % 256))
          this.#heard.set(key, sequence)
          clock.timer(later(), () => reply(sequence))
        }),
        handler(ECHO, (request, _from, reply) => {
          assert(!this.#echoed.has(request.number), 'it was handed on twice')
          this.#echoed.add(request.number)
          if (this.#random.chance(0.3)) reply(request)
          else clock.timer(later(), () => reply(request))
        }),
      ],
    })
    void network.listen(node.name, { node: (connection) => links.accept(connection), other: () => {} })
    node.process = { clock, self, links, asked: new Map() }
    this.#tell(node.process)
  }

  /** All who live, as a later view says it. */
  #view(): void {
    this.counts.views++
    this.#epoch++
    for (const { process } of this.#nodes) this.#tell(process!)
  }

  #tell({ links }: Process): void {
    const peers = this.#nodes.flatMap(({ name, process }): PeerAddress[] =>
      process ? [{ ...process.self, address: `${name}:7000` }] : [],
    )
    links.setPeers(peers)
  }

  #ask(from: Node, to: Node): void {
    const process = from.process!
    const { self } = to.process!
    const settle = this.#begin(process)
    if (this.#random.chance(0.5)) this.#askOrdered(process, self, settle)
    else this.#askEcho(process, self, settle)
  }

  #askOrdered(process: Process, to: Life, settle: (isAnswered: boolean) => void): void {
    const asked = process.asked.get(to.incarnation) ?? { sequences: new Map(), rejectedEpoch: 0 }
    process.asked.set(to.incarnation, asked)
    const epoch = this.#epoch - (!this.#isCalm && this.#random.chance(0.1) ? 1 : 0)
    const sequence = (asked.sequences.get(epoch) ?? 0) + 1
    asked.sequences.set(epoch, sequence)
    const mayBeAnswered = epoch > asked.rejectedEpoch
    const body = Buffer.alloc(this.#randomLength(), sequence)
    const done: Done<number> = (answer) => {
      settle(!(answer instanceof LinkError))
      if (answer instanceof LinkError) asked.rejectedEpoch = Math.max(asked.rejectedEpoch, epoch)
      else {
        assert.strictEqual(answer, sequence)
        assert(mayBeAnswered, 'one before it was rejected')
      }
    }
    process.links.ask(to, this.#ordered, { epoch, sequence, body }, done)
  }

  #askEcho(process: Process, to: Life, settle: (isAnswered: boolean) => void): void {
    const number = ++this.#echoes
    const body = Buffer.alloc(this.#randomLength(), `${number} `)
    const target = Buffer.alloc(body.length)
    process.links.ask(to, ECHO, { number, body, target }, (answer) => {
      settle(!(answer instanceof LinkError))
      if (answer instanceof LinkError) return
      assert.strictEqual(answer.number, number)
      assert(answer.body.equals(body))
      assert(body.length === 0 || answer.body === target)
      assert(this.#echoed.has(number))
    })
  }

  #randomLength(): number {
    return this.#random.pick([0, 10, 4096, this.#random.below(10_000), this.#random.chance(0.1) ? 70_000 : 1])
  }

  #begin(process: Process): (isAnswered: boolean) => void {
    this.counts.asked++
    this.#unsettled++
    this.#open.set(process, this.#openOf(process) + 1)
    let isSettled = false
    return (isAnswered) => {
      assert(!isSettled, 'it was settled twice')
      isSettled = true
      this.#unsettled--
      this.#open.set(process, this.#openOf(process) - 1)
      this.counts[isAnswered ? 'answered' : 'rejected']++
    }
  }
}
