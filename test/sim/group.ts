import assert from 'node:assert'
import type { Clock } from '../../src/runtime/clock.ts'
import { type Group, type GroupListener, MESSAGE_BYTES_MAX, type MemberId } from '../../src/sheep/cluster/group.ts'
import type { SimClock } from './clock.ts'
import type { SeededRandom } from './random.ts'

export interface SimGroupOptions {
  /** Who has a vote. Without it `quorate` is never called. */
  readonly votes?: readonly string[]
  /** How long a message takes to be ordered, and again to be told to each member. */
  readonly latencyMsMax?: number
  /** How long a cut or the end of a process may go unnoticed. */
  readonly detectionMsMax?: number
  /** How long a configuration takes when somebody joins or leaves, or a cut heals. */
  readonly changeMsMax?: number
  /** The probability, for each message that is on its way when the configuration changes, that it is lost. */
  readonly loss?: number
}

const DEFAULTS: Required<Omit<SimGroupOptions, 'votes'>> = {
  latencyMsMax: 5,
  detectionMsMax: 3000,
  changeMsMax: 200,
  loss: 0.5,
}

/** What a member is going to be told. Numbers grow over the whole group. */
interface News {
  readonly number: number
  tell(listener: GroupListener): void
}

/**
 * Members that are in one configuration and reach each other. Those that a cut parts are in two of these at once, with the
 * configuration that they had, until they learn of it.
 */
interface Branch {
  members: Member[]
  /** The members that the last configuration names. */
  configured: readonly Member[]
  /** The number of the last configuration. What was told or came before it cannot be lost any more. */
  readonly configurationNumber: number
}

interface Member {
  readonly id: MemberId
  readonly node: string
  readonly listener: GroupListener
  branch: Branch | null
  isJoined: boolean
  /** For the others it is a member no more, or will not be as soon as they know. */
  isGone: boolean
  outbox: Buffer[]
  inbox: News[]
  votes: boolean[]
  lastVote: boolean | null
  toldNumber: number
  left: (() => void)[]
}

/**
 * A membership engine in virtual time that promises what `src/sheep/cluster/group.ts` says and not a bit more:
 *
 * - nothing is durable, and no member knows what the others have been told;
 * - a cut goes unnoticed for a while, in which each side goes on in the old configuration and is told its own messages, which the
 *   other side never is; then each side is told a configuration of its own, and after a heal a common one;
 * - of the messages that nobody of a side has been told when its configuration changes, any number of the last ones is lost on
 *   that side, and any of those that were not ordered yet;
 * - members are told the same things at different times;
 * - `quorate` is told at any time before or after the configuration;
 * - a member whose process is stopped stays in, and is told all of it, late, when it goes on;
 * - a process that is killed stays in until that is noticed, and comes back as another member.
 *
 * It keeps the messages of one sender in order, as both real engines do. What it calls, it calls from an event of the clock.
 */
export class SimGroup {
  readonly #clock: Clock
  readonly #random: SeededRandom
  readonly #options: Required<Omit<SimGroupOptions, 'votes'>>
  readonly #votes: ReadonlySet<string>
  /** As the others see it: has those that are gone until a configuration says so. */
  readonly #members = new Set<Member>()
  /** As the processes see it: those that something may still be told to. */
  readonly #listening = new Set<Member>()
  readonly #starts = new Map<string, number>()
  readonly #stopped = new Set<string>()
  /** The sides of the cut; whoever is on none is alone. Null while all reach each other. */
  #sides: readonly ReadonlySet<string>[] | null = null
  #topology = 0
  #lastNumber = 0

  constructor(clock: SimClock, random: SeededRandom, { votes = [], ...options }: SimGroupOptions = {}) {
    this.#clock = clock.node().mount() // the engine outlives every process that uses it
    this.#random = random
    this.#votes = new Set(votes)
    this.#options = { ...DEFAULTS, ...options }
  }

