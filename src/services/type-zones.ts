import { ZONES_SPEC } from '../db/volume-types.ts'
import { ServiceError } from '../errors.ts'

export interface ZoneRequest {
  /** What the request names, else where its source is; null leaves it to the type and the settings. */
  wanted: string | null
  extraSpecs: Readonly<Record<string, string>>
  /** Zones that there are. */
  known: readonly string[]
  /** Of volumes that name none. */
  preset: string
}

/**
 * The zones in which a volume may be made, never empty: those of its type as far as they exist, or the one that was
 * asked for when it is among them.
 */
export function zonesFor({ wanted, extraSpecs, known, preset }: ZoneRequest): readonly [string, ...string[]] {
  const ofType = zonesOfType(extraSpecs)
  const [first, ...others] = ofType === null ? known : known.filter((zone) => ofType.includes(zone))
  if (ofType !== null && first === undefined) {
    const shown = ofType.map((zone) => `'${zone}'`).join(', ')
    throw invalid(`Volume type is only supported in these availability zones: [${shown}]`)
  }
  const zone = wanted ?? (ofType === null ? preset : (first ?? preset))
  if (first === undefined || ![first, ...others].includes(zone)) {
    throw invalid(`Availability zone '${zone}' is invalid.`)
  }
  return wanted === null && ofType !== null ? [first, ...others] : [zone]
}

/** Null when the type leaves the zone open. */
function zonesOfType(extraSpecs: Readonly<Record<string, string>>): string[] | null {
  const list = extraSpecs[ZONES_SPEC]
  if (list === undefined) return null
  return list
    .split(',')
    .filter((zone) => zone !== '')
    .map((zone) => zone.trim())
}

function invalid(reason: string): ServiceError {
  return new ServiceError('InvalidInput', { reason })
}
