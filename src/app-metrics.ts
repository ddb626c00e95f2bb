import type { HttpMeter, MetricsDoor } from './api/metrics.ts'
import type { ControlCaller } from './control/socket-client.ts'
import { CONTENT_TYPE, renderPage } from './metrics/page.ts'
import { type Sample, Samples } from './metrics/samples.ts'
import type { Clock } from './runtime/clock.ts'
import type { Log } from './runtime/log.ts'
import type { LoopLag } from './runtime/loop-lag.ts'
import { processUsage } from './runtime/process-usage.ts'
import type { ServiceCounts } from './services/counts.ts'
import { VERSION } from './version.ts'

export interface AppParts {
  http: HttpMeter
  counts(): Promise<ServiceCounts>
  control: ControlCaller
  lag: LoopLag
  roles: readonly string[]
  clock: Clock
  log: Log
}

/** Below the ten seconds after which Prometheus gives a scrape up by default. */
const STORE_TIMEOUT_MS = 2000
/** A page is shown again for so long, so that many who ask cost no more than one. */
const PAGE_MAX_AGE_MS = 1000

/**
 * Both sides of the program on one page. The store may be in another process, and down: the page then says so, and has what
 * the API knows by itself. At most one page is in the making, and at most one question to the store.
 */
export function createMetricsDoor(parts: AppParts): MetricsDoor {
  const askStore = oneAtATime(() => parts.control.call('metrics', {}))
  const renew = oneAtATime(async () => {
    const [own, store] = await Promise.all([collectApp(parts), withinTime(askStore())])
    const up = { name: 'collie_store_up', labels: {}, value: store?.failure === null ? 1 : 0 }
    return { madeAtMs: parts.clock.monotonicMs(), text: await renderPage([up, ...own, ...(store?.samples ?? [])]) }
  })
  let latest = { madeAtMs: Number.NEGATIVE_INFINITY, text: '' }

  async function withinTime<T>(answer: Promise<T>): Promise<T | null> {
    let timer = { cancel: () => {} }
    const tooLate = new Promise<null>((resolve) => {
      timer = parts.clock.timer(STORE_TIMEOUT_MS, () => resolve(null))
    })
    const soon = answer.catch((error: unknown) => {
      parts.log.debug({ err: error }, 'the store does not tell its metrics')
      return null
    })
    return Promise.race([soon, tooLate]).finally(() => timer.cancel())
  }

  return {
    http: parts.http,
    page: async () => {
      if (parts.clock.monotonicMs() - latest.madeAtMs > PAGE_MAX_AGE_MS) latest = await renew()
      return { contentType: CONTENT_TYPE, text: latest.text }
    },
  }
}

/** Whoever asks while an answer is on its way gets that one. */
function oneAtATime<T>(ask: () => Promise<T>): () => Promise<T> {
  let underWay: Promise<T> | null = null
  return () => {
    underWay ??= ask().finally(() => {
      underWay = null
    })
    return underWay
  }
}

async function collectApp({ http, counts, lag, roles, log }: AppParts): Promise<Sample[]> {
  const samples = new Samples()
  samples.add('collie_build_info', 1, { version: VERSION })
  for (const { method, route, status, seconds } of http.counts())
    samples.add('collie_http_request_duration_seconds', seconds, { method, route, status })
  const counted = await counts().catch((error: unknown) => log.error({ err: error }, 'volumes could not be counted'))
  if (counted) addServices(samples, counted)
  samples.addThread('api', lag.seconds)
  samples.addProcess(await processUsage(), roles)
  return samples.list
}

function addServices(samples: Samples, { volumes, snapshots, work }: ServiceCounts): void {
  samples.addEach('collie_volumes', 'status', volumes)
  samples.addEach('collie_volume_snapshots', 'status', snapshots)
  samples.addEach('collie_work_units', 'kind', work.units)
  samples.add('collie_work_running', work.running)
  samples.addEach('collie_work_done_total', 'kind', work.done)
  samples.addEach('collie_work_repeated_total', 'kind', work.repeated)
  samples.addEach('collie_work_given_up_total', 'kind', work.givenUp)
}
