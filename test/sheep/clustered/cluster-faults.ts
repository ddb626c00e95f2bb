import { oidVid } from '../../../src/protocol/oid.ts'
import { BLOCK_BYTES, objectPath } from '../../../src/sheep/object-format.ts'
import { type BenchNode, type ClusterBench, RESERVE_BYTES } from './cluster-bench.ts'
import { TESTED_BLOCKS } from './tested-vdi.ts'

export const NO_FAULTS = {
  ends: 0,
  powerLosses: 0,
  /** Of all nodes at once. */
  blackouts: 0,
  stops: 0,
  /** One node is alone. */
  cutsOfOne: 0,
  cutsInTwo: 0,
  /** Each node is alone. */
  cutsApart: 0,
  /** Two nodes do not meet, and all others meet both; of the group one of the two may be cut off as well. */
  cutPairs: 0,
  /** What some say to others is lost, and what they hear is not. */
  oneWayCuts: 0,
  /** The group is whole, and no data goes. */
  dataCuts: 0,
  /** The group is cut, and data goes everywhere. */
  groupCuts: 0,
  /** All connections of a node break, and others can be made at once. */
  resets: 0,
  /** The group tells a node nothing for a while, though data goes. */
  deaf: 0,
  rotten: 0,
  fullDisks: 0,
  slowDisks: 0,
  failedSyncs: 0,
  clockJumps: 0,
  /** The engine of the group ends, and the process that uses it does not. */
  lostEngines: 0,
  /** A node is to hold nothing for a while. */
  drains: 0,
}

export type FaultCounts = typeof NO_FAULTS
type FaultKind = keyof FaultCounts

export interface FaultOptions {
  bench: ClusterBench
  /** What was acknowledged survives the loss of power of any nodes; else only one at a time loses it, or all. */
  isDurable: boolean
  counts: FaultCounts
  /** All nodes are about to lose power. */
  blackout(): void
  /** The start of a node has failed. */
  failed(error: Error): void
}

const WEIGHTS: Readonly<Record<FaultKind, number>> = {
  ends: 10,
  powerLosses: 6,
  blackouts: 2,
  stops: 8,
  cutsOfOne: 8,
  cutsInTwo: 8,
  cutsApart: 4,
  cutPairs: 5,
  oneWayCuts: 6,
  dataCuts: 5,
  groupCuts: 3,
  resets: 6,
  deaf: 6,
  rotten: 0,
  fullDisks: 6,
  slowDisks: 5,
  failedSyncs: 3,
  clockJumps: 4,
  lostEngines: 4,
  drains: 3,
}

/** A block that is rotten in one copy while the others differ, or go, is lost: so these come alone. */
const ROT_WEIGHTS: Readonly<Record<FaultKind, number>> = {
  ...(Object.fromEntries(Object.keys(WEIGHTS).map((kind) => [kind, 0])) as FaultCounts),
  rotten: 10,
  clockJumps: 2,
}

/** What goes wrong with nodes, each kind as often as the seed likes, and how it is mended. */
export class ClusterFaults {
  readonly #options: FaultOptions
  readonly #weights: [FaultKind, number][]
  readonly #stopped = new Set<BenchNode>()
  readonly #deaf = new Set<BenchNode>()
  readonly #drained = new Set<BenchNode>()
  /** Who lost power since everything was complete with all nodes in the view. */
  readonly #lossy = new Set<BenchNode>()
  #isCut = false
  /** Only one node has rot: what it has the others have. */
  readonly #rotting: BenchNode

