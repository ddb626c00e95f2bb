import type { Random } from '../../runtime/random.ts'

/**
 * What corosync reads: `corosync.conf` and the key. Every node of a cluster has the same of both, so one record makes them all.
 */
export interface CorosyncCluster {
  /** Apart from other clusters on the same network. */
  readonly name: string
  /** 256 bytes of random: all traffic between the nodes is encrypted and authenticated with it. */
  readonly key: Buffer
  readonly port: number
  readonly nodes: readonly CorosyncNode[]
}

export interface CorosyncNode {
  /** From 1. */
  readonly id: number
  /** An IP address, or a name that resolves to the same one everywhere. */
  readonly address: string
}

export interface CorosyncPlace {
  /** Which of the nodes it is; null when that is not known. */
  readonly nodeId: number | null
  /** Where the key lies on this node. */
  readonly keyFile: string
  /** To where corosync writes its log; null for the system's log. */
  readonly logFile: string | null
  /** Containers often may not give themselves real-time priority or leave their group; corosync then refuses to start. */
  readonly isContained: boolean
}

export const COROSYNC_PORT = 5405
const KEY_BYTES = 256
const NAME = /^[a-z0-9][a-z0-9._-]{0,31}$/i
const ADDRESS = /^[a-z0-9][a-z0-9.:-]{0,252}$/i
const MADE_BY_COLLIE = '# Made by collie. The same on all nodes but for the paths'

/**
 * A node that is silent for so long is suspected, by whomever the token of the ring was to come back to; after 1.2 times as
 * long again the others have agreed to go on without it. Together 2.2 s, and 3.3 s when a silent node is heard again in between
 * and the others have to begin anew. Less would make nodes that are only busy look dead.
 */
const TOKEN_MS = 1000

/**
 * After how long those who look for a ring give up whom they have not heard; another time on each node. Two that do not reach each other
 * would otherwise give each other up at the same moment, and the rest would have to do without both and take both back, over and over:
 * it worked for 3 % of the time then. Whoever gives up first tells the rest, and these go on with it: half of the time, or more.
 */
const CONSENSUS_MS = 1200
const CONSENSUS_STEP_MS = 10
const CONSENSUS_STEPS = 64

/** A new cluster with a key of its own. Throws a TypeError when there is something wrong with a name or an address. */
export function createCorosyncCluster(
  { name, port = COROSYNC_PORT, addresses }: { name: string; port?: number; addresses: readonly string[] },
  random: Random,
): CorosyncCluster {
  const nodes = addresses.map((address, index) => ({ id: index + 1, address }))
  return checkedCluster({ name, key: random.bytes(KEY_BYTES), port, nodes })
}

/** The cluster with one node more. An id is never given again while a higher one is there. */
export function addCorosyncNode(cluster: CorosyncCluster, address: string): CorosyncCluster {
  const id = Math.max(0, ...cluster.nodes.map((node) => node.id)) + 1
  return checkedCluster({ ...cluster, nodes: [...cluster.nodes, { id, address }] })
}

/** The text of `corosync.conf`, for corosync 3. */
export function corosyncConf({ name, port, nodes }: CorosyncCluster, place: CorosyncPlace): string {
  const totem = [
    'version: 2',
    `cluster_name: ${name}`,
    'transport: knet',
    'crypto_cipher: aes256',
    'crypto_hash: sha256',
    `keyfile: ${place.keyFile}`,
    `token: ${TOKEN_MS}`,
    'token_coefficient: 0', // otherwise 650 ms more for each node above two
    `consensus: ${CONSENSUS_MS + CONSENSUS_STEP_MS * ((place.nodeId ?? 0) % CONSENSUS_STEPS)}`,
    ...section('interface', ['linknumber: 0', `mcastport: ${port}`]),
  ]
  const log =
    place.logFile === null
      ? ['to_logfile: no', 'to_syslog: yes']
      : ['to_logfile: yes', `logfile: ${place.logFile}`, 'to_syslog: no']
  return [
    `${MADE_BY_COLLIE} and the consensus.`,
    ...section('totem', totem),
    // Two nodes are not told to be two_node: that lets both sides of a cut have a majority.
    ...section('quorum', ['provider: corosync_votequorum']),
    ...section('logging', ['to_stderr: no', 'timestamp: hires', ...log]),
    ...(place.isContained ? section('system', ['sched_rr: no', 'move_to_root_cgroup: no']) : []),
    ...section(
      'nodelist',
      nodes.flatMap(({ id, address }) => section('node', [`ring0_addr: ${address}`, `nodeid: ${id}`])),
    ),
    '',
  ].join('\n')
}

function section(name: string, lines: readonly string[]): string[] {
  return [`${name} {`, ...lines.map((line) => `  ${line}`), '}']
}

/** Port and nodes, as a `corosync.conf` of ours has them; null for one that somebody else has made. */
export function readCorosyncConf(text: string): Pick<CorosyncCluster, 'name' | 'port' | 'nodes'> | null {
  if (!text.startsWith(MADE_BY_COLLIE)) return null
  const nodes = [...text.matchAll(/ring0_addr: (\S+)\s+nodeid: (\d+)/g)]
  return {
    name: /cluster_name: (\S+)/.exec(text)?.[1] ?? '',
    port: Number(/mcastport: (\d+)/.exec(text)?.[1]),
    nodes: nodes.map(([, address, id]) => ({ id: Number(id), address: address! })),
  }
}

/** Whether it is what Debian's package brings: a cluster of one on loopback, which nobody has set up. */
export function isPackagedCorosyncConf(text: string): boolean {
  return /^\s*cluster_name: debian$/m.test(text) && /^\s*ring0_addr: 127\.0\.0\.1$/m.test(text)
}

/** Throws a TypeError that says what is wrong. */
export function checkedCluster(cluster: CorosyncCluster): CorosyncCluster {
  const { name, key, port, nodes } = cluster
  const check = (isRight: boolean, problem: string) => {
    if (!isRight) throw new TypeError(problem)
  }
  check(NAME.test(name), `"${name}" is no name of a cluster: 1 to 32 letters, digits, dots, dashes, underscores`)
  check(key.length === KEY_BYTES, `the key has ${key.length} bytes, not ${KEY_BYTES}`)
  check(Number.isInteger(port) && port > 0 && port < 65_536, `${port} is no port`)
  for (const { id, address } of nodes) {
    check(Number.isInteger(id) && id > 0, `${id} is no node id`)
    check(ADDRESS.test(address), `"${address}" is no address`)
  }
  check(new Set(nodes.map(({ id }) => id)).size === nodes.length, 'two nodes have the same id')
  check(new Set(nodes.map(({ address }) => address)).size === nodes.length, 'two nodes have the same address')
  return cluster
}