  /** Joins the process that runs on a node. The node's name shows in the member's id, for those who read traces. */
  async join(node: string, listener: GroupListener): Promise<Group> {
    const start = (this.#starts.get(node) ?? 0) + 1
    this.#starts.set(node, start)
    const member: Member = {
      id: `${node}#${start}`,
      node,
      listener,
      branch: null,
      isJoined: false,
      isGone: false,
      outbox: [],
      inbox: [],
      votes: [],
      lastVote: null,
      toldNumber: 0,
      left: [],
    }
    this.#members.add(member)
    this.#listening.add(member)
    await new Promise<void>((resolve) => this.#after(this.#options.latencyMsMax, resolve))
    if (member.isGone) throw new Error(`the process or the engine on ${node} has ended`)
    member.isJoined = true
    this.#change(this.#sideOf(node), this.#options.changeMsMax)
    return {
      self: member.id,
      send: (message) => this.#send(member, Buffer.from(message)),
      leave: () => this.#leave(member),
    }
  }

  /** From now on only those in the same list reach each other; a node in none of them is alone. Nobody knows yet. */
  partition(sides: readonly (readonly string[])[]): void {
    this.#cut(sides.map((side) => new Set(side)))
  }

  /** All reach each other again; that they have a common configuration takes a while. */
  heal(): void {
    this.#cut(null)
  }

  /** The process on the node stands still. For the others it goes on being a member. */
  stop(node: string): void {
    this.#stopped.add(node)
  }

  /** The process goes on: it is told what it missed, and acts on it. */
  resume(node: string): void {
    this.#stopped.delete(node)
    for (const member of this.#listeningOn(node)) {
      for (const _news of member.inbox) this.#tellLater(member)
      for (const _vote of member.votes) this.#voteLater(member)
    }
  }

  /** The process on the node has ended. What it sent may still be on its way. The others learn of it later. */
  kill(node: string): void {
    this.#stopped.delete(node)
    for (const member of this.#listeningOn(node)) this.#end(member)
    this.#change(this.#sideOf(node), this.#options.detectionMsMax)
  }

  /** The engine on the node has come to its end, not the process that uses it. */
  lose(node: string): void {
    const reason = new Error(`the engine on ${node} has ended`)
    for (const member of this.#listeningOn(node)) {
      this.#end(member)
      if (!member.isJoined) continue // its `join` says so
      this.#listening.add(member)
      const tell = (listener: GroupListener) => {
        this.#listening.delete(member)
        listener.lost(reason)
      }
      member.inbox.push({ number: member.toldNumber, tell })
      this.#tellLater(member)
    }
    this.#change(this.#sideOf(node), this.#options.detectionMsMax)
  }

  #listeningOn(node: string): Member[] {
    return [...this.#listening].filter((member) => member.node === node)
  }

  /** Within the time given, as an event of its own. */
  #after(delayMsMax: number, act: () => void): void {
    this.#clock.timer(this.#random.next() * delayMsMax, act)
  }

  // Who reaches whom.

  #sideOf(node: string): string {
    const index = this.#sides?.findIndex((side) => side.has(node)) ?? 0
    return index === -1 ? `alone: ${node}` : `side ${index}`
  }

  #cut(sides: readonly ReadonlySet<string>[] | null): void {
    this.#sides = sides
    this.#topology++
    for (const branch of this.#branches()) this.#fork(branch)
    for (const side of this.#allSides()) {
      this.#change(side, sides === null ? this.#options.changeMsMax : this.#options.detectionMsMax)
      this.#countVotes(side)
    }
  }

  #branches(): Branch[] {
    return [...new Set([...this.#members].flatMap(({ branch }) => branch ?? []))]
  }

  #allSides(): string[] {
    return [...new Set([...this.#members].map(({ node }) => this.#sideOf(node)))]
  }

  /** The members of a branch that do not reach each other any more go on apart, with the configuration that they had. */
  #fork(branch: Branch): void {
    for (const side of this.#allSides()) {
      const part = { ...branch, members: branch.members.filter(({ node }) => this.#sideOf(node) === side) }
      if (part.members.length === branch.members.length) return
      for (const member of part.members) member.branch = part
    }
  }

  #countVotes(side: string): void {
    const votes = [...this.#votes].filter((node) => this.#sideOf(node) === side).length
    for (const member of this.#members) {
      const isQuorate = 2 * votes > this.#votes.size
      if (this.#votes.size === 0 || member.isGone || this.#sideOf(member.node) !== side) continue
      if (member.lastVote === isQuorate) continue
      member.lastVote = isQuorate
      member.votes.push(isQuorate)
      this.#voteLater(member)
    }
  }

  /** In order among each other, but not with the configurations. */
  #voteLater(member: Member): void {
    this.#after(this.#options.detectionMsMax, () => {
      if (this.#stopped.has(member.node)) return
      const vote = member.votes.shift()
      if (vote !== undefined) member.listener.quorate(vote)
    })
  }

  // Configurations.

  /** Something has changed on a side: within the time given, its members are told a configuration. */
  #change(side: string, withinMs: number): void {
    const topology = this.#topology
    this.#after(withinMs, () => {
      if (topology === this.#topology) this.#configure(side)
    })
  }

  #configure(side: string): void {
    const members = [...this.#members].filter(({ node }) => this.#sideOf(node) === side)
    const present = members.filter(({ isJoined, isGone }) => isJoined && !isGone)
    const branches = this.#branches().filter((branch) => members.includes(branch.members[0]!))
    const isSettled = branches.length === 1 && sameMembers(branches[0]!.configured, present)
    if (!isSettled) {
      for (const branch of branches) {
        this.#loseMessages(branch)
        // Sides that were apart with one configuration, and have been told different things in it, must not go on to the same.
        const isPart = branches.length > 1 && branch.members.length < branch.configured.length
        if (isPart) this.#tellConfiguration(branch.members.filter(({ isGone }) => !isGone))
      }
      this.#tellConfiguration(present)
    }
    for (const member of members.filter(({ isGone }) => isGone)) this.#forget(member)
    this.#countVotes(side)
  }

  #tellConfiguration(members: readonly Member[]): void {
    if (members.length === 0) return
    const number = ++this.#lastNumber
    const branch: Branch = { members: [...members], configured: members, configurationNumber: number }
    const configuration = { id: `configuration ${number}`, members: members.map(({ id }) => id).sort() }
    for (const member of members) {
      member.branch = branch
      this.#push(member, { number, tell: (listener) => listener.configured(configuration) })
    }
  }

  /**
   * Of what nobody in the branch has been told, a random number of the last messages: the same for all of them, so that they
   * have been told the same when they go on together.
   */
  #loseMessages(branch: Branch): void {
    const living = branch.members.filter(({ isGone }) => !isGone)
    const keptMin = Math.max(branch.configurationNumber, ...living.map(({ toldNumber }) => toldNumber))
    const losable = new Set(living.flatMap(({ inbox }) => inbox.map(({ number }) => number)).filter((n) => n > keptMin))
    const ordered = [...losable].sort((a, b) => a - b)
    let kept = ordered.length
    while (kept > 0 && this.#random.chance(this.#options.loss)) kept--
    const lastKept = ordered[kept - 1] ?? keptMin
    for (const member of living) {
      member.inbox = member.inbox.filter(({ number }) => number <= lastKept)
      member.outbox = member.outbox.filter(() => !this.#random.chance(this.#options.loss))
    }
  }

  #forget(member: Member): void {
    this.#members.delete(member)
    member.branch = null
    for (const resolve of member.left) resolve()
  }

  // Messages.

  #send(member: Member, message: Buffer): void {
    assert(message.length <= MESSAGE_BYTES_MAX) // a real engine would lose it without a word
    if (member.isGone) return
    member.outbox.push(message)
    this.#after(this.#options.latencyMsMax, () => this.#order(member))
  }

  #order(sender: Member): void {
    const message = sender.outbox.shift()
    if (message === undefined || sender.branch === null) return
    const number = ++this.#lastNumber
    for (const member of sender.branch.members) {
      this.#push(member, {
        number,
        tell: (listener) => listener.delivered(sender.id, Buffer.from(message)),
      })
    }
  }

  #push(member: Member, news: News): void {
    if (member.isGone) return
    member.inbox.push(news)
    this.#tellLater(member)
  }

  #tellLater(member: Member): void {
    this.#after(this.#options.latencyMsMax, () => {
      if (this.#stopped.has(member.node)) return
      const news = member.inbox.shift()
      if (news === undefined) return
      member.toldNumber = news.number
      news.tell(member.listener)
    })
  }

  #leave(member: Member): Promise<void> {
    if (!this.#members.has(member)) return Promise.resolve()
    const left = new Promise<void>((resolve) => member.left.push(resolve))
    if (!member.isGone) this.#change(this.#sideOf(member.node), this.#options.changeMsMax)
    this.#end(member)
    return left
  }

  #end(member: Member): void {
    member.isGone = true
    this.#listening.delete(member)
    member.inbox = []
    member.votes = []
  }
}

function sameMembers(a: readonly Member[], b: readonly Member[]): boolean {
  return a.length === b.length && a.every((member) => b.includes(member))
}
