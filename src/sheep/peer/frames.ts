import assert from 'node:assert'
import { writeU64 } from '../../runtime/u64.ts'
import { MalformedMessage } from './byte-reader.ts'

/**
 * What goes over a link, in either direction:
 *
 * ```
 * frame = kind u8, flags u8, zero u16, id u32, length of the fields u32, length of the body u32, fields, body
 * ```
 *
 * All little endian. The fields are few; the body is the bulk, and is not copied when it is sent, and once when it is received.
 */
export const FRAME_FLAG = {
  /** Answers the request of the same kind and id. */
  ANSWER: 0x01,
  /** With ANSWER: there is none, and the fields say why. */
  FAILED: 0x02,
} as const

const HEADER_BYTES = 16
const FLAGS_ALL = FRAME_FLAG.ANSWER | FRAME_FLAG.FAILED
/** Both hold a whole inode object, or what is known of all objects that are opened at once, with much to spare. */
export const FIELDS_BYTES_MAX = 16 << 20
export const BODY_BYTES_MAX = 16 << 20

const SLAB_BYTES = 32 * 1024
/** A body up to here is copied behind its fields: that costs less than a buffer more to tag and to write. */
const COPIED_BYTES_MAX = 1024
const TWO_TO_32 = 0x1_0000_0000

/** Makes frames, many to a batch, and gives them as buffers for one write. */
export class FrameWriter {
  #slab: Buffer = Buffer.allocUnsafeSlow(SLAB_BYTES)
  /** What of the slab is in `#parts` already, and what is used. */
  #partStart = 0
  #at = 0
  #parts: Buffer[] = []
  #begun: { slab: Buffer; partStart: number; at: number; parts: number } | null = null
  #fieldBytes = 0
  #bodyBytes = 0

  get isEmpty(): boolean {
    return this.#parts.length === 0 && this.#at === this.#partStart
  }

  begin(kind: number, flags: number, id: number): void {
    this.#reserve(HEADER_BYTES)
    this.#begun = { slab: this.#slab, partStart: this.#partStart, at: this.#at, parts: this.#parts.length }
    this.#slab.writeUInt32LE(kind | (flags << 8), this.#at)
    this.#slab.writeUInt32LE(id, this.#at + 4)
    this.#at += HEADER_BYTES
    this.#fieldBytes = 0
    this.#bodyBytes = 0
  }

  u8(value: number): void {
    this.#reserve(1)
    this.#at = this.#slab.writeUInt8(value, this.#field(1))
  }

  u16(value: number): void {
    this.#reserve(2)
    this.#at = this.#slab.writeUInt16LE(value, this.#field(2))
  }

  u32(value: number): void {
    this.#reserve(4)
    this.#at = this.#slab.writeUInt32LE(value, this.#field(4))
  }

  /** 64 bits of a whole number. */
  whole(value: number): void {
    assert(Number.isSafeInteger(value) && value >= 0)
    this.#reserve(8)
    const at = this.#field(8)
    this.#slab.writeUInt32LE(value % TWO_TO_32, at)
    this.#at = this.#slab.writeUInt32LE(Math.floor(value / TWO_TO_32), at + 4)
  }

  bits64(value: bigint): void {
    this.#reserve(8)
    this.#at = writeU64(this.#slab, value, this.#field(8))
  }

  /** At most 255 bytes of UTF-8. */
  shortText(value: string): void {
    this.#reserve(256)
    const length = this.#slab.write(value, this.#at + 1, 255, 'utf8')
    assert(length === Buffer.byteLength(value), `"${value}" is too long`)
    this.#slab[this.#at] = length
    this.#at = this.#field(1 + length) + 1 + length
  }

