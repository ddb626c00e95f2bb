import assert from 'node:assert'
import { StoreError } from '../../../src/errors.ts'
import { vidOfName } from '../../../src/protocol/hash.ts'
import { oidIndex, oidKind, oidVid } from '../../../src/protocol/oid.ts'
import { type Account, objectsOf } from '../../../src/sheep/accounts.ts'
import { ClusterState } from '../../../src/sheep/cluster-state.ts'
import type { Entry, Vdi } from '../../../src/sheep/entries.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import type { Owner } from '../../../src/sheep/owner-contract.ts'
import { Owners } from '../../../src/sheep/owners.ts'
import { ReplicatedFamily } from '../../../src/sheep/replicated/replicated-family.ts'
import { SimClock } from '../../sim/clock.ts'
import { SeededRandom } from '../../sim/random.ts'
import { type ObjectsBreak, SimObjects } from './sim-objects.ts'
import { type Operation, UnitHistory } from './unit-history.ts'

const UNIT_BYTES = BLOCK_BYTES / 2
const VDI_BYTES = 3 * OBJECT_BYTES
/** Where the action is: the start, across a border of objects, and the end. */
const WINDOWS = [0, OBJECT_BYTES - 2 * BLOCK_BYTES, VDI_BYTES - 4 * BLOCK_BYTES]
const WINDOW_BYTES = 4 * BLOCK_BYTES
const UNITS = WINDOWS.flatMap((start) =>
  Array.from({ length: WINDOW_BYTES / UNIT_BYTES }, (_, i) => start + i * UNIT_BYTES),
)
const VDIS_MAX = 8
/** The vid that the first one of the name gets. */
const FAMILY = vidOfName('a')
const LOG_MS = 5

/** A node that owns the family, or did. */
interface Node {
  generation: number
  clock: SimClock
  family: ReplicatedFamily
  owners: Owners
  /** When the VDIs came that there were when it was replaced, by vid; null before. */
  births: ReadonlyMap<number, number> | null
  /** Never resolves; rejects when the node is gone. */
  gone: Promise<never>
  end(): void
}

/** What clients know of a working VDI: it keeps its history whatever its vid becomes. */
interface Working {
  name: string
  history: Map<number, UnitHistory>
  /** Requests under way. */
  users: Set<Promise<void>>
}

/** A frozen VDI: what it holds is what was read of it first. */
interface Snapshot {
  vid: number
  values: number[] | null
  /** Reads of the VDI that it was taken of, which it makes. */
  taken: Operation[]
  /** Nobody deletes what somebody has open. */
  readers: number
}

interface Picked {
  vid: number
  working: Working
}

/** It will never be known what became of a request: the node has gone. */
class Gone extends Error {}

/**
 * One family of VDIs, whose owner changes at any moment: clients with requests of any alignment, many at a time, snapshots, clones,
 * rollbacks and deletes; questions that end without an answer, full disks, losses of power, and owners that do not know yet that
 * they are none. Checked: an order of all requests explains what each unit was read as; snapshots hold one moment; accounts say what there is;
 * no object is left that nobody needs.
 */
export class ReplicatedModel {
  readonly random: SeededRandom
  readonly #root: SimClock
  readonly #objects: SimObjects
  readonly #state = new ClusterState()
  readonly #isDurable: boolean
  #node!: Node
  /** Owners that have been replaced and do not know. */
  #zombies: Node[] = []
  #generations = 0
  /** The entries that made VDIs, by vid: vids are used again. */
  readonly #births = new Map<number, number>()
  #values = 0
  #names = 0
  readonly #working = new Map<string, Working>()
  readonly #histories: { name: string; history: Map<number, UnitHistory> }[] = []
  readonly #snapshots = new Map<number, Snapshot>()
  readonly #underWay = new Set<Promise<void>>()
  /** What is done to VDIs as a whole goes one after the other. */
  #turns: Promise<void> = Promise.resolve()
  #failure: Error | null = null
  readonly counts = {
    writes: 0,
    reads: 0,
    discards: 0,
    drops: 0,
    flushes: 0,
    extents: 0,
    snapshots: 0,
    clones: 0,
    rollbacks: 0,
    deletes: 0,
    recounts: 0,
    losses: 0,
    takeovers: 0,
    powerLosses: 0,
    ended: 0,
    unanswered: 0,
    units: 0,
  }

