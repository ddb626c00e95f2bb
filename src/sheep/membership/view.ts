import { StoreError } from '../../errors.ts'
import type { NodeId } from '../order/item.ts'

/** Who is in the cluster from an entry of the log on. */
export interface View {
  /** Counts views, from 1; 0 before there was one. */
  epoch: number
  members: readonly Member[]
  /**
   * Those whose disks count for the log. Mostly members, but one that is away may go on to vote: it costs nothing, and when it
   * is back its vote counts from then on. None in views of versions that knew of no other nodes.
   */
  voters: readonly NodeId[]
  /**
   * Nodes, members or not, that are to hold nothing any more and to vote no longer than they must; as members they have no
   * vnodes. Absent when there are none.
   */
  draining?: readonly NodeId[]
  /**
   * Members of views before that have not been gone for long, as they were: they keep their places on the ring, so that what they
   * hold is not made anew elsewhere. Absent when there are none.
   */
  away?: readonly Member[]
  /** Nodes that an operator has said are gone for good, with all that they held. They never come in again. */
  removed?: readonly NodeId[]
  /** VDIs that have another number of copies from this view on. */
  copies?: readonly CopiesChange[]
  /** When it was proposed, milliseconds since 1970; 0 where that is not known. */
  at: number
}

export interface CopiesChange {
  /** Of the working VDI; its snapshots have as many. */
  vid: number
  copies: number
  /** Stays as it is when absent. */
  copiesMin?: number
}

/** One start of a node. */
export interface Life {
  node: NodeId
  /** New with each start: what the process before it promised or had not synced is no matter of this one. */
  incarnation: string
}

export interface Member extends Life {
  /** Where the other nodes reach it. */
  address: string
  /** Copies of an object lie in different ones. */
  zone: number
  /** Places on the ring; a node with none holds no objects: a gateway, or a witness that only votes. */
  vnodes: number
}

/** A view and its place in the log. */
export interface LoggedView {
  index: number
  view: View
}

/**
 * Views as one node has them, in order: some that were in effect, the one that is, and those that follow in its log and may take
 * effect.
 */
export interface ViewHistory {
  views: readonly LoggedView[]
  /** The entries up to here are in effect. */
  appliedIndex: number
}

export function isIn({ members }: View, { node, incarnation }: Life): boolean {
  return members.some((member) => member.node === node && member.incarnation === incarnation)
}

/** The view in effect, and those that may follow. */
export function currentAndLater({ views, appliedIndex }: ViewHistory): readonly LoggedView[] {
  return views.slice(
    Math.max(
      0,
      views.findLastIndex(({ index }) => index <= appliedIndex),
    ),
  )
}

/** How often the voters change after an entry; infinitely often when the history does not go back as far. */
export function voterChangesAfter({ views }: ViewHistory, index: number): number {
  const from = views.findLastIndex((logged) => logged.index <= index)
  if (from < 0) return Number.POSITIVE_INFINITY
  const later = views.slice(from)
  return later.filter(({ view }, at) => at > 0 && !sameVoters(later[at - 1]!.view, view)).length
}

/**
 * Throws the StoreError with which a view must be refused that is to follow another one: OldEpoch when another one came first,
 * InvalidParameters when no view may ever look like that.
 */
export function checkViewFollows(view: View, before: Pick<View, 'epoch' | 'voters'>): void {
  if (view.epoch !== before.epoch + 1)
    throw new StoreError('OldEpoch', `view ${view.epoch} is to follow view ${before.epoch}`)
  if (hasTwice(view.members.map(({ node }) => node)) || hasTwice(view.voters))
    throw new StoreError('InvalidParameters', 'a view names each node once')
  if (view.voters.length === 0) throw new StoreError('InvalidParameters', 'a view has voters')
  if (!isVoterStep(before.voters, view.voters)) throw new StoreError('InvalidParameters', 'voters change one at a time')
}

/** Whether voters may follow others at once: a majority of the ones then meets every majority of the others. */
export function isVoterStep(from: readonly NodeId[], to: readonly NodeId[]): boolean {
  const changed =
    to.filter((voter) => !from.includes(voter)).length + from.filter((voter) => !to.includes(voter)).length
  return from.length === 0 || (to.length > 0 && changed <= 1)
}

/** Whether the same starts of the same nodes are in both. */
export function haveSameLives(a: View, b: View): boolean {
  return a.members.length === b.members.length && a.members.every((member) => isIn(b, member))
}

export function sameVoters(a: Pick<View, 'voters'>, b: Pick<View, 'voters'>): boolean {
  return a.voters.length === b.voters.length && a.voters.every((voter) => b.voters.includes(voter))
}

const hasTwice = (nodes: readonly NodeId[]) => new Set(nodes).size < nodes.length
