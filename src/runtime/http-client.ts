import http, { type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import https from 'node:https'
import { type Authorities, reasonOf } from './tls.ts'

/**
 * Requests to an HTTP service whose bodies may be larger than memory: both ways nothing moves that nobody asked for.
 * Redirects are answers, and whoever does not answer in time is given up.
 */
export interface HttpClient {
  /** Resolves with the head of the answer. Rejects when the service cannot be reached. */
  request(request: HttpRequest): Promise<HttpResponse>
  /** Begins a request whose body follows, `lengthBytes` of it. */
  upload(request: HttpUploadRequest): HttpUpload
}

export interface HttpRequest {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  url: string
  headers: Readonly<Record<string, string>>
  body?: Buffer
  /** How long to wait for the answer, and for each read of its body. */
  timeoutMs: number
}

export interface HttpUploadRequest extends Omit<HttpRequest, 'method' | 'body'> {
  method: 'PUT'
  lengthBytes: number
}

export interface HttpResponse {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** The next bytes of the body, null at its end. Rejects when the connection breaks before that. */
  read(): Promise<Buffer | null>
  /** Drops what was not read. */
  destroy(): void
}

export interface HttpUpload {
  /** Resolves when there is room for more; with false when the service has answered already and wants no more. */
  write(bytes: Buffer): Promise<boolean>
  /** Resolves with the answer to all of it. */
  end(): Promise<HttpResponse>
  destroy(): void
}

/** What went wrong between here and the service. */
export class HttpFailure extends Error {
  override readonly name = 'HttpFailure'
}

/** Makes a connection for each request. Without `authorities` it believes the services that the well-known ones vouch for. */
export function createHttp(authorities: Authorities | null): HttpClient {
  return clientOver(null, authorities)
}

export const systemHttp: HttpClient = createHttp(null)

/** A client for many requests to one service: it keeps connections for the next request until it is closed. */
export function createKeptHttp(authorities: Authorities | null = null): HttpClient & { close(): void } {
  const agents = { http: new http.Agent({ keepAlive: true }), https: new https.Agent({ keepAlive: true }) }
  return {
    ...clientOver(agents, authorities),
    close: () => {
      agents.http.destroy()
      agents.https.destroy()
    },
  }
}

/** Null: a connection for each request. */
type Agents = { http: http.Agent; https: https.Agent } | null

function clientOver(agents: Agents, authorities: Authorities | null): HttpClient {
  return {
    request: async ({ body, ...request }) => {
      const { answered, outgoing } = begin(agents, authorities, request, body?.length ?? 0)
      outgoing.end(body)
      return within(answered, request.timeoutMs, outgoing)
    },
    upload: (request) => {
      const { answered, outgoing } = begin(agents, authorities, request, request.lengthBytes)
      let hasAnswer = false
      answered.then(
        () => {
          hasAnswer = true
        },
        () => {}, // told by `write` and `end`
      )
      return {
        write: async (bytes) => {
          if (hasAnswer) return false
          const written = new Promise<boolean>((resolve, reject) => {
            outgoing.write(bytes, (error) => (error ? reject(failure(error, authorities)) : resolve(true)))
          })
          return within(Promise.race([written, answered.then(() => false)]), request.timeoutMs, outgoing)
        },
        end: () => {
          outgoing.end()
          return within(answered, request.timeoutMs, outgoing)
        },
        destroy: () => {
          outgoing.destroy()
        },
      }
    },
  }
}

function begin(
  agents: Agents,
  authorities: Authorities | null,
  { method, url, headers, timeoutMs }: Omit<HttpRequest, 'method' | 'body'> & { method: string },
  lengthBytes: number,
): { answered: Promise<HttpResponse>; outgoing: http.ClientRequest } {
  const isSecure = url.startsWith('https:')
  const { request } = isSecure ? https : http
  const agent = agents?.[isSecure ? 'https' : 'http'] ?? false
  const length = lengthBytes > 0 || method !== 'GET' ? { 'content-length': String(lengthBytes) } : {}
  const ca = authorities?.certificates
  const outgoing = request(url, { method, headers: { ...headers, ...length }, agent, ...(ca && { ca: [...ca] }) })
  const answered = new Promise<HttpResponse>((resolve, reject) => {
    outgoing.on('error', (error) => reject(failure(error, authorities)))
    outgoing.once('response', (incoming) => resolve(responseOf(incoming, timeoutMs)))
  })
  return { answered, outgoing }
}

function responseOf(incoming: IncomingMessage, timeoutMs: number): HttpResponse {
  const chunks = incoming.iterator({ destroyOnReturn: false })
  return {
    status: incoming.statusCode ?? 0,
    headers: incoming.headers,
    read: async () => {
      const next = chunks.next().catch((error: Error) => {
        throw failure(error, null)
      })
      const { done, value } = await within(next, timeoutMs, incoming)
      return done ? null : (value as Buffer)
    },
    destroy: () => {
      incoming.on('error', () => {}) // of being destroyed
      incoming.destroy()
    },
  }
}

/** All of the body. Rejects with HttpFailure, and drops the rest, when it has more than `bytesMax`. */
export async function readBody(answer: HttpResponse, bytesMax: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let lengthBytes = 0
  for (let chunk = await answer.read(); chunk !== null; chunk = await answer.read()) {
    chunks.push(chunk)
    lengthBytes += chunk.length
    if (lengthBytes <= bytesMax) continue
    answer.destroy()
    throw new HttpFailure(`its answer has more than ${bytesMax} bytes`)
  }
  return Buffer.concat(chunks)
}

/** Gives up what takes too long, by ending the connection that it waits for. */
async function within<T>(
  work: Promise<T>,
  timeoutMs: number,
  connection: { destroy(error?: Error): unknown },
): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const error = new HttpFailure(`no answer within ${timeoutMs / 1000} s`)
      reject(error)
      connection.destroy(error)
    }, timeoutMs)
  })
  try {
    return await Promise.race([work, tooLate])
  } finally {
    clearTimeout(timer)
  }
}

function failure(error: Error, authorities: Authorities | null): HttpFailure {
  return error instanceof HttpFailure ? error : new HttpFailure(reasonOf(error, authorities), { cause: error })
}
