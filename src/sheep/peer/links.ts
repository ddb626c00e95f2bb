import { BufferPool } from '../../runtime/buffer-pool.ts'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import type { Connection } from '../../runtime/network.ts'
import { Repeats } from '../../runtime/repeats.ts'
import { StallGuard } from '../../runtime/stall-guard.ts'
import type { Life } from '../membership/view.ts'
import { type Hello, LINK_VERSION } from './hello.ts'
import { IncomingLink } from './incoming-link.ts'
import { type AnyHandler, type Done, type Kind, LinkError } from './kind.ts'
import { OutgoingLink, SILENT_MS } from './outgoing-link.ts'
import type { PeerNetwork } from './peer-network.ts'

/** A life of another node, and where it listens. */
export interface PeerAddress extends Life {
  /** `host:port` of its Sheepdog listener. */
  address: string
}

export interface PeerLinksOptions {
  network: Pick<PeerNetwork, 'connect'>
  clock: Clock
  log: Log
  /** Nodes of other clusters are not talked to. */
  cluster: string
  self: Life
  /** Up to this one, ordered requests are rejected: some of a former life of this node may have been. Absent for a node that had none. */
  lostEpoch?: number
  /** What this node does for others. */
  handlers: readonly AnyHandler[]
}

/** Also how soon it is noticed that an answer is late. */
const TICK_MS = 250
/** From one attempt to connect to the next. */
const RETRY_MS = 250

/**
 * What the nodes of a cluster ask of each other: one connection to each life of each other node, over which requests of all kinds go
 * out, and one from each.
 *
 * 1. Requests of one kind are sent, arrive, and are handed on in the order of the calls; answers come in any order. Each request is
 *    settled once: by its answer, or by a LinkError. An answer is that of the life that was asked and of no other.
 * 2. When a link breaks, or its peer is silent for 3 s, all that was asked over it and is unanswered is rejected at once, as lost. The next
 *    request makes another link. Nothing is sent twice. What was lost may have been done, and may still be being done; but as soon as the
 *    peer has taken another link from this life, what it had not read of the old one is gone.
 * 3. Ordered kinds (Kind.epochOf): when a request of epoch e is rejected, for whatever reason, all that are made after it with e or an
 *    older epoch are rejected too, whatever becomes of the network, and so is everything else that is unanswered on that link. So a
 *    peer has handed on, of the requests of an epoch, all up to some point and none after it. A link that breaks while no
 *    ordered request is unanswered has lost none, and the epoch goes on over the next.
 * 4. Each kind has a window of its own, so no kind keeps another one waiting, and urgent ones pass what waits for the network. What is
 *    beyond the window waits here, up to the limit of the kind. A peer that does not read its answers is not read either.
 * 5. A process that stood still drops the links that came in unread: who sent that has given it up.
 */
export class PeerLinks {
  readonly #options: PeerLinksOptions
  readonly #handlers: ReadonlyMap<number, AnyHandler>
  readonly #guard: StallGuard
  readonly #pool = new BufferPool()
  readonly #repeats: Repeats
  readonly #peers = new Map<string, Peer>()
  readonly #incoming = new Set<IncomingLink>()
  /** Of those, by the life that they come from, the one that is heard. */
  readonly #served = new Map<string, IncomingLink>()
  /** The highest epoch that an ordered request was rejected in to a life that is not among `#peers`: as good as for any of them. */
  #lostEpoch: number
  #timer: Timer
  #tickedMs: number
  #isClosed = false

  constructor(options: PeerLinksOptions) {
    this.#options = options
    const { clock, log, handlers, lostEpoch = Number.NEGATIVE_INFINITY } = options
    this.#repeats = new Repeats(clock)
    this.#lostEpoch = lostEpoch
    this.#handlers = new Map(handlers.map((one) => [one.kind.code, one]))
    this.#guard = new StallGuard(clock, SILENT_MS, () => {
      if (this.#incoming.size > 0) log.warn({ links: this.#incoming.size }, 'the process stood still; dropping links')
      for (const link of this.#incoming) link.end('this process stood still')
    })
    this.#tickedMs = clock.monotonicMs()
    this.#timer = this.#arm()
  }

