import { ControlError } from '../control/messages.ts'
import type { Result } from '../control/methods.ts'
import { UsageError } from '../errors.ts'
import { hostAddresses } from '../runtime/host-addresses.ts'
import { runProgram } from '../runtime/programs.ts'
import { SETTINGS, shownValue } from '../settings.ts'
import { createClusterSecret } from '../sheep/cluster/cluster-secret.ts'
import { addCorosyncNode, COROSYNC_PORT } from '../sheep/cluster/corosync-files.ts'
import { corosyncOf, decodeJoinToken, encodeJoinToken, type JoinInfo } from '../sheep/cluster/join-token.ts'
import { ClusterFiles } from './cluster-files.ts'

import { type Command, type CommandCall, CommandFailure, type CommandPorts, EXIT, type Option } from './command.ts'
import { askNode } from './node-access.ts'
import { formatBytes } from './table.ts'

/** What a store brings into the cluster that it is the first of. */
type Held = Result<'cluster_founding'>

const COROSYNC_DIR = '/etc/corosync'
const RELOAD_MS = 10_000
const TOKEN_BYTES_MAX = 1 << 20

const ADDRESS: Option = {
  flag: 'address',
  value: 'ADDRESS',
  meaning: 'How the other nodes reach this host; needed when it has several addresses.',
}
const COROSYNC_DIR_OPTION: Option = {
  flag: 'corosync-dir',
  value: 'DIR',
  meaning: `Where corosync reads its files; ${COROSYNC_DIR} by default.`,
}

/**
 * How hosts become nodes of one cluster. All that these commands do is to write files, each in one step: the key and the settings in the
 * data directory, and those of corosync. They can be given again.
 */
export function clusterSetupCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'cluster init',
      summary: 'Make this host the first node of a new cluster: a name, a key, and the files of corosync.',
      description:
        'Nodes find each other by corosync, or with `--cluster etcd://host:port/name` by that etcd. Starts nothing, and says what to do next.\n' +
        'A store that has volumes keeps them: its next start makes it the first of several. A node that runs is asked whether that can be,\n' +
        'and else nothing is written.',
      options: [
        ADDRESS,
        {
          flag: 'name',
          value: 'NAME',
          meaning: 'What the cluster is called; by default a name that no other one has.',
        },
        { flag: 'corosync-port', value: 'PORT', meaning: `UDP port of corosync; ${COROSYNC_PORT} by default.` },
        COROSYNC_DIR_OPTION,
      ],
      run: (call) => init(ports, call),
    },
    {
      name: 'cluster join-info',
      summary: 'Print the one command that makes other hosts nodes of this cluster; it has the key, and is a secret.',
      description:
        'With corosync, name the hosts that are to join: this node knows them from then on, and so does its corosync when it runs. Give the\n' +
        'same command to nodes that are in the cluster already, so that they know the new ones, too.',
      operands: [{ name: 'ADDRESS', meaning: 'How the other nodes reach a host that is to join.', repeated: true }],
      options: [COROSYNC_DIR_OPTION],
      run: (call) => joinInfo(ports, call),
    },
    {
      name: 'cluster join',
      summary: 'Make this host a node of a cluster, by the token that `collie cluster join-info` prints there.',
      operands: [{ name: 'TOKEN', meaning: 'The token, or `-` to read it from standard input.' }],
      options: [ADDRESS, COROSYNC_DIR_OPTION],
      run: (call) => join(ports, call),
    },
  ]
}

