import type { VolumeData } from '../../drivers/driver.ts'
import type { DiskFile } from '../../runtime/disk.ts'
import { nonZeroRuns } from '../../runtime/zeros.ts'
import { BodyReader, PIECE_BYTES } from './body-reader.ts'
import { checkRawHead, checkStructured, type ReadImage } from './disk-format.ts'
import type { StructuredFormat } from './formats.ts'
import type { ImageService } from './image-service.ts'
import { convertRange, virtualSizeOf } from './qemu-img.ts'
import { checkVirtualSize, type ImageSource, unacceptable } from './rules.ts'
import type { Spool, SpoolRoom } from './spool.ts'
import type { Transfer } from './transfers.ts'

/**
 * An image on its way into a volume that reads as zeros, or holds a part of the same image. Blocks of zeros are not written, so
 * that holes stay holes; but into one that is encrypted, in which a hole is anything but zeros.
 */
export interface Fill extends Transfer {
  /** Moves at least one piece, and goes on until the time is up. True when the volume holds all of it, durably. */
  advance(volume: VolumeData, isTimeUp: () => boolean): Promise<boolean>
  progress(): FillProgress
}

export interface FillProgress {
  phase: 'download' | 'convert'
  doneBytes: number
  totalBytes: number
}

/** Begins with the first byte; null while there is no room to convert it. */
export async function beginFill(
  { service, spool }: { service: ImageService; spool: Spool },
  token: string,
  source: ImageSource,
  volumeGib: number,
): Promise<Fill | null> {
  const open = async () => new BodyReader(await service.download(token, source.id), source)
  const { format } = source
  if (format === 'raw') return new RawFill(await open(), source)
  const room = await spool.reserve(source.id, source.sizeBytes + RANGE_BYTES)
  if (room === null) return null
  try {
    const file = await room.disk.open(room.place(IMAGE).file, { create: true, empty: true })
    try {
      return new ConvertedFill(await open(), { ...source, format }, volumeGib, room, file)
    } catch (error) {
      await file.close()
      throw error
    }
  } catch (error) {
    await room.release()
    throw error
  }
}

/** The bytes of the disk as they come: straight into the volume. */
class RawFill implements Fill {
  readonly #body: BodyReader
  readonly #source: ImageSource

  constructor(body: BodyReader, source: ImageSource) {
    this.#body = body
    this.#source = source
  }

  async advance(volume: VolumeData, isTimeUp: () => boolean): Promise<boolean> {
    let writing: Promise<void> = Promise.resolve()
    try {
      do {
        const offset = this.#body.receivedBytes
        const piece = await this.#body.next()
        await writing
        if (piece === null) {
          await volume.flush()
          return true
        }
        if (offset === 0) {
          checkFits(this.#source.id, this.#source.sizeBytes, volume)
          checkRawHead(this.#source.id, piece, this.#source)
        }
        writing = writeData(volume, offset, piece)
        writing.catch(() => {}) // told by the await above or below
      } while (!isTimeUp())
      return false
    } finally {
      await writing
    }
  }

  progress(): FillProgress {
    return { phase: 'download', doneBytes: this.#body.receivedBytes, totalBytes: this.#source.sizeBytes }
  }

  async dispose(): Promise<void> {
    this.#body.close()
  }
}

/** Of the disk, that one run of qemu-img converts: it bounds how long that takes, and the room for what it makes. */
const RANGE_BYTES = 512 * 1024 * 1024
const IMAGE = 'image'
const RANGE = 'raw'

type StructuredSource = ImageSource & { format: StructuredFormat }

/** All of the image into a file; then the disk that it describes, range by range. */
class ConvertedFill implements Fill {
  readonly #body: BodyReader
  readonly #source: StructuredSource
  readonly #volumeGib: number
  readonly #room: SpoolRoom
  readonly #file: DiskFile
  /** Null until all of the image is there. */
  #disk: { sizeBytes: number; doneBytes: number } | null = null

  constructor(body: BodyReader, source: StructuredSource, volumeGib: number, room: SpoolRoom, file: DiskFile) {
    this.#body = body
    this.#source = source
    this.#volumeGib = volumeGib
    this.#room = room
    this.#file = file
  }

  async advance(volume: VolumeData, isTimeUp: () => boolean): Promise<boolean> {
    do {
      if (this.#disk === null) {
        await this.#receive()
        continue
      }
      const { sizeBytes, doneBytes: offset } = this.#disk
      checkFits(this.#source.id, sizeBytes, volume)
      const lengthBytes = Math.min(RANGE_BYTES, sizeBytes - offset)
      if (lengthBytes > 0) await this.#convert(volume, offset, lengthBytes)
      this.#disk.doneBytes += lengthBytes
      if (this.#disk.doneBytes < sizeBytes) continue
      await volume.flush()
      return true
    } while (!isTimeUp())
    return false
  }

  progress(): FillProgress {
    if (this.#disk !== null) {
      return { phase: 'convert', doneBytes: this.#disk.doneBytes, totalBytes: this.#disk.sizeBytes }
    }
    return { phase: 'download', doneBytes: this.#body.receivedBytes, totalBytes: this.#source.sizeBytes }
  }

  async dispose(): Promise<void> {
    this.#body.close()
    await this.#file.close()
    await this.#room.release()
  }

  async #receive(): Promise<void> {
    const { id, format } = this.#source
    const offset = this.#body.receivedBytes
    const piece = await this.#body.next()
    if (piece === null) {
      await checkStructured(id, format, readerOf(this.#file, offset))
      const sizeBytes = await virtualSizeOf(id, format, this.#room.place(IMAGE).path)
      checkVirtualSize(id, sizeBytes, this.#volumeGib)
      this.#disk = { sizeBytes, doneBytes: 0 }
      return
    }
    await this.#file.write(piece, offset)
  }

  async #convert(volume: VolumeData, offset: number, lengthBytes: number): Promise<void> {
    const { disk } = this.#room
    const [from, to] = [this.#room.place(IMAGE).path, this.#room.place(RANGE)]
    await convertRange(this.#source, { from, to: to.path, offset, lengthBytes })
    const range = await disk.open(to.file)
    try {
      const whole = [{ position: 0, length: lengthBytes }]
      for (const { position, length } of volume.startsAsZeros === false ? whole : await range.dataRanges()) {
        for (let at = position; at < position + length; at += PIECE_BYTES) {
          const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, position + length - at))
          const count = await range.read(piece, at)
          await writeData(volume, offset + at, piece.subarray(0, count))
        }
      }
    } finally {
      await range.close()
      await disk.unlink(to.file)
    }
  }
}

/** Of what the image says of itself, nothing is so long that it would have to be read in parts. */
function readerOf(file: DiskFile, sizeBytes: number): ReadImage {
  return async (offset, lengthBytes) => {
    const bytes = Buffer.alloc(Math.max(0, Math.min(lengthBytes, sizeBytes - offset)))
    return bytes.subarray(0, await file.read(bytes, offset))
  }
}

/** The header of an encrypted volume takes room that the size of the volume does not tell of. */
function checkFits(imageId: string, imageBytes: number, { sizeBytes }: VolumeData): void {
  if (imageBytes <= sizeBytes) return
  throw unacceptable(imageId, `it has ${imageBytes} bytes, and the volume has room for ${sizeBytes}.`)
}

async function writeData(volume: VolumeData, offset: number, bytes: Buffer): Promise<void> {
  if (volume.startsAsZeros === false) return volume.write(offset, bytes)
  for (const { offset: at, lengthBytes } of nonZeroRuns(bytes)) {
    await volume.write(offset + at, bytes.subarray(at, at + lengthBytes))
  }
}
