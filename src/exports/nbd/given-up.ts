import type { Connection } from '../../runtime/network.ts'
import { COMMAND, REQUEST_HEADER_BYTES, REQUEST_MAGIC } from './protocol.ts'
import type { RequestReader } from './request-reader.ts'

/**
 * Whether a client has gone while it was not read. It may have sent everything again on another connection: what is left of this one
 * must not run behind that. A client that said goodbye after its requests does no such thing, and all of them are to be done.
 *
 * Seen is what the kernel of this host has. A client that went while the socket was full, over TCP, has not gone yet for all that one can see
 * here; and inside TLS a goodbye is not seen.
 */
export class GivenUp {
  readonly #connection: Connection
  readonly #reader: RequestReader
  #hasSaidGoodbye = false

  constructor(connection: Connection, reader: RequestReader) {
    this.#connection = connection
    this.#reader = reader
  }

  /** To be asked before a connection is read again. */
  isSo(): boolean {
    if (this.#hasSaidGoodbye || this.#connection.hasEnded?.() !== true) return false
    const inSocket = this.#connection.lastUnread?.(REQUEST_HEADER_BYTES)
    this.#hasSaidGoodbye = inSocket !== undefined && isGoodbye(Buffer.concat([this.#reader.lastUnread(), inSocket]))
    return !this.#hasSaidGoodbye
  }
}

/** Whether these bytes end with a request to disconnect. */
function isGoodbye(bytes: Buffer): boolean {
  const at = bytes.length - REQUEST_HEADER_BYTES
  if (at < 0 || bytes.readUInt32BE(at) !== REQUEST_MAGIC || bytes.readUInt16BE(at + 6) !== COMMAND.DISC) return false
  return bytes.subarray(at + 16).every((byte) => byte === 0) // offset and length
}
