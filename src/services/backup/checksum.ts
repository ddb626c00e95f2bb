import { createHash } from 'node:crypto'
import { xxh3 } from '@node-rs/xxhash'
import { z } from 'zod'

/**
 * Checksum of a chunk, as records of chunks have it: `<algorithm>:<hexadecimal>`. It finds what a target has lost or changed. Against somebody who
 * may write there no checksum helps, since they can write that anew too: so it is XXH3 (64 bits), five times as fast as SHA-256, which backups
 * had before and which is understood for as long as they are.
 *
 * Source: "XXH3 Algorithm Overview", xxHash specification.
 */
export const Checksum = z.string().regex(/^(xxh3:[0-9a-f]{16}|sha256:[0-9a-f]{64})$/)
export type Checksum = z.infer<typeof Checksum>

/** Is told the bytes of a chunk, in order. */
export interface Checksumming {
  update(bytes: Buffer): void
  /** Once. */
  end(): Checksum
}

/** `like` has the algorithm of another one, with which it is to be compared. */
export function startChecksum(like?: Checksum): Checksumming {
  if (like?.startsWith('sha256:')) {
    const hash = createHash('sha256')
    return { update: (bytes) => hash.update(bytes), end: () => `sha256:${hash.digest('hex')}` }
  }
  const hash = xxh3.Xxh3.withSeed()
  return { update: (bytes) => hash.update(bytes), end: () => `xxh3:${hash.digest().toString(16).padStart(16, '0')}` }
}

export function isAsChecked(bytes: Buffer, checksum: Checksum): boolean {
  const found = startChecksum(checksum)
  found.update(bytes)
  return found.end() === checksum
}
