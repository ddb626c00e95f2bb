import type { HttpMeter, MetricsDoor } from './api/metrics.ts'
import type { Pace } from './api/pace.ts'
import type { ControlCaller } from './control/socket-client.ts'
import { createMetricsPage } from './metrics/door.ts'
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
  pace: Pace
  roles: readonly string[]
  clock: Clock
  log: Log
}

/** Both sides of the program on one page. */
export function createMetricsDoor(parts: AppParts): MetricsDoor {
  const { http, control, clock, log } = parts
  const askStore = () => control.call('metrics', {})
  return { http, page: createMetricsPage({ own: () => collectApp(parts), askStore, clock, log }) }
}

async function collectApp({ http, counts, lag, pace, roles, log }: AppParts): Promise<Sample[]> {
  const samples = new Samples()
  samples.add('collie_build_info', 1, { version: VERSION })
  for (const { method, route, status, seconds } of http.counts())
    samples.add('collie_http_request_duration_seconds', seconds, { method, route, status })
  samples.add('collie_http_held_seconds', pace.heldSeconds)
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
