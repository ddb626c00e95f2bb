import type { Db } from '../db/database.ts'
import * as groups from '../db/groups.ts'
import * as hostUsage from '../db/host-usage.ts'
import * as snapshots from '../db/snapshots.ts'
import { ZONES_SPEC } from '../db/volume-types.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import { placeOf, splitHost } from '../scheduler/place.ts'
import {
  NO_HINTS,
  NO_WISHES,
  type Placement,
  type PlacementHints,
  type PlacementRequest,
  type Pool,
  place,
} from '../scheduler/scheduler.ts'
import type { Weights } from '../scheduler/weighers.ts'
import type { Backends } from './backends.ts'
import type { VolumeHints } from './model.ts'
import type { ServiceStates } from './service-states.ts'
import type { ServiceSettings } from './settings.ts'
import { extraSpecsOf } from './type-lookup.ts'

/** What a volume's row keeps about its placement until a pool has made it. */
export interface PlacementMemo {
  /** Any of them. */
  zones: readonly string[]
  hints: VolumeHints | null
  /** Whose volumes the hints may name; null: anybody's. */
  hintsProject: string | null
  /** Places of pools that failed to make it. */
  failed: readonly string[]
}

type Placed = Pick<volumes.VolumeRow, 'size_gib' | 'snapshot_id' | 'source_volid' | 'group_id'>

/** What the scheduler is asked for a volume. */
export async function placementRequest(
  db: Db,
  row: Placed,
  extraSpecs: Readonly<Record<string, string>>,
  memo: PlacementMemo,
): Promise<PlacementRequest> {
  return {
    sizeGib: row.size_gib,
    availabilityZones: memo.zones,
    extraSpecs,
    sourceBackend: await sourceBackend(db, row),
    failed: memo.failed,
    hints: memo.hints === null ? NO_HINTS : await resolveHints(db, memo.hints, memo.hintsProject),
  }
}

/** The same for a volume whose row is written. */
export async function placementOf(db: Db, row: volumes.VolumeRow): Promise<PlacementRequest> {
  return placementRequest(db, row, await extraSpecsOf(db, row.volume_type_id), memoOf(row))
}

export function memoOf(row: volumes.VolumeRow): PlacementMemo {
  if (row.placement !== null) return JSON.parse(row.placement)
  return { zones: [row.availability_zone], hints: null, hintsProject: row.project_id, failed: [] }
}

/** The backend of the group that this volume is in, or of the snapshot or volume that it is made from. */
async function sourceBackend(db: Db, row: Placed): Promise<string | null> {
  const group = row.group_id === null ? undefined : await groups.find(db, row.group_id)
  if (group?.host) return splitHost(group.host).backend
  const snapshot = row.snapshot_id === null ? undefined : await snapshots.find(db, row.snapshot_id)
  const sourceId = snapshot?.volume_id ?? row.source_volid
  const host = sourceId === null ? null : (await volumes.find(db, sourceId))?.host
  return host ? splitHost(host).backend : null
}

async function resolveHints(db: Db, hints: VolumeHints, projectId: string | null): Promise<PlacementHints> {
  const places = async (ids: readonly string[]) =>
    ids.length === 0 ? [] : (await hostUsage.hostsOfVolumes(db, projectId, ids)).map(placeOf)
  return {
    sameAs: hints.sameHost.length === 0 ? null : await places(hints.sameHost),
    differentFrom: await places(hints.differentHost),
    near: hints.localToInstance === null ? [] : await hostUsage.hostsOfInstance(db, projectId, hints.localToInstance),
    query: hints.query,
  }
}

/** A zone, and whether a backend in it takes new volumes. */
export interface Zone {
  name: string
  available: boolean
}

export function zonesOf(backends: Backends, states: ServiceStates): Zone[] {
  const zones = new Map<string, boolean>()
  for (const { name, availabilityZone } of backends.all) {
    const enabled = !states.of('cinder-volume', name).disabled
    zones.set(availabilityZone, (zones.get(availabilityZone) ?? false) || enabled)
  }
  return [...zones].map(([name, available]) => ({ name, available }))
}

/**
 * The zones that a new volume may come to. As upstream: the one that is asked for, else that of the source, else any that
 * the type allows (`RESKEY:availability_zones`), else the default. Throws InvalidInput.
 */
export function zonesFor(
  wanted: { asked: string | null; source: string | null; sourceIs: 'snapshot' | 'source volume' },
  extraSpecs: Readonly<Record<string, string>>,
  known: readonly string[],
  settings: ServiceSettings,
): readonly string[] {
  const ofType = zonesOfType(extraSpecs)
  const allowed = ofType === null ? known : known.filter((zone) => ofType.includes(zone))
  if (ofType !== null && allowed.length === 0) {
    const list = ofType.map((zone) => `'${zone}'`).join(', ')
    const reason = `Volume type is only supported in these availability zones: [${list}]`
    throw new ServiceError('InvalidInput', { reason })
  }
  const zone = wanted.asked ?? wanted.source ?? (ofType === null ? settings.availabilityZone : null)
  if (zone === null) return allowed
  if (!allowed.includes(zone)) {
    throw new ServiceError('InvalidInput', { reason: `Availability zone '${zone}' is invalid.` })
  }
  if (wanted.source !== null && wanted.source !== zone) {
    const reason = `Invalid input received: Volume must be in the same availability zone as the ${wanted.sourceIs}`
    throw new ServiceError('InvalidInput', { reason })
  }
  return [zone]
}

/** The zones that a type names; null when its volumes may be in any. */
function zonesOfType(extraSpecs: Readonly<Record<string, string>>): readonly string[] | null {
  const zones = extraSpecs[ZONES_SPEC]?.split(',').map((zone) => zone.trim())
  return zones?.filter((zone) => zone !== '') ?? null
}

type Located = Pick<volumes.VolumeRow, 'host' | 'availability_zone' | 'size_gib'>

/**
 * Whether a volume may have a type where it is. Its pool takes nothing new for that, unless it is to keep more copies, and so may be
 * closed, or full. `heldSpecs` are those of the type that it has.
 */
export function placeWhereItIs(
  known: readonly Pool[],
  row: Located,
  heldSpecs: Readonly<Record<string, string>>,
  extraSpecs: Readonly<Record<string, string>>,
): Placement {
  const own = row.host === null ? [] : known.filter(({ name }) => placeOf(name) === placeOf(row.host!))
  return place(
    own.map((pool) => ({ ...pool, closed: null })),
    { ...retypeRequest(row, extraSpecs), held: { sizeGib: row.size_gib, extraSpecs: heldSpecs } },
  )
}

/** The pool that a volume has to go to, to have a type; null when it may stay, or nothing else suits. */
export function placeElsewhere(
  known: readonly Pool[],
  row: Located,
  heldSpecs: Readonly<Record<string, string>>,
  extraSpecs: Readonly<Record<string, string>>,
  weights: Weights,
): Pool | null {
  const { candidates, dropped } = placeWhereItIs(known, row, heldSpecs, extraSpecs)
  if (candidates.length > 0 || dropped.length === 0) return null // of a pool that is not known, nobody knows
  return place(known, retypeRequest(row, extraSpecs), weights).candidates[0]?.pool ?? null
}

/** A volume stays in its zone, unless its new type names others. */
export function retypeRequest(row: Located, extraSpecs: Readonly<Record<string, string>>): PlacementRequest {
  const availabilityZones = zonesOfType(extraSpecs) ?? [row.availability_zone]
  return { ...NO_WISHES, sizeGib: row.size_gib, availabilityZones, extraSpecs }
}
