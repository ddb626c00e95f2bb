import assert from 'node:assert'
import { isDeepStrictEqual } from 'node:util'
import { StoreError } from '../../../src/errors.ts'
import { formatOid, inodeOid, oidVid } from '../../../src/protocol/oid.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import { Places } from '../../../src/sheep/clustered/places.ts'
import { VdiCopies } from '../../../src/sheep/clustered/vdi-copies.ts'
import type { Usage } from '../../../src/sheep/maintenance/usage.ts'
import type { VdiClient } from '../../../src/vdi/client.ts'
import { ClusterBench } from './cluster-bench.ts'
import { ClusterClient, NO_OPERATIONS } from './cluster-client.ts'
import { ClusterFaults, NO_FAULTS } from './cluster-faults.ts'
import { copiesIn } from './offline-copies.ts'
import { TestedVdi } from './tested-vdi.ts'

const LIVENESS_MS = 300_000
const PATIENCE_MS = 30_000
const CALM_MS = 10_000
/** What nobody waits for any more may be tried for so long: a snapshot of several VDIs. */
const TRIED_MS = 40_000
const COUNTED_MS = 60_000
/** A seed that has worse luck than that ends. */
const FAULTS_MAX_MS = 600_000

/** By vid, in its order. */
type CountedVdis = readonly (readonly [vid: number, usage: Usage])[]

export interface ModelOptions {
  /** Requests of clients that are answered while faults go on, at least. */
  operations: number
  faults: number
}

export const WHOLE_SEED: ModelOptions = { operations: 500, faults: 16 }

/** What a seed did. */
export interface SeedReport {
  nodes: number
  operations: typeof NO_OPERATIONS
  faults: typeof NO_FAULTS
  checks: {
    /** Acknowledged writes, zeros and discards in histories that were found to be in order. */
    acknowledgedWrites: number
    /** Copies that were compared. */
    copies: number
    snapshots: number
    /** Rotten blocks that the scrub has found, and that were put right. */
    repaired: number
    /** Moments at which nobody was found to own what another one owns. */
    leases: number
  }
  /** The longest that a request took, by way of all gateways. */
  longestRequestMs: number
  /** From the moment when all was mended until everything was where it belongs. */
  mendedMs: number
  virtualMs: number
}

/**
 * Whole nodes with clients, each with an attachment that it opens through any gateway, while everything happens to the nodes
 * that `ClusterFaults` knows. Checked:
 *
 * - the history of each unit of each VDI, with attempts that failed and were made again, is linearizable; after the power of all is
 *   gone it holds what had to be durable; what was left behind at a gateway does not happen after the client has come to another one;
 * - snapshots show a moment of the VDI, and neither they nor clones change;
 * - at no moment two nodes may act as the owner of one family, and of each VDI somebody has the inode;
 * - when faults stop, all requests are answered, all nodes come together, everything is where it belongs, and copies are equal;
 * - what the VDIs take is the same, whoever counts it;
 * - the scrub finds what is rotten, and puts it right;
 * - with all VDIs deleted nothing is left.
 */
export class ClusterModel {
  readonly report: SeedReport
  readonly #bench: ClusterBench
  readonly #clock: Clock
  readonly #options: ModelOptions
  readonly #vdis: TestedVdi[]
  readonly #clients: ClusterClient[]
  readonly #faults: ClusterFaults
  /** Requests of each client that may be under way. */
  readonly #loops: number
  #values = 0
  #answered = 0
  #isMended = false
  #failure: Error | null = null

