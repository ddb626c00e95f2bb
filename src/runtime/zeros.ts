/** Blocks that a transfer leaves out when they hold nothing but zeros. */
const BLOCK_BYTES = 4096
const ZEROS = Buffer.alloc(1024 * 1024)

export interface Run {
  offset: number
  lengthBytes: number
}

/** Where a buffer holds something but zeros, in runs of whole blocks. */
export function* nonZeroRuns(bytes: Buffer): Generator<Run> {
  if (isZero(bytes)) return
  let start = -1
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const zero = isZero(bytes.subarray(at, at + BLOCK_BYTES))
    if (zero && start >= 0) {
      yield { offset: start, lengthBytes: at - start }
      start = -1
    } else if (!zero && start < 0) start = at
  }
  if (start >= 0) yield { offset: start, lengthBytes: bytes.length - start }
}

function isZero(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at += ZEROS.length) {
    const part = bytes.subarray(at, at + ZEROS.length)
    if (part.compare(ZEROS, 0, part.length) !== 0) return false
  }
  return true
}
