/**
 * Compares NBD servers with one client, fio's nbd engine (Debian: fio, nbdkit), over unix sockets. Runs are
 * interleaved and medians printed, so that a drift of the machine meets all targets alike. Ratios are to the first.
 *
 * Usage: tsx bench/nbd.ts [--targets nbdkit,nbdkit-fua,reference,memory,collie,collie-write,NAME=nbd://…] [--metrics rr1,rr16,…] [--runs 3]
 *                         [--seconds 3] [--mebibytes 512] [--json] [--help]
 *
 * Metrics: rrN and rwN are 4 KiB random reads and writes per second at depth N, sr and sw 1 MiB sequential reads and
 * writes in MB/s at depth 4. A target is written to: never name a volume that holds anything.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { measure, median, unitOf } from './fio.ts'
import { startTarget, type Target } from './nbd-targets.ts'
import { readOptions } from './options.ts'

const options = readOptions(import.meta.filename, {
  targets: ['nbdkit', 'reference', 'collie'],
  metrics: ['rr1', 'rr16', 'rw1', 'rw16', 'sr', 'sw'],
  runs: 3,
  seconds: 3,
  mebibytes: 512,
})
const { metrics } = options
/** Results by metric, then by target, one number for each run. */
type Results = Record<string, Record<string, number[]>>

const directory = await mkdtemp(join(tmpdir(), 'nbd-bench-'))
const targets: Target[] = []
try {
  for (const spec of options.targets) {
    targets.push(await startTarget(spec, directory, options.mebibytes))
  }
  const results = await measureAll()
  if (options.json) console.log(JSON.stringify(summary(results), null, 2))
  else printTable(results)
} finally {
  await Promise.all(targets.map((target) => target.stop()))
  await rm(directory, { recursive: true })
}

async function measureAll(): Promise<Results> {
  const results: Results = {}
  for (let run = 0; run < options.runs; run++) {
    for (const metric of metrics) {
      results[metric] ??= {}
      for (const { name, uri } of targets) {
        results[metric][name] ??= []
        results[metric][name].push(await measure(uri, metric, options.seconds))
      }
    }
  }
  return results
}

function summary(results: Results) {
  const first = targets[0]!.name
  return metrics.map((metric) => ({
    metric,
    unit: unitOf(metric),
    targets: targets.map(({ name }) => {
      const value = median(results[metric]![name]!)
      return { name, median: value, ratio: value / median(results[metric]![first]!), runs: results[metric]![name]! }
    }),
  }))
}

function printTable(results: Results): void {
  const width = Math.max(18, ...targets.map(({ name }) => name.length + 1))
  console.log(`metric${targets.map(({ name }) => name.padStart(width)).join('')}`)
  for (const row of summary(results)) {
    const cells = row.targets.map(({ median, ratio }) => `${Math.round(median)} (${ratio.toFixed(2)})`.padStart(width))
    console.log(`${row.metric.padEnd(6)}${cells.join('')} ${row.unit}`)
  }
}
