/**
 * Measures the block storage API of Collie, and beside it, in the same run, a bare Fastify server that gives the same
 * answers (api-reference.mjs): what Node, HTTP and a synced write cost anyway. So results are ratios, which mean the same
 * on a fast machine and on a slow one. It starts both by itself, on temporary directories and free ports.
 *
 * Usage: npm run build && tsx bench/api.ts [--quick] [--json] [--help]
 *
 * Rounds of the two alternate, and medians are printed, so that a drift of the machine meets both alike. The client
 * runs on the same host and takes its share of it. `COLLIE_MAIN` names another build to measure.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Collie } from '../test/tools/collie.ts'
import { ATTACHMENT_REQUESTS, residentMib, startReference, VolumeApi } from './api-targets.ts'
import { type Load, percentile, run } from './load.ts'
import { readOptions } from './options.ts'

const options = readOptions(import.meta.filename, { quick: false })

const ROUNDS = options.quick ? 3 : 5
const ROUND_MS = options.quick ? 500 : 3000
const VOLUMES = 1000
const FILL_MAX_MS = 60_000
const CONCURRENCIES = [1, 8] as const
/** Memory at rest is read this long after the last request. */
const REST_MS = 1000

interface Result {
  metric: string
  unit: string
  collie: number
  reference: number
}

const results: Result[] = []
const report = (metric: string, unit: string, collie: number, reference: number) =>
  results.push({ metric, unit, collie, reference })

const directory = mkdtempSync(join(tmpdir(), 'api-bench-'))
const collie = await Collie.create()
try {
  await measure()
} finally {
  await collie.dispose()
  rmSync(directory, { recursive: true })
}
if (options.json) console.log(JSON.stringify({ quick: options.quick, node: process.version, results }, null, 2))
else printTable()

async function measure(): Promise<void> {
  const startedMs = performance.now()
  await collie.start()
  const readyMs = performance.now() - startedMs
  const api = await VolumeApi.login(collie)
  const id = await api.createAvailable()
  const firstVolumeMs = performance.now() - startedMs
  await sleep(REST_MS)
  const restingMib = residentMib(collie.info.pid)

  const others = await Promise.all(CONCURRENCIES.map(() => api.createAvailable()))
  const filled = await run(8, { countMax: VOLUMES - 1 - others.length, durationMaxMs: FILL_MAX_MS }, () =>
    api.createAvailable(),
  )
  const list = await api.list()
  const reference = await startReference(directory, await api.show(id), list)
  await sleep(REST_MS)
  report('start: process to ready', 'ms', readyMs, reference.startMs)
  report('start: process to first volume available', 'ms', firstVolumeMs, reference.startMs)
  report('resident memory at rest', 'MiB', restingMib, residentMib(reference.pid))

  const { client } = reference
  for (const concurrency of CONCURRENCIES) {
    const at = `, ${concurrency} at a time`
    const show = await compare(
      concurrency,
      () => api.show(id),
      () => client.send('GET', '/show'),
    )
    report(`show${at}`, '/s', rate(show.collie), rate(show.reference))

    const volumes = await Promise.all(Array.from({ length: concurrency }, () => api.createAvailable()))
    const attach = await compare(
      concurrency,
      (worker) => api.attachAndDetach(volumes[worker]!),
      async () => {
        for (let request = 0; request < ATTACHMENT_REQUESTS; request++) await client.send('POST', '/durable', {})
      },
    )
    report(`attachment cycle${at}`, '/s', rate(attach.collie), rate(attach.reference))

    const deletions: Promise<void>[] = []
    const create = await compare(
      concurrency,
      // Deleted again behind the measurement: thousands of volumes promise more than the disk may.
      () => api.createAvailable().then((id) => void deletions.push(api.delete(id))),
      async () => {
        await client.send('POST', '/durable', {})
        await client.send('GET', '/show')
      },
    )
    await Promise.all(deletions)
    for (const fraction of [0.5, 0.99]) {
      const name = `create to available, p${fraction * 100}${at}`
      report(name, 'ms', latency(create.collie, fraction), latency(create.reference, fraction))
    }
  }
  const lists = await compare(
    1,
    () => api.list(),
    () => client.send('GET', '/list'),
  )
  const listed = JSON.parse(list).volumes.length
  report(`list of ${listed} with details, p50`, 'ms', latency(lists.collie, 0.5), latency(lists.reference, 0.5))
  await sleep(REST_MS)
  report('resident memory after the load', 'MiB', residentMib(collie.info.pid), residentMib(reference.pid))
  if (!options.json) console.log(`filled with ${Math.round(filled.perSecond)} volumes/s, 8 at a time\n`)
  await reference.stop()
  api.close()
}

type Once = (worker: number) => Promise<unknown>

/** Rounds of the two in turn; the first one warms up and does not count. */
async function compare(concurrency: number, measured: Once, reference: Once) {
  const bounds = { countMax: Number.POSITIVE_INFINITY, durationMaxMs: ROUND_MS }
  const rounds: { collie: Load[]; reference: Load[] } = { collie: [], reference: [] }
  for (let round = 0; round <= ROUNDS; round++) {
    const ours = await run(concurrency, bounds, measured)
    const theirs = await run(concurrency, bounds, reference)
    if (round === 0) continue
    rounds.collie.push(ours)
    rounds.reference.push(theirs)
  }
  return rounds
}

function rate(rounds: readonly Load[]): number {
  return percentile(
    rounds.map(({ perSecond }) => perSecond),
    0.5,
  )
}

function latency(rounds: readonly Load[], fraction: number): number {
  return percentile(
    rounds.flatMap(({ latenciesMs }) => latenciesMs),
    fraction,
  )
}

function printTable(): void {
  const width = Math.max(...results.map(({ metric }) => metric.length))
  console.log(`${''.padEnd(width)}     collie  reference  ratio`)
  for (const { metric, unit, collie: ours, reference } of results) {
    const cells = [format(ours).padStart(11), format(reference).padStart(11), (ours / reference).toFixed(2).padStart(7)]
    console.log(`${metric.padEnd(width)}${cells.join('')} ${unit}`)
  }
}

/** Three digits that count, as far as a reader needs them. */
function format(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3)
}
