import type { Clock } from '../../runtime/clock.ts'
import type { Connection } from '../../runtime/network.ts'
import { UnderWay } from '../../runtime/under-way.ts'
import { ByteReader, MalformedMessage } from './byte-reader.ts'
import { FRAME_FLAG, FrameReader, FrameWriter } from './frames.ts'
import { decodeFailure, encodeHello, HELLO_CODE, type Hello, PING_CODE } from './hello.ts'
import { type Done, type Kind, LinkError } from './kind.ts'

/** A peer that says nothing for so long, though it is asked, is gone. */
export const SILENT_MS = 3000
const PING_AFTER_MS = 1000
/** Until the peer has taken the hello. */
const CONNECT_MS = 3000
/** What the socket may hold: the rest waits where urgent requests can pass it. */
const SOCKET_BYTES_MAX = 4 << 20

/** A request that is not answered yet, whatever its types: its answer goes through the same kind. */
interface Pending {
  readonly kind: Kind<unknown, unknown>
  readonly request: unknown
  readonly costBytes: number
  readonly deadlineMs: number
  /** Null when it was given up: its answer may still come, and its number stays taken until then. */
  done: Done<unknown> | null
}

/** The requests of one kind. */
interface Lane {
  readonly kind: Kind<unknown, unknown>
  unansweredBytes: number
  waiting: Pending[]
  waitingBytes: number
}

export interface OutgoingLinkOptions {
  hello: Hello
  clock: Clock
  connect(): Promise<Connection>
  /**
   * The link is over, and nothing may be asked of it any more. Called once, before anything that is unanswered is rejected;
   * `lostEpoch` is the highest that an ordered request among those belongs to.
   */
  ended(reason: LinkError, lostEpoch: number): void
}

/**
 * One connection to one life of another node, from the first attempt to its end. What is asked goes out in order, kind by kind. All
 * that is unanswered at the end is rejected, sent or not. So is the link when one request of an ordered kind is.
 */
export class OutgoingLink {
  readonly #options: OutgoingLinkOptions
  readonly #clock: Clock
  readonly #startedMs: number
  readonly #lanes = new Map<number, Lane>()
  readonly #unanswered = new UnderWay<Pending>()
  readonly #out = new FrameWriter()
  #outBytes = 0
  #isFlushing = false
  #connection: Connection | null = null
  #isOpen = false
  #isOver = false
  /** When something was heard, or asked after nothing was for a while. */
  #heardMs = 0
  #pingedMs = 0

  constructor(options: OutgoingLinkOptions) {
    this.#options = options
    this.#clock = options.clock
    this.#startedMs = options.clock.monotonicMs()
    options.connect().then(
      (connection) => this.#greet(connection),
      (error: Error) => this.end(new LinkError('lost', error.message, { cause: error })),
    )
  }

  get isOpen(): boolean {
    return this.#isOpen && !this.#isOver
  }

