import assert from 'node:assert'
import { StoreError } from '../../../src/errors.ts'
import { dataOid, inodeOid } from '../../../src/protocol/oid.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import { overlaps, toBlocks } from '../../../src/sheep/copies/block-ranges.ts'
import { CopyHolder } from '../../../src/sheep/copies/copy-holder.ts'
import type { CopyAnswer, CopyRequest, CopyResults } from '../../../src/sheep/copies/messages.ts'
import { isIn, type Member, type View } from '../../../src/sheep/membership/view.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { createRing } from '../../../src/sheep/ring.ts'
import { SimClock } from '../../sim/clock.ts'
import { SeededRandom } from '../../sim/random.ts'
import { answerOf } from './answer-of.ts'
import { type Operation, whyNotDurable } from './linearizable.ts'
import { ModelOwner, VID } from './model-owner.ts'
import { SimCopyDisk, SimCopyStore } from './sim-copy-store.ts'

/** A way to break a rule on purpose: the checks must find it. */
export interface CopyBreak {
  /** An open seals nothing. */
  forgetsSeals?: boolean
  /** Holders take requests of any generation. */
  takesAnyGeneration?: boolean
  /** A write is applied whatever it names as the version before it. */
  takesAnyPredecessor?: boolean
  /** Who was in earlier views does not matter. */
  ignoresPastViews?: boolean
  /** Copies say nothing of what is open about them. */
  hasNoTails?: boolean
  /** Nor of what was written while another one was away. */
  hasNoEpochs?: boolean
  /** A copy that has not answered a write counts as one that has. */
  acknowledgesEarly?: boolean
  /** Acts on news of any age. */
  needsNoLease?: boolean
  /** What could not go on waits for another view, and for nothing else. */
  neverTriesAgain?: boolean
  /** A holder says that an object is removed, and keeps it. */
  forgetsRemovals?: boolean
  /** What no map names stays where it is. */
  keepsUnnamed?: boolean
  /** An object is removed some time after the map ceased to name it. */
  removesLate?: boolean
  /** Nobody knows of what was written in one view and is named in the next. */
  forgetsMakings?: boolean
  /** What is inherited counts as zeros when it is copied. */
  inheritsZeros?: boolean
  /** Nobody looks at checksums. */
  readsRot?: boolean
  /** What is rotten in a whole copy is not looked for in older ones. */
  mendsNothing?: boolean
  /** What older copies have counts as what is rotten in a whole one. */
  mendsAnyhow?: boolean
  /** A flush is over at once. */
  flushesNothing?: boolean
}

export type LogEntry =
  | { type: 'view'; view: View }
  | { type: 'owner'; owner: Member }
  /** Nothing was missing in this epoch, says this owner; void when there is another one. */
  | { type: 'clean'; epoch: number; owner: number }

/** What a node has of the log, made into what matters. */
export interface Known {
  /** Since the last clean one. */
  views: readonly View[]
  owner: { index: number; member: Member } | null
}

export interface Node {
  name: string
  clock: SimClock
  disk: SimCopyDisk
  lives: number
  process: Process | null
  isStopped: boolean
  leaseEndMs: number
}

export interface Process {
  member: Member
  clock: Clock
  store: SimCopyStore
  holder: CopyHolder
  /** How many entries have taken effect here. */
  applied: number
  owner: ModelOwner | null
}

interface Accusation {
  by: Member
  member: Member
}

interface Action {
  weight: number
  act(node: Node): void
}

export const OBJECTS = 4
const BLOCKS = 6
const ALL = Array.from({ length: BLOCKS }, (_, block) => block)
const OIDS = Array.from({ length: OBJECTS }, (_, index) => dataOid(VID, index))
const LEASE_MS = 2000
const CALL_MS = 1000
const ATTEMPT_MS = 4000
const LIVENESS_MS = 600_000
/** Some seeds have faults of one kind only, as they have to follow each other to show anything. */
type Mixture = 'lost' | 'alone' | 'torn' | 'moving'
const MIXTURES: readonly (Mixture | null)[] = [
  ...Array.from({ length: 8 }, () => null),
  ...(['torn', 'torn', 'lost', 'alone', 'alone', 'torn', 'moving', 'moving'] as const),
]

/**
 * A few nodes with copies of the objects of one VDI, whose owner changes; clients that send requests to any node and try again
 * elsewhere. The log of views, owners and clean entries is one list that cannot be wrong, and nodes hear of it late. Processes end, power fails,
 * nodes stand still, the network is cut, disks fill up. Checked: no block shows a history that no order of the requests explains; with
 * everything mended all requests are answered, all copies become the same, and are where they belong.
 */
