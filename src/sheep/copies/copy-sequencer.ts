import { StoreError } from '../../errors.ts'
import type { Member, View } from '../membership/view.ts'
import { BLOCK_BYTES } from '../object-format.ts'
import type { NodeId } from '../order/item.ts'
import {
  ALL_BLOCKS,
  type Blocks,
  blocksOf,
  firstBlocks,
  intersect,
  overlaps,
  subtract,
  toBlocks,
} from './block-ranges.ts'
import type { BlockContents, BlockRange, BlockRun, CopyState } from './copy-store.ts'
import type { CopyAnswer, CopyRequest, CopyResults, RequestOf, RequestType } from './messages.ts'
import { deferred, OwnedObject, type PendingWrite } from './open-object.ts'
import {
  aheadOf,
  baseOf,
  findAuthority,
  holdersByView,
  type PlacedView,
  type Report,
  validBlocks,
} from './reconcile.ts'
import { type Generation, isSameVersion, type Version } from './version.ts'

export interface CopySequencerOptions {
  vid: number
  /** The entry of the log that names this owner, and the life of its process. */
  index: number
  incarnation: string
  /** So many copies at least have what is acknowledged. */
  copiesMin: number
  /** All views since the last clean one, which comes first, up to the one in effect. */
  views: readonly View[]
  targetsOf(oid: bigint, view: View): readonly NodeId[]
  /** Brings requests to a holder, as `messages.ts` says. Rejects when there is no answer in time. */
  ask(to: Member, request: CopyRequest): Promise<CopyAnswer>
  /** Whether there is a lease. Asked after the data is in hand. */
  mayAct(): boolean
  /** The member does not answer: it is to be put out of the view, however long that takes. Nothing goes on before. */
  suspect(member: Member): void
}

/**
 * The only one that reads and writes the objects of a VDI, for as long as an entry of the log says so.
 *
 * 1. An object is opened before its first use under each view: all who may have a copy seal it against older generations and say
 *    what they have; every view that may have acknowledged something is covered; the copies are brought to the best of them,
 *    under a version of their own, and what writes under way have left at some of them is at all of them. Else the request waits.
 * 2. A write goes to all acting copies in parallel. It is acknowledged when all of them have it but those that are stale on their
 *    disks, and at least `copiesMin`. One that was sent is done in the end: after each open it is sent again, before
 *    anything else. Space for it is set aside everywhere before, so NoSpace means that it is nowhere.
 * 3. A read that overlaps a write waits for it, at both its ends. Who holds no lease once the data is in hand says nothing of it.
 * 4. Who does not answer is suspected; all else waits for another view.
 *
 * Errors: NoSpace, nothing was done; Unsure, it may have been done; OldEpoch, there is another owner; NoObject.
 */
export class CopySequencer {
  readonly #options: CopySequencerOptions
  #views: readonly View[]
  #generation: Generation
  #sequence = 0
  #isEnded = false
  readonly #objects = new Map<bigint, OwnedObject>()
  /** Settles when anything is known anew of the cluster: what waits tries again. */
  #changed = deferred()
  #batch: { objects: OwnedObject[]; reports: Promise<Reports> } | null = null
  /** Sequences given away and not done: the watermark stays below them. */
  readonly #unfinished = new Set<number>()
  #saidWatermark = 0
  /** Reads go to the copies in turn. */
  #turn = 0
  /** Who may have something that is not on the disk, with the last sequence that it was sent. */
  readonly #unsynced = new Map<NodeId, number>()

  constructor(options: CopySequencerOptions) {
    this.#options = options
    this.#views = options.views
    const { epoch, members } = options.views.at(-1)!
    this.#generation = { epoch, index: options.index, incarnation: options.incarnation }
    for (const { node } of members) this.#unsynced.set(node, 0)
  }

  get epoch(): number {
    return this.#generation.epoch
  }

