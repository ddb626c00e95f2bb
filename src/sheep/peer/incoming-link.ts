import type { BufferPool } from '../../runtime/buffer-pool.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Connection } from '../../runtime/network.ts'
import type { Life } from '../membership/view.ts'
import { ByteReader, MalformedMessage } from './byte-reader.ts'
import { FRAME_FLAG, FrameReader, FrameWriter } from './frames.ts'
import { decodeHello, encodeFailure, HELLO_CODE, type Hello, PING_CODE } from './hello.ts'
import type { AnyHandler, IncomingPeer } from './kind.ts'

/** How long a node may take to say who it is. */
const HELLO_MS = 5000
/** Answers that the peer does not take: nothing more is read of it until it has. */
const UNSENT_BYTES_MAX = 64 << 20

export interface IncomingLinkOptions {
  connection: Connection
  clock: Clock
  handlers: ReadonlyMap<number, AnyHandler>
  /** Memory for bodies that are lent. */
  pool: BufferPool
  /** Whether to serve whoever says this; why not, if so. */
  admit(hello: Hello): string | null
  /** Called before input is taken; may end the link. */
  beforeInput(): void
  /** Called once. */
  ended(reason: string): void
}

/**
 * One connection from another node, and what it asks here: handed on in the order of arrival, answered in any. A request that is not
 * understood ends the link, since those after it may need it.
 */
export class IncomingLink implements IncomingPeer {
  readonly #options: IncomingLinkOptions
  readonly #connection: Connection
  readonly #out = new FrameWriter()
  /** By kind, what is not answered yet. */
  readonly #outstandingBytes = new Map<number, number>()
  readonly #onEnd: (() => void)[] = []
  #hello: Hello | null = null
  #isFlushing = false
  #isPaused = false
  #isOver = false

  constructor(options: IncomingLinkOptions) {
    this.#options = options
    this.#connection = options.connection
  }

  /** Begins to read. */
  start(): void {
    const { clock, handlers, pool, beforeInput } = this.#options
    const connection = this.#connection
    const reader = new FrameReader(
      (code, flags, id, fields, body) => this.#received(code, flags, id, fields, body),
      (code, _flags, _id, length) =>
        handlers.get(code)?.kind.lendsBody ? pool.take(length).subarray(0, length) : undefined,
    )
    const timer = clock.timer(HELLO_MS, () => {
      if (this.#hello === null) this.end('it does not say who it is')
    })
    this.onEnd(() => timer.cancel())
    connection.onClose(() => this.end('the connection broke'))
    connection.onDrain(() => this.#pauseOrResume())
    connection.onData((chunk) => {
      beforeInput()
      if (this.#isOver) return
      try {
        reader.read(chunk)
      } catch (error) {
        if (!(error instanceof MalformedMessage)) throw error
        this.end(`it is not understood: ${error.message}`)
      }
    })
  }

  get member(): Life {
    return this.#hello!.from
  }

  get attempt(): number {
    return this.#hello!.attempt
  }

  get address(): string {
    return this.#connection.peer
  }

  onEnd(ended: () => void): void {
    this.#onEnd.push(ended)
  }

  /** Nothing that has arrived and was not handed on is. */
  end(reason: string): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#connection.destroy()
    this.#options.ended(reason)
    for (const ended of this.#onEnd) ended()
  }

  #received(code: number, flags: number, id: number, fields: Buffer, body: Buffer): void {
    if (this.#isOver) return
    if (flags !== 0) throw new MalformedMessage('an answer where requests are expected')
    if (this.#hello === null) return this.#welcome(code, fields)
    if (code === PING_CODE) return this.#answer(code, id, () => {})
    const handler = this.#options.handlers.get(code)
    if (!handler) throw new MalformedMessage(`a request of the unknown kind ${code}`)
    this.#handOn(handler, id, fields, body)
  }

  #welcome(code: number, fields: Buffer): void {
    if (code !== HELLO_CODE) throw new MalformedMessage('a request before a hello')
    const hello = decodeHello(fields)
    this.#hello = hello
    const refusal = this.#options.admit(hello)
    if (refusal === null) return this.#answer(HELLO_CODE, 0, () => {})
    this.#fail(HELLO_CODE, 0, new Error(refusal))
    this.#flush()
    this.#connection.end()
    this.#isOver = true
    this.#options.ended(refusal)
  }

  #handOn({ kind, handle }: AnyHandler, id: number, fields: Buffer, body: Buffer): void {
    const outstandingBytes = this.#outstandingBytes.get(kind.code) ?? 0
    if (outstandingBytes >= kind.windowBytes) throw new MalformedMessage(`more of ${kind.name} than it may send`)
    const reader = new ByteReader(fields)
    const request = kind.decodeRequest(reader, body)
    reader.end(kind.name)
    const costBytes = kind.costBytes(request)
    this.#outstandingBytes.set(kind.code, outstandingBytes + costBytes)
    let isAnswered = false
    handle(request, this, (answer) => {
      if (isAnswered) throw new Error(`${kind.name} was answered twice`)
      isAnswered = true
      const isLent = body.length > 0 && !(answer instanceof Error) && kind.lendsBody?.(request, answer)
      if (isLent) this.#options.pool.release(body)
      this.#outstandingBytes.set(kind.code, this.#outstandingBytes.get(kind.code)! - costBytes)
      if (answer instanceof Error) this.#fail(kind.code, id, answer)
      else this.#answer(kind.code, id, () => kind.encodeAnswer(answer, this.#out, request))
    })
  }

  #answer(code: number, id: number, encode: () => void): void {
    if (this.#isOver) return
    this.#out.begin(code, FRAME_FLAG.ANSWER, id)
    try {
      encode()
      this.#out.end()
    } catch (error) {
      this.#out.undo()
      return this.#fail(code, id, error as Error)
    }
    this.#flushSoon()
  }

  #fail(code: number, id: number, error: Error): void {
    if (this.#isOver) return
    this.#out.begin(code, FRAME_FLAG.ANSWER | FRAME_FLAG.FAILED, id)
    this.#out.bytes(encodeFailure(error))
    this.#out.end()
    this.#flushSoon()
  }

  /** Answers that the input of one moment has led to leave in one write. */
  #flushSoon(): void {
    if (this.#isFlushing) return
    this.#isFlushing = true
    this.#options.clock.afterBatch(() => {
      this.#isFlushing = false
      this.#flush()
    })
  }

  #flush(): void {
    if (this.#isOver || this.#out.isEmpty) return
    this.#connection.write(this.#out.take())
    this.#pauseOrResume()
  }

  #pauseOrResume(): void {
    const isPaused = this.#connection.pendingBytes > UNSENT_BYTES_MAX
    if (isPaused === this.#isPaused || this.#isOver) return
    this.#isPaused = isPaused
    if (isPaused) this.#connection.pause()
    else this.#connection.resume()
  }
}
