import { promisify } from 'node:util'
import { inflate } from 'node:zlib'
import { lz4 } from '../../runtime/lz4.ts'
import { CHUNK_BYTES, type ChunkRecord } from './format.ts'

/** What is not made smaller by a tenth is kept as it is. */
const COMPRESSED_SHARE_MAX = 0.9

/** Pieces of a chunk that are tried first, so that what does not get smaller costs next to nothing. */
const SAMPLES = 8
const SAMPLE_BYTES = 8192

const decompressDeflate = promisify(inflate)

/** The bytes as they are kept: compressed by LZ4, which keeps up with a disk, when that helps; `memory` has room for a chunk. */
export async function pack(
  bytes: Buffer,
  memory: Buffer,
): Promise<{ encoding: ChunkRecord['encoding']; stored: Buffer }> {
  const asItIs = { encoding: 'none', stored: bytes } as const
  if (bytes.length > SAMPLES * SAMPLE_BYTES) {
    const sample = sampleOf(bytes, memory)
    if ((await compressed(sample, memory.subarray(sample.length))) === null) return asItIs
  }
  const stored = await compressed(bytes, memory)
  return stored === null ? asItIs : { encoding: 'lz4', stored }
}

/** Null for what cannot be such bytes. What is made of `stored` is in `memory`, which has room for a chunk, where it fits. */
export async function unpack(
  encoding: ChunkRecord['encoding'],
  stored: Buffer,
  memory: Buffer,
): Promise<Buffer | null> {
  if (encoding === 'none') return stored
  if (encoding === 'deflate') {
    return decompressDeflate(stored, { maxOutputLength: CHUNK_BYTES }).catch(() => null)
  }
  const lengthBytes = await lz4.uncompress(stored, memory)
  return lengthBytes === null ? null : memory.subarray(0, lengthBytes)
}

/** In `memory`; null when that does not help. */
async function compressed(bytes: Buffer, memory: Buffer): Promise<Buffer | null> {
  const room = memory.subarray(0, Math.floor(bytes.length * COMPRESSED_SHARE_MAX))
  const lengthBytes = await lz4.compress(bytes, room)
  return lengthBytes === null ? null : room.subarray(0, lengthBytes)
}

function sampleOf(bytes: Buffer, memory: Buffer): Buffer {
  const step = Math.floor(bytes.length / SAMPLES)
  for (let index = 0; index < SAMPLES; index++) {
    bytes.copy(memory, index * SAMPLE_BYTES, index * step, index * step + SAMPLE_BYTES)
  }
  return memory.subarray(0, SAMPLES * SAMPLE_BYTES)
}
