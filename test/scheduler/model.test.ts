import fc from 'fast-check'
import { expect, it } from 'vitest'
import { NO_HINTS, type PlacementRequest, type Pool, place } from '../../src/scheduler/scheduler.ts'
import { DEFAULT_WEIGHTS, type Weights } from '../../src/scheduler/weighers.ts'
import { pool, request } from './pools.ts'

/** Any pools and requests against a second version of the rules that is as plain as can be. */

const zone = fc.constantFrom('az1', 'az2', 'az3')
const gib = fc.integer({ min: 0, max: 120 })
const capacity = fc.oneof({ weight: 8, arbitrary: gib }, fc.constantFrom('infinite' as const, 'unknown' as const))

const anyPools = fc
  .array(
    fc.record({
      backendName: fc.constantFrom('one', 'two', 'three'),
      volumeBackendName: fc.constantFrom('fast', 'slow'),
      availabilityZone: zone,
      thinProvisioning: fc.boolean(),
      multiattach: fc.boolean(),
      totalCapacityGib: capacity,
      freeCapacityGib: capacity,
      provisionedCapacityGib: gib,
      promisedGib: fc.integer({ min: 0, max: 20 }),
      reservedPercentage: fc.constantFrom(0, 10, 33),
      maxOverSubscriptionRatio: fc.constantFrom(1, 1.5, 20),
      volumeCount: fc.integer({ min: 0, max: 5 }),
      allocatedCapacityGib: gib,
      closed: fc.option(fc.constant('its service is disabled'), { freq: 6 }),
    }),
    { maxLength: 8 },
  )
  .map((drawn) =>
    drawn.map((one, index) => pool({ ...one, name: `host@${one.backendName}#p${index}`, poolName: `p${index}` })),
  )

const somePlaces = fc.subarray(['one#p0', 'two#p1', 'three#p2', 'one#p3'])

const anyRequest: fc.Arbitrary<PlacementRequest> = fc.record({
  sizeGib: fc.integer({ min: 0, max: 100 }),
  availabilityZones: fc.uniqueArray(zone, { maxLength: 2 }),
  extraSpecs: fc.constantFrom<Record<string, string>[]>(
    {},
    { volume_backend_name: 'fast' },
    { multiattach: '<is> True', 'capabilities:volume_backend_name': '<or> fast <or> slow' },
    { 'provisioning:type': 'thick' },
  ),
  sourceBackend: fc.option(fc.constantFrom('one', 'two'), { freq: 4 }),
  failed: somePlaces,
  hints: fc.record({
    sameAs: fc.option(somePlaces, { freq: 4 }),
    differentFrom: somePlaces,
    near: fc.constantFrom([], ['host'], ['elsewhere']),
    query: fc.constantFrom(null, ['=', '$thin_provisioning_support', true]),
  }),
})

function fits(one: Pool, wanted: PlacementRequest): boolean {
  const place = `${one.backendName}#${one.poolName}`
  const { sameAs, differentFrom, near, query } = wanted.hints
  if (one.closed !== null || wanted.failed.includes(place) || differentFrom.includes(place)) return false
  if (wanted.availabilityZones.length > 0 && !wanted.availabilityZones.includes(one.availabilityZone)) return false
  if (wanted.sourceBackend !== null && wanted.sourceBackend !== one.backendName) return false
  if (sameAs !== null && !sameAs.includes(place)) return false
  if (near.includes('elsewhere')) return false
  if (query !== null && !one.thinProvisioning) return false
  if (wanted.extraSpecs.volume_backend_name === 'fast' && one.volumeBackendName !== 'fast') return false
  if (wanted.extraSpecs.multiattach !== undefined && !one.multiattach) return false
  return hasRoom(one, wanted)
}

function hasRoom(one: Pool, { sizeGib, extraSpecs }: PlacementRequest): boolean {
  const { totalCapacityGib: total, freeCapacityGib: free, maxOverSubscriptionRatio: ratio } = one
  if (sizeGib === 0 || free === 'infinite' || free === 'unknown') return true
  if (total === 'infinite' || total === 'unknown') return one.reservedPercentage === 0
  if (total === 0) return false
  const reserved = Math.floor((total * one.reservedPercentage) / 100)
  const taken = one.provisionedCapacityGib + one.promisedGib
  if (one.thinProvisioning && extraSpecs['provisioning:type'] !== 'thick') {
    return taken + sizeGib <= (total - reserved) * ratio && sizeGib <= (free - reserved) * ratio
  }
  return taken + sizeGib <= total - reserved && sizeGib + one.promisedGib <= free - reserved
}

it('lets through what the rules say, each pool on one side, with a reason for each that is dropped', () => {
  fc.assert(
    fc.property(anyPools, anyRequest, (pools, wanted) => {
      const { candidates, dropped } = place(pools, wanted)
      const left = candidates.map((one) => one.pool.name)
      expect([...left, ...dropped.map((one) => one.pool.name)].sort()).toEqual(pools.map(({ name }) => name).sort())
      expect(left.toSorted()).toEqual(
        pools
          .filter((one) => fits(one, wanted))
          .map(({ name }) => name)
          .sort(),
      )
      for (const { filter, reason } of dropped) expect([filter, reason]).not.toContain('')
    }),
    { numRuns: 2000 },
  )
})

const anyWeights: fc.Arbitrary<Weights> = fc.record({
  capacity: fc.constantFrom(-1, 0, 1),
  allocatedCapacity: fc.constantFrom(-1, 0, 1),
  volumeNumber: fc.constantFrom(-1, 0, 1),
  goodness: fc.constantFrom(-1, 0, 1),
})

it('has one order for the same pools, in whatever order they come, best first', () => {
  fc.assert(
    fc.property(anyPools, anyWeights, fc.infiniteStream(fc.nat()), (pools, weights, keys) => {
      const order = (given: Pool[]) => place(given, request({ sizeGib: 0 }), weights).candidates
      const shuffled = pools
        .map((one) => ({ one, key: keys.next().value }))
        .sort((a, b) => a.key - b.key)
        .map(({ one }) => one)
      const names = order(pools).map((candidate) => candidate.pool.name)
      expect(order(shuffled).map((candidate) => candidate.pool.name)).toEqual(names)
      const values = order(pools).map(({ weight }) => weight)
      expect(values).toEqual(values.toSorted((a, b) => b - a))
    }),
  )
})

it('prefers, with the weight of one thing alone, whoever has more or less of it', () => {
  fc.assert(
    fc.property(anyPools, fc.constantFrom(-1, 1), (pools, sign) => {
      const { candidates } = place(pools, request({ sizeGib: 0, hints: NO_HINTS }), {
        ...DEFAULT_WEIGHTS,
        capacity: 0,
        volumeNumber: sign,
      })
      const counts = candidates.map((candidate) => candidate.pool.volumeCount)
      expect(counts).toEqual(counts.toSorted((a, b) => (b - a) * sign))
    }),
  )
})
