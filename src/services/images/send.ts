import type { VolumeData } from '../../drivers/driver.ts'
import { PIECE_BYTES } from './body-reader.ts'
import { beginConvertedSend } from './converted-send.ts'
import { clusterRuns, extentsOf, readPiece } from './extents.ts'
import type { ImageFormat } from './formats.ts'
import { type Content, ImageSend, type Send } from './image-send.ts'
import type { ImageService } from './image-service.ts'
import { CLUSTER_BYTES, layOutQcow2 } from './qcow2-stream.ts'
import type { Spool } from './spool.ts'

/** Begins with the first byte; null while there is no room to convert it. */
export async function beginSend(
  { service, spool }: { service: ImageService; spool: Spool },
  { token, imageId, format }: { token: string; imageId: string; format: ImageFormat },
  source: VolumeData,
): Promise<Send | null> {
  const send = (content: Content) => new ImageSend(service, token, imageId, content)
  if (format === 'raw') return send(rawImage(source.sizeBytes))
  if (format === 'qcow2') return send(await qcow2Image(source))
  return beginConvertedSend(spool, { imageId, format }, source, send)
}

const ZEROS = Buffer.alloc(PIECE_BYTES)

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