async function init(ports: CommandPorts, call: CommandCall): Promise<number> {
  const files = new ClusterFiles(call, COROSYNC_DIR)
  const existing = files.readSecret()
  if (existing) {
    const advice = '`collie cluster join-info` brings others in; another cluster needs another data directory'
    throw new CommandFailure(EXIT.CANNOT_CREATE, `this is a node of the cluster ${existing.name} already; ${advice}`)
  }
  const held = await askWhatComesAlong(ports, call, files.dataDir)
  const { name = null, 'corosync-port': port = COROSYNC_PORT } = call.options
  const cluster = files.config.cluster === 'single' ? 'corosync' : files.config.cluster
  const address = call.options.address ?? onlyAddress()
  const info = asUsage(() => {
    const corosync = cluster === 'corosync' ? { port: Number(port), nodes: [] } : null
    return withNodes({ secret: createClusterSecret(name, ports.random), cluster, corosync }, [address])
  })
  const written = files.write(info, address, files.config.roles)
  files.writeFound(info)
  const next = [
    ...(held ? [`collie node stop --data-dir ${files.dataDir}`] : []),
    ...nextSteps(files, info),
    `collie cluster join-info --data-dir ${files.dataDir}${info.corosync ? ' ADDRESS...' : ''}`,
  ]
  report(
    call,
    info,
    { address, files: written, next, held },
    [`${address} is the first node of the cluster ${info.secret.name}.`, ...(held ? describeHeld(held) : [])].join(
      '\n',
    ),
  )
  return EXIT.OK
}

/** What the store of a node that runs brings into the cluster; null while none runs, whose next start finds out, and refuses if need be. */
async function askWhatComesAlong(ports: CommandPorts, call: CommandCall, dataDir: string): Promise<Held | null> {
  const held = await askNode(ports, call, (node) => node.call('cluster_founding', {})).catch((error) => {
    if (error instanceof ControlError && error.code === 'Disconnected') return null
    throw error
  })
  if (!held || held.obstacles.length === 0) return held
  const reasons = held.obstacles.map((obstacle) => `\n  ${obstacle}`).join('')
  throw new CommandFailure(
    EXIT.CANNOT_CREATE,
    `the store in ${dataDir} cannot become the first of several nodes yet:${reasons}`,
  )
}

function describeHeld({ vdis, snapshots, bytes_to_write }: Held): string[] {
  if (vdis + snapshots === 0) return []
  return [
    `Its store comes along at the next start: ${vdis} VDIs and ${snapshots} snapshots, with one copy each; ${formatBytes(bytes_to_write)} are written for that.`,
    'More copies, once there are more nodes: collie vdi alter-copies',
  ]
}

async function joinInfo(ports: CommandPorts, call: CommandCall): Promise<number> {
  const files = new ClusterFiles(call, COROSYNC_DIR)
  const secret = files.readSecret()
  if (!secret)
    throw new CommandFailure(
      EXIT.NO_INPUT,
      `this host is no node of a cluster, ${files.keyFile} is not there; \`collie cluster init\` makes one`,
    )
  const known = files.read(secret)
  if (!known.corosync && call.operands.length > 0)
    throw new UsageError('with an etcd the token is for any host: leave the addresses out')
  const info = asUsage(() => withNodes(known, call.operands))
  const isChanged = (info.corosync?.nodes.length ?? 0) > (known.corosync?.nodes.length ?? 0)
  if (isChanged) files.writeCorosync(info)
  const isReloaded = isChanged && (await reloadCorosync(ports))
  const token = encodeJoinToken(info)
  const command = `collie cluster join ${token}`
  call.io.err(
    'This has the key of the cluster: whoever gets it can read and change everything. Send it as you send a password.',
  )
  if (info.corosync?.nodes.length === 1)
    call.io.err('It is for no host yet: name the addresses of those that are to join.')
  const nodes = info.corosync?.nodes.map(({ address }) => address) ?? []
  call.print({ name: secret.name, token, command, nodes, is_reloaded: isReloaded }, () => command)
  return EXIT.OK
}

