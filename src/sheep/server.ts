import { BODY_SIZE_MAX_BYTES, FLAG, RESULT } from '../protocol/constants.ts'
import { FrameError, RequestReader } from '../protocol/frame-reader.ts'
import { encodeResponseHeader } from '../protocol/header.ts'
import type { SheepRequest, SheepResponse } from '../protocol/message.ts'
import { acceptsProtoVer, mayAnswerBody, opcodeName, responseVariant } from '../protocol/opcodes.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { Connection, Listener, Network } from '../runtime/network.ts'
import { StallGuard } from '../runtime/stall-guard.ts'

/**
 * The door of a sheep: connections of QEMU, tgt, `dog` and other Collie processes. It knows frames and versions; what a
 * request means is `handle`'s business.
 *
 * 1. `handle` is called once per request, in the order in which they arrive on a connection, and calls `reply` exactly once,
 *    at any time and in any order. It must not throw. Opcode, id and epoch of the response are filled in here.
 * 2. A request is not handed on while the connection has more than `outstandingMaxBytes` of requests and answers in
 *    the making; the socket is not read meanwhile, so the client feels it.
 * 3. A process that stood still drops its connections unread: their clients may have sent the same again, or taken it back,
 *    in another way.
 * 4. When a connection ends, `clientClosed` is called once, after the last call of `handle` for it. Replies that come
 *    later are dropped.
 */
export interface SheepServerOptions {
  network: Network
  clock: Clock
  log: Log
  handle(request: SheepRequest, client: SheepClient, reply: (response: Reply) => void): void
  clientClosed(client: SheepClient): void
  /** Called once when a connection was accepted, before anything else about it. */
  clientOpened?(client: SheepClient): void
  /** The epoch of the cluster, for every response. */
  epoch(): number
  outstandingMaxBytes?: number
  clientsMax?: number
  /** After standing still for so long the process drops its connections unread; see StallGuard. */
  stallMs?: number
}

export interface SheepClient {
  /** Unique within this server. */
  readonly id: number
  /** `host:port`, or `unix`. */
  readonly peer: string
  /** Drops the connection at once; what has arrived and was not handed on is never seen. */
  cut(): void
}

/** A response without what the server fills in. */
export type Reply = Omit<SheepResponse, 'opcode' | 'id' | 'epoch'>

export interface SheepServer {
  /** Connections now. */
  readonly connections: number
  /** Starts listening; resolves with the address in use. May be called for several addresses. */
  listen(address: string): Promise<string>
  /** Stops accepting and reading, answers what was handed to `handle`, closes; cuts off who has not taken it by `graceMs`. */
  close(options: { graceMs: number }): Promise<void>
}

export function createSheepServer(options: SheepServerOptions): SheepServer {
  const { network, clock, log, clientsMax = 4096, stallMs = STALL_DEFAULT_MS } = options
  const listeners: Listener[] = []
  const sessions = new Set<ClientSession>()
  let nextClientId = 1
  let closing = false
  let allClosed = () => {}

  const guard = new StallGuard(clock, stallMs, () => {
    log.warn({ connections: sessions.size }, 'the process stood still; dropping its sheep connections unread')
    for (const session of sessions) session.cut()
  })

  const accept = (connection: Connection) => {
    if (closing || sessions.size >= clientsMax) {
      log.warn({ peer: connection.peer, clients: sessions.size }, 'refused a connection')
      connection.destroy()
      return
    }
    const session = new ClientSession(options, guard, connection, nextClientId++, () => {
      sessions.delete(session)
      if (sessions.size === 0) allClosed()
    })
    sessions.add(session)
  }

  return {
    get connections() {
      return sessions.size
    },
    listen: async (address) => {
      const listener = await network.listen(address, accept)
      listeners.push(listener)
      return listener.address
    },
    close: async ({ graceMs }) => {
      closing = true
      guard.stop()
      const stopped = listeners.map((listener) => listener.close())
      const ended = new Promise<void>((resolve) => {
        allClosed = resolve
      })
      for (const session of sessions) session.finish()
      const timer = clock.timer(graceMs, () => {
        for (const session of sessions) session.cut()
      })
      if (sessions.size > 0) await ended
      timer.cancel()
      await Promise.all(stopped)
    },
  }
}

/** Below the time after which clients give a server up and send the same elsewhere. */
const STALL_DEFAULT_MS = 4000
const OUTSTANDING_MAX_BYTES = 64 << 20
/** What a request without a body is taken to cost, so that many small ones are bounded too. */
const REQUEST_COST_BYTES = 4096

class ClientSession {
  readonly #options: SheepServerOptions
  readonly #connection: Connection
  readonly #client: SheepClient
  readonly #outstandingMaxBytes: number
  /** Read, but not handed on yet: at most what one chunk held. */
  #waiting: (SheepRequest & { flags: number })[] = []
  #outstandingBytes = 0
  #outstandingRequests = 0
  #unsent: Uint8Array[] = []
  #unsentBytes = 0
  #paused = false
  #finishing = false
  #isCut = false
  #closed = false

