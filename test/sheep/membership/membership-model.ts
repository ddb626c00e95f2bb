import assert from 'node:assert'
import { pino } from 'pino'
import { StoreError } from '../../../src/errors.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import type { JoinGroup } from '../../../src/sheep/cluster/group.ts'
import { ClusterState } from '../../../src/sheep/cluster-state.ts'
import { decodeEntry, encodeEntry } from '../../../src/sheep/entries.ts'
import { clusterOf, foundingLog } from '../../../src/sheep/membership/founding.ts'
import { type Heartbeat, LEASE_MS } from '../../../src/sheep/membership/lease.ts'
import { Membership, type MembershipLog } from '../../../src/sheep/membership/membership.ts'
import { isIn, isVoterStep, type Life, type Member, type View } from '../../../src/sheep/membership/view.ts'
import type { Electorate, Item } from '../../../src/sheep/order/item.ts'
import type { Durable } from '../../../src/sheep/order/machine.ts'
import type { OrderedLog, OrderedLogOptions } from '../../../src/sheep/order/ordered-log.ts'
import { type Action, ListState, type Node, OrderModel } from '../order/order-model.ts'

/** A way to break a rule of the membership on purpose. */
export interface MembershipBreak {
  /** Voters acknowledge at once what ends a lease. */
  holdsNothing?: boolean
  /** Members act while they are in the view that they know, whatever their lease. */
  actsWithoutLease?: boolean
  /** A view is proposed to follow whatever there is by then. */
  insists?: boolean
  /** Two voters change at a time, and the log does not mind. */
  leapsVoters?: boolean
  /** What another cluster says counts as if one's own had said it. */
  hearsStrangers?: boolean
  /** A node has the same incarnation at each start, and when it was put out. */
  staysTheSame?: boolean
  /** Who is put out is reached under its new incarnation only when the view without it has taken effect. */
  isReachedLate?: boolean
  /** Heartbeats are sent and answered though the store stands still. */
  provesNothing?: boolean
}

/** The state of a node, and with it that of the cluster, from the same entries. */
class ViewState extends ListState {
  cluster = new ClusterState()
  tookEffect = () => {}

  constructor(items: readonly Item[], check: (item: Item) => void) {
    super(items, check)
    for (const item of items) this.#take(item)
  }

  override apply(item: Item): void {
    super.apply(item)
    if (this.#take(item)) this.tookEffect()
  }

  override async install(state: Buffer): Promise<{ index: number; electorate: Electorate }> {
    const installed = await super.install(state)
    this.cluster = new ClusterState()
    for (const item of this.items) this.#take(item)
    this.tookEffect()
    return installed
  }

  #take(item: Item): boolean {
    if (!item.payload.startsWith('{')) return false
    const entry = decodeEntry(Buffer.from(item.payload))
    this.cluster.apply(item.index, entry)
    return entry.type === 'view'
  }
}

export interface Peer {
  node: Node
  membership: Membership
  state: ViewState
  /** The incarnation that others reach it under. */
  linksTo: string
  views: View[]
  leasesLost: number
  strangers: string[]
}

const HEARTBEAT_FAILS_AFTER_MS = 500
const WATCH_MS = 100
const SETTLE_MS = 240_000
/** With the promises of the others, what a heartbeat may take, and a beat until the next. */
const HUNG_MS_MAX = LEASE_MS + 1000

/**
 * The log in common, with everybody's membership on top of it, in one or two clusters that share a group. Checked all the time:
 * each view follows the one before, with voters that change one at a time; nobody acts who is not in the newest view that has taken
 * effect anywhere, or whose store stands still; nothing takes effect that came from another cluster. At the end, with everything
 * mended: everybody is in the view, and may act.
 */
export class MembershipModel extends OrderModel {
  readonly #broken: MembershipBreak
  readonly #peers = new Map<string, Peer>()
  readonly #newest = new Map<string, View>()
  /** Since when the store of a node stands still. */
  readonly #hung = new Map<Node, number>()
  /** Pairs that do not reach each other where data goes, though the group has both. */
  readonly #brokenLinks = new Set<string>()
  readonly #leaving = new Set<Peer>()
  readonly #strangerCount: number
  readonly moments = { views: 0, evictions: 0, joins: 0, acts: 0, leases: 0, hangs: 0, links: 0, leaves: 0, drains: 0 }

  constructor(seed: number, broken: MembershipBreak = {}, nodes?: number, strangers?: number) {
    super(seed, {}, nodes)
    this.#broken = broken
    this.#strangerCount = strangers ?? (this.random.chance(0.4) ? 1 : 0)
    this.#watch()
  }

