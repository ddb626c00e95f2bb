import { StoreError } from '../../errors.ts'
import { inodeOid } from '../../protocol/oid.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { StoreDone } from '../change.ts'
import type { Member, View } from '../membership/view.ts'
import { BLOCK_BYTES } from '../object-format.ts'
import type { NodeId } from '../order/item.ts'
import {
  ALL_BLOCKS,
  countBlocks,
  intersect,
  joinContents,
  joinLayouts,
  overlaps,
  subtract,
  toBlocks,
} from './block-ranges.ts'
import { mayLack } from './bulk-look.ts'
import { type CopyComparison, differences, within, without } from './copy-comparison.ts'
import type { BlockContents, BlockRange, CopyLayout } from './copy-store.ts'
import { Holders, type HoldersOptions } from './holders.ts'
import { bytesIn, type Lack, nextToCopy } from './lack.ts'
import { mend } from './mending.ts'
import type { CopyAnswer, CopyResults, RequestType } from './messages.ts'
import { News } from './news.ts'
import { ObjectOpener } from './object-opener.ts'
import { ObjectWrites } from './object-writes.ts'
import { type OwnedObject, OwnedObjects, type Writing } from './owned-object.ts'
import { WriteVersions } from './write-versions.ts'

export interface CopySequencerOptions extends HoldersOptions {
  /** Whether there is a lease. Asked after the data is in hand. */
  mayAct(): boolean
  clock: Clock
  /** What is known of so many objects is kept while nobody uses them, about 1 KiB each. */
  idleObjectsMax?: number
}

const IDLE_OBJECTS_MAX = 16_384

/**
 * The only one that reads and writes the objects of a VDI, for as long as an entry of the log says so.
 *
 * 1. An object is opened before its first use under each view (object-opener.ts); requests for it wait until it is.
 * 2. A write goes to all acting copies in parallel (object-writes.ts). One that was sent is done in the end: after each open it is
 *    sent again, before anything else. Space for it is set aside everywhere before, so NoSpace means that it is nowhere.
 * 3. A read that overlaps a write waits for it, at both its ends. Who holds no lease once the data is in hand says nothing of it.
 * 4. Who does not answer is suspected; all else waits for another view.
 * 5. What a copy cannot read any more is read from another one. Recovery puts it in again.
 *
 * Errors: NoSpace, nothing was done; Unsure, it may have been done; OldEpoch, there is another owner; NoObject, it was removed
 * meanwhile; CorruptBlock, a block is rotten in all copies that there are.
 */
export class CopySequencer {
  readonly #options: CopySequencerOptions
  readonly #holders: Holders
  readonly #versions = new WriteVersions()
  readonly #news: News
  readonly #objects: OwnedObjects
  readonly #writes: ObjectWrites
  readonly #opener: ObjectOpener
  /** Reads go to the copy of this node; where it has none, to the others in turn. */
  #turn = 0
  /** The epochs in which objects began to be made that no map names yet. */
  readonly #makings = new Set<{ epoch: number }>()

