import { pino } from 'pino'
import type { StoreError } from '../../../src/errors.ts'
import { dataOid, oidVid, withVid } from '../../../src/protocol/oid.ts'
import { countBlocks } from '../../../src/sheep/copies/block-ranges.ts'
import type {
  Adoption,
  BlockContents,
  BlockRange,
  CopyKind,
  CopyState,
  TailEntry,
} from '../../../src/sheep/copies/copy-store.ts'
import { EngineCopyStore } from '../../../src/sheep/copies/engine-copy-store.ts'
import { cleanVersion, formatVersion, type Version } from '../../../src/sheep/copies/version.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../../../src/sheep/object-format.ts'
import { type Change, ObjectStore } from '../../../src/sheep/object-store.ts'
import { SimClock } from '../../sim/clock.ts'
import { SimDisk } from '../../sim/disk.ts'
import { SeededRandom } from '../../sim/random.ts'

const QUIET = pino({ level: 'silent' })
const VIDS = [3, 4]
const OBJECTS = 4
/** Blocks 0 to 15 are written one by one; 16 stands for all that follow. */
const BLOCKS = 17
const REST = 16
/** What all objects inherit from, when they inherit. */
const BASE_VID = 2
/** The stamp of a block that is inherited. It counts as written at any time. */
const INHERITED = { stamp: -1, epoch: Number.POSITIVE_INFINITY }

/** What a copy is, told as dumbly as can be. */
interface Copy {
  isThere: boolean
  /** Null for a clean one. */
  version: Version | null
  kind: CopyKind
  /** Those that are valid, by their number below BLOCKS. */
  valid: ReadonlySet<number>
  epochs: ReadonlySet<number>
  tail: readonly TailEntry[]
  /** Of each block the number of the write, and its epoch. */
  blocks: readonly { stamp: number; epoch: number }[]
}

interface Image {
  clean: number
  copies: Map<bigint, Copy>
}

interface Transaction {
  epoch: number
  apply(image: Image): void
  /** Blocks of which a kill in the middle may have left some as they were. */
  torn: { oid: bigint; blocks: readonly number[] } | null
}

/** A transaction that was accepted, and waits for its turn. */
interface Accepted extends Transaction {
  durable: boolean
  isAcknowledged: boolean
  position: number
}

const ALL: ReadonlySet<number> = new Set(Array.from({ length: BLOCKS }, (_, block) => block))

/**
 * Runs one seed: random changes of copies, watermarks, clean epochs, kills, losses of power and full disks, on the real store with a
 * simulated disk, against a plain map. What is asked without waiting includes all that was accepted. After each crash versions,
 * tails, epochs, marks and bytes are those after some number of transactions, in the order in which the store had them, and no
 * fewer than were acknowledged as durable (after a kill: acknowledged at all).
 */
export class EngineCopyModel {
  readonly #random: SeededRandom
  readonly #clock: SimClock
  readonly #disk: SimDisk
  readonly #durability: 'flush' | 'write'
  readonly #placedMinBytes: number
  #store!: ObjectStore
  #copies!: EngineCopyStore
  #epoch = 1
  #sequence = 0
  #stamp = 0
  /** At the last point that a crash proved, and the transactions since. */
  #base: Image = { clean: 0, copies: new Map() }
  #since: Accepted[] = []
  /** Of each object what was accepted and has not become a transaction; of 0 what is about none. */
  #waiting = new Map<bigint, Accepted[]>()
  #accepted: Accepted[] = []
  /** With all that was accepted. */
  #now: Image = { clean: 0, copies: new Map() }
  /** What left the tails without a transaction: it may be back after a crash. */
  #forgotten = new Set<string>()
  /** Watermarks that the next transaction for the VDI brings along. */
  #watermarks = new Map<number, Version>()
  #lost = 0
  readonly counts = {
    writes: 0,
    fills: 0,
    adoptions: 0,
    stale: 0,
    removed: 0,
    dropped: 0,
    rotten: 0,
    inherited: 0,
    cleans: 0,
    watermarks: 0,
    refused: 0,
    kills: 0,
    powerLosses: 0,
    lostWrites: 0,
    delayed: 0,
    tails: 0,
    plain: 0,
  }

  constructor(seed: number) {
    this.#random = new SeededRandom(seed)
    this.#clock = new SimClock(this.#random)
    this.#disk = new SimDisk(this.#random, this.#clock)
    this.#durability = this.#random.chance(0.25) ? 'write' : 'flush'
    this.#placedMinBytes = (1 + this.#random.below(4)) * BLOCK_BYTES
  }

