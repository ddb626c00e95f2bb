import type { VolumeDriver } from '../drivers/driver.ts'
import { ServiceError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import { explainDropped, type Placement, type PlacementRequest, type Pool, place } from '../scheduler/scheduler.ts'
import type { ServiceSettings } from './settings.ts'

/** The pools of the backend, as far as they are known. */
export interface Pools {
  /** What was last heard. Asks again in the background when that is old, so that no request waits for the backend. */
  known(): readonly Pool[]
  /** Asks the backend now. */
  refresh(): Promise<readonly Pool[]>
}

export function createPools(driver: VolumeDriver, settings: ServiceSettings, clock: Clock, log: Log): Pools {
  let pools: readonly Pool[] = []
  let heardAtMs = Number.NEGATIVE_INFINITY
  let asking: Promise<readonly Pool[]> | null = null

  function refresh(): Promise<readonly Pool[]> {
    asking ??= driver
      .stats()
      .then((stats) => {
        pools = stats.map((pool) => ({
          ...pool,
          name: `${settings.hostName}@${settings.backendName}#${pool.poolName}`,
          backendName: settings.backendName,
          availabilityZone: settings.availabilityZone,
          storageProtocol: driver.capabilities.storageProtocol,
          thinProvisioning: driver.capabilities.thinProvisioning,
          multiattach: driver.capabilities.multiattach,
        }))
        heardAtMs = clock.monotonicMs()
        return pools
      })
      .finally(() => {
        asking = null
      })
    return asking
  }

  return {
    known: () => {
      if (clock.monotonicMs() - heardAtMs > settings.poolsMaxAgeMs && asking === null) {
        refresh().catch((error: unknown) => log.warn({ err: error }, 'the backend did not report its pools'))
      }
      return pools
    },
    refresh,
  }
}

/** The best pool for a volume. Throws NoValidBackend with the reason each pool was dropped for. */
export function choosePool(pools: readonly Pool[], request: PlacementRequest): Pool {
  const placement: Placement = place(pools, request)
  const best = placement.candidates[0]
  if (best === undefined) throw new ServiceError('NoValidBackend', { reason: explainDropped(placement.dropped) })
  return best.pool
}
