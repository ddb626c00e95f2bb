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

/**
 * Where copies of objects belong in each view: the protocol's ring over the members that hold any, and over those that have been gone for
 * a while only. What belongs to one of these is where the rest of its copies are, as long as that is enough to be written to and to
 * lose one more; else it belongs where it would without them.
 */
export class Places {
  readonly #rings = new WeakMap<View, ViewRings>()
  readonly #points = new PointCache()

  /** Fewer than `copies` when the view has fewer zones, or somebody is away. */
  targetsOf(oid: bigint, { copies, copiesMin }: WantedCopies, view: View): readonly NodeId[] {
    const { all, isThere, present } = this.#ringsOf(view)
    const targets = all.locate(oid, copies).map(({ node }) => node)
    if (present === null) return targets
    const there = targets.filter(isThere)
    if (there.length === targets.length || there.length >= Math.min(copies, Math.max(SAFE_COPIES, copiesMin)))
      return there
    return present()
      .locate(oid, copies)
      .map(({ node }) => node)
  }

  #ringsOf(view: View): ViewRings {
    const known = this.#rings.get(view)
    if (known) return known
    const rings = new ViewRings(view, this.#points)
    this.#rings.set(view, rings)
    return rings
  }
}

class ViewRings {
  readonly all: Ring<PlacedMember>
  /** Of those that are there; null when all are. */
  readonly present: (() => Ring<PlacedMember>) | null
  readonly isThere: (node: NodeId) => boolean

  constructor({ members, away = [] }: View, points: PointCache) {
    this.all = ringOf([...members, ...away], points)
    const nodes = new Set(members.map(({ node }) => node))
    this.isThere = (node) => nodes.has(node)
    let present: Ring<PlacedMember> | null = null
    this.present =
      away.length === 0
        ? null
        : () => {
            present ??= ringOf(members, points)
            return present
          }
  }
}

function ringOf(members: readonly Member[], points: PointCache): Ring<PlacedMember> {
  return createRing(
    members.map(({ node, address, zone, vnodes }) => ({ node, nid: nidOf(address), zone, vnodeCount: vnodes })),
    points,
  )
}

function nidOf(address: string): { addr: Buffer; port: number } {
  const target = parseAddress(address)
  if ('path' in target) throw new Error(`other nodes do not reach ${address}`)
  return { addr: encodeNodeAddress(target.host), port: target.port }
}
