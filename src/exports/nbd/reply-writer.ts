import type { BufferPool } from '../../runtime/buffer-pool.ts'
import type { Connection } from '../../runtime/network.ts'
import type { Extent } from '../../vdi/device.ts'
import { BASE_ALLOCATION_ID } from './options.ts'
import {
  CHUNK,
  CHUNK_FLAG_DONE,
  CHUNK_HEADER_BYTES,
  DATA_CHUNK_HEADER_BYTES,
  NBD_ERROR,
  SIMPLE_REPLY_HEADER_BYTES,
  SIMPLE_REPLY_MAGIC,
  STATE,
  STRUCTURED_REPLY_MAGIC,
} from './protocol.ts'
import { Slab } from './slab.ts'

/** Replies are laid one behind the other in slabs of this size, so that a batch leaves as one buffer. */
const SLAB_BYTES = 256 * 1024
/** Larger replies get a slab of their own. */
const SHARED_REPLY_BYTES_MAX = 64 * 1024

/** Which request a reply is for. */
export interface Cookie {
  cookieHigh: number
  cookieLow: number
}

/** A run of finished replies in one slab. It holds one reference to the slab. */
interface Segment {
  slab: Slab
  start: number
  end: number
  /** Where it ends in all that was ever written to the connection. */
  streamEnd: number
}

/**
 * Builds replies and sends them in batches. Memory of a reply is used again only when the kernel has taken the bytes.
 *
 *     S: simple reply   32 bits magic, 32 bits error, 64 bits cookie, data of a successful READ
 *     S: chunk          32 bits magic, 16 bits flags, 16 bits type, 64 bits cookie, 32 bits length, `length` bytes:
 *          OFFSET_DATA    64 bits offset, data
 *          BLOCK_STATUS   32 bits context id, then per extent 32 bits length, 32 bits status
 *          ERROR          32 bits error, 16 bits message length, message
 *
 * With structured replies a READ and every error is answered by one chunk, and everything else by a simple reply,
 * which is shorter.
 */
export class ReplyWriter {
  private readonly connection: Connection
  private readonly pool: BufferPool
  private readonly structured: boolean
  /** Bytes in front of the data of a READ. */
  readonly dataHeaderBytes: number
  private current: Slab
  private batch: Segment[] = []
  /** Written, oldest first, and perhaps not taken by the kernel yet. */
  private untaken: Segment[] = []
  private writtenBytes = 0
  /** Bytes that wait for `flush`. */
  batchBytes = 0

  constructor(connection: Connection, pool: BufferPool, structured: boolean) {
    this.connection = connection
    this.pool = pool
    this.structured = structured
    this.dataHeaderBytes = structured ? DATA_CHUNK_HEADER_BYTES : SIMPLE_REPLY_HEADER_BYTES
    this.current = new Slab(pool.take(SLAB_BYTES))
  }

  /** Bytes that were answered but not taken by the kernel. */
  get unsentBytes(): number {
    return this.batchBytes + this.connection.pendingBytes
  }

  /** Bytes that the kernel has taken since the beginning. */
  get takenBytes(): number {
    return this.writtenBytes - this.connection.pendingBytes
  }

  /** A slab with room for a reply; the caller takes the bytes and owns one reference until `send` or `discard`. */
  slabFor(lengthBytes: number): Slab {
    if (lengthBytes > SHARED_REPLY_BYTES_MAX) return new Slab(this.pool.take(lengthBytes))
    if (!this.current.hasRoom(lengthBytes)) {
      const full = this.current
      this.current = new Slab(this.pool.take(SLAB_BYTES))
      if (full.references === 0) this.pool.release(full.buffer)
    }
    return this.current
  }

  /** Sends a READ whose data the device has put behind the room for the header at `start`. */
  sendData(slab: Slab, start: number, cookie: Cookie, offset: number, lengthBytes: number): void {
    if (this.structured) {
      writeChunkHeader(slab.buffer, start, CHUNK.OFFSET_DATA, cookie, 8 + lengthBytes)
      slab.buffer.writeUInt32BE(Math.floor(offset / 2 ** 32), start + CHUNK_HEADER_BYTES)
      slab.buffer.writeUInt32BE(offset >>> 0, start + CHUNK_HEADER_BYTES + 4)
    } else {
      writeSimpleHeader(slab.buffer, start, NBD_ERROR.NONE, cookie)
    }
    this.send(slab, start, start + this.dataHeaderBytes + lengthBytes)
  }

  sendDone(cookie: Cookie): void {
    this.sendSimple(cookie, NBD_ERROR.NONE)
  }

  sendError(cookie: Cookie, error: number, message: string): void {
    if (!this.structured) {
      this.sendSimple(cookie, error)
      return
    }
    const text = Buffer.from(message)
    const lengthBytes = CHUNK_HEADER_BYTES + 6 + text.length
    const slab = this.slabFor(lengthBytes)
    const start = slab.take(lengthBytes)
    writeChunkHeader(slab.buffer, start, CHUNK.ERROR, cookie, 6 + text.length)
    slab.buffer.writeUInt32BE(error, start + CHUNK_HEADER_BYTES)
    slab.buffer.writeUInt16BE(text.length, start + CHUNK_HEADER_BYTES + 4)
    text.copy(slab.buffer, start + CHUNK_HEADER_BYTES + 6)
    this.send(slab, start, start + lengthBytes)
  }

