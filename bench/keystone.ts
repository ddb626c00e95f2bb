/**
 * Measures what it costs that tokens are Keystone's: two Collies side by side, one with accounts of its own, the other with Debian's
 * Keystone, which the run starts. The measure is the former.
 *
 * Usage: npm run build && tsx bench/keystone.ts [--quick] [--json] [--help]
 *
 * Rounds of the two alternate, and medians are printed.
 */
import { Collie } from '../test/tools/collie.ts'
import { Keystone } from '../test/tools/keystone.ts'
import { VolumeApi } from './api-targets.ts'
import { percentile, run } from './load.ts'
import { readOptions } from './options.ts'

const options = readOptions(import.meta.filename, { quick: false })

const ROUNDS = options.quick ? 3 : 7
const BOUNDS = { countMax: Number.POSITIVE_INFINITY, durationMaxMs: options.quick ? 500 : 3000 }
const CONCURRENCIES = [1, 8] as const

interface Result {
  metric: string
  keystone: number
  local: number
}

const keystone = await Keystone.start()
const local = await Collie.create()
const remote = await Collie.create(
  '--auth=keystone',
  `--keystone-url=${keystone.url}`,
  `--keystone-password=${keystone.password}`,
)
const results: Result[] = []
try {
  await measure()
} finally {
  await Promise.all([local.dispose(), remote.dispose()])
  await keystone.stop()
}
if (options.json) console.log(JSON.stringify({ quick: options.quick, node: process.version, results }, null, 2))
else {
  console.log(`${'per second'.padEnd(32)}   keystone      local  ratio`)
  for (const { metric, keystone, local } of results) {
    const cells = [
      keystone.toFixed(0).padStart(11),
      local.toFixed(0).padStart(11),
      (keystone / local).toFixed(2).padStart(7),
    ]
    console.log(`${metric.padEnd(32)}${cells.join('')}`)
  }
}

async function measure(): Promise<void> {
  const service = await keystone.createProject('service')
  await keystone.createUser('cinder', service, ['service'])
  const demo = await keystone.createProject('demo')
  await keystone.createUser('demo', demo, ['member', 'reader'])
  await Promise.all([local.start(), remote.start()])
  const apis = {
    keystone: VolumeApi.withToken(remote, await keystone.logIn('demo', 'demo')),
    local: await VolumeApi.login(local),
  }
  for (const concurrency of CONCURRENCIES) {
    const volumes = {
      keystone: await someVolumes(apis.keystone, concurrency),
      local: await someVolumes(apis.local, concurrency),
    }
    const at = `${concurrency} at a time`
    await compare(`show, ${at}`, concurrency, (who, worker) => apis[who].show(volumes[who][worker]!))
    await compare(`attachment cycle, ${at}`, concurrency, (who, worker) =>
      apis[who].attachAndDetach(volumes[who][worker]!),
    )
    await compare(`create and delete, ${at}`, concurrency, async (who) =>
      apis[who].delete(await apis[who].createAvailable()),
    )
  }
  for (const api of Object.values(apis)) api.close()
}

function someVolumes(api: VolumeApi, count: number): Promise<string[]> {
  return Promise.all(Array.from({ length: count }, () => api.createAvailable()))
}

type Who = 'keystone' | 'local'

/** The first round warms up and does not count. */
async function compare(
  metric: string,
  concurrency: number,
  once: (who: Who, worker: number) => Promise<unknown>,
): Promise<void> {
  const rates = { keystone: [] as number[], local: [] as number[] }
  for (let round = 0; round <= ROUNDS; round++) {
    for (const who of ['local', 'keystone'] as const) {
      const { perSecond } = await run(concurrency, BOUNDS, (worker) => once(who, worker))
      if (round > 0) rates[who].push(perSecond)
    }
  }
  results.push({ metric, keystone: percentile(rates.keystone, 0.5), local: percentile(rates.local, 0.5) })
}
