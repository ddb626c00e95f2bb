import { createHash } from 'node:crypto'
import type { VolumeData } from '../../drivers/driver.ts'
import { PIECE_BYTES } from './body-reader.ts'
import type { Image, ImageService, ImageUpload } from './image-service.ts'
import { CLUSTER_BYTES, type ClusterRun, layOutQcow2 } from './qcow2-stream.ts'
import { unacceptable } from './rules.ts'
import type { Transfer } from './transfers.ts'

/** What a snapshot holds on its way to the image service. */
export interface Send extends Transfer {
  /** Moves at least one piece, and goes on until the time is up. True when the service has all of it. */
  advance(source: VolumeData, isTimeUp: () => boolean): Promise<boolean>
  progress(): { doneBytes: number; totalBytes: number }
}

/** The formats that a volume can be uploaded in. */
export const UPLOAD_FORMATS = ['raw', 'qcow2'] as const
export type UploadFormat = (typeof UPLOAD_FORMATS)[number]

/** What Glance hashes content with unless it is told otherwise. */
const HASH = 'sha512'

export async function beginSend(
  service: ImageService,
  { token, imageId, format }: { token: string; imageId: string; format: UploadFormat },
  source: VolumeData,
): Promise<Send> {
  const image = format === 'raw' ? rawImage(source.sizeBytes) : await qcow2Image(source)
  return new ImageSend(service, token, imageId, image)
}

/** An image as it will be: how long, and its pieces in order. `source` is asked for each, since it is another in each attempt. */
interface Content {
  sizeBytes: number
  pieces(source: () => VolumeData): AsyncGenerator<Buffer>
}

class ImageSend implements Send {
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

  progress(): { doneBytes: number; totalBytes: number } {
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

/** Every byte of the disk; what are holes is not read. */
function rawImage(sizeBytes: number): Content {
  return {
    sizeBytes,
    pieces: async function* (source) {
      for await (const { offset, lengthBytes, kind } of extentsOf(sizeBytes, source)) {
        for (let at = offset; at < offset + lengthBytes; at += PIECE_BYTES) {
          const length = Math.min(PIECE_BYTES, offset + lengthBytes - at)
          yield kind === 'hole' ? ZEROS.subarray(0, length) : await readPiece(source(), at, length)
        }
      }
    },
  }
}

async function qcow2Image(snapshot: VolumeData): Promise<Content> {
  const diskBytes = snapshot.sizeBytes
  const runs = await clusterRuns(snapshot)
  const { sizeBytes, metadata } = layOutQcow2(diskBytes, runs)
  return {
    sizeBytes,
    pieces: async function* (source) {
      yield* metadata()
      for (const { first, count } of runs) {
        const end = (first + count) * CLUSTER_BYTES
        for (let at = first * CLUSTER_BYTES; at < end; at += PIECE_BYTES) {
          yield await readPiece(source(), at, Math.min(PIECE_BYTES, end - at))
        }
      }
    },
  }
}

/** Which clusters of a disk hold data. */
async function clusterRuns(snapshot: VolumeData): Promise<ClusterRun[]> {
  const runs: ClusterRun[] = []
  for await (const { offset, lengthBytes, kind } of extentsOf(snapshot.sizeBytes, () => snapshot)) {
    if (kind === 'hole') continue
    const [first, last] = [offset, offset + lengthBytes - 1].map((at) => Math.floor(at / CLUSTER_BYTES)) as [
      number,
      number,
    ]
    const before = runs.at(-1)
    const end = before === undefined ? -1 : before.first + before.count
    if (before !== undefined && first <= end) before.count = Math.max(before.count, last + 1 - before.first)
    else runs.push({ first, count: last + 1 - first })
  }
  return runs
}

const ZEROS = Buffer.alloc(PIECE_BYTES)
/** A sparse disk of terabytes has long lists of extents: they are asked for a part at a time. */
const EXTENTS_RANGE_BYTES = 1024 ** 3

async function* extentsOf(sizeBytes: number, source: () => VolumeData) {
  for (let start = 0; start < sizeBytes; start += EXTENTS_RANGE_BYTES) {
    let offset = start
    for (const extent of await source().extents(start, Math.min(EXTENTS_RANGE_BYTES, sizeBytes - start))) {
      yield { offset, ...extent }
      offset += extent.lengthBytes
    }
  }
}

/** The last cluster of a disk may reach beyond its end. */
async function readPiece(source: VolumeData, offset: number, lengthBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(lengthBytes)
  await source.read(offset, bytes.subarray(0, Math.min(lengthBytes, source.sizeBytes - offset)))
  return bytes
}
