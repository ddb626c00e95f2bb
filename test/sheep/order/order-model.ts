import assert from 'node:assert'
import { pino } from 'pino'
import { StoreError } from '../../../src/errors.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import type { Group, GroupListener, JoinGroup } from '../../../src/sheep/cluster/group.ts'
import type { Ballot } from '../../../src/sheep/order/ballot.ts'
import type { Electorate, Item, NodeId } from '../../../src/sheep/order/item.ts'
import type { Change, Durable } from '../../../src/sheep/order/machine.ts'
import { decodeMessage, encodeMessage, type Message } from '../../../src/sheep/order/messages.ts'
import { OrderFile } from '../../../src/sheep/order/order-file.ts'
import { OrderedLog, type OrderedLogOptions, type OrderedState } from '../../../src/sheep/order/ordered-log.ts'
import { SimClock } from '../../sim/clock.ts'
import { SimDisk } from '../../sim/disk.ts'
import { SimGroup } from '../../sim/group.ts'
import { SeededRandom } from '../../sim/random.ts'

/** The state of a node: the entries themselves. Now and then what it has is on disk, as with a checkpoint. */
export class ListState implements OrderedState {
  items: Item[]
  #durable: number
  readonly #check: (item: Item) => void

  constructor(items: readonly Item[], check: (item: Item) => void) {
    this.items = [...items]
    this.#durable = items.length
    this.#check = check
  }

  get durableIndex(): number {
    return this.#durable
  }

  get electorate(): Electorate | null {
    const last = this.items.findLast(({ voters }) => voters)
    return last?.voters ? { index: last.index, voters: last.voters } : null
  }

  apply(item: Item): void {
    assert.equal(item.index, this.items.length + 1, 'an entry is applied after the one before it')
    this.#check(item)
    this.items.push(item)
    if (isRefused(item.payload)) throw new StoreError('InvalidParameters')
  }

  async install(state: Buffer): Promise<{ index: number; electorate: Electorate }> {
    const items = JSON.parse(state.toString()) as Item[]
    if (items.length > this.items.length) {
      for (const item of items) this.#check(item)
      this.items = items
    }
    this.checkpoint()
    return { index: this.items.length, electorate: this.electorate! }
  }

  checkpoint(): void {
    this.#durable = this.items.length
  }

  get durableItems(): readonly Item[] {
    return this.items.slice(0, this.#durable)
  }
}

const isRefused = (payload: string) => payload.endsWith('refused')

export interface Process {
  log: OrderedLog
  state: ListState
}

export interface Node {
  name: NodeId
  clock: SimClock
  disk: SimDisk
  process: Process | null
  isStarting: boolean
  isStopped: boolean
  starts: number
  /** The state that a start finds on the disk. */
  kept: readonly Item[]
}

/** A way to break a rule of the log on purpose, by what a node says or writes: the checks must find it. */
export interface Break {
  said?(message: Message, node: NodeId): Message
  written?(change: Change): Change
  /** Says that changes are durable before they are. */
  isHasty?: boolean
}

export interface Action {
  weight: number
  act(node: Node): void
}

const NODES_MAX = 5
const LIVENESS_MS = 120_000

/**
 * Nodes with a log in common on a group that promises little, while processes end, disks lose what was not synced, the network
 * is cut and machines stand still. Checked at every entry: all nodes apply the same one at the same place. At the end, with
 * everything mended: all that was acknowledged is there, once; nothing is there twice; and the log goes on.
 */
export class OrderModel {
  readonly random: SeededRandom
  readonly #root: SimClock
  protected readonly clock: Clock
  readonly #group: SimGroup
  readonly nodes: Node[]
  #sides: NodeId[][] | null = null
  /** What has been applied anywhere, by cluster, and then by index from 1. */
  readonly #agreed = new Map<string, Item[]>()
  readonly #acknowledged = new Set<string>()
  readonly #refused = new Set<string>()
  protected proposals = 0
  readonly counts = {
    acknowledged: 0,
    refused: 0,
    declined: 0,
    unsure: 0,
    lost: 0,
    kills: 0,
    powerLosses: 0,
    cuts: 0,
    blackouts: 0,
    stops: 0,
    engines: 0,
    electorates: 0,
    installs: 0,
  }

  readonly #break: Break
  #failure: Error | null = null

