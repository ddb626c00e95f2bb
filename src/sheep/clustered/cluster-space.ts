import type { Clock } from '../../runtime/clock.ts'
import { within } from '../../runtime/within.ts'
import type { Member } from '../membership/view.ts'
import type { NodeSpace, StoreSpace } from '../vdi-store.ts'
import { sizeFactors, usableBytes } from './capacity.ts'
import type { Told } from './node-questions.ts'

export interface ClusterSpaceOptions {
  clock: Clock
  copies: number
  members(): readonly Member[]
  /** Those that keep their places on the ring though they are not there. */
  away(): readonly Member[]
  /** What the working VDIs promise, by how many copies they have. */
  promised(): ReadonlyMap<number, number>
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
    const { members, away, copies, promised } = this.#options
    const sorted = [...members()].sort((a, b) => (a.address < b.address ? -1 : 1))
    const nodes = await Promise.all(sorted.map((member) => this.#of(member)))
    this.#known = new Map(nodes.flatMap(({ member, said }) => (said ? [[member.node, said]] : [])))
    const rooms = (roomOf: (said: Told<'node_space'>) => number) =>
      nodes.map(({ member: { zone, vnodes }, said }) => ({ zone, vnodes, bytes: said ? roomOf(said) : 0 }))
    const total = rooms(({ totalBytes }) => totalBytes)
    const factors = sizeFactors(total, copies, zonesOf([...members(), ...away()]))
    return {
      totalBytes: usableBytes(total, copies),
      freeBytes: usableBytes(
        rooms(({ freeBytes }) => freeBytes),
        copies,
      ),
      provisionedBytes: Math.round(
        [...promised()].reduce((sum, [of, bytes]) => sum + bytes * (factors[of - 1] ?? factors.at(-1) ?? 1), 0),
      ),
      sizeFactors: factors,
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
    const said = await within(clock, PATIENCE_MS, ask(member), () => null).catch(() => null)
    return { member, said: said ?? this.#known.get(member.node) ?? null, isAnswering: said !== null }
  }
}

const zonesOf = (members: readonly Member[]): number =>
  new Set(members.filter(({ vnodes }) => vnodes > 0).map(({ zone }) => zone)).size