  ask<Q, A>(kind: Kind<Q, A>, request: Q, done: Done<A>): void {
    const pending = {
      kind,
      request,
      costBytes: kind.costBytes(request),
      deadlineMs: kind.limitMs === null ? Number.POSITIVE_INFINITY : this.#clock.monotonicMs() + kind.limitMs,
      done,
    } as unknown as Pending
    const lane = this.#laneOf(pending.kind)
    if (lane.waiting.length === 0 && this.#hasRoom(lane)) return this.#send(lane, pending)
    if (lane.waitingBytes + pending.costBytes > kind.waitingBytesMax)
      return this.#reject(pending, new LinkError('busy', `too many requests of ${kind.name} wait`))
    lane.waiting.push(pending)
    lane.waitingBytes += pending.costBytes
  }

  /** Ends what has taken too long. To be called several times a second, unless this process itself stood still meanwhile. */
  tick(nowMs: number): void {
    if (!this.#isOpen && nowMs - this.#startedMs > CONNECT_MS) return this.end(lost('it takes no connection'))
    this.#rejectLate(nowMs)
    if (this.#isOver || !this.#isOpen || this.#unanswered.size === 0) return
    const silentMs = nowMs - this.#heardMs
    if (silentMs > SILENT_MS) return this.end(lost('it has gone silent'))
    if (silentMs <= PING_AFTER_MS || nowMs - this.#pingedMs <= PING_AFTER_MS) return
    this.#pingedMs = nowMs
    this.#out.begin(PING_CODE, 0, 0)
    this.#out.end()
    this.#flushSoon()
  }

  end(reason: LinkError, rejected: readonly Pending[] = []): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#connection?.destroy()
    const unanswered = [...rejected, ...this.#unanswered.values()]
    for (const { waiting } of this.#lanes.values()) unanswered.push(...waiting)
    this.#unanswered.clear()
    this.#lanes.clear()
    const epochs = unanswered.map(({ kind, request }) => kind.epochOf?.(request) ?? Number.NEGATIVE_INFINITY)
    this.#options.ended(
      reason,
      epochs.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY),
    )
    for (const { done } of unanswered) done?.(reason)
  }

  #greet(connection: Connection): void {
    if (this.#isOver) return connection.destroy() // it has come too late
    this.#connection = connection
    const reader = new FrameReader(
      (kind, flags, id, fields, body) => this.#received(kind, flags, id, fields, body),
      (_kind, _flags, id, length) => {
        const pending = this.#unanswered.get(id)
        const target = pending?.done ? pending.kind.targetOf?.(pending.request) : undefined
        return target?.length === length ? target : undefined
      },
    )
    connection.onClose(() => this.end(lost('the connection broke')))
    connection.onDrain(() => this.#sendWaiting())
    this.#out.begin(HELLO_CODE, 0, 0)
    this.#out.bytes(encodeHello(this.#options.hello))
    this.#out.end()
    this.#flush()
    connection.onData((chunk) => {
      if (this.#isOver) return
      this.#heardMs = this.#clock.monotonicMs()
      try {
        reader.read(chunk)
      } catch (error) {
        if (!(error instanceof MalformedMessage)) throw error
        return this.end(lost(`it is not understood: ${error.message}`))
      }
      this.#sendWaiting()
    })
  }

  #received(code: number, flags: number, id: number, fields: Buffer, body: Buffer): void {
    if (this.#isOver) return
    if ((flags & FRAME_FLAG.ANSWER) === 0) throw new MalformedMessage('a request where answers are expected')
    const isFailed = (flags & FRAME_FLAG.FAILED) !== 0
    if (!this.#isOpen) return this.#welcomed(code, isFailed, fields)
    if (code === PING_CODE) return
    const pending = this.#unanswered.get(id)
    if (pending?.kind.code !== code) throw new MalformedMessage('an answer to no request')
    const { kind, request, costBytes } = pending
    let outcome: unknown
    if (isFailed) outcome = new LinkError('failed', decodeFailure(fields))
    else {
      const reader = new ByteReader(fields)
      outcome = kind.decodeAnswer(reader, body, request)
      reader.end(`answer to ${kind.name}`)
    }
    this.#unanswered.delete(id)
    this.#laneOf(kind).unansweredBytes -= costBytes
    if (isFailed) this.#reject(pending, outcome as LinkError)
    else pending.done?.(outcome)
  }

  #welcomed(code: number, isFailed: boolean, fields: Buffer): void {
    if (code !== HELLO_CODE) throw new MalformedMessage('an answer before that to the hello')
    if (isFailed) this.end(lost(`it refuses: ${decodeFailure(fields)}`))
    else this.#isOpen = true
  }

  #reject(pending: Pending, reason: LinkError): void {
    if (pending.kind.epochOf) this.end(reason, [pending])
    else pending.done?.(reason)
  }

  /** One that is late and ordered ends the link. An answer to another one may still come: its number stays taken until then. */
  #rejectLate(nowMs: number): void {
    for (const pending of this.#unanswered.values()) {
      if (pending.deadlineMs > nowMs || pending.done === null) continue
      if (pending.kind.epochOf) return this.end(late(pending))
      const { done } = pending
      pending.done = null
      done(late(pending))
    }
    for (const lane of this.#lanes.values()) {
      const isLate = ({ deadlineMs }: Pending) => deadlineMs <= nowMs
      const tooLate = lane.waiting.filter(isLate)
      if (tooLate.length === 0) continue
      if (lane.kind.epochOf) return this.end(late(tooLate[0]!))
      lane.waiting = lane.waiting.filter((pending) => !isLate(pending))
      lane.waitingBytes = lane.waiting.reduce((sum, { costBytes }) => sum + costBytes, 0)
      for (const pending of tooLate) pending.done!(late(pending))
    }
  }

  #laneOf(kind: Kind<unknown, unknown>): Lane {
    const known = this.#lanes.get(kind.code)
    if (known) return known
    const lane: Lane = { kind, unansweredBytes: 0, waiting: [], waitingBytes: 0 }
    this.#lanes.set(kind.code, lane)
    return lane
  }

  #hasRoom({ kind, unansweredBytes }: Lane): boolean {
    if (!this.#isOpen || unansweredBytes >= kind.windowBytes) return false
    return kind.isUrgent === true || this.#connection!.pendingBytes + this.#outBytes < SOCKET_BYTES_MAX
  }

  #sendWaiting(): void {
    for (const lane of this.#lanes.values()) {
      while (lane.waiting.length > 0 && !this.#isOver && this.#hasRoom(lane)) {
        const pending = lane.waiting.shift()!
        lane.waitingBytes -= pending.costBytes
        this.#send(lane, pending)
      }
    }
  }

  #send(lane: Lane, pending: Pending): void {
    if (this.#unanswered.size === 0) this.#heardMs = this.#clock.monotonicMs()
    const id = this.#unanswered.add(pending)
    try {
      this.#out.begin(pending.kind.code, 0, id)
      pending.kind.encodeRequest(pending.request, this.#out)
      this.#out.end()
    } catch (error) {
      this.#out.undo()
      this.#unanswered.delete(id)
      const { message } = error as Error
      return this.#reject(pending, new LinkError('failed', `it cannot be sent: ${message}`, { cause: error }))
    }
    lane.unansweredBytes += pending.costBytes
    this.#outBytes += pending.costBytes
    this.#flushSoon()
  }

  /** What is asked because of the input of one moment leaves in one write. */
  #flushSoon(): void {
    if (this.#isFlushing) return
    this.#isFlushing = true
    this.#clock.afterBatch(() => this.#flush())
  }

  #flush(): void {
    this.#isFlushing = false
    this.#outBytes = 0
    if (!this.#isOver) this.#connection!.write(this.#out.take())
  }
}

const lost = (what: string) => new LinkError('lost', what)
const late = ({ kind }: Pending) => new LinkError('late', `no answer to ${kind.name} in ${kind.limitMs} ms`)
