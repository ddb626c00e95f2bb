/**
 * What three nodes with three copies cost: the same jobs on one node with one copy, on the same host, in turns. Besides the ratios,
 * the processor time of all processes that have stores for each operation, and the memory of each: three nodes on few processors
 * measure these as much as the design.
 *
 * Usage: npm run build && tsx bench/cluster.ts [--runs 3] [--seconds 8] [--mebibytes 512] [--nodes 3] [--metrics rw1,rw16,rr16,sw]
 *                                              [--durability flush,write] [--json] [--help]
 *
 * Metrics as in nbd.ts. With `write` durability only random writes are measured. All clients come to the first node.
 */
import { readFileSync } from 'node:fs'
import { type CollieUnderTest, fill, startCluster, startCollie } from './collie-target.ts'
import { measure, median, unitOf } from './fio.ts'
import { readOptions } from './options.ts'

const options = readOptions(import.meta.filename, {
  runs: 3,
  seconds: 8,
  mebibytes: 512,
  nodes: 3,
  metrics: ['rw1', 'rw16', 'rr16', 'sw'],
  durability: ['flush', 'write'],
})

const MIB = 1024 * 1024
/** Of `utime` and `stime` in /proc: USER_HZ. */
const TICKS_PER_SECOND = 100
const NAMES = ['one', 'cluster'] as const
/** Of the ratios: DESIGN's figures. A sequential write goes to all copies, so a third of what one node does is 1. */
const ASKED: Record<string, number> = { 'flush rw1': 0.4, 'flush rw16': 0.35, 'write rw16': 0.5, 'flush rr16': 0.8 }
ASKED['flush sw'] = 0.8 / options.nodes

interface Measured {
  rate: number
  /** Of all processes with stores: processor microseconds for each operation, or for each MB. */
  cpuUs: number
}

interface Row {
  metric: string
  unit: string
  asked: number | null
  one: Measured
  cluster: Measured
  ratio: number
}

const rows: Row[] = []
const memory: Record<string, number[]> = {}
for (const durability of options.durability) rows.push(...(await compare(durability)))
if (options.json) console.log(JSON.stringify({ rows, residentMib: memory }, null, 2))
else print()

async function compare(durability: string): Promise<Row[]> {
  const metrics = options.metrics.filter((metric) => durability === 'flush' || metric.startsWith('rw'))
  const flag = `--durability=${durability}`
  const started: CollieUnderTest[] = []
  try {
    started.push(await startCollie(flag))
    started.push(await startCluster(options.nodes, flag))
    const uris = await Promise.all(started.map((each) => each.exportVdi('bench', options.mebibytes * MIB)))
    for (const uri of uris) await fill(uri)
    const results = new Map(metrics.map((metric) => [metric, started.map((): Measured[] => [])]))
    for (let run = 0; run < options.runs; run++)
      for (const [metric, of] of results)
        for (const [at, each] of started.entries()) of[at]!.push(await measured(each, uris[at]!, metric))
    for (const [at, { pids }] of started.entries()) memory[`${NAMES[at]} ${durability}`] = pids.map(residentMib)
    return [...results].map(([metric, of]) => rowOf(`${durability} ${metric}`, metric, of))
  } finally {
    for (const each of started) await each.stop()
  }
}

async function measured({ pids }: CollieUnderTest, uri: string, metric: string): Promise<Measured> {
  const { seconds } = options
  const before = cpuSeconds(pids)
  const rate = await measure(uri, metric, seconds)
  return { rate, cpuUs: ((cpuSeconds(pids) - before) * 1e6) / (rate * seconds) }
}

function rowOf(name: string, metric: string, results: Measured[][]): Row {
  const [one, cluster] = results.map((runs) => ({
    rate: median(runs.map(({ rate }) => rate)),
    cpuUs: median(runs.map(({ cpuUs }) => cpuUs)),
  }))
  const [of, by] = [cluster!, one!]
  return {
    metric: name,
    unit: unitOf(metric),
    asked: ASKED[name] ?? null,
    one: by,
    cluster: of,
    ratio: of.rate / by.rate,
  }
}

function cpuSeconds(pids: readonly number[]): number {
  const ticks = pids.map((pid) => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ') // from the third one on
    return Number(fields[11]) + Number(fields[12])
  })
  return ticks.reduce((sum, each) => sum + each, 0) / TICKS_PER_SECOND
}

function residentMib(pid: number): number {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!
  return Math.round(Number(kib) / 1024)
}

function print(): void {
  const cells = (values: readonly string[]) => values.map((value) => value.padStart(12)).join('')
  console.log(
    'metric'.padEnd(12) + cells(['1 node', 'CPU us/op', `${options.nodes} nodes`, 'CPU us/op', 'ratio', 'asked']),
  )
  for (const { metric, unit, asked, one, cluster, ratio } of rows) {
    const of = ({ rate, cpuUs }: Measured) => [String(Math.round(rate)), cpuUs.toFixed(0)]
    console.log(
      `${metric.padEnd(12) + cells([...of(one), ...of(cluster), ratio.toFixed(2), asked?.toFixed(2) ?? ''])} ${unit}`,
    )
  }
  for (const [name, each] of Object.entries(memory)) console.log(`resident MiB, ${name}: ${each.join(', ')}`)
}
