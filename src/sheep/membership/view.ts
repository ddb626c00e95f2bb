import type { NodeId } from '../order/item.ts'

/** Who is in the cluster from an entry of the log on. */
export interface View {
  /** Counts views. */
  epoch: number
  members: readonly Member[]
  /** Those whose disks count for the log; members all of them. */
  voters: readonly NodeId[]
}

export interface Member {
  node: NodeId
  /** New with each start: what the process before it promised or had not synced is no matter of this one. */
  incarnation: string
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

export function isIn({ members }: View, { node, incarnation }: Member): boolean {
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

function sameVoters(a: View, b: View): boolean {
  return a.voters.length === b.voters.length && a.voters.every((voter) => b.voters.includes(voter))
}
