import type { NodeId } from '../order/item.ts'
import type { Member } from './view.ts'

/**
 * Who votes. The more nodes vote, the more of them may be down; but each entry waits for a majority of their disks.
 *
 * 1. Five vote where there are as many nodes that hold data, else three, and two or one only where there are no more. A node that
 *    holds none votes as a stand-in, to make three of two. Two vote where there are two though one could do, so
 *    that the log is on both disks; neither may be down then.
 * 2. They are spread over the zones.
 * 3. They change one at a time (isVoterStep): what is wanted is reached in steps, and each step leaves the cluster able to do
 *    without as many nodes as before, or more.
 * 4. An even number is no better than the odd one below. So one that is away goes on to vote while the number is odd: it
 *    costs nothing, and when it is back it counts, before there is a view with it. Of {a, b, c} with c away
 *    and then back, b may be down.
 * 5. It is replaced when it is away for long and another one can take its place. Without such a one it stays, unless two are
 *    away: the others are better off without both.
 */
export interface VoterSituation {
  /** Of the view to come. */
  members: readonly Member[]
  /** Of the view before. */
  voters: readonly NodeId[]
  draining: ReadonlySet<NodeId>
  /** Members that are about to leave. */
  leaving: ReadonlySet<NodeId>
  /** Voters that have been away for long. */
  overdue: ReadonlySet<NodeId>
}

export const VOTERS_MAX = 5

export const majorityOf = (voters: readonly NodeId[]): number => Math.floor(voters.length / 2) + 1

/** How many more voters may be down; negative when those that are there are no majority. */
export function spareVoters(voters: readonly NodeId[], present: ReadonlySet<NodeId>): number {
  return voters.filter((voter) => present.has(voter)).length - majorityOf(voters)
}

/** The voters of the view to come: those before, or one more, or one less. */
export function nextVoters(situation: VoterSituation): readonly NodeId[] {
  const bench = new Bench(situation)
  return bench.isEven ? evenStep(bench) : oddStep(bench)
}

function evenStep(bench: Bench): readonly NodeId[] {
  const { voters } = bench
  if (bench.weakest !== null) return bench.without(bench.weakest)
  if (voters.length < bench.wanted && bench.candidate) return bench.with(bench.candidate)
  if (voters.length === 2 && bench.wanted >= 2) return voters
  return bench.without(bench.mostCrowded)
}

function oddStep(bench: Bench): readonly NodeId[] {
  const { voters, candidate, weakest } = bench
  const isBetterWithoutTwo = bench.replaceableCount >= 2 && voters.length > bench.wanted
  if (weakest !== null && isBetterWithoutTwo) return bench.without(weakest)
  if (candidate && (voters.length < bench.wanted || bench.isWorthReplacing(candidate))) return bench.with(candidate)
  if (voters.length === 1 || weakest === null) return voters
  return bench.cannotSpareThoseWhoLeave ? bench.without(weakest) : voters
}

class Bench {
  readonly voters: readonly NodeId[]
  /** How many should vote. */
  readonly wanted: number
  /** Who should vote next. */
  readonly candidate: Member | null
  /** The voter to do without, when there is one that is away, or that should not vote. */
  readonly weakest: NodeId | null
  readonly #situation: VoterSituation
  readonly #members: ReadonlyMap<NodeId, Member>

  constructor(situation: VoterSituation) {
    this.#situation = situation
    this.voters = situation.voters
    this.#members = new Map(situation.members.map((member) => [member.node, member]))
    const able = situation.members.filter(({ node }) => !situation.draining.has(node) && !situation.leaving.has(node))
    this.wanted = wantedOf(able)
    const outside = able.filter(({ node }) => !situation.voters.includes(node))
    this.candidate = minimum(outside, (member) => [rankOf(member), this.#crowd(member), member.node])
    this.weakest = minimum(
      this.voters.filter((voter) => this.#isWeak(voter)),
      (voter) => [this.#strength(voter), voter],
    )
  }

  get isEven(): boolean {
    return this.voters.length % 2 === 0
  }

  get cannotSpareThoseWhoLeave(): boolean {
    const { leaving } = this.#situation
    const rest = new Set([...this.#members.keys()].filter((node) => !leaving.has(node)))
    return this.voters.some((voter) => leaving.has(voter)) && spareVoters(this.voters, rest) < 0
  }

  get replaceableCount(): number {
    return this.voters.filter((voter) => this.#isReplaceable(voter)).length
  }

  get mostCrowded(): NodeId {
    return minimum(this.voters, (voter) => [-this.#crowd(this.#members.get(voter)!), voter])!
  }

  isWorthReplacing(candidate: Member): boolean {
    if (this.voters.some((voter) => this.#mustGo(voter))) return true
    if (rankOf(candidate) > 0) return false
    if (this.voters.some((voter) => this.#isNeedlessStandIn(voter))) return true
    const crowds = this.voters.flatMap((voter) => this.#members.get(voter) ?? []).map((voter) => this.#crowd(voter))
    return Math.max(0, ...crowds) - this.#crowd(candidate) >= 2
  }

  with({ node }: Member): readonly NodeId[] {
    return [...this.voters, node]
  }

  without(node: NodeId): readonly NodeId[] {
    return this.voters.filter((voter) => voter !== node)
  }

  /** How many of the voters are in the member's zone. */
  #crowd({ zone }: Member): number {
    return this.voters.filter((voter) => this.#members.get(voter)?.zone === zone).length
  }

  #isWeak(voter: NodeId): boolean {
    return !this.#members.has(voter) || this.#isReplaceable(voter)
  }

  #isReplaceable(voter: NodeId): boolean {
    return this.#mustGo(voter) || this.#isNeedlessStandIn(voter)
  }

  #mustGo(voter: NodeId): boolean {
    const { overdue, leaving, draining } = this.#situation
    const isAway = !this.#members.has(voter)
    return (isAway && overdue.has(voter)) || leaving.has(voter) || draining.has(voter)
  }

  #isNeedlessStandIn(voter: NodeId): boolean {
    const member = this.#members.get(voter)
    if (!member || rankOf(member) === 0) return false
    return this.voters.length > this.wanted || (this.candidate !== null && rankOf(this.candidate) === 0)
  }

  /** The lower, the sooner it goes. */
  #strength(voter: NodeId): number {
    const { overdue, leaving, draining } = this.#situation
    if (!this.#members.has(voter)) return overdue.has(voter) ? 0 : 1
    return leaving.has(voter) ? 2 : draining.has(voter) ? 3 : 4
  }
}

/** Nodes that hold data come before those that do not. */
const rankOf = ({ vnodes }: Member): number => (vnodes > 0 ? 0 : 1)

function wantedOf(able: readonly Member[]): number {
  const holders = able.filter((member) => rankOf(member) === 0).length
  if (holders >= VOTERS_MAX) return VOTERS_MAX
  if (holders >= 3 || (holders > 0 && able.length >= 3)) return 3
  return holders > 0 ? holders : Math.min(able.length, 3)
}

/** The first by what `key` says, compared part by part. */
function minimum<T>(items: readonly T[], key: (item: T) => readonly (number | string)[]): T | null {
  let best: { item: T; key: readonly (number | string)[] } | null = null
  for (const item of items) {
    const own = key(item)
    if (best === null || isBefore(own, best.key)) best = { item, key: own }
  }
  return best?.item ?? null
}

function isBefore(a: readonly (number | string)[], b: readonly (number | string)[]): boolean {
  const at = a.findIndex((part, index) => part !== b[index])
  return at >= 0 && a[at]! < b[at]!
}
