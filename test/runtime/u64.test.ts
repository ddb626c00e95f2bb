import fc from 'fast-check'
import { expect, it } from 'vitest'
import { readU64, writeU64 } from '../../src/runtime/u64.ts'

it('64 bits are written and read as by the methods of Buffer', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.nat({ max: 8 }), (value, at) => {
      const [own, buffers] = [Buffer.alloc(16), Buffer.alloc(16)]
      expect(writeU64(own, value, at)).toBe(buffers.writeBigUInt64LE(value, at))
      expect(own).toEqual(buffers)
      expect(readU64(own, at)).toBe(value)
    }),
  )
})

it('64 bits that are not all there are neither written nor read', () => {
  expect(() => readU64(Buffer.alloc(8), 1)).toThrow(RangeError)
  expect(() => writeU64(Buffer.alloc(8), 1n, 1)).toThrow(RangeError)
})
