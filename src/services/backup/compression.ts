import { promisify } from 'node:util'
import { inflate } from 'node:zlib'
import { compress, uncompress } from 'lz4-napi'
import { CHUNK_BYTES, type ChunkRecord } from './format.ts'

/** What is not made smaller by a tenth is kept as it is. */
const COMPRESSED_SHARE_MAX = 0.9

/** Pieces of a chunk that are tried first, so that what does not get smaller costs next to nothing. */
const SAMPLES = 8
const SAMPLE_BYTES = 8192

const decompressDeflate = promisify(inflate)

/** The bytes as they are kept: compressed by LZ4, which keeps up with a disk, when that helps. */
export async function pack(bytes: Buffer): Promise<{ encoding: ChunkRecord['encoding']; stored: Buffer }> {
  const asItIs = { encoding: 'none', stored: bytes } as const
  if (bytes.length > SAMPLES * SAMPLE_BYTES && !isSmaller(await compress(sampleOf(bytes)), SAMPLES * SAMPLE_BYTES)) {
    return asItIs
  }
  const compressed = await compress(bytes)
  return isSmaller(compressed, bytes.length) ? { encoding: 'lz4', stored: compressed } : asItIs
}

/** Null for what cannot be such bytes. */
export async function unpack(encoding: ChunkRecord['encoding'], stored: Buffer): Promise<Buffer | null> {
  if (encoding === 'none') return stored
  try {
    if (encoding === 'deflate') return await decompressDeflate(stored, { maxOutputLength: CHUNK_BYTES })
    // Its first bytes say how much memory to take.
    return stored.readUInt32LE(0) > CHUNK_BYTES ? null : await uncompress(stored)
  } catch {
    return null
  }
}

const isSmaller = (compressed: Buffer, lengthBytes: number) => compressed.length <= lengthBytes * COMPRESSED_SHARE_MAX

function sampleOf(bytes: Buffer): Buffer {
  const step = Math.floor(bytes.length / SAMPLES)
  return Buffer.concat(
    Array.from({ length: SAMPLES }, (_, index) => bytes.subarray(index * step, index * step + SAMPLE_BYTES)),
  )
}
