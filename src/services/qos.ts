import type { Db } from '../db/database.ts'
import * as qosSpecs from '../db/qos-specs.ts'
import type { VolumeDriver, VolumeLimits, VolumeRate } from '../drivers/driver.ts'
import { volumeRef } from './refs.ts'
import { toPairs } from './rows.ts'

/** What QoS specs mean for a volume: to the hypervisor, and to the backend. */
export interface VolumeQos {
  /** `qos_specs` of the connection information; null when the hypervisor has nothing to keep. */
  frontEnd: Record<string, string | number> | null
  /** Null when the backend has nothing to keep. */
  limits: VolumeLimits | null
}

interface TypedVolume {
  id: string
  name_id: string | null
  volume_type_id: string
  size_gib: number
}

export async function qosOfVolume(
  db: Db,
  volume: Pick<TypedVolume, 'volume_type_id' | 'size_gib'>,
): Promise<VolumeQos> {
  const row = await qosSpecs.ofType(db, volume.volume_type_id)
  if (row === undefined) return { frontEnd: null, limits: null }
  const specs = specsForSize(toPairs(row.specs), volume.size_gib)
  return {
    frontEnd: row.consumer === 'back-end' ? null : specs,
    limits: row.consumer === 'front-end' ? null : limitsOf(specs),
  }
}

/** Brings the exports that a volume has to what its type and size promise now. May be repeated. */
export async function limitExports(db: Db, driver: VolumeDriver, volume: TypedVolume): Promise<void> {
  if (driver.limitVolume === undefined) return
  const { limits } = await qosOfVolume(db, volume)
  await driver.limitVolume(volumeRef(volume), limits)
}

/** Whether a volume that is in use may change its type, as far as the hypervisor has been told what it promises. */
export async function mayChangeInUse(db: Db, oldTypeId: string, newTypeId: string): Promise<boolean> {
  const [before, after] = [await qosSpecs.ofType(db, oldTypeId), await qosSpecs.ofType(db, newTypeId)]
  const isBackEnd = (row: qosSpecs.QosSpecRow | undefined) => row === undefined || row.consumer === 'back-end'
  return before?.id === after?.id || (isBackEnd(before) && isBackEnd(after))
}

const DIRECTIONS = ['total', 'read', 'write'] as const
const UNITS = ['iops', 'bytes'] as const
const RATES = DIRECTIONS.flatMap((direction) => UNITS.map((unit) => `${direction}_${unit}_sec` as const))

/**
 * The specs of a volume of that size: `total_iops_sec_per_gb` becomes `total_iops_sec`, no less than `…_per_gb_min` and no more
 * than `…_max`, which is no burst then; and so for the five others. What is no number stays as it is.
 */
export function specsForSize(
  specs: Readonly<Record<string, string>>,
  sizeGib: number,
): Record<string, string | number> {
  const resolved: Record<string, string | number> = { ...specs }
  for (const rate of RATES) {
    const perGib = numberOf(specs[`${rate}_per_gb`])
    const least = numberOf(specs[`${rate}_per_gb_min`] ?? '0')
    const most = specs[`${rate}_max`] === undefined ? Number.POSITIVE_INFINITY : numberOf(specs[`${rate}_max`])
    if (perGib === null || least === null || most === null) continue
    resolved[rate] = Math.min(Math.max(least, perGib * sizeGib), most)
    for (const form of ['per_gb', 'per_gb_min', 'max']) delete resolved[`${rate}_${form}`]
  }
  return resolved
}

/**
 * What specs for a size limit: the six rates, each with a burst (`…_max`) that lasts `…_max_length` seconds. 0 limits nothing, and
 * neither does what is no number, nor a key that nobody knows.
 */
export function limitsOf(specs: Readonly<Record<string, string | number>>): VolumeLimits | null {
  const limits: VolumeLimits = {}
  for (const direction of DIRECTIONS) {
    for (const unit of UNITS) {
      const rate = rateOf(specs, `${direction}_${unit}_sec`)
      if (rate !== null) limits[`${direction}${unit === 'iops' ? 'Iops' : 'Bytes'}`] = rate
    }
  }
  return Object.keys(limits).length > 0 ? limits : null
}

function rateOf(specs: Readonly<Record<string, string | number>>, key: string): VolumeRate | null {
  const perSecond = numberOf(specs[key])
  if (!perSecond) return null
  const burstPerSecond = numberOf(specs[`${key}_max`])
  if (burstPerSecond === null || burstPerSecond <= perSecond) return { perSecond }
  return { perSecond, burstPerSecond, burstSeconds: numberOf(specs[`${key}_max_length`]) || 1 }
}

/** A whole number in decimal notation; null for anything else. */
function numberOf(value: string | number | undefined): number | null {
  const text = String(value ?? '').trim()
  return /^\d{1,15}$/.test(text) ? Number(text) : null
}
