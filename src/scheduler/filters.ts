import type { PlacementRequest, Pool } from './scheduler.ts'

/** Says why the pool cannot take the volume, or null. */
export type Filter = (pool: Pool, request: PlacementRequest) => string | null

/**
 * Room for the volume, with the reserve kept free. A thin pool may promise up to its over-subscription ratio, but
 * never takes a volume larger than what its free space could hold at that ratio, as in Cinder's CapacityFilter.
 */
const capacity: Filter = (pool, { sizeGib }) => {
  if (pool.totalCapacityGib <= 0) return 'it has no capacity'
  const reservedGib = (pool.totalCapacityGib * pool.reservedPercentage) / 100
  const freeGib = pool.freeCapacityGib - reservedGib
  if (!pool.thinProvisioning)
    return sizeGib <= freeGib ? null : `${sizeGib} GiB do not fit into ${round(freeGib)} GiB free`
  const promisedGib = pool.provisionedCapacityGib + sizeGib
  const limitGib = pool.totalCapacityGib * pool.maxOverSubscriptionRatio
  if (promisedGib > limitGib)
    return `${round(promisedGib)} GiB promised would exceed the limit of ${round(limitGib)} GiB`
  const virtualGib = freeGib * pool.maxOverSubscriptionRatio
  return sizeGib <= virtualGib
    ? null
    : `${sizeGib} GiB do not fit into ${round(virtualGib)} GiB of over-subscribed free space`
}

const availabilityZone: Filter = (pool, request) =>
  request.availabilityZone === null || request.availabilityZone === pool.availabilityZone
    ? null
    : `it is in availability zone ${pool.availabilityZone}`

/**
 * Extra specs without a scope or with the scope `capabilities` must match what the pool can do; other scopes speak to
 * other parts.
 */
const capabilities: Filter = (pool, { extraSpecs }) => {
  const offered: Readonly<Record<string, string | boolean>> = {
    volume_backend_name: pool.backendName,
    pool_name: pool.poolName,
    storage_protocol: pool.storageProtocol,
    multiattach: pool.multiattach,
    thin_provisioning_support: pool.thinProvisioning,
    thick_provisioning_support: !pool.thinProvisioning,
  }
  for (const [key, wanted] of Object.entries(extraSpecs)) {
    const [scope, name] = key.includes(':') ? key.split(':', 2) : ['capabilities', key]
    if (scope !== 'capabilities' || name === undefined) continue
    if (!Object.hasOwn(offered, name)) return `it does not know the capability ${name}`
    if (!satisfies(offered[name]!, wanted)) return `its ${name} is ${offered[name]}, not ${wanted}`
  }
  return null
}

/** Extra spec values in Cinder's small language: `<is> True`, or the text itself. */
export function satisfies(offered: string | boolean, wanted: string): boolean {
  const text = wanted.startsWith('<is> ') ? wanted.slice('<is> '.length) : wanted
  return typeof offered === 'boolean' ? text.toLowerCase() === String(offered) : text === offered
}

/** In the order they are asked; the first refusal is the reason that is told. */
export const FILTERS: Readonly<Record<string, Filter>> = { availabilityZone, capacity, capabilities }

function round(gib: number): number {
  return Math.floor(gib * 10) / 10
}
