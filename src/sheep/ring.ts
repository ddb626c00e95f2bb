import { oidHash } from '../protocol/hash.ts'
import type { SdNode } from '../protocol/structs.ts'
import { firstAtOrAfter, mergeAll, PointCache } from './ring-points.ts'

/**
 * Where objects live: consistent hashing exactly as upstream does it, because `dog` computes placements on the node list
 * that it gets from us.
 *
 * 1. A node has `vnodeCount` points on a circle of 2^64, found by hashing its address and port again and again. A node
 *    with none is a gateway and holds nothing.
 * 2. An object belongs to the first point at or after its own hash, and further copies to the next points whose zone
 *    differs from all zones chosen so far. So there are never more copies than zones.
 *
 * The same nodes give the same ring in whatever order they are listed.
 */
export type RingNode = Pick<SdNode, 'vnodeCount' | 'zone'> & { nid: Pick<SdNode['nid'], 'addr' | 'port'> }

export interface Ring<N extends RingNode> {
  /** How many zones hold data: the most copies that an object can have. */
  readonly zoneCount: number
  /** The nodes of an object, first the one that its hash falls to; fewer than `copies` when there are fewer zones. */
  locate(oid: bigint, copies: number): N[]
}

const ADDRESS_SIZE_BYTES = 16

export function createRing<N extends RingNode>(nodes: readonly N[], known = new PointCache()): Ring<N> {
  // Upstream refuses two points with one hash; ordering them by node id keeps the ring the same on every node.
  const keyed = nodes.map((node) => ({ node, key: nodeKey(node) })).sort((a, b) => Buffer.compare(a.key, b.key))
  const points = mergeAll(keyed.map(({ node, key }, owner) => known.pointsOf(key, node.vnodeCount, owner)))
  const count = points.owners.length
  const zoneCount = new Set(nodes.filter(({ vnodeCount }) => vnodeCount > 0).map(({ zone }) => zone)).size
  return {
    zoneCount,
    locate: (oid, copies) => {
      const chosen: N[] = []
      const wanted = Math.min(copies, zoneCount)
      for (let index = firstAtOrAfter(points, oidHash(oid)); chosen.length < wanted; index++) {
        const { node } = keyed[points.owners[index % count]!]!
        if (!hasZone(chosen, node.zone)) chosen.push(node)
      }
      return chosen
    },
  }
}

function hasZone(nodes: readonly RingNode[], wanted: number): boolean {
  for (const { zone } of nodes) if (zone === wanted) return true
  return false
}

const VNODES_PER_NODE = 128

/**
 * How many points each node gets when the cluster weighs nodes by size: 128 for a node of average space. In single
 * precision and rounded half to even, since `dog` shows what upstream would.
 */
export function autoVnodeCounts(spaceBytes: readonly number[]): number[] {
  const used = spaceBytes.filter((space) => space > 0)
  if (used.length === 0) return spaceBytes.map(() => 0)
  const mean = Math.floor(used.reduce((sum, space) => sum + space, 0) / used.length)
  return spaceBytes.map((space) =>
    roundHalfToEven(VNODES_PER_NODE * Math.fround(Math.fround(space) / Math.fround(mean))),
  )
}

/** The zone of a node that names none: its IPv4 address. So nodes that share an address do not hold copies of each other. */
export function zoneOfAddress(addr: Buffer): number {
  return addr.readUInt32LE(ADDRESS_SIZE_BYTES - 4)
}

function nodeKey({ nid }: RingNode): Buffer {
  const key = Buffer.alloc(ADDRESS_SIZE_BYTES + 2)
  nid.addr.copy(key)
  key.writeUInt16LE(nid.port, ADDRESS_SIZE_BYTES)
  return key
}

function roundHalfToEven(value: number): number {
  const rounded = Math.round(value)
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded
}