  protected override get pausesMs(): readonly number[] {
    return [100, 500, 2000]
  }

  protected override mix(): Action[] {
    const some = (weight: number, act: (node: Node) => void) => ({
      weight: this.random.chance(0.3) ? 0 : weight * this.random.next() * 3,
      act,
    })
    return [
      ...super.mix(),
      { weight: 6, act: (node) => this.unhang(node) },
      { weight: 3, act: () => this.mendLinks() },
      some(4, (node) => this.hang(node)),
      some(2, (node) => this.breakLink(node, this.random.pick(this.nodes))),
      some(3, (node) => this.#restart(node)),
      some(3, (node) => this.beside(this.leave(node))),
      some(2, (node) => this.#drain(node)),
      some(2, (node) => this.#suspect(node)),
    ]
  }

  /** Voters follow from views here. */
  protected override changeVoters(): void {}

  // What is done to nodes.

  hang(node: Node): void {
    if (this.#hung.has(node)) return
    this.moments.hangs++
    this.#hung.set(node, this.clock.monotonicMs())
  }

  unhang(node: Node): void {
    this.#hung.delete(node)
  }

  breakLink(a: Node, b: Node): void {
    if (a === b) return
    this.moments.links++
    this.#brokenLinks.add(linkOf(a, b))
  }

  mendLinks(): void {
    this.#brokenLinks.clear()
  }

  /** A clean stop. */
  async leave(node: Node): Promise<void> {
    const peer = this.peer(node)
    if (!peer || node.isStopped) return
    this.moments.leaves++
    this.#leaving.add(peer)
    await peer.membership.leave()
    if (this.peer(node) === peer) this.kill(node)
  }

  #restart(node: Node): void {
    this.kill(node)
    this.beside(this.start(node))
  }

  #drain(node: Node): void {
    const peer = this.peer(node)
    if (!peer || node.isStopped) return
    const { name } = this.random.pick(this.nodes.filter((other) => this.clusterOf(other) === this.clusterOf(node)))
    this.moments.drains++
    const drained = peer.membership.drain(name, this.random.chance(0.5))
    this.beside(drained.catch(({ code }) => assert.equal(code, 'Unsure'))) // it may be put out meanwhile
  }

  #suspect(node: Node): void {
    const suspected = this.peer(this.random.pick(this.nodes))
    if (!node.isStopped && suspected) this.peer(node)?.membership.suspect(suspected.membership.life)
  }

  /** The node's process that runs, as far as this is about. */
  peer(node: Node): Peer | null {
    return node.process ? (this.#peers.get(`${node.name}.${node.starts}`) ?? null) : null
  }

  // How a node is put together.

  protected override clusterOf(node: Node): string {
    return this.nodes.indexOf(node) >= this.nodes.length - this.#strangerCount ? 'theirs' : 'ours'
  }

  #isFounder(node: Node): boolean {
    return node === this.nodes.find((other) => this.clusterOf(other) === this.clusterOf(node))
  }

  protected override founding(node: Node): Durable | undefined {
    const founder = { ...this.#selfOf(node), incarnation: 'founder' }
    return this.#isFounder(node)
      ? foundingLog({ cluster: this.clusterOf(node), founder, at: this.clock.now() })
      : undefined
  }

  #selfOf({ name }: Node): Omit<Member, 'incarnation'> {
    return { node: name, address: `address of ${name}`, zone: Number(name.slice(1)), vnodes: 128 }
  }

  protected override stateOf(node: Node, check: (item: Item) => void): ListState {
    return new ViewState(node.kept, check)
  }

  protected override optionsOf(
    node: Node,
    clock: Clock,
    listState: ListState,
    durable: Durable,
  ): Partial<OrderedLogOptions> {
    const state = listState as ViewState
    const peer: Omit<Peer, 'membership'> = { node, state, linksTo: '', views: [], leasesLost: 0, strangers: [] }
    const { staysTheSame, holdsNothing, leapsVoters, isReachedLate } = this.#broken
    const membership: Membership = new Membership({
      self: this.#selfOf(node),
      // With another cluster in the group a node has to be told; and so it may be anyway.
      cluster:
        this.#strangerCount > 0 || this.#isFounder(node)
          ? this.clusterOf(node)
          : (state.cluster.founded?.cluster ?? clusterOf(durable)),
      views: () => state.cluster.views,
      heartbeat: (to, heartbeat) => this.#heartbeat(node, to, heartbeat),
      proveStore: () => this.#proveStore(node, clock),
      rebalanceDelayMs: 20_000,
      clock,
      random: staysTheSame ? { bytes: (length) => Buffer.alloc(length), uuid: () => 'same' } : this.random,
      log: pino({ level: 'silent' }),
      onRenewed: ({ incarnation }) => {
        if (!isReachedLate) peer.linksTo = incarnation
      },
      onView: (view) => {
        peer.views.push(view)
        peer.linksTo = membership.life.incarnation
      },
      onLeaseLost: () => peer.leasesLost++,
      onStranger: (_member, reason) => peer.strangers.push(reason),
    })
    state.tookEffect = () => membership.tookEffect()
    peer.linksTo = membership.life.incarnation
    this.#peers.set(`${node.name}.${node.starts}`, Object.assign(peer, { membership }))
    return {
      holdMs: (unapplied) => (holdsNothing ? 0 : membership.holdMs(unapplied)),
      ...(!leapsVoters && { mayFollow: (voters, before) => isVoterStep(before, voters) }),
    }
  }

  protected override joining(node: Node, join: JoinGroup): JoinGroup {
    const { membership } = this.#peers.get(`${node.name}.${node.starts}`)!
    if (!this.#broken.hearsStrangers) return membership.joining(join)
    const cluster = Buffer.from(this.clusterOf(node))
    return membership.joining((listener) =>
      join({
        ...listener,
        configured: (configuration) => listener.configured(configuration),
        delivered: (sender, message) => {
          const body = message.subarray(3 + message[2]!)
          listener.delivered(
            sender,
            Buffer.concat([message.subarray(0, 2), Buffer.from([cluster.length]), cluster, body]),
          )
        },
        quorate: (isQuorate) => listener.quorate(isQuorate),
        lost: (reason) => listener.lost(reason),
      }),
    )
  }

  protected override started(node: Node): void {
    const { membership } = this.peer(node)!
    membership.start(this.#tamper(node, node.process!.log))
  }

  #tamper(node: Node, log: OrderedLog): MembershipLog {
    const { insists, leapsVoters } = this.#broken
    const propose: MembershipLog['propose'] = async (payload, change) => {
      const view = decodeEntry(Buffer.from(payload)) as { type: 'view' } & View
      const other = this.nodes.find(
        (one) => !view.voters.includes(one.name) && this.clusterOf(one) === this.clusterOf(node),
      )
      if (leapsVoters && other && this.random.chance(0.5)) {
        const voters = [...view.voters, other.name]
        return log.propose(encodeEntry({ ...view, voters }).toString(), { ...change!, voters })
      }
      if (insists) await this.clock.sleep(this.random.next() * 2000)
      const afterIndex = insists ? this.peer(node)?.state.electorate?.index : undefined
      await log.propose(payload, { ...change!, ...(afterIndex !== undefined && { afterIndex }) })
    }
    return Object.create(log, {
      propose: { value: propose },
      isActive: { get: () => log.isActive },
      unapplied: { get: () => log.unapplied },
      appliedIndex: { get: () => log.appliedIndex },
      doubt: { value: (member: string) => log.doubt(member) },
    })
  }

  /** Over another network than the group's, but it is cut with it; a node that stands still does not answer. */
  async #heartbeat(node: Node, to: Life, heartbeat: Heartbeat): Promise<boolean> {
    const other = this.nodes.find((one) => one.name === to.node)!
    const isReached = () => this.reach(node, other) && this.#isAt(to, other)
    await this.clock.sleep(this.random.next() * 20)
    // A process that stands still finds what was sent to it when it goes on.
    while (other.isStopped) await this.clock.sleep(250)
    if (!isReached()) {
      await this.clock.sleep(HEARTBEAT_FAILS_AFTER_MS)
      throw new StoreError('Disconnected')
    }
    const isPromised = await this.peer(other)!.membership.answer(heartbeat)
    await this.clock.sleep(this.random.next() * 20)
    while (node.isStopped) await this.clock.sleep(250)
    if (!isReached()) throw new StoreError('Disconnected')
    this.moments.leases++
    return isPromised
  }

  protected override reach(from: Node, to: Node): boolean {
    return super.reach(from, to) && !this.#brokenLinks.has(linkOf(from, to))
  }

  protected override mayFetch(from: Node, member: string, to: Node): boolean {
    const life = this.peer(from)?.membership.nodeOf(member)
    return this.reach(from, to) && !!life && this.#isAt(life, to)
  }

  /** One that is asked for as somebody that it is not, or not any more, refuses. */
  #isAt({ incarnation }: Life, node: Node): boolean {
    return this.peer(node)?.linksTo === incarnation
  }

