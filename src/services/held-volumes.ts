import type { Db } from '../db/database.ts'
import * as hostUsage from '../db/host-usage.ts'
import * as volumeTypes from '../db/volume-types.ts'
import type { PoolStats } from '../drivers/driver.ts'
import { COPIES_SPEC, takenGib } from '../scheduler/copies.ts'
import { placeOf } from '../scheduler/place.ts'
import { toPairs } from './rows.ts'

/** Extra specs by the id of the type. */
type SpecsByType = ReadonlyMap<string, Readonly<Record<string, string>>>

/** What the service has in one pool. */
export interface HeldVolumes {
  count: number
  /** GiB of the capacity that the pool reports: more of volumes with more copies. */
  takenGib(pool: Pick<PoolStats, 'sizeFactors'>): number
}

/** Of the types whose volumes have a number of copies of their own: few have, and all others need not be looked at. */
export async function copiesSpecsByType(db: Db): Promise<SpecsByType> {
  const rows = await volumeTypes.withSpec(db, COPIES_SPEC)
  return new Map(rows.map(({ id, extra_specs }) => [id, toPairs(extra_specs)]))
}

/** By place, `backend#pool`. */
export async function heldVolumes(db: Db, specs: SpecsByType): Promise<ReadonlyMap<string, HeldVolumes>> {
  const places = new Map<string, { count: number; sizeGib: number; copied: hostUsage.HostAndTypeUsage[] }>()
  for (const { host, count, sizeGib } of await hostUsage.byHost(db)) {
    const before = places.get(placeOf(host)) ?? { count: 0, sizeGib: 0, copied: [] }
    places.set(placeOf(host), { ...before, count: before.count + count, sizeGib: before.sizeGib + sizeGib })
  }
  const copied = specs.size === 0 ? [] : await hostUsage.byHostAndType(db, [...specs.keys()])
  for (const usage of copied) places.get(placeOf(usage.host))?.copied.push(usage)
  const moreGib = (pool: Pick<PoolStats, 'sizeFactors'>, { sizeGib, typeId }: hostUsage.HostAndTypeUsage) =>
    takenGib(pool, sizeGib, specs.get(typeId)!) - sizeGib
  return new Map(
    [...places].map(([place, { count, sizeGib, copied }]) => [
      place,
      { count, takenGib: (pool) => copied.reduce((sum, usage) => sum + moreGib(pool, usage), sizeGib) },
    ]),
  )
}
