import type { Configuration, MemberId } from '../cluster/group.ts'
import { type Ballot, compareBallots } from './ballot.ts'
import { type Electorate, type Item, isMajority, type NodeId } from './item.ts'
import type { Choice, Report } from './messages.ts'

/**
 * One attempt of a configuration's members to go on with the log, as far as one of them was told. Others may have been told
 * something else: those that a cut has parted, in the same configuration still. So nothing here rests on that; what
 * counts is what nodes have said of their own disks, which is true for whoever hears it.
 *
 * 1. Each member reports what it has. Whoever sees that those who have are a majority may choose the best log, and leads from
 *    then on, under a ballot above all that they had promised. The first choice that a member is told is the one it goes by.
 * 2. Those who had reported promise, on disk, to take part in no earlier ballot. What an earlier one may have committed is in
 *    the choice: a majority had it before it reported, or else it will now refuse to.
 * 3. With a majority of promises the choice may be adopted. Who has made its log equal to it, on disk, is ready.
 * 4. With a majority that is ready the round is active: all of the choice is committed. What the log has next, the leader says,
 *    and nobody else; so logs that were adopted under one ballot differ in length only.
 * 5. An entry is committed when a majority has it on disk.
 * 6. What is chosen may be of no use, because nobody can fetch it from who has it, or he does not go on. So those who led the rounds
 *    before, in the same configuration, are left out of what is chosen from, as far as the others are enough: as if they had not reported.
 */
export class Round {
  readonly configuration: Configuration
  readonly number: number
  readonly #failed: readonly MemberId[]
  readonly #reports = new Map<MemberId, Report>()
  readonly #promised = new Set<NodeId>()
  /** Of those that are ready: how far they have the log on disk. */
  readonly #held = new Map<NodeId, number>()
  readonly #ready: MemberId[] = []
  #electorates: readonly Electorate[] = []
  #choice: Choice | null = null
  isPromised = false
  isActive = false
  /** Where the log ends, and how far it is known to be committed. */
  lastIndex = 0
  committedIndex = 0

  /** `failed`: those who led the last rounds before this one, none of which came to anything, the latest last. */
  constructor(configuration: Configuration, number = 0, failed: readonly MemberId[] = []) {
    this.configuration = configuration
    this.number = number
    this.#failed = failed
  }

  /** The attempt that follows when this one is given up. */
  next(): Round {
    const failed = this.#choice ? [this.#choice.source, this.#choice.ballot.leader] : []
    const before = this.isActive ? [] : this.#failed.filter((member) => !failed.includes(member))
    return new Round(this.configuration, this.number + 1, [...before, ...failed])
  }

  /** Whether it leads although others have tried to do without it, and may yet come to something. */
  isIndulged(member: MemberId): boolean {
    return !this.isActive && this.#failed.includes(member)
  }

  get choice(): Choice | null {
    return this.#choice
  }

  /** Those that may say how the log goes on: the one in force, and changes that follow. */
  get electorates(): readonly Electorate[] {
    return this.#electorates
  }

  /** Members that have the log of this round. */
  get ready(): readonly MemberId[] {
    return this.#ready
  }

