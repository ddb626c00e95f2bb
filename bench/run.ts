/**
 * `npm run bench`: all benchmarks, quick by default; what they measure and against what stands at their tops.
 *
 * Usage: npm run build && tsx bench/run.ts [--full] [--json] [--help]
 *
 * Quick takes about three minutes, full about 25. Needs fio and nbdkit (Debian packages of the same
 * names) for the data path. With `--json` prints one object: `{ api, nbd, store, isolation }`.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { readOptions } from './options.ts'

const options = readOptions(import.meta.filename, { full: false })

const json = options.json ? ['--json'] : []
const api = await bench('api.ts', ...(options.full ? [] : ['--quick']), ...json)
say('')
const extent = options.full ? ['--runs', '5', '--seconds', '5'] : ['--runs', '1', '--seconds', '1']
const nbd = await bench('nbd.ts', '--targets', 'nbdkit,reference,memory,collie', ...extent, ...json)
say('')
const quickStore = ['--runs', '1', '--seconds', '1', '--objects', '2048', '--rounds', '15']
const store = await bench('store.ts', ...(options.full ? ['--runs', '5', '--seconds', '5'] : quickStore), ...json)
say('')
const isolation = await bench('isolation.ts', ...(options.full ? [] : ['--runs', '2', '--seconds', '2']), ...json)
if (options.json) {
  const parsed = {
    api: JSON.parse(api),
    nbd: JSON.parse(nbd),
    store: JSON.parse(store),
    isolation: JSON.parse(isolation),
  }
  console.log(JSON.stringify(parsed, null, 2))
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
