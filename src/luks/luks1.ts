import assert from 'node:assert/strict'
import { createHash, pbkdf2, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import type { Random } from '../runtime/random.ts'
import { type Cipher, decryptSectors, encryptSectors, SECTOR_BYTES } from './cipher.ts'

/**
 * LUKS, version 1: the header that says how a volume is encrypted, and keeps its master key for whoever knows the passphrase. After
 * the "LUKS On-Disk Format Specification", version 1.2.3, by its author. Numbers are big-endian, text ends with a zero.
 *
 * ```
 *   0 magic      6    "LUKS" ba be                  112 digest        20   PBKDF2 of the master key
 *   6 version    2    1                             132 its salt      32
 *   8 cipher    32    aes                           164 its rounds     4
 *  40 mode      32    xts-plain64, …                168 uuid          40
 *  72 hash      32    sha256                        208 key slots   8 x 48
 * 104 payload    4    its first sector                  0 state       4   00ac71f3 used, 0000dead free
 * 108 key length 4    bytes of the master key           4 rounds      4
 *                                                       8 salt       32
 *                                                      40 material    4   its first sector
 *                                                      44 stripes     4   4000
 * ```
 *
 * The material of a slot is the master key, split so that it is lost with any part of it, and encrypted with PBKDF2 of the passphrase.
 * Only the first slot is ever used here. Passphrases are made of keys as long as the master key, so nobody guesses them, and
 * rounds are there for form's sake.
 */

/** Where what the user sees begins: as cryptsetup and QEMU have it for keys of up to 512 bits. */
export const PAYLOAD_OFFSET_BYTES = 2 * 1024 * 1024

const MAGIC = Buffer.from('LUKS\xba\xbe', 'latin1')
const VERSION = 1
const HASH = 'sha256'
const HEADER_BYTES = 592
const SLOTS_OFFSET = 208
const SLOT_BYTES = 48
const SLOT_COUNT = 8
const SLOT_USED = 0x00ac71f3
const SLOT_FREE = 0x0000dead
const STRIPES = 4000
const ROUNDS = 10_000
/** What others may have asked for; their passphrases come from people. */
const ROUNDS_MAX = 50_000_000
const DIGEST_BYTES = 20
const SALT_BYTES = 32
/** Material begins at whole pages. */
const ALIGN_SECTORS = 8

const derive = promisify(pbkdf2)

/** What a volume is encrypted with, once it is opened. */
export interface MasterKey {
  cipher: Cipher
  key: Buffer
  /** Where the payload begins. */
  payloadOffset: number
}

/** A header with a master key of its own, to be written to the beginning of a volume that holds nothing yet. */
export async function formatLuks(
  { cipher, keyBytes, passphrase }: { cipher: Cipher; keyBytes: number; passphrase: string },
  random: Random,
): Promise<Buffer> {
  const key = random.bytes(keyBytes)
  const materialSectors = sectorsOf(keyBytes * STRIPES)
  const materialOffset = align(sectorsOf(HEADER_BYTES))
  const offsetOf = (slot: number) => materialOffset + slot * align(materialSectors)
  assert(offsetOf(SLOT_COUNT) * SECTOR_BYTES <= PAYLOAD_OFFSET_BYTES)

  const image = Buffer.alloc((materialOffset + materialSectors) * SECTOR_BYTES)
  MAGIC.copy(image, 0)
  image.writeUInt16BE(VERSION, 6)
  image.write(cipher.name, 8)
  image.write(cipher.mode, 40)
  image.write(HASH, 72)
  image.writeUInt32BE(PAYLOAD_OFFSET_BYTES / SECTOR_BYTES, 104)
  image.writeUInt32BE(keyBytes, 108)
  const digestSalt = random.bytes(SALT_BYTES)
  ;(await derive(key, digestSalt, ROUNDS, DIGEST_BYTES, HASH)).copy(image, 112)
  digestSalt.copy(image, 132)
  image.writeUInt32BE(ROUNDS, 164)
  image.write(random.uuid(), 168)

  const salt = random.bytes(SALT_BYTES)
  for (let slot = 0; slot < SLOT_COUNT; slot++) {
    const at = SLOTS_OFFSET + slot * SLOT_BYTES
    image.writeUInt32BE(slot === 0 ? SLOT_USED : SLOT_FREE, at)
    image.writeUInt32BE(slot === 0 ? ROUNDS : 0, at + 4)
    if (slot === 0) salt.copy(image, at + 8)
    image.writeUInt32BE(offsetOf(slot), at + 40)
    image.writeUInt32BE(STRIPES, at + 44)
  }
  const material = image.subarray(materialOffset * SECTOR_BYTES)
  split(key, random).copy(material)
  encryptSectors(cipher, await derive(passphrase, salt, ROUNDS, keyBytes, HASH), 0, material)
  return image
}

/** Why a header cannot be used: it is none, it is damaged, or the passphrase is another. */
export class LuksError extends Error {
  override readonly name = 'LuksError'
}

/**
 * Opens the master key of a header with the first slot that the passphrase fits. `head` is what the volume begins with, up to its
 * payload.
 */
export async function unlockLuks(head: Buffer, passphrase: string): Promise<MasterKey> {
  if (!isLuks(head)) throw new LuksError('it does not begin with a LUKS header of version 1')
  const cipher: Cipher = { name: textAt(head, 8), mode: textAt(head, 40) }
  const hash = textAt(head, 72)
  const payloadOffset = head.readUInt32BE(104) * SECTOR_BYTES
  const keyBytes = head.readUInt32BE(108)
  if (hash !== HASH) throw new LuksError(`its keys are derived with ${hash}, and not with ${HASH}`)
  if (keyBytes === 0 || keyBytes > 64) throw new LuksError(`its master key has ${keyBytes} bytes`)
  const digest = head.subarray(112, 112 + DIGEST_BYTES)
  const digestSalt = head.subarray(132, 132 + SALT_BYTES)
  const digestRounds = roundsAt(head, 164)
  for (let slot = 0; slot < SLOT_COUNT; slot++) {
    const at = SLOTS_OFFSET + slot * SLOT_BYTES
    if (head.readUInt32BE(at) !== SLOT_USED) continue
    const begin = head.readUInt32BE(at + 40) * SECTOR_BYTES
    const stripes = head.readUInt32BE(at + 44)
    const end = begin + sectorsOf(keyBytes * STRIPES) * SECTOR_BYTES
    if (stripes !== STRIPES || end > head.length) throw new LuksError(`its key slot ${slot} is damaged`)
    const salt = head.subarray(at + 8, at + 8 + SALT_BYTES)
    const slotKey = await derive(passphrase, salt, roundsAt(head, at + 4), keyBytes, HASH)
    const material = Buffer.from(head.subarray(begin, end))
    decryptSectors(cipher, slotKey, 0, material)
    const key = merge(material, keyBytes)
    if (timingSafeEqual(await derive(key, digestSalt, digestRounds, DIGEST_BYTES, HASH), digest)) {
      return { cipher, key, payloadOffset }
    }
  }
  throw new LuksError('no key slot of it opens with this key')
}

export function isLuks(head: Buffer): boolean {
  return head.length >= HEADER_BYTES && head.subarray(0, 6).equals(MAGIC) && head.readUInt16BE(6) === VERSION
}

function roundsAt(head: Buffer, offset: number): number {
  const rounds = head.readUInt32BE(offset)
  if (rounds === 0 || rounds > ROUNDS_MAX) throw new LuksError(`it asks for ${rounds} rounds of PBKDF2`)
  return rounds
}

/** Into `STRIPES` parts of the key's length, all but the last of which are random. */
function split(key: Buffer, random: Random): Buffer {
  const parts = Buffer.concat([random.bytes(key.length * (STRIPES - 1)), Buffer.alloc(key.length)])
  xor(chain(parts, key.length), key).copy(parts, key.length * (STRIPES - 1))
  return parts
}

function merge(parts: Buffer, keyBytes: number): Buffer {
  return xor(chain(parts, keyBytes), parts.subarray(keyBytes * (STRIPES - 1), keyBytes * STRIPES))
}

/** What all parts but the last come to. */
function chain(parts: Buffer, keyBytes: number): Buffer {
  let sum: Buffer = Buffer.alloc(keyBytes)
  for (let part = 0; part < STRIPES - 1; part++) {
    sum = diffuse(xor(sum, parts.subarray(part * keyBytes, (part + 1) * keyBytes)))
  }
  return sum
}

/** The hash of each piece as long as a hash, with its number before it; of the last one as much as there is room for. */
function diffuse(bytes: Buffer): Buffer {
  const pieces: Buffer[] = []
  for (let offset = 0; offset < bytes.length; offset += 32) {
    const number = Buffer.alloc(4)
    number.writeUInt32BE(offset / 32)
    const piece = bytes.subarray(offset, offset + 32)
    pieces.push(createHash(HASH).update(number).update(piece).digest().subarray(0, piece.length))
  }
  return Buffer.concat(pieces)
}

function xor(a: Buffer, b: Buffer): Buffer {
  return Buffer.from(a.map((byte, index) => byte ^ b[index]!))
}

function textAt(head: Buffer, offset: number): string {
  return head.toString('latin1', offset, offset + 32).split('\0')[0]!
}

const sectorsOf = (bytes: number): number => Math.ceil(bytes / SECTOR_BYTES)
const align = (sectors: number): number => Math.ceil(sectors / ALIGN_SECTORS) * ALIGN_SECTORS
