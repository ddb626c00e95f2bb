import type { NodeId } from '../order/item.ts'
import type { Announcement } from './announcement.ts'
import { type CopiesChange, isIn, type Life, type LoggedView, type Member, type View } from './view.ts'
import { nextVoters, spareVoters, type VoterSituation } from './voters.ts'

/** What is known when a view is thought of. */
export interface Situation {
  /** The view to follow. */
  base: View
  /** Who is there, one of each node. */
  present: ReadonlyMap<NodeId, Announcement>
  /** Members that are not in the group any more. */
  lost: ReadonlySet<NodeId>
  /** Members that do not answer. */
  condemned: ReadonlySet<NodeId>
  /** Another view is wanted, also of the same members. */
  renews: boolean
  /** Voters that have been away for long. */
  overdue: ReadonlySet<NodeId>
  /** `base` has taken effect. While it has not, and may never, only members change: voters do so one at a time. */
  isInEffect: boolean
  /** Whether one that is ready may come in now. */
  admits(life: Announcement): boolean
  /** What was asked for: nodes that are to hold nothing any more, or that shall again. */
  drains: ReadonlyMap<NodeId, boolean>
  /** Nodes that are said to be gone for good. */
  removals: ReadonlySet<NodeId>
  /** VDIs that are to have another number of copies. */
  copies: readonly CopiesChange[]
  /** Whether a node that is gone is to keep its places for now. */
  keepsPlaces(node: NodeId): boolean
  /** Milliseconds since 1970. */
  now: number
}

/** The view that should follow; null when the one that is serves. */
export function nextView(situation: Situation): View | null {
  const { base, present, overdue, now } = situation
  const removed = new Set([...(base.removed ?? []), ...situation.removals])
  const draining = drainingOf(situation, removed)
  const leaving = new Set(
    base.members
      .filter(
        (member) => removed.has(member.node) || (isPresent(present, member) && present.get(member.node)!.isLeaving),
      )
      .map(nodeOf),
  )
  const stay = base.members.filter((member) => !isGone(situation, member))
  const come = [...present.values()].filter(
    (told) => told.isReady && !told.isLeaving && !removed.has(told.node) && !isIn(base, told) && situation.admits(told),
  )
  const all = [...stay, ...come].map((member) => memberOf(member, present, draining))
  const gone = new Set([...overdue, ...removed])
  const voters = votersOf(situation, { members: all, voters: base.voters, draining, leaving, overdue: gone })
  const rest = all.filter(({ node }) => !leaving.has(node))
  const mayLeave = rest.length > 0 && spareVoters(voters, new Set(rest.map(nodeOf))) >= 0
  const members = (mayLeave ? rest : all).sort(byNode)
  if (members.length === 0) return null
  const away = awayOf(situation, members, new Set([...draining, ...removed]))
  const copies = situation.isInEffect ? situation.copies : []
  const next: View = {
    epoch: base.epoch + 1,
    members,
    voters,
    ...(draining.size > 0 && { draining: [...draining].sort() }),
    ...(away.length > 0 && { away }),
    ...(removed.size > 0 && { removed: [...removed].sort() }),
    ...(copies.length > 0 && { copies }),
    at: now,
  }
  const isWanted = copies.length > 0 || (situation.renews && situation.isInEffect)
  return isSame(base, next) && !isWanted ? null : next
}

/** Never voters of whom a majority is not there: nothing would take effect any more, nor this view, until it is. */
function votersOf({ base, present, condemned, isInEffect }: Situation, wanted: VoterSituation): readonly NodeId[] {
  if (!isInEffect) return base.voters
  const voters = nextVoters(wanted)
  const there = new Set([...present.keys()].filter((node) => !condemned.has(node)))
  return spareVoters(voters, there) < 0 ? base.voters : voters
}

/** Whether somebody goes: that is not to wait for those who come. */
export function isUrgent(base: View, next: View): boolean {
  return base.members.some((member) => !isIn(next, member))
}

/** How often a node may come in before it has to wait, and how long it waits then: twice as long each time, up to the most. */
const FREE_JOINS = 3
const JOIN_WAIT_MS = 5000
const JOIN_WAIT_MS_MAX = 60_000
const FORGIVEN_AFTER_MS = 600_000

/**
 * Milliseconds that a node has to wait before it comes in again, going by how often it did lately. `knownForMs` says for how long a view has
 * been known here: clocks of nodes may differ, and be set back.
 */
export function joinWaitMs(
  views: readonly LoggedView[],
  node: NodeId,
  now: number,
  knownForMs: (view: View) => number,
): number {
  const joins = views.flatMap(({ view }, at) => {
    const member = view.members.find((one) => one.node === node)
    const before = views[at - 1]?.view
    return member && before && !isIn(before, member) && now - view.at < FORGIVEN_AFTER_MS ? [view] : []
  })
  const last = joins.at(-1)
  if (!last || joins.length < FREE_JOINS) return 0
  const waitMs = Math.min(JOIN_WAIT_MS * 2 ** (joins.length - FREE_JOINS), JOIN_WAIT_MS_MAX)
  return Math.max(0, Math.min(waitMs - knownForMs(last), last.at + waitMs - now))
}

function isGone({ lost, condemned, present }: Situation, member: Member): boolean {
  const told = present.get(member.node)
  const hasStartedAgain = told !== undefined && told.incarnation !== member.incarnation
  return hasStartedAgain || lost.has(member.node) || condemned.has(member.node)
}

const isPresent = (present: ReadonlyMap<NodeId, Announcement>, { node, incarnation }: Life) =>
  present.get(node)?.incarnation === incarnation

function drainingOf({ base, drains }: Situation, removed: ReadonlySet<NodeId>): ReadonlySet<NodeId> {
  const draining = new Set(base.draining)
  for (const [node, isDraining] of drains) {
    if (isDraining) draining.add(node)
    else draining.delete(node)
  }
  for (const node of removed) draining.delete(node)
  return draining
}

/** Who had places, and is to keep them though it is not there. */
function awayOf(
  { base, keepsPlaces }: Situation,
  members: readonly Member[],
  without: ReadonlySet<NodeId>,
): readonly Member[] {
  const isThere = (node: NodeId) => members.some((member) => member.node === node)
  return [...(base.away ?? []), ...base.members]
    .filter(({ node, vnodes }) => vnodes > 0 && !isThere(node) && !without.has(node) && keepsPlaces(node))
    .sort(byNode)
}

/** As the node says itself, as far as it is known. */
function memberOf(member: Member, present: ReadonlyMap<NodeId, Announcement>, draining: ReadonlySet<NodeId>): Member {
  const { node, incarnation } = member
  const { address, zone, vnodes } = isPresent(present, member) ? present.get(node)! : member
  return { node, incarnation, address, zone, vnodes: draining.has(node) ? 0 : vnodes }
}

function isSame(a: View, b: View): boolean {
  return JSON.stringify(contentOf(a)) === JSON.stringify(contentOf(b))
}

function contentOf({ members, voters, draining = [], away = [], removed = [] }: View) {
  const fieldsOf = (of: readonly Member[]) =>
    [...of]
      .sort(byNode)
      .map(({ node, incarnation, address, zone, vnodes }) => [node, incarnation, address, zone, vnodes])
  return [fieldsOf(members), [...voters].sort(), [...draining].sort(), fieldsOf(away), [...removed].sort()]
}

const nodeOf = ({ node }: Life): NodeId => node
const byNode = (a: Life, b: Life) => (a.node < b.node ? -1 : a.node > b.node ? 1 : 0)
