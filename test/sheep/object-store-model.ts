import { pino } from 'pino'
import { StoreError } from '../../src/errors.ts'
import { BLOCK_BYTES, objectPath } from '../../src/sheep/object-format.ts'
import { type Change, ObjectStore } from '../../src/sheep/object-store.ts'
import { SimClock } from '../sim/clock.ts'
import { SimDisk } from '../sim/disk.ts'
import { SeededRandom } from '../sim/random.ts'
import { surplusSlots } from './surplus-slots.ts'

const quiet = pino({ level: 'silent' })

/** Object → block → the number of the transaction that wrote it; 0 is zeros. A missing object is no object. */
type Image = Map<bigint, Map<number, number>>

interface Transaction {
  apply(image: Image): void
}

/** The file of a new object that a large write has made. */
const TAGGED = /^obj\/.*\.[0-9a-f]+$/

const ROOMY = 2 ** 40
/** Any other size than that: then the disk counts what is used. */
const CROWDED = 1

const DATA_DISKS = ['/disk/a', '/disk/b', '/disk/c']

/**
 * Runs one seed: random transactions, reads, syncs, kills and power losses on a simulated disk, against a plain map.
 * After each crash the store must hold exactly the transactions up to some point, no earlier than the last one that had
 * been acknowledged as durable (after a kill: acknowledged at all).
 *
 * Half of the stores have other disks, which are plugged in and unplugged, and of which one may fail: then each object that was
 * on it may be lost as a whole, but never reads as anything older. It may work again after the next start, and one may lose its
 * page cache alone while the others keep theirs.
 */
export class StoreModel {
  readonly random: SeededRandom
  readonly clock: SimClock
  readonly disk: SimDisk
  readonly durability: 'flush' | 'write'
  readonly #placedMinBytes: number
  /** Of slots that wait for the next write: none, a few, or all that there are. */
  readonly #keptBytesMax: number
  readonly #isSpread: boolean
  readonly #dataDisks: ReadonlyMap<string, SimDisk>
  /** The disk that fails, once there is one; and the objects of it that were found to be lost. */
  #broken: string | null = null
  readonly #lost = new Set<bigint>()
  #store!: ObjectStore
  /** The image at the last point that a crash proved, and what came after. */
  #base: Image = new Map()
  #since: Transaction[] = []
  #number = 0
  #durable = 0
  #acknowledged = 0
  #current: Image = new Map()
  counts = {
    transactions: 0,
    crashes: 0,
    reads: 0,
    plugs: 0,
    unplugs: 0,
    lost: 0,
    placedApart: 0,
    healed: 0,
    punched: 0,
    kept: 0,
    keptApart: 0,
    keptLast: 0,
    crowded: 0,
  }

  constructor(seed: number) {
    this.random = new SeededRandom(seed)
    this.clock = new SimClock(this.random)
    this.disk = new SimDisk(this.random, this.clock)
    this.durability = this.random.chance(0.3) ? 'write' : 'flush'
    this.#placedMinBytes = (1 + this.random.below(4)) * BLOCK_BYTES
    this.#keptBytesMax = this.random.pick([0, 6, 1000]) * BLOCK_BYTES
    this.#isSpread = this.random.chance(0.5)
    this.#dataDisks = new Map(DATA_DISKS.map((path) => [path, new SimDisk(this.random, this.clock)]))
  }

