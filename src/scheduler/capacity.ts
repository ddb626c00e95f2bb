import { copiesOf, takenGib } from './copies.ts'
import type { PlacementRequest, Pool } from './scheduler.ts'

/** A type may ask for `provisioning:type` thick: then a thin pool has to have the room, too. */
export function isThin(pool: Pool, { extraSpecs }: Pick<PlacementRequest, 'extraSpecs'>): boolean {
  return pool.thinProvisioning && extraSpecs['provisioning:type'] !== 'thick'
}

/**
 * GiB that may still be promised, the reserve kept free; null when the pool cannot say. As upstream's
 * calculate_capacity_factors: of a thin pool what its capacity without the reserve holds at the over-subscription ratio,
 * less what is promised already; of a thick one no more than what is free.
 */
export function virtualFreeGib(pool: Pool, thin: boolean): number | null {
  const { totalCapacityGib: total, freeCapacityGib: free, promisedGib } = pool
  if (typeof total !== 'number' || typeof free !== 'number') return null
  const usable = total - reservedGib(pool, total)
  const provisioned = pool.provisionedCapacityGib + promisedGib
  if (thin) return usable * pool.maxOverSubscriptionRatio - provisioned
  return Math.min(free - reservedGib(pool, total) - promisedGib, usable - provisioned)
}

/** Whole GiB, as upstream counts the reserve. */
export function reservedGib(pool: Pool, totalGib: number): number {
  return Math.floor((totalGib * pool.reservedPercentage) / 100)
}

/** What a request asks for of the pool's capacity. */
export function wantedGib(pool: Pool, { sizeGib, extraSpecs, held }: PlacementRequest): number {
  const heldGib = held === undefined ? 0 : takenGib(pool, held.sizeGib, held.extraSpecs)
  return Math.max(0, takenGib(pool, sizeGib, extraSpecs) - heldGib)
}

/** Why the volume has no room in the pool, or null. */
export function refuseForCapacity(pool: Pool, request: PlacementRequest): string | null {
  const { totalCapacityGib: total, freeCapacityGib: free, maxOverSubscriptionRatio: ratio } = pool
  const gib = wantedGib(pool, request)
  if (gib === 0 || typeof free !== 'number') return null // who cannot tell is believed; another pool is tried when it fails
  if (typeof total !== 'number') {
    return pool.reservedPercentage === 0
      ? null
      : `its capacity is ${total}, of which a reserve of ${pool.reservedPercentage} % cannot be kept`
  }
  if (total <= 0) return 'it has no capacity'
  const thin = isThin(pool, request)
  if (thin && ratio < 1) return `its over-subscription ratio of ${ratio} is less than 1`
  const room = virtualFreeGib(pool, thin)!
  const { sizeGib, held, extraSpecs, isFilled = false } = request
  const what =
    gib === sizeGib - (held?.sizeGib ?? 0) ? `${gib} GiB` : `${gib} GiB for ${sizeGib} GiB ${withCopies(extraSpecs)}`
  if (!thin) return gib <= room ? null : `${what} do not fit into ${round(room)} GiB free`
  if (gib > room) return `${what} do not fit into the ${round(room)} GiB that it may still promise`
  // Upstream promises on while not a byte is free. A volume that cannot be written to helps nobody.
  const unused = free - reservedGib(pool, total)
  if (isFilled) return gib <= unused ? null : `${what}, all to be written, do not fit into ${round(unused)} GiB free`
  const backed = unused * ratio
  return gib <= backed ? null : `${what} do not fit into ${round(backed)} GiB of over-subscribed free space`
}

function withCopies(extraSpecs: PlacementRequest['extraSpecs']): string {
  const copies = copiesOf(extraSpecs)?.copies
  if (copies === undefined) return 'with as many copies as it makes by itself'
  return copies === 1 ? 'with one copy' : `with ${copies} copies`
}

function round(gib: number): number {
  return Math.floor(gib * 10) / 10
}
