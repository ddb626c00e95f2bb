import { StoreError } from '../../errors.ts'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import type { Random } from '../../runtime/random.ts'
import type { JoinGroup, MemberId } from '../cluster/group.ts'
import { decodeEntry, encodeEntry } from '../entries.ts'
import type { Item, NodeId } from '../order/item.ts'
import type { OrderedLog } from '../order/ordered-log.ts'
import { type Accusations, judge } from './accusations.ts'
import { type Announcement, decodeAnnouncement, encodeAnnouncement, Roster } from './announcement.ts'
import { ClusterGroup } from './cluster-group.ts'
import { type Destination, Heartbeats, type Round } from './heartbeats.ts'
import type { Heartbeat } from './lease.ts'
import { isUrgent, joinWaitMs, nextView } from './next-view.ts'
import {
  type CopiesChange,
  haveSameLives,
  isIn,
  type Life,
  type LoggedView,
  type Member,
  type View,
  type ViewHistory,
} from './view.ts'
import { ViewOrders } from './view-orders.ts'

/** What of the log is needed here; OrderedLog has it. */
export type MembershipLog = Pick<OrderedLog, 'propose' | 'isActive' | 'unapplied' | 'appliedIndex' | 'doubt'>

export interface MembershipOptions {
  /** This node, as it wants to be in views; looked at again at each beat, since its room may change. */
  self: Omit<Member, 'incarnation'>
  /** The id of the cluster that it belongs to; null when it has to learn that from those who are in the group. */
  cluster: string | null
  /** The views that have taken effect here, in order, as ClusterState has them. */
  views(): readonly LoggedView[]
  /** Asks another node, on the way that data goes. Whether it promised; rejects when it does not answer. */
  heartbeat(to: Destination, heartbeat: Heartbeat): Promise<boolean>
  /** Resolves when the store's loop, and its journal, have gone on since it was asked. */
  proveStore(): Promise<void>
  /** How long a member that is gone keeps its places on the ring. */
  rebalanceDelayMs: number
  clock: Clock
  random: Random
  log: Log
  /** This node goes on under another incarnation, and is to be reached under that and no other. */
  onRenewed(life: Life): void
  /** A view has taken effect here: in order, but when a state was installed, only the last of those that it has. */
  onView(view: View): void
  /** Nothing may be done for clients any more, for now; told within a beat, while `mayAct` says it at once. */
  onLeaseLost(): void
  /** The group has a node that has no place in it; told once of each. It may be this one that has none. */
  onStranger(member: MemberId, reason: string): void
}

const BEAT_MS = 250
/** How long a member that the group has lost may take to come back, in beats. */
const LOST_BEATS = 4
/** For how long requests must have been lost to members that are well before there is another view of the same ones, and how soon it must help. */
const RENEW_BEATS = 2
const RENEWED_BEATS = 16
/** Views wait for more to come in together: until nobody came for a while, but not for ever; and for one after the other. */
const GATHER_BEATS = 2
const GATHER_BEATS_MAX = 8
/** Nodes propose one after the other, those that are thought of first at once. */
const TURN_BEATS = 2
const TURNS_MAX = 10
/** How long a voter may be away before another one takes its place. */
const AWAY_MS = 30_000
/** How often is said again what somebody waits for. */
const REPEAT_BEATS = 4
/** How old the newest view may be that a node knows that comes in. */
const EPOCHS_BEHIND_MAX = 8
/** How long others have to let one leave. */
const LEAVE_MS = 5000

/**
 * One node's part in who is in the cluster. Each node makes out who should be: from the group, which says who is there, and from
 * heartbeats, which say who can be reached where data goes and whose store goes on. Any may propose that as a view; at most one
 * follows each view, by the log. What a node does itself it does by the views that have taken effect, and while it has a lease.
 *
 * 1. A node comes in when it has the log and is answered by all members that are there; so who is put out because one member does not
 *    reach it does not come in as long as that is so. It comes in under a new incarnation each time: one that was put out
 *    is over.
 * 2. A member goes when it has started again, when the group has lost it for a while, when it leaves, or when it does not answer
 *    others (accusations.ts). It is not asked.
 * 3. Those who come wait for each other, and longer the more often they came lately; who goes waits for nobody.
 * 4. Messages of other clusters in the same group are told to nobody (cluster-group.ts).
 */