export class CopyModel {
  readonly random: SeededRandom
  readonly #root: SimClock
  readonly clock: Clock
  readonly nodes: Node[]
  readonly #broken: CopyBreak
  readonly #entries: LogEntry[] = []
  readonly #knownAt = new Map<number, Known>()
  readonly #copies: number
  readonly isDurable: boolean
  readonly idleObjectsMax: number
  /** How many of the accusations nobody hears. */
  readonly #wordsLost: number
  /** How many of the writes that were not answered are tried again. */
  #patience = 1
  /** How many of them have the owner cut off with one copy that has them, before the others do. */
  #cutsPerWrite = 0
  /** How many requests are writes. */
  #writes: number
  #hasBlackouts: boolean
  readonly #syncMsMax: number
  #latencyMsMax: number
  /** Between two faults. */
  #pauseMsMax: number
  readonly #rings = new Map<View, (oid: bigint) => readonly string[]>()
  #sides: string[][] | null = null
  readonly #lastDelivery = new Map<string, number>()
  /** Requests of one owner under one view to one holder. */
  readonly #sent = new Map<string, number>()
  readonly #arrived = new Map<string, number>()
  /** Links, from and to, on which the next request is lost. */
  readonly #glitches = new Set<string>()
  /** By whom clients were answered lately: there they try first. */
  #answering: Node[] = []
  readonly #accusations: Accusation[] = []
  readonly #suspects = new Set<string>()
  readonly #leaving = new Set<string>()
  /** Who lost power, in which life, since everything was last on all disks. */
  readonly #lossy = new Map<string, string>()
  readonly #mixture: readonly Action[]
  #events = 0
  #values = 0
  readonly #history = new Map<string, Operation[]>()
  readonly #flushes: Pick<Operation, 'start' | 'end'>[] = []
  readonly #blackouts: number[] = []
  #failure: Error | null = null
  #areFaultsOver = false
  readonly counts = {
    writes: 0,
    discards: 0,
    reads: 0,
    flushes: 0,
    unanswered: 0,
    noSpace: 0,
    views: 0,
    owners: 0,
    cleans: 0,
    kills: 0,
    powerLosses: 0,
    blackouts: 0,
    cuts: 0,
    stops: 0,
    fullDisks: 0,
    rotten: 0,
    found: 0,
    mended: 0,
    silent: 0,
    glitches: 0,
    dropped: 0,
  }

  constructor(seed: number, broken: CopyBreak = {}) {
    this.#broken = broken
    this.random = new SeededRandom(seed)
    this.#root = new SimClock(this.random)
    this.clock = this.#root.node().mount()
    const count = 3 + this.random.below(5)
    this.#copies = this.random.pick([2, 3, 3])
    this.isDurable = this.random.chance(0.5)
    this.idleObjectsMax = this.random.pick([1, 1000])
    this.#writes = this.random.pick([0.45, 0.45, 0.1])
    this.#wordsLost = this.random.pick([0, 0.9])
    this.#syncMsMax = this.random.pick([2, 30, 200])
    this.#latencyMsMax = this.random.pick([2, 30, 100])
    this.#pauseMsMax = this.random.pick([500, 2000, 6000])
    this.nodes = Array.from({ length: count }, (_, index) => ({
      name: `n${index + 1}`,
      clock: this.#root.node(),
      disk: new SimCopyDisk(this.random),
      lives: 0,
      process: null,
      isStopped: false,
      leaseEndMs: 0,
    }))
    this.#hasBlackouts = this.random.chance(0.5)
    this.#mixture = this.#mix()
  }

  async run(requests: number): Promise<void> {
    await this.#root.run(this.#scenario(requests), 5_000_000)
  }

