import type { ClusterState } from '../cluster-state.ts'
import type { View } from '../membership/view.ts'
import type { WantedCopies } from './places.ts'

/** Of VDIs that do not say: as many as a loss must not take with it. */
const COPIES_MIN = 2

/**
 * How many copies the objects of each VDI have, or had in a view before, as the log says and nothing else: all nodes have to come to the
 * same places.
 */
export class VdiCopies {
  readonly #state: ClusterState

  constructor(state: ClusterState) {
    this.#state = state
  }

  in(vid: number, { epoch }: View): WantedCopies {
    const vdi = this.#state.vdis.get(vid)
    const { copies = 1, copiesMin = COPIES_MIN } =
      vdi?.formerCopies?.find(({ beforeEpoch }) => epoch < beforeEpoch) ?? vdi ?? this.#state.makings.get(vid) ?? {}
    return { copies, copiesMin: Math.min(copiesMin, copies) }
  }
}
