import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  cleanVersion,
  compareVersions,
  decodeVersion,
  encodeVersion,
  endsAfter,
  firstLacking,
  type Version,
} from '../../../src/sheep/copies/version.ts'

const version = fc.record({
  generation: fc.record({
    epoch: fc.nat(2 ** 31 - 1),
    index: fc.maxSafeNat(),
    incarnation: fc.string({ maxLength: 40 }),
  }),
  sequence: fc.maxSafeNat(),
}) satisfies fc.Arbitrary<Version>

const named = (epoch: number, index: number, sequence: number): Version => ({
  generation: { epoch, index, incarnation: 'n1.1' },
  sequence,
})

describe('versions', () => {
  it('are what they were after they were encoded', () => {
    fc.assert(
      fc.property(version, (one) => {
        expect(decodeVersion(encodeVersion(one))).toEqual(one)
      }),
    )
  })

  it('are laid out as documented', () => {
    const expected = '02000000' + '0300000000000000' + '0400000000000000' + '04' + '6e312e31'
    expect(encodeVersion(named(2, 3, 4)).toString('hex')).toBe(expected)
  })

  it('are refused when they end early', () => {
    const bytes = encodeVersion(named(2, 3, 4))
    for (let end = 0; end < bytes.length; end++) expect(() => decodeVersion(bytes.subarray(0, end))).toThrow(RangeError)
  })

  it('follow the view, then the owner, then the count', () => {
    const inOrder = [named(1, 9, 9), named(2, 1, 9), named(2, 3, 1), named(2, 3, 2), named(3, 1, 1)]
    expect([...inOrder].reverse().sort(compareVersions)).toEqual(inOrder)
  })

  it('of what is clean through an epoch come after all of that epoch, and before all of the next one', () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.nat(1e9), fc.nat(1e9), (epoch, index, sequence) => {
        expect(compareVersions(cleanVersion(epoch), named(epoch, index, sequence))).toBeGreaterThan(0)
        expect(compareVersions(cleanVersion(epoch), named(epoch + 1, index, sequence))).toBeLessThan(0)
      }),
    )
    expect(decodeVersion(encodeVersion(cleanVersion(7)))).toEqual(cleanVersion(7))
  })
})

describe('the versions at the ends of epochs', () => {
  const at = (epoch: number, sequence: number): Version => ({
    generation: { epoch, index: epoch, incarnation: 'a' },
    sequence,
  })

  it('say that who stopped at one of them lacks nothing of its epoch', () => {
    const ends = endsAfter([], at(3, 8), at(5, 1))
    expect(firstLacking(ends, at(3, 8))).toBe(4)
    expect(firstLacking(ends, at(3, 7))).toBe(3)
    expect(endsAfter(ends, at(5, 1), at(5, 2))).toEqual(ends)
  })

  it('are the last few', () => {
    let ends: readonly Version[] = []
    for (let epoch = 1; epoch < 9; epoch++) ends = endsAfter(ends, at(epoch, 1), at(epoch + 1, 1))
    expect(ends).toEqual([5, 6, 7, 8].map((epoch) => at(epoch, 1)))
  })
})
