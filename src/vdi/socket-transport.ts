import { RESULT } from '../protocol/constants.ts'
import { FrameError, ResponseReader } from '../protocol/frame-reader.ts'
import { encodeRequestHeader } from '../protocol/header.ts'
import type { SheepRequest, SheepResponse } from '../protocol/message.ts'
import { protoVerOf } from '../protocol/opcodes.ts'
import type { Connection, Network } from '../runtime/network.ts'
import { UnderWay } from '../runtime/under-way.ts'
import type { Transport } from './transport.ts'

/** Name of the sheep's socket in the data directory of its node. */
export const SHEEP_SOCKET = 'sock'

export interface SocketTransportOptions {
  network: Network
  /** Of the sheep: `host:port` or the path of its unix socket. */
  address: string
  /** How many requests are sent before an answer is awaited; more wait here. */
  windowRequests?: number
  /** How many may wait. One more is refused with AGAIN, so that a stuck node does not fill this process's memory. */
  waitingRequestsMax?: number
}

interface Pending {
  request: SheepRequest
  done: (response: SheepResponse) => void
}

/**
 * Reaches a sheep over a socket, many requests at a time on one connection.
 *
 * 1. The connection is made for the first request, and again for the first one after it was lost.
 * 2. When it is lost, or cannot be made, everything that was submitted is answered with NETWORK_ERROR. Whether a request
 *    that had been sent took effect is then unknown; whether to send it again is for the caller to say.
 * 3. An answer that fits no request ends the connection, since nothing after it can be trusted.
 */
export function createSocketTransport(options: SocketTransportOptions): Transport {
  return new SocketTransport(options)
}

class SocketTransport implements Transport {
  readonly #network: Network
  readonly #address: string
  readonly #windowRequests: number
  readonly #waitingRequestsMax: number
  #link: Link | null = null
  #waiting: Pending[] = []
  #connecting = false
  #closed = false

  constructor({ network, address, windowRequests = 256, waitingRequestsMax = 65536 }: SocketTransportOptions) {
    this.#network = network
    this.#address = address
    this.#windowRequests = windowRequests
    this.#waitingRequestsMax = waitingRequestsMax
  }

  submit(request: SheepRequest, done: (response: SheepResponse) => void): void {
    if (this.#closed) done({ opcode: request.opcode, result: RESULT.NETWORK_ERROR })
    else if (this.#waiting.length >= this.#waitingRequestsMax) done({ opcode: request.opcode, result: RESULT.AGAIN })
    else {
      this.#waiting.push({ request, done })
      if (this.#waiting.length === 1) queueMicrotask(() => this.#sendWaiting()) // all of one batch in one write
    }
  }

  close(): void {
    this.#closed = true
    this.#link?.connection.destroy()
    this.#lost(this.#link)
  }

  async #connect(): Promise<void> {
    this.#connecting = true
    const connection = await this.#network.connect(this.#address).catch(() => null)
    this.#connecting = false
    if (this.#closed) connection?.destroy()
    else if (connection === null) this.#lost(null)
    else {
      const link = new Link(connection, {
        answered: () => this.#sendWaiting(),
        lost: () => this.#lost(link),
      })
      this.#link = link
      this.#sendWaiting()
    }
  }

  #sendWaiting(): void {
    if (this.#waiting.length === 0 || this.#connecting) return
    if (this.#link === null) void this.#connect()
    else {
      const room = this.#windowRequests - this.#link.inFlightCount
      if (room > 0) this.#link.send(this.#waiting.splice(0, room))
    }
  }

  /** Answers all that was submitted. What a `done` submits anew belongs to the next connection. */
  #lost(link: Link | null): void {
    if (link !== this.#link) return
    const unanswered = [...(link?.takeInFlight() ?? []), ...this.#waiting]
    this.#link = null
    this.#waiting = []
    for (const { request, done } of unanswered) done({ opcode: request.opcode, result: RESULT.NETWORK_ERROR })
  }
}

/** One connection and what is in flight on it. */
class Link {
  readonly connection: Connection
  readonly #inFlight = new UnderWay<Pending>()

  constructor(connection: Connection, owner: { answered(): void; lost(): void }) {
    this.connection = connection
    const reader = new ResponseReader({ targetOf: ({ id = 0 }) => this.#inFlight.get(id)?.request.target })
    connection.onClose(owner.lost)
    const receive = (chunk: Buffer) => {
      try {
        reader.read(chunk, (response) => this.#answer(response))
      } catch (error) {
        if (!(error instanceof FrameError)) throw error
        connection.destroy()
        owner.lost()
        return
      }
      owner.answered()
    }
    connection.onData(receive, () => reader.room())
  }

  get inFlightCount(): number {
    return this.#inFlight.size
  }

  send(batch: readonly Pending[]): void {
    const buffers: Buffer[] = []
    for (const pending of batch) {
      const id = this.#inFlight.add(pending)
      buffers.push(encodeRequestHeader({ protoVer: protoVerOf(pending.request.opcode), ...pending.request, id }))
      if (pending.request.body !== undefined && pending.request.body.length > 0) buffers.push(pending.request.body)
    }
    this.connection.write(buffers)
  }

  takeInFlight(): Pending[] {
    const pending = this.#inFlight.values()
    this.#inFlight.clear()
    return pending
  }

  #answer(response: SheepResponse): void {
    const pending = this.#inFlight.get(response.id ?? 0)
    if (pending === undefined || pending.request.opcode !== response.opcode) {
      throw new FrameError('an answer to no request')
    }
    const { target } = pending.request
    if (response.result === RESULT.SUCCESS && target !== undefined && (response.body?.length ?? 0) !== target.length) {
      throw new FrameError(`${response.body?.length ?? 0} bytes where ${target.length} were asked for`)
    }
    this.#inFlight.delete(response.id ?? 0)
    pending.done(response)
  }
}
