import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { explainDropped, NO_HINTS, type Pool, place } from '../../src/scheduler/scheduler.ts'
import { DEFAULT_WEIGHTS } from '../../src/scheduler/weighers.ts'
import { pool, reasonOf, request } from './pools.ts'

describe('capacity', () => {
  it('lets a thin pool promise its capacity without the reserve, at its ratio', () => {
    const empty = { freeCapacityGib: 100 }
    expect(reasonOf(pool(empty), { sizeGib: 80 })).toBeNull()
    expect(reasonOf(pool(empty), { sizeGib: 81 })).toBe('81 GiB do not fit into the 80 GiB that it may still promise')
    expect(reasonOf(pool({ ...empty, promisedGib: 30 }), { sizeGib: 51 })).toMatch(/^51 GiB do not fit into the 50 GiB/)
  })

  it('takes nothing that free space without the reserve could not hold at the ratio', () => {
    const nearlyFull = { freeCapacityGib: 15, provisionedCapacityGib: 20 }
    expect(reasonOf(pool(nearlyFull), { sizeGib: 10 })).toBeNull()
    expect(reasonOf(pool(nearlyFull), { sizeGib: 11 })).toBe(
      '11 GiB do not fit into 10 GiB of over-subscribed free space',
    )
  })

  it('lets over-subscription hold nothing that is written at once', () => {
    const nearlyFull = { freeCapacityGib: 15, provisionedCapacityGib: 20 }
    expect(reasonOf(pool(nearlyFull), { sizeGib: 5, isFilled: true })).toBeNull()
    expect(reasonOf(pool(nearlyFull), { sizeGib: 6, isFilled: true })).toBe(
      '6 GiB, all to be written, do not fit into 5 GiB free',
    )
  })

  it('gives a thick pool what is free above the reserve and not promised', () => {
    const thick = pool({ thinProvisioning: false, provisionedCapacityGib: 10 })
    expect(reasonOf(thick, { sizeGib: 40 })).toBeNull()
    expect(reasonOf(thick, { sizeGib: 41 })).toBe('41 GiB do not fit into 40 GiB free')
    expect(reasonOf({ ...thick, promisedGib: 5 }, { sizeGib: 36 })).toBe('36 GiB do not fit into 35 GiB free')
    expect(reasonOf({ ...thick, provisionedCapacityGib: 85 }, { sizeGib: 6 })).toBe('6 GiB do not fit into 5 GiB free')
  })

  it('asks a thin pool for the room when the type is thick', () => {
    const thickType = { extraSpecs: { 'provisioning:type': 'thick' } }
    const thin = pool({ provisionedCapacityGib: 10 })
    expect(reasonOf(thin, { ...thickType, sizeGib: 40 })).toBeNull()
    expect(reasonOf(thin, { ...thickType, sizeGib: 41 })).toBe('41 GiB do not fit into 40 GiB free')
  })

  it('believes a pool that cannot tell, unless a reserve is to be kept of it', () => {
    expect(reasonOf(pool({ freeCapacityGib: 'unknown' }), { sizeGib: 1000 })).toBeNull()
    expect(reasonOf(pool({ freeCapacityGib: 'infinite', totalCapacityGib: 'infinite' }), { sizeGib: 1000 })).toBeNull()
    expect(reasonOf(pool({ totalCapacityGib: 'infinite', reservedPercentage: 0 }), {})).toBeNull()
    expect(reasonOf(pool({ totalCapacityGib: 'unknown' }), {})).toBe(
      'its capacity is unknown, of which a reserve of 10 % cannot be kept',
    )
  })

  it('takes nothing into a pool without capacity, or whose ratio makes no sense', () => {
    expect(reasonOf(pool({ totalCapacityGib: 0 }), {})).toBe('it has no capacity')
    expect(reasonOf(pool({ maxOverSubscriptionRatio: 0.5 }), {})).toBe(
      'its over-subscription ratio of 0.5 is less than 1',
    )
  })
})

describe('what a type and a user ask for', () => {
  it('is a zone', () => {
    expect(reasonOf(pool(), { availabilityZones: ['az1', 'nova'] })).toBeNull()
    expect(place([pool()], request({ availabilityZones: ['other'] })).dropped[0]).toMatchObject({
      filter: 'availabilityZone',
      reason: 'it is in availability zone nova',
    })
  })

  it.each([
    [{ storage_protocol: 'nbd' }, null],
    [{ 'capabilities:storage_protocol': 'iscsi' }, 'its storage_protocol is nbd, not iscsi'],
    [{ volume_backend_name: 'ceph' }, 'its volume_backend_name is sheepdog, not ceph'],
    [{ volume_backend_name: '<or> ceph <or> sheepdog' }, null],
    [{ multiattach: '<is> True' }, null],
    [{ thick_provisioning_support: '<is> True' }, 'its thick_provisioning_support is false, not <is> True'],
    [{ replication_enabled: '<is> True' }, 'its replication_enabled is false, not <is> True'],
    [{ free_capacity_gb: '>= 50' }, null],
    [{ free_capacity_gb: '>= 51' }, 'its free_capacity_gb is 50, not >= 51'],
    [{ constructor: 'x' }, 'it does not know the capability constructor'],
    [{ 'capabilities:a:b': 'x' }, 'it does not know the capability a:b'],
    [{ 'provisioning:max_vol_size': '5', 'vendor:fast': 'yes' }, null],
  ])('is a capability: %j: %s', (extraSpecs, reason) => {
    expect(reasonOf(pool(), { extraSpecs: extraSpecs as Record<string, string> })).toBe(reason)
  })

  it('is the neighbourhood of other volumes, or of an instance', () => {
    const hints = (wanted: object) => ({ hints: { ...NO_HINTS, ...wanted } })
    expect(reasonOf(pool(), hints({ sameAs: ['other#pool', 'sheepdog#pool'] }))).toBeNull()
    expect(reasonOf(pool(), hints({ sameAs: [] }))).toBe('it has none of the volumes that the hint `same_host` names')
    expect(reasonOf(pool(), hints({ differentFrom: ['other#pool'] }))).toBeNull()
    expect(reasonOf(pool(), hints({ differentFrom: ['sheepdog#pool'] }))).toBe(
      'it has a volume that the hint `different_host` names',
    )
    expect(reasonOf(pool(), hints({ near: ['host'] }))).toBeNull()
    expect(reasonOf(pool(), hints({ near: ['compute-7'] }))).toBe('the instance is on compute-7')
  })

  it('is not a pool that is closed, that failed before, or that has not the source', () => {
    expect(reasonOf(pool({ closed: 'its service is disabled' }), {})).toBe('its service is disabled')
    expect(reasonOf(pool(), { failed: ['sheepdog#pool'] })).toBe('it has failed to make this volume')
    expect(reasonOf(pool(), { sourceBackend: 'sheepdog' })).toBeNull()
    expect(reasonOf(pool(), { sourceBackend: 'other' })).toBe('the source, or the group, is in backend other')
  })
})

