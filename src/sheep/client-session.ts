import { BODY_SIZE_MAX_BYTES, FLAG, RESULT } from '../protocol/constants.ts'
import { FrameError, type IncomingRequest, RequestReader } from '../protocol/frame-reader.ts'
import { encodeResponseHeader } from '../protocol/header.ts'
import { mayAnswerBody, OP, opcodeName, responseVariant } from '../protocol/opcodes.ts'
import type { BufferPool } from '../runtime/buffer-pool.ts'
import type { MemoryBudget, MemoryShare } from '../runtime/memory-budget.ts'
import type { Connection } from '../runtime/network.ts'
import type { StallGuard } from '../runtime/stall-guard.ts'
import { PeerProgress, type WatchedPeer } from '../runtime/stuck-peers.ts'
import type { DoorLimits } from './door-limits.ts'
import { answersUnforeseen, costBytes, refusalOf } from './request-cost.ts'
import type { Reply, SheepClient, SheepServerOptions } from './server.ts'

export interface ClientSessionParts
  extends Pick<SheepServerOptions, 'clock' | 'log' | 'handle' | 'clientOpened' | 'clientClosed' | 'epoch'> {
  connection: Connection
  /** Unique within the server. */
  id: number
  limits: DoorLimits
  pool: BufferPool
  budget: MemoryBudget
  guard: StallGuard
  /** The first whole request is there. */
  spoke(): void
  /** The client broke the protocol, and is cut off. */
  refused(): void
  /** The connection is over. */
  closed(): void
  /** It is over, and all that was handed on is answered: nothing of it is in memory any more. */
  drained(): void
}

/** One connection of the door: see server.ts for what is promised. */
export class ClientSession implements WatchedPeer {
  readonly #parts: ClientSessionParts
  readonly #connection: Connection
  readonly #client: SheepClient
  readonly #reader: RequestReader
  readonly #memory: MemoryShare
  readonly #progress: PeerProgress
  #hasSpoken = false
  /** Held for the request that is being read. */
  #admittedBytes = 0
  #outstandingBytes = 0
  #outstandingRequests = 0
  #unforeseenRequests = 0
  #unsent: Uint8Array[] = []
  #unsentBytes = 0
  /** Memory of the pool that is on its way to the client, and how far the stream goes with the end of it. */
  #lent: { body: Buffer; endBytes: number }[] = []
  #receivedBytes = 0
  #writtenBytes = 0
  #pumping = false
  #wakeRequested = false
  /** The request that is being read waits for memory. */
  #starved = false
  #paused = false
  #finishing = false
  #isCut = false
  #closed = false