export class Membership {
  readonly #options: MembershipOptions
  readonly #group: ClusterGroup
  readonly #roster = new Roster()
  readonly #heartbeats: Heartbeats
  #log: MembershipLog | null = null
  #timer: Timer | null = null
  #beats = 0
  #life: Life
  #known: { view: View; life: Life; isMember: boolean } | null = null
  #hadLease = false
  #toldIndex = 0
  /** For how many beats the group has been without a member. */
  readonly #lostBeats = new Map<string, number>()
  readonly #awaySinceMs = new Map<NodeId, number>()
  /** Since when nodes have been gone that keep their places on the ring. */
  readonly #unplacedSinceMs = new Map<NodeId, number>()
  readonly #orders = new ViewOrders()
  /** Since when views are known, of those that have taken effect since the start. */
  readonly #knownSinceMs = new WeakMap<View, number>()
  readonly #startedMs: number
  /** Members that should go, going by what is said; and those of whom that was so a beat ago as well. */
  #blamed: ReadonlySet<NodeId> = new Set()
  #condemned: ReadonlySet<NodeId> = new Set()
  /** For how many beats another view of the same members has been what helps, and when there was one. */
  #renewBeats = 0
  #renewedBeat = Number.NEGATIVE_INFINITY
  #announced = ''
  #mustAnnounce = true
  #isLeaving = false
  #left: (() => void) | null = null
  #isProposing = false
  /** For how many beats another view has been wanted, and since which beat nobody new has come for it. */
  #wantedBeats = 0
  #gatheredBeat = 0
  #comers = ''
  #viewBeat = 0

