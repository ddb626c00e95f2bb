import type { ClusterState } from '../cluster-state.ts'
import type { Vdi } from '../entries.ts'
import type { CopiesChange, View } from '../membership/view.ts'
import type { CopiesWanted } from '../vdi-store.ts'
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

/**
 * What has to change for a VDI to have so many copies, none when it has. What it was made from and was deleted since is nobody's any more but
 * of those who still read it: it gets as many copies, if it has fewer.
 */
export function changesTo(state: ClusterState, vid: number, wanted: CopiesWanted): CopiesChange[] {
  const { name, family, copies, copiesMin = copies } = state.get(vid)
  const isSame = wanted.copies === copies && (wanted.copiesMin ?? copiesMin) === copiesMin
  const changes: CopiesChange[] = isSame ? [] : [{ vid, ...wanted }]
  const all = state.vdis.ofFamily(family)
  const living = new Set(all.filter(({ deleting }) => !deleting).map((vdi) => vdi.name))
  const raised = new Set<string>()
  for (const ancestor of ancestorsOf(
    state,
    all.filter((vdi) => vdi.name === name),
  )) {
    if (living.has(ancestor.name) || raised.has(ancestor.name) || ancestor.copies >= wanted.copies) continue
    raised.add(ancestor.name)
    changes.push({ vid: ancestor.vid, ...wanted })
  }
  return changes
}

function ancestorsOf({ vdis }: ClusterState, of: readonly Vdi[]): Set<Vdi> {
  const found = new Set<Vdi>()
  for (const vdi of of) {
    let parent = vdis.get(vdi.parentVid)
    while (parent && parent.family === vdi.family && !found.has(parent)) {
      found.add(parent)
      parent = vdis.get(parent.parentVid)
    }
  }
  return found
}
