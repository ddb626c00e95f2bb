import { encodeNodeAddress } from '../../protocol/structs.ts'
import { parseAddress } from '../../runtime/network.ts'
import type { View } from '../membership/view.ts'
import type { NodeId } from '../order/item.ts'
import { createRing, type Ring, type RingNode } from '../ring.ts'

interface PlacedMember extends RingNode {
  node: NodeId
}

/** Where copies of objects belong in each view: the protocol's ring over the members that hold any. */
export class Places {
  readonly #rings = new WeakMap<View, Ring<PlacedMember>>()

  /** Fewer than `copies` when the view has fewer zones. */
  targetsOf(oid: bigint, copies: number, view: View): readonly NodeId[] {
    return this.#ringOf(view)
      .locate(oid, copies)
      .map(({ node }) => node)
  }

  #ringOf(view: View): Ring<PlacedMember> {
    const known = this.#rings.get(view)
    if (known) return known
    const ring = createRing(
      view.members.map(({ node, address, zone, vnodes }) => ({ node, nid: nidOf(address), zone, vnodeCount: vnodes })),
    )
    this.#rings.set(view, ring)
    return ring
  }
}

function nidOf(address: string): { addr: Buffer; port: number } {
  const target = parseAddress(address)
  if ('path' in target) throw new Error(`other nodes do not reach ${address}`)
  return { addr: encodeNodeAddress(target.host), port: target.port }
}
