import path from 'node:path'
import { type Command, type CommandCall, CommandFailure, type CommandPorts, EXIT } from './cli/command.ts'
import { table } from './cli/table.ts'
import { type Config, loadConfig } from './config.ts'
import { UsageError } from './errors.ts'
import { fileExists, makeDirectory, readTextFile, writeTextFile } from './runtime/files.ts'
import { runProgram } from './runtime/programs.ts'
import { FOUND_FILE } from './sheep/cluster/cluster-secret.ts'
import { Hub } from './sheep/cluster/hub-group.ts'

const NODES_MAX = 9
const COPIES = 3
/** What this command says itself of each node. */
const OWN_SETTINGS = ['data-dir', 'cluster', 'zone', 'roles', 'listen', 'sheep-listen', 'nbd-listen', 'copies']

interface DevNode {
  name: string
  dataDir: string
  logFile: string
  /** Of `collie serve`. */
  flags: readonly string[]
}

/**
 * Several nodes on this host, for trying out: processes of `collie serve` that find each other by a hub (hub-group.ts), which ends with
 * this command.
 */
export function devCluster({ network, random }: CommandPorts): Command {
  return {
    name: 'dev-cluster',
    summary:
      'Run a cluster of several nodes on this host, for trying out, until a signal or `collie cluster shutdown`.',
    description:
      'Each node is a process with a directory of its own in the data directory, and ports that count up from those of the settings. What\n' +
      'volumes hold is there again at the next start. The first node has the API. Kill what you like. What each of them logs is added to a\n' +
      'file beside its directory.',
    operands: [{ name: 'N', meaning: `How many nodes, ${NODES_MAX} at most; all that there were before.` }],
    usesSettings: true,
    run: async (call) => {
      const { config } = loadConfig({ argv: call.argv, env: call.io.env, readFile: call.io.readFile })
      const nodes = nodesOf(call, config)
      makeDirectory(config.data_dir)
      const address = path.resolve(config.data_dir, 'hub.sock')
      const hub = new Hub(random)
      const listener = await hub.listen(network, address).catch((cause) => {
        throw new CommandFailure(EXIT.CANNOT_CREATE, `${address}: ${(cause as Error).message}`, { cause })
      })
      try {
        return await call.io.interruptible((interrupted) => runAll(call, nodes, interrupted))
      } finally {
        hub.close()
        await listener.close()
      }
    },
  }
}

function nodesOf({ operands, argv }: CommandCall, config: Config): DevNode[] {
  const count = Number(operands[0])
  if (!Number.isInteger(count) || count < 1 || count > NODES_MAX)
    throw new UsageError(`N: ${operands[0]} is not a number of nodes from 1 to ${NODES_MAX}`)
  const directory = path.resolve(config.data_dir)
  const passedOn = argv.filter(
    (flag) => !OWN_SETTINGS.some((own) => flag === `--${own}` || flag.startsWith(`--${own}=`)),
  )
  return Array.from({ length: count }, (_, i) => {
    const dataDir = path.join(directory, `node${i + 1}`)
    const flags = [
      ...passedOn,
      `--data-dir=${dataDir}`,
      `--cluster=hub:${path.join(directory, 'hub.sock')}`,
      `--zone=${i + 1}`,
      `--copies=${Math.min(COPIES, count)}`,
      `--roles=${i === 0 ? 'api,' : ''}store,gateway`,
      `--listen=${config.listen}`,
      `--sheep-listen=${counted(config.sheep_listen, i)}`,
      `--nbd-listen=${counted(config.nbd_listen, i)}`,
    ]
    return { name: `node${i + 1}`, dataDir, logFile: `${dataDir}.log`, flags }
  })
}

/** The port after as many others. */
function counted(address: string, by: number): string {
  const [, host, port] = /^(.*):(\d+)$/.exec(address) ?? []
  if (host === undefined || port === '0')
    throw new UsageError(`${address}: nodes need a host and ports that can be counted up`)
  return `${host}:${Number(port) + by}`
}

async function runAll(call: CommandCall, nodes: readonly DevNode[], interrupted: AbortSignal): Promise<number> {
  const [first] = nodes
  makeDirectory(first!.dataDir)
  if (!fileExists(path.join(first!.dataDir, 'sheep')))
    writeTextFile(path.join(first!.dataDir, FOUND_FILE), 'dev\n', 0o600)
  const starting = nodes.map((node) => start(call, node, interrupted))
  const ended = Promise.all(starting.map(({ end }) => end))
  const ready = await Promise.race([Promise.all(starting.map(({ addresses }) => addresses)), ended.then(() => null)])
  if (ready) {
    const shown = nodes.map(({ name, dataDir, logFile }, i) => {
      return { name, data_dir: dataDir, log: logFile, addresses: ready[i]! }
    })
    call.print({ nodes: shown }, () => describe(shown))
  }
  const codes = await ended
  return codes.every((code) => code === 0) ? EXIT.OK : EXIT.INTERNAL
}

type Addresses = Record<string, string>

function start(call: CommandCall, { name, logFile, flags }: DevNode, interrupted: AbortSignal) {
  const args = [...process.execArgv, process.argv[1]!, 'serve', '--json', ...flags]
  let end: Promise<number | null> = Promise.resolve(null)
  const addresses = new Promise<Addresses>((resolve) => {
    let printed = ''
    const onOutput = (text: string) => {
      printed += text
      if (printed.endsWith('\n}\n')) resolve((JSON.parse(printed) as { addresses: Addresses }).addresses)
    }
    const ran = runProgram(process.execPath, args, {
      signal: interrupted,
      onOutput,
      errFile: logFile,
      ownGroup: true,
    })
    end = ran.then(({ code }) => {
      if (!interrupted.aborted && code !== 0)
        call.io.err(`${name} ${whyEnded(code, logFile)}; again: ${commandOf(flags)}`)
      return interrupted.aborted ? 0 : code
    })
  })
  return { addresses, end }
}

function whyEnded(code: number | null, logFile: string): string {
  return code === null ? `was killed (log: ${logFile})` : `ended with ${code}: ${lastLine(logFile)} (log: ${logFile})`
}

const lastLine = (file: string) => readTextFile(file)?.trimEnd().split('\n').at(-1) ?? ''

const commandOf = (flags: readonly string[]) => `collie serve ${flags.join(' ')}`

function describe(nodes: readonly { name: string; data_dir: string; log: string; addresses: Addresses }[]): string {
  const rows = nodes.map(({ name, data_dir, addresses }) => [
    name,
    data_dir,
    addresses.api ?? '',
    addresses.nbd ?? '',
    addresses.sheep ?? '',
  ])
  return [
    table([['NODE', 'DATA', 'API', 'NBD', 'SHEEP'], ...rows]),
    '',
    `Credentials: source ${path.join(nodes[0]!.data_dir, 'openrc')}`,
    `Logs: ${nodes.map(({ log }) => log).join(' ')}`,
    `How it is: collie cluster status --data-dir ${nodes[0]!.data_dir}`,
  ].join('\n')
}