  get hasAllReports(): boolean {
    return this.configuration.members.every((member) => this.#reports.has(member))
  }

  /** Whether those who have reported may choose. */
  get canChoose(): boolean {
    return this.#choice === null && this.#isEnough(this.#counted())
  }

  report(member: MemberId, report: Report): void {
    this.#reports.set(member, report)
  }

  /** What this member would choose; a member that has the best log itself should, since it can go on at once. */
  choose(leader: MemberId): Choice {
    const counted = this.#counted()
    const [source, { adopted, lastIndex }] = bestOf(counted)!
    const counter = 1 + Math.max(...[...this.#reports.values()].map(({ promised }) => promised.counter))
    return {
      type: 'choice',
      ballot: { counter, configuration: this.configuration.id, round: this.number, leader },
      reporters: [...reportersOf(counted)],
      source,
      adopted,
      lastIndex,
      electorates: this.#deciding(counted),
    }
  }

  hasBest(member: MemberId): boolean {
    const counted = this.#counted()
    const own = counted.get(member)
    const best = bestOf(counted)?.[1]
    return !!own && !!best && compareBallots(own.adopted, best.adopted) === 0 && own.lastIndex === best.lastIndex
  }

  /** The reports to choose from: of those whose rounds came to nothing only as many as the others cannot do without, the earliest first. */
  #counted(): Reports {
    for (let from = 0; from < this.#failed.length; from++) {
      const without = new Set(this.#failed.slice(from))
      const rest = new Map([...this.#reports].filter(([member]) => !without.has(member)))
      if (this.#isEnough(rest)) return rest
    }
    return this.#reports
  }

  #isEnough(reports: Reports): boolean {
    return isMajority(reportersOf(reports), this.#deciding(reports))
  }

  /**
   * The electorates of the best log, but those that one of the reporters knows to be replaced. Who has just started, and has applied
   * less than it has in its log, would have long gone ones agree.
   */
  #deciding(reports: Reports): readonly Electorate[] {
    const inForce = Math.max(0, ...[...this.#reports.values()].map(({ electorates }) => electorates[0]?.index ?? 0))
    return (bestOf(reports)?.[1].electorates ?? []).filter(({ index }) => index >= inForce)
  }

  chosen(choice: Choice): void {
    if (this.#choice) return
    this.#choice = choice
    this.#electorates = choice.electorates
    this.lastIndex = choice.lastIndex
  }

  /** Whether what is said of this ballot is said of this round. */
  isOf(ballot: Ballot): boolean {
    return this.#choice !== null && compareBallots(this.#choice.ballot, ballot) === 0
  }

  /** Only a promise of one that had reported before the choice says something about what may have been committed. */
  promise(node: NodeId): void {
    if (!this.#choice?.reporters.includes(node)) return
    this.#promised.add(node)
    this.isPromised ||= isMajority(this.#promised, this.#choice.electorates)
  }

  makeReady(member: MemberId, node: NodeId, index: number): void {
    this.isPromised = true // it has seen the promises
    this.#ready.push(member)
    this.#held.set(node, index)
    this.#goOn()
  }

  /** False when one before it has been lost: then the rest of this round is lost on this member. */
  append(sender: MemberId, item: Item): boolean {
    if (sender !== this.#choice?.ballot.leader || item.index !== this.lastIndex + 1) return false
    this.lastIndex = item.index
    if (item.voters) this.#electorates = [...this.#electorates, { index: item.index, voters: item.voters }]
    return true
  }

  acknowledge(node: NodeId, index: number): void {
    const before = this.#held.get(node)
    if (before === undefined || index <= before) return
    this.#held.set(node, index)
    this.#goOn()
  }

  #goOn(): void {
    const { lastIndex } = this.#choice!
    const floor = this.isActive ? this.committedIndex + 1 : lastIndex
    const indices = new Set([...this.#held.values()].map((index) => Math.min(index, this.lastIndex)))
    for (const index of [...indices].filter((index) => index >= floor).sort((a, b) => b - a)) {
      const holders = new Set([...this.#held].filter(([, held]) => held >= index).map(([node]) => node))
      const concerned = this.#electorates.filter((electorate) => electorate.index <= index)
      if (!isMajority(holders, concerned)) continue
      this.isActive = true
      this.committedIndex = index
      const current = this.#electorates.findLastIndex((electorate) => electorate.index <= index)
      this.#electorates = this.#electorates.slice(current)
      return
    }
  }
}

type Reports = ReadonlyMap<MemberId, Report>

const reportersOf = (reports: Reports): ReadonlySet<NodeId> => new Set([...reports.values()].map(({ node }) => node))

function bestOf(reports: Reports): [MemberId, Report] | null {
  let best: [MemberId, Report] | null = null
  for (const one of reports) if (!best || isLonger(one[1], best[1])) best = one
  return best
}

function isLonger(report: Report, than: Report): boolean {
  const byBallot = compareBallots(report.adopted, than.adopted)
  return byBallot > 0 || (byBallot === 0 && report.lastIndex > than.lastIndex)
}
