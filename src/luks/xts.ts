import { createCipheriv, createDecipheriv } from 'node:crypto'

/**
 * XTS-AES (IEEE 1619) of many sectors at once. OpenSSL takes one sector a call, and making a cipher for each costs several times what
 * the encryption of it does. So the two passes of AES are done in ECB mode over all of them, and what XTS puts between is done here:
 *
 * ```
 * T(sector, 0)     = AES(second half of the key, number of the sector)
 * T(sector, j + 1) = T(sector, j) doubled in GF(2^128)
 * C(sector, j)     = AES(first half of the key, P(sector, j) ^ T(sector, j)) ^ T(sector, j)
 * ```
 */

const BLOCK_BYTES = 16
const BLOCK_WORDS = BLOCK_BYTES / 4
/** What x^128 is, by the polynomial of the field. */
const REDUCTION = 0x87
/** So much at a time: masks and result stay in the processor's cache. */
const SLICE_BYTES = 256 * 1024

export interface XtsSectors {
  /** Both halves. */
  key: Buffer
  sectorBytes: number
  /** What the sector of a number is numbered with: 16 bytes, which the next call may use again. */
  numberOf(sector: number): Buffer
}

/** Encrypts whole sectors in their place, the first of which has the number `first`. */
export function encryptXts(sectors: XtsSectors, first: number, bytes: Buffer): void {
  eachSlice(sectors, first, bytes, createCipheriv)
}

export function decryptXts(sectors: XtsSectors, first: number, bytes: Buffer): void {
  eachSlice(sectors, first, bytes, createDecipheriv)
}

function eachSlice(
  { key, sectorBytes, numberOf }: XtsSectors,
  first: number,
  bytes: Buffer,
  create: typeof createCipheriv | typeof createDecipheriv,
): void {
  const half = key.length / 2
  const algorithm = `aes-${half * 8}-ecb`
  const data = create(algorithm, key.subarray(0, half), null)
  const numbers = createCipheriv(algorithm, key.subarray(half), null) // encrypted in both directions
  data.setAutoPadding(false)
  numbers.setAutoPadding(false)
  for (let offset = 0; offset < bytes.length; offset += SLICE_BYTES) {
    const slice = bytes.subarray(offset, offset + SLICE_BYTES)
    const start = first + offset / sectorBytes
    const count = slice.length / sectorBytes
    const plain = Buffer.alloc(count * BLOCK_BYTES)
    for (let sector = 0; sector < count; sector++) numberOf(start + sector).copy(plain, sector * BLOCK_BYTES)
    const masks = masksOf(wordsOf(numbers.update(plain)), sectorBytes / 4)
    data.update(xor(wordsOf(slice), masks)).copy(slice)
    Buffer.from(xor(wordsOf(slice), masks).buffer).copy(slice)
  }
}

/** T of every block, from those of the first block of each sector. */
function masksOf(heads: Uint32Array, sectorWords: number): Uint32Array {
  const masks = new Uint32Array((heads.length / BLOCK_WORDS) * sectorWords)
  for (let head = 0, word = 0; head < heads.length; head += BLOCK_WORDS) {
    let [w0, w1, w2, w3] = [heads[head]!, heads[head + 1]!, heads[head + 2]!, heads[head + 3]!]
    for (const end = word + sectorWords; word < end; word += BLOCK_WORDS) {
      masks[word] = w0
      masks[word + 1] = w1
      masks[word + 2] = w2
      masks[word + 3] = w3
      const carry = w3 >>> 31
      w3 = (w3 << 1) | (w2 >>> 31)
      w2 = (w2 << 1) | (w1 >>> 31)
      w1 = (w1 << 1) | (w0 >>> 31)
      w0 = (w0 << 1) ^ (carry * REDUCTION)
    }
  }
  return masks
}

/** A copy: words begin where their memory does, and buffers anywhere. Little-endian, as XTS is and every machine that this runs on. */
function wordsOf(bytes: Buffer): Uint32Array {
  const words = new Uint32Array(bytes.length / 4)
  new Uint8Array(words.buffer).set(bytes)
  return words
}

/** Into `words`, which it answers. */
function xor(words: Uint32Array, masks: Uint32Array): Uint32Array {
  for (let word = 0; word < words.length; word++) words[word]! ^= masks[word]!
  return words
}
