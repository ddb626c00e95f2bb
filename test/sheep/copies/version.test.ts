import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compareVersions, decodeVersion, encodeVersion, type Version } from '../../../src/sheep/copies/version.ts'

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
})
