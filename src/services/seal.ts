import { createCipheriv, createDecipheriv, createHash } from 'node:crypto'
import { ServiceError } from '../errors.ts'
import type { Random } from '../runtime/random.ts'

/**
 * Secrets of users that have to outlive a request lie in the database with its work, and go with it into every backup and to every
 * replica of the database. So they are sealed with a key that is not there: it is a file of the data directory, which all processes
 * of one database have in common (src/app.ts).
 *
 * ```
 * sealed = "1." key id "." iv (12 bytes) tag (16) ciphertext          AES-256-GCM; both parts base64url
 * key id = the first 6 bytes of the SHA-256 of the key
 * ```
 */
export interface Seal {
  seal(secret: string): string
  /**
   * Throws ServiceUnavailable for what was sealed with another key: work that needs it is repeated, perhaps by a process that has
   * the key, and given up in the end.
   */
  open(sealed: string): string
}

export const SEAL_KEY_BYTES = 32

const FORMAT = '1'
const CIPHER = 'aes-256-gcm'
const IV_BYTES = 12
const TAG_BYTES = 16
const KEY_ID_BYTES = 6

export function createSeal(key: Buffer, random: Random): Seal {
  const keyId = createHash('sha256').update(key).digest().subarray(0, KEY_ID_BYTES).toString('base64url')
  const associated = Buffer.from(`${FORMAT}.${keyId}`)

  return {
    seal: (secret) => {
      const iv = random.bytes(IV_BYTES)
      const cipher = createCipheriv(CIPHER, key, iv, { authTagLength: TAG_BYTES }).setAAD(associated)
      const text = Buffer.concat([cipher.update(secret, 'utf8'), cipher.final()])
      return `${FORMAT}.${keyId}.${Buffer.concat([iv, cipher.getAuthTag(), text]).toString('base64url')}`
    },
    open: (sealed) => {
      const [format, sealedWith, text = ''] = sealed.split('.')
      if (format !== FORMAT || sealedWith !== keyId)
        throw unopened('it was sealed with another key than this process has')
      const bytes = Buffer.from(text, 'base64url')
      const [iv, tag] = [bytes.subarray(0, IV_BYTES), bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES)]
      try {
        const decipher = createDecipheriv(CIPHER, key, iv, { authTagLength: TAG_BYTES })
        decipher.setAAD(associated).setAuthTag(tag)
        const secret = decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES))
        return Buffer.concat([secret, decipher.final()]).toString()
      } catch (error) {
        throw unopened('it is damaged', error)
      }
    },
  }
}

function unopened(why: string, cause?: unknown): ServiceError {
  const reason = `What is sealed in the database cannot be read: ${why}.`
  return new ServiceError('ServiceUnavailable', { reason }, { cause })
}
