import assert from 'node:assert'
import { StoreError, toStoreError } from '../../errors.ts'
import { formatOid, oidVid } from '../../protocol/oid.ts'
import type { Change } from '../change.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, OBJECT_TAIL_BYTES } from '../object-format.ts'
import type { ObjectStore } from '../object-store.ts'
import type { StoredObject } from '../stored-object.ts'
import { ALL_BLOCKS, type Blocks, blocksOf, countBlocks, subtract, toBlocks } from './block-ranges.ts'
import { bitsOf, hasAllBlocks, hasBlock, rangesWhere, withBlocks } from './block-sets.ts'
import type { CopyImage, CopyRecord } from './copy-records.ts'
import type {
  Adoption,
  BlockContents,
  BlockRange,
  CopyDone,
  CopyLayout,
  CopyState,
  CopyStore,
  CopyWrite,
  TailEntry,
} from './copy-store.ts'
import type { CopyTable } from './copy-table.ts'
import { epochsFrom, NO_EPOCHS, withEpoch } from './epoch-runs.ts'
import { Reservations } from './reservations.ts'
import { changesOf, cutRun, eachBlock, partsOf, readRuns } from './stored-contents.ts'
import { cleanVersion, endsAfter, firstLacking, isSameVersion, type Version } from './version.ts'

/** Told whether the object could be loaded. */
type Turn = (failure: StoreError | null) => void

/**
 * Copies on the object store of this node.
 *
 * 1. What a change makes of version, tail and marks is known from the call on. It becomes a transaction, together with the bytes, in the
 *    same call too, unless the object has to be read from a cold disk first; then what comes for that object waits in line.
 * 2. Nothing of an epoch is acknowledged before it is durable that there may be something of it: so after a loss of power
 *    `lostThroughEpoch` is known.
 * 3. A watermark goes with the next transaction for its VDI, and with the next checkpoint.
 */
export class EngineCopyStore implements CopyStore {
  readonly #store: ObjectStore
  readonly #copies: CopyTable
  /** What waits for its object to be loaded, in order. */
  readonly #lines = new Map<bigint, Turn[]>()
  readonly #loading = new Set<Promise<void>>()
  /** Of objects with a line: whether there is one once it has come to its end. */
  readonly #there = new Map<bigint, boolean>()
  /** Of each VDI the last watermark, if no transaction has it yet. */
  readonly #watermarks = new Map<number, CopyRecord>()
  readonly #reserved = new Reservations()
  /** It is durable that something may be accepted in epochs up to this one. */
  #acceptedEpoch: number

  constructor(store: ObjectStore) {
    this.#store = store
    this.#copies = store.copies
    this.#acceptedEpoch = store.copies.horizon.accepted
  }

  get lostThroughEpoch(): number {
    const { clean, lost } = this.#copies.horizon
    return lost > clean ? lost : 0
  }

  /** The version since the last clean epoch; null for a copy that is clean, or that is not there. */
  versionOf(oid: bigint): Version | null {
    return this.#copies.imageOf(oid)?.version ?? null
  }

  /** Of a whole copy that was written in no epoch since the last clean one: all of these are equal. */
  get cleanVersion(): Version {
    return cleanVersion(this.#copies.horizon.clean)
  }

  get #cleanImage(): CopyImage {
    return { version: this.cleanVersion, epochs: NO_EPOCHS, kind: 'full', valid: null }
  }

