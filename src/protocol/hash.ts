import { VDI_ATTR_KEY_SIZE_BYTES, VDI_COUNT, VDI_NAME_SIZE_BYTES, VDI_TAG_SIZE_BYTES } from './constants.ts'

/**
 * FNV-1a with 64 bits, on two 32-bit halves because a BigInt per byte is some fifty times slower. The prime is
 * 2^40 + 0x1b3, so h * prime = (h << 40) + h * 0x1b3 modulo 2^64.
 */
export interface Hash64 {
  high: number
  low: number
}

const PRIME_LOW = 0x1b3

const basis = (): Hash64 => ({ high: 0xcbf29ce4, low: 0x84222325 })

/** In whole numbers of 32 bits: divisions of longer ones take ten times as long. */
function foldByte(hash: Hash64, byte: number): void {
  const low = hash.low ^ byte
  const product0 = (low & 0xffff) * PRIME_LOW
  const product16 = (low >>> 16) * PRIME_LOW + (product0 >>> 16)
  // (low << 40) lands in the upper half as low << 8; the upper half's own share of the shift falls out.
  hash.high = (Math.imul(hash.high, PRIME_LOW) + (product16 >>> 16) + (low << 8)) >>> 0
  hash.low = ((product16 << 16) | (product0 & 0xffff)) >>> 0
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

const scratch = new DataView(new ArrayBuffer(8))

function split(value: bigint): Hash64 {
  scratch.setBigUint64(0, value) // half the time of shifts, each of which makes a BigInt
  return { high: scratch.getUint32(0), low: scratch.getUint32(4) }
}

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
