import type { ClusterState } from '../cluster-state.ts'
import type { VdiUsage } from '../entries.ts'
import type { Usage } from '../maintenance/usage.ts'
import type { Member } from '../membership/view.ts'
import type { OwnedFamily } from './owned-family.ts'

/** By vid, of the families that one node owns. */
export type NodeUsage = readonly (readonly [vid: number, usage: Usage])[]

export interface ClusterUsageOptions {
  state: ClusterState
  /** Those that this node owns. */
  families: Iterable<OwnedFamily>
  others(): readonly Member[]
  /** Nothing of one that does not answer. */
  ask(to: Member): Promise<NodeUsage>
}

/** What VDIs take: each owner counts his own. */
export class ClusterUsage {
  readonly #options: ClusterUsageOptions

  constructor(options: ClusterUsageOptions) {
    this.#options = options
  }

  /** As this node counts them. */
  own(): NodeUsage {
    return [...this.#options.families].flatMap(({ vdis }) => [...vdis.usage()])
  }

  /** Of families that others own, as they say; of those that nobody does, or whose owner does not answer, as the last one has left it. */
  async get(): Promise<Map<number, Usage>> {
    const { state, others, ask } = this.#options
    const told = await Promise.all(others().map(ask))
    const usage = new Map<number, Usage>()
    for (const { vid, sizeBytes, deleting, family } of state.vdis.values())
      if (!deleting) usage.set(vid, nothing(sizeBytes, !state.families.wasEverOwned(family)))
    // Some may have been deleted since they were counted.
    const add = (vid: number, of: Omit<Usage, 'provisionedBytes'>) => {
      const known = usage.get(vid)
      if (known) usage.set(vid, { ...of, provisionedBytes: known.provisionedBytes })
    }
    for (const family of state.vdis.families()) {
      const isExact = state.families.ownerOf(family) === null
      for (const [vid, allocatedBytes, uniqueBytes, sharedBytes] of state.families.usageOf(family))
        add(vid, { allocatedBytes, uniqueBytes, sharedBytes, isExact })
    }
    for (const [vid, of] of [...told.flat(), ...this.own()]) add(vid, of)
    return usage
  }
}

export const usageOf = ({ vdis }: OwnedFamily): VdiUsage[] =>
  [...vdis.usage()].map(([vid, { allocatedBytes, uniqueBytes, sharedBytes }]) => [
    vid,
    allocatedBytes,
    uniqueBytes,
    sharedBytes,
  ])

/** Nothing is known of it, or it is known to hold nothing. */
const nothing = (provisionedBytes: number, isExact: boolean): Usage => ({
  provisionedBytes,
  allocatedBytes: 0,
  uniqueBytes: 0,
  sharedBytes: 0,
  isExact,
})
