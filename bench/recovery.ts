/**
 * How long it takes until a lost node's copies are elsewhere, and until one that was away for a while has what it missed; what is copied
 * for that; and what a client sees meanwhile. Each row is a cluster of its own on this host: of four nodes with three copies one is
 * killed and does not come back; of three nodes one is killed, and started again after as many seconds, while a client has written.
 *
 * Usage: npm run build && tsx bench/recovery.ts [--rows sparse,dense,away] [--objects 4000] [--gibibytes 4] [--away-seconds 60]
 *                                               [--rate-mib 1000] [--client 200] [--json] [--help]
 *
 * `sparse` objects have 4 KiB each, `dense` ones all of their 4 MiB. `--client` is the number of 4 KiB reads and writes per second of a
 * client that goes on all the time; 0: none. Bytes held are those of objects that the killed node should have a copy of.
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ControlClient } from '../src/control/client.ts'
import { CONTROL_SOCKET } from '../src/control/messages.ts'
import { connectControl } from '../src/control/socket-client.ts'
import { systemNetwork } from '../src/runtime/network.ts'
import { type CollieUnderTest, startCluster } from './collie-target.ts'
import { fio } from './fio.ts'
import { readOptions } from './options.ts'

const options = readOptions(import.meta.filename, {
  rows: ['sparse', 'dense', 'away'],
  objects: 4000,
  gibibytes: 4,
  'away-seconds': 60,
  'rate-mib': 1000,
  client: 200,
})

const MIB = 1024 * 1024
const OBJECT_MIB = 4
const OBJECTS_PER_CALL = 1024
const CLIENT_SECONDS = 3
const CLIENT_MIB = 64

interface Row {
  row: string
  /** From the moment at which the node was put out, or was in again. */
  seconds: number
  copiedMib: number
  /** What the lost node held, or what was written while it was away. */
  neededMib: number
  ratio: number
  asked: number
  /** Of the client's writes, before and meanwhile: the longest of rounds of a few seconds. The stall before the view is not in it. */
  clientP99Ms: { before: number; meanwhile: number } | null
}

/** Of which the store is full when a row begins. */
const ROWS: Record<string, () => Promise<Row>> = {
  sparse: () =>
    lost('sparse', options.objects * OBJECT_MIB, [
      '--rw=write:4092k',
      '--bs=4k',
      '--iodepth=16',
      `--number_ios=${options.objects}`,
    ]),
  dense: () => lost('dense', options.gibibytes * 1024, ['--rw=write', '--bs=1m', '--iodepth=4']),
  away: () => away(),
}

async function lost(row: string, mebibytes: number, filling: readonly string[]): Promise<Row> {
  return withCluster(4, 1, async (cluster, node) => {
    const { vid, uri } = await made(cluster, 'data', mebibytes)
    await fio(uri, ...filling)
    await untilHome(node, () => true)
    const client = await Client.start(cluster)
    const { nodes } = await node.call('cluster_status', {})
    const { pid, address } = victimOf(cluster, nodes.find(({ is_self }) => is_self)!.address)
    const neededBytes =
      (await heldBy(node, vid, address, mebibytes / OBJECT_MIB)) +
      (client ? await heldBy(node, client.vid, address, CLIENT_MIB / OBJECT_MIB) : 0)
    process.kill(pid, 'SIGKILL')
    const done = await untilHome(node, ({ nodes, away }) => nodes.length === 3 && away.length === 0, client)
    return rowOf(row, done, neededBytes, 1.05, await client?.end())
  })
}

async function away(): Promise<Row> {
  return withCluster(3, 600, async (cluster, node) => {
    const { uri } = await made(cluster, 'data', 1024)
    await fio(uri, '--rw=write', '--bs=1m', '--iodepth=4')
    await untilHome(node, () => true)
    const { nodes } = await node.call('cluster_status', {})
    const { pid } = victimOf(cluster, nodes.find(({ is_self }) => is_self)!.address)
    const [command, ...args] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
    process.kill(pid, 'SIGKILL')
    const seconds = options['away-seconds']
    // Each block once.
    const written = await fio(
      uri,
      '--rw=randwrite',
      '--bs=4k',
      '--iodepth=4',
      '--rate_iops=1000',
      `--runtime=${seconds}`,
    )
    const client = await Client.start(cluster)
    const again = spawn(command!, args, { stdio: 'ignore' })
    const done = await untilHome(node, ({ nodes }) => nodes.length === 3, client)
    const row = rowOf('away', done, written.write.bw_bytes * seconds, 2, await client?.end())
    again.kill()
    return row
  })
}

async function withCluster<T>(
  nodes: number,
  rebalanceSeconds: number,
  use: (cluster: CollieUnderTest, node: ControlClient) => Promise<T>,
): Promise<T> {
  const flags = [`--rebalance-delay=${rebalanceSeconds}`, `--recovery-rate-mib=${options['rate-mib']}`]
  const cluster = await startCluster(nodes, ...flags)
  try {
    const node = await connectControl(systemNetwork, path.join(cluster.dataDir, CONTROL_SOCKET))
    try {
      return await use(cluster, node)
    } finally {
      node.close()
    }
  } finally {
    await cluster.stop()
  }
}

