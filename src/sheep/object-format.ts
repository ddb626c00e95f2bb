import assert from 'node:assert'
import { crc32 } from '@node-rs/crc32'

/**
 * The layout of an object file and the meaning of its block entries. Pure: bytes in, values out.
 *
 *   slot 0   1024 blocks of 4 KiB, at the offset that their index says
 *   table    one 8-byte entry for each block
 *   header   one page: magic, format, store id, oid, version, CRC
 *   slot 1   the other place of each block, in the same order; the file ends with the last one in use
 *
 * A block has two places so that a large write can go to the one that is free and need not pass through the journal. The one
 * that does not hold the block is a hole of the file.
 *
 * An entry is two 32-bit words, w0 and w1. The two top bits of w1 say what the block is:
 *
 *   DATA     the bytes in the file; w1 = slot and epoch of the write, w0 = CRC of the bytes
 *   ZERO     reads as zeros whatever the file holds; w1 = epoch, w0 = check
 *   INHERIT  the bytes are the same block of the object `w0` (a vid) of the same index; w1 = check
 *
 * CRCs and checks are seeded with the oid, the block and (DATA, ZERO) w1, so that a block or an entry that lands in the
 * wrong place, or a table that comes back as zeros, is rot and not a hole: holes are stated, never inferred.
 * `INHERIT` names the holder itself, not the next link of a chain: a read takes one hop at any depth of snapshots.
 */
export const BLOCK_BYTES = 4096
export const BLOCKS_PER_OBJECT = 1024
export const OBJECT_BYTES = BLOCK_BYTES * BLOCKS_PER_OBJECT
export const TABLE_BYTES = BLOCKS_PER_OBJECT * 8
export const TABLE_OFFSET = OBJECT_BYTES
export const HEADER_OFFSET = TABLE_OFFSET + TABLE_BYTES
export const OBJECT_FILE_BYTES = HEADER_OFFSET + BLOCK_BYTES
/** Table and header: what an object takes although all its blocks are zeros. */
export const OBJECT_TAIL_BYTES = OBJECT_FILE_BYTES - TABLE_OFFSET

const HEADER_MAGIC = 0x6a624f43 // "CObj"
const HEADER_USED_BYTES = 56 // within one sector, so that a header is never torn
export const OBJECT_FORMAT = 1
/** The journal has 48 bits for a version; half of them leave room for all changes that can still come. */
const VERSION_MAX = 2 ** 47

export type Slot = 0 | 1

export type BlockState = 'data' | 'zero' | 'inherit'

const STATE_DATA = 1
const STATE_ZERO = 2
const STATE_INHERIT = 3
const STATE_SHIFT = 30
const LOW_30_BITS = 0x3fffffff
const SLOT_SHIFT = 29
const LOW_29_BITS = 0x1fffffff

assert(HEADER_OFFSET % BLOCK_BYTES === 0 && HEADER_USED_BYTES <= 512)

/**
 * The two halves of an oid as the hot path wants them. Four words are mixed into one (finalizer of MurmurHash3): cheap enough
 * for every block, and every bit counts. The halves of the oid go first, so that they are mixed once for all of its blocks.
 */
export interface OidWords {
  readonly mixed: number
}

export function oidWords(oid: bigint): OidWords {
  const hash = Math.imul(Number(oid >> 32n) ^ 0x9e3779b9, 0x85ebca6b)
  return { mixed: Math.imul((hash ^ (hash >>> 15)) + Number(oid & 0xffffffffn), 0xc2b2ae35) }
}

function mix(oidMixed: number, c: number, d: number): number {
  let hash = Math.imul((oidMixed ^ (oidMixed >>> 13)) + c, 0x85ebca6b)
  hash = Math.imul((hash ^ (hash >>> 16)) + d, 0xc2b2ae35)
  hash ^= hash >>> 15
  return hash >>> 0
}

export function dataWord1(epoch: number, slot: Slot = 0): number {
  return ((STATE_DATA << STATE_SHIFT) | (slot << SLOT_SHIFT) | (epoch & LOW_29_BITS)) >>> 0
}

/** Where a block lies that a DATA entry with this second word describes; null for other entries. */
export function slotOf(word1: number): Slot | null {
  if (word1 >>> STATE_SHIFT !== STATE_DATA) return null
  return ((word1 >>> SLOT_SHIFT) & 1) as Slot
}

/** When the block was written that an entry with this second word describes; null for one that is inherited, or for no entry. */
export function writtenEpoch(word1: number): number | null {
  const state = word1 >>> STATE_SHIFT
  if (state === STATE_DATA) return word1 & LOW_29_BITS
  return state === STATE_ZERO ? word1 & LOW_30_BITS : null
}

/** Offset in the object file. */
export function blockPosition(block: number, slot: Slot): number {
  return slot * OBJECT_FILE_BYTES + block * BLOCK_BYTES
}

export function zeroWord1(epoch: number): number {
  return ((STATE_ZERO << STATE_SHIFT) | (epoch & LOW_30_BITS)) >>> 0
}

/** CRC-32 of a 4 KiB block, seeded with where it belongs and when it was written. */
export function blockCrc(oid: OidWords, block: number, word1: number, bytes: Uint8Array): number {
  return crc32(bytes, blockSeed(oid, block, word1))
}

/** What the CRC of a block starts from. */
export function blockSeed(oid: OidWords, block: number, word1: number): number {
  return mix(oid.mixed, block, word1)
}

