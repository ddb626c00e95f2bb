import type { VolumeData } from '../../drivers/driver.ts'
import type { DiskFile } from '../../runtime/disk.ts'
import { nonZeroRuns } from '../../runtime/zeros.ts'
import { PIECE_BYTES } from './body-reader.ts'
import { clusterRuns, readPiece } from './extents.ts'
import type { Content, Send, SendProgress } from './image-send.ts'
import { CLUSTER_BYTES, type ClusterRun } from './qcow2-stream.ts'
import { blockBytesOf, createImage, imageBytesMax, type Writing, type WrittenFormat, writeRange } from './qemu-img.ts'
import type { Spool, SpoolRoom } from './spool.ts'

/** Of the disk, that one run of qemu-img converts: it bounds how long that takes, and the room for what it reads. */
const RANGE_BYTES = 256 * 1024 * 1024
const IMAGE = 'image'
const RANGE = 'raw'

/** Null while others have the room that it may need. Throws ImageTooBig for what there never is room for. */
export async function beginConvertedSend(
  spool: Spool,
  { imageId, format }: { imageId: string; format: WrittenFormat },
  source: VolumeData,
  send: (content: Content) => Send,
): Promise<Send | null> {
  const runs = await clusterRuns(source)
  const fileBytesMax = imageBytesMax(format, source.sizeBytes, blocksIn(runs, blockBytesOf(format)))
  const room = await spool.reserve(imageId, fileBytesMax + RANGE_BYTES)
  if (room === null) return null
  const writing = { imageId, format, path: room.place(IMAGE).path, fileBytesMax }
  return new ConvertedSend(room, writing, source.sizeBytes, runs, send)
}

/** All of the image into a file, range by range of the disk; then that, which only then has a length, to the service. */
class ConvertedSend implements Send {
  readonly #room: SpoolRoom
  readonly #writing: Writing
  readonly #diskBytes: number
  readonly #runs: readonly ClusterRun[]
  readonly #send: (content: Content) => Send
  /** Null until there is an image. */
  #doneBytes: number | null = null
  #sending: { send: Send; file: DiskFile } | null = null

  constructor(
    room: SpoolRoom,
    writing: Writing,
    diskBytes: number,
    runs: readonly ClusterRun[],
    send: (content: Content) => Send,
  ) {
    this.#room = room
    this.#writing = writing
    this.#diskBytes = diskBytes
    this.#runs = runs
    this.#send = send
  }

  async advance(source: VolumeData, isTimeUp: () => boolean): Promise<boolean> {
    do {
      if (this.#sending !== null) return this.#sending.send.advance(source, isTimeUp)
      if (this.#doneBytes === null) {
        await createImage(this.#writing, this.#diskBytes)
        this.#doneBytes = 0
      } else if (this.#doneBytes < this.#diskBytes) {
        const lengthBytes = Math.min(RANGE_BYTES, this.#diskBytes - this.#doneBytes)
        await this.#convert(source, this.#doneBytes, lengthBytes)
        this.#doneBytes += lengthBytes
      } else {
        const file = await this.#room.disk.open(this.#room.place(IMAGE).file)
        this.#sending = { file, send: this.#send(contentOf(file, await file.size())) }
      }
    } while (!isTimeUp())
    return false
  }

  progress(): SendProgress {
    if (this.#sending !== null) return this.#sending.send.progress()
    return { phase: 'convert', doneBytes: this.#doneBytes ?? 0, totalBytes: this.#diskBytes }
  }

  async dispose(): Promise<void> {
    await this.#sending?.send.dispose()
    await this.#sending?.file.close()
    await this.#room.release()
  }

  async #convert(source: VolumeData, offset: number, lengthBytes: number): Promise<void> {
    const within = clip(this.#runs, offset, offset + lengthBytes)
    if (within.length === 0) return
    const { disk } = this.#room
    const range = this.#room.place(RANGE)
    const file = await disk.open(range.file, { create: true, empty: true })
    try {
      await file.truncate(lengthBytes)
      for (const { start, end } of within) {
        for (let at = start; at < end; at += PIECE_BYTES) {
          const piece = await readPiece(source, at, Math.min(PIECE_BYTES, end - at))
          for (const run of nonZeroRuns(piece)) {
            await file.write(piece.subarray(run.offset, run.offset + run.lengthBytes), at - offset + run.offset)
          }
        }
      }
      await writeRange(this.#writing, { from: range.path, offset, lengthBytes })
    } finally {
      await file.close()
      await disk.unlink(range.file)
    }
  }
}

function contentOf(file: DiskFile, sizeBytes: number): Content {
  return {
    sizeBytes,
    pieces: async function* () {
      for (let at = 0; at < sizeBytes; at += PIECE_BYTES) {
        const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, sizeBytes - at))
        yield piece.subarray(0, await file.read(piece, at))
      }
    },
  }
}

/** The parts of the runs between two places of the disk, in bytes. */
function clip(runs: readonly ClusterRun[], from: number, to: number): { start: number; end: number }[] {
  return runs.flatMap(({ first, count }) => {
    const start = Math.max(first * CLUSTER_BYTES, from)
    const end = Math.min((first + count) * CLUSTER_BYTES, to)
    return start < end ? [{ start, end }] : []
  })
}

/** How many pieces of that length the runs touch. */
function blocksIn(runs: readonly ClusterRun[], blockBytes: number): number {
  let blocks = 0
  let last = -1
  for (const { first, count } of runs) {
    const from = Math.max(last + 1, Math.floor((first * CLUSTER_BYTES) / blockBytes))
    const to = Math.floor(((first + count) * CLUSTER_BYTES - 1) / blockBytes)
    blocks += Math.max(0, to + 1 - from)
    last = Math.max(last, to)
  }
  return blocks
}
