import assert from 'node:assert/strict'

/** Added to each power of two, so that 1 MiB of data with a reply header in front still fits the 1 MiB class. */
const HEADROOM_BYTES = 4096
const CLASS_BITS_MIN = 12
const CLASS_BITS_MAX = 25
/** Free memory kept for reuse; what comes back beyond it is left to the garbage collector. */
const RETAINED_BYTES_MAX = 32 * 1024 * 1024

/**
 * Buffers that are used again, because the first touch of fresh memory (a page fault per 4 KiB) costs more than
 * copying into it. What a taken buffer holds is arbitrary: whoever sends it to a client must have written every byte.
 */
export class BufferPool {
  private readonly free: Buffer[][] = Array.from({ length: CLASS_BITS_MAX + 1 }, () => [])
  private retainedBytes = 0

  /** A buffer of at least `lengthBytes`. One that is never released is simply collected. */
  take(lengthBytes: number): Buffer {
    const bits = classBits(lengthBytes)
    const buffer = this.free[bits]!.pop()
    if (buffer === undefined) return Buffer.allocUnsafeSlow(2 ** bits + HEADROOM_BYTES)
    this.retainedBytes -= buffer.length
    return buffer
  }

  /** Takes back a buffer from `take`, or a part that stands for the whole, that nobody else, kernel included, will touch any more. */
  release(part: Buffer): void {
    const isWhole = part.length === part.buffer.byteLength
    const buffer = isWhole ? part : Buffer.from(part.buffer)
    if (this.retainedBytes + buffer.length > RETAINED_BYTES_MAX) return
    this.retainedBytes += buffer.length
    this.free[classBits(buffer.length)]!.push(buffer)
  }
}

/** The smallest class that holds `lengthBytes`: 2^bits + HEADROOM_BYTES. */
function classBits(lengthBytes: number): number {
  const bits = 32 - Math.clz32(Math.max(lengthBytes - HEADROOM_BYTES - 1, 0))
  assert(bits <= CLASS_BITS_MAX, 'longer than any payload')
  return Math.max(bits, CLASS_BITS_MIN)
}
