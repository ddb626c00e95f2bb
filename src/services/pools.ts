import type { Db } from '../db/database.ts'
import * as hostUsage from '../db/host-usage.ts'
import * as rooms from '../db/rooms.ts'
import type { PoolStats } from '../drivers/driver.ts'
import { ServiceError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import { wantedGib } from '../scheduler/capacity.ts'
import { isOfCopies, takenGib } from '../scheduler/copies.ts'
import { placeOf, splitHost } from '../scheduler/place.ts'
import {
  explainDropped,
  NO_WISHES,
  type Placement,
  type PlacementRequest,
  type Pool,
  place,
} from '../scheduler/scheduler.ts'
import type { Backend, Backends } from './backends.ts'
import { copiesSpecsByType, type HeldVolumes, heldVolumes } from './held-volumes.ts'
import { claimOf, createPromises } from './promises.ts'
import type { ServiceStates } from './service-states.ts'
import type { ServiceSettings } from './settings.ts'
import type { Stamp } from './stamp.ts'

/** What is known of a backend itself. */
export interface BackendHealth {
  /** It answered when it was asked last. */
  up: boolean
  /** Why it did not; null while it is up. */
  reason: string | null
  /** When it last answered; null for never. */
  heardAt: string | null
}

/** The pools of all backends, as far as they are known, and the room in them. */
export interface Pools {
  /**
   * What was heard lately, also of backends that have stopped answering (they are closed then), with what was promised
   * since.
   */
  current(): Promise<readonly Pool[]>
  /** Asks the backends now. One that does not answer keeps nobody else from being heard; rejects when none answers. */
  refresh(): Promise<void>
  health(backend: string): BackendHealth
  /**
   * The best pool for a volume, by what is known: reports that are old are renewed in the background, so that no request
   * waits for a backend. Room in it is the volume's when the transaction commits, and nobody promises any until then, in any
   * process; so it comes before the row of the volume, which the same transaction writes. Null when no pool fits.
   */
  reserve(trx: Db, volumeId: string, request: PlacementRequest): Promise<Pool | null>
  /** What `reserve` would answer at this moment. */
  find(volumeId: string, request: PlacementRequest): Promise<Pool | null>
  /**
   * Resolves when `reserve` has a chance, by new reports, for work that goes on behind a request. Throws NoValidBackend with the
   * reason why each pool was dropped; ServiceUnavailable when that may change by itself, as with a backend that does not answer.
   */
  requireRoom(volumeId: string, request: PlacementRequest): Promise<void>
  /**
   * The best pool of a backend that meets each of several lists of extra specs in one of its pools: where a group of volumes may
   * be, for which no room is asked. Throws as `requireRoom`.
   */
  chooseForAll(wishes: readonly Readonly<Record<string, string>>[], availabilityZones: readonly string[]): Promise<Pool>
  /** As `reserve`, for a volume that grows where it is. False without room. */
  reserveGrowth(trx: Db, volume: Growing, newSizeGib: number): Promise<boolean>
  /** As `requireRoom`, for a volume that grows and whose row says so already. */
  requireGrowth(volume: Growing, newSizeGib: number): Promise<void>
}

/** A volume that grows; `extraSpecs` are those of its type. */
export interface Growing {
  id: string
  host: string
  sizeGib: number
  extraSpecs: Readonly<Record<string, string>>
}

export interface PoolsOptions {
  db: Db
  backends: Backends
  states: ServiceStates
  settings: ServiceSettings
  clock: Clock
  stamp: Stamp
  log: Log
}

const UNHEARD: BackendHealth = { up: false, reason: 'it has not been asked yet', heardAt: null }

export function createPools(options: PoolsOptions): Pools {
  const { db, backends, states, settings, clock, stamp, log } = options
  const promises = createPromises()
  const started = new Set<string>() // backends whose driver is
  const seen = new Set<string>() // places that have their row
  const health = new Map<string, BackendHealth>()
  const reports = new Map<string, readonly PoolStats[]>() // the last of each backend
  let usage: ReadonlyMap<string, HeldVolumes> = new Map() // by place
  let askedAtMs = Number.NEGATIVE_INFINITY
  let asking: Promise<void> | null = null

  async function ask(): Promise<void> {
    const promised = await rooms.read(db)
    await states.load()
    const pending = await hostUsage.pending(db)
    const specs = await copiesSpecsByType(db)
    const held = await heldVolumes(db, specs)
    const heard = (await Promise.all(backends.all.map(askOne))).flat()
    const unseen = heard.filter((place) => !seen.has(place))
    await rooms.ensure(db, unseen)
    for (const place of unseen) seen.add(place)
    askedAtMs = clock.monotonicMs()
    usage = held
    promises.endRound({
      promised,
      heard,
      pending: pending.map(({ id, host, sizeGib, newSizeGib, typeId }) => {
        const place = placeOf(host)
        const taken = (gib: number) => takenGib(factorsAt(place), gib, specs.get(typeId) ?? {})
        const claimedGib = newSizeGib === null ? taken(sizeGib) : taken(newSizeGib) - taken(sizeGib)
        return { claim: claimOf(id, newSizeGib), place, sizeGib: claimedGib }
      }),
    })
    const down = backends.all.map(({ name }) => healthOf(name))
    if (down.length > 0 && down.every(({ up }) => !up)) {
      throw new ServiceError('ServiceUnavailable', { reason: `No backend answers: ${down[0]!.reason}` })
    }
  }

  /** Answers the places that it heard of. */
  async function askOne({ name, driver }: Backend): Promise<string[]> {
    const before = healthOf(name)
    try {
      if (!started.has(name)) await driver.start()
      started.add(name)
      const report = await driver.stats()
      reports.set(name, report)
      health.set(name, { up: true, reason: null, heardAt: stamp() })
      if (!before.up && before.heardAt !== null) log.info({ backend: name }, 'the backend answers again')
      return report.map(({ poolName }) => placeOf(nameOf(name, poolName)))
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      health.set(name, { up: false, reason, heardAt: before.heardAt })
      const isNews = before.up || before.reason !== reason
      log[isNews ? 'warn' : 'debug']({ backend: name, err: error }, 'the backend did not report its pools')
      return []
    }
  }

  function refresh(): Promise<void> {
    asking ??= ask().finally(() => {
      asking = null
    })
    return asking
  }

  /** As the pool there has reported them last. */
  function factorsAt(place: string): Pick<PoolStats, 'sizeFactors'> {
    const { backend, pool } = splitHost(place)
    return reports.get(backend)?.find(({ poolName }) => poolName === pool) ?? { sizeFactors: [] }
  }

  const nameOf = (backend: string, pool: string) => `${settings.hostName}@${backend}#${pool}`
  const healthOf = (backend: string) => health.get(backend) ?? UNHEARD
  const isOld = () => clock.monotonicMs() - askedAtMs > settings.poolsMaxAgeMs

  /** With what was promised to everybody but `except`. */
  function poolsWithout(promised: rooms.PromisedGib, except?: string): Pool[] {
    return backends.all.flatMap((backend) =>
      (reports.get(backend.name) ?? []).map((stats): Pool => {
        const { name: backendName, availabilityZone, volumeBackendName = backendName, driver } = backend
        const name = nameOf(backendName, stats.poolName)
        const held = usage.get(placeOf(name))
        return {
          ...stats,
          name,
          backendName,
          volumeBackendName,
          availabilityZone,
          storageProtocol: driver.capabilities.storageProtocol,
          thinProvisioning: driver.capabilities.thinProvisioning,
          multiattach: driver.capabilities.multiattach,
          extendInUse: driver.capabilities.extendInUse,
          allocatedCapacityGib: held?.takenGib(stats) ?? 0,
          volumeCount: held?.count ?? 0,
          promisedGib: promises.gibOf(placeOf(name), promised, except),
          closed: whyClosed(backendName),
        }
      }),
    )
  }

  function whyClosed(backend: string): string | null {
    const { up, reason } = healthOf(backend)
    const { disabled, disabledReason, frozen } = states.of('cinder-volume', backend)
    if (frozen) return 'its backend is frozen'
    if (disabled) return `its service is disabled${disabledReason ? `: ${disabledReason}` : ''}`
    return up ? null : `its backend does not answer: ${reason}`
  }

  function placementOf(promised: rooms.PromisedGib, volumeId: string, request: PlacementRequest): Placement {
    const placement = place(poolsWithout(promised, volumeId), request, settings.scheduler.weights)
    if (placement.dropped.length > 0) {
      const dropped = placement.dropped.map((one) => `${one.pool.name}: ${one.reason} (${one.filter})`)
      log.info({ volumeId, pool: placement.candidates[0]?.pool.name ?? null, dropped }, 'pools were left out')
    }
    return placement
  }

  /** Null for one in a pool of which nothing is known: the backend will say. */
  function growthPlacement(
    promised: rooms.PromisedGib,
    { id, host, sizeGib, extraSpecs }: Growing,
    newSizeGib: number,
  ): (Placement & { growthGib: number }) | null {
    const known = poolsWithout(promised, claimOf(id, newSizeGib))
    const pool = known.find(({ name }) => placeOf(name) === placeOf(host))
    if (pool === undefined) return null
    // It is there already, so that of its type only that counts which says what room is.
    const counting = Object.entries(extraSpecs).filter(([key]) => key.startsWith('provisioning:') || isOfCopies(key))
    const specs = Object.fromEntries(counting)
    const request = { ...NO_WISHES, sizeGib: newSizeGib, extraSpecs: specs, held: { sizeGib, extraSpecs: specs } }
    return { ...place([{ ...pool, closed: null }], request), growthGib: wantedGib(pool, request) }
  }

  function renewOld(): void {
    if (isOld() && asking === null) refresh().catch(() => {}) // logged where it failed
  }

  function explain({ dropped }: Placement): string {
    const silent = backends.all
      .filter(({ name }) => !reports.has(name))
      .map(({ name }) => `${settings.hostName}@${name}: it does not answer: ${healthOf(name).reason} (service).`)
    return dropped.length === 0 && silent.length > 0 ? silent.join(' ') : [explainDropped(dropped), ...silent].join(' ')
  }

  return {
    current: async () => {
      if (isOld()) await refresh().catch(() => {}) // the health of each says so
      return poolsWithout(await rooms.read(db))
    },
    refresh,
    health: healthOf,
    reserve: async (trx, volumeId, request) => {
      renewOld()
      const pool = placementOf(await rooms.lock(trx), volumeId, request).candidates[0]?.pool ?? null
      if (pool !== null) await rooms.promise(trx, placeOf(pool.name), wantedGib(pool, request))
      return pool
    },
    find: async (volumeId, request) => placementOf(await rooms.read(db), volumeId, request).candidates[0]?.pool ?? null,
    requireRoom: async (volumeId, request) => {
      await refresh()
      const placement = placementOf(await rooms.read(db), volumeId, request)
      if (placement.candidates.length > 0) return
      const reason = explain(placement)
      if (backends.all.some(({ name }) => !healthOf(name).up)) throw new ServiceError('ServiceUnavailable', { reason })
      const later = place(
        poolsWithout(new Map()).map((one) => ({ ...one, promisedGib: 0 })),
        request,
      )
      // What is promised may be in the reports already, which the next ones settle.
      if (later.candidates.length > 0) throw new ServiceError('ServiceUnavailable', { reason })
      throw new ServiceError('NoValidBackend', { reason })
    },
    chooseForAll: async (wishes, availabilityZones) => {
      await refresh()
      const known = poolsWithout(await rooms.read(db))
      const placements = wishes.map((extraSpecs) =>
        place(known, { ...NO_WISHES, sizeGib: 0, availabilityZones, extraSpecs }, settings.scheduler.weights),
      )
      const meetsAll = ({ backendName }: Pool) =>
        placements.every(({ candidates }) => candidates.some(({ pool }) => pool.backendName === backendName))
      const best = placements.at(-1)?.candidates.find(({ pool }) => meetsAll(pool))
      if (best !== undefined) return best.pool
      const reason = placements.map(explain).join(' ')
      const isAway = backends.all.some(({ name }) => !healthOf(name).up)
      throw new ServiceError(isAway ? 'ServiceUnavailable' : 'NoValidBackend', { reason })
    },
    reserveGrowth: async (trx, volume, newSizeGib) => {
      renewOld()
      const placement = growthPlacement(await rooms.lock(trx), volume, newSizeGib)
      if (placement?.candidates.length === 0) return false
      await rooms.promise(trx, placeOf(volume.host), placement?.growthGib ?? newSizeGib - volume.sizeGib)
      return true
    },
    requireGrowth: async (volume, newSizeGib) => {
      await refresh()
      const placement = growthPlacement(await rooms.read(db), volume, newSizeGib)
      if (placement?.candidates.length === 0) {
        throw new ServiceError('NoValidBackend', { reason: explainDropped(placement.dropped) })
      }
    },
  }
}