  private constructor(bench: ClusterBench, options: ModelOptions) {
    const { random } = bench
    this.#bench = bench
    this.#options = options
    this.#clock = bench.clock.node().mount()
    this.report = {
      nodes: bench.nodes.length,
      operations: { ...NO_OPERATIONS },
      faults: { ...NO_FAULTS },
      checks: { acknowledgedWrites: 0, copies: 0, snapshots: 0, repaired: 0, leases: 0 },
      longestRequestMs: 0,
      mendedMs: 0,
      virtualMs: 0,
    }
    const isDurable = random.chance(0.6)
    const patienceMs = random.pick([2000, 8000, 30_000])
    this.#loops = random.pick([2, 2, 6])
    const pauseMs = (random.pick([40, 120]) * this.#loops) / 2
    const managing = random.pick([0, 0.01, 0.04, 0.1])
    const clearing = random.pick([0.12, 0.12, 0.4])
    const givingUp = random.pick([0, 0.9])
    const tested = Array.from({ length: 1 + random.below(2) }, (_, at) => {
      const objects = random.pick([1, 2, 3, 6])
      const clients = 1 + random.below(2)
      return { vdi: new TestedVdi(`vdi${at}`, objects, clients > 1), clients }
    })
    this.#vdis = tested.map(({ vdi }) => vdi)
    this.#clients = tested.flatMap(({ vdi, clients }) =>
      Array.from({ length: clients }, (_, at) => {
        const attachmentId = `${vdi.name}-${at}`
        const nameHash = Buffer.from(attachmentId).toString('hex').padEnd(64, '0')
        return new ClusterClient({
          ...{
            bench,
            clock: this.#clock,
            vdi,
            vdis: this.#vdis,
            attachmentId,
            nameHash,
            patienceMs,
            pauseMs,
            isDurable,
            managing,
            clearing,
            givingUp,
          },
          counts: this.report.operations,
          nextValue: () => ++this.#values,
          answered: () => this.#someAnswer(),
        })
      }),
    )
    this.#faults = new ClusterFaults({
      bench,
      isDurable,
      counts: this.report.faults,
      blackout: () => {
        if (!isDurable) for (const vdi of this.#vdis) vdi.lose()
      },
      failed: (error) => {
        this.#failure ??= error
      },
    })
  }

  static async run(seed: number, options: ModelOptions): Promise<SeedReport> {
    const nodes = 3 + ((seed * 7) % 11 < 6 ? 0 : (seed * 7) % 5)
    const bench = await ClusterBench.open(seed, nodes, {
      copies: seed % 5 === 0 ? 2 : 3,
      durability: seed % 7 === 0 ? 'write' : 'flush',
      segmentBlocks: 2048, // of the smallest journal that there is: an object that is made as a whole has to fit into it
    })
    const model = new ClusterModel(bench, options)
    await bench.run(model.#scenario())
    return model.report
  }

  async #scenario(): Promise<void> {
    await this.#create()
    const { operations, faults } = this.#options
    const isOver = () => this.#answered >= operations && (this.#faults.total >= faults || this.#isMended)
    const loops = this.#clients.flatMap((client) => Array.from({ length: this.#loops }, () => client.work(isOver)))
    let running = loops.length
    for (const loop of loops) this.#beside(loop.finally(() => running--))
    const endMs = this.#clock.monotonicMs() + FAULTS_MAX_MS
    while (running > 0 && !isOver() && this.#clock.monotonicMs() < endMs) {
      await this.#clock.sleep(this.#bench.random.next() * 1500)
      // As many as there are to be, over all requests: those that wait are not made to wait for more.
      const isDue = this.#faults.total * operations <= this.#answered * faults
      if (isDue && this.#bench.random.chance(0.6)) this.#faults.act()
      else this.#faults.mendSome()
      this.#checkNow()
    }
    await this.#mend(() => running)
    await this.#clock.sleep(TRIED_MS)
    await this.#readAll()
    await this.#scrub()
    const usage = await this.#usage()
    await this.#compareCopies()
    for (const node of shuffled(this.#bench.nodes, this.#bench.random)) this.#beside(this.#bench.begin(node))
    await this.#until(
      () => 'well after all started again',
      () => this.#isWell(),
    )
    await this.#readAll()
    this.#check()
    await this.#checkUsage(usage)
    await this.#deleteAll()
    this.report.virtualMs = Math.round(this.#bench.clock.nowMs)
    this.report.longestRequestMs = Math.round(Math.max(...this.#clients.map(({ longestMs }) => longestMs)))
  }

  async #create(): Promise<void> {
    const { vdis } = this.#bench.connect(this.#bench.nodes[0]!)!
    for (const vdi of this.#vdis) await vdis.create(vdi.name, vdi.sizeBytes)
    for (const client of this.#clients) {
      const vid = await vdis.lookup(client.vdi.name)
      await vdis.putExport({ ...client.right, vid, readOnly: false })
    }
  }

  #beside(work: Promise<unknown>): void {
    work.catch((error: Error) => {
      this.#failure ??= error
    })
  }

  #someAnswer(): void {
    this.#answered++
    this.#checkNow()
  }

  /** What must be so at any moment. */
  #checkNow(): void {
    if (this.#failure) throw this.#failure
    const owners = new Map<number, string>()
    for (const node of this.#bench.nodes) {
      if (!this.#bench.isIn(node)) continue
      const { name, running } = node
      for (const family of running!.node.sheep.state.vdis.families()) {
        if (!running!.node.store.owns(family)) continue
        const other = owners.get(family)
        assert(other === undefined, `${name} and ${other} both act as the owner of ${family.toString(16)}`)
        owners.set(family, name)
      }
    }
    this.report.checks.leases++
  }

  /** Faults stop, and everything comes right. */
  async #mend(running: () => number): Promise<void> {
    const startMs = this.#clock.monotonicMs()
    this.#isMended = true
    this.#faults.mend()
    await this.#until(
      () => `well with ${running()} at work`,
      () => {
        this.#faults.mend() // who fails when it looks at its disk starts again
        return running() === 0 && this.#isWell()
      },
    )
    for (const { disk } of this.#bench.nodes) disk.failNextSync = false // a fault that nothing has met yet
    this.report.mendedMs = Math.round(this.#clock.monotonicMs() - startMs)
  }

  #isWell(): boolean {
    return this.#bench.nodes.every((node) => this.#bench.isIn(node)) && this.#bench.isClean()
  }

  /** What no client waits for any more comes to its end; a node may yet be put out for a fault that is over, and come back. */
  async #calm(): Promise<void> {
    const isHome = () => this.#isWell() && this.#bench.isHome()
    for (;;) {
      await this.#until(() => 'home', isHome)
      const { epoch } = this.#bench.nodes[0]!.running!.node.sheep.state
      await this.#clock.sleep(CALM_MS)
      if (isHome() && this.#bench.nodes[0]!.running!.node.sheep.state.epoch === epoch) return
    }
  }

  async #until(what: () => string, isSo: () => boolean): Promise<void> {
    const endMs = this.#clock.monotonicMs() + LIVENESS_MS
    while (!isSo()) {
      this.#checkNow()
      assert(this.#clock.monotonicMs() < endMs, `never ${what()}: ${this.#bench.describe()}`)
      await this.#clock.sleep(500)
    }
  }

  async #readAll(): Promise<void> {
    for (const client of this.#clients)
      for (let index = 0; index < client.vdi.objects; index++) await client.read(index)
    for (const vdi of this.#vdis) {
      for (const { name, tag, bytes } of vdi.held) {
        const now = await this.#clients[0]!.bytesHeld(name, tag)
        assert(now.equals(bytes), `what ${name}@${tag} holds has changed`)
        this.report.checks.snapshots++
      }
    }
  }

  /** A round on each node, after which there is no rot. */
  async #scrub(): Promise<void> {
    await Promise.all(
      this.#bench.nodes.map(async ({ name, running }) => {
        const { scrubber } = running!.node.sheep
        const round = scrubber.status.round + 1
        await scrubber.start()
        const isOver = () => scrubber.status.round >= round && scrubber.status.state === 'waiting'
        await this.#until(() => `scrubbed on ${name}`, isOver)
        assert.deepEqual([scrubber.status.findings, scrubber.status.damage], [0, []], `${name} finds damage`)
        this.report.checks.repaired += scrubber.status.repaired
      }),
    )
  }

  #check(): void {
    const { operations, checks } = this.report
    for (const vdi of this.#vdis) vdi.check()
    checks.acknowledgedWrites = operations.writes + operations.zeros + operations.discards
  }

  /** It is the same again as soon as the new owners have counted. */
  async #checkUsage(before: CountedVdis): Promise<void> {
    const endMs = this.#clock.monotonicMs() + COUNTED_MS
    let usage = await this.#usage()
    // Of one that an owner left who could not say what it takes, only the next one knows.
    const isKnown = (at: number) => before[at]![1].isExact || !usage[at]?.[1].isExact
    const isSame = () => isDeepStrictEqual(usage.filter(byIndex(isKnown)), before.filter(byIndex(isKnown)))
    while (!isSame() && this.#clock.monotonicMs() < endMs) {
      await this.#clock.sleep(500)
      usage = await this.#usage()
    }
    assert.deepEqual(usage.filter(byIndex(isKnown)), before.filter(byIndex(isKnown)), 'what VDIs take')
  }

  /** As somebody says who counted it, or has it from who did. */
  async #usage(): Promise<CountedVdis> {
    for (const { running } of this.#bench.nodes) await running!.node.sheep.reclaimed()
    const usage = await this.#bench.nodes[0]!.running!.node.sheep.usage()
    return [...usage].sort(([a], [b]) => a - b)
  }

  /** All nodes end. What they have on their disks is the same, is where it belongs, and is whole. */
  async #compareCopies(): Promise<void> {
    await this.#calm()
    const { nodes } = this.#bench
    const { state } = nodes[0]!.running!.node.sheep
    const copies = new VdiCopies(state)
    const { view } = state
    const wanted = new Set([...state.vdis.values()].map(({ vid }) => inodeOid(vid)))
    for (const node of nodes) this.#bench.kill(node)
    const places = new Places()
    const found = new Map<bigint, { name: string; node: string; blocks: readonly string[] }[]>()
    for (const node of nodes) {
      const store = await this.#bench.openStore(node)
      const id = store.storeId.toString('hex')
      for (const [oid, blocks] of await copiesIn(store))
        found.set(oid, [...(found.get(oid) ?? []), { name: node.name, node: id, blocks }])
      await store.close()
      this.#bench.kill(node)
    }
    for (const oid of wanted) assert(found.has(oid), `nobody has ${formatOid(oid)}`)
    for (const [oid, all] of found) {
      const targets = places.targetsOf(oid, copies.in(oidVid(oid), view), view)
      assert.deepEqual(
        all.map(({ node }) => node).sort(),
        [...targets].sort(),
        `${formatOid(oid)} is on ${all.map(({ name }) => name)} of ${nodes.length}`,
      )
      for (const { name, blocks } of all) {
        const isSame = blocks.every((block, at) => block === all[0]!.blocks[at])
        if (!isSame) assert.deepEqual(blocks, all[0]!.blocks, `${formatOid(oid)} on ${name} and on ${all[0]!.name}`)
      }
      this.report.checks.copies += all.length
    }
  }

  /** With everything gone nothing is left on any node. */
  async #deleteAll(): Promise<void> {
    const left = () => this.#bench.nodes.flatMap(({ running }) => [...running!.node.sheep.state.vdis.values()])
    for (const client of this.#clients) {
      client.close()
      const { attachmentId } = client.right
      while (!(await this.#byAny((vdis) => vdis.removeExport(attachmentId)))) await this.#clock.sleep(200)
    }
    await this.#until(
      () => `without VDIs`,
      () => {
        const living = left().find(({ deleting }) => !deleting)
        if (living) void this.#byAny((vdis) => vdis.remove(living.name, '', living.snapshotAt > 0 ? living.snapId : 0))
        return left().length === 0
      },
    )
    await this.#until(
      () => `without objects`,
      () => this.#bench.objects().length === 0,
    )
  }

  async #byAny(work: (vdis: VdiClient) => Promise<unknown>): Promise<boolean> {
    const { vdis, close } = this.#bench.connect(this.#bench.random.pick(this.#bench.nodes))!
    try {
      return await Promise.race([work(vdis).then(() => true), this.#clock.sleep(PATIENCE_MS).then(() => false)])
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      return false
    } finally {
      close()
    }
  }
}

const byIndex = (holds: (at: number) => boolean) => (_item: unknown, at: number) => holds(at)

function shuffled<T>(items: readonly T[], random: { next(): number }): T[] {
  const keyed = items.map((item) => ({ item, key: random.next() }))
  return keyed.sort((a, b) => a.key - b.key).map(({ item }) => item)
}
