import { createHash, getHashes, type Hash } from 'node:crypto'
import { ServiceError } from '../../errors.ts'
import type { ImageBody } from './image-service.ts'
import type { ImageSource } from './rules.ts'

/** So much moves at a time: long enough to cost little, short enough that the event loop is soon free again. */
export const PIECE_BYTES = 1024 * 1024

/** The content of an image in pieces of one length, but for the last one, counted and checked against what the service says of it. */
export class BodyReader {
  readonly #body: ImageBody
  readonly #source: ImageSource
  readonly #hash: { digest: Hash; expected: string } | null
  #rest: Buffer = Buffer.alloc(0)
  #receivedBytes = 0

  constructor(body: ImageBody, source: ImageSource) {
    this.#body = body
    this.#source = source
    this.#hash = hashOf(source)
  }

  get receivedBytes(): number {
    return this.#receivedBytes
  }

  /**
   * The next piece, in memory of its own; null at the end. Throws ImageCopyFailure when the content is not what it should be, which
   * shows at the end at the latest.
   */
  async next(): Promise<Buffer | null> {
    const piece = Buffer.allocUnsafe(PIECE_BYTES)
    let filled = 0
    while (filled < PIECE_BYTES) {
      if (this.#rest.length === 0) {
        const chunk = await this.#body.read()
        if (chunk === null) break
        this.#rest = chunk
      }
      const count = this.#rest.copy(piece, filled)
      this.#rest = this.#rest.subarray(count)
      filled += count
    }
    this.#receivedBytes += filled
    const { sizeBytes } = this.#source
    if (this.#receivedBytes > sizeBytes) throw failure(`there are more than its ${sizeBytes} bytes`)
    if (filled > 0) {
      const bytes = piece.subarray(0, filled)
      this.#hash?.digest.update(bytes)
      return bytes
    }
    if (this.#receivedBytes < sizeBytes) throw failure(`only ${this.#receivedBytes} of its ${sizeBytes} bytes came`)
    if (this.#hash !== null && this.#hash.digest.digest('hex') !== this.#hash.expected) {
      throw failure('its content does not match its checksum')
    }
    return null
  }

  close(): void {
    this.#body.close()
  }
}

function hashOf({ hash, checksum }: ImageSource): { digest: Hash; expected: string } | null {
  if (hash !== null && getHashes().includes(hash.algorithm)) {
    return { digest: createHash(hash.algorithm), expected: hash.value }
  }
  return checksum === null ? null : { digest: createHash('md5'), expected: checksum }
}

function failure(reason: string): ServiceError {
  return new ServiceError('ImageCopyFailure', { reason })
}
