import { BODY_SIZE_MAX_BYTES, FLAG, HEADER_SIZE_BYTES } from './constants.ts'
import { decodeRequestHeader, decodeResponseHeader, type RequestHeader, type ResponseHeader } from './header.ts'
import type { SheepRequest, SheepResponse } from './message.ts'
import { opcodeName } from './opcodes.ts'

/**
 * Cuts a byte stream into messages. Chunks may end anywhere; bodies are slices of the chunk where they lie in one, so a
 * chunk must not change after it was given.
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
  /** Where to put them, when the owner already has a buffer of exactly that length. */
  target?(header: H): Buffer | undefined
}

class FrameReader<H extends { opcode: number }> {
  readonly #direction: Direction<H>
  readonly #bodyMaxBytes: number
  readonly #header = Buffer.alloc(HEADER_SIZE_BYTES)
  #headerLength = 0
  /** The frame whose body is not complete yet, and how much of it is there. */
  #frame: Frame<H> | null = null
  #bodyLength = 0

  constructor(direction: Direction<H>, bodyMaxBytes: number) {
    this.#direction = direction
    this.#bodyMaxBytes = bodyMaxBytes
  }

  read(chunk: Buffer, emit: (frame: Frame<H>) => void): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#frame !== null) at = this.#continueBody(this.#frame, chunk, at, emit)
      else if (this.#headerLength === 0 && chunk.length - at >= HEADER_SIZE_BYTES) {
        at = this.#startBody(this.#direction.decode(chunk, at), chunk, at + HEADER_SIZE_BYTES, emit)
      } else at = this.#continueHeader(chunk, at, emit)
    }
  }

  #continueHeader(chunk: Buffer, at: number, emit: (frame: Frame<H>) => void): number {
    const copied = chunk.copy(this.#header, this.#headerLength, at)
    this.#headerLength += copied
    if (this.#headerLength < HEADER_SIZE_BYTES) return at + copied
    this.#headerLength = 0
    return this.#startBody(this.#direction.decode(this.#header, 0), chunk, at + copied, emit)
  }

  #startBody(header: H, chunk: Buffer, at: number, emit: (frame: Frame<H>) => void): number {
    const length = this.#direction.bodyLength(header)
    if (length > this.#bodyMaxBytes) {
      throw new FrameError(`${opcodeName(header.opcode)} with a body of ${length} bytes; at most ${this.#bodyMaxBytes}`)
    }
    const target = this.#direction.target?.(header)
    if (target === undefined && chunk.length - at >= length) {
      emit({ header, body: chunk.subarray(at, at + length) })
      return at + length
    }
    const frame = { header, body: target ?? Buffer.allocUnsafe(length) }
    this.#frame = frame
    this.#bodyLength = 0
    return this.#continueBody(frame, chunk, at, emit)
  }

  #continueBody(frame: Frame<H>, chunk: Buffer, at: number, emit: (frame: Frame<H>) => void): number {
    const copied = chunk.copy(frame.body, this.#bodyLength, at)
    this.#bodyLength += copied
    if (this.#bodyLength === frame.body.length) {
      this.#frame = null
      emit(frame)
    }
    return at + copied
  }
}

/** Reads what clients send: a body follows only where the flag WRITE is set. */
export class RequestReader {
  readonly #frames: FrameReader<RequestHeader>

  constructor({ bodyMaxBytes = BODY_SIZE_MAX_BYTES }: { bodyMaxBytes?: number } = {}) {
    const bodyLength = (header: RequestHeader) => ((header.flags & FLAG.WRITE) === 0 ? 0 : header.dataLength)
    this.#frames = new FrameReader({ decode: decodeRequestHeader, bodyLength }, bodyMaxBytes)
  }

  /** Calls `emit` for each request that this chunk completes, in order. Throws a FrameError. */
  read(chunk: Buffer, emit: (request: SheepRequest & { flags: number }) => void): void {
    this.#frames.read(chunk, ({ header, body }) => {
      if ((header.flags & FLAG.WRITE) !== 0) header.body = body
      emit(header)
    })
  }
}

/** Reads what a sheep answers: exactly `dataLength` bytes follow each header. */
export class ResponseReader {
  readonly #frames: FrameReader<ResponseHeader>

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
          const target = header.dataLength > 0 ? targetOf?.(header) : undefined
          return target?.length === header.dataLength ? target : undefined
        },
      },
      bodyMaxBytes,
    )
  }

  /** Calls `emit` for each response that this chunk completes, in order; `body` is absent when empty. Throws a FrameError. */
  read(chunk: Buffer, emit: (response: SheepResponse) => void): void {
    this.#frames.read(chunk, ({ header, body }) => {
      if (body.length > 0) header.body = body
      emit(header)
    })
  }
}