  /** Who can be asked from now on. Links to others end. */
  setPeers(peers: readonly PeerAddress[]): void {
    if (this.#isClosed) return
    const keys = new Set(peers.map(keyOf))
    for (const [key, peer] of this.#peers) {
      if (keys.has(key)) continue
      this.#peers.delete(key)
      peer.end(new LinkError('lost', `${peer.to.node} is out of the cluster`))
      this.#lostEpoch = Math.max(this.#lostEpoch, peer.lostEpoch)
    }
    for (const to of peers) {
      const key = keyOf(to)
      if (!this.#peers.has(key))
        this.#peers.set(key, new Peer({ ...this.#options, repeats: this.#repeats }, { ...to }, this.#lostEpoch))
    }
  }

  ask<Q, A>(to: Life, kind: Kind<Q, A>, request: Q, done: Done<A>): void {
    const peer = this.#peers.get(keyOf(to))
    if (peer) return peer.ask(kind, request, done)
    if (kind.epochOf) this.#lostEpoch = Math.max(this.#lostEpoch, kind.epochOf(request))
    done(new LinkError('lost', `nobody knows where ${to.node} is`))
  }

  /** Rejects with a LinkError. */
  request<Q, A>(to: Life, kind: Kind<Q, A>, request: Q): Promise<A> {
    return new Promise((resolve, reject) =>
      this.ask(to, kind, request, (outcome) => (outcome instanceof LinkError ? reject(outcome) : resolve(outcome))),
    )
  }

  /** A connection that has proved the cluster's key. */
  accept(connection: Connection): void {
    if (this.#isClosed) return connection.destroy()
    const { clock, log } = this.#options
    const link: IncomingLink = new IncomingLink({
      connection,
      clock,
      handlers: this.#handlers,
      pool: this.#pool,
      admit: (hello) => this.#admit(link, hello),
      beforeInput: () => this.#guard.check(),
      ended: (reason) => {
        this.#incoming.delete(link)
        for (const [key, served] of this.#served) if (served === link) this.#served.delete(key)
        const times = this.#repeats.count(`from ${connection.peer.replace(/:\d+$/, '')}`, reason)
        if (times) log.info({ peer: connection.peer, reason, times }, 'a link from another node has ended')
      },
    })
    this.#incoming.add(link)
    link.start()
  }

  /**
   * Ends the links from and to these lives, which are over. One that was cut off may never say so; and one that still talks, but has
   * no majority, may hold for ever what it was asked. It can be asked again.
   */
  endWith(lives: readonly Life[]): void {
    for (const life of lives) {
      const key = keyOf(life)
      this.#served.get(key)?.end('its node is out of the cluster')
      this.#peers.get(key)?.end(new LinkError('lost', `${life.node} is out of the cluster`))
    }
  }

  /** Ends all links; whatever is unanswered is rejected. */
  close(): void {
    this.#isClosed = true
    this.#timer.cancel()
    this.#guard.stop()
    for (const peer of this.#peers.values()) peer.end(new LinkError('lost', 'this node is stopping'))
    this.#peers.clear()
    for (const link of [...this.#incoming]) link.end('this node is stopping')
  }

  /** Ends the link that the same life had before: what is unread of that is not handed on any more. */
  #admit(link: IncomingLink, { version, cluster, from, to, attempt }: Hello): string | null {
    const { self, cluster: own } = this.#options
    if (version !== LINK_VERSION)
      return `it speaks version ${version} of links and ${self.node} version ${LINK_VERSION}`
    if (cluster !== own) return 'this is a node of another cluster'
    if (to.node !== self.node || to.incarnation !== self.incarnation) return `${to.node} of that start is not here`
    const key = keyOf(from)
    const before = this.#served.get(key)
    if (before && before.attempt >= attempt) return 'there is a newer link'
    before?.end('there is a newer link')
    this.#served.set(key, link)
    return null
  }

  #arm(): Timer {
    return this.#options.clock.timer(TICK_MS, () => {
      const nowMs = this.#options.clock.monotonicMs()
      // Who stood still has not read what came meanwhile: others are judged when that has been read.
      const isLate = nowMs - this.#tickedMs > 2 * TICK_MS
      this.#tickedMs = nowMs
      if (!isLate) for (const peer of this.#peers.values()) peer.tick(nowMs)
      if (!this.#isClosed) this.#timer = this.#arm()
    })
  }
}

type PeerOptions = PeerLinksOptions & { repeats: Repeats }

/** One life of another node, through all the links to it. */
class Peer {
  readonly to: PeerAddress
  readonly #options: PeerOptions
  #link: OutgoingLink | null = null
  #attempts = 0
  #triedMs = Number.NEGATIVE_INFINITY
  #lostEpoch: number

  constructor(options: PeerOptions, to: PeerAddress, lostEpoch: number) {
    this.#options = options
    this.to = to
    this.#lostEpoch = lostEpoch
  }

  /** The highest epoch that an ordered request was rejected in. */
  get lostEpoch(): number {
    return this.#lostEpoch
  }

  ask<Q, A>(kind: Kind<Q, A>, request: Q, done: Done<A>): void {
    if (kind.epochOf && kind.epochOf(request) <= this.#lostEpoch)
      return done(new LinkError('lost', `a request of ${kind.name} before this one was lost in its epoch`))
    this.#link ??= this.#connect()
    this.#link.ask(kind, request, done)
  }

  tick(nowMs: number): void {
    this.#link?.tick(nowMs)
  }

  end(reason: LinkError): void {
    this.#link?.end(reason)
  }

  #connect(): OutgoingLink {
    const { clock, log, network, cluster, self, repeats } = this.#options
    const { address, ...to } = this.to
    const waitMs = this.#triedMs + RETRY_MS - clock.monotonicMs()
    this.#triedMs = clock.monotonicMs() + Math.max(0, waitMs)
    const link: OutgoingLink = new OutgoingLink({
      hello: { version: LINK_VERSION, cluster, from: self, to, attempt: ++this.#attempts },
      clock,
      connect: async () => {
        if (waitMs > 0) await clock.sleep(waitMs)
        return network.connect(address)
      },
      ended: (reason, lostEpoch) => {
        this.#link = null
        this.#lostEpoch = Math.max(this.#lostEpoch, lostEpoch)
        const times = repeats.count(`to ${address}`, reason.message)
        if (times)
          log.info({ node: to.node, address, reason: reason.message, times }, 'the link to another node has ended')
      },
    })
    return link
  }
}

function keyOf({ node, incarnation }: Life): string {
  return `${node} ${incarnation}`
}
