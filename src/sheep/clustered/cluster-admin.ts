import { StoreError } from '../../errors.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { RecoverySettings } from '../entries.ts'
import type { CopiesWithout } from '../membership/down.ts'
import type { Member } from '../membership/view.ts'
import type { NodeId } from '../order/item.ts'
import type { ClusterMember } from './cluster-member.ts'
import type { VdiCopies } from './vdi-copies.ts'

export interface ClusterAdminOptions {
  state: ClusterState
  copies: VdiCopies
  /** Throws NoQuorum while the node is in no group. */
  member(): ClusterMember
}

/** A node that keeps its places on the ring though it is not there. */
export interface AwayNode {
  node: NodeId
  address: string
  /** Until what it holds is made anew elsewhere. */
  secondsLeft: number | null
}

/** So many names are told. */
const NAMES_MAX = 5

/** What operators do to the nodes of a cluster, and what they have to know before. */
export class ClusterAdmin {
  readonly #options: ClusterAdminOptions

  constructor(options: ClusterAdminOptions) {
    this.#options = options
  }

  /** Throws NoQuorum. */
  get away(): readonly AwayNode[] {
    const { state, member } = this.#options
    return (state.view.away ?? []).map(({ node, address }) => {
      const leftMs = member().orders.keepsPlacesForMs(node)
      return { node, address, secondsLeft: leftMs === null ? null : Math.ceil(leftMs / 1000) }
    })
  }

  /** What would be missing if a node went at this moment: counts of families of VDIs. */
  without(node: NodeId): CopiesWithout {
    const { state, copies } = this.#options
    const { view } = state
    const zonesOf = (members: readonly Member[]) =>
      new Set(members.filter(({ vnodes }) => vnodes > 0).map(({ zone }) => zone)).size
    if (!view.members.some((member) => member.node === node && member.vnodes > 0)) return { lost: 0, waiting: 0 }
    const left = zonesOf(view.members.filter((member) => member.node !== node))
    const away = view.away?.length ?? 0
    const unclean = new Set(state.families.uncleanBefore(state.epoch))
    const lost = new Set<number>()
    const waiting = new Set(unclean)
    for (const { vid, family } of state.vdis.values()) {
      const wanted = copies.in(vid, view)
      const whole = Math.min(wanted.copies, zonesOf(view.members))
      // Who is away may have had some of them; of two there is at least one more.
      const now = away === 0 ? whole : Math.max(Math.min(2, whole), whole - away)
      if (now <= 1) lost.add(family)
      if (Math.min(wanted.copies, left) < wanted.copiesMin) waiting.add(family)
    }
    return { lost: lost.size, waiting: waiting.size }
  }

  /**
   * The node is to hold nothing any more, or shall again. Resolves when that is so for what is written from now on: what it has is
   * brought away in the background. Its name is its id, or its address. Throws InvalidParameters when there is none.
   */
  async drain(name: string, isDraining: boolean): Promise<void> {
    const { member } = this.#options
    await member().orders.drain(this.#nodeNamed(name), isDraining)
  }

  /**
   * The node is gone for good: what only it has is given up, and it never comes in again. Without `isForced` only when it has nothing
   * that counts. Resolves when there is a view without it.
   *
   * @throws StoreError InvalidParameters when there is no such node, or it is this one; VdiInUse with what would be lost.
   */
  async remove(name: string, { isForced }: { isForced: boolean }): Promise<void> {
    const { member } = this.#options
    const node = this.#nodeNamed(name)
    if (node === member().life.node) throw new StoreError('InvalidParameters', 'a node is removed by another one')
    const reason = this.#whyNotRemoved(node)
    if (reason !== null && !isForced) throw new StoreError('VdiInUse', reason)
    await member().orders.remove(node)
  }

  #whyNotRemoved(node: NodeId): string | null {
    const { state } = this.#options
    const counting = [...state.vdis.families()].filter((family) =>
      state.viewsOf(family).some((view) => view.members.some((member) => member.node === node && member.vnodes > 0)),
    )
    if (counting.length === 0) return null
    const isMember = state.members.some((member) => member.node === node && member.vnodes > 0)
    if (isMember)
      return 'it holds data: drain it first, and wait until `collie cluster status` says that nothing is to be brought home'
    const names = counting.flatMap((family) => state.vdis.ofFamily(family)[0]?.name ?? []).slice(0, NAMES_MAX)
    const more = counting.length > names.length ? ' and others' : ''
    return `it may have the only good copies of something of ${counting.length} families of volumes (${names.join(', ')}${more})`
  }

  setRecovery(wanted: Partial<RecoverySettings>): Promise<void> {
    const { state, member } = this.#options
    return member().propose({ type: 'recovery', ...state.recovery, ...wanted })
  }

  #nodeNamed(name: string): NodeId {
    const { state } = this.#options
    const { members, voters, draining = [], away = [] } = state.view
    const known = [...members, ...away, ...state.views.flatMap(({ view }) => view.members)]
    const found = known.find(
      ({ node, address }) => node === name || address === name || address.slice(0, address.lastIndexOf(':')) === name,
    )
    const node = found?.node ?? [...voters, ...draining].find((id) => id === name)
    if (!node) throw new StoreError('InvalidParameters', `no node ${name} in this cluster`)
    return node
  }
}
