import http from 'node:http'
import { type Listener, listenOn } from './network.ts'

export interface Page {
  /** 200 if left out. */
  status?: number
  contentType: string
  text: string
}

/** Who reads pages is a program or two; more at a time are turned away. */
const CONNECTIONS_MAX = 64
/** For a request to arrive whole. */
const REQUEST_TIMEOUT_MS = 10_000

/**
 * A listener for a few pages of plain text, by their paths, that anybody may read who can reach it. `host:port` or the path of a unix socket; the
 * address that it tells has the real port when 0 was asked for. A page that rejects is answered with 500 and told to `onDefect`.
 */
export async function listenForPages(
  address: string,
  pages: Readonly<Record<string, () => Promise<Page>>>,
  onDefect: (error: unknown, path: string) => void,
): Promise<Listener> {
  const server = http.createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
    const path = request.url?.split('?')[0] ?? ''
    const isRead = request.method === 'GET' || request.method === 'HEAD'
    const make = Object.hasOwn(pages, path) ? pages[path] : undefined
    const answer = ({ status = 200, contentType, text }: Page) => {
      response.writeHead(status, { 'content-type': contentType, 'content-length': Buffer.byteLength(text) })
      response.end(text)
    }
    if (make === undefined) return answer(plain(404, 'There is no such page.'))
    if (!isRead) return answer(plain(405, 'Only GET.'))
    make().then(answer, (error: unknown) => {
      onDefect(error, path)
      answer(plain(500, 'This page could not be made; the log says why.'))
    })
  })
  server.maxConnections = CONNECTIONS_MAX
  return {
    address: await listenOn(server, address),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

const plain = (status: number, text: string): Page => ({ status, contentType: 'text/plain', text: `${text}\n` })
