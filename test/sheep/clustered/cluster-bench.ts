import pino from 'pino'
import { RESULT } from '../../../src/protocol/constants.ts'
import type { SheepRequest, SheepResponse } from '../../../src/protocol/message.ts'
import { formatOid } from '../../../src/protocol/oid.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import type { Group, GroupListener } from '../../../src/sheep/cluster/group.ts'
import { ClusteredSheep } from '../../../src/sheep/clustered/clustered-sheep.ts'
import { foundCluster } from '../../../src/sheep/clustered/found-cluster.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { ObjectStore } from '../../../src/sheep/object-store.ts'
import { runOperation } from '../../../src/sheep/ops.ts'
import { PeerNetwork } from '../../../src/sheep/peer/peer-network.ts'
import { Sheep } from '../../../src/sheep/sheep.ts'
import { VdiClient } from '../../../src/vdi/client.ts'
import type { Device } from '../../../src/vdi/device.ts'
import { SimClock } from '../../sim/clock.ts'
import { SimDisk } from '../../sim/disk.ts'
import { SimGroup } from '../../sim/group.ts'
import { SimNetwork } from '../../sim/network.ts'
import { SeededRandom } from '../../sim/random.ts'

const CLUSTER = 'test'
const GIB = 1024 ** 3
const KEY = Buffer.alloc(32, 7)
/** Of each disk: for files that are not objects. */
export const RESERVE_BYTES = 16 << 20
const SCRUB_BYTES_PER_SECOND = 64 << 20

export interface BenchOptions {
  copies?: number
  durability?: 'flush' | 'write'
  segmentBlocks?: number
  /** Each node has its own by default. */
  zoneOf?(index: number): number
  /** Of the disks of each node; 1 TiB by default. */
  roomGib?: readonly number[]
  /** 10 s by default. */
  rebalanceDelayMs?: number
}

export interface BenchNode {
  readonly name: string
  readonly zone: number
  readonly clock: SimClock
  readonly disk: SimDisk
  running: {
    node: ClusteredSheep
    vdis: VdiClient
    /** What clients that are connected wait for: they see when the process ends. */
    unanswered: Set<(response: SheepResponse) => void>
  } | null
  /** Its disk is made to fail: then it may end by itself. */
  mayFail: boolean
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
  readonly copies: number
  /** How many nodes have ended because their disk failed. */
  failures = 0
  /** How long such a node still answers. */
  lingerMs = 0
  readonly #options: BenchOptions & Required<Pick<BenchOptions, 'durability' | 'segmentBlocks'>>
  readonly #log = pino({ level: process.env.BENCH_LOG ?? 'silent' })
  #clients = 0

  constructor(seed: number, count: number, options: BenchOptions = {}) {
    this.#options = { durability: 'flush', segmentBlocks: 1024, ...options }
    this.copies = options.copies ?? 3
    const { zoneOf = (index: number) => index + 1 } = options
    this.random = new SeededRandom(seed)
    this.clock = new SimClock(this.random)
    this.group = new SimGroup(this.clock, this.random)
    this.network = new SimNetwork(this.random)
    this.nodes = Array.from({ length: count }, (_, i) => {
      const clock = this.clock.node()
      return {
        name: `10.0.0.${i + 1}`,
        zone: zoneOf(i),
        clock,
        disk: new SimDisk(this.random, clock),
        running: null,
        mayFail: false,
        isStarting: false,
        starts: 0,
      }
    })
  }

