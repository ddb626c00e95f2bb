import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { attrIdOf, sdHash, sdHashNext, sdHashOid, vidOfName } from '../../src/protocol/hash.ts'

/** The definition, word for word, on BigInt. */
const BASIS = 0xcbf29ce484222325n
const fnv = (bytes: Uint8Array, start: bigint) =>
  bytes.reduce((hash, byte) => BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n), start)
const littleEndian = (value: bigint) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes
}
const fold = (hash: bigint) => fnv(littleEndian(hash), hash)

describe('hashes of upstream Sheepdog', () => {
  it('gives the values that upstream gives', () => {
    expect(sdHashOid(0x8012345600000000n)).toBe(0xff722bbc8c85dde6n)
    expect(vidOfName('test')).toBe(0x7c2b25)
    const node = Buffer.from('0000000000000000000000007f000001581b', 'hex')
    expect(sdHash(node)).toBe(0x9cb3d6dd0a4c0f9fn)
    expect(sdHashNext(0x9cb3d6dd0a4c0f9fn)).toBe(0x3af2cba6e538cdf3n)
    expect(sdHashNext(0x3af2cba6e538cdf3n)).toBe(0xfd38432fd111924bn)
  })

  it('gives the published values of FNV-1a before the last round', () => {
    // "" and "foobar" of the FNV specification; sd_hash adds one round over them.
    expect(sdHash(Buffer.alloc(0))).toBe(fold(0xcbf29ce484222325n))
    expect(sdHash(Buffer.from('foobar'))).toBe(fold(0x85944171f73967e8n))
  })

  it('agrees with the definition on any input', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (bytes, word) => {
        expect(sdHash(bytes)).toBe(fold(fnv(bytes, BASIS)))
        expect(sdHashOid(word)).toBe(fold(fnv(littleEndian(word), BASIS)))
        expect(sdHashNext(word)).toBe(fold(word))
      }),
    )
  })

  it('never gives vid 0, and hashes the UTF-8 bytes of a name', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 40 }), (name) => {
        const expected = Number(fnv(Buffer.from(name), BASIS) & 0xffffffn)
        expect(vidOfName(name)).toBe(expected === 0 ? 1 : expected)
      }),
    )
  })

  it('chains the padded parts of an attribute name', () => {
    const name = { name: 'vol', tag: 'daily', snapId: 7, key: 'collie.owner' }
    const chain = Buffer.alloc(772)
    chain.write('vol', 0)
    chain.write('daily', 256)
    chain.writeUInt32LE(7, 512)
    chain.write('collie.owner', 516)
    expect(attrIdOf(name)).toBe(Number(fnv(chain, BASIS) & 0xffffffffn))
    expect(attrIdOf({ ...name, snapId: 8 })).not.toBe(attrIdOf(name))
  })
})
