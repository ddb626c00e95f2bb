import assert from 'node:assert'
import type { Clock } from '../../../src/runtime/clock.ts'
import { type Heartbeat, Lease, LeasePromises } from '../../../src/sheep/membership/lease.ts'
import {
  currentAndLater,
  isIn,
  type Life,
  type LoggedView,
  type Member,
  type View,
  type ViewHistory,
} from '../../../src/sheep/membership/view.ts'
import type { Item } from '../../../src/sheep/order/item.ts'
import type { OrderedLogOptions } from '../../../src/sheep/order/ordered-log.ts'
import { type Action, type Node, OrderModel } from '../order/order-model.ts'

/** A way to break a rule of the leases on purpose. */
export interface LeaseBreak {
  /** A voter acknowledges what ends a lease at once. */
  holdsNothing?: boolean
  /** A voter answers whom its log puts out, as long as that has not taken effect. */
  answersThoseOnTheirWayOut?: boolean
  /** A voter that starts takes it that it promised nothing before. */
  forgetsAtStart?: boolean
  /** The lease counts from when the answer came. */
  countsFromTheAnswer?: boolean
}

interface Holder {
  member: Life
  clock: Clock
  lease: Lease
  promises: LeasePromises
  /** What the lease is worth: the voters that this node knows. */
  view: View | null
  isOver: boolean
}

const HEARTBEAT_MS = 250

/**
 * Members of a log in common that put each other out of the view and come back, with heartbeats on a network of their own that
 * is cut when the group's is. Checked whenever a view takes effect anywhere: nobody who is not in it holds a lease.
 */
export class LeaseModel extends OrderModel {
  readonly #broken: LeaseBreak
  readonly #holders = new Map<string, Holder>()
  readonly #lives = new Map<string, string>()
  /** The last view that has taken effect anywhere. */
  #newest: LoggedView | null = null
  readonly leaseCounts = { views: 0, evictions: 0, joins: 0, leases: 0 }

  constructor(seed: number, broken: LeaseBreak = {}) {
    super(seed)
    this.#broken = broken
  }

  protected override mix(): Action[] {
    return [
      ...super.mix(),
      { weight: 20 * this.random.next(), act: (node) => this.#evict(node) },
      { weight: 10 * this.random.next(), act: (node) => this.#restart(node) },
      { weight: 10 * this.random.next(), act: (node) => this.beside(this.#standStill(node)) },
      { weight: 12, act: (node) => this.#join(node) },
    ]
  }

  /** Voters follow from views here. */
  protected override changeVoters(node: Node): void {
    const view = this.#viewOf(node)
    if (!view) return
    const outside = view.members.map((member) => member.node).filter((name) => !view.voters.includes(name))
    const dropped = this.random.pick(view.voters)
    const voters =
      outside.length > 0 && this.random.chance(0.6)
        ? [...view.voters, this.random.pick(outside)]
        : view.voters.filter((voter) => voter !== dropped)
    this.#proposeView(node, view.members, voters)
  }

  #evict(node: Node): void {
    const view = this.#viewOf(node)
    if (!view || view.members.length === 0) return
    // Mostly those that do not seem to be well.
    const silent = view.members.filter((member) => this.#isSilent(member.node))
    const { node: name } = this.random.pick(silent.length > 0 && this.random.chance(0.8) ? silent : view.members)
    const members = view.members.filter((member) => member.node !== name)
    if (members.length === 0) return
    this.leaseCounts.evictions++
    // Who is out may go on to vote.
    const voters = this.random.chance(0.5) ? view.voters : view.voters.filter((voter) => voter !== name)
    this.#proposeView(node, members, voters)
  }

  /** For long enough to be put out; what was on its way to it comes when it goes on. */
  async #standStill(node: Node): Promise<void> {
    this.stop(node)
    for (const other of this.nodes) if (other !== node) this.#evict(other)
    await this.clock.sleep(2000 + this.random.next() * 6000)
    this.resume(node)
  }

  #isSilent(name: string): boolean {
    const node = this.nodes.find((other) => other.name === name)!
    return node.isStopped || !node.process
  }

  /** Back before anybody has missed it. */
  #restart(node: Node): void {
    this.kill(node)
    this.beside(this.start(node))
  }

  #join(node: Node): void {
    const view = this.#viewOf(node)
    const incarnation = this.#lives.get(node.name)
    if (!view || !incarnation || isIn(view, { node: node.name, incarnation })) return
    this.leaseCounts.joins++
    const others = view.members.filter((member) => member.node !== node.name)
    const member = { node: node.name, incarnation, address: node.name, zone: 0, vnodes: 1 }
    this.#proposeView(node, [...others, member], view.voters)
  }

  #proposeView(node: Node, members: readonly Member[], voters: readonly string[]): void {
    const electorate = node.process?.state.electorate
    const view = this.#viewOf(node)
    if (!view || !electorate || voters.length === 0) return
    const next: View = { epoch: view.epoch + 1, members, voters, at: 0 }
    this.beside(this.propose(node, JSON.stringify(next), { voters: [...voters], afterIndex: electorate.index }))
  }