  async run(steps: number): Promise<void> {
    await this.open()
    for (let step = 0; step < steps; step++) {
      const dice = this.random.next()
      if (dice < 0.58) this.commit()
      else if (dice < 0.585) for (let i = 0; i < 40; i++) this.commit()
      else if (dice < 0.6) await this.endWithin()
      else if (dice < 0.75) await this.read()
      else if (dice < 0.8) await this.sync()
      else if (dice < 0.84 && this.#isSpread) this.#changeDisks()
      else if (dice < 0.845 && !this.#isSpread) this.#changeRoom()
      else if (dice < 0.97) for (let i = this.random.below(20); i > 0; i--) this.clock.step()
      else await this.crash()
    }
    await this.crash()
    await this.clock.run(this.#store.close())
    await this.open()
    this.#durable = this.#acknowledged = this.#since.length
    await this.verify()
    await this.#leaveNothing()
    await this.clock.run(this.#store.close())
    this.#checkFiles()
  }

  /** What crashes have left taken for nothing is given back, once no copy of it is under way; and then something is written. */
  async #leaveNothing(): Promise<void> {
    for (const path of DATA_DISKS) {
      if (this.#store.disks.progressOf(path) === null) continue
      await this.clock.run(this.#background(this.#store.disks.unplug(path), () => this.counts.unplugs++))
    }
    for (const oid of this.#current.keys()) await this.clock.run(this.#punchStraySlots(oid))
    for (let i = 0; i < 10; i++) this.commit()
    await this.sync()
    this.#store.startCheckpoint()
    for (let steps = 0; steps < 100 && this.#store.measures().keptBytes === 0; steps++) {
      await new Promise<void>((resolve) => setImmediate(resolve))
      this.clock.step()
    }
    if (this.#store.measures().keptBytes > 0) this.counts.keptLast++
    for (let i = this.random.below(3); i > 0; i--) this.commit()
  }

  /** Little room is left on the only disk, or there is plenty again: only what is kept for the next write may notice. */
  #changeRoom(): void {
    const { disk } = this
    if (disk.capacityBytes === ROOMY) {
      disk.capacityBytes = CROWDED
      disk.capacityBytes = disk.usedBytes() + 200 * BLOCK_BYTES
      this.counts.crowded++
    } else disk.capacityBytes = ROOMY
  }

  /** Plugs a disk in, or unplugs one, or one begins to fail; what follows happens in the background. */
  #changeDisks(): void {
    const path = this.random.pick(DATA_DISKS)
    const dice = this.random.next()
    if (path === this.#broken) return
    if (dice < 0.4) {
      void this.#background(this.#store.disks.plug(path), () => this.counts.plugs++)
    } else if (dice < 0.9) {
      void this.#background(this.#store.disks.unplug(path), () => this.counts.unplugs++)
    } else if (this.#broken === null) {
      this.#broken = path
      const disk = this.#dataDisks.get(path)!
      if (this.random.chance(0.2)) disk.isGone = true
      else disk.operationsLeft = this.random.below(40)
    }
  }

  /** What is there already, or is not there, is refused; what fails, fails; nothing else may go wrong. */
  async #background(work: Promise<unknown>, succeeded: () => void): Promise<void> {
    const life = this.counts.crashes
    const isOurs = await work.then(
      () => true,
      (error) => {
        if (!(error instanceof StoreError)) throw error
        if (error.code === 'DiskFailed' && this.#broken !== null) return false
        if (error.code === 'InvalidParameters' || error.code === 'Stopping') return false
        throw error
      },
    )
    if (isOurs && life === this.counts.crashes) succeeded()
  }

  /** Each object has one file on one disk, and no copy was left behind. */
  #checkFiles(): void {
    const well = [...this.#dataDisks].filter(([path]) => path !== this.#broken).map(([, disk]) => disk)
    const names = [this.disk, ...well].flatMap((disk) => disk.paths()).filter((path) => path.startsWith('obj/'))
    if (names.some((name) => name.endsWith('.moving'))) throw new Error(`a copy was left: ${names}`)
    if (new Set(names).size !== names.length) throw new Error(`an object has two files: ${names}`)
    for (const disk of [this.disk, ...well]) {
      const surplus = surplusSlots(disk)
      if (surplus.length > 0) throw new Error(`slots that nothing names were left: ${surplus.join(', ')}`)
    }
  }

  /** Whether this failure is that of the disk that fails; then the object is lost. */
  #isLoss(oid: bigint, error: unknown): boolean {
    if (!(error instanceof StoreError) || this.#broken === null) return false
    if (error.code !== 'DiskFailed' && error.code !== 'NoObject') return false
    if (!this.#dataDisks.get(this.#broken)!.hasEverHad(objectPath(oid))) return false
    if (!this.#lost.has(oid)) this.counts.lost++
    this.#lost.add(oid)
    return true
  }

  /** `apart`: the process ends, and one of the other disks loses power. */
  #powerOff(how: 'powerLoss' | 'kill' | 'apart'): void {
    const alone = this.random.pick([...this.#dataDisks.values()])
    const isKeeping = this.#store.measures().keptBytes > 0
    if (isKeeping) this.counts.kept++
    if (isKeeping && this.#isSpread) this.counts.keptApart++
    for (const disk of [this.disk, ...this.#dataDisks.values()]) {
      if (disk !== this.disk) this.counts.placedApart += disk.paths().filter((path) => TAGGED.test(path)).length
      if (how === 'powerLoss' || (how === 'apart' && disk === alone)) disk.powerLoss()
      else disk.kill()
    }
    const broken = this.#broken === null ? undefined : this.#dataDisks.get(this.#broken)
    if (!broken || !this.random.chance(0.1)) return
    this.counts.healed++
    broken.operationsLeft = null
    broken.isGone = false
  }

  /** A start that meets the failure of a disk is refused; the next one goes without it. */
  async open(): Promise<void> {
    try {
      await this.#open()
    } catch (error) {
      if (!(error instanceof StoreError && error.code === 'DiskFailed' && this.#broken !== null)) throw error
      this.#powerOff('kill')
      await this.#open()
    }
  }

  async #open(): Promise<void> {
    const opened = await this.clock.run(
      ObjectStore.open({
        disk: this.disk.mount(),
        disks: {
          open: async (path) => this.#dataDisks.get(path)!.opened(path),
          homePath: '/disk/first',
          homeDevice: '/disk/first',
          configured: this.#isSpread ? DATA_DISKS.slice(0, 2).filter((path) => path !== this.#broken) : [],
          without: this.#broken === null ? [] : [this.#broken],
        },
        clock: this.clock.mount(),
        random: this.random,
        log: quiet,
        segmentBytes: 40 * BLOCK_BYTES,
        durability: this.durability,
        reserveBytes: 0,
        loadedObjectsMax: 4,
        placedMinBytes: this.#placedMinBytes,
        keptBytesMax: this.#keptBytesMax,
        onFailed: () => {},
      }),
    )
    this.#store = opened.store
  }

  commit(): void {
    const number = ++this.#number
    const changes: Change[] = []
    const effects: ((image: Image) => void)[] = []
    for (let i = 1 + this.random.below(3); i > 0; i--) this.#randomChange(number, changes, effects)
    if (changes.length === 0) return
    const transaction = {
      apply: (image: Image) => {
        for (const effect of effects) effect(image)
      },
    }
    let refusal: StoreError | null = null
    let isReturned = false
    this.#since.push(transaction)
    const position = this.#since.length
    const durable = this.random.chance(0.2)
    this.counts.transactions++
    const life = this.disk.ended
    this.#store.commit(changes, { durable }, (error) => {
      if (life !== this.disk.ended) return // the process that was told has ended
      if (error && !isReturned) refusal = error
      if (error) {
        if (!changedOids(changes).some((oid) => this.#isLoss(oid, error))) throw error
        return
      }
      this.#acknowledged = Math.max(this.#acknowledged, position)
      if (durable || this.durability === 'write') this.#durable = Math.max(this.#durable, position)
    })
    isReturned = true
    if (refusal) this.#since.pop()
    else transaction.apply(this.#current)
  }

  #randomChange(number: number, changes: Change[], effects: ((image: Image) => void)[]): void {
    const oid = (BigInt(1 + this.random.below(3)) << 32n) | BigInt(this.random.below(3))
    const taken = (change: Change) => 'oid' in change && change.oid === oid
    if (
      changes.some(taken) ||
      changes.some((c) => c.kind === 'blocks' && typeof c.object !== 'bigint' && c.object.oid === oid)
    ) {
      return
    }
    const object = this.#store.loadedNow(oid)
    if (object === null || this.#lost.has(oid)) return
    if (object === undefined && this.#broken !== null && this.#current.has(oid)) return
    const first = this.random.below(12)
    const count = 1 + this.random.below(4)
    if (object === undefined) {
      changes.push({ kind: 'create', oid, runs: [] })
      effects.push((image) => image.set(oid, new Map()))
      if (this.random.chance(0.5)) return
      changes.push({ kind: 'blocks', object: oid, first, bytes: stamped(oid, first, count, number) })
      effects.push((image) => fill(image.get(oid)!, first, count, number))
      return
    }
    const dice = this.random.next()
    if (dice < 0.08) {
      changes.push({ kind: 'remove', oid })
      effects.push((image) => image.delete(oid))
    } else if (dice < 0.2) {
      changes.push({ kind: 'zero', object, first, count })
      effects.push((image) => fill(image.get(oid)!, first, count, 0))
    } else {
      changes.push({ kind: 'blocks', object, first, bytes: stamped(oid, first, count, number) })
      effects.push((image) => fill(image.get(oid)!, first, count, number))
    }
  }

  async read(): Promise<void> {
    const oid = this.random.pick([...this.#current.keys(), 1n << 32n])
    if (!this.#current.has(oid) || this.#lost.has(oid)) return
    if (this.random.chance(0.3)) void this.#punchStraySlots(oid)
    const first = this.random.below(12)
    const count = 1 + this.random.below(4)
    const expected = Array.from({ length: count }, (_, i) => this.#current.get(oid)!.get(first + i) ?? 0)
    const found = await this.clock.run(this.#readStamps(oid, first, count))
    this.counts.reads++
    if (!found) return
    if (found.join() !== expected.join()) throw new Error(`read ${found} instead of ${expected}`)
  }

  /** As the scrub does beside everything else; the object may go meanwhile. */
  async #punchStraySlots(oid: bigint): Promise<void> {
    const life = this.disk.ended
    try {
      this.counts.punched += await this.#store.punchStraySlots(oid)
    } catch (error) {
      if (life !== this.disk.ended) return
      if (!(error instanceof StoreError && error.code === 'NoObject') && !this.#isLoss(oid, error)) throw error
    }
  }

  /** Null when the object is lost. */
  async #readStamps(oid: bigint, first: number, count: number): Promise<number[] | null> {
    const target = Buffer.alloc(count * BLOCK_BYTES, 0xee)
    try {
      await this.#store.using(oid, (object) => this.#store.readBlocks(object, first, target))
    } catch (error) {
      if (this.#isLoss(oid, error)) return null
      throw error
    }
    return Array.from({ length: count }, (_, i) => readStamp(oid, first + i, target.subarray(i * BLOCK_BYTES)))
  }

  async sync(): Promise<void> {
    const position = this.#since.length
    await this.clock.run(
      new Promise<void>((resolve, reject) => this.#store.sync((error) => (error ? reject(error) : resolve()))),
    )
    this.#durable = Math.max(this.#durable, position)
  }

  async crash(): Promise<void> {
    let power = this.random.chance(0.6)
    this.#powerOff(!power ? 'kill' : this.#isSpread && this.random.chance(0.2) ? 'apart' : 'powerLoss')
    this.counts.crashes++
    if (this.random.chance(0.3)) {
      await this.#crashWhileOpening()
      power = true
    }
    await this.open()
    if (!power) this.#durable = Math.max(this.#durable, this.#acknowledged)
    await this.verify()
  }

  /** The process ends in the middle of a turn, with only a part of what it was writing written. */
  async endWithin(): Promise<void> {
    if (this.#broken !== null) return
    const { ended } = this.disk
    const before = this.#since.length
    this.disk.endAfterPages = this.random.below(10)
    for (let i = 1 + this.random.below(3); i > 0 && this.disk.ended === ended; i--) {
      this.commit()
      for (let steps = this.random.below(3); steps > 0; steps--) this.clock.step()
    }
    this.disk.endAfterPages = Number.POSITIVE_INFINITY
    if (this.disk.ended === ended) return
    this.#powerOff('kill')
    this.counts.crashes++
    await this.open()
    this.#durable = Math.max(this.#durable, this.#acknowledged)
    await this.verify(before)
  }

  /** A crash in the middle of recovery must lose nothing either. */
  async #crashWhileOpening(): Promise<void> {
    const opening = this.open()
    opening.catch(() => {})
    for (let i = this.random.below(60); i > 0; i--) {
      await new Promise<void>((resolve) => setImmediate(resolve))
      this.clock.step()
    }
    this.#powerOff('powerLoss')
  }

  /** The objects of any point since the last crash. */
  #everThere(): Set<bigint> {
    const image = clone(this.#base)
    const oids = new Set(image.keys())
    for (const transaction of this.#since) {
      transaction.apply(image)
      for (const oid of image.keys()) oids.add(oid)
    }
    return oids
  }

  /**
   * Compares everything, and goes on from the point that was found. The last transaction that is there, if it is one after
   * `torn`, may have replaced only some of the blocks that it was to write: nobody was told that it is done.
   */
  async verify(torn = Number.POSITIVE_INFINITY): Promise<void> {
    const found: Image = new Map()
    for (const oid of this.#store.oids()) {
      const stamps = await this.clock.run(this.#readStamps(oid, 0, 16))
      if (stamps) found.set(oid, new Map(stamps.map((stamp, block) => [block, stamp])))
    }
    for (const oid of this.#everThere()) if (!found.has(oid)) this.#isLoss(oid, new StoreError('NoObject'))
    const candidate = clone(this.#base)
    const matches: number[] = []
    for (let position = 0; position <= this.#since.length; position++) {
      const before = position > torn ? clone(candidate) : null
      if (position > 0) this.#since[position - 1]!.apply(candidate)
      if (position < this.#durable) continue
      if (same(candidate, found, this.#lost) || (before && isBetween(before, candidate, found))) matches.push(position)
    }
    if (matches.length === 0) {
      throw new Error(
        `no prefix of the transactions from ${this.#durable} of ${this.#since.length} on gives what was found:\n${show(found)}\nall of them would give\n${show(candidate)}`,
      )
    }
    for (const transaction of this.#since.slice(0, matches.at(-1))) transaction.apply(this.#base)
    if (!same(this.#base, found, this.#lost)) this.#base = found // it was torn; and no disk is lost then
    this.#current = clone(this.#base)
    this.#since = []
    this.#durable = 0
    this.#acknowledged = 0
  }
}

function changedOids(changes: readonly Change[]): bigint[] {
  return changes.flatMap((change) => {
    if (change.kind === 'create' || change.kind === 'remove') return [change.oid]
    if (change.kind !== 'blocks' && change.kind !== 'zero') return []
    return [typeof change.object === 'bigint' ? change.object : change.object.oid]
  })
}

function stamped(oid: bigint, first: number, count: number, number: number): Buffer {
  const bytes = Buffer.alloc(count * BLOCK_BYTES)
  for (let i = 0; i < count; i++) {
    const at = i * BLOCK_BYTES
    for (const offset of [at, at + BLOCK_BYTES - 16]) {
      bytes.writeUInt32LE(number, offset)
      bytes.writeBigUInt64LE(oid ^ BigInt(first + i), offset + 8)
    }
  }
  return bytes
}

function readStamp(oid: bigint, block: number, bytes: Buffer): number {
  const number = bytes.readUInt32LE(0)
  const key = number === 0 ? 0n : oid ^ BigInt(block)
  for (const at of [0, BLOCK_BYTES - 16]) {
    if (bytes.readUInt32LE(at) !== number || bytes.readBigUInt64LE(at + 8) !== key) {
      throw new Error(`a torn or misplaced block: object ${oid.toString(16)} block ${block}`)
    }
  }
  return number
}

function fill(blocks: Map<number, number>, first: number, count: number, number: number): void {
  for (let block = first; block < first + count; block++) blocks.set(block, number)
}

function clone(image: Image): Image {
  return new Map([...image].map(([oid, blocks]) => [oid, new Map(blocks)]))
}

function same(a: Image, b: Image, except: ReadonlySet<bigint>): boolean {
  for (const oid of new Set([...a.keys(), ...b.keys()])) {
    if (except.has(oid)) continue
    const blocks = a.get(oid)
    const other = b.get(oid)
    if (!blocks || !other) return false
    for (let block = 0; block < 16; block++) if ((blocks.get(block) ?? 0) !== (other.get(block) ?? 0)) return false
  }
  return true
}

/** Whether the objects are those after a transaction, and each block is as it was before it or after it. */
function isBetween(before: Image, after: Image, found: Image): boolean {
  if (after.size !== found.size) return false
  for (const [oid, blocks] of found) {
    const next = after.get(oid)
    if (!next) return false
    for (const [block, stamp] of blocks) {
      if (stamp !== (next.get(block) ?? 0) && stamp !== (before.get(oid)?.get(block) ?? 0)) return false
    }
  }
  return true
}

function show(image: Image): string {
  return [...image].map(([oid, blocks]) => `${oid.toString(16)}=[${[...blocks.values()]}]`).join(' ')
}
