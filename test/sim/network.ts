import type { Clock } from '../../src/runtime/clock.ts'
import type { Connection, Listener, Network } from '../../src/runtime/network.ts'
import type { SimClock } from './clock.ts'
import type { SeededRandom } from './random.ts'

export interface SimNetworkOptions {
  /** How long a piece of a stream takes, and the end of one. */
  readonly latencyMsMax?: number
  /** A stream arrives in pieces of at most this. */
  readonly pieceBytesMax?: number
}

const SOFT_LIMIT_BYTES = 16 * 1024
/** How often what could be read at once is cut all the same. */
const CUT_CHANCE = 0.1

/**
 * Byte streams between nodes in virtual time, as TCP gives them: in order, in pieces that end anywhere, with what is not read waiting at the
 * sender. A cut loses nothing by itself: what is under way waits for the heal, and neither side is told. A process that ends takes its
 * connections along, and the others hear of that as soon as they can be reached. An address is the name of the node, with or without a port.
 */
export class SimNetwork {
  readonly random: SeededRandom
  readonly options: Required<SimNetworkOptions>
  readonly #listeners = new Map<string, { node: Node; accept: (connection: Connection) => void }>()
  readonly #nodes = new Map<string, Node>()
  readonly #streams = new Set<Stream>()
  /** The sides of the cut; whoever is on none is alone. Null while all reach each other. */
  #sides: readonly ReadonlySet<string>[] | null = null
  /** Ways, from and to, that lead nowhere. */
  readonly #blocked = new Set<string>()

  constructor(random: SeededRandom, { latencyMsMax = 5, pieceBytesMax = 65_536 }: SimNetworkOptions = {}) {
    this.random = random
    this.options = { latencyMsMax, pieceBytesMax }
  }

