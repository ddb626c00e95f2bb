/**
 * What a disk feels of a busy API: the latency of 4 KiB requests over NBD, at a steady rate, while nobody asks the API and
 * while clients create, show, list and delete volumes as fast as they can. Both are of one process on two threads.
 *
 * Usage: npm run build && tsx bench/isolation.ts [--runs 5] [--seconds 4] [--rate 400] [--concurrency 8]
 *                                          [--load write,show,list] [--json] [--help] [-- --api-share=1]
 *
 * `--rate 0` asks for one request after the other, as fast as they are answered. What follows `--` are settings of Collie.
 * Clients and API take processors from the disk on a small machine, however well the two are kept apart. What that costs
 * anyway is the third column: the same clients ask a bare Fastify server in a process of its own (api-reference.mjs) for
 * as much. Rounds of the three alternate, and medians of the rounds are printed.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Collie } from '../test/tools/collie.ts'
import { startReference, VolumeApi } from './api-targets.ts'
import { fill } from './collie-target.ts'
import { fio, median } from './fio.ts'
import { type Load, run } from './load.ts'
import { readOptionsAndWords } from './options.ts'

const { options, words } = readOptionsAndWords(import.meta.filename, {
  runs: 5,
  seconds: 4,
  rate: 400,
  concurrency: 8,
  load: ['write', 'show', 'list'],
})

/** What the clients do in turn: create and delete a volume, show one, list all. */
const wanted = new Set<string>(options.load)
/** Volumes that lists show. */
const VOLUMES = 100
/** The load begins before the disk is measured and goes on behind it. */
const LEAD_MS = 300
const CONDITIONS = ['idle', 'loaded', 'bare'] as const
type Condition = (typeof CONDITIONS)[number]

const METRICS = ['read p50', 'read p99', 'write p50', 'write p99'] as const
type Latencies = Record<(typeof METRICS)[number], number>

const directory = mkdtempSync(path.join(tmpdir(), 'isolation-bench-'))
const collie = await Collie.create(...words)
try {
  await collie.start()
  await measure()
} finally {
  await collie.dispose()
  rmSync(directory, { recursive: true })
}

async function measure(): Promise<void> {
  const api = await VolumeApi.login(collie)
  const ids: string[] = []
  for (let count = 0; count < VOLUMES; count++) ids.push(await api.createAvailable())
  const uri = await api.attach(ids[0]!)
  await fill(uri)
  const reference = await startReference(directory, await api.show(ids[1]!), await api.list())
  const { client } = reference

  const loads: Record<Condition, ((worker: number) => Promise<unknown>) | null> = {
    idle: null,
    loaded: async (worker) => {
      if (wanted.has('write')) await api.delete(await api.createAvailable())
      if (wanted.has('show')) await api.show(ids[worker + 1]!)
      if (wanted.has('list')) await api.list()
    },
    // As much as that takes of requests and synced writes.
    bare: async () => {
      for (let write = 0; wanted.has('write') && write < 2; write++) {
        await client.send('POST', '/durable', {})
        await client.send('GET', '/show')
      }
      if (wanted.has('show')) await client.send('GET', '/show')
      if (wanted.has('list')) await client.send('GET', '/list')
    },
  }
  const results: Record<Condition, Latencies[]> = { idle: [], loaded: [], bare: [] }
  const rates: Record<Condition, number[]> = { idle: [], loaded: [], bare: [] }
  for (let round = 0; round <= options.runs; round++) {
    for (const condition of CONDITIONS) {
      const { latencies, perSecond } = await underLoad(loads[condition], () => disk(uri))
      if (round === 0) continue // warms up
      results[condition].push(latencies)
      rates[condition].push(perSecond)
    }
  }
  await reference.stop()
  api.close()
  report(results, rates)
}

async function underLoad(
  load: ((worker: number) => Promise<unknown>) | null,
  measured: () => Promise<Latencies>,
): Promise<{ latencies: Latencies; perSecond: number }> {
  if (load === null) return { latencies: await measured(), perSecond: 0 }
  let isOver = false
  const bounds = { countMax: Number.POSITIVE_INFINITY, durationMaxMs: Number.POSITIVE_INFINITY }
  const loading: Promise<Load> = run(options.concurrency, bounds, load, () => isOver)
  await new Promise((resolve) => setTimeout(resolve, LEAD_MS))
  const latencies = await measured().finally(() => {
    isOver = true
  })
  return { latencies, perSecond: (await loading).perSecond }
}

/** One round of reads and writes; microseconds. */
async function disk(uri: string): Promise<Latencies> {
  const rate = Math.round(options.rate / 2)
  const steady = ['--iodepth=4', `--rate_iops=${rate},${rate}`, '--rate_process=poisson']
  const job = await fio(
    uri,
    '--rw=randrw',
    '--bs=4k',
    ...(rate > 0 ? steady : ['--iodepth=1']),
    `--runtime=${options.seconds}`,
    '--time_based',
    '--randrepeat=0',
    '--norandommap',
  )
  const at = (side: 'read' | 'write', percentile: string) => job[side].clat_ns.percentile[percentile]! / 1000
  return {
    'read p50': at('read', '50.000000'),
    'read p99': at('read', '99.000000'),
    'write p50': at('write', '50.000000'),
    'write p99': at('write', '99.000000'),
  }
}

function report(results: Record<Condition, Latencies[]>, rates: Record<Condition, number[]>): void {
  const rows = METRICS.map((metric) => {
    const of = (condition: Condition) => median(results[condition].map((latencies) => latencies[metric]))
    const [idle, loaded, bare] = [of('idle'), of('loaded'), of('bare')]
    return { metric, unit: 'us', idle, loaded, bare, ratio: loaded / idle, bareRatio: bare / idle }
  })
  const cycles = { loaded: median(rates.loaded), bare: median(rates.bare) }
  if (options.json) {
    console.log(JSON.stringify({ node: process.version, cyclesPerSecond: cycles, results: rows }, null, 2))
    return
  }
  const requests =
    options.rate > 0 ? `${options.rate} requests of 4 KiB per second` : 'one request of 4 KiB after the other'
  console.log(`${requests} over NBD, ${options.concurrency} clients of the API`)
  console.log(
    `cycles of the clients per second: ${cycles.loaded.toFixed(0)}, of the bare server ${cycles.bare.toFixed(0)}\n`,
  )
  console.log('latency, us      idle   loaded  ratio   bare server  ratio')
  for (const { metric, idle, loaded, bare, ratio, bareRatio } of rows) {
    const cells = [idle, loaded].map((value) => value.toFixed(0).padStart(9)).join('')
    console.log(
      `${metric.padEnd(12)}${cells}${ratio.toFixed(2).padStart(7)}${bare.toFixed(0).padStart(14)}${bareRatio.toFixed(2).padStart(7)}`,
    )
  }
}