  constructor(options: MembershipOptions) {
    this.#options = options
    this.#startedMs = options.clock.monotonicMs()
    this.#heartbeats = new Heartbeats({
      node: options.self.node,
      clock: options.clock,
      heartbeat: (to, heartbeat) => options.heartbeat(to, heartbeat),
      proveStore: () => options.proveStore(),
      history: () => this.#history(this.#log?.unapplied ?? []),
    })
    this.#life = this.#newLife()
    this.#group = new ClusterGroup(options.cluster, {
      configured: (configuration) => {
        this.#roster.configured(configuration)
        this.#mustAnnounce = true
        if (this.#log === null) this.#tellOthers(false) // it does not know yet whose group this is
      },
      announced: (sender, message, cluster) => this.#heardOf(sender, message, cluster),
      stranger: (sender, reason) => {
        if (this.#roster.isNewStranger(sender)) options.onStranger(sender, reason)
      },
    })
  }

  /** This start of the node; another one after it was put out. */
  get life(): Life {
    return this.#life
  }

  get cluster(): string | null {
    return this.#group.cluster
  }

  /** The view in effect. */
  get view(): View {
    return this.#current.view
  }

  /** For OrderedLog.open: it joins through this. */
  joining(join: JoinGroup): JoinGroup {
    return this.#group.joining(join)
  }

  /** For the log's `holdMs`. */
  holdMs(unapplied: readonly Item[]): number {
    return this.#heartbeats.heldUntilMs(this.#history(unapplied)) - this.#options.clock.monotonicMs()
  }

  /** The log is there: now it begins. */
  start(log: MembershipLog): void {
    this.#log = log
    this.#tick()
  }

  /** To be called after a view was applied to the state, or a state installed. */
  tookEffect(): void {
    const { index, view } = this.#current
    if (index <= this.#toldIndex) return
    this.#toldIndex = index
    this.#viewBeat = this.#beats
    const before = this.#options.views().at(-2)?.view
    if (before && haveSameLives(before, view)) this.#renewedBeat = this.#beats
    this.#knownSinceMs.set(view, this.#options.clock.monotonicMs())
    this.#heartbeats.viewChanged(view.members)
    this.#renew()
    this.#options.onView(view)
    this.#orders.tookEffect(view)
    if (!isIn(view, this.#life)) this.#left?.()
  }

  /**
   * Whether this node may act for clients at this moment: to be asked when what is to be answered is in hand, on the way out. Never
   * remembered.
   */
  mayAct(): boolean {
    return this.leaseLeftMs() > 0
  }

  leaseLeftMs(): number {
    const { view } = this
    if (this.#isLeaving || !this.#isMemberOf(view)) return 0
    return Math.max(0, this.#heartbeats.leaseEndMs(view.voters) - this.#options.clock.monotonicMs())
  }

  /** As `isIn` of this life, which is asked with every request. */
  #isMemberOf(view: View): boolean {
    const known = this.#known
    if (known?.view === view && known.life === this.#life) return known.isMember
    const isMember = isIn(view, this.#life)
    this.#known = { view, life: this.#life, isMember }
    return isMember
  }

  /** A heartbeat has come over a peer link: whether to promise. */
  async answer(heartbeat: Heartbeat): Promise<boolean> {
    if (this.#log === null) return false
    return this.#heartbeats.answer(heartbeat, isIn(this.view, heartbeat))
  }

  /**
   * A member does not answer requests, though it may answer heartbeats. Holds for a while; to be said again if it goes on. Of a life that
   * is over it says nothing, and neither does one that is out: links of both have just been ended.
   */
  suspect(life: Life): void {
    if (isIn(this.view, this.#life) && isIn(this.view, life)) this.#heartbeats.suspect(life.node)
  }

  // What operators ask for. Rejects with Unsure when this node is put out, or stops, before that has taken effect.

  /** Node `node` is to hold nothing any more, or shall again. Resolves when that has taken effect here. */
  drain(node: NodeId, isDraining = true): Promise<void> {
    const settled = this.#orders.drain(node, isDraining)
    this.#orders.tookEffect(this.view) // it may be so
    return settled
  }

  /** Node `node` is gone for good: it is put out, and never comes in again. Resolves when that has taken effect here. */
  remove(node: NodeId): Promise<void> {
    return this.view.removed?.includes(node) ? Promise.resolve() : this.#orders.remove(node)
  }

  /** A VDI is to have another number of copies. Resolves when that has taken effect here; the copies are made, or go, after that. */
  alterCopies(change: CopiesChange): Promise<void> {
    return this.#orders.alterCopies(change)
  }

  /** How long a node that is gone keeps its places on the ring from now on; null when it has none. */
  keepsPlacesForMs(node: NodeId): number | null {
    const sinceMs = this.#unplacedSinceMs.get(node)
    if (sinceMs === undefined) return null
    const { clock, rebalanceDelayMs } = this.#options
    return Math.max(0, sinceMs + rebalanceDelayMs - clock.monotonicMs())
  }

  /**
   * Acts no more, and resolves when there is a view without this node, or when there is to be none: it is the last one, it has no
   * log that goes on, or it takes the others too long.
   */
  async leave(): Promise<void> {
    this.#isLeaving = true
    this.#mustAnnounce = true
    const isLast = this.view.members.length === 1
    if (!this.#log?.isActive || !isIn(this.view, this.#life) || isLast) return
    await new Promise<void>((resolve) => {
      this.#left = resolve
      this.#options.clock.timer(LEAVE_MS, resolve)
    })
  }

  stop(): void {
    this.#timer?.cancel()
    this.#timer = null
    this.#log = null
    this.#orders.end()
  }

  /** What a member of the group has said of itself: which node it is, and where that is reached. */
  nodeOf(member: MemberId): Announcement | null {
    return this.#roster.get(member)
  }

  get #current(): LoggedView {
    return this.#options.views().at(-1)!
  }

  #newLife(): Life {
    return { node: this.#options.self.node, incarnation: this.#options.random.bytes(8).toString('hex') }
  }

  /** Views that have taken effect, and those that the log has beyond. */
  #history(unapplied: readonly Item[]): ViewHistory {
    const views = this.#options.views()
    const later = unapplied.flatMap(viewOf).filter(({ index }) => index > views.at(-1)!.index)
    return { views: [...views, ...later], appliedIndex: this.#log?.appliedIndex ?? this.#current.index }
  }

  /**
   * Who is put out comes back as somebody else; and already while the log is about to put it out. The others need not wait then
   * for what they have promised. But they have to reach it, or nobody fetches the entry that puts it out from one that has it alone.
   */
  #renew(): void {
    const { views } = this.#history(this.#log?.unapplied ?? [])
    const wasIn = views.some(({ view }) => isIn(view, this.#life))
    if (this.#isLeaving || !wasIn || isIn(views.at(-1)!.view, this.#life)) return
    this.#options.log.warn({ epoch: this.view.epoch }, 'this node is put out of the cluster, and comes back')
    this.#tellLease()
    this.#life = this.#newLife()
    this.#heartbeats.startAnew()
    this.#orders.end()
    this.#options.onRenewed(this.#life)
  }

  // Each beat.

  #tick(): void {
    if (this.#log === null) return
    this.#timer = this.#options.clock.timer(BEAT_MS, () => this.#tick())
    this.#beats++
    this.#renew()
    const log = this.#log
    this.#heartbeats.beat(this.#expectedToAsk, () => (this.#log === log ? this.#roundOf(log) : null))
    this.#listen(this.#log)
    this.#tellLease()
    this.#announce(this.#log)
    this.#think(this.#log)
  }

  #tellLease(): void {
    const mayAct = this.mayAct()
    if (this.#hadLease && !mayAct) this.#options.onLeaseLost()
    this.#hadLease = mayAct
  }

  /** A member asks the voters; who is none asks all members that are there, to know whether it may come in. */
  #roundOf(log: MembershipLog): Round {
    const { view } = this
    const { node: self, incarnation } = this.#life
    const present = this.#roster.present
    const members = new Map(view.members.map((member) => [member.node, member]))
    const asked = isIn(view, this.#life) ? view.voters : [...members.keys()].filter((node) => present.has(node))
    const others = asked.filter((node) => node !== self)
    const before = members.get(self)?.incarnation
    const ended = this.#isLeaving ? incarnation : before === incarnation ? undefined : before
    return {
      life: this.#life,
      appliedIndex: log.appliedIndex,
      ...(ended !== undefined && { ended }),
      others: others.flatMap((node) => present.get(node) ?? members.get(node) ?? []),
      asksItself: asked.includes(self),
      expected: new Set(others.filter((node) => members.has(node))),
    }
  }

  /** To a voter all members send heartbeats. */
  get #expectedToAsk(): ReadonlySet<NodeId> {
    const { members, voters } = this.view
    const { node: self } = this.#life
    return new Set(voters.includes(self) ? members.map(({ node }) => node).filter((node) => node !== self) : [])
  }

  // Who is there.

  #heardOf(sender: MemberId, message: Buffer, cluster: string | null): void {
    let announcement: Announcement
    try {
      announcement = decodeAnnouncement(message)
    } catch (err) {
      this.#options.log.error({ err, sender }, 'a node says something of itself that is not understood')
      return
    }
    this.#roster.told(sender, announcement)
    if (cluster !== null && this.#group.cluster === null) {
      this.#options.log.info({ cluster }, 'this node belongs to a cluster from now on')
      this.#group.adopt(cluster)
    }
  }

  #listen(log: MembershipLog): void {
    const { view } = this
    this.#judge(log, view)
    const present = this.#roster.present
    for (const member of view.members) {
      const key = `${member.node} ${member.incarnation}`
      const isThere = !this.#roster.isComplete || isIn({ ...view, members: [...present.values()] }, member)
      this.#lostBeats.set(key, isThere ? 0 : (this.#lostBeats.get(key) ?? 0) + 1)
    }
    for (const key of this.#lostBeats.keys())
      if (!view.members.some(({ node, incarnation }) => key === `${node} ${incarnation}`)) this.#lostBeats.delete(key)
    this.#countAway(view)
  }

  #judge(log: MembershipLog, view: View): void {
    const present = this.#roster.present
    const { accused: accuses, lost } = this.#heartbeats
    const own = { ...this.#life, epoch: view.epoch, accuses, lost }
    const { blamed, mayGo, renews } = judge(
      view,
      [...present.keys()],
      [...present.values(), own].map((told) => [told.node, this.#accusationsOf(told, view)]),
      this.#beats - this.#renewedBeat < RENEWED_BEATS,
    )
    // What others have to say a beat later may put it right.
    this.#condemned = new Set(mayGo.filter((node) => this.#blamed.has(node)))
    this.#blamed = blamed
    this.#renewBeats = renews ? this.#renewBeats + 1 : 0
    // Should one of them lead the log, nothing would take effect until the group has lost it, which may be never. One that has started again
    // since is not meant.
    const lives = view.members.filter(({ node }) => blamed.has(node))
    for (const member of this.#roster.membersOf(lives)) log.doubt(member)
  }

  #accusationsOf({ accuses, lost, epoch }: Pick<Announcement, 'accuses' | 'lost' | 'epoch'>, view: View): Accusations {
    return {
      silent: accuses.filter((node) => !lost.includes(node) && epoch >= this.#cameInAt(view, node)),
      lost: epoch === view.epoch ? lost : [],
    }
  }

  /** The epoch in which this life of a member came in: what was said before that was said of another one. */
  #cameInAt(view: View, node: NodeId): number {
    const member = view.members.find((one) => one.node === node)
    const first = member && this.#options.views().find((logged) => isIn(logged.view, member))
    return first?.view.epoch ?? 0
  }

  #countAway(view: View): void {
    const nowMs = this.#options.clock.monotonicMs()
    const away = view.voters.filter((voter) => !view.members.some(({ node }) => node === voter))
    for (const node of this.#awaySinceMs.keys()) if (!away.includes(node)) this.#awaySinceMs.delete(node)
    for (const node of away) if (!this.#awaySinceMs.has(node)) this.#awaySinceMs.set(node, nowMs)
    const unplaced = view.away?.map(({ node }) => node) ?? []
    for (const node of this.#unplacedSinceMs.keys()) if (!unplaced.includes(node)) this.#unplacedSinceMs.delete(node)
    for (const node of unplaced) if (!this.#unplacedSinceMs.has(node)) this.#unplacedSinceMs.set(node, nowMs)
  }

  #announce(log: MembershipLog): void {
    const isReady = this.#isReady(log)
    const waits = !isIn(this.view, this.#life) || this.#heartbeats.accused.length > 0 || this.#isLeaving
    if (waits && this.#beats % REPEAT_BEATS === 0) this.#mustAnnounce = true
    this.#tellOthers(isReady)
  }

  /** Says what is new, or everything again when it must. */
  #tellOthers(isReady: boolean): void {
    const { self } = this.#options
    const { accused: accuses, lost } = this.#heartbeats
    const told = { ...self, ...this.#life, isReady, isLeaving: this.#isLeaving, accuses, lost }
    const text = JSON.stringify(told)
    if (!this.#mustAnnounce && text === this.#announced) return
    this.#mustAnnounce = false
    this.#announced = text
    this.#group.announce(encodeAnnouncement({ ...told, epoch: this.view.epoch }))
  }

  #isReady(log: MembershipLog): boolean {
    const { view } = this
    if (isIn(view, this.#life)) return true
    const present = this.#roster.present
    const isAnswered = view.members.every((member) => {
      const isThere = present.get(member.node)?.incarnation === member.incarnation
      return !isThere || this.#heartbeats.hasReached(member.node)
    })
    return log.isActive && isAnswered && this.#heartbeats.isStoreWell
  }

  // Views.

  /** Makes out which view should follow, and proposes it when it is this node's turn. */
  #think(log: MembershipLog): void {
    const base = this.#history(log.unapplied).views.at(-1)!
    const next = log.isActive && base.view.epoch > 0 ? this.#nextView(base) : null
    const comers = next?.members.filter((member) => !isIn(base.view, member)).map(({ node }) => node) ?? []
    if (comers.join() !== this.#comers) this.#gatheredBeat = this.#beats
    this.#comers = comers.join()
    this.#wantedBeats = next ? this.#wantedBeats + 1 : 0
    if (next === null || this.#isProposing) return
    const isRipe =
      this.#beats - this.#gatheredBeat >= GATHER_BEATS ||
      this.#wantedBeats > GATHER_BEATS_MAX ||
      isUrgent(base.view, next)
    const hasRested = this.#beats - this.#viewBeat >= GATHER_BEATS || isUrgent(base.view, next)
    if (isRipe && hasRested && this.#wantedBeats > this.#turn * TURN_BEATS) void this.#propose(log, base, next)
  }

  #nextView({ index, view: base }: LoggedView): View | null {
    const { clock } = this.#options
    const present = this.#roster.present
    const now = clock.now()
    const views = this.#options.views()
    const knownForMs = (view: View) => clock.monotonicMs() - (this.#knownSinceMs.get(view) ?? this.#startedMs)
    return nextView({
      base,
      present,
      lost: new Set(base.members.filter((member) => this.#isLost(member)).map(({ node }) => node)),
      // `base` may be about to take effect, with another life of one of them.
      condemned: new Set(
        this.view.members
          .filter((member) => this.#condemned.has(member.node) && isIn(base, member))
          .map(({ node }) => node),
      ),
      renews: this.#renewBeats >= RENEW_BEATS,
      isInEffect: index === this.#current.index,
      overdue: new Set(
        [...this.#awaySinceMs].filter(([, sinceMs]) => clock.monotonicMs() - sinceMs >= AWAY_MS).map(([node]) => node),
      ),
      admits: (told) =>
        told.epoch >= base.epoch - EPOCHS_BEHIND_MAX &&
        !views.some(({ view }) => isIn(view, told)) &&
        joinWaitMs(views, told.node, now, knownForMs) === 0,
      drains: this.#orders.drains,
      removals: this.#orders.removals,
      copies: this.#orders.copies,
      keepsPlaces: (node) => this.#options.rebalanceDelayMs > 0 && this.keepsPlacesForMs(node) !== 0,
      now,
    })
  }

  #isLost({ node, incarnation }: Life): boolean {
    return (this.#lostBeats.get(`${node} ${incarnation}`) ?? 0) >= LOST_BEATS
  }

  /** How many others should propose before this node does. Who is accused by those who are to go themselves does not wait for that. */
  get #turn(): number {
    if (!this.#orders.isEmpty || this.#isLeaving) return 0
    const { view } = this
    const [members, others] = [true, false].map((isMember) =>
      [...this.#roster.present.values()]
        .filter((told) => isIn(view, told) === isMember && !this.#blamed.has(told.node))
        .map(({ node }) => node)
        .sort(),
    )
    const turn = [...members!, ...others!].indexOf(this.#life.node)
    return Math.min(turn < 0 ? TURNS_MAX : turn, TURNS_MAX)
  }

  /** Another view may have come first: then this one is void. */
  async #propose(log: MembershipLog, base: LoggedView, next: View): Promise<void> {
    const { log: diary } = this.#options
    this.#isProposing = true
    this.#wantedBeats = 0
    try {
      await log.propose(encodeEntry({ type: 'view', ...next }).toString(), {
        voters: next.voters,
        afterIndex: base.index,
      })
    } catch (err) {
      if (!(err instanceof StoreError)) throw err
      diary.debug({ err, epoch: next.epoch }, 'a view did not take effect')
    } finally {
      this.#isProposing = false
    }
  }
}

const decoded = new WeakMap<Item, LoggedView[]>()

/** The view that an entry of the log makes; each is asked for at every heartbeat. */
function viewOf(item: Item): LoggedView[] {
  const known = decoded.get(item)
  if (known) return known
  const views = item.voters ? decodeView(item) : []
  decoded.set(item, views)
  return views
}

function decodeView({ index, payload }: Item): LoggedView[] {
  const entry = decodeEntry(Buffer.from(payload))
  if (entry.type !== 'view') return []
  const { type: _type, index: _index, ...view } = entry
  return [{ index, view }]
}