  /** The network as a process that starts now on the node has it. */
  mount(name: string, clock: SimClock): Network {
    const node: Node = { name, clock: clock.mount() }
    this.#nodes.set(name, node)
    return {
      listen: async (address, accept): Promise<Listener> => {
        const listener = { node, accept }
        this.#listeners.set(name, listener)
        const close = async () => {
          if (this.#listeners.get(name) === listener) this.#listeners.delete(name)
        }
        return { address, close }
      },
      connect: (address) => this.#connect(node, address.split(':')[0]!),
    }
  }

  /** From now on only those in the same list reach each other. */
  cut(sides: readonly (readonly string[])[]): void {
    this.#sides = sides.map((side) => new Set(side))
  }

  /** Nothing that one of these says arrives at the other ones, while what they say still does. */
  silence(from: readonly string[], to: readonly string[]): void {
    for (const a of from) for (const b of to) this.#blocked.add(`${a} ${b}`)
  }

  heal(): void {
    this.#sides = null
    this.#blocked.clear()
    for (const stream of this.#streams) stream.pump()
  }

  /** The process on the node ends; its clock does so, too. */
  kill(name: string): void {
    this.#listeners.delete(name)
    for (const stream of [...this.#streams]) if (stream.from.node.name === name) stream.from.destroy()
  }

  /** All connections of a node break. What was under way is lost; both sides go on, and may connect again. */
  reset(name: string): void {
    for (const { from, to } of [...this.#streams]) if (from.node.name === name || to.node.name === name) from.destroy()
  }

  /** Whether what `a` says arrives at `b`. */
  reach(a: string, b: string): boolean {
    if (a === b) return true
    if (this.#sides !== null && !this.#sides.some((side) => side.has(a) && side.has(b))) return false
    return this.#blocked.size === 0 || !this.#blocked.has(`${a} ${b}`)
  }

  add(stream: Stream): void {
    this.#streams.add(stream)
  }

  remove(stream: Stream): void {
    this.#streams.delete(stream)
  }

  latencyMs(): number {
    return this.random.next() * this.options.latencyMsMax
  }

  /** Nothing comes of it while the other side is cut off. */
  async #connect(node: Node, to: string): Promise<Connection> {
    await node.clock.sleep(this.latencyMs())
    while (!this.reach(node.name, to) || !this.reach(to, node.name)) await node.clock.sleep(1000)
    const listener = this.#listeners.get(to)
    if (!listener) throw Object.assign(new Error(`connect ECONNREFUSED ${to}`), { code: 'ECONNREFUSED' })
    const near = new End(node, to)
    const far = new End(listener.node, node.name)
    near.join(new Stream(this, near, far), new Stream(this, far, near))
    far.join(near.incoming!, near.outgoing!)
    listener.node.clock.timer(this.latencyMs(), () => listener.accept(far))
    return near
  }
}

interface Node {
  readonly name: string
  readonly clock: Clock
}

class Stream {
  readonly from: End
  readonly to: End
  readonly #network: SimNetwork
  #chunks: Buffer[] = []
  #pendingBytes = 0
  #isMoving = false
  /** The rest of a piece of news comes right behind it. */
  #isUnderWay = false
  #isEnding = false
  #isFull = false

  constructor(network: SimNetwork, from: End, to: End) {
    this.#network = network
    this.from = from
    this.to = to
    network.add(this)
  }

  get pendingBytes(): number {
    return this.#pendingBytes
  }

  write(buffers: readonly Uint8Array[]): boolean {
    const chunk = Buffer.concat(buffers)
    if (chunk.length > 0) this.#chunks.push(chunk)
    this.#pendingBytes += chunk.length
    this.pump()
    this.#isFull ||= this.#pendingBytes > SOFT_LIMIT_BYTES
    return !this.#isFull
  }

  end(): void {
    this.#isEnding = true
    this.pump()
  }

  /** The other side is told as soon as it can be reached; what was under way to it is lost. */
  breakOff(): void {
    this.#chunks = []
    this.#pendingBytes = 0
    this.#isEnding = true
    this.pump()
  }

  /** Nobody is there to receive any more. */
  retire(): void {
    this.#network.remove(this)
  }

  pump(): void {
    const isDone = this.#chunks.length === 0 && !this.#isEnding
    if (this.#isMoving || isDone || !this.#mayArrive()) return
    this.#isMoving = true
    this.to.node.clock.timer(this.#isUnderWay ? 0 : this.#network.latencyMs(), () => {
      this.#isMoving = false
      if (this.#mayArrive()) this.#arrive()
      this.pump()
    })
  }

  #mayArrive(): boolean {
    if (this.to.isOver || !this.#network.reach(this.from.node.name, this.to.node.name)) return false
    return this.#chunks.length === 0 || this.to.isReading
  }

  #arrive(): void {
    const [first] = this.#chunks
    if (first === undefined) {
      if (this.#isEnding) this.to.over()
      return
    }
    const pending = this.#chunks.length === 1 ? first : Buffer.concat(this.#chunks)
    const length = this.#pieceOf(pending.length)
    this.#isUnderWay = length < pending.length
    this.#chunks = this.#isUnderWay ? [pending.subarray(length)] : []
    this.#pendingBytes -= length
    this.to.arrived(pending.subarray(0, length))
    if (this.#pendingBytes > 0 || !this.#isFull) return
    this.#isFull = false
    this.from.drained()
  }

  /** How much of so many bytes is read at once: mostly all that has come, or a piece that ends anywhere. */
  #pieceOf(bytes: number): number {
    const { random, options } = this.#network
    const limit = Math.min(options.pieceBytesMax, random.chance(CUT_CHANCE) ? bytes : Number.POSITIVE_INFINITY)
    return Math.min(bytes, 1 + random.below(limit))
  }
}

class End implements Connection {
  readonly node: Node
  readonly peer: string
  outgoing: Stream | null = null
  incoming: Stream | null = null
  isOver = false
  #isPaused = false
  #receive: ((chunk: Buffer) => void) | null = null
  #drained: () => void = () => {}
  #closed: () => void = () => {}

  constructor(node: Node, peer: string) {
    this.node = node
    this.peer = peer
  }

  join(outgoing: Stream, incoming: Stream): void {
    this.outgoing = outgoing
    this.incoming = incoming
  }

  get isReading(): boolean {
    return this.#receive !== null && !this.#isPaused
  }

  get pendingBytes(): number {
    return this.outgoing!.pendingBytes
  }

  arrived(chunk: Buffer): void {
    this.#receive!(chunk)
  }

  drained(): void {
    if (!this.isOver) this.#drained()
  }

  onData(receive: (chunk: Buffer) => void): void {
    this.#receive = receive
    this.incoming!.pump()
  }

  onClose(closed: () => void): void {
    this.#closed = closed
    if (this.isOver) this.node.clock.afterInput(closed)
  }

  onDrain(drained: () => void): void {
    this.#drained = drained
  }

  write(buffers: readonly Uint8Array[]): boolean {
    return this.isOver || this.outgoing!.write(buffers)
  }

  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    this.#isPaused = false
    this.incoming!.pump()
  }

  end(): void {
    if (!this.isOver) this.outgoing!.end()
  }

  destroy(): void {
    this.over()
  }

  /** Nothing arrives any more. */
  over(): void {
    if (this.isOver) return
    this.isOver = true
    this.outgoing!.breakOff()
    this.incoming!.retire()
    this.node.clock.afterInput(() => this.#closed())
  }
}
