import assert from 'node:assert/strict'

/**
 * A buffer that several replies share, handed out from front to back. Each taken range holds a reference until its
 * bytes have been sent or given up; only without references may the memory be used again.
 */
export class Slab {
  readonly buffer: Buffer
  references = 0
  /** Somebody who was not waited for may still write into it: its reference is never given back. */
  isGivenUp = false
  private usedBytes = 0

  constructor(buffer: Buffer) {
    this.buffer = buffer
  }

  hasRoom(lengthBytes: number): boolean {
    return this.usedBytes + lengthBytes <= this.buffer.length
  }

  /** Takes a range together with a reference and answers where it starts. */
  take(lengthBytes: number): number {
    assert(this.hasRoom(lengthBytes), 'a slab is only used while it has room')
    const start = this.usedBytes
    this.usedBytes += lengthBytes
    this.references++
    return start
  }

  reset(): void {
    assert(this.references === 0, 'the bytes are still in use')
    this.usedBytes = 0
  }
}