export function zeroWord0(oid: OidWords, block: number, word1: number): number {
  return mix(oid.mixed, block, word1)
}

export function inheritWord1(oid: OidWords, block: number, holderVid: number): number {
  return ((STATE_INHERIT << STATE_SHIFT) | (mix(oid.mixed, block, holderVid) & LOW_30_BITS)) >>> 0
}

/**
 * Writes to `holders`, for each block of a table, the vid whose object has its bytes: `ownVid` for data, 0 for zeros. Returns
 * the first block from `from` on whose entry does not match its check, or -1. All in one, as a first write after a snapshot
 * comes by here.
 */
export function findHolders(oid: OidWords, table: Uint32Array, ownVid: number, holders: Uint32Array, from = 0): number {
  for (let block = from; block < BLOCKS_PER_OBJECT; block++) {
    const word0 = table[block * 2]!
    const word1 = table[block * 2 + 1]!
    const state = word1 >>> STATE_SHIFT
    if (state === STATE_DATA) holders[block] = ownVid
    else if (state === STATE_ZERO && mix(oid.mixed, block, word1) === word0) holders[block] = 0
    else if (state === STATE_INHERIT && inheritWord1(oid, block, word0) === word1) holders[block] = word0
    else return block
  }
  return -1
}

/** What an entry states, or null when it does not match its check. A DATA entry is proved only by its block's CRC. */
export function entryState(oid: OidWords, block: number, word0: number, word1: number): BlockState | null {
  switch (word1 >>> STATE_SHIFT) {
    case STATE_DATA:
      return 'data'
    case STATE_ZERO:
      return zeroWord0(oid, block, word1) === word0 ? 'zero' : null
    case STATE_INHERIT:
      return inheritWord1(oid, block, word0) === word1 ? 'inherit' : null
    default:
      return null
  }
}

/** A run of blocks that a new object takes from elsewhere: from the same index of vid `holderVid`, or zeros when 0. */
export interface InheritRun {
  first: number
  count: number
  holderVid: number
}

/** The table of a new object: zeros, but for the runs that it inherits. */
export function newTable(oid: OidWords, epoch: number, runs: readonly InheritRun[]): Uint32Array {
  const table = new Uint32Array(BLOCKS_PER_OBJECT * 2)
  const word1 = zeroWord1(epoch)
  for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
    table[block * 2] = mix(oid.mixed, block, word1)
    table[block * 2 + 1] = word1
  }
  for (const { first, count, holderVid } of runs) {
    if (holderVid === 0) continue
    for (let block = first; block < first + count; block++) {
      table[block * 2] = holderVid
      table[block * 2 + 1] = inheritWord1(oid, block, holderVid)
    }
  }
  return table
}

export interface ObjectHeader {
  storeId: Buffer
  oid: bigint
  /** Counts the changes of the object; each change is applied on its predecessor, without gaps. */
  version: number
}

/** `page` holds zeros, or another header. */
export function encodeHeader(header: ObjectHeader, page: Buffer = Buffer.alloc(BLOCK_BYTES)): Buffer {
  page.writeUInt32LE(HEADER_MAGIC, 0)
  page.writeUInt32LE(OBJECT_FORMAT, 4)
  header.storeId.copy(page, 8)
  page.writeBigUInt64LE(header.oid, 24)
  page.writeBigUInt64LE(BigInt(header.version), 32)
  page.writeUInt32LE(BLOCKS_PER_OBJECT, 40)
  page.writeUInt32LE(crc32(page.subarray(0, HEADER_USED_BYTES - 4)), HEADER_USED_BYTES - 4)
  return page
}

/** The header, or why the page is none. */
export function decodeHeader(page: Buffer): ObjectHeader | { problem: string } {
  if (page.readUInt32LE(0) !== HEADER_MAGIC) return { problem: 'it has no object header' }
  if (crc32(page.subarray(0, HEADER_USED_BYTES - 4)) !== page.readUInt32LE(HEADER_USED_BYTES - 4)) {
    return { problem: 'its header does not match its checksum' }
  }
  const format = page.readUInt32LE(4)
  if (format !== OBJECT_FORMAT) return { problem: `its format is ${format}, this version reads ${OBJECT_FORMAT}` }
  const version = Number(page.readBigUInt64LE(32))
  if (version > VERSION_MAX) return { problem: `no object has been changed ${version} times` }
  return { storeId: Buffer.from(page.subarray(8, 24)), oid: page.readBigUInt64LE(24), version }
}

/**
 * `obj/<last two digits>/<oid>`: objects of one VDI spread over 256 directories. With a tag, the name of a new object's file
 * until the checkpoint that makes it the object's: `<oid>.<tag>`.
 */
export function objectPath(oid: bigint, tag = 0): string {
  const name = oid.toString(16).padStart(16, '0')
  return `${objectDirectory(oid)}/${name}${tag === 0 ? '' : `.${tag.toString(16)}`}`
}

export function objectDirectory(oid: bigint): string {
  return `obj/${(oid & 0xffn).toString(16).padStart(2, '0')}`
}

/** The inverse of `objectPath` for the name alone; null for any other name. */
export function parseObjectName(name: string): { oid: bigint; tag: number } | null {
  const match = /^(?<oid>[0-9a-f]{16})(?:\.(?<tag>[0-9a-f]{1,4}))?$/.exec(name)
  if (!match?.groups) return null
  return { oid: BigInt(`0x${match.groups.oid}`), tag: Number.parseInt(match.groups.tag ?? '0', 16) }
}
