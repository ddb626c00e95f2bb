import { ServiceError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import { explainDropped, type Placement, type PlacementRequest, type Pool, place } from '../scheduler/scheduler.ts'
import type { Backend, Backends } from './backends.ts'
import type { ServiceSettings } from './settings.ts'

/** The pools of all backends, as far as they are known. */
export interface Pools {
  /** What was last heard. Asks again in the background when that is old, so that no request waits for a backend. */
  known(): readonly Pool[]
  /** Asks the backends now. One that does not answer has no pools; rejects when none answers. */
  refresh(): Promise<readonly Pool[]>
}

export function createPools(backends: Backends, settings: ServiceSettings, clock: Clock, log: Log): Pools {
  let pools: readonly Pool[] = []
  let heardAtMs = Number.NEGATIVE_INFINITY
  let asking: Promise<readonly Pool[]> | null = null

  function refresh(): Promise<readonly Pool[]> {
    asking ??= Promise.allSettled(backends.all.map((backend) => poolsOf(backend, settings)))
      .then((answers) => {
        const failures = answers.flatMap((answer, index) =>
          answer.status === 'rejected' ? [{ backend: backends.all[index]!.name, err: answer.reason as unknown }] : [],
        )
        for (const failure of failures) log.warn(failure, 'the backend did not report its pools')
        if (failures.length === answers.length && failures.length > 0) throw failures[0]!.err
        pools = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []))
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
        refresh().catch(() => {}) // logged where it failed
      }
      return pools
    },
    refresh,
  }
}

async function poolsOf({ name, availabilityZone, driver }: Backend, settings: ServiceSettings): Promise<Pool[]> {
  return (await driver.stats()).map((pool) => ({
    ...pool,
    name: `${settings.hostName}@${name}#${pool.poolName}`,
    backendName: name,
    availabilityZone,
    storageProtocol: driver.capabilities.storageProtocol,
    thinProvisioning: driver.capabilities.thinProvisioning,
    multiattach: driver.capabilities.multiattach,
  }))
}

/** The best pool for a volume. Throws NoValidBackend with the reason each pool was dropped for. */
export function choosePool(pools: readonly Pool[], request: PlacementRequest): Pool {
  const placement: Placement = place(pools, request)
  const best = placement.candidates[0]
  if (best === undefined) throw new ServiceError('NoValidBackend', { reason: explainDropped(placement.dropped) })
  return best.pool
}
