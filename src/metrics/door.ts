import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import { within } from '../runtime/within.ts'
import { type Page, renderPage } from './page.ts'
import type { Sample } from './samples.ts'

export interface PageParts {
  /** What the process that shows the page knows by itself. Must answer soon, whatever is down. */
  own(): Promise<readonly Sample[]>
  /** What the store tells; it may be in another process, and down. */
  askStore(): Promise<StoreMetrics>
  clock: Clock
  log: Log
}

interface StoreMetrics {
  /** Why the store cannot go on; null while it can. */
  failure: string | null
  samples: readonly Sample[]
}

export type MetricsPage = () => Promise<Page>

/** Below the ten seconds after which Prometheus gives a scrape up by default. */
const STORE_TIMEOUT_MS = 2000
/** A page is shown again for so long, so that many who ask cost no more than one. */
const PAGE_MAX_AGE_MS = 1000

/**
 * A process and its store on one page. A store that is down is shown as such, beside what the process knows by itself. At most
 * one page is in the making, and at most one question to the store.
 */
export function createMetricsPage({ own, askStore, clock, log }: PageParts): MetricsPage {
  const store = oneAtATime(askStore)
  const renew = oneAtATime(async () => {
    const [samples, told] = await Promise.all([own(), withinTime(store())])
    const up = { name: 'collie_store_up', labels: {}, value: told?.failure === null ? 1 : 0 }
    return { madeAtMs: clock.monotonicMs(), page: await renderPage([up, ...samples, ...(told?.samples ?? [])]) }
  })
  let latest = { madeAtMs: Number.NEGATIVE_INFINITY, page: { contentType: '', text: '' } }

  async function withinTime<T>(answer: Promise<T>): Promise<T | null> {
    const soon = answer.catch((error: unknown) => {
      log.debug({ err: error }, 'the store does not tell its metrics')
      return null
    })
    return within(clock, STORE_TIMEOUT_MS, soon, () => null)
  }

  return async () => {
    if (clock.monotonicMs() - latest.madeAtMs > PAGE_MAX_AGE_MS) latest = await renew()
    return latest.page
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
