import { crc32 } from '@node-rs/crc32'
import type { BufferPool } from '../../runtime/buffer-pool.ts'
import { DEVICE_BLOCK_BYTES } from '../../vdi/device.ts'
import { COMMAND, NBD_ERROR, ProtocolError, REQUEST_HEADER_BYTES, REQUEST_MAGIC } from './protocol.ts'
import { checkRequest, type ExportTerms } from './request-check.ts'

const EMPTY = Buffer.alloc(0)
/** After a write of so many bytes the next header is read alone, since another such write is what comes with it most of the time. */
const LARGE_BYTES_MIN = 64 * 1024

/** One request of a client. The reader has one of these and fills it again and again. */
export interface NbdRequest {
  flags: number
  type: number
  /** The client's name for the request, 64 opaque bits. */
  cookieHigh: number
  cookieLow: number
  offset: number
  lengthBytes: number
  /** NBD_ERROR.NONE, or the answer that the request has already earned; then there is no payload. */
  error: number
  payload: Buffer
  /** The pool's buffer that `payload` lies in, to be released after use; null when it lies in the chunk that arrived. */
  storage: Buffer | null
  /** CRC-32 of each block of a payload in the pool's memory, if it consists of whole blocks of the export; see WriteOptions. */
  crcs: Uint32Array | undefined
}

/**
 * Cuts what a client sends in the transmission phase into checked requests, whatever pieces it arrives in.
 *
 *     C: 32 bits magic, 16 bits flags, 16 bits type, 64 bits cookie, 64 bits offset, 32 bits length,
 *        and `length` bytes of payload after a WRITE
 *
 * Nothing is read ahead: `next` is called only while there is room for one more request, and at most the payload of
 * that one is held, for which `admit` has to find memory first. The payload of a refused write is dropped as it comes,
 * however long it claims to be.
 */
export class RequestReader {
  private readonly terms: ExportTerms
  private readonly pool: BufferPool
  private readonly admit: (request: NbdRequest) => boolean
  private readonly waiting: Buffer[] = []
  private chunk: Buffer = EMPTY
  private position = 0
  private readonly header = Buffer.alloc(REQUEST_HEADER_BYTES)
  /** Where the connection reads a header to that it reads alone. */
  private readonly headerTarget = Buffer.alloc(REQUEST_HEADER_BYTES)
  private headerBytes = 0
  private inPayload = false
  private admitted = false
  /** `target` has told the connection to read into the payload's memory. */
  private isLent = false
  private payloadMissing = 0
  private readonly request: NbdRequest = {
    flags: 0,
    type: 0,
    cookieHigh: 0,
    cookieLow: 0,
    offset: 0,
    lengthBytes: 0,
    error: NBD_ERROR.NONE,
    payload: EMPTY,
    storage: null,
    crcs: undefined,
  }
  /** Blocks of which `crcs` has the CRC. */
  private summedBlocks = 0

  /** `admit` is asked about each request until it says yes; what comes after waits. */
  constructor(terms: ExportTerms, pool: BufferPool, admit: (request: NbdRequest) => boolean) {
    this.terms = terms
    this.pool = pool
    this.admit = admit
  }

  /** The client has begun a request that is not complete. */
  get isMidRequest(): boolean {
    return this.inPayload || this.headerBytes > 0
  }

  /** The last bytes of what was pushed and is not part of a request yet: as many as a header has, or fewer. */
  lastUnread(): Buffer {
    const pieces = [this.header.subarray(0, this.headerBytes), this.chunk.subarray(this.position), ...this.waiting]
    return Buffer.concat(pieces.map((piece) => piece.subarray(-REQUEST_HEADER_BYTES))).subarray(-REQUEST_HEADER_BYTES)
  }

  push(chunk: Buffer): void {
    if (this.isDrained) {
      this.chunk = chunk
      this.position = 0
    } else {
      this.waiting.push(chunk)
    }
  }

  /**
   * The next complete request, or undefined until more is pushed or `admit` may say yes. It is valid until the next call, except for payload
   * and storage, which belong to the caller. Throws ProtocolError when the stream holds no request.
   */
  next(): NbdRequest | undefined {
    if (!this.inPayload) {
      if (!this.readHeader()) return undefined
      this.inPayload = true
      this.admitted = false
    }
    if (!this.admitted) {
      this.admitted = this.admit(this.request)
      if (!this.admitted) return undefined
    }
    if (this.payloadMissing > 0 && !this.readPayload()) return undefined
    this.inPayload = false
    return this.request
  }