  /** A cluster of all nodes, each of which is in the view. */
  static async open(seed: number, count: number, options: BenchOptions = {}): Promise<ClusterBench> {
    const bench = new ClusterBench(seed, count, options)
    for (const [i, gib] of (options.roomGib ?? []).entries()) bench.nodes[i]!.disk.capacityBytes = gib * GIB
    await bench.found(bench.nodes[0]!)
    for (const node of bench.nodes) await bench.start(node)
    await bench.allIn()
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

  /** The nodes of each side do not meet those of the others, in the group or for data. */
  part(sides: readonly (readonly string[])[]): void {
    this.group.partition(sides)
    this.network.cut(sides)
  }

  cutOff(node: BenchNode): void {
    this.part([[node.name], this.nodes.filter((other) => other !== node).map(({ name }) => name)])
  }

  heal(): void {
    this.group.heal()
    this.network.heal()
  }

  allIn(): Promise<void> {
    return this.until(() => this.nodes.every((node) => this.isIn(node)))
  }

  isIn({ running }: BenchNode): boolean {
    const store = running?.node.store
    return store?.hasJoined === true && store.member.mayAct()
  }

  /** Makes it the first of the cluster, as a process of its own. */
  async found(node: BenchNode): Promise<void> {
    const { name, zone } = node
    try {
      await this.run(
        foundCluster({
          ...this.#storeOptions(node),
          cluster: CLUSTER,
          founder: { address: `${name}:7000`, zone },
        }),
      )
    } finally {
      node.clock.endProcess()
    }
  }

  /** Starts a node as a store of its own. It is to be closed, or its disk killed, before anything else is started there. */
  async openAlone(node: BenchNode): Promise<{ sheep: Sheep; vdis: VdiClient }> {
    const options = { ...this.#storeOptions(node), address: `${node.name}:7000`, zone: 0, copies: this.copies }
    const sheep = await this.run(Sheep.open(options))
    const transport = {
      submit: (request: never, done: never) => runOperation(sheep, request, null, done),
      close: () => {},
    }
    return { sheep, vdis: new VdiClient(transport) }
  }

  #storeOptions(node: BenchNode) {
    const { starts } = node
    return {
      disk: node.disk.mount(),
      clock: node.clock.mount(),
      random: this.random,
      log: this.#log.child({ node: node.name }),
      segmentBytes: this.#options.segmentBlocks * BLOCK_BYTES,
      durability: this.#options.durability,
      reserveBytes: RESERVE_BYTES,
      scrubBytesPerSecond: SCRUB_BYTES_PER_SECOND,
      onFailed: (error: Error) => {
        if (node.starts === starts) this.#failed(node, error) // else its process has ended
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
    const opened = await this.#open(node, CLUSTER).catch((error) => {
      if (start === node.starts) this.#failed(node, error) // its disk may fail while it starts
      return null
    })
    if (!opened || start !== node.starts) return
    await opened.network.listen(`${node.name}:7000`, (connection) => connection.destroy())
    if (start !== node.starts) return
    node.isStarting = false
    const transport = {
      submit: (request: never, done: never) => opened.handle(request, null, done),
      close: () => {},
    }
    node.running = { node: opened, vdis: new VdiClient(transport), unanswered: new Set() }
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
      copies: this.copies,
      cluster: {
        cluster,
        join: (listener: GroupListener): Promise<Group> => this.group.join(node.name, listener),
        rebalanceDelayMs: this.#options.rebalanceDelayMs ?? 10_000,
        network,
        copiesMin: Math.min(2, this.copies),
        recoveryBytesPerSecond: 64 << 20,
        vnodes: null,
      },
    })
  }

  /** The process ends itself, as it does for real. */
  #failed(node: BenchNode, error: Error): void {
    if (!node.mayFail) throw error
    this.failures++
    node.mayFail = false
    if (this.lingerMs === 0) this.kill(node)
    else node.clock.mount().timer(this.lingerMs, () => this.kill(node))
  }

  /** A client's connection to a node; null when the node does not run. Closing it ends what it had opened. */
  connect({ running }: BenchNode): { vdis: VdiClient; close(): void } | null {
    if (!running) return null
    const { node, unanswered } = running
    const client = { id: ++this.#clients, peer: 'unix', cut: () => {} }
    node.clientOpened(client)
    const transport = {
      submit: (request: SheepRequest, done: (response: SheepResponse) => void) => {
        unanswered.add(done)
        node.handle(request, client, (reply) => {
          if (unanswered.delete(done)) done({ opcode: request.opcode, ...reply })
        })
      },
      close: () => {},
    }
    return { vdis: new VdiClient(transport), close: () => node.clientClosed(client) }
  }

  /** What a node that does not run has on its disk. */
  async openStore(node: BenchNode): Promise<ObjectStore> {
    const { store } = await ObjectStore.open(this.#storeOptions(node))
    return store
  }

  /** SIGKILL, which the page cache survives; or the power is gone. */
  kill(node: BenchNode, losesPower = false): void {
    const unanswered = node.running?.unanswered ?? []
    node.running = null
    node.isStarting = false
    node.starts++
    if (losesPower) node.disk.powerLoss()
    else node.disk.kill()
    this.network.kill(node.name)
    this.group.kill(node.name)
    for (const done of unanswered) done({ opcode: 0, result: RESULT.NETWORK_ERROR })
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

  /** For who reads the log of a seed: what was done to it, and when. */
  note(event: string): void {
    this.#log.info({ atMs: Math.round(this.clock.nowMs) }, event)
  }

  /** For who wonders why it does not go on. */
  describe(): string {
    const nodes = this.nodes.map((node) => {
      const state = node.running?.node.sheep.state
      if (!state) return `${node.name} is down`
      const { store } = node.running!.node
      const families = [...state.families.uncleanBefore(state.epoch)].map((family) => {
        const { index, node: owner } = state.families.ownerOf(family) ?? { index: 0, node: 'nobody' }
        return `${family.toString(16)} since ${state.families.uncleanSince(family)} of ${owner.slice(0, 4)} by ${index}${store.owns(family) ? ' here' : ''}`
      })
      return `${node.name} in view ${state.epoch} of ${state.members.length}, ${this.isIn(node) ? 'acting' : 'not acting'}, unclean: ${families}`
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

/** Three nodes that all vote, of which the first owns the VDI `a`. Everything is where it belongs. */
export async function benchWithOwner(): Promise<{ bench: ClusterBench; vid: number }> {
  const bench = await ClusterBench.open(1, 3)
  const owner = bench.nodes[0]!.running!.node
  await bench.until(() => owner.sheep.state.view.voters.length === 3)
  const vid = await bench.run(bench.vdis(0).create('a', 100 * BLOCK_BYTES))
  await bench.until(() => bench.isHome())
  if (!owner.store.owns(vid)) throw new Error('who made it does not own it')
  return { bench, vid }
}
