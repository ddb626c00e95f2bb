/**
 * How many places on the ring a node has: in proportion to its room, so that all disks fill alike.
 *
 * 1. The first node of a cluster has 512, and the room that each of them stands for is an entry of the log. So the places of one node
 *    depend on its own room only, and nothing moves between the others when one comes or goes.
 * 2. With 512 places the fullest of 100 equal nodes holds some 8 % more than its share of three copies, with upstream's 128 some 15 %.
 * 3. Places follow the room when that has changed by more than a tenth: a file system's total changes a little by itself, and each
 *    change of places moves data.
 */
export const FOUNDER_VNODES = 512

/** In clusters whose log does not say what a place stands for. */
const VNODES = 128

/** The protocol has 16 bits for it; and all points of a ring are in memory. */
const VNODES_MAX = 16_384
const TOLERANCE = 0.1

/** What one place stands for in a cluster whose first node has this room. */
export const bytesPerVnode = (founderBytes: number): number => Math.max(1, Math.ceil(founderBytes / FOUNDER_VNODES))

export interface Room {
  /** Of all disks that have not failed, whatever is on them. */
  totalBytes: number
  /** What a place stands for; null in a cluster that does not say. */
  vnodeBytes: number | null
  /** What the node has now; 0 when it has none. */
  vnodes: number
}

/** At least one: who is to have none says so. */
export function vnodesFor({ totalBytes, vnodeBytes, vnodes }: Room): number {
  if (vnodeBytes === null) return VNODES
  const wanted = Math.min(VNODES_MAX, Math.max(1, Math.round(totalBytes / vnodeBytes)))
  return vnodes > 0 && Math.abs(wanted - vnodes) <= TOLERANCE * vnodes ? vnodes : wanted
}
