import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import {
  BLOCK_BYTES,
  BLOCKS_PER_OBJECT,
  blockCrc,
  dataWord1,
  oidWords,
  type Slot,
} from '../../src/sheep/object-format.ts'
import { isRunSound, writtenCrc } from '../../src/sheep/run-crc.ts'

/** Neighbouring blocks of some object, with their entries. */
const run = fc
  .record({
    oid: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    first: fc.nat({ max: BLOCKS_PER_OBJECT - 8 }),
    blocks: fc.array(
      fc.record({ epoch: fc.nat({ max: 2 ** 29 - 1 }), slot: fc.constantFrom<Slot>(0, 1), byte: fc.nat({ max: 255 }) }),
      { minLength: 1, maxLength: 8 },
    ),
  })
  .map(({ oid, first, blocks }) => {
    const object = oidWords(oid)
    const words = new Uint32Array(blocks.length * 2)
    const bytes = Buffer.concat(blocks.map(({ byte }, i) => Buffer.alloc(BLOCK_BYTES, Buffer.from([byte, i, 1]))))
    blocks.forEach(({ epoch, slot }, i) => {
      const word1 = dataWord1(epoch, slot)
      const block = bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)
      words.set([blockCrc(object, first + i, word1, block), word1], i * 2)
    })
    return { oid, object, first, words, bytes }
  })

it('takes blocks that match their entries, each of its own write', () => {
  fc.assert(
    fc.property(run, ({ object, first, words, bytes }) => {
      expect(isRunSound(object, first, words, bytes)).toBe(true)
    }),
  )
})

it('makes the same entries of checksums that somebody has brought along', () => {
  fc.assert(
    fc.property(run, ({ object, first, words, bytes }) => {
      const crcs = Uint32Array.from({ length: words.length / 2 }, (_, i) =>
        crc32(bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)),
      )
      for (let i = 0; i < crcs.length; i++) {
        const word1 = words[i * 2 + 1]!
        expect(writtenCrc(object, { first, bytes, crcs }, i, word1)).toBe(words[i * 2])
        expect(writtenCrc(object, { first, bytes }, i, word1)).toBe(words[i * 2])
      }
    }),
  )
})

it('sees any bit that is not what it was, in the bytes or in the entries', () => {
  fc.assert(
    fc.property(run, fc.nat(), fc.boolean(), ({ object, first, words, bytes }, at, inEntries) => {
      const damaged = inEntries ? new Uint8Array(words.buffer) : bytes
      const bit = at % (damaged.length * 8)
      damaged[bit >>> 3]! ^= 1 << (bit & 7)
      expect(isRunSound(object, first, words, bytes)).toBe(false)
    }),
  )
})

it('sees blocks that are in the place of others, or belong to another object', () => {
  fc.assert(
    fc.property(run, ({ oid, object, first, words, bytes }) => {
      expect(isRunSound(object, first + 1, words, bytes)).toBe(false)
      expect(isRunSound(oidWords(oid ^ 1n), first, words, bytes)).toBe(false)
      const turned = Buffer.concat([bytes.subarray(BLOCK_BYTES), bytes.subarray(0, BLOCK_BYTES)])
      expect(isRunSound(object, first, words, turned)).toBe(words.length === 2)
    }),
  )
})