describe('the hint `query`', () => {
  const reason = (query: unknown) => reasonOf(pool(), { hints: { ...NO_HINTS, query } })
  const no = 'it is not what the hint `query` asks for'

  it.each([
    [['=', '$volume_backend_name', 'sheepdog'], null],
    [['=', '$backend_id', 'host@sheepdog#pool'], null],
    [['=', '$capabilities.storage_protocol', 'nbd'], null],
    ['["and", [">=", "$free_capacity_gb", 50], ["in", "$storage_protocol", "iscsi", "nbd"]]', null],
    [['or', ['<', '$free_capacity_gb', 50], ['>', '$total_capacity_gb', 100]], no],
    [['not', ['=', '$multiattach', true]], no],
    [['not', ['<=', '$free_capacity_gb', 10]], null],
    [['=', '$nothing_of_the_kind', 'x'], no],
    [['<', 'text', 5], no],
    [[], null],
    ['', null],
    [null, null],
    ['[', 'the hint `query` cannot be understood: it is not JSON'],
    [['constructor', 1], expect.stringContaining('a list has to begin with one of = < > <= >= in not or and')],
    [[1, 2], expect.stringContaining('cannot be understood')],
    [JSON.parse(`${'["not",'.repeat(40)}true${']'.repeat(40)}`), expect.stringContaining('nested deeper than 16')],
  ])('%j: %s', (query, expected) => {
    expect(reason(query)).toEqual(expected)
  })

  it('never throws, whatever it is', () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.jsonValue()), (query) => {
        expect([null, 'string']).toContain(reason(query) === null ? null : typeof reason(query))
      }),
    )
  })
})

describe('the order', () => {
  const namesOf = (pools: Pool[], weights = {}) =>
    place(pools, request(), { ...DEFAULT_WEIGHTS, ...weights }).candidates.map((candidate) => candidate.pool.name)

  it('puts the pool first that can still promise most, and of equal ones the first by name', () => {
    const pools = [pool({ name: 'a', provisionedCapacityGib: 150 }), pool({ name: 'c' }), pool({ name: 'b' })]
    expect(namesOf(pools)).toEqual(['b', 'c', 'a'])
    expect(namesOf(pools, { capacity: -1 })).toEqual(['a', 'b', 'c'])
    expect(namesOf(pools, { capacity: 0 })).toEqual(['a', 'b', 'c'])
  })

  it('spreads by gigabytes, by volumes, or by how full a pool is', () => {
    const pools = [
      pool({
        name: 'big',
        totalCapacityGib: 1000,
        freeCapacityGib: 1000,
        provisionedCapacityGib: 900,
        allocatedCapacityGib: 5,
        volumeCount: 9,
      }),
      pool({ name: 'small', provisionedCapacityGib: 10, allocatedCapacityGib: 10, volumeCount: 1 }),
    ]
    expect(namesOf(pools)).toEqual(['big', 'small'])
    expect(namesOf(pools, { capacity: 0, allocatedCapacity: -1 })).toEqual(['big', 'small'])
    expect(namesOf(pools, { capacity: 0, allocatedCapacity: 1 })).toEqual(['small', 'big'])
    expect(namesOf(pools, { capacity: 0, volumeNumber: -1 })).toEqual(['small', 'big'])
    expect(namesOf(pools, { capacity: 0, goodness: 1 })).toEqual(['small', 'big'])
    expect(namesOf(pools, { capacity: 1, goodness: 2 })).toEqual(['small', 'big'])
  })

  it('puts those last that cannot tell their capacity', () => {
    const unknown = pool({ name: 'a', freeCapacityGib: 'unknown' })
    expect(namesOf([unknown, pool({ name: 'b' })])).toEqual(['b', 'a'])
    expect(namesOf([unknown, pool({ name: 'b' })], { capacity: -1 })).toEqual(['b', 'a'])
    expect(namesOf([unknown, pool({ name: 'b' })], { goodness: 1 })).toEqual(['b', 'a'])
  })
})

it('explains why nothing was left', () => {
  const { dropped } = place([pool(), pool({ name: 'other', totalCapacityGib: 0 })], request({ sizeGib: 1000 }))
  expect(explainDropped(dropped)).toBe(
    'host@sheepdog#pool: 1000 GiB do not fit into the 80 GiB that it may still promise (capacity). ' +
      'other: it has no capacity (capacity).',
  )
  expect(explainDropped([])).toBe('No backend has reported its pools yet.')
})