  constructor(seed: number, broken: ObjectsBreak = {}) {
    this.random = new SeededRandom(seed)
    this.#root = new SimClock(this.random)
    this.#objects = new SimObjects(this.random, broken)
    this.#isDurable = this.random.chance(0.5)
    this.#objects.unsureness = this.random.pick([0, 0.01, 0.05])
  }

  get objectCounts(): SimObjects['counts'] {
    return this.#objects.counts
  }

  async run(steps: number): Promise<void> {
    await this.#root.run(this.#scenario(steps), 3_000_000)
  }

  async #scenario(steps: number): Promise<void> {
    const clock = this.#root.node().mount()
    this.#takeOver()
    await this.#create()
    const weights = this.#mix()
    for (let step = 0; step < steps; step++) {
      if (this.#failure) throw this.#failure
      if (this.#underWay.size > 12) await Promise.race(this.#underWay)
      await clock.sleep(this.random.next() * 8)
      this.#act(weights)
    }
    await this.#settle()
    if (this.#failure) throw this.#failure
    await this.#checkAll()
    await this.#deleteAll()
  }

  #mix(): [number, () => void][] {
    const weigh = (weight: number) => weight * this.random.next()
    const beside = (work: () => Promise<void>) => () => this.#beside(work())
    const ask = (work: (picked: Picked) => Promise<void>) => () => this.#beside(this.#asking(work))
    const inTurn = (work: () => Promise<void>) => () => this.#beside(this.#inTurn(work))
    return [
      [60, ask((picked) => this.#write(picked))],
      [25, ask((picked) => this.#read(picked))],
      [weigh(20), ask((picked) => this.#discard(picked))],
      [weigh(8), ask((picked) => this.#flush(picked))],
      [weigh(6), ask((picked) => this.#extents(picked))],
      [weigh(8), inTurn(() => this.#snapshot())],
      [weigh(4), inTurn(() => this.#clone())],
      [weigh(4), inTurn(() => this.#rollback())],
      [weigh(5), inTurn(() => this.#delete())],
      [weigh(5), beside(() => this.#reclaim())],
      [weigh(3), beside(() => this.#recover())],
      [weigh(3), () => this.#takeOver()],
      [weigh(2), () => this.#losePower()],
      [weigh(2), () => this.#toggleFullness()],
    ]
  }

  #act(weights: readonly [number, () => void][]): void {
    let dice = this.random.next() * weights.reduce((sum, [weight]) => sum + weight, 0)
    for (const [weight, act] of weights) {
      dice -= weight
      if (dice < 0) return act()
    }
  }

  #beside(work: Promise<void>): void {
    const done = work
      .catch((error: Error) => {
        if (!(error instanceof Gone)) this.#failure ??= error
      })
      .finally(() => this.#underWay.delete(done))
    this.#underWay.add(done)
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#turns.then(work)
    this.#turns = done.catch(() => {})
    return done
  }

  // Owners come and go

  #takeOver(): void {
    const old = this.#node as Node | undefined
    if (old) {
      this.counts.takeovers++
      old.births = new Map(this.#births)
      this.#zombies.push(old)
      if (this.random.chance(0.3)) this.#bury()
    }
    const generation = ++this.#generations
    const clock = this.#root.node()
    const family = new ReplicatedFamily({
      family: FAMILY,
      objects: this.#objects.port(generation, clock),
      state: this.#state,
      propose: (entry) => this.#propose(generation, clock, entry),
      onLoss: () => this.counts.losses++,
      viewsMax: this.random.pick([2, 1000]),
      pagesMax: this.random.pick([2, 1000]),
    })
    const owners = new Owners({ maker: family, state: this.#state, isOpen: () => true })
    let end: () => void = () => {}
    const gone = new Promise<never>((_resolve, reject) => {
      end = () => {
        clock.endProcess()
        reject(new Gone())
      }
    })
    gone.catch(() => {})
    this.#node = { generation, clock, family, owners, births: null, gone, end }
    if (old) this.#beside(this.#recover())
  }

  /** Those that do not know that they own nothing any more come to an end. */
  #bury(): void {
    for (const zombie of this.#zombies) zombie.end()
    this.#zombies = []
  }

  #losePower(): void {
    if (!this.#isDurable && this.random.chance(0.5)) return
    this.counts.powerLosses++
    this.#node.end()
    this.#bury()
    this.#objects.losePower()
    for (const { history } of this.#histories) for (const unit of history.values()) unit.add({ type: 'loss' })
    this.#takeOver()
  }

  #toggleFullness(): void {
    this.#objects.fullness = this.#objects.fullness > 0 ? 0 : this.random.pick([0.3, 1])
  }

  /** The log: entries of an owner that was replaced are refused. */
  async #propose(generation: number, clock: SimClock, entry: Entry): Promise<void> {
    await clock.latency(LOG_MS)
    if (generation !== this.#node.generation) throw new StoreError('OldEpoch')
    this.#state.check(entry)
    this.#state.apply(this.#state.index + 1, entry)
    if (entry.type === 'vdi') this.#births.set(entry.vdi.vid, this.#state.index)
    if ('newVid' in entry) this.#births.set(entry.newVid, this.#state.index)
    this.#node.family.applied(entry)
    this.#node.owners.tell(entry)
    await clock.latency(LOG_MS)
  }

  // What clients ask

  async #asking(work: (picked: Picked) => Promise<void>): Promise<void> {
    const picked = this.#pickWorking()
    if (!picked) return
    const { users } = picked.working
    const asked = work(picked)
    const over = asked
      .catch(() => {})
      .finally(() => {
        users.delete(over)
      })
    users.add(over)
    await asked
  }

  #pickWorking(): Picked | null {
    const working = [...this.#working.values()].filter(({ name }) => this.#state.vdis.hasWorking(name))
    if (working.length === 0) return null
    const picked = this.random.pick(working)
    return { working: picked, vid: this.#state.find(picked.name).vid }
  }

  /** Mostly the owner, and sometimes one that was. */
  /** One that was the owner can be asked about a VDI that it knew, and not about another one that has got its vid since. */
  #pickNode(zombies: number, vid: number): Node {
    const knew = this.#zombies.filter((node) => node.births?.get(vid) === this.#births.get(vid))
    if (knew.length === 0 || !this.random.chance(zombies)) return this.#node
    return this.random.pick(knew)
  }

  #range(): { offset: number; length: number } {
    const first = this.random.below(UNITS.length)
    if (this.random.chance(0.1)) return { offset: 0, length: VDI_BYTES }
    const left = UNITS.findIndex((unit, i) => i > first && unit !== UNITS[i - 1]! + UNIT_BYTES)
    const most = (left < 0 ? UNITS.length : left) - first
    return { offset: UNITS[first]!, length: UNIT_BYTES * (1 + this.random.below(Math.min(most, 6))) }
  }

  #unitsIn({ offset, length }: { offset: number; length: number }): number[] {
    return UNITS.filter((unit) => unit >= offset && unit < offset + length)
  }

  async #write(picked: Picked): Promise<void> {
    const range = this.#range()
    if (range.length === VDI_BYTES) return
    this.counts.writes++
    const value = ++this.#values
    const source = Buffer.alloc(range.length)
    for (let at = 0; at < range.length; at += 4) source.writeUInt32LE(value, at)
    const isDurable = this.#isDurable || this.random.chance(0.2)
    await this.#change(picked, range, value, isDurable, (owner, done) =>
      owner.write(range.offset, source, isDurable, done),
    )
  }

  async #discard(picked: Picked): Promise<void> {
    const isDrop = this.random.chance(0.5)
    const range = isDrop ? { offset: this.random.below(3) * OBJECT_BYTES, length: OBJECT_BYTES } : this.#range()
    this.counts[isDrop ? 'drops' : 'discards']++
    const isDurable = this.#isDurable || this.random.chance(0.2)
    await this.#change(picked, range, 0, isDurable, (owner, done) =>
      owner.discard(range.offset, range.length, isDurable, done),
    )
  }

  async #change(
    { vid, working }: Picked,
    range: { offset: number; length: number },
    value: number,
    isDurable: boolean,
    ask: (owner: Owner, done: (error: StoreError | null) => void) => void,
  ): Promise<void> {
    const node = this.#pickNode(0.1, vid)
    const units = this.#unitsIn(range).map((unit) => working.history.get(unit)!)
    const operation: Operation = { kind: 'write', value, isDurable }
    for (const unit of units) unit.add({ type: 'call', operation })
    const error = await this.#answer(node, node.owners.of(vid), ask)
    const isOneObject =
      Math.floor(range.offset / OBJECT_BYTES) === Math.floor((range.offset + range.length - 1) / OBJECT_BYTES)
    if (!error) for (const unit of units) unit.add({ type: 'return', operation })
    else if (error.code === 'NoSpace' && isOneObject) for (const unit of units) unit.add({ type: 'refused', operation })
  }

  /** What the owner answers; `Gone` when it never does. */
  async #answer(
    node: Node,
    owner: Owner,
    ask: (owner: Owner, done: (error: StoreError | null) => void) => void,
  ): Promise<StoreError | null> {
    const answered = new Promise<StoreError | null>((resolve) => ask(owner, resolve))
    const error = await Promise.race([answered, node.gone]).catch((gone: Error) => {
      this.counts.unanswered++
      throw gone
    })
    if (error?.code === 'OldEpoch') this.counts.ended++
    const expected = ['NoSpace', 'Unsure', ...(node === this.#node ? [] : ['OldEpoch'])]
    if (error && !expected.includes(error.code)) throw new Error(`nobody expects: ${error.message}`, { cause: error })
    return error
  }

  async #read({ vid, working }: Picked): Promise<void> {
    const frozen = [...this.#snapshots.values()]
    if (frozen.length > 0 && this.random.chance(0.2)) return this.#readFrozen(this.random.pick(frozen))
    this.counts.reads++
    const node = this.#pickNode(0.5, vid)
    const range = this.#range()
    const units = this.#unitsIn(range)
    const operations = units.map((): Operation => ({ kind: 'read', value: null, isDurable: false }))
    const histories = units.map((unit) => working.history.get(unit)!)
    histories.forEach((unit, i) => void unit.add({ type: 'call', operation: operations[i]! }))
    const values = await this.#valuesIn(node, vid, range)
    if (!values) return
    histories.forEach((unit, i) => {
      operations[i]!.value = values[i]!
      unit.add({ type: 'return', operation: operations[i]! })
    })
  }

  /** The units of a range; null after an error. */
  async #valuesIn(node: Node, vid: number, range: { offset: number; length: number }): Promise<number[] | null> {
    // The whole VDI is read a window at a time: the rest has nothing in it.
    const parts = range.length === VDI_BYTES ? WINDOWS.map((offset) => ({ offset, length: WINDOW_BYTES })) : [range]
    const values: number[] = []
    const owner = node.owners.of(vid)
    for (const { offset, length } of parts) {
      const target = Buffer.alloc(length, 0xff)
      const error = await this.#answer(node, owner, (_owner, done) => owner.read(offset, target, done))
      if (error) return null
      for (let at = 0; at < length; at += UNIT_BYTES) {
        const value = target.readUInt32LE(at)
        for (let word = at; word < at + UNIT_BYTES; word += 4)
          assert(
            target.readUInt32LE(word) === value,
            `torn: ${value} and ${target.readUInt32LE(word)} at ${offset + word}`,
          )
        values.push(value)
      }
    }
    return values
  }

  async #readFrozen(snapshot: Snapshot): Promise<void> {
    snapshot.readers++
    const values = await this.#valuesIn(this.#node, snapshot.vid, { offset: 0, length: VDI_BYTES }).finally(() => {
      snapshot.readers--
    })
    if (!values) return
    if (!snapshot.values) {
      snapshot.values = values
      snapshot.taken.forEach((operation, i) => {
        operation.value = values[i]!
      })
    }
    assert.deepStrictEqual(values, snapshot.values, `snapshot ${snapshot.vid.toString(16)} has changed`)
  }

  async #flush(picked: Picked): Promise<void> {
    this.counts.flushes++
    const operation: Operation = { kind: 'flush', value: null, isDurable: true }
    const units = [...picked.working.history.values()]
    for (const unit of units) unit.add({ type: 'flush', operation })
    const error = await this.#answer(this.#node, this.#node.owners.of(picked.vid), (owner, done) => owner.flush(done))
    if (!error) for (const unit of units) unit.add({ type: 'flushed', operation })
  }

  /** What is said to be a hole reads as zeros. */
  async #extents(picked: Picked): Promise<void> {
    this.counts.extents++
    const { working, vid } = picked
    const node = this.#pickNode(0.5, vid)
    const operations = UNITS.map((): Operation => ({ kind: 'read', value: null, isDurable: false }))
    UNITS.forEach((unit, i) => void working.history.get(unit)!.add({ type: 'call', operation: operations[i]! }))
    const extents = await Promise.race([
      node.owners
        .of(vid)
        .extents(0, VDI_BYTES)
        .catch((error: StoreError) => {
          if (error.code !== 'Unsure' && (error.code !== 'OldEpoch' || node === this.#node)) throw error
          return []
        }),
      node.gone,
    ])
    let end = 0
    for (const { lengthBytes, kind } of extents) {
      const holes = kind === 'hole' ? this.#unitsIn({ offset: end, length: lengthBytes }) : []
      for (const unit of holes) {
        const operation = operations[UNITS.indexOf(unit)]!
        operation.value = 0
        working.history.get(unit)!.add({ type: 'return', operation })
      }
      end += lengthBytes
    }
    assert(extents.length === 0 || end === VDI_BYTES)
  }

  // What is done to VDIs as a whole: as Sheep does it

  /** Runs until it is answered, or the owner is another one. False when it was refused. */
  async #manage(work: (node: Node) => Promise<void>): Promise<boolean> {
    const node = this.#node
    try {
      await Promise.race([work(node), node.gone])
      return true
    } catch (error) {
      if (error instanceof Gone) return false
      const expected = ['NoSpace', 'Unsure', 'VdiInUse', ...(node === this.#node ? [] : ['OldEpoch'])]
      if (!(error instanceof StoreError) || !expected.includes(error.code)) throw error
      return false
    }
  }

  async #make(node: Node, name: string, fromVid: number | null, entryOf: (vid: number) => Entry): Promise<void> {
    const vid = this.#state.freeVid(name)
    await node.family.make(vid, fromVid, entryOf(vid))
  }

  #newVdi(name: string, vid: number, parentVid: number): Vdi {
    return {
      vid,
      name,
      tag: '',
      snapId: 1,
      parentVid,
      family: FAMILY,
      sizeBytes: VDI_BYTES,
      copies: 3,
      createdAt: 1,
      snapshotAt: 0,
      deleting: false,
    }
  }

  #begin(name: string, values: readonly number[]): void {
    const working = {
      name,
      history: new Map(UNITS.map((unit, i) => [unit, new UnitHistory({ initial: values[i] })])),
      users: new Set<Promise<void>>(),
    }
    this.#working.set(name, working)
    this.#histories.push(working)
  }

  async #create(): Promise<void> {
    const name = 'a'
    const isMade = await this.#manage((node) =>
      this.#make(node, name, null, (vid) => ({ type: 'vdi', vdi: this.#newVdi(name, vid, 0) })),
    )
    if (!isMade) return this.#create()
    this.#begin(
      name,
      UNITS.map(() => 0),
    )
  }

  async #snapshot(): Promise<void> {
    const picked = this.#pickWorking()
    if (!picked || this.#state.vdis.size > VDIS_MAX) return
    const { vid, working } = picked
    const taken = UNITS.map((): Operation => ({ kind: 'read', value: null, isDurable: false }))
    UNITS.forEach((unit, i) => void working.history.get(unit)!.add({ type: 'call', operation: taken[i]! }))
    await this.#manage((node) =>
      this.#frozen(node, vid, () =>
        this.#make(node, working.name, vid, (newVid) => ({ type: 'snapshot', vid, newVid, tag: '', at: 1 })),
      ),
    )
    if (this.#state.vdis.get(vid)!.snapshotAt === 0) return
    this.counts.snapshots++
    UNITS.forEach((unit, i) => void working.history.get(unit)!.add({ type: 'return', operation: taken[i]! }))
    const snapshot: Snapshot = { vid, values: null, taken, readers: 0 }
    this.#snapshots.set(vid, snapshot)
    if (this.random.chance(0.5)) await this.#readFrozen(snapshot).catch(orGone)
  }

  async #frozen(node: Node, vid: number, work: () => Promise<void>): Promise<void> {
    const owner = node.owners.of(vid)
    await owner.freeze()
    try {
      await work()
    } finally {
      owner.thaw()
    }
  }

  #pickSnapshot(fits: (vdi: Vdi) => boolean): { snapshot: Snapshot; vdi: Vdi } | null {
    const all = [...this.#snapshots.values()].flatMap((snapshot) => {
      const vdi = this.#state.vdis.get(snapshot.vid)!
      return snapshot.values && fits(vdi) ? [{ snapshot, vdi }] : []
    })
    return all.length > 0 ? this.random.pick(all) : null
  }

  async #clone(): Promise<void> {
    const picked = this.#pickSnapshot(() => true)
    if (!picked || this.#state.vdis.size > VDIS_MAX) return
    const name = `clone${++this.#names}`
    await this.#manage((node) =>
      this.#make(node, name, picked.vdi.vid, (vid) => ({
        type: 'vdi',
        vdi: this.#newVdi(name, vid, picked.vdi.vid),
      })),
    )
    if (!this.#state.vdis.hasWorking(name)) return
    this.counts.clones++
    this.#begin(name, picked.snapshot.values!)
  }

  async #rollback(): Promise<void> {
    const picked = this.#pickWorking()
    if (!picked || this.#state.vdis.size > VDIS_MAX) return
    const { vid, working } = picked
    const chosen = this.#pickSnapshot(({ name }) => name === working.name)
    if (!chosen) return
    const operations = chosen.snapshot.values!.map((value): Operation => ({ kind: 'write', value, isDurable: true }))
    UNITS.forEach((unit, i) => void working.history.get(unit)!.add({ type: 'call', operation: operations[i]! }))
    await this.#manage((node) =>
      this.#frozen(node, vid, () =>
        this.#make(node, working.name, chosen.vdi.vid, (newVid) => ({
          type: 'rollback',
          vid,
          newVid,
          snapshotVid: chosen.vdi.vid,
          at: 1,
        })),
      ),
    )
    const isDone = this.#state.vdis.get(vid)?.deleting !== false
    if (isDone) this.counts.rollbacks++
    UNITS.forEach(
      (unit, i) =>
        void working.history.get(unit)!.add({ type: isDone ? 'return' : 'refused', operation: operations[i]! }),
    )
  }

  async #delete(): Promise<void> {
    const isOpen = (vid: number) => (this.#snapshots.get(vid)?.readers ?? 0) > 0
    const vdis = [...this.#state.vdis.values()].filter(({ vid, deleting }) => !deleting && !isOpen(vid))
    if (vdis.length < 2) return
    const { vid, name, snapshotAt } = this.random.pick(vdis)
    if (snapshotAt === 0 && this.#state.vdis.workingCount === 1) return // there is always one to write to
    const users = (snapshotAt === 0 && this.#working.get(name)?.users) || new Set<Promise<void>>()
    if (snapshotAt === 0) this.#working.delete(name) // nobody opens it any more
    this.#snapshots.delete(vid)
    while (users.size > 0) await Promise.race(users)
    await this.#manage(async (node) => {
      await this.#propose(node.generation, node.clock, { type: 'delete', vid })
      node.owners.drop(vid)
    })
    if (this.#state.vdis.get(vid)?.deleting !== false) this.counts.deletes++
  }

  async #reclaim(): Promise<void> {
    await this.#inTurn(async () => void (await this.#manage(async (node) => void (await node.family.reclaim()))))
  }

  async #recover(): Promise<void> {
    const done = this.#inTurn(async () => {
      const isDone = await this.#manage((node) => node.family.recover())
      if (isDone) this.counts.recounts++
    })
    await done
  }

  // Checks

  /** Everything is well again, and what is under way comes to an end. */
  async #settle(): Promise<void> {
    this.#objects.fullness = 0
    this.#objects.unsureness = 0
    this.#bury()
    while (this.#underWay.size > 0) await Promise.race(this.#underWay)
    if (this.#failure) throw this.#failure
    this.#takeOver()
    this.#bury()
    while (this.#underWay.size > 0) await Promise.race(this.#underWay)
  }

  async #checkAll(): Promise<void> {
    for (const name of this.#working.keys()) {
      const vid = this.#state.find(name).vid
      const operations = UNITS.map((): Operation => ({ kind: 'read', value: null, isDurable: false }))
      const histories = UNITS.map((unit) => this.#working.get(name)!.history.get(unit)!)
      histories.forEach((unit, i) => void unit.add({ type: 'call', operation: operations[i]! }))
      const values = await this.#valuesIn(this.#node, vid, { offset: 0, length: VDI_BYTES })
      histories.forEach((unit, i) => {
        operations[i]!.value = values![i]!
        unit.add({ type: 'return', operation: operations[i]! })
      })
    }
    for (const snapshot of this.#snapshots.values()) await this.#readFrozen(snapshot)
    for (const { name, history } of this.#histories) {
      for (const [unit, operations] of history) {
        this.counts.units++
        const why = operations.whyNot()
        assert(!why, `unit ${unit} of ${name}: ${why}`)
      }
    }
    await this.#node.family.reclaim()
    this.#checkObjects()
    await this.#node.family.recount()
    this.#checkObjects()
  }

  /** There is what is named and seen, and nothing else; and the accounts say so. */
  #checkObjects(): void {
    const objects = new Map([...this.#objects.all()].map((object) => [object.oid, object]))
    const seen = new Map<number, Map<number, number>>()
    const needed = new Set<bigint>()
    /** Who sees each block that holds data. */
    const seers = new Map<string, Set<number>>()
    const live = [...this.#state.vdis.values()].filter(({ deleting }) => !deleting)
    for (const { vid } of live) {
      const account = new Map<number, number>()
      const add = (line: number) => account.set(line, (account.get(line) ?? 0) + 1)
      seen.set(vid, account)
      const inode = [...objects.values()].find(({ oid }) => oidKind(oid) === 'inode' && oidVid(oid) === vid)
      assert(inode, `no inode of ${vid.toString(16)}`)
      needed.add(inode.oid)
      const page = inode.blocks.get(0)
      for (let index = 0; page && index < VDI_BYTES / OBJECT_BYTES; index++) {
        const head = page.readUInt32LE(index * 4)
        if (head === 0) continue
        add(objectsOf(head))
        let open: number[] = Array.from({ length: OBJECT_BYTES / BLOCK_BYTES }, (_, block) => block)
        let oid: bigint | null = (BigInt(head) << 32n) | BigInt(index)
        while (oid !== null && open.length > 0) {
          const object = objects.get(oid)
          assert(object, `${oid.toString(16)} is missing`)
          needed.add(oid)
          for (const block of open) {
            if (!object.blocks.get(block)) continue
            add(oidVid(oid))
            const key = `${oid}:${block}`
            seers.set(key, (seers.get(key) ?? new Set()).add(vid))
          }
          open = open.filter((block) => !object.blocks.has(block))
          oid = object.base
        }
      }
    }
    for (const { oid, blocks } of objects.values()) {
      const isDeleted = !seen.has(oidVid(oid))
      const kind = `${oidKind(oid)} object ${oidIndex(oid)} of ${oidVid(oid).toString(16)}`
      const isKept = needed.has(oid) || (oidKind(oid) === 'inode' && this.#state.vdis.has(oidVid(oid)))
      assert(isKept, `the ${kind}, ${isDeleted ? 'deleted' : 'live'}, is of no use: ${blocks.size} blocks`)
    }
    assert(this.#node.family.isCounted, 'the accounts are not exact')
    for (const { vid } of live) {
      const said = sorted(this.#node.family.accountOf(vid))
      assert.deepStrictEqual(said, sorted(seen.get(vid)!), `account of ${vid.toString(16)}`)
    }
    for (const [vid, usage] of this.#node.family.usage()) {
      const alone = [...seers.values()].filter((vids) => vids.size === 1 && vids.has(vid)).length * BLOCK_BYTES
      const all = [...seers.values()].filter((vids) => vids.has(vid)).length * BLOCK_BYTES
      assert(usage.allocatedBytes === all && usage.uniqueBytes + usage.sharedBytes === all, 'usage is what is seen')
      assert(
        usage.isExact ? usage.uniqueBytes === alone : usage.uniqueBytes >= alone,
        `${vid.toString(16)} has ${alone} alone`,
      )
    }
  }

  async #deleteAll(): Promise<void> {
    for (const { vid, deleting } of [...this.#state.vdis.values()]) {
      if (!deleting) await this.#propose(this.#node.generation, this.#node.clock, { type: 'delete', vid })
    }
    await this.#node.family.reclaim()
    const left = [...this.#objects.all()].map(({ oid }) => oid.toString(16))
    assert(left.length === 0, `left after everything was deleted: ${left}`)
    assert(this.#state.vdis.size === 0 && this.#state.makings.size === 0)
  }
}

const orGone = (error: unknown) => {
  if (!(error instanceof Gone)) throw error
}

const sorted = (account: Account) => [...account].sort(([a], [b]) => a - b)
