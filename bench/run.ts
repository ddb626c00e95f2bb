/**
 * `npm run bench`: both benchmarks, quick by default; what they measure and against what stands at their tops.
 *
 * Usage: npm run build && tsx bench/run.ts [--full] [--json]
 *
 * Quick takes about two minutes, full about a quarter of an hour. Needs fio and nbdkit (Debian packages of the same
 * names) for the data path. With `--json` prints one object: `{ api, nbd }`.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { parseArgs } from 'node:util'
import { CinderApi } from '../test/tools/cinder-api.ts'
import { Collie } from '../test/tools/collie.ts'

const { values: options } = parseArgs({
  options: { full: { type: 'boolean', default: false }, json: { type: 'boolean', default: false } },
})

const json = options.json ? ['--json'] : []
const api = await bench('api.ts', ...(options.full ? [] : ['--quick']), ...json)
say('')
const nbd = await withVolume((uri) => {
  const extent = options.full ? ['--runs', '5', '--seconds', '5'] : ['--runs', '1', '--seconds', '1']
  return bench('nbd.ts', '--targets', `nbdkit,reference,memory,collie=${uri}`, ...extent, ...json)
})
if (options.json) console.log(JSON.stringify({ api: JSON.parse(api), nbd: JSON.parse(nbd) }, null, 2))

/** Runs `use` with the URI of a volume that has been written once, so that reads find blocks and not holes. */
async function withVolume<T>(use: (uri: string) => Promise<T>): Promise<T> {
  const collie = await Collie.create()
  try {
    await collie.start()
    const cinder = new CinderApi(path.join(collie.dataDir, 'openrc'))
    const id = await cinder.createVolume()
    await cinder.until('volume', id, 'available')
    const { name } = await cinder.attach(id)
    const uri = `nbd+unix:///${name}?socket=${collie.info.addresses.nbd_socket}`
    await capture('fio', ['--name=fill', '--ioengine=nbd', `--uri=${uri}`, '--rw=write', '--bs=1m', '--iodepth=4'])
    return await use(uri)
  } finally {
    await collie.dispose()
  }
}

/** Runs a benchmark beside this file; with `--json` resolves with what it printed, else it prints by itself. */
async function bench(script: string, ...args: string[]): Promise<string> {
  const file = path.join(import.meta.dirname, script)
  say(`${script} ${args.join(' ')}\n`)
  const output = await capture(process.execPath, ['--import', import.meta.resolve('tsx'), file, ...args])
  say(output.trimEnd())
  return output
}

async function capture(command: string, args: readonly string[]): Promise<string> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, 'close')])
  if (code !== 0) throw new Error(`${command} ended with ${code}`)
  return output
}

function say(line: string): void {
  if (!options.json) console.log(line)
}
