import type { Member, View } from '../membership/view.ts'
import type { NodeId } from '../order/item.ts'
import { ALL_BLOCKS, type Blocks, toBlocks } from './block-ranges.ts'
import type { CopyState } from './copy-store.ts'
import { writtenApart } from './lineage.ts'
import type { OpenedCopy } from './messages.ts'
import { compareVersions, isSameVersion, type Version } from './version.ts'

/** What an open decides from the answers of the holders. */

/** What one holder says of an object. */
export interface Report extends OpenedCopy {
  member: Member
  lostThroughEpoch: number
}

export interface PlacedView extends View {
  /** Where the object belongs in this view. */
  targets: readonly NodeId[]
  /** So many of them had to have what was acknowledged. */
  copiesMin: number
}

/**
 * Who may have a copy that counted in each of the views, which are all since the last clean one. Whoever had one before remains a
 * holder as long as he is in the view.
 */
export function holdersByView(views: readonly PlacedView[]): Map<PlacedView, readonly NodeId[]> {
  const seen = new Set<NodeId>()
  return new Map(
    views.map((view) => {
      for (const target of view.targets) seen.add(target)
      const members = membersOf(view)
      return [view, [...seen].filter((node) => members.has(node))]
    }),
  )
}

const byNode = new WeakMap<readonly Member[], ReadonlyMap<NodeId, Member>>()

/** The members of a view by node: it may have a hundred, and is asked for each object. */
export function membersOf({ members }: Pick<View, 'members'>): ReadonlyMap<NodeId, Member> {
  let known = byNode.get(members)
  if (!known) {
    known = new Map(members.map((member) => [member.node, member]))
    byNode.set(members, known)
  }
  return known
}

/**
 * The same reports, with one name for what is clean. Nodes forget versions when they hear that these are clean, one after the other: in
 * between the same copy has two names. The lowest is right for all, as the others take any that is clean for theirs.
 */
export function withOneCleanName(views: readonly PlacedView[], reports: readonly Report[]): readonly Report[] {
  const [clean] = views
  if (!clean) return reports
  const isClean = ({ state, tail, member }: Report) =>
    state?.kind === 'full' &&
    tail.length === 0 &&
    state.version.generation.epoch < clean.epoch &&
    clean.targets.includes(member.node)
  const names = reports.filter(isClean).map(({ state }) => state!.version)
  if (names.every((name) => isSameVersion(name, names[0]!))) return reports
  const version = names.reduce((lowest, name) => (compareVersions(name, lowest) < 0 ? name : lowest))
  return reports.map((report) => (isClean(report) ? { ...report, state: { ...report.state!, version } } : report))
}

/**
 * The copies that may be newer than the others. One of a node that was not there when all was clean is not, before something was written
 * to it since: what it has more was left by writes of which nobody was told that they were done, and whoever read there meanwhile was told
 * that they were not.
 */
export function thatCount(views: readonly PlacedView[], reports: readonly Report[]): readonly Report[] {
  const [clean] = views
  if (!clean) return reports
  const wasThere = membersOf(clean)
  return reports.filter(
    ({ state, member }) => wasThere.has(member.node) || !state || state.version.generation.epoch >= clean.epoch,
  )
}

/**
 * The copy to which the others are brought: of those that are whole, and of no object that was removed, the one with the highest
 * version. `removed` when there is none since the object was removed; null when an acknowledged write may be missing in all of them.
 *
 * For each view in which there could be an acknowledgement somebody must speak who was asked then. All that were in sync had every
 * acknowledged write, and who was not is stale on its disk. So either there is a whole copy, or one that is older than the view, or a
 * target without any: then nothing was acknowledged, of what was not removed since. One that may have lost what it had in that view counts only when nobody else
 * is left who could know better; who was removed is not.
 */
