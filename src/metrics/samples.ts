import type { HistogramData } from '../runtime/histogram.ts'
import { busySeconds, heapUsedBytes, type ProcessUsage } from '../runtime/process-usage.ts'
import type { FamilyName } from './catalogue.ts'

export type Labels = Readonly<Record<string, string>>

/** One time series at one moment, as plain data that may cross to another thread or process. */
export interface Sample {
  name: string
  labels: Labels
  value: number | HistogramData
}

/** Gathers the samples of one side. */
export class Samples {
  readonly list: Sample[] = []

  add(name: FamilyName, value: number | HistogramData, labels: Labels = {}): void {
    this.list.push({ name, labels, value })
  }

  /** One sample for each value of a label. */
  addEach(name: FamilyName, label: string, values: Iterable<readonly [string, number]>, labels: Labels = {}): void {
    for (const [key, value] of values) this.add(name, value, { ...labels, [label]: key })
  }

  /** What every thread tells of itself. To be called on it. */
  addThread(thread: 'store' | 'api', lagSeconds: HistogramData): void {
    this.add('collie_event_loop_lag_seconds', lagSeconds, { thread })
    this.add('collie_event_loop_busy_seconds_total', busySeconds(), { thread })
    this.add('collie_heap_used_bytes', heapUsedBytes(), { thread })
  }

  /** What every process tells of itself; `roles` tells several on one data directory apart. */
  addProcess(usage: ProcessUsage, roles: readonly string[]): void {
    const labels = { roles: roles.join(',') }
    this.add('process_cpu_seconds_total', usage.cpuSeconds, labels)
    this.add('process_resident_memory_bytes', usage.residentBytes, labels)
    this.add('process_open_fds', usage.openFds, labels)
    if (usage.maxFds !== null) this.add('process_max_fds', usage.maxFds, labels)
    this.add('process_start_time_seconds', usage.startedAt, labels)
  }
}