  stateOf(oid: bigint): CopyState | null {
    const image = this.#copies.imageOf(oid)
    const isThere = this.#isThere(oid)
    if (!image && !isThere) return null
    const { version, kind, valid } = image ?? this.#cleanImage
    if (kind === 'removed') return { version, kind, valid: [] }
    if (kind === 'stale' || !isThere || this.#store.lossOf(oid)) return { version, kind: 'stale', valid: [] }
    if (!valid) return { version, kind, valid: ALL_BLOCKS }
    return { version, kind, valid: rangesWhere((block) => hasBlock(valid, block)) }
  }

  plainVersionOf(oid: bigint): Version | null {
    const image = this.#copies.imageOf(oid)
    if (image && (image.kind !== 'full' || image.valid)) return null
    if (!this.#isSound(oid)) return null
    if (this.tailOf(oid).length > 0 || this.#reserved.has(oid)) return null
    return image?.version ?? this.cleanVersion
  }

  /** None of an object that is not in memory: owners ask for all that there are, and to load one takes longer than all the rest. */
  allocatedOf(oid: bigint): Blocks {
    const object = this.#store.isLoaded(oid) ? this.#objectNow(oid) : null
    return object ? rangesWhere((block) => object.hasData(block, 1)) : []
  }

  /** Of these blocks those that are not in `allocatedOf`, without a look at all the others. */
  #withoutSpace(oid: bigint, blocks: Blocks): Blocks {
    const object = this.#objectNow(oid)
    if (!object) return blocks
    return blocks.flatMap(({ first, count }) => rangesWhere((block) => !object.hasData(block, 1), first, first + count))
  }

  /** The object with all that was accepted for it, if that needs no waiting. */
  #objectNow(oid: bigint): StoredObject | null {
    const isInLine = this.#lines.size > 0 && this.#lines.has(oid)
    return isInLine ? null : (this.#store.loadedNow(oid) ?? null)
  }

  #isThere(oid: bigint): boolean {
    return this.#there.get(oid) ?? this.#store.exists(oid)
  }

  /** Whether it is there, and nothing of it is lost with its disk. */
  #isSound(oid: bigint): boolean {
    const isThere = this.#there.size > 0 ? this.#there.get(oid) : undefined
    return isThere === undefined ? this.#store.isSound(oid) : isThere && !this.#store.lossOf(oid)
  }

