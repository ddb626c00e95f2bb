import http from 'node:http'
import https from 'node:https'
import { type Authorities, reasonOf } from './tls.ts'

export interface HttpAnswer {
  readonly status: number
  /** Rejects when the connection ends early. */
  readonly chunks: AsyncIterable<Buffer>
}

export interface HttpPost {
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  /** Ends the request, and the chunks of its answer. */
  readonly signal: AbortSignal
}

/**
 * Small requests, many of them, and answers that may go on for days: connections are kept for the next request, and only the caller
 * ends one that is silent. For bodies of any size see `http-client.ts`.
 */
export interface HttpPoster {
  post(request: HttpPost): Promise<HttpAnswer>
}

/** Null believes https servers that the well-known authorities vouch for. */
export function systemHttpPoster(authorities: Authorities | null = null): HttpPoster {
  const ca = authorities?.certificates
  const agents = {
    'http:': new http.Agent({ keepAlive: true }),
    'https:': new https.Agent({ keepAlive: true, ...(ca && { ca: [...ca] }) }),
  }
  return {
    post: ({ url, headers, body, signal }) =>
      new Promise((resolve, reject) => {
        const [{ request }, agent] =
          url.protocol === 'https:' ? ([https, agents['https:']] as const) : ([http, agents['http:']] as const)
        const sent = request(url, { method: 'POST', headers, agent, signal }, (response) => {
          resolve({ status: response.statusCode!, chunks: response })
        })
        sent.once('error', (error) => {
          const reason = reasonOf(error, authorities)
          reject(reason === error.message ? error : new Error(reason, { cause: error }))
        })
        sent.end(body)
      }),
  }
}
