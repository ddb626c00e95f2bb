/** A node that holds copies: its share of the ring, and how many bytes it has for them. */
export interface NodeRoom {
  zone: number
  vnodes: number
  bytes: number
}

/**
 * How many bytes VDIs may hold, each with all its copies, until the first node is full: the ring gives each node a share by its places
 * on it, however much room there is on the others. A zone has one copy of an object at most, and there are no more copies than zones.
 */
export function usableBytes(nodes: readonly NodeRoom[], copies: number): number {
  const zones = new Map<number, NodeRoom[]>()
  for (const node of nodes) if (node.vnodes > 0) zones.set(node.zone, [...(zones.get(node.zone) ?? []), node])
  const weights = new Map([...zones].map(([zone, members]) => [zone, vnodesOf(members)]))
  let bytes = Number.POSITIVE_INFINITY
  for (const [zone, share] of sharesOf(weights, Math.min(copies, zones.size))) {
    const members = zones.get(zone)!
    for (const { vnodes, bytes: room } of members) {
      bytes = Math.min(bytes, (room * vnodesOf(members)) / (share * vnodes))
    }
  }
  return Number.isFinite(bytes) ? Math.floor(bytes) : 0
}

/**
 * How much of what `usableBytes` answers for the number of copies that VDIs have by themselves one byte takes of a VDI that has 1, 2, …
 * copies, `most` at most. Each zone fills by its own share, which is never more than all: so twice as many copies need not take twice as much.
 */
export function sizeFactors(nodes: readonly NodeRoom[], copies: number, most: number): number[] {
  const zones = new Set(nodes.filter(({ vnodes }) => vnodes > 0).map(({ zone }) => zone)).size
  const own = usableBytes(nodes, copies)
  return Array.from({ length: most }, (_, index) => {
    const usable = usableBytes(nodes, index + 1)
    // Where nothing is known of some room, as if all zones were alike.
    return usable > 0 ? own / usable : Math.min(index + 1, zones) / Math.max(1, Math.min(copies, zones))
  })
}

/** Of each zone the part of all objects that it has a copy of: by its weight, but never more than all. */
function sharesOf(weights: ReadonlyMap<number, number>, copies: number): Map<number, number> {
  const shares = new Map<number, number>()
  const left = new Map(weights)
  while (left.size > 0) {
    const perWeight = (copies - shares.size) / [...left.values()].reduce((sum, weight) => sum + weight, 0)
    const whole = [...left].filter(([, weight]) => weight * perWeight >= 1)
    if (whole.length === 0) {
      for (const [zone, weight] of left) shares.set(zone, weight * perWeight)
      return shares
    }
    for (const [zone] of whole) {
      shares.set(zone, 1)
      left.delete(zone)
    }
  }
  return shares
}

const vnodesOf = (nodes: readonly NodeRoom[]) => nodes.reduce((sum, { vnodes }) => sum + vnodes, 0)
