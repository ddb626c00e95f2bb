import assert from 'node:assert/strict'
import { createCipheriv, createDecipheriv, createHash } from 'node:crypto'
import { decryptXts, encryptXts } from './xts.ts'

/** How sectors are encrypted, in the words of a LUKS header: `aes` and `xts-plain64`. */
export interface Cipher {
  name: string
  mode: string
}

export const SECTOR_BYTES = 512

/** What initialization vectors are made of, by the mode: the number of the sector, plain or encrypted. */
type Numbering = 'plain' | 'plain64' | 'essiv:sha256'
type Chaining = 'xts' | 'cbc'

/** Lengths in bytes that a key may have; of XTS it is two keys. */
const KEY_BYTES: Readonly<Record<Chaining, readonly number[]>> = { xts: [32, 64], cbc: [16, 24, 32] }

/**
 * Reads what a volume type says of its cipher: `aes-xts-plain64` with 256 or 512 bits, `aes-cbc-essiv:sha256` and the like with 128,
 * 192 or 256. Null for what nothing here encrypts with.
 */
export function parseCipher(text: string, keyBits: number): Cipher | null {
  const [, name, mode] = /^(\w+)-(.+)$/.exec(text) ?? []
  if (name === undefined || mode === undefined) return null
  const cipher = { name, mode }
  return isSupported(cipher, keyBits / 8) ? cipher : null
}

export function isSupported({ name, mode }: Cipher, keyBytes: number): boolean {
  const [, chaining, numbering] = MODE.exec(mode) ?? []
  if (name !== 'aes' || chaining === undefined) return false
  if (chaining === 'xts' && numbering === 'essiv:sha256') return false // needs a hash of the length of two keys
  return KEY_BYTES[chaining as Chaining].includes(keyBytes)
}

const MODE = /^(xts|cbc)-(plain|plain64|essiv:sha256)$/

/** Encrypts whole sectors in their place, the first of which has the number `sector`. */
export function encryptSectors(cipher: Cipher, key: Buffer, sector: number, bytes: Buffer): void {
  eachSector(cipher, key, sector, bytes, { xts: encryptXts, cbc: createCipheriv })
}

export function decryptSectors(cipher: Cipher, key: Buffer, sector: number, bytes: Buffer): void {
  eachSector(cipher, key, sector, bytes, { xts: decryptXts, cbc: createDecipheriv })
}

function eachSector(
  { name, mode }: Cipher,
  key: Buffer,
  first: number,
  bytes: Buffer,
  by: { xts: typeof encryptXts; cbc: typeof createCipheriv | typeof createDecipheriv },
): void {
  assert(bytes.length % SECTOR_BYTES === 0, 'only whole sectors are encrypted')
  assert(isSupported({ name, mode }, key.length), 'the header was checked, or made here')
  const [, chaining, numbering] = MODE.exec(mode) as unknown as [string, Chaining, Numbering]
  const vector = vectors(numbering, key)
  if (chaining === 'xts') return by.xts({ key, sectorBytes: SECTOR_BYTES, numberOf: vector }, first, bytes)
  for (let offset = 0; offset < bytes.length; offset += SECTOR_BYTES) {
    const part = bytes.subarray(offset, offset + SECTOR_BYTES)
    const sectorCipher = by.cbc(`${name}-${key.length * 8}-cbc`, key, vector(first + offset / SECTOR_BYTES))
    sectorCipher.setAutoPadding(false)
    sectorCipher.update(part).copy(part)
  }
}

function vectors(numbering: Numbering, key: Buffer): (sector: number) => Buffer {
  const vector = Buffer.alloc(16)
  const number = (sector: number) => {
    vector.fill(0)
    if (numbering === 'plain') vector.writeUInt32LE(sector % 2 ** 32, 0)
    else vector.writeBigUInt64LE(BigInt(sector), 0)
    return vector
  }
  if (numbering !== 'essiv:sha256') return number
  const salt = createHash('sha256').update(key).digest()
  return (sector) => createCipheriv('aes-256-ecb', salt, null).setAutoPadding(false).update(number(sector))
}
