import type { FastifyInstance } from 'fastify'
import { Histogram } from '../runtime/histogram.ts'

/** From an answer out of memory to the end of patience. */
const BOUNDS_SECONDS = [1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/** Requests of one method on one route that were answered with one class of status. */
export interface RouteCounts {
  method: string
  /** The pattern, never the path: `/v3/:project_id/volumes/:id`. Empty for paths that no route has. */
  route: string
  /** `2xx` … `5xx`. */
  status: string
  seconds: Histogram
}

/** Counts the requests of all doors of the listener. */
export class HttpMeter {
  readonly #counts = new Map<string, RouteCounts>()

  observe(method: string, route: string, statusCode: number, seconds: number): void {
    const status = `${Math.floor(statusCode / 100)}xx`
    const key = `${method} ${route} ${status}`
    let counts = this.#counts.get(key)
    if (counts === undefined) {
      counts = { method, route, status, seconds: new Histogram(BOUNDS_SECONDS) }
      this.#counts.set(key, counts)
    }
    counts.seconds.observe(seconds)
  }

  counts(): Iterable<RouteCounts> {
    return this.#counts.values()
  }
}

export interface MetricsDoor {
  http: HttpMeter
  /** Must answer soon, whatever is down. */
  page(): Promise<{ contentType: string; text: string }>
}

/**
 * Counts every request, and shows what was counted at `/metrics`. As usual for Prometheus it asks for no token: it tells
 * nothing of a tenant. To be called before routes are added, since only those that follow are counted.
 */
export function addMetrics(app: FastifyInstance, { http, page }: MetricsDoor): void {
  app.addHook('onResponse', async (request, reply) => {
    const route = request.routeOptions.url
    const method = route === undefined ? '' : request.method
    http.observe(method, route ?? '', reply.statusCode, reply.elapsedTime / 1000)
  })
  app.get('/metrics', async (_request, reply) => {
    const { contentType, text } = await page()
    return reply.type(contentType).send(text)
  })
}
