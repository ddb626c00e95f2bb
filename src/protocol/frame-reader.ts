import { BODY_SIZE_MAX_BYTES, FLAG, HEADER_SIZE_BYTES } from './constants.ts'
import { decodeRequestHeader, decodeResponseHeader, type RequestHeader, type ResponseHeader } from './header.ts'
import type { SheepRequest, SheepResponse } from './message.ts'
import { opcodeName } from './opcodes.ts'

/**
 * Cuts a byte stream into messages. Chunks may end anywhere; bodies are slices of the chunk where they lie in one, so a
 * chunk must not change after it was given. Who reads the bytes may put those of a long body where they belong (`room`).
 *
 * Each direction has its own rule for what follows a header, so each has its own reader. A FrameError means that the
 * stream can no longer be cut: the connection must be closed.
 */
export class FrameError extends Error {
  override readonly name = 'FrameError'
}

interface Frame<H> {
  header: H
  body: Buffer
}

interface Direction<H> {
  decode(source: Buffer, at: number): H
  /** How many bytes follow this header. */
  bodyLength(header: H): number
  /** Asked before there is memory for the body, and again by each `next` until it says yes; what comes after waits. */
  admit?(header: H): boolean
  /** Where to put them, when the owner already has a buffer of exactly that length. */
  target?(header: H): Buffer | undefined
}

const EMPTY = Buffer.alloc(0)
/** Less than this is not worth a read of its own. */
const ROOM_BYTES_MIN = 64 * 1024

class FrameReader<H extends { opcode: number }> {
  readonly #direction: Direction<H>
  readonly #bodyMaxBytes: number
  #chunk: Buffer = EMPTY
  #at = 0
  readonly #waiting: Buffer[] = []
  /** A header that does not lie in one chunk, as far as it is there. */
  readonly #split = Buffer.alloc(HEADER_SIZE_BYTES)
  #splitLength = 0
  /** Of the frame that is not complete yet. */
  #header: H | null = null
  #isAdmitted = false
  /** The body of that frame when it does not lie in one chunk, and how much of it is there. */
  #body: Buffer | null = null
  #bodyLength = 0

  constructor(direction: Direction<H>, bodyMaxBytes: number) {
    this.#direction = direction
    this.#bodyMaxBytes = bodyMaxBytes
  }

  get isMidFrame(): boolean {
    return this.#header !== null || this.#splitLength > 0
  }

  push(chunk: Buffer): void {
    if (this.#isInPlace(chunk)) this.#bodyLength += chunk.length
    else this.#waiting.push(chunk)
  }

  /** What is missing of the body that is being read, if that is much: the next bytes may be put there, and are then pushed as they lie. */
  room(): Buffer | null {
    const missing = this.#body === null ? 0 : this.#body.length - this.#bodyLength
    return missing < ROOM_BYTES_MIN || this.#hasInput() ? null : this.#body!.subarray(this.#bodyLength)
  }

  #isInPlace(chunk: Buffer): boolean {
    const body = this.#body
    return body?.buffer === chunk.buffer && body.byteOffset + this.#bodyLength === chunk.byteOffset
  }

  /** The next whole frame; undefined until more is pushed or may be admitted. */
  next(): Frame<H> | undefined {
    if (this.#header === null) {
      const header = this.#readHeader()
      if (header === undefined) return undefined
      const length = this.#direction.bodyLength(header)
      if (length > this.#bodyMaxBytes) {
        const message = `${opcodeName(header.opcode)} with a body of ${length} bytes; at most ${this.#bodyMaxBytes}`
        throw new FrameError(message)
      }
      this.#header = header
      this.#isAdmitted = false
    }
    const header = this.#header
    this.#isAdmitted ||= this.#direction.admit?.(header) ?? true
    if (!this.#isAdmitted) return undefined
    const body = this.#readBody(header)
    if (body === undefined) return undefined
    this.#header = null
    return { header, body }
  }

  release(): void {
    this.#chunk = EMPTY
    this.#at = 0
    this.#waiting.length = 0
    this.#splitLength = 0
    this.#header = null
    this.#body = null
  }

  #readHeader(): H | undefined {
    if (!this.#hasInput()) return undefined
    if (this.#splitLength === 0 && this.#chunk.length - this.#at >= HEADER_SIZE_BYTES) {
      this.#at += HEADER_SIZE_BYTES
      return this.#direction.decode(this.#chunk, this.#at - HEADER_SIZE_BYTES)
    }
    this.#splitLength = this.#fill(this.#split, this.#splitLength)
    if (this.#splitLength < HEADER_SIZE_BYTES) return undefined
    this.#splitLength = 0
    return this.#direction.decode(this.#split, 0)
  }

  #readBody(header: H): Buffer | undefined {
    if (this.#body === null) {
      const length = this.#direction.bodyLength(header)
      const target = this.#direction.target?.(header)
      if (target === undefined && length === 0) return EMPTY
      if (target === undefined && this.#hasInput() && this.#chunk.length - this.#at >= length) {
        this.#at += length
        return this.#chunk.subarray(this.#at - length, this.#at)
      }
      this.#body = target ?? Buffer.allocUnsafe(length)
      this.#bodyLength = 0
    }
    const body = this.#body
    this.#bodyLength = this.#fill(body, this.#bodyLength)
    if (this.#bodyLength < body.length) return undefined
    this.#body = null
    return body
  }

  /** Copies as much as there is behind the `filled` bytes of `target`; answers how many it has then. */
  #fill(target: Buffer, filled: number): number {
    let length = filled
    while (length < target.length && this.#hasInput()) {
      const copied = this.#chunk.copy(target, length, this.#at)
      length += copied
      this.#at += copied
    }
    return length
  }

  /** Moves on to the next chunk when this one is used up. */
  #hasInput(): boolean {
    while (this.#at === this.#chunk.length) {
      this.#chunk = this.#waiting.shift() ?? EMPTY
      this.#at = 0
      if (this.#chunk === EMPTY) return false
    }
    return true
  }
}

export type IncomingRequest = SheepRequest & { flags: number }

/** Reads what clients send: a body follows only where the flag WRITE is set. Nothing is read ahead of what is asked for. */
export class RequestReader {
  readonly #frames: FrameReader<RequestHeader>

