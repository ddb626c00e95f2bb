import type { PoolStats } from '../drivers/driver.ts'
import { FILTERS } from './filters.ts'

/** A place where volumes can live, with what its backend said about itself. */
export interface Pool extends PoolStats {
  /** `host@backend#pool`, as it is written into a volume's `host`. */
  name: string
  backendName: string
  availabilityZone: string
  storageProtocol: string
  thinProvisioning: boolean
  multiattach: boolean
}

export interface PlacementRequest {
  sizeGib: number
  /** Null takes any zone. */
  availabilityZone: string | null
  /** Of the volume's type. */
  extraSpecs: Readonly<Record<string, string>>
}

export interface Placement {
  /** Best first. */
  candidates: { pool: Pool; weight: number }[]
  dropped: { pool: Pool; filter: string; reason: string }[]
}

/** Which pools can take the volume, in which order, and why each of the others cannot. */
export function place(pools: readonly Pool[], request: PlacementRequest): Placement {
  const candidates: Placement['candidates'] = []
  const dropped: Placement['dropped'] = []
  for (const pool of pools) {
    const refusal = firstRefusal(pool, request)
    if (refusal === null) candidates.push({ pool, weight: virtualFreeGib(pool) })
    else dropped.push({ pool, ...refusal })
  }
  candidates.sort((a, b) => b.weight - a.weight || (a.pool.name < b.pool.name ? -1 : 1))
  return { candidates, dropped }
}

function firstRefusal(pool: Pool, request: PlacementRequest): { filter: string; reason: string } | null {
  for (const [filter, refuse] of Object.entries(FILTERS)) {
    const reason = refuse(pool, request)
    if (reason !== null) return { filter, reason }
  }
  return null
}

/** GiB that may still be promised: of a thin pool beyond what it has, up to its over-subscription ratio. */
export function virtualFreeGib(pool: Pool): number {
  const reservedGib = (pool.totalCapacityGib * pool.reservedPercentage) / 100
  if (!pool.thinProvisioning) return pool.freeCapacityGib - reservedGib
  return pool.totalCapacityGib * pool.maxOverSubscriptionRatio - pool.provisionedCapacityGib - reservedGib
}

/** One line for people: why no pool was left. */
export function explainDropped(dropped: Placement['dropped']): string {
  if (dropped.length === 0) return 'No backend has reported its pools yet.'
  return dropped.map(({ pool, filter, reason }) => `${pool.name}: ${reason} (${filter}).`).join(' ')
}