  /**
   * Where the connection may put what comes next: a large payload goes straight to where it will be used from, and nothing of
   * one that follows it to memory of the connection's own, which would be new for each of them. Null when that is not worth it.
   */
  target(): Buffer | null {
    this.isLent = false
    if (!this.isDrained) return null
    const { type, lengthBytes, payload, storage } = this.request
    const isLarge = type === COMMAND.WRITE && lengthBytes >= LARGE_BYTES_MIN
    if (!this.inPayload) return isLarge ? this.headerTarget.subarray(this.headerBytes) : null
    this.isLent = storage !== null && isLarge
    return this.isLent ? payload.subarray(lengthBytes - this.payloadMissing) : null
  }

  /** Gives back the memory of a payload that will not be completed; nothing is read any more. */
  release(): void {
    // What the connection still has may be written to at any time, so nobody else must get it.
    if (this.inPayload && this.request.storage !== null && !this.isLent) this.pool.release(this.request.storage)
    this.inPayload = false
  }

  private get isDrained(): boolean {
    return this.position === this.chunk.length && this.waiting.length === 0
  }

  private readHeader(): boolean {
    if (this.headerBytes === 0 && this.chunk.length - this.position >= REQUEST_HEADER_BYTES) {
      this.parseHeader(this.chunk, this.position)
      this.position += REQUEST_HEADER_BYTES
      return true
    }
    while (this.headerBytes < REQUEST_HEADER_BYTES) {
      if (!this.hasInput()) return false
      const copied = this.chunk.copy(this.header, this.headerBytes, this.position)
      this.headerBytes += copied
      this.position += copied
    }
    this.headerBytes = 0
    this.parseHeader(this.header, 0)
    return true
  }

  private parseHeader(bytes: Buffer, at: number): void {
    if (bytes.readUInt32BE(at) !== REQUEST_MAGIC) throw new ProtocolError('no request magic')
    const request = this.request
    request.flags = bytes.readUInt16BE(at + 4)
    request.type = bytes.readUInt16BE(at + 6)
    request.cookieHigh = bytes.readUInt32BE(at + 8)
    request.cookieLow = bytes.readUInt32BE(at + 12)
    request.offset = bytes.readUInt32BE(at + 16) * 2 ** 32 + bytes.readUInt32BE(at + 20)
    request.lengthBytes = bytes.readUInt32BE(at + 24)
    request.payload = EMPTY
    request.storage = null
    request.crcs = undefined
    request.error = checkRequest(request, this.terms)
    this.payloadMissing = request.type === COMMAND.WRITE ? request.lengthBytes : 0
  }

  private readPayload(): boolean {
    const { request } = this
    if (request.error === NBD_ERROR.NONE && request.storage === null) {
      const end = this.position + request.lengthBytes
      if (end <= this.chunk.length) {
        request.payload = this.chunk.subarray(this.position, end)
        this.position = end
        this.payloadMissing = 0
        return true
      }
      request.storage = this.pool.take(request.lengthBytes)
      request.payload = request.storage.subarray(0, request.lengthBytes)
      const isOfWholeBlocks =
        request.offset % DEVICE_BLOCK_BYTES === 0 && request.lengthBytes % DEVICE_BLOCK_BYTES === 0
      request.crcs = isOfWholeBlocks ? new Uint32Array(request.lengthBytes / DEVICE_BLOCK_BYTES) : undefined
      this.summedBlocks = 0
    }
    while (this.payloadMissing > 0) {
      if (!this.hasInput()) return false
      const end = Math.min(this.position + this.payloadMissing, this.chunk.length)
      if (request.storage !== null) this.keep(request.storage, request.lengthBytes - this.payloadMissing, end)
      this.payloadMissing -= end - this.position
      this.position = end
      this.sumBlocks()
    }
    return true
  }

  /**
   * The checksums of a large payload are made of it as it comes, while it is in the processor's cache and while the client fills its
   * socket again, which has room for a fifth of a mebibyte: at the end, the client would have to wait for all of them.
   */
  private sumBlocks(): void {
    const { crcs, payload, lengthBytes } = this.request
    if (crcs === undefined) return
    const end = Math.floor((lengthBytes - this.payloadMissing) / DEVICE_BLOCK_BYTES)
    for (; this.summedBlocks < end; this.summedBlocks++) {
      const start = this.summedBlocks * DEVICE_BLOCK_BYTES
      crcs[this.summedBlocks] = crc32(payload.subarray(start, start + DEVICE_BLOCK_BYTES))
    }
  }

  /** Copies the chunk up to `end` into a payload's memory, unless the connection has put it there. */
  private keep(storage: Buffer, at: number, end: number): void {
    const isThere =
      this.chunk.buffer === storage.buffer && this.chunk.byteOffset + this.position === storage.byteOffset + at
    if (!isThere) this.chunk.copy(storage, at, this.position, end)
  }

  /** Moves on to the next chunk when this one is used up. */
  private hasInput(): boolean {
    while (this.position === this.chunk.length) {
      this.chunk = this.waiting.shift() ?? EMPTY
      this.position = 0
      if (this.chunk === EMPTY) return false
    }
    return true
  }
}
