import type { Connection, Listener, Network } from '../runtime/network.ts'
import type { Carrier } from './messages.ts'
import type { Handlers } from './methods.ts'
import { type ServeOptions, serveControl } from './serve.ts'

/** A longer message ends the connection. The longest are lists of VDIs: some 200 bytes each. */
const MESSAGE_MAX_BYTES = 64 << 20
const NEWLINE = 0x0a

/** Messages over a socket: JSON, one to a line. */
export function socketCarrier(connection: Connection, messageMaxBytes = MESSAGE_MAX_BYTES): Carrier {
  let reason = 'the node closed the control connection'
  return {
    send: (message) => {
      connection.write([Buffer.from(`${JSON.stringify(message)}\n`)])
    },
    onMessage: (receive) => {
      const lines = new LineReader(messageMaxBytes)
      connection.onData((chunk) => {
        let messages: unknown[] = []
        try {
          messages = lines.read(chunk).map((line) => JSON.parse(line))
        } catch (error) {
          reason = `what came over the control connection cannot be read: ${(error as Error).message}`
          connection.destroy()
        }
        for (const message of messages) receive(message)
      })
    },
    onClose: (closed) => connection.onClose(() => closed(reason)),
    close: () => connection.end(),
  }
}

/** Answers everyone who connects to the socket at `path`; only who may enter its directory can. */
export function listenControl(
  network: Network,
  path: string,
  handlers: Handlers,
  options: ServeOptions,
): Promise<Listener> {
  return network.listen(path, (connection) => {
    serveControl(socketCarrier(connection), handlers, options)
  })
}

/** Cuts a stream into lines, however it arrives. Throws a RangeError when a line grows too long. */
class LineReader {
  readonly #lineMaxBytes: number
  #parts: Buffer[] = []
  #partsBytes = 0

  constructor(lineMaxBytes: number) {
    this.#lineMaxBytes = lineMaxBytes
  }

  /** The lines that this chunk completes. */
  read(chunk: Buffer): string[] {
    const lines: string[] = []
    let rest = chunk
    for (let end = rest.indexOf(NEWLINE); end !== -1; end = rest.indexOf(NEWLINE)) {
      this.#add(rest.subarray(0, end))
      lines.push(Buffer.concat(this.#parts).toString('utf8'))
      this.#parts = []
      this.#partsBytes = 0
      rest = rest.subarray(end + 1)
    }
    if (rest.length > 0) this.#add(rest)
    return lines
  }

  #add(part: Buffer): void {
    this.#partsBytes += part.length
    if (this.#partsBytes > this.#lineMaxBytes)
      throw new RangeError(`a message of more than ${this.#lineMaxBytes} bytes`)
    this.#parts.push(part)
  }
}
