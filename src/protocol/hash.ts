import { VDI_ATTR_KEY_SIZE_BYTES, VDI_COUNT, VDI_NAME_SIZE_BYTES, VDI_TAG_SIZE_BYTES } from './constants.ts'

/**
 * FNV-1a with 64 bits, on two 32-bit halves because a BigInt per byte is some fifty times slower. The prime is
 * 2^40 + 0x1b3, so h * prime = (h << 40) + h * 0x1b3 modulo 2^64, and every product stays below 2^53.
 */
export interface Hash64 {
  high: number
  low: number
}

const PRIME_LOW = 0x1b3
const TWO_TO_32 = 0x1_0000_0000

const basis = (): Hash64 => ({ high: 0xcbf29ce4, low: 0x84222325 })

function foldByte(hash: Hash64, byte: number): void {
  const low = (hash.low ^ byte) >>> 0
  const product = low * PRIME_LOW
  const carry = Math.floor(product / TWO_TO_32)
  // (low << 40) lands in the upper half as low << 8; the upper half's own share of the shift falls out.
  hash.high = (hash.high * PRIME_LOW + carry + ((low << 8) >>> 0)) % TWO_TO_32
  hash.low = product % TWO_TO_32
}

function foldBytes(hash: Hash64, bytes: Uint8Array): void {
  for (const byte of bytes) foldByte(hash, byte)
}

function foldWord(hash: Hash64, word: number): void {
  for (let shift = 0; shift < 32; shift += 8) foldByte(hash, (word >>> shift) & 0xff)
}

/** Folds the hash into itself, least significant byte first: one more round that spreads short inputs. */
function foldSelf(hash: Hash64): void {
  const { high, low } = hash
  foldWord(hash, low)
  foldWord(hash, high)
}

const split = (value: bigint): Hash64 => ({
  high: Number((value >> 32n) & 0xffff_ffffn),
  low: Number(value & 0xffff_ffffn),
})

const join = (hash: Hash64): bigint => (BigInt(hash.high) << 32n) | BigInt(hash.low)

/** sd_hash: places a node on the ring. */
export function sdHash(bytes: Uint8Array): bigint {
  const hash = basis()
  foldBytes(hash, bytes)
  foldSelf(hash)
  return join(hash)
}

/** sd_hash_oid: places an object on the ring. */
export function sdHashOid(oid: bigint): bigint {
  return join(oidHash(oid))
}

/** The same in halves, for those who compare many: a BigInt of each costs more than the hash. */
export function oidHash(oid: bigint): Hash64 {
  const { high, low } = split(oid)
  const hash = basis()
  foldWord(hash, low)
  foldWord(hash, high)
  foldSelf(hash)
  return hash
}

/** sd_hash_next: from one virtual node to the next. */
export function sdHashNext(previous: bigint): bigint {
  const hash = split(previous)
  foldSelf(hash)
  return join(hash)
}

/** The hashes of so many virtual nodes that follow one another, in halves: `take` has to look at each at once. */
export function eachNextHash(previous: bigint, count: number, take: (hash: Hash64, at: number) => void): void {
  const hash = split(previous)
  for (let at = 0; at < count; at++) {
    foldSelf(hash)
    take(hash, at)
  }
}

/** The vid that a name tries first; taken ones are passed upwards, wrapping to 1. Never 0. */
export function vidOfName(name: string): number {
  const hash = basis()
  foldBytes(hash, Buffer.from(name))
  return hash.low % VDI_COUNT || 1
}

export interface AttrName {
  name: string
  tag: string
  snapId: number
  key: string
}

/** The id that an attribute of a VDI tries first; taken ones are passed upwards. */
export function attrIdOf({ name, tag, snapId, key }: AttrName): number {
  const hash = basis()
  foldBytes(hash, padded(name, VDI_NAME_SIZE_BYTES))
  foldBytes(hash, padded(tag, VDI_TAG_SIZE_BYTES))
  foldWord(hash, snapId)
  foldBytes(hash, padded(key, VDI_ATTR_KEY_SIZE_BYTES))
  return hash.low
}

function padded(value: string, sizeBytes: number): Buffer {
  const target = Buffer.alloc(sizeBytes)
  target.write(value)
  return target
}
