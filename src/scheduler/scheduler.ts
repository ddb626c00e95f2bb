import type { PoolStats } from '../drivers/driver.ts'
import { FILTERS } from './filters.ts'
import { DEFAULT_WEIGHTS, type Weights, weigh } from './weighers.ts'

/** A place where volumes can live: what its backend said about itself, and what the service knows besides. */
export interface Pool extends PoolStats {
  /** `host@backend#pool`, as it is written into a volume's `host`. */
  name: string
  backendName: string
  /** `volume_backend_name`, by which types ask for it; several backends may share one. */
  volumeBackendName: string
  availabilityZone: string
  storageProtocol: string
  thinProvisioning: boolean
  multiattach: boolean
  extendInUse: boolean
  /** GiB and number of the volumes that the service has there. */
  allocatedCapacityGib: number
  volumeCount: number
  /** GiB that volumes and growth will take which the backend did not know of when it reported. */
  promisedGib: number
  /** Why it takes no new volumes; null when it does. */
  closed: string | null
}

/** What a volume needs of the pool that it goes to. Empty lists and nulls ask for nothing. */
export interface PlacementRequest {
  sizeGib: number
  /** Any of them. */
  availabilityZones: readonly string[]
  /** Of the volume's type. */
  extraSpecs: Readonly<Record<string, string>>
  /** What the volume has in the pool already, when it grows there or gets another type: only what it takes more asks for room. */
  held?: Pick<PlacementRequest, 'sizeGib' | 'extraSpecs'>
  /** All of it is written as soon as it is there: over-subscription is of no help. */
  isFilled?: boolean
  /** The backend that has the source, without which there is nothing to copy. */
  sourceBackend: string | null
  /** Places of pools that failed to make this volume. */
  failed: readonly string[]
  hints: PlacementHints
}

/** What the user wishes (`OS-SCH-HNT:scheduler_hints`), in terms of places: see `placeOf`. */
export interface PlacementHints {
  /** `same_host`: one of them. */
  sameAs: readonly string[] | null
  /** `different_host`: none of them. */
  differentFrom: readonly string[]
  /** `local_to_instance`: the hosts that the instance's volumes are attached at. */
  near: readonly string[]
  /** `query`, as upstream's JSON filter takes it: a list, or JSON text of one. */
  query: unknown
}

export const NO_HINTS: PlacementHints = { sameAs: null, differentFrom: [], near: [], query: null }

/** What asks for room alone. */
export const NO_WISHES: Omit<PlacementRequest, 'sizeGib' | 'extraSpecs'> = {
  availabilityZones: [],
  sourceBackend: null,
  failed: [],
  hints: NO_HINTS,
}

export interface Placement {
  /** Best first; of equal ones the first by name, so that the same question has the same answer. */
  candidates: { pool: Pool; weight: number }[]
  dropped: DroppedPool[]
}

export interface DroppedPool {
  pool: Pool
  filter: string
  reason: string
}

/** Which pools can take the volume, in which order, and why each of the others cannot. */
export function place(
  pools: readonly Pool[],
  request: PlacementRequest,
  weights: Weights = DEFAULT_WEIGHTS,
): Placement {
  const fitting: Pool[] = []
  const dropped: DroppedPool[] = []
  for (const pool of pools) {
    const refusal = firstRefusal(pool, request)
    if (refusal === null) fitting.push(pool)
    else dropped.push({ pool, ...refusal })
  }
  const candidates = weigh(fitting, request, weights)
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

/** One line for people: why no pool was left. */
export function explainDropped(dropped: readonly DroppedPool[]): string {
  if (dropped.length === 0) return 'No backend has reported its pools yet.'
  return dropped.map(({ pool, filter, reason }) => `${pool.name}: ${reason} (${filter}).`).join(' ')
}