  sendBlockStatus(cookie: Cookie, extents: readonly Extent[]): void {
    const payloadBytes = 4 + 8 * extents.length
    const slab = this.slabFor(CHUNK_HEADER_BYTES + payloadBytes)
    const start = slab.take(CHUNK_HEADER_BYTES + payloadBytes)
    writeChunkHeader(slab.buffer, start, CHUNK.BLOCK_STATUS, cookie, payloadBytes)
    let position = slab.buffer.writeUInt32BE(BASE_ALLOCATION_ID, start + CHUNK_HEADER_BYTES)
    for (const extent of extents) {
      position = slab.buffer.writeUInt32BE(extent.lengthBytes, position)
      position = slab.buffer.writeUInt32BE(EXTENT_STATE[extent.kind], position)
    }
    this.send(slab, start, position)
  }

  /** Gives up a reply that will not be sent. The device may go on filling it: its memory is used for nothing else any more. */
  discard(slab: Slab): void {
    slab.isGivenUp = true
    if (slab === this.current) this.current = new Slab(this.pool.take(SLAB_BYTES))
  }

  /** Hands the batch to the connection. */
  flush(): void {
    this.reclaim()
    if (this.batch.length === 0) return
    const buffers: Buffer[] = []
    for (const segment of this.batch) {
      this.writtenBytes += segment.end - segment.start
      segment.streamEnd = this.writtenBytes
      buffers.push(segment.slab.buffer.subarray(segment.start, segment.end))
      this.untaken.push(segment)
    }
    this.batch = []
    this.batchBytes = 0
    this.connection.write(buffers)
    this.reclaim() // most often the kernel takes it all at once
  }

  /** Gives back all memory. The connection is over, so nobody sends from it any more, and the device is done with it. */
  release(): void {
    const slabs = new Set([
      this.current,
      ...this.batch.map(({ slab }) => slab),
      ...this.untaken.map(({ slab }) => slab),
    ])
    for (const slab of slabs) if (!slab.isGivenUp) this.pool.release(slab.buffer)
    this.batch = []
    this.untaken = []
  }

  private sendSimple(cookie: Cookie, error: number): void {
    const slab = this.slabFor(SIMPLE_REPLY_HEADER_BYTES)
    const start = slab.take(SIMPLE_REPLY_HEADER_BYTES)
    writeSimpleHeader(slab.buffer, start, error, cookie)
    this.send(slab, start, start + SIMPLE_REPLY_HEADER_BYTES)
  }

  private send(slab: Slab, start: number, end: number): void {
    this.batchBytes += end - start
    const last = this.batch.at(-1)
    if (last?.slab === slab && last.end === start) {
      last.end = end
      slab.references--
    } else {
      this.batch.push({ slab, start, end, streamEnd: 0 })
    }
  }

  /** The kernel takes bytes in order, so what is pending is the end of what was written. */
  private reclaim(): void {
    if (this.untaken.length === 0) return
    const takenBytes = this.writtenBytes - this.connection.pendingBytes
    let count = 0
    while (count < this.untaken.length && this.untaken[count]!.streamEnd <= takenBytes) {
      this.dereference(this.untaken[count]!.slab)
      count++
    }
    this.untaken.splice(0, count)
  }

  private dereference(slab: Slab): void {
    slab.references--
    if (slab.references > 0) return
    if (slab === this.current)
      slab.reset() // its lines are still in the processor's cache
    else this.pool.release(slab.buffer)
  }
}

const EXTENT_STATE: Record<Extent['kind'], number> = { data: 0, zero: STATE.ZERO, hole: STATE.HOLE | STATE.ZERO }

function writeSimpleHeader(buffer: Buffer, at: number, error: number, cookie: Cookie): void {
  buffer.writeUInt32BE(SIMPLE_REPLY_MAGIC, at)
  buffer.writeUInt32BE(error, at + 4)
  buffer.writeUInt32BE(cookie.cookieHigh, at + 8)
  buffer.writeUInt32BE(cookie.cookieLow, at + 12)
}

function writeChunkHeader(buffer: Buffer, at: number, type: number, cookie: Cookie, payloadBytes: number): void {
  buffer.writeUInt32BE(STRUCTURED_REPLY_MAGIC, at)
  buffer.writeUInt16BE(CHUNK_FLAG_DONE, at + 4)
  buffer.writeUInt16BE(type, at + 6)
  buffer.writeUInt32BE(cookie.cookieHigh, at + 8)
  buffer.writeUInt32BE(cookie.cookieLow, at + 12)
  buffer.writeUInt32BE(payloadBytes, at + 16)
}