  /** Looks at every object of the node, one by one: between two of them turns may go by. */
  *objects(): Generator<bigint> {
    for (const oid of this.#store.oids()) if (this.#there.get(oid) ?? true) yield oid
    for (const oid of this.#there.keys()) if (this.#isThere(oid) && !this.#store.exists(oid)) yield oid
    for (const oid of this.#copies.oids()) {
      if (this.#copies.imageOf(oid) !== null && !this.#isThere(oid)) yield oid
    }
  }

  /** Objects of which the copy here lacks something. */
  lacking(): readonly bigint[] {
    return [...this.#copies.oids()].filter((oid) => {
      const { kind, valid } = this.#copies.imageOf(oid)!
      return kind === 'stale' || (kind !== 'removed' && valid !== null)
    })
  }

  objectsOf(vid: number): readonly bigint[] {
    const oids = new Set([...this.#copies.imagesOf(vid).keys(), ...this.#store.oidsOf(vid)])
    for (const oid of this.#there.keys()) if (oidVid(oid) === vid) oids.add(oid)
    return [...oids].filter((oid) => this.#copies.imageOf(oid) !== null || this.#isThere(oid))
  }

  apply(write: CopyWrite, durable: boolean, done: CopyDone): void {
    const { oid, version, previous } = write
    assert(previous === null || this.isAt(oid, previous))
    const ranges = blocksOf(write)
    if (!this.#hasSpace(oid, ranges) && !this.#hasRoomFor(oid, write)) return done(new StoreError('NoSpace'))
    const before = previous === null ? null : this.#copies.imageOf(oid)
    const epochs = withEpoch(this.#copies.imageOf(oid)?.epochs ?? NO_EPOCHS, version.generation.epoch)
    const { ends } = previous === null ? NO_ENDS : this.#endsBefore(oid, version)
    const [kind, valid] = [before?.kind ?? 'full', before?.valid ?? null]
    const image = grown(ends ? { version, epochs, kind, valid, ends } : { version, epochs, kind, valid }, ranges)
    const records: CopyRecord[] = [
      { kind: 'copy', oid, image },
      { kind: 'wrote', oid, version, previous, ranges },
    ]
    if (previous === null) records.unshift({ kind: 'settled', oid })
    const changes = (): Change[] =>
      previous === null ? [this.#zeros(oid), ...changesOf(oid, write)] : changesOf(oid, write)
    this.#reserved.use(oid, ranges)
    this.#commit({ oid, epoch: version.generation.epoch, durable, leaves: true, writes: true, records, changes }, done)
  }

  /** Makes an object of zeros, or makes it zeros. */
  #zeros(oid: bigint): Change {
    if (!this.#store.exists(oid)) return { kind: 'create', oid, runs: [] }
    return { kind: 'zero', object: oid, first: 0, count: BLOCKS_PER_OBJECT }
  }

  /** Whether a copy that is not stale has this version. What is clean is one version under many names. */
  isAt(oid: bigint, version: Version): boolean {
    const image = this.#copies.imageOf(oid)
    if (image?.kind === 'stale' || image?.kind === 'removed' || !this.#isSound(oid)) return false
    const { clean } = this.#copies.horizon
    const isClean = (each: Version) => each.generation.epoch <= clean
    const own = image?.version ?? this.cleanVersion
    return isSameVersion(own, version) || (isClean(own) && isClean(version))
  }

  adopt({ oid, version, kind, valid }: Adoption, done: CopyDone): void {
    const before = this.#isThere(oid) ? (this.#copies.imageOf(oid)?.version ?? this.cleanVersion) : null
    const bits = bitsOf(valid)
    const image: CopyImage = {
      version,
      epochs: withEpoch(this.#copies.imageOf(oid)?.epochs ?? NO_EPOCHS, version.generation.epoch),
      kind,
      valid: hasAllBlocks(bits) ? null : bits,
      ...this.#endsBefore(oid, version),
    }
    const records: CopyRecord[] = [
      { kind: 'copy', oid, image },
      { kind: 'wrote', oid, version, previous: before, ranges: [] },
    ]
    const changes = (): Change[] => {
      // What is lost with its disk, or is all that cannot be read, gives way to a new one: until that is there the copy is missing.
      const isUseless = valid.length === 0 || this.#store.lossOf(oid)
      if (isUseless) this.#store.commit([{ kind: 'remove', oid }], { durable: false }, () => {})
      return this.#store.exists(oid) ? [] : [{ kind: 'create', oid, runs: [] }]
    }
    this.#commit({ oid, epoch: version.generation.epoch, durable: true, leaves: true, records, changes }, done)
  }

  /** For the image that takes the place of the one that there is, with another version. */
  #endsBefore(oid: bigint, next: Version): Pick<CopyImage, 'ends'> {
    const image = this.#copies.imageOf(oid)
    const isSameEpoch = image?.version.generation.epoch === next.generation.epoch
    if (isSameEpoch && image.kind !== 'stale') return image.ends ? { ends: image.ends } : NO_ENDS
    const before = this.stateOf(oid)
    if (!before || before.kind === 'stale' || before.kind === 'removed') return NO_ENDS
    const ends = endsAfter(image?.ends ?? [], before.version, next)
    return ends.length > 0 ? { ends } : NO_ENDS
  }

  fill(oid: bigint, contents: BlockContents, done: CopyDone): void {
    const image = this.#copies.imageOf(oid)
    const valid = image?.valid
    if (!valid || image.kind === 'stale' || !this.#isThere(oid)) return done(null)
    const isMissing = (block: number) => !hasBlock(valid, block)
    const missingOf = (ranges: readonly BlockRange[]) =>
      ranges.flatMap(({ first, count }) => rangesWhere(isMissing, first, first + count))
    const { inherited } = contents
    const missing: BlockContents = {
      blocks: contents.blocks.flatMap((run) => cutRun(run, isMissing)),
      zeros: missingOf(contents.zeros),
      ...(inherited && { inherited: { base: inherited.base, ranges: missingOf(inherited.ranges) } }),
    }
    const ranges = blocksOf(missing)
    if (ranges.length === 0) return done(null)
    if (!this.#hasRoomFor(oid, missing)) return done(new StoreError('NoSpace'))
    const records: CopyRecord[] = [{ kind: 'copy', oid, image: grown(image, ranges) }]
    const changes = (): Change[] => changesOf(oid, missing)
    this.#reserved.use(oid, ranges)
    const { epoch } = image.version.generation
    this.#commit({ oid, epoch, durable: false, leaves: true, writes: true, records, changes }, done)
  }

  tailOf(oid: bigint): readonly TailEntry[] {
    return this.#copies.tailOf(oid)
  }

  setWatermark(vid: number, version: Version): void {
    const record: CopyRecord = { kind: 'watermark', vid, version }
    this.#copies.apply(record)
    this.#store.noteCopies(record)
    this.#watermarks.set(vid, record)
  }

  settle(oid: bigint): void {
    if (this.#copies.tailOf(oid).length === 0) return
    const record: CopyRecord = { kind: 'settled', oid }
    this.#copies.apply(record)
    this.#store.noteCopies(record)
  }

  touchedSince(vid: number, epoch: number): readonly { oid: bigint; epochs: readonly number[] }[] {
    return [...this.#copies.imagesOf(vid)]
      .map(([oid, { epochs }]) => ({ oid, epochs: epochsFrom(epochs, epoch) }))
      .filter(({ epochs }) => epochs.length > 0)
  }

  /**
   * All blocks of an object that would have to be read from a cold disk first. What is inherited bears no epoch, and always counts: an
   * older copy may be of another object of that name, and what is inherited takes no space in a message.
   */
  blocksSince(oid: bigint, since: Version): readonly BlockRange[] {
    if (!this.#isThere(oid)) return []
    const object = this.#objectNow(oid)
    if (!object) return ALL_BLOCKS
    const epoch = firstLacking(this.#copies.imageOf(oid)?.ends ?? [], since)
    return rangesWhere((block) => (object.writtenEpoch(block) ?? Number.POSITIVE_INFINITY) >= epoch)
  }

  markStale(oid: bigint, done: CopyDone): void {
    const { version, epochs } = this.#copies.imageOf(oid) ?? { version: this.cleanVersion, epochs: NO_EPOCHS }
    const records: CopyRecord[] = [{ kind: 'copy', oid, image: { version, epochs, kind: 'stale', valid: null } }]
    this.#commit({ oid, epoch: 0, durable: true, leaves: null, records, changes: () => [] }, done)
  }

  markRotten(oid: bigint, blocks: readonly BlockRange[], done: CopyDone): void {
    const image = this.#copies.imageOf(oid) ?? this.#cleanImage
    const before = image.valid ? rangesWhere((block) => hasBlock(image.valid!, block)) : ALL_BLOCKS
    const valid = bitsOf(subtract(before, blocks))
    const records: CopyRecord[] = [{ kind: 'copy', oid, image: { ...image, valid } }]
    this.#commit({ oid, epoch: 0, durable: true, leaves: null, records, changes: () => [] }, done)
  }

  reserve(oid: bigint, ranges: readonly BlockRange[]): boolean {
    const more = subtract(this.#withoutSpace(oid, toBlocks(ranges)), this.#reserved.of(oid))
    if (!this.#hasRoom(oid, more)) return false
    this.#reserved.add(oid, more)
    return true
  }

  release(oid: bigint): void {
    this.#reserved.release(oid)
  }

  /** Whether these blocks have space already, every one. */
  #hasSpace(oid: bigint, ranges: Blocks): boolean {
    const object = this.#objectNow(oid)
    return object !== null && ranges.every(({ first, count }) => object.hasData(first, count))
  }

  /** What was set aside for these blocks is theirs. */
  #hasRoomFor(oid: bigint, { blocks }: BlockContents): boolean {
    const needed = subtract(blocksOf({ blocks, zeros: [] }), this.#reserved.of(oid))
    return needed.length === 0 || this.#hasRoom(oid, this.#withoutSpace(oid, needed))
  }

  /** For blocks that have no space yet, beside what is set aside for others. */
  #hasRoom(oid: bigint, blocks: Blocks): boolean {
    const isThere = this.#isThere(oid)
    if (isThere && blocks.length === 0) return true
    const bytes = (countBlocks(blocks) + this.#reserved.blocks) * BLOCK_BYTES
    return isThere ? this.#store.hasRoom({ oid }, bytes) : this.#store.hasRoomForNew(bytes + OBJECT_TAIL_BYTES, 0)
  }

  readNow(oid: bigint, first: number, target: Buffer, done: (isRead: boolean) => void): boolean {
    const count = target.length / BLOCK_BYTES
    const object = this.#objectNow(oid)
    if (!object?.hasData(first, count) || !this.#isValid(oid, { first, count })) return false
    this.#store.read(object, first, count, target, (error) => done(error === null))
    return true
  }

  /** Reads blocks that are valid; others are NoObject. */
  read(
    oid: bigint,
    { first, count }: BlockRange,
    done: (error: StoreError | null, contents: BlockContents) => void,
  ): void {
    const refuse = (error: StoreError) => done(error, { blocks: [], zeros: [] })
    if (!this.#isValid(oid, { first, count }))
      return refuse(new StoreError('NoObject', `blocks of ${formatOid(oid)} that this copy has not`))
    this.#inLine(oid, (failure) => {
      const object = this.#store.loadedNow(oid)
      if (failure || !object) return refuse(failure ?? new StoreError('NoObject', formatOid(oid)))
      const { zeros, inherited, data: parts } = partsOf(this.#store, object, { first, count })
      const blocks = parts.map((part) => ({ first: part.first, bytes: Buffer.alloc(part.count * BLOCK_BYTES) }))
      const contents = { blocks, zeros, ...(inherited && { inherited }) }
      readRuns(this.#store, object, blocks, ([failed]) => (failed ? refuse(failed.error) : done(null, contents)))
    })
  }

  remainsOf(oid: bigint, range: BlockRange, done: (error: StoreError | null, contents: BlockContents) => void): void {
    const nothing: BlockContents = { blocks: [], zeros: [] }
    this.#inLine(oid, (failure) => {
      const object = this.#store.loadedNow(oid)
      if (failure || !object) return done(null, nothing)
      const blocks = partsOf(this.#store, object, range).data.flatMap(({ first, count }) =>
        Array.from({ length: count }, (_, at) => ({ first: first + at, bytes: Buffer.alloc(BLOCK_BYTES) })),
      )
      readRuns(this.#store, object, blocks, (failed) => {
        const bad = failed.find(({ error }) => error.code !== 'CorruptBlock')
        if (bad) return done(bad.error, nothing)
        done(null, { blocks: blocks.filter((run) => !failed.some((each) => each.run === run)), zeros: [] })
      })
    })
  }

  mend(oid: bigint, { blocks }: BlockContents, done: (error: StoreError | null, hasMatched: boolean) => void): void {
    this.#inLine(oid, (failure) => {
      const object = this.#store.loadedNow(oid)
      const image = this.#copies.imageOf(oid)
      if (failure || !object || image?.kind !== 'full') return done(null, false)
      const { valid, version } = image
      const isMended = (block: number, bytes: Buffer) =>
        valid !== null && !hasBlock(valid, block) && object.matches(block, bytes)
      if (!blocks.flatMap(eachBlock).every(({ first, bytes }) => isMended(first, bytes))) return done(null, false)
      const contents = { blocks, zeros: [] }
      const records: CopyRecord[] = [{ kind: 'copy', oid, image: grown(image, blocksOf(contents)) }]
      const changes = (): Change[] => changesOf(oid, contents)
      const { epoch } = version.generation
      this.#commit({ oid, epoch, durable: true, leaves: true, writes: true, records, changes }, (error) =>
        done(error, error === null),
      )
    })
  }

  layoutOf(oid: bigint, range: BlockRange, done: (error: StoreError | null, layout: CopyLayout) => void): void {
    const refuse = (error: StoreError) => done(error, { data: [] })
    if (!this.#isValid(oid, range))
      return refuse(new StoreError('NoObject', `blocks of ${formatOid(oid)} that this copy has not`))
    this.#inLine(oid, (failure) => {
      const object = this.#store.loadedNow(oid)
      if (failure || !object) return refuse(failure ?? new StoreError('NoObject', formatOid(oid)))
      const { data, inherited } = partsOf(this.#store, object, range)
      done(null, { data, ...(inherited && { inherited }) })
    })
  }

  #isValid(oid: bigint, { first, count }: BlockRange): boolean {
    const image = this.#copies.imageOf(oid)
    if (image?.kind === 'stale' || !this.#isSound(oid)) return false
    const valid = image?.valid
    if (!valid) return true
    for (let block = first; block < first + count; block++) if (!hasBlock(valid, block)) return false
    return true
  }

  remove(oid: bigint, version: Version, done: CopyDone): void {
    const before = this.#copies.imageOf(oid)
    if (!before && !this.#isThere(oid)) return done(null)
    const epochs = withEpoch(before?.epochs ?? NO_EPOCHS, version.generation.epoch)
    const records: CopyRecord[] = [
      { kind: 'settled', oid },
      { kind: 'copy', oid, image: { version, epochs, kind: 'removed', valid: null } },
    ]
    const changes = (): Change[] => [{ kind: 'remove', oid }]
    this.#reserved.release(oid)
    this.#commit({ oid, epoch: 0, durable: false, leaves: false, records, changes }, done)
  }

  drop(oid: bigint, done: CopyDone): void {
    const epoch = this.#copies.imageOf(oid)?.version.generation.epoch ?? 0
    const records: CopyRecord[] = [{ kind: 'copy', oid, image: null }]
    const changes = (): Change[] => [{ kind: 'remove', oid }]
    this.#commit({ oid, epoch, durable: true, leaves: false, records, changes }, done)
  }

  sync(done: CopyDone): void {
    if (this.#loading.size === 0) return this.#store.sync(done)
    void Promise.all(this.#loading).then(() => this.#store.sync(done))
  }

  clean(upToEpoch: number, done: CopyDone): void {
    const record: CopyRecord = { ...this.#copies.horizon, kind: 'horizon', clean: upToEpoch }
    this.#copies.apply(record)
    this.#store.commit([{ kind: 'copies', record }], { durable: false }, done)
  }

  #commit(
    change: {
      oid: bigint
      epoch: number
      durable: boolean
      /** Whether there is an object afterwards; null: as it was. */
      leaves: boolean | null
      /** Whether it is written to, if it is there. */
      writes?: boolean
      records: readonly CopyRecord[]
      /** Asked when its turn has come. */
      changes: () => Change[]
    },
    done: CopyDone,
  ): void {
    const { oid, epoch, records } = change
    for (const record of records) this.#copies.apply(record)
    const vid = oidVid(oid)
    const more = this.#announced(epoch, change.durable)
    const watermark = this.#watermarks.get(vid)
    this.#watermarks.delete(vid)
    const all =
      watermark || more.records.length > 0 ? [...records, ...(watermark ? [watermark] : []), ...more.records] : records
    const isInLine = this.#inLine(
      oid,
      (failure) => {
        if (failure && change.writes) return this.#spoil(oid, failure, done)
        const changes = change.changes()
        // The one that was to make it was refused.
        const isGone = !this.#store.exists(oid) && !changes.some(({ kind }) => kind === 'create')
        if (change.writes && isGone) return this.#spoil(oid, new StoreError('NoObject', formatOid(oid)), done)
        for (const record of all) changes.push({ kind: 'copies', record })
        const durable = change.durable || more.durable
        this.#store.commit(changes, epoch > 0 ? { durable, epoch } : { durable }, (error) => {
          if (!error && more.records.length > 0) this.#acceptedEpoch = Math.max(this.#acceptedEpoch, epoch)
          done(error)
        })
      },
      change.writes === true,
    )
    if (isInLine && change.leaves !== null) this.#there.set(oid, change.leaves)
  }

  /** What has to be durable before anything of this epoch is acknowledged that is not. */
  #announced(epoch: number, durable: boolean): { durable: boolean; records: CopyRecord[] } {
    if (durable || this.#store.durability === 'write' || epoch <= this.#acceptedEpoch) return { durable, records: [] }
    // Each says so until one is durable: which of them comes first is not known before they are not in line any more.
    const record: CopyRecord = { ...this.#copies.horizon, kind: 'horizon', accepted: epoch }
    this.#copies.apply(record)
    return { durable: true, records: [record] }
  }

  /** An object that cannot be read has not taken what was accepted for it. */
  #spoil(oid: bigint, failure: StoreError, done: CopyDone): void {
    const image = this.#copies.imageOf(oid)
    if (!image) return done(failure)
    const record: CopyRecord = { kind: 'copy', oid, image: { ...image, kind: 'stale', valid: null } }
    this.#copies.apply(record)
    this.#store.commit([{ kind: 'copies', record }], { durable: true }, (error) => done(error ?? failure))
  }

  /**
   * Runs `turn` when the object is loaded, or there is none, and all that came before for it has had its turn. Whether it has to wait for
   * that, and is run later: an object that was not loaded a moment ago may be now, when the kernel has read it meanwhile.
   */
  #inLine(oid: bigint, turn: Turn, needsObject = true): boolean {
    const line = this.#lines.get(oid)
    if (line) {
      line.push(turn)
      return true
    }
    if (!needsObject || this.#store.loadedNow(oid) !== null) {
      turn(null)
      return false
    }
    const begun = [turn]
    this.#lines.set(oid, begun)
    const loading = this.#load(oid, begun).finally(() => this.#loading.delete(loading))
    this.#loading.add(loading)
    return true
  }

  async #load(oid: bigint, line: Turn[]): Promise<void> {
    let object: StoredObject | null = null
    let failure: StoreError | null = null
    try {
      object = await this.#store.hold(oid)
    } catch (error) {
      failure = toStoreError(error)
    }
    for (const turn of line) turn(failure) // those that come meanwhile are in it, too
    this.#lines.delete(oid)
    this.#there.delete(oid)
    if (object) this.#store.release(object)
  }
}

/** With these blocks too, which may have been the last that it lacked. */
const NO_ENDS: Pick<CopyImage, 'ends'> = {}

function grown(image: CopyImage, ranges: readonly BlockRange[]): CopyImage {
  if (!image.valid) return image
  const valid = withBlocks(image.valid, ranges)
  return hasAllBlocks(valid) ? { ...image, kind: 'full', valid: null } : { ...image, valid }
}
