import { isThin, reservedGib, virtualFreeGib } from './capacity.ts'
import type { PlacementRequest, Pool } from './scheduler.ts'

/**
 * What each weigher counts for. As in upstream, a weigher's values are brought to 0 … 1 among the pools that are left, and
 * multiplied: a negative multiplier turns its preference round, 0 leaves it out.
 */
export interface Weights {
  /** GiB that may still be promised: positive spreads by room, negative fills one pool after the other. */
  capacity: number
  /** GiB of the volumes there: negative spreads. */
  allocatedCapacity: number
  /** Number of the volumes there: negative spreads. */
  volumeNumber: number
  /** The part that may still be promised of what could be: positive fills small and large pools alike. */
  goodness: number
}

/** As upstream's defaults, of whose weighers only that of capacity is on. */
export const DEFAULT_WEIGHTS: Weights = { capacity: 1, allocatedCapacity: 0, volumeNumber: 0, goodness: 0 }

/** A pool's value; null when it cannot tell. */
type Weigher = (pool: Pool, request: PlacementRequest) => number | null

const WEIGHERS: Readonly<Record<keyof Weights, Weigher>> = {
  capacity: (pool, request) => virtualFreeGib(pool, isThin(pool, request)),
  allocatedCapacity: (pool) => pool.allocatedCapacityGib + pool.promisedGib,
  volumeNumber: (pool) => pool.volumeCount,
  goodness: (pool, request) => {
    const thin = isThin(pool, request)
    const room = virtualFreeGib(pool, thin)
    if (room === null || typeof pool.totalCapacityGib !== 'number') return null
    const usable = pool.totalCapacityGib - reservedGib(pool, pool.totalCapacityGib)
    const wholeRoom = thin ? usable * pool.maxOverSubscriptionRatio : usable
    return wholeRoom > 0 ? Math.max(0, room / wholeRoom) : 0
  },
}

export function weigh(
  pools: readonly Pool[],
  request: PlacementRequest,
  weights: Weights,
): { pool: Pool; weight: number }[] {
  const sums = pools.map(() => 0)
  for (const [name, weigher] of Object.entries(WEIGHERS)) {
    const multiplier = weights[name as keyof Weights]
    if (multiplier === 0) continue
    const values = normalized(
      pools.map((pool) => weigher(pool, request)),
      multiplier > 0,
    )
    for (const [index, value] of values.entries()) sums[index]! += multiplier * value
  }
  return pools.map((pool, index) => ({ pool, weight: sums[index]! }))
}

/** Brought to 0 … 1; when all are equal, 0. Who cannot tell comes after everybody who can. */
function normalized(values: readonly (number | null)[], highIsGood: boolean): number[] {
  const known = values.filter((value) => value !== null)
  if (known.length === 0) return values.map(() => 0)
  const worst = highIsGood ? Math.min(...known) - 1 : Math.max(...known) + 1
  const complete = values.map((value) => value ?? worst)
  const lowest = Math.min(...complete)
  const range = Math.max(...complete) - lowest
  return complete.map((value) => (range === 0 ? 0 : (value - lowest) / range))
}
