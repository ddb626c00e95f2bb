import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

/** One side of fio's report of a job. */
export interface FioSide {
  iops: number
  bw_bytes: number
  /** Nanoseconds by percentile, such as `99.000000`. */
  clat_ns: { percentile: Record<string, number> }
}

/** Runs one job with fio's nbd engine on an export; rejects when any request fails. `--rw`, `--bs` and so on are up to the caller. */
export async function fio(uri: string, ...options: string[]): Promise<Record<'read' | 'write', FioSide>> {
  const engine = ['--name=bench', '--ioengine=nbd', `--uri=${uri}`, '--output-format=json']
  const { stdout } = await promisify(execFile)('fio', [...engine, ...options])
  const report = stdout.slice(stdout.indexOf('{')) // the engine says hello first
  const { jobs } = JSON.parse(report) as { jobs: Record<'read' | 'write', FioSide>[] }
  return jobs[0]!
}

/**
 * One job: `rrN` and `rwN` are 4 KiB random reads and writes per second at depth N, `sr` and `sw` 1 MiB sequential reads and writes at
 * depth 4.
 */
export async function measure(uri: string, metric: string, seconds: number): Promise<number> {
  const bounds = [`--runtime=${seconds}`, '--time_based', '--randrepeat=0', '--norandommap']
  const job = await fio(uri, ...jobOptions(metric), ...bounds)
  const side = job[metric === 'sr' || metric.startsWith('rr') ? 'read' : 'write']
  return metric.startsWith('s') ? side.bw_bytes / 1e6 : side.iops
}

export const unitOf = (metric: string): string => (metric.startsWith('s') ? 'MB/s' : 'IOPS')

function jobOptions(metric: string): string[] {
  const random = /^r(?<side>[rw])(?<depth>\d+)$/.exec(metric)?.groups
  if (random) return [`--rw=rand${random.side === 'r' ? 'read' : 'write'}`, '--bs=4k', `--iodepth=${random.depth}`]
  if (metric === 'sr') return ['--rw=read', '--bs=1m', '--iodepth=4']
  if (metric === 'sw') return ['--rw=write', '--bs=1m', '--iodepth=4']
  throw new Error(`unknown metric "${metric}"`)
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = (sorted.length - 1) / 2
  return (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2
}