  constructor(options: SheepServerOptions, guard: StallGuard, connection: Connection, id: number, ended: () => void) {
    this.#options = options
    this.#connection = connection
    this.#client = { id, peer: connection.peer, cut: () => this.cut() }
    this.#outstandingMaxBytes = options.outstandingMaxBytes ?? OUTSTANDING_MAX_BYTES
    const reader = new RequestReader()
    options.clientOpened?.(this.#client)
    connection.onClose(() => {
      this.#closed = true
      this.#waiting = []
      options.clientClosed(this.#client)
      ended()
    })
    connection.onDrain(() => this.#handOn())
    connection.onData((chunk) => {
      guard.check() // may cut this very connection
      if (this.#isCut) return
      if (this.#finishing) return // read on all the same, to see the client close its side
      try {
        reader.read(chunk, (request) => this.#waiting.push(request))
      } catch (error) {
        if (!(error instanceof FrameError)) throw error
        options.log.warn({ peer: connection.peer, reason: error.message }, 'closed a connection that cannot be read')
        this.#waiting = []
        connection.destroy()
      }
      this.#handOn()
    })
  }

  /** Ends the connection as soon as everything that was handed on is answered. */
  finish(): void {
    this.#finishing = true
    this.#waiting = []
    this.#connection.resume()
    this.#endWhenDone()
  }

  /** Ends the connection at once; what has arrived and was not handed on is dropped. */
  cut(): void {
    this.#isCut = true
    this.#waiting = []
    this.#connection.destroy()
  }

  #handOn(): void {
    while (this.#waiting.length > 0 && !this.#closed && this.#hasRoom()) this.#accept(this.#waiting.shift()!)
    const pause = !this.#hasRoom() && !this.#finishing
    if (pause === this.#paused || this.#closed) return
    this.#paused = pause
    if (pause) this.#connection.pause()
    else this.#connection.resume()
  }

  #hasRoom(): boolean {
    return this.#outstandingBytes + this.#unsentBytes + this.#connection.pendingBytes < this.#outstandingMaxBytes
  }

  #accept(request: SheepRequest & { flags: number }): void {
    const costBytes = REQUEST_COST_BYTES + (request.dataLength ?? 0)
    this.#outstandingBytes += costBytes
    this.#outstandingRequests++
    let answered = false
    const reply = (response: Reply) => {
      if (answered) throw new Error(`${opcodeName(request.opcode)} was answered twice`)
      answered = true
      this.#outstandingBytes -= costBytes
      this.#outstandingRequests--
      this.#send(request, response)
    }
    const refusal = refuse(request)
    if (refusal !== null) reply({ result: refusal })
    else this.#options.handle(request, this.#client, reply)
  }

  #send(request: SheepRequest & { flags: number }, reply: Reply): void {
    if (this.#closed) return
    const { body, ...fields } = keepFraming(request, reply)
    const { opcode, id = 0 } = request
    if (this.#unsent.length === 0) queueMicrotask(() => this.#flush()) // answers of one batch leave in one write
    this.#unsent.push(encodeResponseHeader({ ...fields, body, opcode, id, epoch: this.#options.epoch() }))
    if (body !== undefined) this.#unsent.push(body)
    this.#unsentBytes += body?.length ?? 0
  }

  #flush(): void {
    const buffers = this.#unsent
    this.#unsent = []
    this.#unsentBytes = 0
    if (this.#closed) return
    this.#connection.write(buffers)
    this.#handOn()
    this.#endWhenDone()
  }

  #endWhenDone(): void {
    if (this.#finishing && this.#outstandingRequests === 0 && this.#unsent.length === 0) this.#connection.end()
  }
}

/** What is answered to a request that no operation may see; null for the rest. */
function refuse(request: SheepRequest & { flags: number }): number | null {
  if (!acceptsProtoVer(request.opcode, request.protoVer ?? 0)) return RESULT.VER_MISMATCH
  const offersTooMuch = (request.flags & FLAG.WRITE) === 0 && (request.dataLength ?? 0) > BODY_SIZE_MAX_BYTES
  return offersTooMuch ? RESULT.INVALID_PARMS : null
}

/**
 * Keeps the client's framing: QEMU reads an error's body into the guest's buffer, and `dog` and tgt do not read a body
 * after a WRITE at all. A body longer than the client's buffer becomes BUFFER_SMALL.
 */
function keepFraming(request: SheepRequest & { flags: number }, reply: Reply): Reply {
  if (reply.body === undefined) return reply
  if (reply.result !== RESULT.SUCCESS || !mayAnswerBody(request.flags)) return { ...reply, body: undefined }
  return reply.body.length > bufferBytes(request) ? { result: RESULT.BUFFER_SMALL } : reply
}

/** A foreign client has one buffer for both directions; Collie's own goes by the length of the response alone. */
function bufferBytes({ opcode, flags, dataLength = 0 }: SheepRequest & { flags: number }): number {
  const isOwnPiggyback = responseVariant(opcode) === 'io' && (flags & FLAG.PIGGYBACK) !== 0
  return isOwnPiggyback ? BODY_SIZE_MAX_BYTES : dataLength
}
