import http from 'node:http'
import { text } from 'node:stream/consumers'

/**
 * Requests over connections that stay open, as busy clients make them. `send` resolves with the body of the answer and
 * rejects when its status is an error.
 */
export class HttpClient {
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: 64 })
  readonly #base: string
  readonly #headers: Readonly<Record<string, string>>

  /** `base` is what all URLs begin with; `headers` go with each request. */
  constructor(base: string, headers: Readonly<Record<string, string>> = {}) {
    this.#base = base
    this.#headers = headers
  }

  async send(method: string, path: string, body?: unknown): Promise<string> {
    const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body))
    const about = bytes && { 'content-type': 'application/json', 'content-length': bytes.length }
    const options = { method, agent: this.#agent, headers: { ...this.#headers, ...about } }
    const answer = await new Promise<http.IncomingMessage>((resolve, reject) => {
      http
        .request(this.#base + path, options, resolve)
        .once('error', reject)
        .end(bytes)
    })
    const received = await text(answer)
    if (answer.statusCode! >= 400) throw new Error(`${method} ${path}: ${answer.statusCode} ${received}`)
    return received
  }

  async json<T>(method: string, path: string, body?: unknown): Promise<T> {
    return JSON.parse(await this.send(method, path, body)) as T
  }

  close(): void {
    this.#agent.destroy()
  }
}
