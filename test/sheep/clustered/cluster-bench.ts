import pino from 'pino'
import { formatOid } from '../../../src/protocol/oid.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import type { Group, GroupListener } from '../../../src/sheep/cluster/group.ts'
import { ClusteredSheep } from '../../../src/sheep/clustered/clustered-sheep.ts'
import { foundCluster } from '../../../src/sheep/clustered/found-cluster.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { PeerNetwork } from '../../../src/sheep/peer/peer-network.ts'
import { VdiClient } from '../../../src/vdi/client.ts'
import type { Device } from '../../../src/vdi/device.ts'
import { SimClock } from '../../sim/clock.ts'
import { SimDisk } from '../../sim/disk.ts'
import { SimGroup } from '../../sim/group.ts'
import { SimNetwork } from '../../sim/network.ts'
import { SeededRandom } from '../../sim/random.ts'

const CLUSTER = 'test'
const KEY = Buffer.alloc(32, 7)

export interface BenchNode {
  readonly name: string
  readonly zone: number
  readonly clock: SimClock
  readonly disk: SimDisk
  running: { node: ClusteredSheep; vdis: VdiClient } | null
  isStarting: boolean
  starts: number
}

/** Some whole nodes in virtual time: their disks, clocks, network and group are simulated, and everything else is what runs for real. */
export class ClusterBench {
  readonly random: SeededRandom
  readonly clock: SimClock
  readonly group: SimGroup
  readonly network: SimNetwork
  readonly nodes: BenchNode[]
  readonly #log = pino({ level: process.env.BENCH_LOG ?? 'silent' })

  constructor(seed: number, count: number) {
    this.random = new SeededRandom(seed)
    this.clock = new SimClock(this.random)
    this.group = new SimGroup(this.clock, this.random)
    this.network = new SimNetwork(this.random)
    this.nodes = Array.from({ length: count }, (_, i) => {
      const clock = this.clock.node()
      return {
        name: `10.0.0.${i + 1}`,
        zone: i + 1,
        clock,
        disk: new SimDisk(this.random, clock),
        running: null,
        isStarting: false,
        starts: 0,
      }
    })
  }

  /** A cluster of all nodes, each of which is in the view. */
  static async open(seed: number, count: number): Promise<ClusterBench> {
    const bench = new ClusterBench(seed, count)
    await bench.#found(bench.nodes[0]!)
    for (const node of bench.nodes) await bench.start(node)
    await bench.until(() => bench.nodes.every((node) => bench.isIn(node)))
    return bench
  }

  run<T>(done: Promise<T>): Promise<T> {
    return this.clock.run(done, 5_000_000)
  }

  /** Time passes until it is so. */
  async until(isSo: () => boolean, limitMs = 60_000): Promise<void> {
    const endMs = this.clock.nowMs + limitMs
    while (!isSo()) {
      if (this.clock.nowMs > endMs) throw new Error(`not so after ${limitMs} ms`)
      await this.pass(50)
    }
  }

  pass(ms: number): Promise<void> {
    return this.run(this.clock.node().mount().sleep(ms))
  }

  /** Whether all copies are where they belong, as far as every node that runs knows. */
  isClean(): boolean {
    return this.nodes.every(({ running }) => {
      const state = running?.node.sheep.state
      return !state || state.families.uncleanBefore(state.epoch).length === 0
    })
  }

  /** The same, as every node says that knows more than the log: owners and holders. */
  isHome(): boolean {
    return this.nodes.every(({ running }) => !running || running.node.store.status().unclean === 0)
  }

  isIn({ running }: BenchNode): boolean {
    return running?.node.store.member.mayAct() ?? false
  }

  async #found(node: BenchNode): Promise<void> {
    const { name, zone } = node
    await this.run(
      foundCluster({
        ...this.#storeOptions(node),
        cluster: CLUSTER,
        founder: { address: `${name}:7000`, zone, vnodes: 128 },
      }),
    )
    node.clock.endProcess()
  }

  #storeOptions(node: BenchNode) {
    return {
      disk: node.disk.mount(),
      clock: node.clock.mount(),
      random: this.random,
      log: this.#log.child({ node: node.name }),
      segmentBytes: 1024 * BLOCK_BYTES,
      durability: 'flush' as const,
      reserveBytes: 0,
      onFailed: (error: Error) => {
        throw error
      },
    }
  }

  async start(node: BenchNode): Promise<void> {
    await this.run(this.begin(node))
  }

  /** As `start`, for who runs the clock. Nothing comes of it when the node ends before. */
  async begin(node: BenchNode): Promise<void> {
    if (node.running || node.isStarting) return
    const start = ++node.starts
    node.isStarting = true
    const opened = await this.#open(node, CLUSTER)
    await opened.network.listen(`${node.name}:7000`, (connection) => connection.destroy())
    if (start !== node.starts) return
    node.isStarting = false
    const transport = {
      submit: (request: never, done: never) => opened.handle(request, null, done),
      close: () => {},
    }
    node.running = { node: opened, vdis: new VdiClient(transport) }
  }

  #open(node: BenchNode, cluster: string | null): Promise<ClusteredSheep> {
    const clock: Clock = node.clock.mount()
    const network = new PeerNetwork({
      network: this.network.mount(node.name, node.clock),
      clock,
      random: this.random,
      key: KEY,
    })
    return ClusteredSheep.open({
      ...this.#storeOptions(node),
      address: `${node.name}:7000`,
      zone: node.zone,
      copies: 3,
      cluster: {
        cluster,
        join: (listener: GroupListener): Promise<Group> => this.group.join(node.name, listener),
        network,
        copiesMin: 2,
        recoveryBytesPerSecond: 64 << 20,
        vnodes: 128,
      },
    })
  }

  /** SIGKILL, which the page cache survives; or the power is gone. */
  kill(node: BenchNode, losesPower = false): void {
    node.running = null
    node.isStarting = false
    node.starts++
    if (losesPower) node.disk.powerLoss()
    else node.disk.kill()
    this.network.kill(node.name)
    this.group.kill(node.name)
  }

  /** The process stands still. */
  stop(node: BenchNode): void {
    node.clock.stop()
    this.group.stop(node.name)
  }

  resume(node: BenchNode): void {
    node.clock.resume()
    this.group.resume(node.name)
  }

  /** On all nodes that run. */
  objects(): string[] {
    return this.nodes.flatMap(({ name, running }) =>
      (running?.node.store.objectsHere() ?? []).map((oid) => `${formatOid(oid)} on ${name}`),
    )
  }

  /** For who wonders why it does not go on. */
  describe(): string {
    const nodes = this.nodes.map((node) => {
      const state = node.running?.node.sheep.state
      if (!state) return `${node.name} is down`
      const unclean = state.families.uncleanBefore(state.epoch).length
      return `${node.name} in view ${state.epoch} of ${state.members.length}, ${this.isIn(node) ? 'acting' : 'not acting'}, ${unclean} unclean`
    })
    return nodes.join('; ')
  }

  vdis(index: number): VdiClient {
    const { running } = this.nodes[index]!
    if (!running) throw new Error(`node ${index} does not run`)
    return running.vdis
  }

  write(device: Device, offset: number, bytes: Buffer): Promise<void> {
    return new Promise((resolve, reject) =>
      device.write(offset, bytes, { fua: true }, (error) => (error ? reject(error) : resolve())),
    )
  }

  read(device: Device, offset: number, length: number): Promise<Buffer> {
    const target = Buffer.alloc(length)
    return new Promise((resolve, reject) =>
      device.read(offset, target, (error) => (error ? reject(error) : resolve(target))),
    )
  }
}
