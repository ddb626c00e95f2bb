import assert from 'node:assert'
import type { Configuration, MemberId } from '../cluster/group.ts'
import { type Ballot, compareBallots } from './ballot.ts'
import type { Electorate, Item, NodeId, Origin } from './item.ts'
import type { Choice, Message } from './messages.ts'
import { Round } from './round.ts'

/** What of the log a node has on disk, and what it has promised. */
export interface Durable {
  promised: Ballot
  adopted: Ballot
  /** Entries up to here have been cut off: the state that they led to stands for them. */
  baseIndex: number
  /** Those after it. */
  items: readonly Item[]
}

/** A change of what is on disk. Changes are made in order; each is whole or not at all. */
export interface Change {
  promised?: Ballot
  adopted?: Ballot
  /** Entries after this one go, before `append` comes. */
  keepUpTo?: number
  append?: readonly Item[]
  /** The state that another node sent stands for everything up to here; no entry is kept. */
  baseIndex?: number
}

export interface Pending {
  sequence: number
  payload: string
  voters?: readonly NodeId[]
  /** With `voters`: the entry that made the voters what they are. */
  afterIndex?: number
}

export type Event =
  /** `self` is this node's name in the group. */
  | { type: 'configured'; configuration: Configuration; self: MemberId }
  | { type: 'delivered'; sender: MemberId; message: Message }
  /** All changes up to this one are durable. */
  | { type: 'persisted'; change: number }
  | { type: 'fetched'; attempt: number; items: readonly Item[] }
  /** A state in the place of entries that are no longer kept; it has been put in the place of this node's own. */
  | { type: 'installed'; attempt: number; index: number; electorate: Electorate }
  | { type: 'fetchFailed'; attempt: number }
  | { type: 'proposed'; proposal: Pending }
  /** This member does not seem to go on, whatever the group says. */
  | { type: 'doubted'; member: MemberId }
  | { type: 'tick'; nowMs: number }

export type Effect =
  | { type: 'send'; message: Message }
  | { type: 'persist'; number: number; change: Change }
  /** Ask a member for the entries after `afterIndex` of the log that its round's ballot has. */
  | { type: 'fetch'; attempt: number; from: MemberId; ballot: Ballot; afterIndex: number }
  /** The entry is committed: it takes effect, here and everywhere. */
  | { type: 'apply'; item: Item }
  /** Whether the proposal took effect cannot be told any more: the state that was installed may have it. */
  | { type: 'unsure'; sequence: number }
  /** The proposal never takes effect: the voters are not those any more that it was to change. */
  | { type: 'declined'; sequence: number }

export interface MachineOptions {
  node: NodeId
  /** New with every start. */
  life: string
  durable: Durable
  /** The state on this node's disk has the entries up to here; they are committed. */
  appliedIndex: number
  /** Who votes as of `appliedIndex`; none on a node that belongs to no cluster yet. */
  electorate: Electorate | null
  /** Whether voters may follow others; without it, any may. */
  mayFollow?(voters: readonly NodeId[], before: readonly NodeId[]): boolean
}

const NO_ELECTORATE: Electorate = { index: 0, voters: [] }

/** How long members that have not reported are waited for, once those who have are a majority. */
const REPORT_GRACE_MS = 300
/** How long a round may take to become active; twice as long for each round of the configuration, up to the most. */
const ROUND_MS = 2000
const ROUND_MS_MAX = 30_000
const FETCH_PAUSE_MS = 50

/**
 * One node's part in the ordered log of the cluster: what is delivered comes in, what to send and to write goes out. No clock, no
 * disk, no network. It is Viewstamped Replication, whose view changes follow the configurations of the group: see Round.
 *
 * 1. An entry is applied only when a majority of the voters has it on disk, under a ballot that a majority has adopted. Then it
 *    is in the choice of every later round.
 * 2. What the group delivers counts in the round that it was sent in, and nowhere else. So a proposal is in the log once or not
 *    at all, and its sender can tell: in the next round that it is ready in, its log has it or never will.
 * 3. Nothing is said of the disk before it is so: promise, ready and acknowledgement follow the change that they speak of.
 */
