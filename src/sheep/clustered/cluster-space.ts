import type { Clock } from '../../runtime/clock.ts'
import type { Member } from '../membership/view.ts'
import type { NodeSpace, StoreSpace } from '../vdi-store.ts'
import { usableBytes } from './capacity.ts'
import type { Told } from './node-questions.ts'

export interface ClusterSpaceOptions {
  clock: Clock
  copies: number
  members(): readonly Member[]
  ask(to: Member): Promise<Told<'node_space'>>
}

/** How long a node may take to say how much room it has: the scheduler waits for that. */
const PATIENCE_MS = 1000

/** The room of all nodes of the view, as each says of itself; of one that does not answer, what it said last. */
export class ClusterSpace {
  readonly #options: ClusterSpaceOptions
  #known = new Map<string, Told<'node_space'>>()

  constructor(options: ClusterSpaceOptions) {
    this.#options = options
  }

  async get(): Promise<StoreSpace> {
    const { members, copies } = this.#options
    const sorted = [...members()].sort((a, b) => (a.address < b.address ? -1 : 1))
    const nodes = await Promise.all(sorted.map((member) => this.#of(member)))
    this.#known = new Map(nodes.flatMap(({ member, said }) => (said ? [[member.node, said]] : [])))
    const rooms = (roomOf: (said: Told<'node_space'>) => number) =>
      nodes.map(({ member: { zone, vnodes }, said }) => ({ zone, vnodes, bytes: said ? roomOf(said) : 0 }))
    return {
      totalBytes: usableBytes(
        rooms(({ totalBytes }) => totalBytes),
        copies,
      ),
      freeBytes: usableBytes(
        rooms(({ freeBytes }) => freeBytes),
        copies,
      ),
      allocatedBytes: nodes.reduce((sum, { said }) => sum + (said?.allocatedBytes ?? 0), 0),
      nodes: nodes.map(
        ({ member: { node, address, zone, vnodes }, said, isAnswering }): NodeSpace => ({
          node,
          address,
          zone,
          vnodes,
          isAnswering,
          totalBytes: said?.totalBytes ?? 0,
          freeBytes: said?.freeBytes ?? 0,
          failedDisks: said?.failedDisks ?? 0,
        }),
      ),
    }
  }

  async #of(member: Member) {
    const { clock, ask } = this.#options
    const late = clock.sleep(PATIENCE_MS).then(() => null)
    const said = await Promise.race([ask(member).catch(() => null), late])
    return { member, said: said ?? this.#known.get(member.node) ?? null, isAnswering: said !== null }
  }
}