async function made(cluster: CollieUnderTest, name: string, mebibytes: number): Promise<{ vid: number; uri: string }> {
  const vid = await cluster.vdis.create(name, mebibytes * MIB)
  return { vid, uri: await cluster.exportVid(vid) }
}

/** The last node, which no client is connected to, and its address: ports count up from the first one's. */
function victimOf({ pids }: CollieUnderTest, first: string): { pid: number; address: string } {
  const [, host, port] = /^(.*):(\d+)$/.exec(first)!
  return { pid: pids.at(-1)!, address: `${host}:${Number(port) + pids.length - 1}` }
}

async function heldBy(node: ControlClient, vid: number, address: string, objects: number): Promise<number> {
  let bytes = 0
  for (let first = 0; first < objects; first += OBJECTS_PER_CALL) {
    const { objects } = await node.call('vdi_objects', { vid, first_index: first, count: OBJECTS_PER_CALL })
    for (const { nodes, allocated_bytes } of objects) if (nodes.includes(address)) bytes += allocated_bytes
  }
  return bytes
}

type Status = Awaited<ReturnType<typeof statusOf>>
const statusOf = (node: ControlClient) => node.call('cluster_status', {})

/** Until there is nothing to bring home in a view that `isIt`. */
async function untilHome(
  node: ControlClient,
  isIt: (status: Status) => boolean,
  client: Client | null = null,
): Promise<{ seconds: number; copiedBytes: number }> {
  let startMs: number | null = null
  for (;;) {
    const status = await statusOf(node)
    if (isIt(status) && status.is_acting) {
      if (startMs === null) {
        startMs = performance.now()
        client?.measure()
      }
      if (status.families_to_bring_home === 0)
        return { seconds: (performance.now() - startMs) / 1000, copiedBytes: status.recovery.bytes_copied }
    }
    await sleep(100)
  }
}

/** Reads and writes steadily, on a volume of its own, until it is told to end. */
class Client {
  readonly vid: number
  readonly #uri: string
  #isOver = false
  #rounds: Promise<void> = Promise.resolve()
  #meanwhile: number[] | null = null
  #beforeMs = 0

  private constructor(vid: number, uri: string) {
    this.vid = vid
    this.#uri = uri
  }

  static async start(cluster: CollieUnderTest): Promise<Client | null> {
    if (options.client === 0) return null
    const { vid, uri } = await made(cluster, 'client', CLIENT_MIB)
    await fio(uri, '--rw=write', '--bs=1m', '--iodepth=4')
    const client = new Client(vid, uri)
    client.#beforeMs = await client.#round()
    client.#rounds = client.#run()
    return client
  }

  /** What is begun from now on counts. */
  measure(): void {
    this.#meanwhile = []
  }

  async end(): Promise<{ before: number; meanwhile: number }> {
    this.#isOver = true
    await this.#rounds
    return { before: this.#beforeMs, meanwhile: Math.max(...(this.#meanwhile ?? [])) }
  }

  async #run(): Promise<void> {
    while (!this.#isOver) {
      const counted = this.#meanwhile
      const p99Ms = await this.#round()
      counted?.push(p99Ms)
    }
  }

  async #round(): Promise<number> {
    const rate = Math.ceil(options.client / 2)
    const bounds = [`--runtime=${CLIENT_SECONDS}`, '--time_based', '--randrepeat=0', '--norandommap']
    const job = await fio(this.#uri, '--rw=randrw', '--bs=4k', '--iodepth=4', `--rate_iops=${rate},${rate}`, ...bounds)
    return job.write.clat_ns.percentile['99.000000']! / 1e6
  }
}

function rowOf(
  row: string,
  { seconds, copiedBytes }: { seconds: number; copiedBytes: number },
  neededBytes: number,
  asked: number,
  client: { before: number; meanwhile: number } | undefined,
): Row {
  const [copiedMib, neededMib] = [copiedBytes / MIB, neededBytes / MIB]
  return { row, seconds, copiedMib, neededMib, ratio: copiedBytes / neededBytes, asked, clientP99Ms: client ?? null }
}

function print({ row, seconds, copiedMib, neededMib, ratio, asked, clientP99Ms }: Row): void {
  const client = clientP99Ms
    ? `; client's writes p99 ${clientP99Ms.before.toFixed(1)} ms before, ${clientP99Ms.meanwhile.toFixed(1)} ms meanwhile`
    : ''
  const bytes = `${copiedMib.toFixed(1)} MiB copied for ${neededMib.toFixed(1)}: ${ratio.toFixed(2)} (asked: at most ${asked})`
  console.log(`${row.padEnd(8)}${seconds.toFixed(1)} s, ${bytes}${client}`)
}

const rows: Row[] = []
for (const name of options.rows) {
  const row = await ROWS[name]!()
  rows.push(row)
  if (!options.json) print(row)
}
if (options.json) console.log(JSON.stringify(rows, null, 2))
