import { NO_HINTS, type PlacementRequest, type Pool, place } from '../../src/scheduler/scheduler.ts'

export function pool(overrides: Partial<Pool> = {}): Pool {
  return {
    name: 'host@sheepdog#pool',
    poolName: 'pool',
    backendName: 'sheepdog',
    volumeBackendName: 'sheepdog',
    availabilityZone: 'nova',
    storageProtocol: 'nbd',
    thinProvisioning: true,
    multiattach: true,
    extendInUse: true,
    totalCapacityGib: 100,
    freeCapacityGib: 50,
    provisionedCapacityGib: 100,
    sizeFactors: [1],
    reservedPercentage: 10,
    maxOverSubscriptionRatio: 2,
    allocatedCapacityGib: 0,
    volumeCount: 0,
    promisedGib: 0,
    closed: null,
    ...overrides,
  }
}

export function request(overrides: Partial<PlacementRequest> = {}): PlacementRequest {
  return {
    sizeGib: 1,
    availabilityZones: [],
    extraSpecs: {},
    sourceBackend: null,
    failed: [],
    hints: NO_HINTS,
    ...overrides,
  }
}

/** Why the pool cannot take it; null when it can. */
export function reasonOf(one: Pool, wanted: Partial<PlacementRequest>): string | null {
  return place([one], request(wanted)).dropped[0]?.reason ?? null
}