  /** `admit` is asked about each request, by its header, until it says yes: only then is there memory for its body. */
  constructor({
    bodyMaxBytes = BODY_SIZE_MAX_BYTES,
    admit,
    target,
  }: {
    bodyMaxBytes?: number
    admit?: (header: IncomingRequest) => boolean
    /** Memory for the body of that request, of its length; the reader makes some when there is none. */
    target?: (header: IncomingRequest) => Buffer | undefined
  } = {}) {
    const bodyLength = (header: RequestHeader) => ((header.flags & FLAG.WRITE) === 0 ? 0 : header.dataLength)
    const direction = { decode: decodeRequestHeader, bodyLength, ...(admit && { admit }), ...(target && { target }) }
    this.#frames = new FrameReader<RequestHeader>(direction, bodyMaxBytes)
  }

  /** The client has begun a request that is not complete. */
  get isMidRequest(): boolean {
    return this.#frames.isMidFrame
  }

  push(chunk: Buffer): void {
    this.#frames.push(chunk)
  }

  /** Where the next bytes may be put; then that is what is pushed. */
  room(): Buffer | null {
    return this.#frames.room()
  }

  /** The next whole request; undefined until more is pushed or `admit` may say yes. Throws a FrameError. */
  next(): IncomingRequest | undefined {
    const frame = this.#frames.next()
    if (frame === undefined) return undefined
    if ((frame.header.flags & FLAG.WRITE) !== 0) frame.header.body = frame.body
    return frame.header
  }

  /** Forgets what has come; nothing is read any more. */
  release(): void {
    this.#frames.release()
  }
}

/**
 * Reads what a sheep answers: exactly `dataLength` bytes follow each header. Bodies get memory of their own, so that what was read can be
 * used again for the next bytes: memory that is new for each of them costs more than the copy.
 */
export class ResponseReader {
  readonly #frames: FrameReader<ResponseHeader>
  readonly #room = Buffer.allocUnsafeSlow(ROOM_BYTES_MIN)

  /**
   * `targetOf` names the buffer that waits for a response's body; it must have the length of the body, else a new one
   * is made. It is called once per response, as soon as its header is there.
   */
  constructor({
    bodyMaxBytes = BODY_SIZE_MAX_BYTES,
    targetOf,
  }: {
    bodyMaxBytes?: number
    targetOf?: (header: SheepResponse) => Buffer | undefined
  } = {}) {
    this.#frames = new FrameReader(
      {
        decode: decodeResponseHeader,
        bodyLength: (header: ResponseHeader) => header.dataLength,
        target: (header) => {
          const { dataLength } = header
          if (dataLength === 0) return undefined
          const target = targetOf?.(header)
          return target?.length === dataLength ? target : Buffer.allocUnsafe(dataLength)
        },
      },
      bodyMaxBytes,
    )
  }

  /** Where the next bytes may be put; then that is what is read, before anything else is put there. */
  room(): Buffer {
    return this.#frames.room() ?? this.#room
  }

  /** Calls `emit` for each response that this chunk completes, in order; `body` is absent when empty. Throws a FrameError. */
  read(chunk: Buffer, emit: (response: SheepResponse) => void): void {
    this.#frames.push(chunk)
    for (let frame = this.#frames.next(); frame !== undefined; frame = this.#frames.next()) {
      const { header, body } = frame
      if (body.length > 0) header.body = body
      emit(header)
    }
  }
}
