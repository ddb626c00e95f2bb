import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { HostNetwork } from '../tools/host-network.ts'
import { ENDS_WITH_US, OWN_PREFIX, removeLeftDirectories } from '../tools/leftovers.ts'
import type { Place } from './inside.ts'
import { HELP, readOptions, type TortureOptions } from './options.ts'

const EX_USAGE = 64

/**
 * Makes a network, and a process on one of its hosts that does the rest (inside.ts): what that mounts is seen by nobody else, and goes
 * with it.
 */
async function main(): Promise<number> {
  let options: TortureOptions | null
  try {
    options = readOptions(process.argv.slice(2))
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${HELP}`)
    return EX_USAGE
  }
  if (options === null) {
    process.stdout.write(HELP)
    return 0
  }
  removeLeftDirectories(tmpdir())
  const directory = mkdtempSync(path.join(tmpdir(), OWN_PREFIX))
  const network = await HostNetwork.make(options.nodes + options.gateways + 1)
  try {
    const [client, ...hosts] = network.hosts.toReversed()
    const { switchNamespace } = network
    const place: Place = {
      directory,
      switchNamespace,
      client: client!,
      hosts: hosts.toReversed(),
      gateways: options.gateways,
    }
    return await runInside(place, options)
  } finally {
    if (options.logs) keepLogs(directory, options.logs)
    await network.remove()
    rmSync(directory, { recursive: true, force: true })
  }
}

function keepLogs(from: string, to: string): void {
  for (const host of readdirSync(from)) {
    for (const name of readdirSync(path.join(from, host)).filter((file) => file.endsWith('.log'))) {
      cpSync(path.join(from, host, name), path.join(to, host, name))
    }
  }
}

async function runInside(place: Place, options: TortureOptions): Promise<number> {
  mkdirSync(path.join(place.directory, 'client'))
  const program = path.join(import.meta.dirname, 'inside.ts')
  const words = ['--import', 'tsx', program, JSON.stringify(place), JSON.stringify(options)]
  const entering = [
    'nsenter',
    `--net=/run/netns/${place.client.namespace}`,
    'unshare',
    '-m',
    '--propagation',
    'private',
  ]
  const [command, ...rest] = [...ENDS_WITH_US, ...entering, process.execPath, ...words] as [string, ...string[]]
  const child = spawn(command, rest, { stdio: 'inherit' })
  const stop = () => child.kill('SIGKILL')
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, stop)
  const [code] = await once(child, 'exit')
  return code ?? 1
}

process.exitCode = await main()