export function findAuthority(views: readonly PlacedView[], reports: readonly Report[]): Report | 'removed' | null {
  const gone = views.at(-1)?.removed ?? []
  const counting = thatCount(views, reports)
  const removed = highest(counting.filter(({ state }) => state?.kind === 'removed'))
  const isSince = (state: CopyState) => !removed || compareVersions(state.version, removed.state!.version) > 0
  const isWhole = ({ state }: Report) => state?.kind === 'full' && isSince(state)
  for (const [{ epoch, targets, copiesMin }, holders] of holdersByView(views)) {
    if (holders.length < copiesMin) continue
    const asked = reports.filter(({ member }) => holders.includes(member.node))
    const isSure = asked
      .filter(({ lostThroughEpoch }) => lostThroughEpoch < epoch)
      .some(
        ({ state, member }) =>
          state?.kind === 'full' ||
          ((state === null || state.kind === 'removed') && targets.includes(member.node)) ||
          (state?.kind === 'partial' && state.version.generation.epoch < epoch),
      )
    const isAnybodyLeft = holders.some(
      (node) => !gone.includes(node) && !asked.some(({ member }) => member.node === node),
    )
    if (!isSure && isAnybodyLeft) return null
  }
  return highest(counting.filter(isWhole)) ?? (removed ? 'removed' : highest(reports.filter(isWhole)))
}

/** Whether somebody may have a copy who was not asked, and is not gone for good. */
export function isSomebodyUnheard(views: readonly PlacedView[], reports: readonly Pick<Report, 'member'>[]): boolean {
  const known = new Set([...(views.at(-1)?.removed ?? []), ...reports.map(({ member }) => member.node)])
  return [...holdersByView(views).values()].flat().some((node) => !known.has(node))
}

/**
 * What is left when nobody has a whole copy, because operators have said that who had one is gone for good: the best partial one, or none
 * of the blocks. It counts as whole from now on, and what it lacks as rotten. Null while somebody could know better.
 */
export function salvage(views: readonly PlacedView[], reports: readonly Report[]): readonly Report[] | null {
  const { removed = [], targets = [] } = views.at(-1) ?? {}
  const holders = [...holdersByView(views).values()].flat()
  if (!holders.some((node) => removed.includes(node)) || isSomebodyUnheard(views, reports)) return null
  const best =
    highest(reports.filter(({ state }) => state?.kind === 'partial')) ??
    reports.find(({ member }) => targets.includes(member.node))
  if (!best) return null
  const state = best.state?.kind === 'partial' ? best.state : { version: NOTHING_LEFT, valid: [] }
  const tail = best.state?.kind === 'partial' ? best.tail : []
  const left = { ...best, tail, state: { ...state, kind: 'full' as const } }
  return reports.map((report) => (report === best ? left : report))
}

/** Before all that an owner wrote. */
const NOTHING_LEFT: Version = { generation: { epoch: 0, index: 0, incarnation: '' }, sequence: 0 }

function highest(reports: readonly Report[]): Report | null {
  return reports.reduce<Report | null>(
    (best, report) => (best && compareVersions(best.state!.version, report.state!.version) >= 0 ? best : report),
    null,
  )
}

/** The partial copy with the highest version above that of the best whole one; null when there is none. */
export function aheadOf(best: Report, reports: readonly Report[]): Report | null {
  return reports.reduce<Report | null>((ahead, report) => {
    const { version } = (ahead ?? best).state!
    return report.state?.kind === 'partial' && compareVersions(report.state.version, version) > 0 ? report : ahead
  }, null)
}

/** The last version that the copy had before what is open about it; null when it was made since. */
export function baseOf({ state, tail }: OpenedCopy): Version | null {
  const [first] = tail
  return first ? first.previous : (state?.version ?? null)
}

/**
 * The blocks in which a copy may not be what the authority is. They differ at most in what they wrote apart; when that is not known, in
 * what either has in its tail, and in what the authority got (`changed`) since the copy's base.
 */
export function lackedBlocks(
  copy: OpenedCopy,
  authority: OpenedCopy,
  changed: readonly { first: number; count: number }[],
): Blocks {
  if (!isUsable(copy.state)) return ALL_BLOCKS
  const apart = writtenApart(copy, authority)
  if (apart) return apart
  return baseOf(copy) ? toBlocks([...copy.tail, ...authority.tail, ...changed]) : ALL_BLOCKS
}

export const isThere = (state: CopyState | null) => state !== null && state.kind !== 'removed'

/** It has blocks that count. */
export const isUsable = (state: CopyState | null): state is CopyState => isThere(state) && state?.kind !== 'stale'
