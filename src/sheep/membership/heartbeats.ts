import type { Clock, Timer } from '../../runtime/clock.ts'
import type { NodeId } from '../order/item.ts'
import { type Heartbeat, Lease, LeasePromises } from './lease.ts'
import { SILENT_BEATS, Silence } from './silence.ts'
import type { Life, Member, ViewHistory } from './view.ts'

export interface HeartbeatsOptions {
  node: NodeId
  clock: Clock
  /** Asks another node, on the way that data goes. Whether it promised; rejects when it does not answer. */
  heartbeat(to: Destination, heartbeat: Heartbeat): Promise<boolean>
  /** Resolves when the store's loop, and its journal, have gone on since it was asked. */
  proveStore(): Promise<void>
  /** Views that have taken effect, and those that the log has beyond. */
  history(): ViewHistory
}

export type Destination = Life & Pick<Member, 'address'>

/** Whom to ask in a beat. */
export interface Round {
  life: Life
  appliedIndex: number
  /** An incarnation of this node that is over. */
  ended?: string
  others: readonly Destination[]
  /** This node is one of those to ask. */
  asksItself: boolean
  /** Those that should answer: others need not. */
  expected: ReadonlySet<NodeId>
}

/** How many heartbeats to one node may wait for an answer, and for how long each counts. */
const UNANSWERED_MAX = 2 * SILENT_BEATS
const UNANSWERED_MS = 5000

/**
 * What this node asks others on the way that data goes, and answers them: a lease, promises, and who can be reached. Neither is
 * done while the store stands still: then the node has no lease, and others see that it is silent.
 */
export class Heartbeats {
  readonly #options: HeartbeatsOptions
  readonly #promises: LeasePromises
  #lease = new Lease()
  #beats = 0
  /** When the store was last seen to go on, and what is being waited for. */
  #provedBeat = Number.NEGATIVE_INFINITY
  #proof: Promise<void> | null = null
  readonly #unanswered = new Map<NodeId, Set<Timer>>()
  /** Of those that this node asks, and of those that ask it. */
  readonly #answers = new Silence()
  readonly #asking = new Silence()
  /** The beat in which a node last answered. */
  readonly #reached = new Map<NodeId, number>()
  /** What the data path does not reach, and until which beat that counts. */
  readonly #suspects = new Map<NodeId, number>()
  /** The incarnations of the members. */
  #lives: ReadonlyMap<NodeId, string> = new Map()

  constructor(options: HeartbeatsOptions) {
    this.#options = options
    this.#promises = new LeasePromises(options.clock.monotonicMs())
  }

  /** Another beat. `round` is asked for when the store has gone on. */
  beat(expectedToAsk: ReadonlySet<NodeId>, round: () => Round | null): void {
    this.#beats++
    this.#asking.beat(expectedToAsk)
    for (const [node, untilBeat] of this.#suspects) if (this.#beats >= untilBeat) this.#suspects.delete(node)
    if (this.#proof) return
    void this.#prove().then(
      () => this.#ask(round()),
      () => {}, // the store has failed, and says so elsewhere
    )
  }

  /** A heartbeat has come. Rejects when the store has failed. */
  async answer(heartbeat: Heartbeat, isMember: boolean): Promise<boolean> {
    if (isMember) this.#asking.heard(heartbeat.node)
    await this.#prove()
    return this.#promise(heartbeat)
  }

  suspect(node: NodeId): void {
    this.#suspects.set(node, this.#beats + 2 * SILENT_BEATS)
  }

  /** Whoever comes back does so with a clean slate: else it would be put out again at once. And in another view no request has been lost. */
  viewChanged(members: readonly Life[]): void {
    const lives = new Map(members.map(({ node, incarnation }) => [node, incarnation]))
    for (const [node, incarnation] of lives) {
      if (this.#lives.get(node) === incarnation) continue
      this.#answers.heard(node)
      this.#asking.heard(node)
    }
    this.#suspects.clear()
    this.#lives = lives
  }

  /** Who does not answer, does not ask, or does not do what is asked of it. */
  get accused(): NodeId[] {
    const accused = new Set([...this.#answers.silent, ...this.#asking.silent, ...this.#suspects.keys()])
    accused.delete(this.#options.node)
    return [...accused].sort()
  }

  /** Those of them that are heard all the same. */
  get lost(): NodeId[] {
    const silent = new Set([...this.#answers.silent, ...this.#asking.silent])
    return this.accused.filter((node) => !silent.has(node))
  }

  hasReached(node: NodeId): boolean {
    return this.#beats - (this.#reached.get(node) ?? Number.NEGATIVE_INFINITY) < SILENT_BEATS
  }

  get isStoreWell(): boolean {
    return this.#beats - this.#provedBeat < SILENT_BEATS
  }

  leaseEndMs(voters: readonly NodeId[]): number {
    return this.#lease.endMs(voters)
  }

  /** Until when it must not be said that a log which leads to this history is on the disk. */
  heldUntilMs(history: ViewHistory): number {
    return this.#promises.heldUntilMs(history, this.#options.clock.monotonicMs())
  }

  /** This node goes on under another incarnation: nothing that the one before was promised counts. */
  startAnew(): void {
    this.#lease = new Lease()
    this.#reached.clear()
    this.#suspects.clear()
  }

  #ask(round: Round | null): void {
    if (!round) return
    const { life, appliedIndex, ended, others, asksItself, expected } = round
    const heartbeat: Heartbeat = { ...life, appliedIndex, ...(ended !== undefined && { ended }) }
    this.#answers.beat(expected)
    for (const to of others) void this.#askOne(to, heartbeat)
    if (asksItself && this.#promise(heartbeat))
      this.#lease.answered(this.#options.node, this.#options.clock.monotonicMs())
  }

  async #askOne(to: Destination, heartbeat: Heartbeat): Promise<void> {
    const { clock } = this.#options
    const waiting = this.#unanswered.get(to.node) ?? new Set()
    this.#unanswered.set(to.node, waiting)
    if (waiting.size >= UNANSWERED_MAX) return
    const timer = clock.timer(UNANSWERED_MS, () => waiting.delete(timer))
    waiting.add(timer)
    const lease = this.#lease
    const sentMs = clock.monotonicMs()
    try {
      const isPromised = await this.#options.heartbeat(to, heartbeat)
      this.#answers.heard(to.node)
      this.#reached.set(to.node, this.#beats)
      if (isPromised) lease.answered(to.node, sentMs)
    } catch {
      // Silence is counted.
    } finally {
      timer.cancel()
      waiting.delete(timer)
    }
  }

  /** The store has gone on in this beat, or does now. */
  #prove(): Promise<void> {
    if (this.#beats === this.#provedBeat) return Promise.resolve()
    this.#proof ??= this.#options.proveStore().then(
      () => {
        this.#proof = null
        this.#provedBeat = this.#beats
      },
      (error: unknown) => {
        this.#proof = null
        throw error
      },
    )
    return this.#proof
  }

  #promise(heartbeat: Heartbeat): boolean {
    return this.#promises.answer(heartbeat, this.#options.history(), this.#options.clock.monotonicMs())
  }
}
