import { createHash } from 'node:crypto'
import type { VolumeData } from '../../drivers/driver.ts'
import type { Image, ImageService, ImageUpload } from './image-service.ts'
import { unacceptable } from './rules.ts'
import type { Transfer } from './transfers.ts'

/** What a snapshot holds on its way to the image service. */
export interface Send extends Transfer {
  /** Moves at least one piece, and goes on until the time is up. True when the service has all of it. */
  advance(source: VolumeData, isTimeUp: () => boolean): Promise<boolean>
  progress(): SendProgress
}

export interface SendProgress {
  /** `upload` unless said. */
  phase?: 'convert'
  doneBytes: number
  totalBytes: number
}

/** What Glance hashes content with unless it is told otherwise. */
const HASH = 'sha512'

/** An image as it will be: how long, and its pieces in order. `source` is asked for each, since it is another in each attempt. */
export interface Content {
  sizeBytes: number
  pieces(source: () => VolumeData): AsyncGenerator<Buffer>
}

export class ImageSend implements Send {
  readonly #service: ImageService
  readonly #token: string
  readonly #imageId: string
  readonly #totalBytes: number
  readonly #upload: ImageUpload
  readonly #pieces: AsyncGenerator<Buffer>
  readonly #hash = createHash(HASH)
  #source: VolumeData | null = null
  #sentBytes = 0

  constructor(service: ImageService, token: string, imageId: string, { sizeBytes, pieces }: Content) {
    this.#service = service
    this.#token = token
    this.#imageId = imageId
    this.#totalBytes = sizeBytes
    this.#pieces = pieces(() => this.#source!)
    this.#upload = service.upload(token, imageId, sizeBytes)
  }

  async advance(source: VolumeData, isTimeUp: () => boolean): Promise<boolean> {
    this.#source = source
    do {
      const { value: piece, done } = await this.#pieces.next()
      const isWanted = !done && (await this.#upload.write(piece))
      if (!isWanted) {
        await this.#upload.finish()
        await this.#check(await this.#service.show(this.#token, this.#imageId))
        return true
      }
      this.#hash.update(piece)
      this.#sentBytes += piece.length
    } while (!isTimeUp())
    return false
  }

  progress(): SendProgress {
    return { doneBytes: this.#sentBytes, totalBytes: this.#totalBytes }
  }

  async dispose(): Promise<void> {
    this.#upload.abort()
  }

  #check({ id, status, sizeBytes, hash }: Image): void {
    const isHashRight = hash?.algorithm !== HASH || hash.value === this.#hash.digest('hex')
    if (status === 'active' && sizeBytes === this.#totalBytes && this.#sentBytes === this.#totalBytes && isHashRight) {
      return
    }
    throw unacceptable(id, `it is ${status} with ${sizeBytes} bytes, and is not what was uploaded`)
  }
}