  #viewOf(node: Node): View | null {
    return node.process ? (currentAndLater(this.#historyOf(node))[0]?.view ?? null) : null
  }

  #historyOf(node: Node): ViewHistory {
    const { state, log } = node.process!
    const items = [...state.items, ...log.unapplied]
    return { views: items.flatMap(viewsOf), appliedIndex: state.items.length }
  }

  protected override optionsOf(node: Node, clock: Clock): Partial<OrderedLogOptions> {
    const promises = new LeasePromises(this.#broken.forgetsAtStart ? Number.NEGATIVE_INFINITY : clock.monotonicMs())
    const life = `${node.name}.${node.starts}`
    this.#lives.set(node.name, life)
    const holder = { member: { node: node.name, incarnation: life }, clock, lease: new Lease(), promises }
    this.#holders.set(life, { ...holder, view: null, isOver: false })
    return {
      holdMs: () => {
        if (this.#broken.holdsNothing || !node.process) return 0
        const nowMs = clock.monotonicMs()
        return promises.heldUntilMs(this.#historyOf(node), nowMs) - nowMs
      },
    }
  }

  protected override started(node: Node, clock: Clock, life: string): void {
    const holder = this.#holders.get(life)!
    const beat = () => {
      clock.timer(HEARTBEAT_MS, beat)
      if (node.process) this.#beat(node, holder)
    }
    beat()
  }

  #beat(node: Node, holder: Holder): void {
    const sentMs = holder.clock.monotonicMs()
    const view = this.#viewOf(node)
    if (!view || !isIn(view, holder.member)) return
    holder.view = view
    const heartbeat = { ...holder.member, appliedIndex: node.process!.state.items.length }
    for (const voter of view.voters) this.beside(this.#send(node, voter, holder, heartbeat, sentMs))
  }

  async #send(node: Node, voter: string, holder: Holder, heartbeat: Heartbeat, sentMs: number): Promise<void> {
    const other = this.nodes.find(({ name }) => name === voter)!
    await this.clock.sleep(this.random.next() * 30)
    // A process that stands still finds what was sent to it when it goes on.
    while (other.isStopped) await this.clock.sleep(100)
    const answerer = this.#holders.get(`${other.name}.${other.starts}`)
    if (!this.reach(node, other) || !other.process || !answerer) return
    const history = this.#historyOf(other)
    const asked = this.#broken.answersThoseOnTheirWayOut
      ? { ...history, views: history.views.filter(({ index }) => index <= history.appliedIndex) }
      : history
    if (!answerer.promises.answer(heartbeat, asked, answerer.clock.monotonicMs())) return
    await this.clock.sleep(this.random.next() * 30)
    while (node.isStopped) await this.clock.sleep(100)
    if (!this.reach(node, other)) return
    holder.lease.answered(voter, this.#broken.countsFromTheAnswer ? holder.clock.monotonicMs() : sentMs)
    this.leaseCounts.leases++
    if (this.#newest) this.#check(holder, this.#newest)
  }

  #leaseEndMs({ lease, view }: Holder): number {
    return view ? lease.endMs(view.voters) : Number.NEGATIVE_INFINITY
  }

  protected override applied(_node: Node, item: Item): void {
    const [logged] = viewsOf(item)
    if (!logged || logged.index <= (this.#newest?.index ?? 0)) return // it took effect elsewhere before
    this.#newest = logged
    this.leaseCounts.views++
    for (const holder of this.#holders.values()) this.#check(holder, logged)
  }

  #check(holder: Holder, { view }: LoggedView): void {
    // One that ended holds nothing, whatever it was promised.
    const isAlive = this.nodes.some(({ name, starts }) => `${name}.${starts}` === holder.member.incarnation)
    if (!isAlive || isIn(view, holder.member)) return
    const leftMs = this.#leaseEndMs(holder) - this.clock.monotonicMs()
    assert(leftMs <= 0, `${holder.member.incarnation} is out of view ${view.epoch} and holds a lease for ${leftMs} ms`)
  }
}

function viewsOf({ index, payload }: Item): LoggedView[] {
  if (payload === 'genesis') return [{ index, view: { epoch: 1, members: [], voters: ['n1'], at: 0 } }]
  return payload.startsWith('{') ? [{ index, view: JSON.parse(payload) as View }] : []
}