  async #scenario(requests: number): Promise<void> {
    for (const node of this.nodes) this.#start(node)
    const members = this.nodes.map(({ process }) => process!.member)
    this.#commit({ type: 'view', view: { epoch: 1, members, voters: this.nodes.map(({ name }) => name), at: 0 } })
    this.#format()
    this.#watchMembers()
    const clients = Array.from({ length: 4 }, () => this.#client(requests / 4))
    let areDone = false
    const all = Promise.all(clients).then(() => {
      areDone = true
    })
    this.#beside(all)
    while (!areDone && this.#events < 40 * requests) {
      await this.clock.sleep(this.random.next() * this.#pauseMsMax)
      this.#act()
      if (this.#failure) throw this.#failure
    }
    this.#mendAll()
    const deadline = this.clock.monotonicMs() + LIVENESS_MS
    while (!(areDone && this.#isClean())) {
      if (this.#failure) throw this.#failure
      assert(this.clock.monotonicMs() < deadline, `no progress: ${this.#describe(areDone)}`)
      await this.clock.sleep(500)
    }
    await this.#readAll() // opens what nobody has opened since
    await this.clock.sleep(10_000) // attempts that no client waits for any more come to an end
    await this.#readAll()
    await this.clock.sleep(10_000) // what that found to be rotten is put right
    this.#checkCopies()
    this.#checkHistory()
  }

  #beside(work: Promise<unknown>): void {
    work.catch((error: Error) => this.failed(error))
  }

  failed(error: Error): void {
    this.#failure ??= error
  }

  // Clients

  async #client(requests: number): Promise<void> {
    for (let count = 0; count < requests; count++) {
      await this.clock.sleep(this.random.next() * this.random.pick([10, 200]))
      const dice = this.random.next()
      const index = this.random.below(OBJECTS)
      const first = this.random.below(BLOCKS)
      const blocks = Array.from({ length: 1 + this.random.below(Math.min(3, BLOCKS - first)) }, (_, at) => first + at)
      if (dice < this.#writes) await this.#write(index, blocks)
      else if (dice < this.#writes * 1.2) await this.#discard(index)
      else if (dice < 0.95 || this.isDurable) await this.#read(index, blocks)
      else {
        await this.#write(index, blocks)
        await this.#flush()
        await this.#read(index, blocks)
      }
    }
  }

  /** Each attempt is a write of its own: whether the ones before took effect, and when, nobody knows. */
  async #write(index: number, blocks: readonly number[]): Promise<void> {
    for (;;) {
      const value = ++this.#values
      const operations = blocks.map((block) => this.#begin(index, block, 'write', value))
      const bytes = Buffer.alloc(blocks.length * BLOCK_BYTES)
      for (const [at] of blocks.entries()) bytes.writeUInt32LE(value, at * BLOCK_BYTES)
      const outcome = await this.#attempt((owner) => owner.write(index, { first: blocks[0]!, bytes }))
      if (outcome === 'NoSpace') {
        for (const block of blocks) this.#withdraw(index, block, value)
        this.counts.noSpace++
        return
      }
      if (outcome !== 'unanswered') {
        this.#end(operations)
        this.counts.writes++
        return
      }
      if (!this.random.chance(this.#patience)) return
    }
  }

  /** Removes an object; what its blocks are then is a value too, so that no two moments look the same. */
  async #discard(index: number): Promise<void> {
    for (;;) {
      const value = ++this.#values
      const operations = ALL.map((block) => this.#begin(index, block, 'write', value))
      const outcome = await this.#attempt((owner) => owner.discard(index, value))
      if (outcome === 'unanswered') continue
      assert(outcome !== 'NoSpace', 'a discard needs no space')
      this.#end(operations)
      this.counts.discards++
      return
    }
  }

  async #read(index: number, blocks: readonly number[]): Promise<void> {
    for (;;) {
      const operations = blocks.map((block) => this.#begin(index, block, 'read', 0))
      const range = { first: blocks[0]!, count: blocks.length }
      const outcome = await this.#attempt((owner) => owner.read(index, range))
      if (typeof outcome === 'string') continue
      for (const [at, operation] of operations.entries()) operation.value = outcome[at]!
      this.#end(operations)
      this.counts.reads++
      return
    }
  }

  async #flush(): Promise<void> {
    for (;;) {
      const start = ++this.#events
      const outcome = await this.#attempt((owner) => (this.#broken.flushesNothing ? Promise.resolve() : owner.flush()))
      if (outcome === 'unanswered') continue
      this.#flushes.push({ start, end: ++this.#events })
      this.counts.flushes++
      if (this.#hasBlackouts && !this.#areFaultsOver && this.random.chance(0.2)) this.#blackout() // when it is hardest
      return
    }
  }

  /** One request by way of some node, to whom that takes to be the owner. */
  async #attempt<T>(request: (owner: ModelOwner) => Promise<T>): Promise<T | 'NoSpace' | 'unanswered'> {
    const isKnown = this.#answering.length > 0 && this.random.chance(0.7)
    const gateway = this.random.pick(isKnown ? this.#answering : this.nodes)
    const serve = async () => {
      const owner = gateway.process && this.#known(gateway.process).owner?.member
      const node = this.nodes.find(({ name }) => name === owner?.node)
      if (!node) throw new StoreError('NoQuorum')
      return this.#call(gateway, node, async () => {
        if (!node.process?.owner || node.process.member.incarnation !== owner!.incarnation)
          throw new StoreError('OldEpoch')
        return request(node.process.owner)
      })
    }
    try {
      const answer = await this.#within(ATTEMPT_MS, this.#overClientsLink(gateway, serve))
      this.#answering = [gateway, ...this.#answering].slice(0, 3)
      return answer
    } catch (error) {
      this.#answering = this.#answering.filter((node) => node !== gateway)
      if (!(error instanceof StoreError)) throw error
      if (error.code === 'NoSpace') return 'NoSpace'
      this.counts.unanswered++
      await this.clock.sleep(this.random.next() * 1000)
      return 'unanswered'
    }
  }

  #begin(index: number, block: number, kind: 'read' | 'write', value: number): Operation {
    const operation: Operation = { kind, value, start: ++this.#events, end: Number.POSITIVE_INFINITY }
    const key = `${index}:${block}`
    const operations = this.#history.get(key) ?? []
    this.#history.set(key, operations)
    operations.push(operation)
    return operation
  }

  #end(operations: readonly Operation[]): void {
    const end = ++this.#events
    for (const operation of operations) operation.end = end
  }

  /** It was refused: nobody may ever read it. */
  #withdraw(index: number, block: number, value: number): void {
    const key = `${index}:${block}`
    this.#history.set(
      key,
      this.#history.get(key)!.filter((operation) => operation.kind === 'read' || operation.value !== value),
    )
  }

  // Network

  #reach(a: Node, b: Node): boolean {
    return this.#sides === null || this.#sides.some((side) => side.includes(a.name) && side.includes(b.name))
  }

