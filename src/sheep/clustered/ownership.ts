import { StoreError } from '../../errors.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Entry, FamilyOwner, VdiUsage } from '../entries.ts'
import { isIn, type Life } from '../membership/view.ts'
import { Signal } from './signal.ts'

export interface OwnershipOptions {
  /** This start of this node; after it was put out, another one. */
  self(): Life
  state: ClusterState
  propose(entry: Entry): Promise<void>
  clock: Clock
}

/** From one claim of a node that is in no group to the next. */
const RETRY_MS = 500

/**
 * Which node owns which family of VDIs, as the ordered log says: at most one, and for as long as it is in the view. Being named is
 * no permission to answer anybody: that takes a lease as well.
 */
export class Ownership {
  readonly #options: OwnershipOptions
  /** Claims under way: who asks meanwhile waits for the same. */
  readonly #claims = new Map<number, Promise<FamilyOwner>>()
  readonly #changed = new Signal()
  #isOver = false

  constructor(options: OwnershipOptions) {
    this.#options = options
  }

  /** Null while nobody in the view owns it. */
  ownerOf(family: number): FamilyOwner | null {
    const { state } = this.#options
    const owner = state.families.ownerOf(family)
    return owner && isIn(state.view, owner) ? owner : null
  }

  isIn(life: Life): boolean {
    return isIn(this.#options.state.view, life)
  }

  /** What names this node as the owner; null when nothing does. */
  ownOf(family: number): FamilyOwner | null {
    const owner = this.ownerOf(family)
    return owner && this.isSelf(owner) ? owner : null
  }

  isSelf({ node, incarnation }: Life): boolean {
    const self = this.#options.self()
    return node === self.node && incarnation === self.incarnation
  }

  /**
   * The owner of a family: this node, when nobody else was it. Waits until the cluster can agree on that.
   *
   * @throws StoreError Stopping.
   */
  claim(family: number): Promise<FamilyOwner> {
    const owner = this.ownerOf(family)
    if (owner) return Promise.resolve(owner)
    const known = this.#claims.get(family)
    if (known) return known
    const claim = this.#claim(family).finally(() => this.#claims.delete(family))
    this.#claims.set(family, claim)
    return claim
  }

  /** This node, which has ended all that it had to do with the family, owns it no more. */
  async letGo({ family, index }: FamilyOwner, usage: readonly VdiUsage[]): Promise<void> {
    await this.#options.propose({ type: 'disown', family, index, usage })
  }

  /** Resolves when an entry has changed who is in the view, or owns anything. */
  get changed(): Promise<void> {
    return this.#changed.next
  }

  /** To be told of each entry that has taken effect. */
  tell(entry: Entry): void {
    if (entry.type !== 'view' && entry.type !== 'owner' && entry.type !== 'disown') return
    this.#changed.tell()
  }

  stop(): void {
    this.#isOver = true
    this.#changed.tell()
  }

  async #claim(family: number): Promise<FamilyOwner> {
    const { state, propose, clock } = this.#options
    for (;;) {
      if (this.#isOver) throw new StoreError('Stopping')
      const owner = this.ownerOf(family)
      if (owner) return owner
      const changed = this.changed
      const self = this.#options.self()
      const replaces = state.families.ownerOf(family)?.index ?? null
      try {
        await propose({ type: 'owner', family, node: self.node, incarnation: self.incarnation, replaces })
      } catch (error) {
        if (!(error instanceof StoreError)) throw error
        // OldEpoch: another one was faster, or this node is not in the view yet. Unsure: the next look tells. NoQuorum: it has lost the group.
        if (error.code === 'NoQuorum') await Promise.race([changed, clock.sleep(RETRY_MS)])
        else if (error.code !== 'OldEpoch' && error.code !== 'Unsure') throw error
        else if (!isIn(state.view, self)) await changed
      }
    }
  }
}
