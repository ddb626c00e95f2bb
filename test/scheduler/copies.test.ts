import { describe, expect, it } from 'vitest'
import { copiesOf, refuseCopies, sameCopies, takenGib } from '../../src/scheduler/copies.ts'
import { pool, reasonOf } from './pools.ts'

const typeOf = (copies: string, copiesMin?: string) => ({
  'sheepdog:copies': copies,
  ...(copiesMin !== undefined && { 'sheepdog:copies_min': copiesMin }),
})

describe('extra specs', () => {
  it('say how many copies a volume has, and how many must have what is acknowledged', () => {
    expect(copiesOf({})).toBeNull()
    expect(copiesOf({ volume_backend_name: 'x' })).toBeNull()
    expect(copiesOf(typeOf('3'))).toEqual({ copies: 3 })
    expect(copiesOf(typeOf(' 31 ', '31'))).toEqual({ copies: 31, copiesMin: 31 })
  })

  it.each([
    [typeOf('0'), "the extra spec sheepdog:copies is '0', and not a number from 1 to 31"],
    [typeOf('32'), "the extra spec sheepdog:copies is '32', and not a number from 1 to 31"],
    [typeOf('2.0'), "the extra spec sheepdog:copies is '2.0', and not a number from 1 to 31"],
    [typeOf(''), "the extra spec sheepdog:copies is '', and not a number from 1 to 31"],
    [typeOf('>= 2'), "the extra spec sheepdog:copies is '>= 2', and not a number from 1 to 31"],
    [
      typeOf('2', '3'),
      "the extra spec sheepdog:copies_min is '3', and not a number from 1 to 2, which sheepdog:copies is",
    ],
    [{ 'sheepdog:copies_min': '1' }, 'the extra spec sheepdog:copies_min says nothing without sheepdog:copies'],
  ])('%o are refused with the key', (extraSpecs, reason) => {
    expect(refuseCopies(extraSpecs)).toBe(reason)
    expect(copiesOf(extraSpecs)).toBeNull()
    expect(reasonOf(pool({ sizeFactors: [1, 2, 3] }), { extraSpecs })).toBe(reason)
  })

  it('are of the same copies when they say the same of them', () => {
    expect(sameCopies({}, { other: 'x' })).toBe(true)
    expect(sameCopies(typeOf('2'), typeOf(' 2'))).toBe(true)
    expect(sameCopies({}, typeOf('1'))).toBe(false)
    expect(sameCopies(typeOf('2'), typeOf('2', '2'))).toBe(false)
  })
})

describe('a pool', () => {
  const of = (sizeFactors: number[]) => pool({ sizeFactors, reservedPercentage: 0, provisionedCapacityGib: 0 })

  it('takes volumes with as many copies as it has zones', () => {
    expect(reasonOf(of([1]), { extraSpecs: typeOf('1') })).toBeNull()
    expect(reasonOf(of([1]), { extraSpecs: typeOf('2') })).toBe('it has room for one copy of a volume, not 2')
    expect(reasonOf(of([1, 2, 3]), { extraSpecs: typeOf('3') })).toBeNull()
    expect(reasonOf(of([1, 2, 3]), { extraSpecs: typeOf('4') })).toBe('it has room for 3 copies of a volume, not 4')
  })

  it('lets a volume go on that has more copies, some of whose nodes are gone', () => {
    const held = { sizeGib: 5, extraSpecs: typeOf('3') }
    expect(reasonOf(of([1, 2]), { sizeGib: 6, extraSpecs: typeOf('3'), held })).toBeNull()
    expect(reasonOf(of([1, 2]), { sizeGib: 5, extraSpecs: typeOf('3', '1'), held })).toContain('not 3')
  })

  it('needs room for all copies: as it counts its capacity, of 100 GiB that it promises twice', () => {
    expect(reasonOf(of([1, 2, 3]), { sizeGib: 33, extraSpecs: typeOf('3') })).toBeNull()
    expect(reasonOf(of([1, 2, 3]), { sizeGib: 34, extraSpecs: typeOf('3') })).toBe(
      '102 GiB for 34 GiB with 3 copies do not fit into 100 GiB of over-subscribed free space',
    )
    expect(reasonOf(of([1 / 3, 2 / 3, 1]), { sizeGib: 150, extraSpecs: typeOf('2') })).toBeNull()
    expect(reasonOf(of([1 / 3, 2 / 3, 1]), { sizeGib: 152, extraSpecs: typeOf('2') })).toMatch(
      /^102 GiB for 152 GiB with 2 copies do not fit/,
    )
    expect(takenGib({ sizeFactors: [1 / 3, 2 / 3, 1] }, 3, typeOf('2'))).toBe(2)
  })

  it('needs room for what another type, or growth, takes more', () => {
    const held = { sizeGib: 40, extraSpecs: typeOf('1') }
    const full = (extra: object) => ({ ...of([1, 2, 3]), freeCapacityGib: 40, ...extra })
    expect(reasonOf(full({}), { sizeGib: 40, extraSpecs: typeOf('3'), held })).toBeNull()
    expect(reasonOf(full({ promisedGib: 121 }), { sizeGib: 40, extraSpecs: typeOf('3'), held })).toBe(
      '80 GiB for 40 GiB with 3 copies do not fit into the 79 GiB that it may still promise',
    )
    expect(reasonOf(full({ promisedGib: 200 }), { sizeGib: 40, extraSpecs: {}, held })).toBeNull()
    const grown = { sizeGib: 45, extraSpecs: typeOf('1'), held }
    expect(reasonOf(full({ promisedGib: 195 }), grown)).toBeNull()
    expect(reasonOf(full({ promisedGib: 196 }), grown)).toBe(
      '5 GiB do not fit into the 4 GiB that it may still promise',
    )
  })
})
