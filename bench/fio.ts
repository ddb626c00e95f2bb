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

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = (sorted.length - 1) / 2
  return (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2
}