async function join(ports: CommandPorts, call: CommandCall): Promise<number> {
  const files = new ClusterFiles(call, COROSYNC_DIR)
  const [operand] = call.operands as [string]
  const token = operand === '-' ? await readInput(call) : operand
  const info = asUsage(() => decodeJoinToken(token))
  const { name, key } = info.secret
  const existing = files.readSecret()
  if (existing && !existing.key.equals(key))
    throw new CommandFailure(
      EXIT.CANNOT_CREATE,
      `this is a node of the cluster ${existing.name} already; ${name} needs another data directory`,
    )
  const address = addressAmong(info, call.options.address)
  const written = files.write(info, address, ['store', 'gateway'])
  const isReloaded = existing !== null && info.corosync !== null && (await reloadCorosync(ports))
  const next = isReloaded ? [] : nextSteps(files, info)
  const facts = { address, files: written, next, is_reloaded: isReloaded }
  report(call, info, facts, `${address} is a node of the cluster ${name}.`)
  return EXIT.OK
}

function report(
  { print }: CommandCall,
  { secret, cluster, corosync }: JoinInfo,
  facts: {
    address: string
    files: readonly string[]
    next: readonly string[]
    is_reloaded?: boolean
    held?: Held | null
  },
  summary: string,
): void {
  const setting = SETTINGS.find((one) => one.name === 'cluster')!
  const nodes = corosync?.nodes.map((node) => node.address) ?? []
  print({ name: secret.name, cluster: shownValue(setting, cluster), nodes, ...facts }, () => {
    const lines = [summary, '', 'Written:', ...facts.files.map((file) => `  ${file}`)]
    if (facts.is_reloaded) lines.push('', 'Corosync goes on with the nodes that there are now.')
    if (facts.next.length > 0) lines.push('', 'Next, as root:', ...facts.next.map((step) => `  ${step}`))
    return lines.join('\n')
  })
}

function nextSteps({ settingsFile }: ClusterFiles, { corosync }: JoinInfo): string[] {
  return [...(corosync ? ['systemctl restart corosync'] : []), `collie serve --config ${settingsFile}`]
}

/** The cluster with more nodes; those that are in it stay what they are. */
function withNodes(info: JoinInfo, addresses: readonly string[]): JoinInfo {
  if (!info.corosync) return info
  const nodes = addresses.reduce((cluster, address) => {
    const isKnown = cluster.nodes.some((node) => node.address === address)
    return isKnown ? cluster : addCorosyncNode(cluster, address)
  }, corosyncOf(info)).nodes
  return { ...info, corosync: { ...info.corosync, nodes } }
}

function addressAmong({ corosync }: JoinInfo, given: string | undefined): string {
  if (!corosync) return given ?? onlyAddress()
  const named = corosync.nodes.map(({ address }) => address)
  const own = given === undefined ? named.filter((address) => hostAddresses().includes(address)) : [given]
  const [address] = own
  if (own.length === 1 && named.includes(address!)) return address!
  const what = given ?? 'none of the addresses of this host, or more than one,'
  throw new CommandFailure(
    EXIT.USAGE,
    `${what} is in the token, which is for ${named.join(', ')}; say --address, or get a token by \`collie cluster join-info ADDRESS\``,
  )
}

function onlyAddress(): string {
  const [address, ...others] = hostAddresses()
  if (address !== undefined && others.length === 0) return address
  const found = address === undefined ? 'none' : [address, ...others].join(', ')
  throw new UsageError(`which address do the other nodes reach this host by? Say --address; there is ${found}`)
}

/** Whether there is a corosync here that has taken its file again. */
async function reloadCorosync({ clock }: CommandPorts): Promise<boolean> {
  const tooLate = new AbortController()
  const timer = clock.timer(RELOAD_MS, () => tooLate.abort())
  try {
    const { code } = await runProgram('corosync-cfgtool', ['-R'], { signal: tooLate.signal })
    return code === 0
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw error
  } finally {
    timer.cancel()
  }
}

async function readInput({ io }: CommandCall): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of io.input()) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes > TOKEN_BYTES_MAX) throw new UsageError('standard input is no join token')
  }
  return Buffer.concat(chunks).toString()
}

function asUsage<T>(make: () => T): T {
  try {
    return make()
  } catch (error) {
    if (error instanceof TypeError) throw new UsageError(error.message)
    throw error
  }
}
