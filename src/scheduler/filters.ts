import { capabilitiesOf } from './capabilities.ts'
import { refuseForCapacity } from './capacity.ts'
import { copiesOf, refuseCopies, sameCopies } from './copies.ts'
import { satisfies } from './extra-specs.ts'
import { placeOf, splitHost } from './place.ts'
import { refuseForQuery } from './query.ts'
import type { PlacementRequest, Pool } from './scheduler.ts'

/** Says why the pool cannot take the volume, or null. The reason is the end of a sentence that the pool's name begins. */
export type Filter = (pool: Pool, request: PlacementRequest) => string | null

const service: Filter = (pool) => pool.closed

const availabilityZone: Filter = (pool, { availabilityZones }) =>
  availabilityZones.length === 0 || availabilityZones.includes(pool.availabilityZone)
    ? null
    : `it is in availability zone ${pool.availabilityZone}`

const source: Filter = (pool, { sourceBackend }) =>
  sourceBackend === null || sourceBackend === pool.backendName
    ? null
    : `the source, or the group, is in backend ${sourceBackend}`

const retry: Filter = (pool, { failed }) =>
  failed.includes(placeOf(pool.name)) ? 'it has failed to make this volume' : null

/**
 * Extra specs without a scope, or with the scope `capabilities`, must match what the pool can do; other scopes speak to
 * other parts.
 */
const capabilities: Filter = (pool, { extraSpecs }) => {
  const offered = capabilitiesOf(pool)
  for (const [key, wanted] of Object.entries(extraSpecs)) {
    const [scope, ...names] = key.includes(':') ? key.split(':') : ['capabilities', key]
    if (scope !== 'capabilities') continue
    const name = names.join(':')
    if (!Object.hasOwn(offered, name)) return `it does not know the capability ${name}`
    if (!satisfies(offered[name]!, wanted)) return `its ${name} is ${offered[name]}, not ${wanted}`
  }
  return null
}

const copies: Filter = ({ sizeFactors }, { extraSpecs, held }) => {
  if (held !== undefined && sameCopies(held.extraSpecs, extraSpecs)) return null // some of the nodes may be gone
  const refusal = refuseCopies(extraSpecs)
  if (refusal !== null) return refusal
  const wanted = copiesOf(extraSpecs)?.copies ?? 1
  const most = sizeFactors.length
  return wanted <= most
    ? null
    : `it has room for ${most === 1 ? 'one copy' : `${most} copies`} of a volume, not ${wanted}`
}

const differentBackend: Filter = (pool, { hints }) =>
  hints.differentFrom.includes(placeOf(pool.name)) ? 'it has a volume that the hint `different_host` names' : null

const sameBackend: Filter = (pool, { hints }) =>
  hints.sameAs === null || hints.sameAs.includes(placeOf(pool.name))
    ? null
    : 'it has none of the volumes that the hint `same_host` names'

const instanceLocality: Filter = (pool, { hints }) =>
  hints.near.length === 0 || hints.near.includes(splitHost(pool.name).host)
    ? null
    : `the instance is on ${hints.near.join(', ')}`

const query: Filter = (pool, { hints }) => refuseForQuery(hints.query, pool)

/** In the order they are asked; the first refusal is the reason that is told. */
export const FILTERS: Readonly<Record<string, Filter>> = {
  service,
  availabilityZone,
  source,
  retry,
  copies,
  capacity: refuseForCapacity,
  capabilities,
  differentBackend,
  sameBackend,
  instanceLocality,
  query,
}