  /** A view has taken effect, or the views before a clean one are forgotten. */
  viewsChanged(views: readonly View[]): void {
    this.#views = views
    const { epoch, members } = views.at(-1)!
    if (epoch === this.#generation.epoch) for (const object of this.#objects.values()) this.#forgetHolders(object)
    else {
      this.#generation = { ...this.#generation, epoch }
      this.#unfinished.clear()
      this.#unsynced.clear()
      for (const { node } of members) this.#unsynced.set(node, this.#sequence)
      for (const object of this.#objects.values()) object.close()
    }
    this.#change()
    for (const object of this.#objects.values()) if (object.pending.length > 0) this.#reopen(object)
  }

  /** Another owner was named, or the node stops: everything under way fails. */
  end(): void {
    this.#isEnded = true
    for (const object of this.#objects.values()) {
      object.close()
      for (const { settled } of object.pending.splice(0)) settled.reject(new StoreError('Unsure'))
    }
    this.#change()
  }

  /** Whole blocks. `exists` says whether the block map names the object; a write that makes it is durable. */
  async write(oid: bigint, contents: BlockContents, { exists = true, durable = true } = {}): Promise<void> {
    const object = this.#object(oid, exists)
    const blocks = blocksOf(contents)
    for (;;) {
      await this.#opened(object)
      const { term } = object
      const changed = this.#changed.promise
      const isReserved = await this.#reserve(object, toBlocks(contents.blocks.map(rangeOf)))
      if (object.term !== term) continue
      if (isReserved === false) throw new StoreError('NoSpace')
      if (isReserved && object.acting.size >= this.#options.copiesMin) break
      await changed
    }
    const version = this.#nextVersion()
    const settled = deferred()
    const write = { contents, blocks, durable: durable || !object.exists, version, waiting: new Set<NodeId>(), settled }
    object.pending.push(write)
    this.#send(object, write, version)
    await settled.promise
    if (!this.#options.mayAct()) throw new StoreError('Unsure')
  }

  /** The blocks of an object that the block map names. */
  async read(oid: bigint, range: BlockRange): Promise<BlockContents> {
    const object = this.#object(oid, true)
    for (;;) {
      await this.#opened(object)
      const { term } = object
      await object.quiet([range])
      if (object.term !== term) continue
      const copies = [...object.acting.values()].filter(({ missing }) => !overlaps(missing, [range]))
      const copy = copies[this.#turn++ % copies.length]
      if (!copy) {
        object.close()
        continue
      }
      const changed = this.#changed.promise
      const answer = await this.#ask(copy.member, { type: 'read', oid, range })
      if (answer === null) await changed
      if (answer === null || object.term !== term) continue
      if (answer.refused) {
        object.close()
        continue
      }
      // What was read may be of a write that began meanwhile.
      await object.quiet([range])
      if (object.term !== term) continue
      if (!this.#options.mayAct()) throw new StoreError('Unsure')
      return answer.result
    }
  }

  /** Everything acknowledged before is on the disks of all that have it. */
  async flush(): Promise<void> {
    for (;;) {
      this.#throwIfEnded()
      const { epoch } = this
      const changed = this.#changed.promise
      const unsynced = new Map(this.#unsynced)
      const members = this.#view.members.filter(({ node }) => unsynced.has(node))
      const answers = await Promise.all(members.map((member) => this.#ask(member, { type: 'sync' })))
      if (epoch !== this.epoch) continue
      if (answers.includes(null)) {
        await changed
        continue
      }
      for (const [node, sequence] of unsynced) if (this.#unsynced.get(node) === sequence) this.#unsynced.delete(node)
      if (!this.#options.mayAct()) throw new StoreError('Unsure')
      return
    }
  }

  /** Tells the holders how far all writes are everywhere, if no write has. For when there is nothing else to do. */
  spreadWatermark(): void {
    const watermark = this.#watermark()
    if (this.#isEnded || !watermark || watermark.sequence === this.#saidWatermark) return
    this.#saidWatermark = watermark.sequence
    for (const member of this.#view.members) void this.#ask(member, { type: 'watermark', watermark })
  }

  /**
   * Copies up to `blocksMax` blocks to a target that lacks them. Returns how many it copied: 0 when no target lacks any.
   *
   * @throws StoreError NoSpace when the target has none.
   */
  async fill(oid: bigint, blocksMax: number): Promise<number> {
    const object = this.#object(oid, true)
    await this.#opened(object)
    if (this.#lacksTarget(object)) object.close() // one is stale
    await this.#opened(object)
    const { term } = object
    const copy = [...object.acting.values()].find(
      ({ member, missing }) => missing.length > 0 && this.#isTarget(oid, member),
    )
    const range = firstBlocks(copy?.missing ?? [], blocksMax)
    if (!copy || !range) return 0
    const contents = await this.read(oid, range)
    if (object.term !== term) return range.count
    const changed = this.#changed.promise
    const answer = await this.#ask(copy.member, { type: 'fill', oid, contents })
    if (answer === null) await changed
    else if (answer.refused === 'no space') throw new StoreError('NoSpace')
    else if (answer.refused) object.close()
    else if (object.term === term) copy.missing = subtract(copy.missing, [range])
    this.#unsynced.set(copy.member.node, this.#sequence)
    return range.count
  }

  /** Whether all targets in the view in effect have the whole object, as far as is known without asking. */
  isComplete(oid: bigint): boolean {
    const object = this.#objects.get(oid)
    if (!object?.isOpen || this.#lacksTarget(object)) return false
    return [...object.acting.values()].every(
      ({ member, missing }) => missing.length === 0 || !this.#isTarget(oid, member),
    )
  }

  get #view(): View {
    return this.#views.at(-1)!
  }

  #object(oid: bigint, exists: boolean): OwnedObject {
    const object = this.#objects.get(oid) ?? new OwnedObject(oid, exists)
    this.#objects.set(oid, object)
    object.exists ||= exists
    return object
  }

  #change(): void {
    this.#changed.resolve()
    this.#changed = deferred()
  }

  #throwIfEnded(): void {
    if (this.#isEnded) throw new StoreError('OldEpoch')
  }

  #nextVersion(): Version {
    const sequence = ++this.#sequence
    this.#unfinished.add(sequence)
    return { generation: this.#generation, sequence }
  }

  #watermark(): Version | null {
    const sequence = Math.min(this.#sequence, ...[...this.#unfinished].map((unfinished) => unfinished - 1))
    return sequence > 0 ? { generation: this.#generation, sequence } : null
  }

  #targets(oid: bigint): readonly NodeId[] {
    return this.#options.targetsOf(oid, this.#view)
  }

  #isTarget(oid: bigint, { node }: Member): boolean {
    return this.#targets(oid).includes(node)
  }

  #lacksTarget(object: OwnedObject): boolean {
    return this.#targets(object.oid).some((node) => !object.acting.has(node))
  }

  /** Null when nothing more can come of it under this generation: there is no answer, or a newer one is known there. */
  async #ask<T extends RequestType>(
    to: Member,
    request: Omit<RequestOf<T>, 'vid' | 'generation'> & { type: T },
  ): Promise<Exclude<CopyAnswer<T>, { refused: 'old generation' }> | null> {
    const { vid, ask, suspect } = this.#options
    const whole = { ...request, vid, generation: this.#generation } as unknown as CopyRequest
    try {
      const answer = (await ask(to, whole)) as CopyAnswer<T>
      return answer.refused === 'old generation' ? null : answer
    } catch {
      suspect(to)
      return null
    }
  }

  // Opening

  async #opened(object: OwnedObject): Promise<void> {
    while (!object.isOpen || this.#isEnded) {
      this.#throwIfEnded()
      object.opening ??= this.#open(object).finally(() => {
        object.opening = null
      })
      await object.opening
    }
  }

  /** For writes under way, which learn of a failure by themselves. */
  #reopen(object: OwnedObject): void {
    object.close()
    this.#opened(object).catch(() => {})
  }

  async #open(object: OwnedObject): Promise<void> {
    while (!object.isOpen && !this.#isEnded) {
      const changed = this.#changed.promise
      const { epoch } = this
      const { term } = object
      const reports = await this.#collect(object)
      const isStill = () => epoch === this.epoch && term === object.term && !this.#isEnded
      if (reports && isStill() && (await this.#bringTogether(object, reports, isStill))) return
      if (isStill()) await changed
    }
  }

  /** What all holders say of an object, asked together with others; null when one of them does not say anything. */
  async #collect(object: OwnedObject): Promise<readonly Report[] | null> {
    if (!this.#batch || this.#batch.objects.length === BATCH_MAX) {
      const objects: OwnedObject[] = []
      const reports = Promise.resolve().then(() => {
        if (this.#batch?.objects === objects) this.#batch = null
        return this.#askHolders(objects)
      })
      this.#batch = { objects, reports }
    }
    this.#batch.objects.push(object)
    return (await this.#batch.reports)?.get(object.oid) ?? null
  }

  async #askHolders(objects: readonly OwnedObject[]): Promise<Reports> {
    const wanted = new Map<Member, bigint[]>()
    for (const { oid } of objects) {
      for (const node of this.#possibleHolders(oid)) {
        const member = this.#view.members.find((candidate) => candidate.node === node)!
        wanted.set(member, [...(wanted.get(member) ?? []), oid])
      }
    }
    const reports = new Map<bigint, Report[]>(objects.map(({ oid }) => [oid, []]))
    const answers = await Promise.all(
      [...wanted].map(async ([member, oids]) => ({ member, answer: await this.#ask(member, { type: 'open', oids }) })),
    )
    for (const { member, answer } of answers) {
      if (!answer || answer.refused) return null
      const { copies, lostThroughEpoch } = answer.result as CopyResults['open']
      for (const copy of copies) reports.get(copy.oid)?.push({ ...copy, member, lostThroughEpoch })
    }
    return reports
  }

  #placedViews(oid: bigint): readonly PlacedView[] {
    return this.#views.map((view) => ({ ...view, targets: this.#options.targetsOf(oid, view) }))
  }

  #possibleHolders(oid: bigint): readonly NodeId[] {
    return [...holdersByView(this.#placedViews(oid)).values()].at(-1)!
  }

  /** Makes the copies one object again. False when that has to wait for what is not here. */
  async #bringTogether(object: OwnedObject, reports: readonly Report[], isStill: () => boolean): Promise<boolean> {
    const { oid } = object
    if (!object.exists) {
      // Whatever anybody has is left of an attempt to make it.
      const made = reports.filter(({ state, member }) => state || this.#isTarget(oid, member))
      const plans = made.map((report) => ({ report, valid: ALL_BLOCKS }))
      return this.#begin(object, null, plans, isStill)
    }
    const best = findAuthority(this.#placedViews(oid), reports, this.#options.copiesMin)
    const authority = best && (await this.#complete(best, reports, isStill))
    if (!authority || !isStill()) return false
    const all = reports.map((report) => (report === best ? authority : report))
    const plans = await this.#plan(object, all, authority)
    if (!plans || !isStill()) return false
    const isOne = plans.every(
      ({ report: { state } }) => state?.kind === 'full' && isSameVersion(state.version, authority.state!.version),
    )
    let version = authority.state!.version
    if (!isOne) {
      version = this.#nextVersion()
      const areAdopted = await this.#adopt(plans, version)
      if (!areAdopted || !isStill()) return false
      const areEqual = await this.#fillTails(object, plans, authority, isStill)
      if (!areEqual || !isStill()) return false
      this.#unfinished.delete(version.sequence)
    }
    for (const { report } of plans)
      if (!isOne || report.tail.length > 0) void this.#ask(report.member, { type: 'settle', oid })
    return this.#begin(object, version, plans, isStill)
  }

  /**
   * Brings to the best whole copy what a partial one has that is newer: such writes may have been acknowledged, when the whole one
   * has lost power since. By a write, so that there is a whole copy at every moment. Null when that does not come about.
   */
  async #complete(best: Report, reports: readonly Report[], isStill: () => boolean): Promise<Report | null> {
    const ahead = aheadOf(best, reports)
    if (!ahead) return best
    const { oid, member, tail } = best
    const state = best.state!
    const { epoch } = state.version.generation
    const changed = await this.#ask(ahead.member, { type: 'blocks-since', oid, epoch })
    if (!changed || changed.refused || !isStill()) return null
    const newer = intersect(ahead.state!.valid, toBlocks([...ahead.tail, ...(changed.result as readonly BlockRange[])]))
    const reads = await Promise.all(newer.map((range) => this.#ask(ahead.member, { type: 'read', oid, range })))
    const contents: { blocks: BlockRun[]; zeros: BlockRange[] } = { blocks: [], zeros: [] }
    for (const read of reads) {
      if (!read || read.refused) return null
      contents.blocks.push(...(read.result as BlockContents).blocks)
      contents.zeros.push(...(read.result as BlockContents).zeros)
    }
    const blocks = toBlocks(contents.blocks.map(rangeOf))
    const reserved = await this.#ask(member, { type: 'reserve', oid, blocks })
    if (reserved?.refused !== null || !isStill()) return null
    const version = this.#nextVersion()
    const write = { ...contents, oid, version, previous: state.version }
    const written = await this.#ask(member, { type: 'write', write, durable: true, watermark: null })
    if (written?.refused !== null) return null
    const entries = newer.map((range) => ({ ...range, version, previous: state.version }))
    return { ...best, state: { ...state, version }, tail: [...tail, ...entries] }
  }

  /** What each copy keeps; null when the authority does not say. */
  async #plan(object: OwnedObject, reports: readonly Report[], authority: Report): Promise<Plan[] | null> {
    const plans = await Promise.all(
      reports
        .filter(({ state, member }) => isUsable(state) || this.#isTarget(object.oid, member))
        .map(async (report) => {
          const base = baseOf(report)
          const isSame = report.state && isSameVersion(report.state.version, authority.state!.version)
          const epoch = base && !isSame ? base.generation.epoch : null
          const answer =
            epoch === null
              ? { refused: null, result: [] }
              : await this.#ask(authority.member, { type: 'blocks-since', oid: object.oid, epoch })
          if (!answer || answer.refused) return null
          return { report, valid: validBlocks(report, authority, answer.result as readonly BlockRange[]) }
        }),
    )
    return plans.includes(null) ? null : (plans as Plan[])
  }

  /** All, or nobody is filled: what is filled must not meet a copy later that knows nothing of this. */
  async #adopt(plans: readonly Plan[], version: Version): Promise<boolean> {
    const answers = await Promise.all(
      plans.map(({ report: { oid, member }, valid }) =>
        this.#ask(member, { type: 'adopt', adoption: { oid, version, valid } }),
      ),
    )
    return answers.every((answer) => answer?.refused === null)
  }

  /** Writes under way have reached some copies: what they left there, or did not, is made the same before anybody reads it. */
  async #fillTails(
    object: OwnedObject,
    plans: readonly Plan[],
    authority: Report,
    isStill: () => boolean,
  ): Promise<boolean> {
    const { oid } = object
    const open = toBlocks(plans.flatMap(({ report }) => report.tail))
    for (const plan of plans) {
      for (const range of intersect(subtract(ALL_BLOCKS, plan.valid), open)) {
        const read = await this.#ask(authority.member, { type: 'read', oid, range })
        if (!read || read.refused || !isStill()) return false
        const contents = read.result as BlockContents
        const filled = await this.#ask(plan.report.member, { type: 'fill', oid, contents })
        if (!filled || filled.refused === 'stale') return false
        if (filled.refused === null) plan.valid = toBlocks([...plan.valid, range])
      }
    }
    return true
  }

  /** Sends again what was under way, before anything else. */
  async #begin(
    object: OwnedObject,
    version: Version | null,
    plans: readonly Plan[],
    isStill: () => boolean,
  ): Promise<boolean> {
    object.acting.clear()
    for (const { report, valid } of plans)
      object.acting.set(report.member.node, { member: report.member, missing: subtract(ALL_BLOCKS, valid) })
    object.version = version
    object.roomy = plans.reduce<Blocks>(
      (roomy, { report: { state } }) => intersect(roomy, state?.allocated ?? []),
      ALL_BLOCKS,
    )
    if (object.pending.length > 0 && object.acting.size < this.#options.copiesMin) return false
    for (const write of [...object.pending]) {
      const isReserved = await this.#askToReserve(object, toBlocks(write.contents.blocks.map(rangeOf)))
      if (isReserved === null || !isStill()) return false
      if (isReserved) continue
      object.pending.splice(object.pending.indexOf(write), 1)
      this.#unfinished.delete(write.version.sequence)
      write.settled.reject(new StoreError('Unsure'))
    }
    object.isOpen = true
    for (const write of object.pending) this.#send(object, write, this.#nextVersion())
    return true
  }

  // Writing

  /** Whether all acting copies have space for the blocks; null when one of them does not say. */
  #reserve(object: OwnedObject, blocks: Blocks): Promise<boolean | null> {
    const reserved = object.reserving.then(() => this.#askToReserve(object, blocks))
    object.reserving = reserved
    return reserved
  }

  async #askToReserve(object: OwnedObject, blocks: Blocks): Promise<boolean | null> {
    const { oid, term } = object
    const wanted = subtract(blocks, object.roomy)
    if (wanted.length === 0) return true
    const answers = await Promise.all(
      [...object.acting.values()].map(({ member }) => this.#ask(member, { type: 'reserve', oid, blocks: wanted })),
    )
    if (answers.includes(null) || object.term !== term) return null
    if (answers.some((answer) => answer?.refused)) return false
    object.roomy = toBlocks([...object.roomy, ...wanted])
    return true
  }

  #send(object: OwnedObject, write: PendingWrite, version: Version): void {
    const { oid } = object
    if (write.version !== version) this.#unfinished.delete(write.version.sequence)
    write.version = version
    write.waiting = new Set(object.acting.keys())
    const request = { ...write.contents, oid, version, previous: object.version }
    object.version = version
    const watermark = this.#watermark()
    for (const { member } of [...object.acting.values()]) {
      if (!write.durable) this.#unsynced.set(member.node, version.sequence)
      void this.#ask(member, { type: 'write', write: request, durable: write.durable, watermark }).then((answer) => {
        if (answer === null || write.version !== version) return
        write.waiting.delete(member.node)
        if (answer.refused) object.acting.delete(member.node)
        this.#finishIfDone(object, write)
      })
    }
  }

  #finishIfDone(object: OwnedObject, write: PendingWrite): void {
    if (!object.isOpen || write.waiting.size > 0 || !object.pending.includes(write)) return
    if (object.acting.size < this.#options.copiesMin) return this.#reopen(object)
    object.pending.splice(object.pending.indexOf(write), 1)
    object.exists = true
    for (const copy of object.acting.values()) copy.missing = subtract(copy.missing, write.blocks)
    this.#unfinished.delete(write.version.sequence)
    write.settled.resolve()
  }

  /** After a clean entry, who is no target of any view since takes no part any more. */
  #forgetHolders(object: OwnedObject): void {
    const possible = this.#possibleHolders(object.oid)
    for (const node of object.acting.keys()) {
      if (possible.includes(node)) continue
      object.acting.delete(node)
      for (const write of object.pending) write.waiting.delete(node)
    }
    for (const write of [...object.pending]) this.#finishIfDone(object, write)
  }
}

/** Objects opened by one request. */
const BATCH_MAX = 256

type Reports = Map<bigint, Report[]> | null

interface Plan {
  report: Report
  valid: Blocks
}

const isUsable = (state: CopyState | null) => state !== null && state.kind !== 'stale'

const rangeOf = ({ first, bytes }: { first: number; bytes: Buffer }) => ({ first, count: bytes.length / BLOCK_BYTES })