  async #proveStore(node: Node, clock: Clock): Promise<void> {
    await clock.sleep(this.random.next() * 10)
    while (this.#hung.has(node) && !this.#broken.provesNothing) await clock.sleep(20)
  }

  // What is checked.

  protected override applied(node: Node, item: Item): void {
    const founded = /^founding of (.*)$/.exec(item.origin.life)
    const origin = this.nodes.find(({ name }) => item.origin.life.startsWith(`${name}.`))
    const from = founded ? founded[1] : this.clusterOf(origin!)
    assert.equal(from, this.clusterOf(node), `an entry of ${item.origin.life} has taken effect on ${node.name}`)
    if (!item.voters) return
    const entry = decodeEntry(Buffer.from(item.payload))
    assert(entry.type === 'view', 'whatever changes voters is a view')
    const newest = this.#newest.get(this.clusterOf(node))
    if (entry.epoch <= (newest?.epoch ?? 0)) return // the log is the same on all nodes: it took effect elsewhere before
    this.#follow(this.clusterOf(node), newest, entry)
  }

  #follow(cluster: string, before: View | undefined, view: View): void {
    this.moments.views++
    assert.equal(view.epoch, (before?.epoch ?? 0) + 1, 'epochs follow each other')
    assert(isVoterStep(before?.voters ?? [], view.voters), `voters go from ${before?.voters} to ${view.voters}`)
    for (const member of view.members) if (before && !isIn(before, member)) this.moments.joins++
    for (const member of before?.members ?? []) if (!isIn(view, member)) this.moments.evictions++
    this.#newest.set(cluster, view)
    this.#checkActs()
  }

  /** At each moment: nobody may act but those in the newest view. */
  #checkActs(): void {
    for (const node of this.nodes) {
      const peer = this.peer(node)
      const newest = this.#newest.get(this.clusterOf(node))
      if (!peer || !newest || !this.#mayAct(peer)) continue
      this.moments.acts++
      const { life, view } = peer.membership
      assert(isIn(newest, life), `${life.node} acts by view ${view.epoch}, and is not in view ${newest.epoch}`)
      const hungSince = this.#hung.get(node)
      const hungMs = hungSince === undefined ? 0 : this.clock.monotonicMs() - hungSince
      assert(hungMs <= HUNG_MS_MAX, `${life.node} may act, and its store stands still for ${hungMs} ms`)
    }
  }

  #mayAct({ membership }: Peer): boolean {
    return this.#broken.actsWithoutLease ? isIn(membership.view, membership.life) : membership.mayAct()
  }

  #watch(): void {
    this.clock.timer(WATCH_MS, () => {
      this.#watch()
      this.beside(Promise.resolve().then(() => this.#checkActs()))
    })
  }

  /** The last view that has taken effect anywhere. */
  newest(cluster = 'ours'): View {
    return this.#newest.get(cluster)!
  }

  protected override async mendAll(): Promise<void> {
    this.#hung.clear()
    this.mendLinks()
    for (const node of this.nodes) if (this.#leaving.has(this.peer(node)!)) this.kill(node)
    await super.mendAll()
  }

  protected override async expectProgress(): Promise<void> {
    await super.expectProgress()
    await this.settled()
  }

  /** Resolves when all nodes that run are in the view, and may act, and there is no other view to come. */
  async settled(withinMs = SETTLE_MS): Promise<void> {
    const deadline = this.clock.monotonicMs() + withinMs
    while (!this.#isSettled()) {
      assert(this.clock.monotonicMs() < deadline, `not settled: ${this.describe()}`)
      await this.clock.sleep(WATCH_MS)
    }
  }

  #isSettled(): boolean {
    const running = this.nodes.filter(({ process, isStopped }) => process && !isStopped)
    return running.every((node) => {
      const peer = this.peer(node)
      const newest = this.#newest.get(this.clusterOf(node))
      if (!peer || !newest) return false
      const same = running.filter((other) => this.clusterOf(other) === this.clusterOf(node))
      const isSame = peer.membership.view.epoch === newest.epoch && newest.members.length === same.length
      return isSame && peer.membership.mayAct()
    })
  }

  describe(): string {
    return JSON.stringify(
      this.nodes.map((node) => {
        const membership = this.peer(node)?.membership
        return {
          name: node.name,
          life: membership?.life.incarnation,
          mayAct: membership?.mayAct(),
          epoch: membership?.view.epoch,
          members: membership?.view.members.map(({ node: name, incarnation }) => `${name} ${incarnation}`),
          voters: membership?.view.voters,
          isActive: node.process?.log.isActive,
        }
      }),
      null,
      1,
    )
  }
}

const linkOf = (a: Node, b: Node) => [a.name, b.name].sort().join(' ')
