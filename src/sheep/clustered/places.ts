import { encodeNodeAddress } from '../../protocol/structs.ts'
import { parseAddress } from '../../runtime/network.ts'
import type { Member, View } from '../membership/view.ts'
import type { NodeId } from '../order/item.ts'
import { createRing, type Ring, type RingNode } from '../ring.ts'
import { PointCache } from '../ring-points.ts'

interface PlacedMember extends RingNode {
  node: NodeId
}

export interface WantedCopies {
  copies: number
  /** So many at least have what is acknowledged. */
  copiesMin: number
}

/** What is on fewer nodes is made anew elsewhere at once, if it is to be on as many. */
const SAFE_COPIES = 2

/** Of so many rings the last ones are kept, as views that follow one another have the same, but for who comes or goes. */
const RINGS_KEPT = 4

/**
 * Where copies of objects belong in each view: the protocol's ring over the members that hold any, and over those that have been gone for
 * a while only. What belongs to one of these is where the rest of its copies are, as long as that is enough to be written to and to
 * lose one more; else it belongs where it would without them.
 */
export class Places {
  readonly #views = new WeakMap<View, ViewRings>()
  readonly #points = new PointCache()
  #rings: readonly PlacedRing[] = []

  /** Fewer than `copies` when the view has fewer zones, or somebody is away. */
  targetsOf(oid: bigint, { copies, copiesMin }: WantedCopies, view: View): readonly NodeId[] {
    const { all, isThere, present } = this.#ringsOf(view)
    const targets = all.nodesOf(oid, copies)
    if (present === null) return targets
    const there = targets.filter(isThere)
    if (there.length === targets.length || there.length >= Math.min(copies, Math.max(SAFE_COPIES, copiesMin)))
      return there
    return present().nodesOf(oid, copies)
  }

  #ringsOf(view: View): ViewRings {
    const known = this.#views.get(view)
    if (known) return known
    const rings = new ViewRings(view, (members) => this.#ringOf(members))
    this.#views.set(view, rings)
    return rings
  }

  #ringOf(members: readonly Member[]): PlacedRing {
    const key = keyOf(members)
    const ring = this.#rings.find((known) => known.key === key) ?? new PlacedRing(key, members, this.#points)
    this.#rings = [ring, ...this.#rings.filter((known) => known !== ring)].slice(0, RINGS_KEPT)
    return ring
  }
}

class ViewRings {
  readonly all: PlacedRing
  /** Of those that are there; null when all are. */
  readonly present: (() => PlacedRing) | null
  readonly isThere: (node: NodeId) => boolean

  constructor({ members, away = [] }: View, ringOf: (members: readonly Member[]) => PlacedRing) {
    this.all = ringOf([...members, ...away])
    const nodes = new Set(members.map(({ node }) => node))
    this.isThere = (node) => nodes.has(node)
    let present: PlacedRing | null = null
    this.present =
      away.length === 0
        ? null
        : () => {
            present ??= ringOf(members)
            return present
          }
  }
}

/** What their ring depends on. The same in whatever order they are. */
const keyOf = (members: readonly Member[]): string =>
  members
    .map(({ node, address, zone, vnodes }) => `${node} ${address} ${zone} ${vnodes}`)
    .sort()
    .join()

/** A ring that remembers what it was asked last: the same object is asked for in several views, most of which have the same ring. */
class PlacedRing {
  readonly key: string
  readonly #ring: Ring<PlacedMember>
  #oid: bigint | null = null
  #copies = 0
  #nodes: readonly NodeId[] = []

  constructor(key: string, members: readonly Member[], points: PointCache) {
    this.key = key
    this.#ring = createRing(
      members.map(({ node, address, zone, vnodes }) => ({ node, nid: nidOf(address), zone, vnodeCount: vnodes })),
      points,
    )
  }

  nodesOf(oid: bigint, copies: number): readonly NodeId[] {
    if (oid !== this.#oid || copies !== this.#copies) {
      this.#nodes = this.#ring.locate(oid, copies).map(nodeOf)
      this.#oid = oid
      this.#copies = copies
    }
    return this.#nodes
  }
}

const nodeOf = ({ node }: PlacedMember) => node

function nidOf(address: string): { addr: Buffer; port: number } {
  const target = parseAddress(address)
  if ('path' in target) throw new Error(`other nodes do not reach ${address}`)
  return { addr: encodeNodeAddress(target.host), port: target.port }
}