export class OrderMachine {
  readonly #node: NodeId
  readonly #life: string
  #promised: Ballot
  #adopted: Ballot
  #baseIndex: number
  #items: Item[]
  /** As of the last entry that is known to be committed. */
  #electorate: Electorate | null
  #appliedIndex: number
  #self: MemberId = ''
  #round: Round | null = null
  /** What of this round's log is in memory, and what of it on disk; -1 until it has been adopted. */
  #heldIndex = -1
  #durableIndex = -1
  #acknowledgedIndex = -1
  /** What is being fetched, and what has come so far of that which will follow the entries in common. */
  #fetch: { attempt: number; afterIndex: number } | null = null
  #fetched: Item[] = []
  #fetchAttempts = 0
  /** As the leader: the last index that has been given to an entry, and what is to be given one. */
  #ledIndex = 0
  /** And the last change of voters that has been given one. */
  #ledElectorate: Electorate = NO_ELECTORATE
  #toLead: (Message & { type: 'propose' })[] = []
  #fetchNotBeforeMs = 0
  #changes = 0
  /** What to say of changes once they are durable. */
  readonly #onDurable = new Map<number, () => void>()
  readonly #pending = new Map<number, Pending & { sentIn: Round | null }>()
  #nowMs = 0
  #waitingSinceMs = 0
  #canChooseSinceMs: number | null = null
  #hasAsked = { choice: false, restart: false }
  #effects: Effect[] = []

  readonly #mayFollow: (voters: readonly NodeId[], before: readonly NodeId[]) => boolean

  constructor({ node, life, durable, appliedIndex, electorate, mayFollow = () => true }: MachineOptions) {
    this.#mayFollow = mayFollow
    this.#node = node
    this.#life = life
    this.#promised = durable.promised
    this.#adopted = durable.adopted
    this.#baseIndex = durable.baseIndex
    this.#items = [...durable.items]
    this.#electorate = electorate
    this.#appliedIndex = appliedIndex
    assert(appliedIndex >= this.#baseIndex && appliedIndex <= this.#lastIndex, 'the state is not of this log')
  }

  /** Whether this node takes part in a log that goes on: what it proposes now will be appended. */
  get isActive(): boolean {
    return this.#round?.isActive === true && this.#acknowledgedIndex >= 0
  }

  get appliedIndex(): number {
    return this.#appliedIndex
  }

  /** Entries of the log that are not applied; some may never be. */
  get unapplied(): readonly Item[] {
    return this.#items.slice(this.#appliedIndex - this.#baseIndex)
  }

  /** Proposals that have not been applied yet. */
  get pendingCount(): number {
    return this.#pending.size
  }

  /**
   * Entries for a member that fetches them: null when this node has not the log of that ballot, 'cut' when it does not keep
   * that old ones any more.
   */
  itemsAfter(ballot: Ballot, index: number): readonly Item[] | 'cut' | null {
    const round = this.#round
    if (!round?.choice || compareBallots(round.choice.ballot, ballot) !== 0 || !this.#hasLogOf(round)) return null
    if (index < this.#baseIndex) return 'cut'
    return this.#items.slice(index - this.#baseIndex)
  }

  /** Entries up to here are applied on disk, and kept no longer. */
  cut(index: number): void {
    assert(index <= this.#appliedIndex, 'only what has been applied is cut off')
    if (index <= this.#baseIndex) return
    this.#items.splice(0, index - this.#baseIndex)
    this.#baseIndex = index
  }

  step(event: Event): Effect[] {
    this.#effects = []
    this.#take(event)
    this.#goOn()
    return this.#effects
  }

  get #lastIndex(): number {
    return this.#baseIndex + this.#items.length
  }

  #take(event: Event): void {
    switch (event.type) {
      case 'configured':
        this.#self = event.self
        return this.#begin(new Round(event.configuration))
      case 'delivered':
        return this.#deliver(event.sender, event.message)
      case 'persisted':
        return this.#persisted(event.change)
      case 'fetched':
        return this.#takeFetched(event.attempt, event.items)
      case 'installed':
        return this.#takeInstalled(event)
      case 'fetchFailed':
        return this.#failFetch(event.attempt)
      case 'proposed':
        this.#pending.set(event.proposal.sequence, { ...event.proposal, sentIn: null })
        return
      case 'doubted':
        return this.#doubt(event.member)
      case 'tick':
        this.#nowMs = event.nowMs
        return this.#watchTime()
    }
  }

  #begin(round: Round): void {
    this.#round = round
    this.#heldIndex = -1
    this.#durableIndex = -1
    this.#acknowledgedIndex = -1
    this.#fetch = null
    this.#fetched = []
    this.#fetchNotBeforeMs = 0
    this.#waitingSinceMs = this.#nowMs
    this.#canChooseSinceMs = null
    this.#hasAsked = { choice: false, restart: false }
    this.#ledIndex = 0
    this.#ledElectorate = NO_ELECTORATE
    this.#toLead = []
    this.#send({
      type: 'report',
      ...this.#place(round),
      node: this.#node,
      promised: this.#promised,
      adopted: this.#adopted,
      lastIndex: this.#lastIndex,
      electorates: this.#electorates(),
    })
  }