  async run(steps: number): Promise<void> {
    await this.#open()
    for (let step = 0; step < steps; step++) {
      const dice = this.#random.next()
      if (dice < 0.62) this.#change()
      else if (dice < 0.68) await this.#setWatermark()
      else if (dice < 0.7) this.#settle()
      else if (dice < 0.72) this.#epoch += 1 + this.#random.below(2)
      else if (dice < 0.73) await this.#clean()
      else if (dice < 0.74) await this.#fillDisk()
      else if (dice < 0.79) await this.#look()
      else if (dice < 0.81) await this.#sync()
      else if (dice < 0.83) this.#store.startCheckpoint()
      else if (dice < 0.97) for (let i = this.#random.below(20); i > 0; i--) this.#clock.step()
      else if (dice < 0.98) await this.#endWithin()
      else await this.#crash(this.#random.chance(0.5))
    }
    this.#disk.capacityBytes = 2 ** 40
    await this.#crash(true)
    await this.#sync()
    await this.#clock.run(this.#store.close())
    await this.#crash(false)
    await this.#clock.run(this.#store.close())
  }

  async #open(): Promise<void> {
    const { store } = await this.#clock.run(
      ObjectStore.open({
        disk: this.#disk.mount(),
        clock: this.#clock.mount(),
        random: this.#random,
        log: QUIET,
        segmentBytes: 40 * BLOCK_BYTES,
        durability: this.#durability,
        reserveBytes: 0,
        loadedObjectsMax: 4,
        placedMinBytes: this.#placedMinBytes,
        onFailed: () => {},
      }),
    )
    this.#store = store
    this.#copies = new EngineCopyStore(store)
    const commit = store.commit.bind(store)
    store.commit = (changes, options, done) => {
      this.#committed(changes)
      commit(changes, options, done)
    }
  }

  /** The store makes a transaction of what was accepted. */
  #committed(changes: readonly Change[]): void {
    const about = changes.find((change) => change.kind === 'copies')
    const [removed] = changes
    if (!about && removed?.kind === 'remove') {
      // What an adoption has no use for goes first.
      const apply = (image: Image) => {
        const copy = image.copies.get(removed.oid)
        if (copy) image.copies.set(removed.oid, { ...copy, isThere: false })
      }
      const rest = { durable: false, isAcknowledged: false, position: this.#since.length + 1 }
      this.#since.push({ epoch: 0, apply, torn: null, ...rest })
      return
    }
    if (about?.kind !== 'copies') throw new Error('a transaction about nothing')
    const oid = 'oid' in about.record ? about.record.oid : 0n
    const transaction = this.#waiting.get(oid)?.shift()
    if (!transaction) throw new Error('a transaction that was not asked for')
    this.#since.push(transaction)
    transaction.position = this.#since.length
  }

  /** Accepts a change, unless the store refuses it at once. */
  #accept(
    oid: bigint,
    durable: boolean,
    transaction: Transaction,
    start: (done: (error: StoreError | null) => void) => void,
  ): boolean {
    const isDurable = durable || this.#durability === 'write'
    const accepted: Accepted = { ...transaction, durable: isDurable, isAcknowledged: false, position: 0 }
    const vid = oidVid(oid)
    const watermark = oid === 0n ? undefined : this.#watermarks.get(vid)
    if (watermark) {
      accepted.apply = (image) => {
        transaction.apply(image)
        forget(image, (other, entry) => oidVid(other) === vid && isBelow(entry.version, watermark))
      }
    }
    const line = this.#waiting.get(oid) ?? []
    this.#waiting.set(oid, [...line, accepted])
    let refusal: StoreError | null = null
    const life = this.#disk.ended
    start((error) => {
      if (life !== this.#disk.ended) return
      if (error) {
        if (error.code !== 'NoSpace' || accepted.position > 0) throw error
        refusal = error
        return
      }
      accepted.isAcknowledged = true
    })
    if (refusal) {
      this.#waiting.set(oid, line)
      this.counts.refused++
      return false
    }
    if (accepted.position === 0) this.counts.delayed++
    if (watermark) this.#watermarks.delete(vid)
    this.#accepted.push(accepted)
    accepted.apply(this.#now)
    return true
  }

  #change(): void {
    const oid = dataOid(this.#random.pick(VIDS), this.#random.below(OBJECTS))
    const copy = this.#now.copies.get(oid)
    const dice = this.#random.next()
    if (!copy || copy.kind === 'stale' || !copy.isThere) {
      if (copy && dice < 0.1) this.#drop(oid)
      else if (copy && dice < 0.6) this.#adopt(oid)
      else if (dice < 0.7) this.#write(oid, true)
      else this.#adopt(oid)
    } else if (dice < 0.04) this.#markStale(oid)
    else if (dice < 0.06) this.#markRotten(oid, copy)
    else if (dice < 0.08) this.#remove(oid)
    else if (dice < 0.09) this.#drop(oid)
    else if (dice < 0.14) this.#adopt(oid)
    else if (dice < 0.16) this.#write(oid, true)
    else if (dice < 0.3 && copy.valid.size < BLOCKS) this.#fill(oid, copy)
    else this.#write(oid, false)
  }

  #nextVersion(): Version {
    const generation = { epoch: this.#epoch, index: this.#epoch * 10, incarnation: `life ${this.#epoch}` }
    return { generation, sequence: ++this.#sequence }
  }

  #versionOf(oid: bigint): Version {
    const clean = cleanVersion(this.#now.clean)
    return this.#now.copies.get(oid)?.version ?? clean
  }

  #write(oid: bigint, isNew: boolean): void {
    const version = this.#nextVersion()
    const previous = isNew ? null : this.#versionOf(oid)
    const { contents, stamps } = this.#randomContents(oid, isNew)
    const { epoch } = version.generation
    const ranges = rangesOf([...stamps.keys()])
    const apply = (image: Image) => {
      const before = image.copies.get(oid)
      const copy: Copy = isNew ? { ...emptyCopy(epoch), kind: 'full', valid: ALL } : before!
      const changed = {
        ...withStamps(copy, stamps, epoch),
        isThere: true,
        version,
        epochs: new Set([...(before?.epochs ?? []), epoch]),
        tail: [...copy.tail, ...ranges.map((range) => ({ ...range, version, previous }))],
      }
      image.copies.set(oid, changed)
    }
    const durable = this.#random.chance(0.2)
    const write = { oid, version, previous, ...contents }
    const torn = isNew ? null : { oid, blocks: [...stamps.keys()] }
    if (
      this.#random.chance(0.3) &&
      this.#copies.reserve(oid, [{ first: REST, count: BLOCKS_PER_OBJECT - REST }, ...ranges])
    )
      if (this.#copies.plainVersionOf(oid)) throw new Error('a copy is plain for which space is set aside')
    if (this.#accept(oid, durable, { epoch, apply, torn }, (done) => this.#copies.apply(write, durable, done)))
      this.counts.writes++
    this.#copies.release(oid)
  }

  /** Some blocks, zeros and inherited ones, in order, without overlaps; when it makes the object, all others may be inherited. */
  #randomContents(oid: bigint, isNew: boolean): { contents: BlockContents; stamps: Map<number, number> } {
    const stamps = new Map<number, number>()
    const blocks: { first: number; bytes: Buffer }[] = []
    const zeros: BlockRange[] = []
    for (let block = this.#random.below(10); block < REST && stamps.size < 6; block += 1 + this.#random.below(4)) {
      const count = Math.min(1 + this.#random.below(4), REST - block)
      const kind = this.#random.pick(['data', 'data', 'data', 'zero', 'inherited'] as const)
      const stamp = kind === 'data' ? ++this.#stamp : kind === 'zero' ? 0 : INHERITED.stamp
      for (let i = 0; i < count; i++) stamps.set(block + i, stamp)
      if (kind === 'zero') zeros.push({ first: block, count })
      else if (kind === 'data') blocks.push({ first: block, bytes: stamped(oid, block, count, stamp) })
      block += count
    }
    if (this.#random.chance(0.1)) {
      stamps.set(REST, 0)
      zeros.push({ first: REST, count: BLOCKS_PER_OBJECT - REST })
    }
    if (isNew && this.#random.chance(0.5))
      for (const block of ALL) if (!stamps.has(block)) stamps.set(block, INHERITED.stamp)
    const ranges = rangesOf([...stamps].flatMap(([block, stamp]) => (stamp === INHERITED.stamp ? [block] : [])))
    if (ranges.length === 0) return { contents: { blocks, zeros }, stamps }
    this.counts.inherited++
    return { contents: { blocks, zeros, inherited: { base: withVid(oid, BASE_VID), ranges } }, stamps }
  }

  #fill(oid: bigint, { valid, version }: Copy): void {
    const { contents, stamps } = this.#randomContents(oid, false)
    const missing = [...stamps].filter(([block]) => !valid.has(block))
    if (missing.length === 0) return
    const { epoch } = version!.generation
    const apply = (image: Image) => {
      image.copies.set(oid, withStamps(image.copies.get(oid)!, missing, epoch))
      tidy(image)
    }
    if (this.#accept(oid, false, { epoch, apply, torn: null }, (done) => this.#copies.fill(oid, contents, done)))
      this.counts.fills++
  }

  #adopt(oid: bigint): void {
    const version = this.#nextVersion()
    const { epoch } = version.generation
    const now = this.#now.copies.get(oid)
    const mayKeep = now?.isThere && now.kind !== 'stale' ? [...now.valid] : []
    const kept = mayKeep.filter(() => this.#random.chance(0.7))
    const valid = new Set(this.#random.chance(0.2) ? mayKeep : kept)
    const previous = now?.isThere ? this.#versionOf(oid) : null
    const kind = valid.size === BLOCKS || (now?.kind === 'full' && this.#random.chance(0.3)) ? 'full' : 'partial'
    const apply = (image: Image) => {
      const copy = image.copies.get(oid)
      const isNew = !copy?.isThere || valid.size === 0
      image.copies.set(oid, {
        isThere: true,
        version,
        kind,
        valid,
        epochs: new Set([...(copy?.epochs ?? []), epoch]),
        tail: [...(copy?.tail ?? []), { first: 0, count: 0, version, previous }],
        blocks: isNew ? emptyCopy(epoch).blocks : copy.blocks,
      })
    }
    const adoption: Adoption = { oid, version, kind, valid: rangesOf([...valid]) }
    this.#accept(oid, true, { epoch, apply, torn: null }, (done) => this.#copies.adopt(adoption, done))
    this.counts.adoptions++
  }

  #markStale(oid: bigint): void {
    const version = this.#versionOf(oid)
    const apply = (image: Image) => {
      const copy = image.copies.get(oid)!
      image.copies.set(oid, { ...copy, version, kind: 'stale' })
    }
    this.#accept(oid, true, { epoch: 0, apply, torn: null }, (done) => this.#copies.markStale(oid, done))
    this.counts.stale++
  }

  #markRotten(oid: bigint, { valid }: Copy): void {
    const version = this.#versionOf(oid)
    const rotten = [...valid].filter(() => this.#random.chance(0.2))
    if (rotten.length === 0) return
    const apply = (image: Image) => {
      const copy = image.copies.get(oid)!
      const left = new Set([...copy.valid].filter((block) => !rotten.includes(block)))
      image.copies.set(oid, { ...copy, version, valid: left })
    }
    const ranges = rangesOf(rotten)
    this.#accept(oid, true, { epoch: 0, apply, torn: null }, (done) => this.#copies.markRotten(oid, ranges, done))
    this.counts.rotten++
  }

  #remove(oid: bigint): void {
    const version = this.#nextVersion()
    const { epoch } = version.generation
    const apply = (image: Image) => {
      const epochs = new Set([...image.copies.get(oid)!.epochs, epoch])
      image.copies.set(oid, { ...emptyCopy(epoch), isThere: false, version, kind: 'removed', epochs })
    }
    this.#accept(oid, false, { epoch: 0, apply, torn: null }, (done) => this.#copies.remove(oid, version, done))
    this.counts.removed++
  }

  #drop(oid: bigint): void {
    const apply = (image: Image) => void image.copies.delete(oid)
    this.#accept(oid, true, { epoch: 0, apply, torn: null }, (done) => this.#copies.drop(oid, done))
    this.counts.dropped++
  }

  /** A watermark says nothing of what is not acknowledged. */
  async #setWatermark(): Promise<void> {
    if (this.#random.chance(0.4)) await this.#sync()
    const vid = this.#random.pick(VIDS)
    const tails = [...this.#now.copies].flatMap(([oid, { tail }]) => (oidVid(oid) === vid ? tail : []))
    if (tails.length === 0 || this.#accepted.some(({ isAcknowledged }) => !isAcknowledged)) return
    const { version } = this.#random.pick(tails)
    this.#copies.setWatermark(vid, version)
    this.#watermarks.set(vid, version)
    this.#forget((oid, entry) => oidVid(oid) === vid && isBelow(entry.version, version))
    this.counts.watermarks++
  }

  #settle(): void {
    if (this.#now.copies.size === 0 || this.#accepted.some(({ isAcknowledged }) => !isAcknowledged)) return
    const settled = this.#random.pick([...this.#now.copies.keys()])
    this.#copies.settle(settled)
    this.#forget((oid) => oid === settled)
  }

  #forget(isPassed: (oid: bigint, entry: TailEntry) => boolean): void {
    for (const [oid, { tail }] of this.#now.copies)
      for (const entry of tail) if (isPassed(oid, entry)) this.#forgotten.add(formatEntry(oid, entry))
    forget(this.#now, isPassed)
  }

  /** Only of epochs that are over, and of which everything is acknowledged. */
  async #clean(): Promise<void> {
    await this.#sync()
    const clean = this.#epoch - 1 - this.#random.below(2)
    if (clean <= this.#now.clean || this.#accepted.some(({ isAcknowledged }) => !isAcknowledged)) return
    const apply = (image: Image) => {
      image.clean = clean
      for (const [oid, copy] of image.copies) {
        const epochs = new Set([...copy.epochs].filter((epoch) => epoch > clean))
        image.copies.set(oid, { ...copy, epochs })
      }
      forget(image, (_, entry) => entry.version.generation.epoch <= clean)
      tidy(image)
    }
    this.#accept(0n, false, { epoch: 0, apply, torn: null }, (done) => this.#copies.clean(clean, done))
    this.counts.cleans++
  }

  async #fillDisk(): Promise<void> {
    const isFull = this.#disk.capacityBytes < 2 ** 40
    this.#disk.capacityBytes = 0 // so that it counts
    const room = this.#random.below(40) * BLOCK_BYTES
    this.#disk.capacityBytes = isFull ? 2 ** 40 : this.#disk.usedBytes() + room
    this.#store.startCheckpoint() // which asks the disk how much there is
    for (let i = 0; i < 60; i++) {
      await new Promise<void>((resolve) => setImmediate(resolve))
      this.#clock.step()
    }
  }

  async #sync(): Promise<void> {
    this.#disk.capacityBytes = 2 ** 40
    const before = [...this.#accepted]
    await this.#clock.run(
      new Promise<void>((resolve, reject) => this.#copies.sync((error) => (error ? reject(error) : resolve()))),
    )
    for (const transaction of before) {
      if (transaction.position === 0) throw new Error('a sync that did not wait for what was accepted')
      transaction.durable = true
      transaction.isAcknowledged = true
    }
  }

  /** What is known without waiting is what was accepted; and so is what is read. */
  async #look(): Promise<void> {
    const oid = dataOid(this.#random.pick(VIDS), this.#random.below(OBJECTS))
    this.#expectSame(this.#describeNow(this.#now), this.#describeStore(), 'what is known now')
    const copy = this.#now.copies.get(oid)
    if (!copy?.isThere || copy.kind === 'stale') return
    const epoch = 1 + this.#random.below(this.#epoch + 1)
    const since = this.#copies.blocksSince(oid, { generation: { epoch, index: -1, incarnation: '' }, sequence: 0 })
    const expected = expectedSince(copy, epoch)
    const isAll = since.length === 1 && since[0]!.count === BLOCKS_PER_OBJECT
    if (!isAll) this.#expectSame(expected.join(), blocksIn(since).join(), `blocks since ${epoch}`)
    this.#disk.capacityBytes = 2 ** 40 // what waits for room is not read before it has some
    await this.#clock.run(this.#checkBytes(oid, copy))
  }

  async #checkBytes(oid: bigint, copy: Copy, mayDiffer: ReadonlySet<number> = new Set()): Promise<void> {
    const found = await this.#stampsOf(oid, copy.valid)
    for (const [block, stamp] of found) {
      if (stamp !== copy.blocks[block]!.stamp && !mayDiffer.has(block))
        throw new Error(`block ${block} is ${stamp} and not ${copy.blocks[block]!.stamp}`)
    }
  }

  async #stampsOf(oid: bigint, valid: ReadonlySet<number>): Promise<Map<number, number>> {
    const stamps = new Map<number, number>()
    for (const range of rangesOf([...valid])) {
      const { blocks, zeros, inherited } = await new Promise<BlockContents>((resolve, reject) =>
        this.#copies.read(oid, range, (error, contents) => (error ? reject(error) : resolve(contents))),
      )
      for (const block of blocksIn(zeros)) stamps.set(block, 0)
      if (inherited && inherited.base !== withVid(oid, BASE_VID)) throw new Error(`inherits from ${inherited.base}`)
      for (const block of blocksIn(inherited?.ranges ?? [])) stamps.set(block, INHERITED.stamp)
      for (const { first, bytes } of blocks)
        for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
          const block = first + at / BLOCK_BYTES
          stamps.set(Math.min(block, REST), readStamp(oid, block, bytes.subarray(at, at + BLOCK_BYTES)))
        }
    }
    return stamps
  }

  async #endWithin(): Promise<void> {
    const { ended } = this.#disk
    const committed = this.#since.length
    this.#disk.endAfterPages = this.#random.below(10)
    for (let i = 1 + this.#random.below(3); i > 0 && this.#disk.ended === ended; i--) {
      this.#change()
      for (let steps = this.#random.below(3); steps > 0; steps--) this.#clock.step()
    }
    this.#disk.endAfterPages = Number.POSITIVE_INFINITY
    if (this.#disk.ended !== ended) await this.#crash(false, committed)
  }

  async #crash(isPowerLoss: boolean, torn = Number.POSITIVE_INFINITY): Promise<void> {
    this.#disk.capacityBytes = 2 ** 40
    let hasLostPower = isPowerLoss
    if (isPowerLoss) this.#disk.powerLoss()
    else this.#disk.kill()
    if (this.#random.chance(0.2) && torn === Number.POSITIVE_INFINITY) {
      const opening = this.#open()
      opening.catch(() => {})
      for (let i = this.#random.below(60); i > 0; i--) {
        await new Promise<void>((resolve) => setImmediate(resolve))
        this.#clock.step()
      }
      hasLostPower = true
      this.#disk.powerLoss()
    }
    this.counts[hasLostPower ? 'powerLosses' : 'kills']++
    await this.#open()
    await this.#verify(hasLostPower, torn)
  }

  /** Finds the number of transactions that were left, and goes on from there. */
  async #verify(hasLostPower: boolean, torn: number): Promise<void> {
    const mustHave = Math.max(
      0,
      ...this.#since
        .filter((each) => each.isAcknowledged && (!hasLostPower || each.durable))
        .map((each) => each.position),
    )
    const candidate = clone(this.#base)
    const found = this.#describeStore(false)
    const bytes = await this.#clock.run(this.#allBytes())
    let match: { position: number; image: Image } | null = null
    const seen: string[] = []
    for (let position = 0; position <= this.#since.length; position++) {
      const last = this.#since[position - 1]
      const before = clone(candidate)
      last?.apply(candidate)
      if (position < mustHave) continue
      const isTorn = position > torn ? (last?.torn ?? null) : null
      seen.push(`${position}: ${this.#describeNow(candidate, false)}`)
      if (this.#describeNow(candidate, false) !== found) continue
      if (this.#areBytes(candidate, before, isTorn, bytes) && this.#areTails(candidate))
        match = { position, image: clone(candidate) }
    }
    if (!match)
      throw new Error(
        `no prefix from ${mustHave} of ${this.#since.length} on:\nfound ${found}\n${JSON.stringify([...bytes].map(([oid, stamps]) => [oid.toString(16), [...(stamps ?? [])]]))}\n${seen.slice(-6).join('\n')}`,
      )
    const gone = this.#since.slice(match.position).filter(({ isAcknowledged }) => isAcknowledged)
    this.counts.lostWrites += gone.length
    this.#lost = Math.max(this.#lost, ...gone.map(({ epoch }) => epoch))
    const known = this.#copies.lostThroughEpoch
    if (this.#lost > match.image.clean && known < this.#lost)
      throw new Error(`${known} instead of ${this.#lost} is lost`)
    if (known > this.#epoch) throw new Error(`more than there was is lost: ${known}`)
    this.#goOnFrom(match.image, bytes)
  }

  #goOnFrom(image: Image, bytes: ReadonlyMap<bigint, ReadonlyMap<number, number> | null>): void {
    for (const [oid, copy] of image.copies) {
      const stamps = bytes.get(oid)
      const blocks = copy.blocks.map((block, at) => ({ ...block, stamp: stamps?.get(at) ?? block.stamp }))
      image.copies.set(oid, { ...copy, blocks, tail: this.#copies.tailOf(oid) })
    }
    this.#base = image
    this.#now = clone(image)
    this.#since = []
    this.#accepted = []
    this.#waiting.clear()
    this.#forgotten.clear()
    this.#watermarks.clear()
  }

  async #allBytes(): Promise<Map<bigint, Map<number, number> | null>> {
    const bytes = new Map<bigint, Map<number, number> | null>()
    for (const vid of VIDS) {
      for (const oid of this.#copies.objectsOf(vid)) {
        const state = this.#copies.stateOf(oid)!
        bytes.set(oid, await this.#stampsOf(oid, new Set(blocksIn(state.valid))))
      }
    }
    return bytes
  }

  #areBytes(
    image: Image,
    before: Image,
    torn: Transaction['torn'],
    bytes: ReadonlyMap<bigint, ReadonlyMap<number, number> | null>,
  ): boolean {
    return [...image.copies].every(([oid, copy]) =>
      [...(bytes.get(oid) ?? [])].every(([block, stamp]) => {
        if (stamp === copy.blocks[block]!.stamp) return true
        const isTorn = torn?.oid === oid && torn.blocks.includes(block)
        return isTorn && before.copies.get(oid)?.blocks[block]?.stamp === stamp
      }),
    )
  }

  /** Nothing is there that was not written; nothing is missing but what was let go. */
  #areTails(image: Image): boolean {
    for (const [oid, copy] of image.copies) {
      const found = new Set(this.#copies.tailOf(oid).map((entry) => formatEntry(oid, entry)))
      const expected = new Set(copy.tail.map((entry) => formatEntry(oid, entry)))
      if ([...found].some((entry) => !expected.has(entry))) return false
      if ([...expected].some((entry) => !found.has(entry) && !this.#forgotten.has(entry))) return false
      this.counts.tails += found.size
    }
    return true
  }

  #describeNow(image: Image, withTails = true): string {
    const objects = [...image.copies].map(([oid, copy]) => {
      const { isThere, version, kind, valid, epochs, tail } = copy
      const clean = cleanVersion(image.clean)
      const isLost = kind !== 'removed' && !isThere
      const isGone = isLost || kind === 'stale' || kind === 'removed'
      const state: CopyState = {
        kind: isLost ? 'stale' : kind,
        valid: isGone ? [] : rangesOf([...valid]),
        version: version ?? clean,
      }
      // What is missing and was never anything else is no copy at all.
      if (!isThere && !version) return ''
      const sorted = [...epochs].sort((a, b) => a - b)
      const text = describe(oid, state, sorted, withTails ? tail : null)
      return withTails || isThere ? text : `${text} missing`
    })
    return objects
      .filter((text) => text !== '')
      .sort()
      .join('\n')
  }

  #describeStore(withTails = true): string {
    const objects = VIDS.flatMap((vid) => {
      const touched = new Map(this.#copies.touchedSince(vid, 0).map(({ oid, epochs }) => [oid, epochs]))
      return this.#copies.objectsOf(vid).map((oid) => {
        const tail = withTails ? this.#copies.tailOf(oid) : null
        const state = this.#copies.stateOf(oid)!
        this.#expectPlain(oid, state)
        const text = describe(oid, state, touched.get(oid) ?? [], tail)
        return withTails || this.#store.exists(oid) ? text : `${text} missing`
      })
    })
    return objects.sort().join('\n')
  }

  /** Nothing is set aside now. */
  #expectPlain(oid: bigint, { version, kind, valid }: CopyState): void {
    const isPlain = kind === 'full' && countBlocks(valid) === BLOCKS_PER_OBJECT && this.#copies.tailOf(oid).length === 0
    const found = this.#copies.plainVersionOf(oid)
    this.#expectSame(isPlain ? formatVersion(version) : 'none', found ? formatVersion(found) : 'none', `plain ${oid}`)
    if (isPlain) this.counts.plain++
  }

  #expectSame(expected: string, found: string, what: string): void {
    if (expected === found) return
    const [lines, others] = [expected.split('\n'), found.split('\n')]
    const differing = [others.filter((line) => !lines.includes(line)), lines.filter((line) => !others.includes(line))]
    throw new Error(`${what}: found\n${differing.map((some) => some.join('\n')).join('\ninstead of\n')}`)
  }
}

function describe(
  oid: bigint,
  { kind, version, valid }: Pick<CopyState, 'kind' | 'version' | 'valid'>,
  epochs: readonly number[],
  tail: readonly TailEntry[] | null,
): string {
  const entries = tail?.map((entry) => formatEntry(oid, entry)).join(' ') ?? ''
  return `${oid.toString(16)} ${kind} ${formatVersion(version)} ${JSON.stringify(valid)} [${epochs}] ${entries}`
}

function formatEntry(oid: bigint, { first, count, version, previous }: TailEntry): string {
  const before = previous ? formatVersion(previous) : 'none'
  return `${oid.toString(16)}:${first}+${count}@${formatVersion(version)}<${before}`
}

function forget(image: Image, isPassed: (oid: bigint, entry: TailEntry) => boolean): void {
  for (const [oid, copy] of image.copies)
    image.copies.set(oid, { ...copy, tail: copy.tail.filter((entry) => !isPassed(oid, entry)) })
}

/** A whole copy that was written in no epoch since the clean one is one of many equal ones. */
function tidy(image: Image): void {
  for (const [oid, copy] of image.copies) {
    if (copy.epochs.size > 0) continue
    if (copy.kind === 'removed') image.copies.delete(oid)
    else if (copy.kind === 'full' && copy.valid.size === BLOCKS) image.copies.set(oid, { ...copy, version: null })
  }
}

function isBelow(version: Version, watermark: Version): boolean {
  return version.generation.epoch === watermark.generation.epoch && version.sequence <= watermark.sequence
}

/** With these blocks, which may have been the last that it lacked. */
function withStamps(copy: Copy, stamps: Iterable<readonly [number, number]>, epoch: number): Copy {
  const blocks = [...copy.blocks]
  const valid = new Set(copy.valid)
  for (const [block, stamp] of stamps) {
    blocks[block] = stamp === INHERITED.stamp ? INHERITED : { stamp, epoch }
    valid.add(block)
  }
  return { ...copy, blocks, valid, kind: valid.size === BLOCKS ? 'full' : copy.kind }
}

const emptyCopy = (epoch: number): Copy => ({
  isThere: true,
  version: null,
  kind: 'partial',
  valid: new Set(),
  epochs: new Set(),
  tail: [],
  blocks: Array.from({ length: BLOCKS }, () => ({ stamp: 0, epoch })),
})

function clone({ clean, copies }: Image): Image {
  return { clean, copies: new Map(copies) }
}

function expectedSince({ blocks }: Copy, epoch: number): number[] {
  return blocks.flatMap((block, at) => (block.epoch >= epoch ? [at] : []))
}

/** The numbers below BLOCKS of the blocks in these ranges. */
function blocksIn(ranges: readonly BlockRange[]): number[] {
  const blocks = ranges.flatMap(({ first, count }) =>
    Array.from({ length: Math.min(count, BLOCKS) }, (_, i) => Math.min(first + i, REST)),
  )
  return [...new Set(blocks)]
}

function rangesOf(blocks: readonly number[]): BlockRange[] {
  const ranges: BlockRange[] = []
  for (const block of [...blocks].sort((a, b) => a - b)) {
    const count = block === REST ? BLOCKS_PER_OBJECT - REST : 1
    const last = ranges.at(-1)
    if (last && last.first + last.count === block) last.count += count
    else ranges.push({ first: block, count })
  }
  return ranges
}

function stamped(oid: bigint, first: number, count: number, stamp: number): Buffer {
  const bytes = Buffer.alloc(count * BLOCK_BYTES)
  for (let i = 0; i < count; i++) {
    for (const at of [i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES - 16]) {
      bytes.writeUInt32LE(stamp, at)
      bytes.writeBigUInt64LE(oid ^ BigInt(first + i), at + 8)
    }
  }
  return bytes
}

function readStamp(oid: bigint, block: number, bytes: Buffer): number {
  const stamp = bytes.readUInt32LE(0)
  const key = stamp === 0 ? 0n : oid ^ BigInt(block)
  for (const at of [0, BLOCK_BYTES - 16]) {
    if (bytes.readUInt32LE(at) !== stamp || bytes.readBigUInt64LE(at + 8) !== key)
      throw new Error(`a torn or misplaced block: object ${oid.toString(16)} block ${block}`)
  }
  return stamp
}