  constructor(parts: ClientSessionParts) {
    const { connection, clock, budget } = parts
    this.#parts = parts
    this.#connection = connection
    this.#client = { id: parts.id, peer: connection.peer, cut: () => this.cut() }
    this.#reader = new RequestReader({
      admit: (request) => this.#admit(request),
      target: (request) => (isLongWrite(request) ? this.#memoryFor(request.dataLength ?? 0) : undefined),
    })
    this.#memory = budget.share(() => this.#wakeLater())
    this.#progress = new PeerProgress(clock.monotonicMs())
  }

  /** Begins to read; what has arrived already is handed on before this returns. */
  start(): void {
    const { connection, guard, clientOpened } = this.#parts
    clientOpened?.(this.#client)
    connection.onClose(() => this.#end())
    connection.onDrain(() => {
      this.#releaseSent()
      this.#pump()
    })
    const receive = (chunk: Buffer) => {
      guard.check() // may cut this very connection
      if (this.#finishing || this.#isCut) return // read on all the same, to see the client close its side
      this.#receivedBytes += chunk.length
      this.#reader.push(chunk)
      this.#pump()
    }
    connection.onData(receive, () => this.#reader.room())
  }

  get peer(): string {
    return this.#client.peer
  }

  get drawsCommonMemory(): boolean {
    return this.#memory.draws
  }

  stuckForMs(nowMs: number): number {
    if (this.#isCut) return 0
    const { pendingBytes } = this.#connection
    return this.#progress.stuckForMs(nowMs, {
      waitsForPeer: pendingBytes > 0 || (!this.#paused && this.#reader.isMidRequest),
      movedBytes: this.#receivedBytes + this.#writtenBytes - pendingBytes,
    })
  }

  /** Ends the connection as soon as everything that was handed on is answered. */
  finish(): void {
    this.#finishing = true
    this.#giveUpReading()
    this.#connection.resume()
    this.#endWhenDone()
  }

  /** Ends the connection at once; what has arrived and was not handed on is dropped. */
  cut(): void {
    this.#isCut = true
    this.#giveUpReading()
    this.#connection.destroy()
  }

  #end(): void {
    this.#closed = true
    this.#unsent = []
    this.#unsentBytes = 0
    this.#giveUpReading()
    this.#parts.clientClosed(this.#client)
    this.#parts.closed()
    this.#drainWhenDone()
  }

  #giveUpReading(): void {
    this.#reader.release()
    this.#admittedBytes = 0
    this.#memory.forgo() // others are behind it
    this.#settle()
  }

  get #isReading(): boolean {
    return !this.#finishing && !this.#isCut && !this.#closed
  }

  /** Hands on what was read, as far as there is room. */
  #pump(): void {
    if (this.#pumping || !this.#isReading) return
    this.#pumping = true
    for (let request = this.#next(); request !== undefined; request = this.#next()) this.#accept(request)
    this.#pumping = false
    this.#settle()
    this.#slowDown()
  }

  #next(): IncomingRequest | undefined {
    if (!this.#isReading || !this.#hasRoom()) return undefined
    try {
      return this.#reader.next()
    } catch (error) {
      if (!(error instanceof FrameError)) throw error
      this.#parts.log.warn(
        { peer: this.#client.peer, reason: error.message },
        'closed a connection that cannot be read',
      )
      this.#parts.refused()
      this.cut()
      return undefined
    }
  }

  #hasRoom(): boolean {
    const { outstandingMaxBytes, unforeseenMax } = this.#parts.limits
    return this.#heldBytes < outstandingMaxBytes && this.#unforeseenRequests < unforeseenMax
  }

  /** Once the connection is over nothing is sent any more, and what waited for that is gone. */
  get #heldBytes(): number {
    const unsentBytes = this.#closed ? 0 : this.#unsentBytes + this.#connection.pendingBytes
    return this.#outstandingBytes + unsentBytes
  }

  #admit(request: IncomingRequest): boolean {
    const bytes = costBytes(request)
    this.#starved = !this.#memory.take(bytes)
    if (!this.#starved) this.#admittedBytes = bytes
    return !this.#starved
  }

  #settle(): void {
    this.#memory.settle(this.#heldBytes + this.#admittedBytes)
  }

  #slowDown(): void {
    const pause = this.#starved || !this.#hasRoom()
    if (pause === this.#paused || !this.#isReading) return
    this.#paused = pause
    if (pause) this.#connection.pause()
    else this.#connection.resume()
  }

  #wakeLater(): void {
    if (this.#wakeRequested) return
    this.#wakeRequested = true
    this.#parts.clock.afterBatch(() => {
      this.#wakeRequested = false
      this.#pump()
    })
  }

  #memoryFor(lengthBytes: number): Buffer {
    return this.#parts.pool.take(lengthBytes).subarray(0, lengthBytes)
  }

  #accept(request: IncomingRequest): void {
    if (isLongRead(request)) request.target = this.#memoryFor(request.length ?? 0)
    const heldBytes = this.#admittedBytes
    const unforeseen = answersUnforeseen(request) ? 1 : 0
    this.#admittedBytes = 0
    this.#outstandingBytes += heldBytes
    this.#outstandingRequests++
    this.#unforeseenRequests += unforeseen
    if (!this.#hasSpoken) this.#parts.spoke()
    this.#hasSpoken = true
    let answered = false
    const reply = (response: Reply) => {
      if (answered) throw new Error(`${opcodeName(request.opcode)} was answered twice`)
      answered = true
      this.#outstandingBytes -= heldBytes
      this.#outstandingRequests--
      this.#unforeseenRequests -= unforeseen
      // Somebody may still have to do with what belongs to a request that failed.
      if (isLongWrite(request) && response.result === RESULT.SUCCESS) this.#parts.pool.release(request.body!)
      if (this.#closed) this.#drainWhenDone()
      else this.#send(request, unforeseen > 0 ? this.#withRoom(response) : response)
    }
    const refusal = refusalOf(request)
    if (refusal !== null) reply({ result: refusal })
    else this.#parts.handle(request, this.#client, reply)
  }

  /** An answer that nobody took memory for, or that the client shall ask again. */
  #withRoom(reply: Reply): Reply {
    return this.#memory.takeNow(reply.body?.length ?? 0) ? reply : { result: RESULT.AGAIN }
  }

  #send(request: IncomingRequest, reply: Reply): void {
    const { body, ...fields } = keepFraming(request, reply)
    const { opcode, id = 0 } = request
    if (this.#unsent.length === 0) queueMicrotask(() => this.#flush()) // answers of one batch leave in one write
    this.#unsent.push(encodeResponseHeader({ ...fields, body, opcode, id, epoch: this.#parts.epoch() }))
    if (body !== undefined) this.#unsent.push(body)
    this.#unsentBytes += body?.length ?? 0
    if (body !== undefined && body === request.target) this.#lent.push({ body, endBytes: Number.POSITIVE_INFINITY })
  }

  #flush(): void {
    if (this.#closed) return
    const buffers = this.#unsent
    this.#writtenBytes += buffers.reduce((sum, { length }) => sum + length, 0)
    this.#unsent = []
    this.#unsentBytes = 0
    for (const lent of this.#lent) if (lent.endBytes === Number.POSITIVE_INFINITY) lent.endBytes = this.#writtenBytes
    this.#connection.write(buffers)
    this.#releaseSent()
    this.#settle()
    this.#pump()
    this.#endWhenDone()
  }

  /** Answers that the kernel has taken leave their memory to others; those of a connection that broke do not. */
  #releaseSent(): void {
    if (this.#closed) return
    const sentBytes = this.#writtenBytes - this.#connection.pendingBytes
    while (this.#lent.length > 0 && this.#lent[0]!.endBytes <= sentBytes) {
      this.#parts.pool.release(this.#lent.shift()!.body)
    }
  }

  #endWhenDone(): void {
    if (this.#finishing && this.#outstandingRequests === 0 && this.#unsent.length === 0) this.#connection.end()
  }

  #drainWhenDone(): void {
    if (this.#outstandingRequests > 0) return this.#settle()
    this.#memory.close()
    this.#parts.drained()
  }
}