  /** The one in force, and the changes that follow in the log. */
  #electorates(): Electorate[] {
    const later = this.#items.flatMap(({ index, voters }) =>
      voters && index > this.#appliedIndex ? [{ index, voters }] : [],
    )
    return this.#electorate ? [this.#electorate, ...later] : later
  }

  #deliver(sender: MemberId, message: Message): void {
    const round = this.#round
    if (!round) return
    const place = 'ballot' in message ? message.ballot : message
    if (place.configuration !== round.configuration.id || place.round !== round.number) return
    if (message.type === 'choice') return round.chosen(message)
    if ('ballot' in message && !round.isOf(message.ballot)) return
    switch (message.type) {
      case 'report':
        return round.report(sender, message)
      case 'restart':
        return this.#begin(round.next())
      case 'promise':
        return round.promise(message.node)
      case 'ready':
        return round.makeReady(sender, message.node, message.index)
      case 'ack':
        return round.acknowledge(message.node, message.index)
      case 'propose':
        if (round.choice?.ballot.leader === this.#self) this.#toLead.push(message)
        return
      case 'decline':
        return this.#declined(message.origin)
      case 'append':
        if (round.append(sender, message.item)) this.#append(round, message.item)
        return
    }
  }

  /** The leader says what the log has next; it may be some entries ahead of what it has been told itself. */
  #lead(round: Round): void {
    if (!this.isActive) return // others may have been ready before
    const { ballot } = round.choice!
    for (const { origin, payload, voters, afterIndex } of this.#toLead.splice(0)) {
      const newest = round.electorates.at(-1)!
      if (newest.index > this.#ledElectorate.index) this.#ledElectorate = newest
      const { index, voters: before } = this.#ledElectorate
      if (voters && (afterIndex !== index || !this.#mayFollow(voters, before))) {
        this.#send({ type: 'decline', ballot, origin })
        continue
      }
      this.#ledIndex = Math.max(this.#ledIndex, round.lastIndex) + 1
      if (voters) this.#ledElectorate = { index: this.#ledIndex, voters }
      this.#send({
        type: 'append',
        ballot,
        item: { index: this.#ledIndex, origin, payload, ...(voters && { voters }) },
      })
    }
  }

  #declined({ life, sequence }: Origin): void {
    if (life === this.#life && this.#pending.delete(sequence)) this.#effects.push({ type: 'declined', sequence })
  }

  /** Who does not have the round's log yet will fetch the entry with the others. */
  #append(round: Round, item: Item): void {
    if (!this.#hasLogOf(round) || item.index <= this.#heldIndex) return
    assert(item.index === this.#heldIndex + 1, 'entries follow each other')
    this.#items.push(item)
    this.#heldIndex = item.index
    this.#persist({ append: [item] }, round, () => {
      this.#durableIndex = item.index
    })
  }

  /** What follows from where things stand, whatever made them so. */
  #goOn(): void {
    const round = this.#round
    if (!round) return
    this.#choose(round)
    this.#promise(round)
    this.#adopt(round)
    this.#acknowledge(round)
    this.#apply(round)
    this.#propose(round)
    this.#lead(round)
  }

  /** The holder of the best log chooses first, others only when it does not. */
  #choose(round: Round): void {
    if (!round.canChoose) return
    this.#canChooseSinceMs ??= this.#nowMs
    const waitedMs = this.#nowMs - this.#canChooseSinceMs
    const patienceMs = round.hasBest(this.#self) ? REPORT_GRACE_MS : 3 * REPORT_GRACE_MS
    const isTime = waitedMs >= patienceMs || (round.hasAllReports && round.hasBest(this.#self))
    if (!isTime || this.#hasAsked.choice) return
    this.#hasAsked.choice = true
    this.#send(round.choose(this.#self))
  }

  #promise(round: Round): void {
    const { choice } = round
    if (!choice || compareBallots(this.#promised, choice.ballot) >= 0) return
    this.#promised = choice.ballot
    this.#persist({ promised: this.#promised }, round, () =>
      this.#send({ type: 'promise', ballot: choice.ballot, node: this.#node }),
    )
  }

  /** Makes the own log equal to the choice, or to what it has become meanwhile. */
  #adopt(round: Round): void {
    const { choice } = round
    if (!choice || !round.isPromised || this.#hasLogOf(round) || this.#fetch || !this.#mayAdopt(choice)) return
    const common = this.#commonIndex(choice)
    const reached = common + this.#fetched.length
    if (reached >= round.lastIndex) return this.#replaceLog(round, choice, common)
    if (this.#nowMs < this.#fetchNotBeforeMs) return
    const sources = round.ready.length > 0 ? round.ready : [choice.source]
    const attempt = ++this.#fetchAttempts
    this.#fetch = { attempt, afterIndex: reached }
    const from = sources[attempt % sources.length]!
    this.#effects.push({ type: 'fetch', attempt, from, ballot: choice.ballot, afterIndex: reached })
  }

  /** Not while it has promised itself to a later ballot; the next round will be above that. */
  #mayAdopt({ ballot }: Choice): boolean {
    return compareBallots(this.#promised, ballot) === 0
  }

  /** Up to where the own log surely is that of the choice: logs adopted under one ballot differ in length only. */
  #commonIndex(choice: Choice): number {
    if (compareBallots(this.#adopted, choice.adopted) !== 0) return this.#appliedIndex
    return Math.max(this.#appliedIndex, Math.min(this.#lastIndex, choice.lastIndex))
  }

  /** In one change: what this log had may count for an earlier ballot until the new one is there. */
  #replaceLog(round: Round, { ballot }: Choice, common: number): void {
    assert(common >= this.#appliedIndex, 'what has been applied is in every choice')
    const append = this.#fetched
    this.#fetched = []
    this.#items.splice(common - this.#baseIndex)
    this.#items.push(...append)
    this.#adopted = ballot
    const index = this.#lastIndex
    this.#heldIndex = index
    this.#persist({ adopted: ballot, keepUpTo: common, append }, round, () => {
      this.#durableIndex = index
      this.#acknowledgedIndex = index
      this.#send({ type: 'ready', ballot, node: this.#node, index })
    })
  }

  #takeFetched(attempt: number, items: readonly Item[]): void {
    if (this.#fetch?.attempt !== attempt) return
    const { afterIndex } = this.#fetch
    this.#fetch = null
    if (items.length === 0) this.#fetchNotBeforeMs = this.#nowMs + FETCH_PAUSE_MS
    assert(
      items.every(({ index }, at) => index === afterIndex + at + 1),
      'fetched entries follow each other',
    )
    this.#fetched.push(...items)
  }

  #failFetch(attempt: number): void {
    if (this.#fetch?.attempt !== attempt) return
    this.#fetch = null
    this.#fetchNotBeforeMs = this.#nowMs + FETCH_PAUSE_MS
  }

  /**
   * The state is of committed entries only, so it counts whatever became of the round. Entries after it stay: they may be
   * what an earlier ballot counts on.
   */
  #takeInstalled({ attempt, index, electorate }: Event & { type: 'installed' }): void {
    if (this.#fetch?.attempt === attempt) this.#fetch = null
    if (index <= this.#appliedIndex) return
    this.#items.splice(0, Math.min(this.#items.length, index - this.#baseIndex))
    this.#baseIndex = index
    this.#appliedIndex = index
    this.#electorate = electorate
    this.#fetched = []
    this.#persist({ baseIndex: index }, null, () => {})
    for (const { sequence, sentIn } of this.#pending.values()) {
      if (!sentIn) continue
      this.#pending.delete(sequence)
      this.#effects.push({ type: 'unsure', sequence })
    }
  }

  #acknowledge(round: Round): void {
    const isReady = this.#acknowledgedIndex >= 0
    if (!isReady || this.#durableIndex <= this.#acknowledgedIndex) return
    this.#acknowledgedIndex = this.#durableIndex
    const counts = round.electorates.some(({ voters }) => voters.includes(this.#node))
    if (counts) this.#send({ type: 'ack', ballot: round.choice!.ballot, node: this.#node, index: this.#durableIndex })
  }

  #apply(round: Round): void {
    const end = Math.min(round.committedIndex, this.#durableIndex)
    while (this.#appliedIndex < end) {
      const item = this.#items[this.#appliedIndex - this.#baseIndex]!
      this.#appliedIndex = item.index
      if (item.voters) this.#electorate = { index: item.index, voters: item.voters }
      if (item.origin.life === this.#life) {
        this.#pending.delete(item.origin.sequence)
        this.#waitingSinceMs = this.#nowMs
      }
      this.#effects.push({ type: 'apply', item })
    }
  }

  /** Once in each round, and only what its log does not have. */
  #propose(round: Round): void {
    if (!this.isActive) return
    for (const proposal of this.#pending.values()) {
      if (proposal.sentIn === round) continue
      proposal.sentIn = round
      const { sequence, payload, voters, afterIndex } = proposal
      const origin = { life: this.#life, sequence }
      const change = voters && afterIndex !== undefined ? { voters, afterIndex } : {}
      if (!this.#hasItem(origin)) this.#send({ type: 'propose', ...this.#place(round), origin, payload, ...change })
    }
  }

  #hasItem({ life, sequence }: Origin): boolean {
    return this.#items.some(({ origin }) => origin.life === life && origin.sequence === sequence)
  }

  #hasLogOf(round: Round): boolean {
    return round === this.#round && this.#heldIndex >= 0
  }

  /** Whoever waits too long for a round that has been chosen asks for another one; and who must not adopt its log, though others have. */
  #watchTime(): void {
    const round = this.#round
    if (!round?.choice) return
    const isLeftOut = !this.#hasLogOf(round) && !this.#mayAdopt(round.choice)
    const isWaiting = !round.isActive || isLeftOut || (this.isActive && this.#pending.size > 0)
    if (!isWaiting) this.#waitingSinceMs = this.#nowMs
    const limitMs = Math.min(ROUND_MS * 2 ** round.number, ROUND_MS_MAX)
    if (this.#nowMs - this.#waitingSinceMs >= limitMs) this.#askForAnother(round)
  }

  #doubt(member: MemberId): void {
    const round = this.#round
    if (round?.choice?.ballot.leader === member && !round.isIndulged(member)) this.#askForAnother(round)
  }

  #askForAnother(round: Round): void {
    if (this.#hasAsked.restart) return
    this.#hasAsked.restart = true
    this.#send({ type: 'restart', ...this.#place(round) })
  }

  /** `then` runs when the change is durable, unless its round is over by then. */
  #persist(change: Change, round: Round | null, then: () => void): void {
    const number = ++this.#changes
    this.#onDurable.set(number, () => {
      if (round === this.#round) then()
    })
    this.#effects.push({ type: 'persist', number, change })
  }

  #persisted(upTo: number): void {
    for (const [number, then] of this.#onDurable) {
      if (number > upTo) return
      this.#onDurable.delete(number)
      then()
    }
  }

  #place({ configuration, number }: Round): { configuration: string; round: number } {
    return { configuration: configuration.id, round: number }
  }

  #send(message: Message): void {
    this.#effects.push({ type: 'send', message })
  }
}