  constructor(seed: number, broken: Break = {}, nodes?: number) {
    this.#break = broken
    this.random = new SeededRandom(seed)
    this.#root = new SimClock(this.random)
    this.clock = this.#root.node().mount()
    this.#group = new SimGroup(this.#root, this.random)
    const length = nodes ?? 3 + this.random.below(NODES_MAX - 2)
    const names = Array.from({ length }, (_, index) => `n${index + 1}`)
    this.nodes = names.map((name) => {
      const clock = this.#root.node()
      const disk = new SimDisk(this.random, clock)
      return { name, clock, disk, process: null, isStarting: false, isStopped: false, starts: 0, kept: [] }
    })
    this.#mixture = this.mix()
    this.#diskMsMax = this.random.pick([0, 20, 300])
    this.#pauseMsMax = this.random.pick(this.pausesMs)
  }

  readonly #mixture: readonly Action[]
  /** How long a write may wait for the disk, and two events for each other, at most. */
  readonly #diskMsMax: number
  readonly #pauseMsMax: number

  protected get pausesMs(): readonly number[] {
    return [20, 200, 800]
  }

  async run(steps: number): Promise<void> {
    await this.play(() => this.#scenario(steps))
  }

  /** Runs until what is played is over, and fails when anything beside it does. */
  async play(scenario: () => Promise<void>): Promise<void> {
    await this.#root.run(scenario(), 20_000_000)
    if (this.#failure) throw this.#failure
  }

  async #scenario(steps: number): Promise<void> {
    await Promise.all(this.nodes.map((node) => this.start(node)))
    for (let step = 0; step < steps; step++) {
      await this.clock.sleep(this.random.next() * this.#pauseMsMax)
      this.act()
      if (this.#failure) throw this.#failure
    }
    await this.mendAll()
    await this.expectProgress()
    this.#checkAll()
  }

  /** What goes on beside the scenario must not fail either. */
  protected beside(work: Promise<unknown>): void {
    work.catch((error: Error) => {
      this.#failure ??= error
    })
  }

  /** Something happens, or is made to. */
  protected act(): void {
    const node = this.random.pick(this.nodes)
    let dice = this.random.next() * this.#mixture.reduce((sum, { weight }) => sum + weight, 0)
    for (const { weight, act } of this.#mixture) {
      dice -= weight
      if (dice < 0) return act(node)
    }
  }

  /** Each seed has its own mixture of faults, so that some meet often that seldom meet in the average. */
  protected mix(): Action[] {
    const some = (weight: number, act: (node: Node) => void) => ({
      weight: this.random.chance(0.3) ? 0 : weight * this.random.next() * 3,
      act,
    })
    return [
      { weight: 60, act: (node) => this.#proposeSomething(node) },
      { weight: 13, act: (node) => this.beside(this.start(node)) },
      { weight: 4, act: () => this.heal() },
      { weight: 4, act: (node) => this.resume(node) },
      some(6, (node) => this.kill(node)),
      some(1, () => this.#blackout()),
      some(3, () => this.#cut()),
      some(3, (node) => this.stop(node)),
      some(1, (node) => this.#loseEngine(node)),
      some(4, (node) => this.#checkpoint(node)),
      some(10, (node) => this.changeVoters(node)),
    ]
  }

  async start(node: Node): Promise<void> {
    if (node.process || node.isStarting) return
    node.isStarting = true
    node.starts++
    const life = `${node.name}.${node.starts}`
    const isCurrent = () => `${node.name}.${node.starts}` === life
    const clock = node.clock.mount()
    const file = await OrderFile.open(node.disk.mount(), 'order', this.founding(node))
    const state = this.stateOf(node, (item) => {
      this.#agree(node, item)
      this.applied(node, item)
    })
    const log = await OrderedLog.open(
      {
        node: node.name,
        life,
        file: this.#tamper(file, clock),
        state,
        clock,
        ...this.optionsOf(node, clock, state, file.durable),
        log: pino({ level: 'silent' }),
        keptItems: 20,
        fetch: (from, ballot, afterIndex) => this.#fetch(node, from, ballot, afterIndex),
        onFailed: () => {
          if (isCurrent()) this.#end(node)
        },
      },
      // What goes on of a process that has ended joins nothing any more.
      this.joining(node, (listener) => (isCurrent() ? this.#join(node.name, listener) : new Promise(() => {}))),
    ).catch(() => null)
    if (!isCurrent()) return
    node.isStarting = false
    if (!log) return
    node.process = { log, state }
    this.started(node, clock, life)
  }

  async #join(node: NodeId, listener: GroupListener): Promise<Group> {
    const group = await this.#group.join(node, listener)
    const { said } = this.#break
    if (!said) return group
    return { ...group, send: (bytes) => group.send(encodeMessage(said(decodeMessage(bytes), node))) }
  }

  #tamper(file: OrderFile, clock: Clock): OrderFile {
    const { written = (change) => change, isHasty } = this.#break
    const persist = async (changes: readonly Change[]) => {
      const done = clock.sleep(this.random.next() * this.#diskMsMax).then(() => file.persist(changes.map(written)))
      if (!isHasty) await done
    }
    return Object.create(file, {
      persist: { value: persist },
      durable: { value: file.durable },
      close: { value: () => file.close() },
      cut: { value: (index: number) => file.cut(index) },
    })
  }

  /** Over another network than the group's, but it is cut with it; a node that stands still does not answer. */
  async #fetch(
    node: Node,
    from: string,
    ballot: Ballot,
    afterIndex: number,
  ): Promise<readonly Item[] | { state: Buffer }> {
    await this.clock.sleep(this.random.next() * 20)
    const other = this.nodes.find(({ name }) => from.startsWith(`${name}#`))!
    if (other.isStopped || !this.mayFetch(node, from, other)) await this.clock.sleep(500)
    const { process } = other
    const items = process?.log.itemsAfter(ballot, afterIndex)
    if (!process || !items || other.isStopped || !this.mayFetch(node, from, other)) throw new StoreError('Disconnected')
    await this.clock.sleep(this.random.next() * 20)
    if (items !== 'cut') return items
    this.counts.installs++
    return { state: Buffer.from(JSON.stringify(process.state.items)) }
  }

  protected reach(a: Node, b: Node): boolean {
    return this.#sides === null || this.#sides.some((side) => side.includes(a.name) && side.includes(b.name))
  }

  /** Whether one node is answered by another one, which the group knows as `member`. */
  protected mayFetch(from: Node, _member: string, to: Node): boolean {
    return this.reach(from, to)
  }

  #agree(node: Node, item: Item): void {
    const agreed = this.agreed(node)
    const known = agreed[item.index - 1]
    if (known) return assert.deepEqual(item, known, `two entries have the index ${item.index}`)
    assert.equal(item.index, agreed.length + 1)
    agreed.push(item)
  }

  /** What has been applied anywhere in the node's cluster. */
  protected agreed(node: Node): Item[] {
    const cluster = this.clusterOf(node)
    const agreed = this.#agreed.get(cluster) ?? []
    this.#agreed.set(cluster, agreed)
    return agreed
  }

  #proposeSomething(node: Node): void {
    const refused = this.random.chance(0.1) ? ' refused' : ''
    this.beside(this.propose(node, `${++this.proposals}${refused}`))
  }

  protected async propose(
    node: Node,
    payload: string,
    change?: { voters: NodeId[]; afterIndex: number },
  ): Promise<void> {
    if (!node.process || node.isStopped) return
    try {
      await node.process.log.propose(payload, change)
      this.#acknowledged.add(payload)
      this.counts.acknowledged++
    } catch (error) {
      assert(error instanceof StoreError, String(error))
      if (error.code === 'InvalidParameters') {
        this.#refused.add(payload)
        this.counts.refused++
      } else if (error.code === 'OldEpoch') this.counts.declined++
      else if (error.code === 'Unsure') this.counts.unsure++
      else this.counts.lost++
    }
  }

  /** What else a node's log is told. */
  protected optionsOf(_node: Node, _clock: Clock, _state: ListState, _durable: Durable): Partial<OrderedLogOptions> {
    return {}
  }

  /** The log that a node begins with; none on those that join. */
  protected founding(node: Node): Durable | undefined {
    return node === this.nodes[0] ? GENESIS : undefined
  }

  protected stateOf(node: Node, check: (item: Item) => void): ListState {
    return new ListState(node.kept, check)
  }

  protected joining(_node: Node, join: JoinGroup): JoinGroup {
    return join
  }

  /** Nodes of different ones share the group, and nothing else. */
  protected clusterOf(_node: Node): string {
    return 'the only one'
  }

  /** An entry has taken effect on a node. */
  protected applied(_node: Node, _item: Item): void {}

  protected started(_node: Node, _clock: Clock, _life: string): void {}

  protected changeVoters(node: Node): void {
    const names = this.nodes.map(({ name }) => name)
    const share = this.random.pick([0.3, 0.7])
    const voters = names.filter(() => this.random.chance(share))
    if (voters.length === 0) return
    this.counts.electorates++
    const afterIndex = node.process?.state.electorate?.index ?? 0
    this.beside(this.propose(node, `voters ${++this.proposals}`, { voters, afterIndex }))
  }

  protected kill(node: Node): void {
    if (!node.process && !node.isStarting) return
    this.#end(node)
  }

  #end(node: Node, isPowerLoss = this.random.chance(0.5)): void {
    if (node.process) node.kept = node.process.state.durableItems
    node.process = null
    node.isStarting = false
    node.isStopped = false
    node.starts++
    node.clock.endProcess()
    if (isPowerLoss) {
      node.disk.powerLoss()
      this.counts.powerLosses++
    } else node.disk.kill()
    this.#group.kill(node.name)
    this.counts.kills++
  }

  /** The power fails everywhere at once. */
  #blackout(): void {
    this.counts.blackouts++
    for (const node of this.nodes) if (node.process || node.isStarting) this.#end(node, true)
  }

  #loseEngine(node: Node): void {
    if (!node.process) return
    this.counts.engines++
    this.#group.lose(node.name)
  }

  #cut(): void {
    const side = this.nodes.map(({ name }) => ({ name, isLeft: this.random.chance(0.5) }))
    this.cut([true, false].map((left) => side.filter(({ isLeft }) => isLeft === left).map(({ name }) => name)))
  }

  protected cut(sides: NodeId[][]): void {
    this.#sides = sides
    this.#group.partition(sides)
    this.counts.cuts++
  }

  protected heal(): void {
    if (this.#sides) this.#group.heal()
    this.#sides = null
  }

  protected stop(node: Node): void {
    if (!node.process || node.isStopped) return
    node.isStopped = true
    node.clock.stop()
    this.#group.stop(node.name)
    this.counts.stops++
  }

  protected resume(node: Node): void {
    if (!node.isStopped) return
    node.isStopped = false
    node.clock.resume()
    this.#group.resume(node.name)
  }

  #checkpoint(node: Node): void {
    if (!node.process || node.isStopped) return
    const { state, log } = node.process
    state.checkpoint()
    void log.cut(state.durableIndex).catch(() => {})
  }

  protected async mendAll(): Promise<void> {
    this.heal()
    for (const node of this.nodes) this.resume(node)
    for (const node of this.nodes) await this.start(node)
  }

  /** With nothing broken any more, everybody's proposals take effect, everywhere. */
  protected async expectProgress(): Promise<void> {
    const deadline = this.clock.monotonicMs() + LIVENESS_MS
    const succeed = async (node: Node): Promise<void> => {
      const payload = `${++this.proposals}`
      await this.start(node) // an engine that was lost before may have ended it only now
      await this.propose(node, payload)
      if (this.#acknowledged.has(payload)) return
      await this.clock.sleep(100)
      return succeed(node)
    }
    let left = this.nodes.length
    for (const node of this.nodes) void succeed(node).then(() => left--)
    const isSame = (node: Node) => node.process?.state.items.length === this.agreed(node).length
    while (left > 0 || !this.nodes.every(isSame)) {
      assert(this.clock.monotonicMs() < deadline, `no progress, ${left} wait: ${this.#describe()}`)
      await this.clock.sleep(100)
    }
  }

  #checkAll(): void {
    if (this.#failure) throw this.#failure
    const payloads = [...this.#agreed.values()].flat().map(({ payload }) => payload)
    const counted = new Map<string, number>()
    for (const payload of payloads) counted.set(payload, (counted.get(payload) ?? 0) + 1)
    for (const [payload, count] of counted) assert.equal(count, 1, `entry ${payload} is there ${count} times`)
    for (const payload of this.#acknowledged)
      assert(counted.has(payload), `entry ${payload} was acknowledged and is lost`)
    for (const payload of this.#refused) assert(isRefused(payload))
  }

  #describe(): string {
    return JSON.stringify(
      this.nodes.map(({ name, process, isStopped }) => ({
        name,
        isStopped,
        applied: process?.log.appliedIndex,
        isActive: process?.log.isActive,
      })),
    )
  }
}

/** A cluster of one, which is how each begins. */
const GENESIS: Durable = {
  promised: { counter: 1, configuration: 'genesis', round: 0, leader: '' },
  adopted: { counter: 1, configuration: 'genesis', round: 0, leader: '' },
  baseIndex: 0,
  items: [{ index: 1, origin: { life: 'genesis', sequence: 1 }, payload: 'genesis', voters: ['n1'] }],
}