  constructor(options: FaultOptions) {
    this.#options = options
    const { random, nodes } = options.bench
    this.#rotting = random.pick(nodes)
    const weights = random.chance(0.07) ? ROT_WEIGHTS : WEIGHTS
    this.#weights = (Object.keys(weights) as FaultKind[]).map((kind): [FaultKind, number] => [
      kind,
      random.chance(0.4) ? 0 : weights[kind] * random.next(),
    ])
    const forced = weights === ROT_WEIGHTS ? 'rotten' : 'ends'
    this.#weights.push([forced, 1])
  }

  get #random() {
    return this.#options.bench.random
  }

  get total(): number {
    return Object.values(this.#options.counts).reduce((sum, count) => sum + count, 0)
  }

  /** Something goes wrong. */
  act(): void {
    this.#fail(this.#random.pick(this.#options.bench.nodes))
  }

  /** Something is put right, perhaps. */
  mendSome(): void {
    if (this.#random.chance(0.5)) this.#mendOne(this.#random.pick(this.#options.bench.nodes))
  }

  /** All of it is put right. */
  mend(): void {
    this.#heal()
    for (const node of this.#options.bench.nodes) {
      this.#resume(node)
      this.#mendDisk(node)
      this.#start(node)
    }
  }

  #mendOne(node: BenchNode): void {
    if (this.#isCut && this.#random.chance(0.5)) return this.#heal()
    this.#resume(node)
    this.#mendDisk(node)
    this.#start(node)
  }

  #fail(node: BenchNode): void {
    const { bench, counts, isDurable } = this.#options
    let dice = this.#random.next() * this.#weights.reduce((sum, [, weight]) => sum + weight, 0)
    const [kind] = this.#weights.find(([, weight]) => {
      dice -= weight
      return dice < 0
    })!
    if (bench.isClean() && bench.nodes.every((each) => bench.isIn(each))) this.#lossy.clear()
    const mayLosePower = isDurable || [...this.#lossy].every((each) => each === node)
    if (kind === 'powerLosses' && !mayLosePower) return
    if (!this.#do(kind, node)) return
    counts[kind]++
    bench.note(`${kind} ${node.name}`)
  }

  /** False when it could not be done. */
  #do(kind: FaultKind, node: BenchNode): boolean {
    const { bench, blackout } = this.#options
    const names = bench.nodes.map(({ name }) => name)
    switch (kind) {
      case 'ends':
        return this.#end(node, false)
      case 'powerLosses':
        this.#lossy.add(node)
        return this.#end(node, true)
      case 'blackouts':
        blackout()
        for (const each of bench.nodes) {
          this.#stopped.delete(each)
          this.#deaf.delete(each)
          bench.kill(each, true)
        }
        this.#lossy.clear()
        return true
      case 'stops':
        if (!node.running || this.#stopped.has(node)) return false
        this.#stopped.add(node)
        bench.stop(node)
        return true
      case 'cutsOfOne':
        return this.#cut([[node.name], names.filter((name) => name !== node.name)], true, true)
      case 'cutsInTwo':
        return this.#cut(this.#sides(names), true, true)
      case 'cutsApart':
        return this.#cut(
          names.map((name) => [name]),
          true,
          true,
        )
      case 'cutPairs': {
        const others = names.filter((name) => name !== node.name)
        const other = this.#random.pick(others)
        if (!this.#cut([[node.name], others], false, this.#random.chance(0.5))) return false
        bench.network.silence([node.name, other], [node.name, other])
        return true
      }
      case 'dataCuts':
        return this.#cut(this.#sides(names), true, false)
      case 'groupCuts':
        return this.#cut(this.#sides(names), false, true)
      case 'oneWayCuts': {
        if (this.#isCut) return false
        this.#isCut = true
        const [some = [], others = []] = this.#sides(names)
        bench.network.silence(some, others)
        return true
      }
      case 'resets':
        bench.network.reset(node.name)
        return true
      case 'deaf':
        if (!node.running || this.#stopped.has(node) || this.#deaf.has(node)) return false
        this.#deaf.add(node)
        bench.group.stop(node.name)
        return true
      case 'fullDisks':
        node.mayFail = node.running !== null // it has looked at what is free before, and learns of this when it looks again
        node.disk.capacityBytes = 2 ** 39 // so that it counts what is used
        node.disk.capacityBytes = node.disk.usedBytes() + RESERVE_BYTES + this.#random.below(24) * BLOCK_BYTES
        return true
      case 'slowDisks':
        node.disk.latencyMsMax = this.#random.pick([30, 300, 3000])
        return true
      case 'failedSyncs':
        if (!node.running) return false
        node.mayFail = true
        node.disk.failNextSync = true
        return true
      case 'clockJumps':
        node.clock.wallOffsetMs += this.#random.pick([-1, 1]) * this.#random.pick([1000, 3_600_000, 10 ** 11])
        return true
      case 'lostEngines':
        if (!node.running?.node.store.hasJoined || this.#stopped.has(node) || this.#deaf.has(node)) return false
        bench.group.lose(node.name)
        return true
      case 'drains': {
        const asked = this.#random.pick(bench.nodes).running?.node.store
        if (!asked?.hasJoined || this.#drained.size > 0) return false
        this.#drained.add(node)
        asked.admin.drain(node.name, true).catch(() => {})
        return true
      }
      case 'rotten':
        return this.#rot(this.#rotting)
    }
  }

  #start(node: BenchNode): void {
    const { bench, failed } = this.#options
    if (node.running) return
    bench.begin(node).catch(failed)
  }

  #end(node: BenchNode, losesPower: boolean): boolean {
    if (!node.running && !node.isStarting) return false
    this.#stopped.delete(node)
    this.#deaf.delete(node)
    this.#options.bench.kill(node, losesPower)
    return true
  }

  #resume(node: BenchNode): void {
    const { bench } = this.#options
    const isDrained = bench.nodes.some(({ running }) =>
      running?.node.sheep.state.members.some(
        ({ address, vnodes }) => address.startsWith(`${node.name}:`) && vnodes === 0,
      ),
    )
    const asked = this.#random.pick(bench.nodes).running?.node.store
    if ((isDrained || this.#drained.has(node)) && asked?.hasJoined) {
      this.#drained.delete(node)
      asked.admin.drain(node.name, false).catch(() => {})
    }
    const wasDeaf = this.#deaf.delete(node)
    if (this.#stopped.delete(node)) bench.resume(node)
    else if (wasDeaf) bench.group.resume(node.name)
  }

  #mendDisk(node: BenchNode): void {
    const { disk } = node
    if (disk.capacityBytes < 2 ** 40) node.mayFail = disk.failNextSync
    disk.capacityBytes = 2 ** 40
    disk.latencyMsMax = 2
  }

  #sides(names: readonly string[]): string[][] {
    const sides: string[][] = [[], []]
    for (const name of names) this.#random.pick(sides).push(name)
    return sides
  }

  #cut(sides: string[][], ofData: boolean, ofGroup: boolean): boolean {
    if (this.#isCut) return false
    this.#isCut = true
    const { network, group } = this.#options.bench
    if (ofData) network.cut(sides)
    if (ofGroup) group.partition(sides)
    return true
  }

  #heal(): void {
    if (!this.#isCut) return
    this.#isCut = false
    this.#options.bench.group.heal()
    this.#options.bench.network.heal()
  }

  /** A bit of a block in an object's file, while nothing else is wrong. */
  #rot(node: BenchNode): boolean {
    const store = node.running?.node.store
    const oids = store?.objectsHere().filter((oid) => oidVid(oid) !== 0) ?? []
    if (oids.length === 0) return false
    const oid = this.#random.pick(oids)
    const path = objectPath(oid)
    const block = this.#random.below(TESTED_BLOCKS)
    if (!node.disk.hasPage(path, block)) return false
    node.disk.flipBit(path, block * BLOCK_BYTES + this.#random.below(BLOCK_BYTES))
    return true
  }
}