  constructor(options: CopySequencerOptions) {
    this.#options = options
    this.#objects = new OwnedObjects(options.idleObjectsMax ?? IDLE_OBJECTS_MAX)
    const shared = { holders: new Holders(options), versions: this.#versions, news: new News(options.clock) }
    this.#holders = shared.holders
    this.#news = shared.news
    this.#writes = new ObjectWrites({ ...shared, reopen: (object) => this.#opener.reopen(object) })
    this.#opener = new ObjectOpener({ ...shared, writes: this.#writes })
  }

  get epoch(): number {
    return this.#holders.epoch
  }

  /** The nodes that should have a copy of an object in the view in effect. */
  targetsOf(oid: bigint): readonly NodeId[] {
    return this.#holders.targets(oid)
  }

  /**
   * Whether as many nodes have places as must have what is acknowledged. While they have not, nobody else's copy may be done without: it
   * may be what is missed when one of these few goes in its turn.
   */
  get hasEnough(): boolean {
    return this.targetsOf(inodeOid(this.#holders.vid)).length >= this.#holders.copiesMin
  }

  /** How often a copy was found to lack what it should have: while this is as it was, what was complete in an epoch still is. */
  get setbacks(): number {
    return this.#holders.setbacks
  }

  /** All targets had all of each object in this epoch, by what was known: from now on, one that is found to lack something is a setback. */
  wasComplete(epoch: number): void {
    this.#holders.completeEpoch = epoch
  }

  /**
   * An object is about to be made and named, until what is answered is called. Who looks at all that is named in a view may miss one that
   * was written in the view before and is named later, and somebody who has come in between may have an old copy of it. So that is a setback
   * when it is over; and while it goes on, nothing is complete.
   */
  making(): () => void {
    const making = { epoch: this.epoch }
    this.#makings.add(making)
    return () => {
      if (this.#makings.delete(making) && making.epoch !== this.epoch) this.#holders.setbacks++
    }
  }

  /** Whether something is being made since before the view in effect. */
  get isMakingSinceBefore(): boolean {
    return [...this.#makings].some(({ epoch }) => epoch !== this.epoch)
  }

  /** A view has taken effect, or the views before a clean one are forgotten. */
  viewsChanged(views: readonly View[]): void {
    const isNew = this.#holders.viewsChanged(views, this.#versions.last)
    if (isNew) this.#versions.restart()
    for (const object of this.#objects) {
      if (isNew) object.close()
      else this.#writes.forgetHolders(object)
    }
    this.#news.tell()
    for (const object of this.#objects) if (object.pending.length > 0) this.#opener.reopen(object)
  }

  /** Another owner was named, or the node stops: everything under way fails. */
  end(): void {
    this.#holders.end()
    for (const object of this.#objects) {
      object.close()
      for (const write of object.pending.splice(0)) write.settle(new StoreError('Unsure'))
    }
    this.#news.tell()
  }

  /**
   * Whole blocks. `exists` says whether the block map names the object; a write that makes it is durable, and makes the rest of it
   * what `base` has, or zeros.
   */
  write(
    oid: bigint,
    contents: BlockContents,
    { exists = true, durable = true, base = null }: { exists?: boolean; durable?: boolean; base?: bigint | null } = {},
  ): Promise<void> {
    return this.#objects.use(oid, exists, async (object) => {
      await object.gone
      for (;;) {
        if (!exists && object.exists) {
          // It was named when it was opened. What is left of it must not show through what is made now.
          object.exists = false
          object.close()
        }
        await this.#opener.opened(object)
        const { term } = object
        const { next } = this.#news
        const isReserved = await this.#writes.reserve(object, contents)
        if (object.term !== term) continue
        if (exists && !object.exists) throw new StoreError('NoObject')
        if (isReserved === false) throw new StoreError('NoSpace')
        if (isReserved && object.acting.size >= this.#holders.copiesMin) break
        await this.#news.wait(next)
        if (object.term === term) object.close()
      }
      await this.#written(object, { contents, durable: durable || !object.exists, base })
      this.#throwIfUnsure()
    })
  }

  #written(object: OwnedObject, writing: Writing): Promise<void> {
    return new Promise((resolve, reject) =>
      this.#writes.begin(object, writing, (error) => (error ? reject(error) : resolve())),
    )
  }

  /** As `write` of an object that exists. False, and nothing is begun, when anything has to be waited for before it can be. */
  writeNow(oid: bigint, contents: BlockContents, durable: boolean, done: StoreDone): boolean {
    const object = this.#objects.find(oid)
    if (!object || this.#holders.isEnded || !this.#writes.isReadyFor(object, contents)) return false
    this.#objects.enter(object)
    this.#writes.begin(object, { contents, durable, base: null }, (error) => {
      this.#objects.leave(object)
      done(error ?? (this.#options.mayAct() ? null : new StoreError('Unsure')))
    })
    return true
  }

  /**
   * As `read`, into `target`, from the copy of this node. False, and nothing is begun, when anything has to be waited for before that
   * can be said. `done(false)`: what was read does not count.
   */
  readNow(oid: bigint, first: number, target: Buffer, done: (isRead: boolean) => void): boolean {
    const count = target.length / BLOCK_BYTES
    const object = this.#objects.find(oid)
    if (!object?.isOpen || !object.exists || object.isUndecided || this.#holders.isEnded) return false
    if (!object.isQuiet(first, count) || !object.nearCopy(first, count, this.#options.incarnation)) return false
    const { term } = object
    this.#objects.enter(object)
    const isBegun = this.#holders.readNow(oid, first, target, (isRead) => {
      this.#objects.leave(object)
      // What was read may be of a write that began meanwhile.
      done(isRead && object.term === term && object.isQuiet(first, count) && this.#options.mayAct())
    })
    if (!isBegun) this.#objects.leave(object)
    return isBegun
  }

  /** The blocks of an object that the block map names. What it inherits is to be read from the copies of the base. */
  read(oid: bigint, range: BlockRange): Promise<BlockContents> {
    return this.#objects.use(oid, true, (object) => this.#read(object, range))
  }

  /** Of all blocks of an object, which have bytes of their own, and which are inherited. */
  layout(oid: bigint): Promise<CopyLayout> {
    return this.#objects.use(oid, true, (object) => this.#fromCopies(object, ALL_BLOCKS[0]!, 'layout', joinLayouts))
  }

  #read(object: OwnedObject, range: BlockRange): Promise<BlockContents> {
    return this.#fromCopies(object, range, 'read', joinContents)
  }

  /** What one copy says of the range, or several that each have a part of it. */
  async #fromCopies<T extends 'read' | 'layout'>(
    object: OwnedObject,
    range: BlockRange,
    type: T,
    join: (parts: readonly CopyResults[T][]) => CopyResults[T],
  ): Promise<CopyResults[T]> {
    const { oid } = object
    for (;;) {
      await this.#opener.decided(object)
      if (!object.exists) throw new StoreError('NoObject')
      const { term } = object
      await object.quiet([range])
      if (object.term !== term) continue
      const sources = object.sourcesOf(range, { turn: this.#turn++, near: this.#options.incarnation })
      if (!sources) {
        const { rotten } = object
        await mend(object, intersect(rotten, [range]), this.#holders)
        if (object.term !== term) continue
        if (overlaps(object.rotten, [range])) throw new StoreError('CorruptBlock', 'a block is rotten in all copies')
        if (rotten === object.rotten) object.close()
        continue
      }
      const { next } = this.#news
      const answers = await Promise.all(
        sources.map((source) =>
          this.#holders.ask<'read' | 'layout'>(source.member, { type, oid, range: source.range }),
        ),
      )
      if (answers.includes(null)) await this.#news.wait(next)
      const parts = answers.flatMap((answer) => (answer?.refused === null ? [answer.result as CopyResults[T]] : []))
      if (parts.length < sources.length && object.term === term) object.close()
      if (object.term !== term) continue
      // What was read may be of a write that began meanwhile.
      await object.quiet([range])
      if (object.term !== term) continue
      this.#throwIfUnsure()
      return parts.length === 1 ? parts[0]! : join(parts)
    }
  }

  /**
   * For an object that the block map does not name any more: to be called in the same turn in which it ceases to do so, after it has
   * on the disks. A write that makes the object again waits for this.
   */
  remove(oid: bigint): Promise<void> {
    return this.#objects.use(oid, false, async (object) => {
      object.exists = false
      object.removals++
      const removal = object.gone.then(() => this.#remove(object))
      object.gone = removal.catch(() => {})
      try {
        await removal
      } finally {
        object.removals--
      }
    })
  }

  async #remove(object: OwnedObject): Promise<void> {
    for (;;) {
      await this.#opener.opened(object)
      const { term } = object
      await object.quiet(ALL_BLOCKS)
      if (object.term === term) break
    }
    await this.#written(object, { contents: null, durable: false, base: null })
    object.close()
  }

  /**
   * Removes what members of the view have and `isNamed` says nothing of: neither does the block map name it, nor is it about to.
   * What that is left of: objects whose making or removal was not finished, and those that were removed while a node was away.
   */
  async removeUnnamed(isNamed: (oid: bigint) => boolean): Promise<void> {
    const { oids } = await this.list()
    for (const oid of oids) if (!isNamed(oid)) await this.remove(oid)
  }

  /** The objects of the VDI that members of the view have anything of. They are all that there may be unless too many nodes are away. */
  async list(): Promise<{ oids: readonly bigint[]; areAll: boolean }> {
    for (;;) {
      const { epoch } = this
      const areAll = this.#holders.knowAllObjects
      const lists = await this.#askAll<'list'>((member) => this.#holders.ask(member, { type: 'list' }))
      if (epoch === this.epoch) return { oids: [...new Set(lists.flat())], areAll }
    }
  }

  /** Everything acknowledged before is on the disks of all that have it. */
  async flush(): Promise<void> {
    const { unsynced } = this.#holders
    for (;;) {
      const { epoch } = this
      const before = new Map(unsynced)
      await this.#askAll((member) => this.#holders.ask(member, { type: 'sync' }), before)
      if (epoch !== this.epoch) continue
      for (const [node, sequence] of before) if (unsynced.get(node) === sequence) unsynced.delete(node)
      return this.#throwIfUnsure()
    }
  }

  /** What all members of a view answer, or those that are `among` them. */
  async #askAll<T extends RequestType>(
    ask: (member: Member) => Promise<CopyAnswer<T> | null>,
    among?: ReadonlyMap<NodeId, unknown>,
  ): Promise<CopyResults[T][]> {
    for (;;) {
      this.#holders.throwIfEnded()
      const { epoch } = this
      const { next } = this.#news
      const members = this.#holders.view.members.filter(({ node }) => !among || among.has(node))
      const answers = await Promise.all(members.map(ask))
      const results = answers.flatMap((answer) => (answer?.refused === null ? [answer.result] : []))
      if (epoch !== this.epoch) continue
      if (results.length === members.length) return results
      await this.#news.wait(next)
    }
  }

  /** Tells the holders how far all writes are everywhere, if no write has. For when there is nothing else to do. */
  spreadWatermark(): void {
    const watermark = this.#versions.newWatermark(this.#holders.generation)
    if (this.#holders.isEnded || !watermark) return
    for (const member of this.#holders.view.members) void this.#holders.ask(member, { type: 'watermark', watermark })
  }

  /**
   * Of objects that the block map named a moment ago those of which targets may lack something: `lackOf` says whether they do. All may when
   * another view comes meanwhile.
   */
  mayLack(oids: readonly bigint[]): Promise<readonly bigint[]> {
    const { clock } = this.#options
    return mayLack(oids, this.#holders, () => new Promise((resolve) => clock.afterInput(resolve)))
  }

  /**
   * What targets lack of an object that the block map named a moment ago; null when all have all of it. The bytes are those that are to
   * be copied, about.
   *
   * @throws StoreError NoObject, when it was removed; CorruptBlock.
   */
  lackOf(oid: bigint): Promise<Lack | null> {
    return this.#objects.use(oid, this.#objects.find(oid)?.exists ?? true, async (object) => {
      await this.#openedForAll(object)
      if (this.isComplete(oid)) return null
      const { rotten } = object
      const missing = [...object.acting.values()].flatMap((copy) =>
        this.#holders.isTarget(oid, copy.member) ? subtract(copy.missing, rotten) : [],
      )
      const layoutOf = (range: BlockRange) => this.#fromCopies(object, range, 'layout', joinLayouts)
      return { bytes: await bytesIn(missing, layoutOf) }
    })
  }

  /**
   * Copies up to `blocksMax` blocks with bytes to a target that lacks them, of an object that the block map named a moment ago, and as many
   * without. Returns how many bytes that took, or null when nothing can be done.
   *
   * @throws StoreError NoSpace when the target has none; NoObject, when it was removed.
   */
  fill(oid: bigint, blocksMax: number): Promise<number | null> {
    return this.#objects.use(oid, this.#objects.find(oid)?.exists ?? true, async (object) => {
      await this.#openedForAll(object)
      const { term } = object
      const findLack = () => object.lackOf(({ member }) => this.#holders.isTarget(oid, member))
      let lack = findLack()
      if (!lack) await mend(object, object.rotten, this.#holders)
      lack ??= findLack()
      if (!lack || object.term !== term) return null
      const { copy, missing } = lack
      const layoutOf = (range: BlockRange) => this.#fromCopies(object, range, 'layout', joinLayouts)
      const blocks = await nextToCopy(missing, blocksMax, layoutOf)
      const contents = joinContents(await Promise.all(blocks.map((range) => this.#read(object, range))))
      const bytes = contents.blocks.reduce((sum, run) => sum + run.bytes.length, 0)
      if (object.term !== term) return bytes
      const { next } = this.#news
      const answer = await this.#holders.ask(copy.member, { type: 'fill', oid, contents })
      if (answer === null) await this.#news.wait(next)
      else if (answer.refused === 'no space') throw new StoreError('NoSpace')
      else if (object.term !== term) return bytes
      else if (answer.refused) object.close()
      else copy.missing = subtract(copy.missing, blocks)
      this.#holders.unsynced.set(copy.member.node, this.#versions.last)
      return bytes
    })
  }

  /** Resolves when the object is open, and all targets take part, as far as they can. Throws NoObject when it was removed. */
  async #openedForAll(object: OwnedObject): Promise<void> {
    await this.#opener.opened(object)
    if (this.#holders.lacksTarget(object)) object.close() // one is stale
    await this.#opener.opened(object)
    if (!object.exists) throw new StoreError('NoObject')
  }

  /**
   * Reads some blocks from all copies that have them, and compares. Null when the object was written meanwhile, or a node did not
   * answer. What a copy turns out not to be able to read it lacks from then on, as after any read.
   */
  compare(oid: bigint, range: BlockRange): Promise<CopyComparison | null> {
    return this.#objects.use(oid, true, async (object) => {
      await this.#opener.opened(object)
      if (!object.exists) throw new StoreError('NoObject')
      await object.quiet([range])
      const rotten = within(object.rotten, range)
      if (rotten.length > 0) await mend(object, rotten, this.#holders)
      const { term, version } = object
      if (!object.isOpen) return null
      const isAsItWas = () => object.isOpen && object.term === term && object.version === version
      const copies = [...object.acting.values()].map(({ member, missing }) => {
        return { member, ranges: without(range, missing), contents: [] as BlockContents[] }
      })
      let isRotten = false
      let isKnown = true
      await Promise.all(
        copies.flatMap(({ member, ranges, contents }) =>
          ranges.map(async (part) => {
            const answer = await this.#holders.ask(member, { type: 'read', oid, range: part })
            if (answer?.refused === null) contents.push(answer.result)
            else if (answer?.refused === 'rotten') isRotten = true
            else isKnown = false
          }),
        ),
      )
      if (isRotten && object.term === term) object.close() // whoever opens it next learns which blocks
      if (isRotten || !isKnown || !isAsItWas()) return null
      const [best, ...others] = copies.filter(({ ranges }) => ranges.length > 0)
      const shared = (other: (typeof copies)[number]) => intersect(best?.ranges ?? [], other.ranges)
      const different = others.flatMap((other) =>
        shared(other).flatMap((part) => differences(part, joinContents(best!.contents), joinContents(other.contents))),
      )
      const lost = within(object.rotten, range)
      return {
        checked: copies.reduce((sum, { ranges }) => sum + countBlocks(ranges), 0),
        lacking: this.#holders.targets(oid).flatMap((node) => {
          const missing = object.acting.get(node)?.missing ?? ALL_BLOCKS
          const blocks = subtract(within(missing, range), lost)
          return blocks.length > 0 ? [{ node, blocks }] : []
        }),
        lost,
        different: toBlocks(different),
      }
    })
  }

  /** Whether all targets in the view in effect have the whole object, as far as is known without asking. */
  isComplete(oid: bigint): boolean {
    const object = this.#objects.find(oid)
    if (!object?.isOpen || this.#holders.lacksTarget(object)) return false
    return [...object.acting.values()].every(
      ({ member, missing }) => missing.length === 0 || !this.#holders.isTarget(oid, member),
    )
  }

  #throwIfUnsure(): void {
    if (!this.#options.mayAct()) throw new StoreError('Unsure')
  }
}
