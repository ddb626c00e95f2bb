import type { Clock } from '../../runtime/clock.ts'
import type { HttpAnswer, HttpPoster } from '../../runtime/http-poster.ts'

/** `etcd://[user:password@]host:port[,host:port…][/prefix]`, or `etcds://` for TLS. */
export interface EtcdPlace {
  readonly endpoints: readonly URL[]
  /** Before all keys of one cluster; ends with a slash. */
  readonly prefix: string
  readonly login: { readonly name: string; readonly password: string } | null
}

const DEFAULT_PREFIX = 'collie'

/** Throws a TypeError that says what is wrong; it has no password in it. */
export function parseEtcdUrl(text: string): EtcdPlace {
  const match = /^etcd(?<tls>s?):\/\/(?:(?<login>[^@/]*)@)?(?<hosts>[^/@]+)(?:\/(?<prefix>[^?#]*))?$/.exec(text)
  if (match === null) throw new TypeError('the place of etcd is not etcd://host:port,host:port/prefix')
  const { tls, login, hosts, prefix } = match.groups as Record<'tls' | 'login' | 'hosts' | 'prefix', string | undefined>
  const endpoints = hosts!.split(',').map((host) => {
    if (!/^(\[[\da-f:]+\]|[\w.-]+):\d{1,5}$/i.test(host)) throw new TypeError(`"${host}" is not host:port`)
    return new URL(`http${tls}://${host}`)
  })
  const [name, password = ''] = (login ?? '').split(':').map(decodeURIComponent)
  return {
    endpoints,
    prefix: `${prefix?.replace(/\/+$/, '') || DEFAULT_PREFIX}/`,
    login: login === undefined ? null : { name: name!, password },
  }
}

/** What etcd itself answered. `code` is gRPC's. */
export class EtcdRefusal extends Error {
  override readonly name = 'EtcdRefusal'
  readonly code: number

  constructor(message: string, code: number) {
    super(message)
    this.code = code
  }

  /** Whether it would be refused again, anywhere. */
  get isFinal(): boolean {
    return this.code !== UNAUTHENTICATED && !UNAVAILABLE_CODES.includes(this.code)
  }
}

const UNAUTHENTICATED = 16
/** Those that say nothing of the request, but of this endpoint at this time. */
const UNAVAILABLE_CODES: readonly number[] = [4, 14]
const ANSWER_BYTES_MAX = 64 * 1024 * 1024

/**
 * etcd's v3 interface by its JSON gateway, which every etcd serves beside gRPC. The package `etcd3` would bring gRPC, protobuf and
 * an own idea of retries for what are six calls here, and has had no release for years.
 *
 * 64-bit numbers are strings of digits, and keys and values base64, in both directions; a field that has its zero value is not there.
 */
export class EtcdClient {
  readonly #place: EtcdPlace
  readonly #http: HttpPoster
  readonly #clock: Clock
  /** Of the endpoints; goes on to the next when one does not serve. */
  #current = 0
  #token: string | null = null

  constructor(place: EtcdPlace, { http, clock }: { http: HttpPoster; clock: Clock }) {
    this.#place = place
    this.#http = http
    this.#clock = clock
  }

  /**
   * Asks one endpoint, once; the next call asks the next one when this one failed. An `EtcdRefusal` is etcd's answer; any other error
   * leaves open whether the request took effect.
   */
  async call<T>(path: string, body: object, timeoutMs: number): Promise<T> {
    const abort = new AbortController()
    const timer = this.#clock.timer(timeoutMs, () => abort.abort())
    const endpoint = this.#current
    try {
      const answer = await this.#post(path, body, abort.signal)
      const text = await wholeText(answer)
      return parseAnswer(text, answer.status) as T
    } catch (error) {
      if (error instanceof EtcdRefusal && error.code === UNAUTHENTICATED) this.#token = null // it has grown old
      if (!(error instanceof EtcdRefusal && error.isFinal)) this.#leave(endpoint)
      throw abort.signal.aborted ? new Error(`etcd did not answer within ${timeoutMs} ms`) : error
    } finally {
      timer.cancel()
    }
  }

  /** Answers as they come, from one endpoint, until it or `signal` ends them. */
  async *stream<T>(path: string, body: object, signal: AbortSignal): AsyncGenerator<T> {
    const endpoint = this.#current
    try {
      const { status, chunks } = await this.#post(path, body, signal)
      for await (const line of lines(chunks)) yield (parseAnswer(line, status) as { result: T }).result
    } finally {
      this.#leave(endpoint) // whoever asks again had better ask another one
    }
  }

  #leave(endpoint: number): void {
    if (this.#current === endpoint) this.#current = (endpoint + 1) % this.#place.endpoints.length
  }

  async #post(path: string, body: object, signal: AbortSignal): Promise<HttpAnswer> {
    const { login } = this.#place
    if (login !== null && this.#token === null) {
      const answer = await this.#send('/v3/auth/authenticate', login, {}, signal)
      this.#token = (parseAnswer(await wholeText(answer), answer.status) as { token: string }).token
    }
    return this.#send(path, body, this.#token === null ? {} : { authorization: this.#token }, signal)
  }

  #send(path: string, body: object, headers: Record<string, string>, signal: AbortSignal): Promise<HttpAnswer> {
    return this.#http.post({
      url: new URL(path, this.#place.endpoints[this.#current]),
      // A member without a leader would keep a watch open and have nothing to say.
      headers: { 'content-type': 'application/json', 'grpc-metadata-hasleader': 'true', ...headers },
      body: JSON.stringify(body),
      signal,
    })
  }
}

function parseAnswer(text: string, status: number): unknown {
  const answer = JSON.parse(text)
  const error = answer.error
  if (error === undefined && status < 300) return answer
  // Of a stream the error is an object; of a call its fields are the answer's.
  const { message = `status ${status}`, grpc_code: code } = error?.message === undefined ? answer : error
  throw new EtcdRefusal(message, code ?? error?.code ?? answer.code ?? 0)
}

async function wholeText({ chunks }: HttpAnswer): Promise<string> {
  const parts: Buffer[] = []
  for await (const chunk of bounded(chunks)) parts.push(chunk)
  return Buffer.concat(parts).toString()
}

async function* bounded(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let bytes = 0
  for await (const chunk of chunks) {
    bytes += chunk.length
    if (bytes > ANSWER_BYTES_MAX) throw new Error('etcd answers without an end')
    yield chunk
  }
}

async function* lines(chunks: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const NEWLINE = 10
  let parts: Buffer[] = []
  let bytes = 0
  for await (let chunk of chunks) {
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE)) {
      yield Buffer.concat([...parts, chunk.subarray(0, end)]).toString()
      parts = []
      bytes = 0
      chunk = chunk.subarray(end + 1)
    }
    parts.push(chunk)
    bytes += chunk.length
    if (bytes > ANSWER_BYTES_MAX) throw new Error('etcd sends a line without an end')
  }
  if (bytes > 0) yield Buffer.concat(parts).toString()
}
