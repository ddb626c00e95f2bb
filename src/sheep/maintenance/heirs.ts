import type { ClusterState } from '../cluster-state.ts'
import type { Vdi } from '../entries.ts'

/**
 * Who shares what with whom, from the tree of a family alone. A VDI is frozen before anything is made from it, and what is made
 * from it only ever loses what it got: it overwrites, or discards, and what it writes is its own. So of the blocks and
 * objects of one holder, a VDI sees a part of what each of its ancestors below the holder sees. Two things follow:
 *
 * 1. whoever wants to know what of a holder is still seen need only ask the topmost VDIs that see any of it;
 * 2. of an ancestor and a descendant that see equally many blocks of a holder, both see the same ones.
 */
export class FamilyTree {
  readonly #state: ClusterState
  /** The nearest ancestor that has not been deleted, by vid; 0 for none. */
  readonly #nearest = new Map<number, number>()

  constructor(state: ClusterState) {
    this.#state = state
  }

  /** The nearest ancestor of a VDI that has not been deleted; 0 when there is none. */
  livingAncestor(vid: number): number {
    const path: number[] = []
    let at = vid
    let found = 0
    for (;;) {
      const known = this.#nearest.get(at)
      if (known !== undefined) {
        found = known
        break
      }
      path.push(at)
      const parent = this.#state.vdis.get(this.#state.vdis.get(at)?.parentVid ?? 0)
      if (!parent || path.includes(parent.vid)) break
      if (!parent.deleting) {
        found = parent.vid
        break
      }
      at = parent.vid
    }
    for (const each of path) this.#nearest.set(each, found)
    return found
  }

  /** Of those that see something of a holder, the ones without an ancestor among them. */
  topmost(vdis: readonly Vdi[], seesHolder: (vid: number) => boolean): Vdi[] {
    return vdis.filter(({ vid }) => {
      const ancestor = this.livingAncestor(vid)
      return ancestor === 0 || !seesHolder(ancestor)
    })
  }
}
