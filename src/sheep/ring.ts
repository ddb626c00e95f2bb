import { sdHash, sdHashNext, sdHashOid } from '../protocol/hash.ts'
import type { SdNode } from '../protocol/structs.ts'

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

export function createRing<N extends RingNode>(nodes: readonly N[]): Ring<N> {
  const points = nodes.flatMap((node) => pointsOf(node).map((hash) => ({ hash, node })))
  // Upstream refuses two points with one hash; ordering them by node id keeps the ring the same on every node.
  points.sort((a, b) => compare(a.hash, b.hash) || Buffer.compare(nodeKey(a.node), nodeKey(b.node)))
  const hashes = BigUint64Array.from(points, ({ hash }) => hash)
  const zoneCount = new Set(points.map(({ node }) => node.zone)).size
  return {
    zoneCount,
    locate: (oid, copies) => {
      const chosen: N[] = []
      const wanted = Math.min(copies, zoneCount)
      const zones = new Set<number>()
      for (let index = firstAtOrAfter(hashes, sdHashOid(oid)); chosen.length < wanted; index++) {
        const { node } = points[index % points.length]!
        if (zones.has(node.zone)) continue
        zones.add(node.zone)
        chosen.push(node)
      }
      return chosen
    },
  }
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

function pointsOf(node: RingNode): bigint[] {
  let hash = sdHash(nodeKey(node))
  return Array.from({ length: node.vnodeCount }, () => {
    hash = sdHashNext(hash)
    return hash
  })
}

/** Index of the first hash that is not less than `wanted`; `hashes.length` when all are. */
function firstAtOrAfter(hashes: BigUint64Array, wanted: bigint): number {
  let low = 0
  let high = hashes.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (hashes[middle]! < wanted) low = middle + 1
    else high = middle
  }
  return low
}

const compare = (a: bigint, b: bigint) => (a < b ? -1 : a > b ? 1 : 0)

function roundHalfToEven(value: number): number {
  const rounded = Math.round(value)
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded
}