  bytes(value: Uint8Array): void {
    assert(this.#bodyBytes === 0, 'fields come before the body')
    this.#fieldBytes += value.length
    this.#append(value)
  }

  /** More of the body, after all fields. The bytes must not change until they are sent. */
  body(value: Uint8Array): void {
    this.#bodyBytes += value.length
    this.#append(value)
  }

  /** Throws a RangeError when the frame is too long; then there is nothing of it. */
  end(): void {
    const { slab, at } = this.#begun!
    if (this.#fieldBytes > FIELDS_BYTES_MAX || this.#bodyBytes > BODY_BYTES_MAX) {
      this.undo()
      throw new RangeError('the message is too long for a link')
    }
    slab.writeUInt32LE(this.#fieldBytes, at + 8)
    slab.writeUInt32LE(this.#bodyBytes, at + 12)
    this.#begun = null
  }

  /** Takes back what was written since `begin`. */
  undo(): void {
    if (this.#begun === null) return
    const { slab, partStart, at, parts } = this.#begun
    this.#slab = slab
    this.#partStart = partStart
    this.#at = at
    this.#parts.length = parts
    this.#begun = null
  }

  /** All frames that were made since the last time. */
  take(): Buffer[] {
    this.#cutPart()
    const parts = this.#parts
    this.#parts = []
    return parts
  }

  #field(length: number): number {
    this.#fieldBytes += length
    return this.#at
  }

  #append(value: Uint8Array): void {
    if (value.length > COPIED_BYTES_MAX) {
      this.#cutPart()
      this.#parts.push(value as Buffer)
      return
    }
    this.#reserve(value.length)
    this.#slab.set(value, this.#at)
    this.#at += value.length
  }

  #reserve(length: number): void {
    if (this.#at + length <= this.#slab.length) return
    this.#cutPart()
    this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
    this.#partStart = 0
    this.#at = 0
  }

  #cutPart(): void {
    if (this.#at > this.#partStart) this.#parts.push(this.#slab.subarray(this.#partStart, this.#at))
    this.#partStart = this.#at
  }
}

export type FrameReceiver = (kind: number, flags: number, id: number, fields: Buffer, body: Buffer) => void

/** Where a body of this length is to be put; undefined for memory of its own. */
export type BodyPlace = (kind: number, flags: number, id: number, length: number) => Buffer | undefined

/**
 * Cuts a stream of bytes into frames, wherever chunks end. A MalformedMessage means that the stream cannot be cut any more.
 *
 * Nothing that is handed on lies in a chunk but fields, which are gone when the receiver returns.
 */
export class FrameReader {
  readonly #receive: FrameReceiver
  readonly #placeOf: BodyPlace
  readonly #header = Buffer.alloc(HEADER_BYTES)
  #headerLength = 0
  #kind = 0
  #flags = 0
  #id = 0
  /** Of a frame that is not whole yet, and how much there is of both together. */
  #fields: Buffer | null = null
  #body: Buffer = NOTHING
  #length = 0

  constructor(receive: FrameReceiver, placeOf: BodyPlace = () => undefined) {
    this.#receive = receive
    this.#placeOf = placeOf
  }

  read(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#fields !== null) at = this.#continue(chunk, at)
      else if (this.#headerLength === 0 && chunk.length - at >= HEADER_BYTES) at = this.#start(chunk, at, chunk, at)
      else {
        const copied = chunk.copy(this.#header, this.#headerLength, at)
        this.#headerLength += copied
        at += copied
        if (this.#headerLength < HEADER_BYTES) return
        this.#headerLength = 0
        at = this.#start(this.#header, 0, chunk, at - HEADER_BYTES)
      }
    }
  }

  #start(header: Buffer, headerAt: number, chunk: Buffer, frameAt: number): number {
    const kind = header[headerAt]!
    const flags = header[headerAt + 1]!
    const id = header.readUInt32LE(headerAt + 4)
    const fieldsLength = header.readUInt32LE(headerAt + 8)
    const bodyLength = header.readUInt32LE(headerAt + 12)
    if ((flags & ~FLAGS_ALL) !== 0 || header[headerAt + 2] !== 0 || header[headerAt + 3] !== 0)
      throw new MalformedMessage('a frame with flags of another version')
    if (fieldsLength > FIELDS_BYTES_MAX) throw new MalformedMessage(`a frame with ${fieldsLength} bytes of fields`)
    if (bodyLength > BODY_BYTES_MAX) throw new MalformedMessage(`a frame with a body of ${bodyLength} bytes`)
    const at = frameAt + HEADER_BYTES
    const bodyAt = at + fieldsLength
    const body =
      bodyLength === 0 ? NOTHING : (this.#placeOf(kind, flags, id, bodyLength) ?? Buffer.allocUnsafe(bodyLength))
    if (chunk.length - at >= fieldsLength + bodyLength) {
      chunk.copy(body, 0, bodyAt, bodyAt + bodyLength)
      this.#receive(kind, flags, id, chunk.subarray(at, bodyAt), body)
      return bodyAt + bodyLength
    }
    this.#kind = kind
    this.#flags = flags
    this.#id = id
    this.#fields = Buffer.allocUnsafe(fieldsLength)
    this.#body = body
    this.#length = 0
    return this.#continue(chunk, at)
  }

  #continue(chunk: Buffer, start: number): number {
    const fields = this.#fields!
    const body = this.#body
    let at = start
    if (this.#length < fields.length) {
      const copied = chunk.copy(fields, this.#length, at)
      this.#length += copied
      at += copied
    }
    if (this.#length >= fields.length && at < chunk.length) {
      const copied = chunk.copy(body, this.#length - fields.length, at)
      this.#length += copied
      at += copied
    }
    if (this.#length === fields.length + body.length) {
      this.#fields = null
      this.#body = NOTHING
      this.#receive(this.#kind, this.#flags, this.#id, fields, body)
    }
    return at
  }
}

const NOTHING = Buffer.alloc(0)