  /** In order on each link. What is under way when the network is cut, or its receiver ends, is lost. */
  #deliver(from: Node, to: Node, fire: () => void): void {
    if (!this.#reach(from, to)) return
    const link = `${from.name} ${to.name}`
    const { lives } = to
    const nowMs = this.clock.monotonicMs()
    const atMs = Math.max(this.#lastDelivery.get(link) ?? 0, nowMs + this.random.next() * this.#latencyMsMax)
    this.#lastDelivery.set(link, atMs)
    this.clock.timer(atMs - nowMs, () => {
      if (this.#reach(from, to) && to.lives === lives) to.process?.clock.afterInput(fire)
    })
  }

  #call<T>(from: Node, to: Node, serve: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#deliver(from, to, () => {
        serve().then(
          (answer) => this.#deliver(to, from, () => resolve(answer)),
          (error: Error) => this.#deliver(to, from, () => reject(error)),
        )
      })
    })
  }

  /** Clients reach every node that lives, whatever is cut between nodes. */
  async #overClientsLink<T>(gateway: Node, serve: () => Promise<T>): Promise<T> {
    await this.clock.sleep(this.random.next() * this.#latencyMsMax)
    if (!gateway.process) throw new StoreError('Disconnected')
    const { clock } = gateway.process
    return new Promise((resolve, reject) => clock.afterInput(() => serve().then(resolve, reject)))
  }

  #within<T>(limitMs: number, work: Promise<T>, clock = this.clock): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = clock.timer(limitMs, () => reject(new StoreError('Disconnected')))
      work.then(resolve, reject).finally(() => timer.cancel())
    })
  }

  /** What an owner asks a holder. */
  ask(from: Node, to: Member, request: CopyRequest): Promise<CopyAnswer> {
    const node = this.nodes.find(({ name }) => name === to.node)!
    const { clock } = from.process!
    const session = `${from.process!.member.incarnation} ${to.incarnation} ${request.generation.epoch}.${request.generation.index}`
    const number = (this.#sent.get(session) ?? 0) + 1
    this.#sent.set(session, number)
    const isLost = this.#glitches.delete(`${from.name} ${to.node}`)
    const work = this.#call(from, node, () => {
      const { process } = node
      if (isLost) return new Promise<never>(() => {})
      if (number !== (this.#arrived.get(session) ?? 0) + 1) return new Promise<never>(() => {}) // one before it was lost
      this.#arrived.set(session, number)
      if (request.type === 'write' && this.random.chance(this.#cutsPerWrite)) this.#cutOff([from.name, to.node])
      if (process?.member.incarnation !== to.incarnation) return new Promise<never>(() => {})
      return this.#serve(process, request)
    })
    const isEarly = this.#broken.acknowledgesEarly && request.type === 'write' && this.random.chance(0.3)
    if (isEarly) return Promise.resolve({ refused: null, result: null })
    return this.#within(CALL_MS, work, clock)
  }

  async #serve(process: Process, request: CopyRequest): Promise<CopyAnswer> {
    const broken = this.#broken
    if ((broken.forgetsSeals || broken.takesAnyGeneration) && request.type !== 'open' && request.type !== 'look') {
      const forgetful = new CopyHolder(process.store)
      if (broken.forgetsSeals) forgetful.viewChanged(this.#known(process).views.at(-1)?.epoch ?? 0)
      return answerOf(forgetful, request)
    }
    if (broken.takesAnyPredecessor && request.type === 'write' && request.write.previous) {
      const previous = process.store.stateOf(request.write.oid)?.version ?? null
      return answerOf(process.holder, { ...request, write: { ...request.write, previous } })
    }
    if (broken.forgetsRemovals && request.type === 'remove') return { refused: null, result: null }
    if (broken.inheritsZeros && request.type === 'fill') {
      const { blocks, zeros, inherited } = request.contents
      const contents = { blocks, zeros: toBlocks([...zeros, ...(inherited?.ranges ?? [])]) }
      return answerOf(process.holder, { ...request, contents })
    }
    if (broken.mendsNothing && request.type === 'mend') return { refused: null, result: false }
    if (broken.hasNoEpochs && request.type === 'blocks-since') return { refused: null, result: [] }
    const answer = await answerOf(process.holder, request)
    if (answer.refused === 'rotten') this.counts.found++
    if (request.type === 'mend' && answer.refused === null && answer.result) this.counts.mended++
    if (broken.hasNoTails && request.type === 'open' && answer.refused === null) {
      const { copies, lostThroughEpoch } = answer.result as CopyResults['open']
      return { refused: null, result: { copies: copies.map((copy) => ({ ...copy, tail: [] })), lostThroughEpoch } }
    }
    return answer
  }

  // The log

  #commit(entry: LogEntry): void {
    this.#entries.push(entry)
    if (entry.type === 'view') this.counts.views++
    if (entry.type === 'owner') this.counts.owners++
    if (entry.type === 'clean') {
      this.counts.cleans++
      const view = this.#entries.find((other) => other.type === 'view' && other.view.epoch === entry.epoch)
      for (const [node, incarnation] of this.#lossy)
        if (view?.type === 'view' && !isIn(view.view, { node, incarnation })) this.#lossy.delete(node)
    }
  }

  /** What follows from the first so many entries. */
  #known({ applied }: { applied: number }): Known {
    const known = this.#knownAt.get(applied) ?? this.#sumUp(applied)
    this.#knownAt.set(applied, known)
    return known
  }

  #sumUp(applied: number): Known {
    const entries = this.#entries.slice(0, applied)
    const clean = entries.findLast((entry) => entry.type === 'clean')?.epoch ?? 0
    const views = entries.flatMap((entry) => (entry.type === 'view' && entry.view.epoch >= clean ? [entry.view] : []))
    const index = entries.findLastIndex(({ type }) => type === 'owner')
    const owner = entries[index]
    return { views, owner: owner?.type === 'owner' ? { index, member: owner.owner } : null }
  }

  get #view(): View {
    return this.#known({ applied: this.#entries.length }).views.at(-1)!
  }

  targetsOf(oid: bigint, view: View): readonly string[] {
    let locate = this.#rings.get(view)
    if (!locate) {
      const ring = createRing(
        view.members.map(({ node }) => {
          const number = Number(node.slice(1))
          const addr = Buffer.alloc(16, number)
          return { node, vnodeCount: 4, zone: number, nid: { addr, port: 7000 } }
        }),
      )
      locate = (wanted) => ring.locate(wanted, this.#copies).map(({ node }) => node)
      this.#rings.set(view, locate)
    }
    return locate(oid)
  }

  /** The nodes that make a majority and reach each other. */
  #majority(): readonly Node[] {
    const sides = this.#sides ?? [this.nodes.map(({ name }) => name)]
    const alive = sides.map((side) =>
      this.nodes.filter(({ name, process, isStopped }) => side.includes(name) && process && !isStopped),
    )
    return alive.find((side) => 2 * side.length > this.nodes.length) ?? []
  }

  /** An owner says that nothing was missing. */
  proposeClean(node: Node, epoch: number, owner: number): void {
    const now = this.#known({ applied: this.#entries.length })
    const isVoid = now.owner?.index !== owner || epoch <= now.views[0]!.epoch
    if (!isVoid && this.#majority().includes(node)) this.#commit({ type: 'clean', epoch, owner })
  }

  /** Puts out who is not there, and takes in who is. */
  #watchMembers(): void {
    const majority = this.#majority()
    if (majority.length > 0) {
      this.#hearAccusations(majority)
      const view = this.#view
      for (const member of view.members) {
        const isThere = majority.some(({ process }) => process?.member.incarnation === member.incarnation)
        if (!isThere || this.#suspects.has(member.incarnation)) this.#leaving.add(member.incarnation)
      }
      const isOver = ({ node, incarnation }: Member) => {
        const { process, leaseEndMs } = this.nodes.find(({ name }) => name === node)!
        return process?.member.incarnation !== incarnation || leaseEndMs <= this.clock.monotonicMs()
      }
      const gone = view.members.filter((member) => this.#leaving.has(member.incarnation) && isOver(member))
      const staying = view.members.filter((member) => !gone.includes(member))
      const came = majority
        .map(({ process }) => process!.member)
        .filter((member) => !staying.some(({ node }) => node === member.node))
      const members = [...staying, ...came]
      if (gone.length > 0 || came.length > 0) {
        this.#commit({ type: 'view', view: { ...view, epoch: view.epoch + 1, members } })
        for (const { incarnation } of gone) {
          this.#leaving.delete(incarnation)
          this.#suspects.delete(incarnation)
        }
      }
      const { owner } = this.#known({ applied: this.#entries.length })
      if (!owner || !isIn(this.#view, owner.member)) this.#nameOwner()
    }
    this.clock.timer(300 + this.random.next() * 500, () => this.#watchMembers())
  }

  #nameOwner(): void {
    if (this.#majority().length > 0) this.#commit({ type: 'owner', owner: this.random.pick(this.#view.members) })
  }

  /** Word of it may be lost. */
  suspect(node: Node, member: Member): void {
    if (!node.process) return
    if (this.random.chance(this.#wordsLost)) this.counts.silent++
    else this.#accusations.push({ by: node.process.member, member })
  }

  retryClock(clock: Clock): Clock {
    return this.#broken.neverTriesAgain ? { ...clock, timer: () => ({ cancel: () => {} }) } : clock
  }

  get keepsUnnamed(): boolean {
    return this.#broken.keepsUnnamed === true
  }

  get forgetsMakings(): boolean {
    return this.#broken.forgetsMakings === true
  }

  get removesLate(): boolean {
    return this.#broken.removesLate === true
  }

  /** Of those that are heard by now. Who is cut off accuses all others. */
  #hearAccusations(majority: readonly Node[]): void {
    const view = this.#view
    const isHeard = ({ by }: Accusation) => majority.some(({ process }) => process?.member === by) && isIn(view, by)
    for (const accusation of this.#accusations.filter(isHeard)) {
      this.#suspects.add(accusation.member.incarnation)
      this.#accusations.splice(this.#accusations.indexOf(accusation), 1)
    }
  }

  mayAct(node: Node): boolean {
    return this.#broken.needsNoLease || this.clock.monotonicMs() < node.leaseEndMs
  }

  // Nodes

  #start(node: Node): void {
    if (node.process) return
    node.lives++
    const clock = node.clock.mount()
    node.disk.readsRot = this.#broken.readsRot === true
    node.disk.matchesAnything = this.#broken.mendsAnyhow === true
    const store = new SimCopyStore(node.disk, clock, this.random, this.#syncMsMax)
    const incarnation = `${node.name}.${node.lives}`
    const member = { node: node.name, incarnation, address: node.name, zone: 0, vnodes: 1 }
    const process: Process = { member, clock, store, holder: new CopyHolder(store), applied: 0, owner: null }
    node.process = process
    const beat = () => {
      clock.timer(250, beat)
      const isIn = this.#view.members.some(({ incarnation }) => incarnation === member.incarnation)
      if (isIn && !this.#leaving.has(member.incarnation) && this.#majority().includes(node))
        node.leaseEndMs = this.clock.monotonicMs() + LEASE_MS
    }
    const learn = () => {
      clock.timer(this.random.next() * 300, learn)
      if (this.#majority().includes(node)) this.#learn(node, process)
    }
    clock.timer(0, beat)
    clock.timer(0, learn)
  }

  /** Some of the entries take effect here. */
  #learn(node: Node, process: Process): void {
    const count = this.random.below(this.#entries.length - process.applied + 1)
    const { views: viewsBefore } = this.#known(process)
    if (count === 0) return this.#dropIfIn(process, viewsBefore)
    const before = this.#known(process)
    process.applied += count
    const known = this.#known(process)
    const { views, owner } = known
    if (views.length === 0) return
    process.holder.viewChanged(views.at(-1)!.epoch)
    process.store.clean(views[0]!.epoch - 1, () => {}) // that epoch goes on
    if (owner?.index !== before.owner?.index || !process.owner) {
      process.owner?.end()
      process.owner = null
      if (owner?.member.incarnation === process.member.incarnation) {
        const seen = this.#broken.ignoresPastViews ? withoutPast(views) : views
        process.owner = new ModelOwner(this, node, { views: seen, owner })
      }
    } else process.owner.viewsChanged(this.#broken.ignoresPastViews ? withoutPast(views) : views)
    this.#dropIfIn(process, views)
  }

  #dropIfIn(process: Process, views: readonly View[]): void {
    if (!views.some((view) => isIn(view, process.member))) return
    const { node } = process.member
    const before = process.store.objectsOf(VID).length
    void process.holder.drop((oid) => views.some((view) => this.targetsOf(oid, view).includes(node)))
    this.counts.dropped += before - process.store.objectsOf(VID).length
  }

  /** The inode of the VDI, which holds its map here. */
  #format(): void {
    const oid = inodeOid(VID)
    const version = { generation: { epoch: 1, index: 0, incarnation: 'format' }, sequence: 1 }
    for (const node of this.nodes.filter(({ name }) => this.targetsOf(oid, this.#view).includes(name))) {
      const { store } = node.process!
      store.apply({ oid, version, previous: null, blocks: [], zeros: [] }, true, () => {})
      store.sync(() => {})
      store.settle(oid)
      node.disk.synced(node.disk.accepted)
    }
  }

  // Faults

  #act(): void {
    const node = this.random.pick(this.nodes)
    let dice = this.random.next() * this.#mixture.reduce((sum, { weight }) => sum + weight, 0)
    for (const { weight, act } of this.#mixture) {
      dice -= weight
      if (dice < 0) return act(node)
    }
  }

  #mix(): Action[] {
    const always = [
      { weight: 10, act: (node: Node) => this.#start(node) },
      { weight: 10, act: () => this.#heal() },
      { weight: 10, act: (node: Node) => this.#resume(node) },
      { weight: 10, act: (node: Node) => this.#emptyDisk(node) },
      { weight: 10, act: () => {} },
    ]
    switch (this.random.pick(MIXTURES)) {
      case 'lost': // one request, and all behind it
        return [
          ...always,
          { weight: 60, act: (each) => this.#glitch(each) },
          { weight: 6, act: () => this.#nameOwner() },
        ]
      case 'alone': // an owner that is asked goes on by itself
        this.#writes = 0.2
        this.#latencyMsMax = 2
        this.#pauseMsMax = 6000
        return [...always, { weight: 15, act: () => this.#cut('owner') }]
      case 'torn': // the last write has reached one copy, and is overtaken by those that the others have
        this.#writes = 0.4
        this.#patience = 0.2
        this.#cutsPerWrite = 0.2
        this.#pauseMsMax = 3000
        return [...always, { weight: 20, act: () => this.#heal() }]
      case 'moving': // copies are made and dropped all the time
        return [
          ...always,
          { weight: 15, act: (each) => this.#kill(each, false) },
          { weight: 10, act: (each) => this.#start(each) },
        ]
      case null:
    }
    const some = (weight: number, act: (node: Node) => void) => ({
      weight: this.random.chance(0.3) ? 0 : weight * this.random.next() * 3,
      act,
    })
    return [
      ...always,
      some(8, (node) => this.#kill(node, false)),
      some(8, (node) => this.#kill(node, true)),
      { weight: this.#hasBlackouts ? 1 : 0, act: () => this.#blackout() },
      some(8, () => this.#cut()),
      some(8, (node) => this.#stop(node)),
      some(6, (node) => this.#fillDisk(node)),
      some(12, () => this.#nameOwner()),
      some(30, (node) => this.#rot(node)),
    ]
  }

  /** What need not be durable may be lost with the power of all nodes that have it: so one at a time loses its power then. */
  #kill(node: Node, isPowerLoss: boolean): void {
    if (!node.process) return
    const mayLose = this.isDurable || this.#lossy.size === 0 || this.#lossy.has(node.name)
    const { member } = node.process
    node.process.owner?.end()
    node.process = null
    node.isStopped = false
    node.clock.endProcess()
    this.counts.kills++
    if (!isPowerLoss || !mayLose) return
    node.disk.powerLoss()
    this.#lossy.set(node.name, member.incarnation)
    this.counts.powerLosses++
  }

  #blackout(): void {
    this.counts.blackouts++
    this.#blackouts.push(++this.#events)
    for (const node of this.nodes) {
      this.#kill(node, false)
      node.disk.powerLoss()
    }
    this.#lossy.clear()
  }

  #glitch(node: Node): void {
    const owner = this.#known({ applied: this.#entries.length }).owner?.member.node
    if (owner) this.#glitches.add(`${owner} ${node.name}`)
    this.counts.glitches++
  }

  /** Bytes on a disk become others, while another one has them for good: that block is not lost, whatever comes. */
  #rot(node: Node): void {
    const oid = this.random.pick([inodeOid(VID), ...OIDS])
    const targets = this.nodes.filter(({ name }) => this.targetsOf(oid, this.#view).includes(name))
    const isWhole = ({ process, disk }: Node) => disk.isSynced && process?.store.stateOf(oid)?.kind === 'full'
    if (!targets.includes(node) || !targets.every(isWhole)) return
    const written = [...(node.disk.copies.get(oid)?.blocks.keys() ?? [])]
    if (written.length === 0) return
    const block = this.random.pick(written)
    const bytes = targets.map(({ disk }) => disk.bytesOf(oid, block))
    const own = node.disk.bytesOf(oid, block)
    const isSame = bytes.every((each, at) => each && own?.equals(each) && !targets[at]!.disk.rotten.has(each))
    // The copy of a former target may have rotted, and nobody has read it since: it may be the one that stays.
    const isUnnoticed = ({ disk }: Node) => {
      const rotten = disk.rotten.has(disk.bytesOf(oid, block) ?? Buffer.alloc(0))
      return rotten && overlaps(disk.copies.get(oid)!.valid, [{ first: block, count: 1 }])
    }
    if (!own || !isSame || this.nodes.some(isUnnoticed)) return
    node.disk.rotten.add(own)
    this.counts.rotten++
  }

  /** Anyhow, or so that the owner is left with few others: what they have then is what matters. */
  #cut(who: 'owner' | 'anybody' = this.random.pick(['owner', 'anybody'])): void {
    const owner = this.#known({ applied: this.#entries.length }).owner?.member.node
    const isLeft = (name: string) =>
      who === 'owner' ? name === owner || this.random.chance(0.2) : this.random.chance(0.4)
    const left = this.nodes.map(({ name }) => name).filter(isLeft)
    this.#cutOff(left)
  }

  #cutOff(names: readonly string[]): void {
    if (this.#areFaultsOver) return
    this.#sides = [[...names], this.nodes.map(({ name }) => name).filter((name) => !names.includes(name))]
    this.counts.cuts++
  }

  #heal(): void {
    this.#sides = null
  }

  #stop(node: Node): void {
    if (!node.process || node.isStopped) return
    node.isStopped = true
    node.clock.stop()
    this.counts.stops++
  }

  #resume(node: Node): void {
    if (!node.isStopped) return
    node.isStopped = false
    node.clock.resume()
  }

  #fillDisk(node: Node): void {
    node.disk.freeBlocks = (node.process?.store.reservedBlocks ?? 0) + this.random.below(4)
    this.counts.fullDisks++
  }

  #emptyDisk(node: Node): void {
    node.disk.freeBlocks = Number.POSITIVE_INFINITY
  }

  #mendAll(): void {
    this.#areFaultsOver = true
    this.#heal()
    for (const node of this.nodes) {
      this.#resume(node)
      this.#start(node)
      this.#emptyDisk(node)
    }
  }

  // What must be so in the end

  #isClean(): boolean {
    const { views } = this.#known({ applied: this.#entries.length })
    const isKnown = this.nodes.every(({ process }) => process?.applied === this.#entries.length)
    return views.length === 1 && views[0]!.members.length === this.nodes.length && isKnown && this.#areFaultsOver
  }

  async #readAll(): Promise<void> {
    for (let index = 0; index < OBJECTS; index++) await this.#read(index, ALL)
  }

  #checkCopies(): void {
    const oids = [inodeOid(VID), ...OIDS]
    const owner = this.nodes.find(({ process }) => process?.owner)!.process!.owner!
    for (const oid of oids) {
      const isMapped = owner.maps(oid)
      const targets = isMapped ? this.targetsOf(oid, this.#view) : []
      const [first] = targets
      const expected = this.nodes.find(({ name }) => name === first)?.disk.describe(oid)
      for (const { name, disk } of this.nodes) {
        if (targets.includes(name)) assert.equal(disk.describe(oid), expected, `copies of ${oid.toString(16)} differ`)
        else assert(!disk.hasObject(oid), `${name} has ${oid.toString(16)}, which does not belong there`)
      }
      if (isMapped)
        assert(expected?.startsWith('full [{"first":0,"count":1024}]'), `no whole copy of ${oid.toString(16)}`)
    }
  }

  #checkHistory(): void {
    for (const [block, operations] of this.#history) {
      const why = whyNotDurable(operations, { flushes: this.#durableAfter, blackouts: this.#blackouts })
      assert(why === null, `block ${block}: ${why}`)
    }
  }

  /** Where each write is durable, all that is acknowledged is at any time as if it had been flushed. */
  get #durableAfter(): readonly Pick<Operation, 'start' | 'end'>[] {
    return this.isDurable ? this.#blackouts.map((at) => ({ start: at, end: at - 1 })) : this.#flushes
  }

  #describe(areDone: boolean): string {
    const { views, owner } = this.#known({ applied: this.#entries.length })
    const owned = this.nodes.map(({ name, process, disk }) => ({
      name,
      applied: process?.applied,
      isOwner: process?.owner != null,
      copies: [...disk.copies.keys()].map((oid) => `${oid.toString(16)} ${disk.describe(oid).slice(0, 60)}`),
    }))
    return JSON.stringify(
      { areDone, entries: this.#entries.length, epochs: views.map(({ epoch }) => epoch), owner, owned },
      null,
      1,
    )
  }
}

/** As if those who are there now had always been. */
function withoutPast(views: readonly View[]): readonly View[] {
  return views.map((view) => ({ ...view, members: views.at(-1)!.members }))
}
