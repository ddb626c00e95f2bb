import { whyNoAnswer } from './control/health.ts'
import type { ControlCaller } from './control/socket-client.ts'
import { createMetricsPage, type MetricsPage } from './metrics/door.ts'
import { Samples } from './metrics/samples.ts'
import { systemClock } from './runtime/clock.ts'
import { listenForPages } from './runtime/http-pages.ts'
import type { Log } from './runtime/log.ts'
import type { Listener } from './runtime/network.ts'
import { VERSION } from './version.ts'

/** What a process shows of itself to those who watch it. */
export interface StatusDoor {
  metrics: MetricsPage
  /** Null when it is of use, else the reason why not. */
  unready(): Promise<string | null>
}

/** The door of a process that has only the store, and no API that would show it. */
export function storeDoor(control: ControlCaller, log: Log): StatusDoor {
  const samples = new Samples()
  samples.add('collie_build_info', 1, { version: VERSION })
  const askStore = () => control.call('metrics', {})
  return {
    metrics: createMetricsPage({ own: async () => samples.list, askStore, clock: systemClock, log }),
    unready: () => whyNoAnswer(control, systemClock),
  }
}

/** The setting `metrics_listen`: `/metrics` and `/healthcheck` as the API has them, and nothing else. */
export function listenForStatus(address: string, { metrics, unready }: StatusDoor, log: Log): Promise<Listener> {
  const healthcheck = async () => {
    const reason = await unready()
    return { status: reason === null ? 200 : 503, contentType: 'text/plain', text: reason ?? 'OK' }
  }
  const onDefect = (error: unknown, page: string) => log.error({ err: error, page }, 'a page could not be made')
  return listenForPages(address, { '/metrics': metrics, '/healthcheck': healthcheck }, onDefect)
}
