import { crc32 } from '@node-rs/crc32'
import { BLOCK_BYTES, blockSeed, type OidWords } from './object-format.ts'

/*
 * The checksums of neighbouring blocks say what the CRC of all their bytes is, so that a long run is verified by one call instead
 * of one for each block, which costs nearly twice as much.
 *
 * CRC-32 is linear: let Z(x) be what 4 KiB of zeros make of a register x. Then crc(block, seed) = crc(block, 0) ^ Z(seed), and
 * crc(a | b, 0) = crc(b, 0) ^ Z(crc(a, 0)). Z can be undone, so a damaged block always shows; several that are damaged at once cancel
 * each other out once in 2^32 times.
 */
const ZEROS_OF_BIT = bitsThroughZeros()
/** Z of each byte at each of the four places of a register. */
const ZEROS_OF_BYTE = Array.from({ length: 4 }, (_, place) =>
  Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = 0
    for (let bit = 0; bit < 8; bit++) if (byte & (1 << bit)) value ^= ZEROS_OF_BIT[place * 8 + bit]!
    return value
  }),
) as [Uint32Array, Uint32Array, Uint32Array, Uint32Array]
const [ZEROS_0, ZEROS_1, ZEROS_2, ZEROS_3] = ZEROS_OF_BYTE

function bitsThroughZeros(): Uint32Array {
  const zeros = Buffer.alloc(BLOCK_BYTES)
  const ofNothing = crc32(zeros, 0)
  return Uint32Array.from({ length: 32 }, (_, bit) => crc32(zeros, (1 << bit) >>> 0) ^ ofNothing)
}

/** Z */
function throughZeros(x: number): number {
  return ZEROS_0[x & 0xff]! ^ ZEROS_1[(x >>> 8) & 0xff]! ^ ZEROS_2[(x >>> 16) & 0xff]! ^ ZEROS_3[x >>> 24]!
}

/** Whole blocks that are written to an object from its block `first` on; with the CRC of each, from 0, if somebody has them. */
export interface WrittenBlocks {
  first: number
  bytes: Buffer
  crcs?: Uint32Array | undefined
}

/** The CRC of the `i`th of these blocks, as an entry with that second word has it. */
export function writtenCrc(oid: OidWords, { first, bytes, crcs }: WrittenBlocks, i: number, word1: number): number {
  const seed = blockSeed(oid, first + i, word1)
  if (crcs !== undefined) return (crcs[i]! ^ throughZeros(seed)) >>> 0
  return crc32(bytes.length === BLOCK_BYTES ? bytes : bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES), seed)
}

/** Whether neighbouring blocks are what their entries, two words for each, say; `bytes` is as many blocks as there are entries. */
export function isRunSound(oid: OidWords, first: number, words: Uint32Array, bytes: Buffer): boolean {
  let expected = 0
  for (let i = 0; i * 2 < words.length; i++) {
    expected = throughZeros(expected ^ blockSeed(oid, first + i, words[i * 2 + 1]!)) ^ words[i * 2]!
  }
  return crc32(bytes) === expected >>> 0
}