/** What moves as much data as a disk likes gets memory that was in use before: fresh memory costs more than a copy. */
const LONG_BYTES_MIN = 64 * 1024

const isLongWrite = ({ opcode, flags, dataLength = 0 }: IncomingRequest): boolean =>
  opcode === OP.WRITE_VDI && (flags & FLAG.WRITE) !== 0 && dataLength >= LONG_BYTES_MIN

/** What is longer than any body is refused, and needs no memory. */
const isLongRead = ({ opcode, flags, length = 0, dataLength = 0 }: IncomingRequest): boolean =>
  opcode === OP.READ_VDI &&
  mayAnswerBody(flags) &&
  length >= LONG_BYTES_MIN &&
  length <= Math.min(dataLength, BODY_SIZE_MAX_BYTES)

/**
 * Keeps the client's framing: QEMU reads an error's body into the guest's buffer, and `dog` and tgt do not read a body
 * after a WRITE at all. A body longer than the client's buffer becomes BUFFER_SMALL.
 */
function keepFraming(request: IncomingRequest, reply: Reply): Reply {
  if (reply.body === undefined) return reply
  if (reply.result !== RESULT.SUCCESS || !mayAnswerBody(request.flags)) return { ...reply, body: undefined }
  return reply.body.length > bufferBytes(request) ? { result: RESULT.BUFFER_SMALL } : reply
}

/** A foreign client has one buffer for both directions; Collie's own goes by the length of the response alone. */
function bufferBytes({ opcode, flags, dataLength = 0 }: IncomingRequest): number {
  const isOwnPiggyback = responseVariant(opcode) === 'io' && (flags & FLAG.PIGGYBACK) !== 0
  return isOwnPiggyback ? BODY_SIZE_MAX_BYTES : dataLength
}
