import { promisify } from 'node:util'
import koffi from 'koffi'
import { compress, uncompress } from 'lz4-napi'

/**
 * LZ4 blocks, each behind the length of what it was made of (32 bits, little-endian), from memory to memory of the caller: fresh memory
 * for each block costs several times as much as LZ4 itself. Neither memory may be touched before the promise has settled.
 */
export interface Lz4 {
  /** Answers how much of `target` it took; null when that has no room. */
  compress(source: Buffer, target: Buffer): Promise<number | null>
  /** Answers the length of what is in `target` then; null for bytes that are no such block, and where it has no room. */
  uncompress(source: Buffer, target: Buffer): Promise<number | null>
}

const LENGTH_BYTES = 4

/** The library of the system, which nearly every one has: several times as fast. Null without one. */
export const systemLz4: Lz4 | null = openSystemLz4()

/** For the others. */
export const bundledLz4: Lz4 = {
  compress: async (source, target) => into(target, await compress(source)),
  uncompress: async (source, target) => {
    if (lengthOf(source) > target.length) return null // it takes so much memory, whatever follows
    return into(target, await uncompress(source).catch(() => null))
  },
}

export const lz4: Lz4 = systemLz4 ?? bundledLz4

function openSystemLz4(): Lz4 | null {
  let library: ReturnType<typeof koffi.load>
  try {
    library = koffi.load('liblz4.so.1')
  } catch {
    return null
  }
  type Run = (source: Buffer, target: Buffer, sourceBytes: number, targetBytes: number) => Promise<number>
  const onPool = (name: string) => {
    const run = library.func(`int ${name}(const void *source, void *target, int sourceBytes, int targetBytes)`)
    return promisify(run.async) as unknown as Run
  }
  const compressBlock = onPool('LZ4_compress_default')
  const uncompressBlock = onPool('LZ4_decompress_safe')
  return {
    compress: async (source, target) => {
      const block = target.subarray(LENGTH_BYTES)
      const blockBytes = await compressBlock(source, block, source.length, block.length)
      if (blockBytes <= 0) return null
      target.writeUInt32LE(source.length)
      return LENGTH_BYTES + blockBytes
    },
    uncompress: async (source, target) => {
      const lengthBytes = lengthOf(source)
      if (lengthBytes > target.length) return null
      const block = source.subarray(LENGTH_BYTES)
      return (await uncompressBlock(block, target, block.length, lengthBytes)) === lengthBytes ? lengthBytes : null
    },
  }
}

/** Longer than any memory where there is none. */
const lengthOf = (source: Buffer): number =>
  source.length < LENGTH_BYTES ? Number.POSITIVE_INFINITY : source.readUInt32LE()

function into(target: Buffer, bytes: Buffer | null): number | null {
  if (bytes === null || bytes.length > target.length) return null
  target.set(bytes)
  return bytes.length
}
