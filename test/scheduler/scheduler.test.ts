import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { satisfies } from '../../src/scheduler/filters.ts'
import { explainDropped, type Pool, place, virtualFreeGib } from '../../src/scheduler/scheduler.ts'

function pool(overrides: Partial<Pool> = {}): Pool {
  return {
    name: 'host@sheepdog#pool',
    poolName: 'pool',
    backendName: 'sheepdog',
    availabilityZone: 'nova',
    storageProtocol: 'nbd',
    thinProvisioning: true,
    multiattach: true,
    totalCapacityGib: 100,
    freeCapacityGib: 50,
    provisionedCapacityGib: 100,
    reservedPercentage: 10,
    maxOverSubscriptionRatio: 2,
    ...overrides,
  }
}

const request = { sizeGib: 1, availabilityZone: null, extraSpecs: {} }
const reasonOf = (one: Pool, wanted: Partial<typeof request> & { extraSpecs?: Record<string, string> }) =>
  place([one], { ...request, ...wanted }).dropped[0]?.reason ?? null

describe('capacity', () => {
  it('lets a thin pool promise up to its ratio', () => {
    expect(reasonOf(pool(), { sizeGib: 80 })).toBeNull()
    expect(reasonOf(pool({ freeCapacityGib: 100 }), { sizeGib: 100 })).toBeNull()
    expect(reasonOf(pool({ freeCapacityGib: 100 }), { sizeGib: 101 })).toBe(
      '201 GiB promised would exceed the limit of 200 GiB',
    )
  })

  it('keeps the reserve out of what a thin pool can still take', () => {
    expect(reasonOf(pool(), { sizeGib: 81 })).toBe('81 GiB do not fit into 80 GiB of over-subscribed free space')
  })

  it('gives a thick pool what is free above the reserve', () => {
    const thick = pool({ thinProvisioning: false })
    expect(reasonOf(thick, { sizeGib: 40 })).toBeNull()
    expect(reasonOf(thick, { sizeGib: 41 })).toBe('41 GiB do not fit into 40 GiB free')
  })

  it('takes nothing into a pool without capacity', () => {
    expect(reasonOf(pool({ totalCapacityGib: 0 }), {})).toBe('it has no capacity')
  })
})

describe('zone and capabilities', () => {
  it('match the zone when one is asked for', () => {
    expect(place([pool()], { ...request, availabilityZone: 'nova' }).candidates).toHaveLength(1)
    expect(place([pool()], { ...request, availabilityZone: 'other' }).dropped[0]).toMatchObject({
      filter: 'availabilityZone',
      reason: 'it is in availability zone nova',
    })
  })

  it.each([
    [{ storage_protocol: 'nbd' }, null],
    [{ 'capabilities:storage_protocol': 'iscsi' }, 'its storage_protocol is nbd, not iscsi'],
    [{ volume_backend_name: 'ceph' }, 'its volume_backend_name is sheepdog, not ceph'],
    [{ multiattach: '<is> True' }, null],
    [{ thick_provisioning_support: '<is> True' }, 'its thick_provisioning_support is false, not <is> True'],
    [{ replication_enabled: '<is> True' }, 'it does not know the capability replication_enabled'],
    [{ constructor: 'x' }, 'it does not know the capability constructor'],
    [{ 'provisioning:max_vol_size': '5' }, null],
  ])('%j: %s', (extraSpecs, reason) => {
    expect(reasonOf(pool(), { extraSpecs: extraSpecs as Record<string, string> })).toBe(reason)
  })

  it('read the small language of extra specs', () => {
    expect(satisfies(true, '<is> True')).toBe(true)
    expect(satisfies(true, 'true')).toBe(true)
    expect(satisfies(true, '<is> False')).toBe(false)
    expect(satisfies('nbd', 'nbd')).toBe(true)
    expect(satisfies(true, '')).toBe(false)
  })
})

describe('the order', () => {
  it('puts the pool first that can still promise most', () => {
    const pools = [pool({ name: 'a', provisionedCapacityGib: 150 }), pool({ name: 'b' }), pool({ name: 'c' })]
    expect(place(pools, request).candidates.map((candidate) => candidate.pool.name)).toEqual(['b', 'c', 'a'])
  })

  it('keeps every pool, once, on one side or the other, the best candidate first', () => {
    const anyPool = fc.record({
      name: fc.uuid(),
      totalCapacityGib: fc.integer({ min: 0, max: 100 }),
      freeCapacityGib: fc.integer({ min: 0, max: 100 }),
      provisionedCapacityGib: fc.integer({ min: 0, max: 300 }),
      thinProvisioning: fc.boolean(),
      availabilityZone: fc.constantFrom('nova', 'az2'),
    })
    fc.assert(
      fc.property(fc.array(anyPool.map(pool)), fc.integer({ min: 1, max: 100 }), (pools, sizeGib) => {
        const { candidates, dropped } = place(pools, { sizeGib, availabilityZone: 'nova', extraSpecs: {} })
        expect([...candidates, ...dropped].map((one) => one.pool.name).sort()).toEqual(
          pools.map(({ name }) => name).sort(),
        )
        const weights = candidates.map(({ weight }) => weight)
        expect(weights).toEqual(weights.toSorted((a, b) => b - a))
        for (const candidate of candidates) expect(virtualFreeGib(candidate.pool)).toBe(candidate.weight)
      }),
    )
  })
})

it('explains why nothing was left', () => {
  const { dropped } = place([pool(), pool({ name: 'other', totalCapacityGib: 0 })], { ...request, sizeGib: 1000 })
  expect(explainDropped(dropped)).toBe(
    'host@sheepdog#pool: 1100 GiB promised would exceed the limit of 200 GiB (capacity). ' +
      'other: it has no capacity (capacity).',
  )
  expect(explainDropped([])).toBe('No backend has reported its pools yet.')
})
