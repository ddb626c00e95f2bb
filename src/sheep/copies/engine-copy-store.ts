import assert from 'node:assert'
import { StoreError, toStoreError } from '../../errors.ts'
import { oidVid } from '../../protocol/oid.ts'
import type { Change } from '../change.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, OBJECT_TAIL_BYTES } from '../object-format.ts'
import type { ObjectStore } from '../object-store.ts'
import type { StoredObject } from '../stored-object.ts'
import { ALL_BLOCKS, bitsOf, hasAllBlocks, hasBlock, rangesWhere, withBlocks } from './block-sets.ts'
import type { CopyImage, CopyRecord } from './copy-records.ts'
import type {
  Adoption,
  BlockRange,
  BlockRun,
  CopyDone,
  CopyState,
  CopyStore,
  CopyWrite,
  TailEntry,
} from './copy-store.ts'
import type { CopyTable } from './copy-table.ts'
import { epochsFrom, NO_EPOCHS, withEpoch } from './epoch-runs.ts'
import { compareVersions, isSameVersion, type Version } from './version.ts'

/** Of a whole copy that was written in no epoch since the last clean one: all of these are equal. */
export const CLEAN_VERSION: Version = { generation: { epoch: 0, index: 0, incarnation: '' }, sequence: 0 }

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
  /** Of partial copies: what was read of an older version may be older than what made the copy partial. */
  readonly #adopted = new Map<bigint, Version>()
  readonly #reserved = new Map<bigint, number>()
  #reservedBytes = 0
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

  stateOf(oid: bigint): CopyState | null {
    const image = this.#copies.imageOf(oid)
    const isThere = this.#isThere(oid)
    if (!image && !isThere) return null
    const version = image?.version ?? CLEAN_VERSION
    if (image?.stale || !isThere || this.#store.lossOf(oid)) return { version, kind: 'stale', valid: [] }
    const valid = image?.valid
    if (!valid) return { version, kind: 'full', valid: ALL_BLOCKS }
    return { version, kind: 'partial', valid: rangesWhere((block) => hasBlock(valid, block)) }
  }

  #isThere(oid: bigint): boolean {
    return this.#there.get(oid) ?? this.#store.exists(oid)
  }

  /** Looks at every object of the node. */
  objectsOf(vid: number): readonly bigint[] {
    const oids = new Set(this.#copies.imagesOf(vid).keys())
    for (const oid of this.#store.oids()) if (oidVid(oid) === vid) oids.add(oid)
    for (const oid of this.#there.keys()) if (oidVid(oid) === vid) oids.add(oid)
    return [...oids].filter((oid) => this.stateOf(oid) !== null)
  }

  apply(write: CopyWrite, durable: boolean, done: CopyDone): void {
    const { oid, version, previous, blocks, zeros } = write
    const state = this.stateOf(oid)
    assert(previous === null || (state && state.kind !== 'stale' && this.#isAt(state.version, previous)))
    if (!this.#hasRoomFor(oid, blocks)) return done(new StoreError('NoSpace'))
    const before = previous === null ? null : this.#copies.imageOf(oid)
    const ranges = rangesOf(blocks, zeros)
    const image: CopyImage = {
      version,
      epochs: withEpoch(this.#copies.imageOf(oid)?.epochs ?? NO_EPOCHS, version.generation.epoch),
      stale: false,
      valid: before?.valid ? grown(before.valid, ranges) : null,
    }
    const records: CopyRecord[] = [
      { kind: 'copy', oid, image },
      { kind: 'wrote', oid, version, previous, ranges },
    ]
    if (previous === null) records.unshift({ kind: 'settled', oid })
    const changes = (): Change[] => [
      ...(previous === null ? [this.#zeros(oid)] : []),
      ...blocks.map(({ first, bytes }) => ({ kind: 'blocks' as const, object: oid, first, bytes })),
      ...zeros.map(({ first, count }) => ({ kind: 'zero' as const, object: oid, first, count })),
    ]
    this.#commit({ oid, epoch: version.generation.epoch, durable, leaves: true, writes: true, records, changes }, done)
  }

  /** Makes an object of zeros, or makes it zeros. */
  #zeros(oid: bigint): Change {
    if (!this.#store.exists(oid)) return { kind: 'create', oid, runs: [] }
    return { kind: 'zero', object: oid, first: 0, count: BLOCKS_PER_OBJECT }
  }

  /** What is clean is one version under many names. */
  #isAt(version: Version, previous: Version): boolean {
    const { clean } = this.#copies.horizon
    const isClean = (each: Version) => each.generation.epoch <= clean
    return isSameVersion(version, previous) || (isClean(version) && isClean(previous))
  }

  adopt({ oid, version, valid }: Adoption, durable: boolean, done: CopyDone): void {
    const bits = bitsOf(valid)
    const image: CopyImage = {
      version,
      epochs: withEpoch(this.#copies.imageOf(oid)?.epochs ?? NO_EPOCHS, version.generation.epoch),
      stale: false,
      valid: hasAllBlocks(bits) ? null : bits,
    }
    if (image.valid) this.#adopted.set(oid, version)
    else this.#adopted.delete(oid)
    const records: CopyRecord[] = [
      { kind: 'settled', oid },
      { kind: 'copy', oid, image },
    ]
    const changes = (): Change[] => {
      // What is lost with its disk, or is all that cannot be read, gives way to a new one: until that is there the copy is missing.
      const isUseless = valid.length === 0 || this.#store.lossOf(oid)
      if (isUseless) this.#store.commit([{ kind: 'remove', oid }], { durable: false }, () => {})
      return this.#store.exists(oid) ? [] : [{ kind: 'create', oid, runs: [] }]
    }
    this.#commit({ oid, epoch: version.generation.epoch, durable, leaves: true, records, changes }, done)
  }

  fill(oid: bigint, version: Version, blocks: readonly BlockRun[], done: CopyDone): void {
    const image = this.#copies.imageOf(oid)
    const adopted = this.#adopted.get(oid)
    const isOld = adopted && compareVersions(version, adopted) < 0
    const valid = image?.valid
    if (!valid || image.stale || isOld || !this.#isThere(oid)) return done(null)
    const missing = blocks.flatMap((run) => partsOf(run, (block) => !hasBlock(valid, block)))
    if (missing.length === 0) return done(null)
    if (!this.#hasRoomFor(oid, missing)) return done(new StoreError('NoSpace'))
    const filled = grown(valid, rangesOf(missing, []))
    if (!filled) this.#adopted.delete(oid)
    const records: CopyRecord[] = [{ kind: 'copy', oid, image: { ...image, valid: filled } }]
    const changes = (): Change[] => missing.map(({ first, bytes }) => ({ kind: 'blocks', object: oid, first, bytes }))
    const { epoch } = version.generation
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
   * All blocks of an object that would have to be read from a cold disk first. What is inherited bears no epoch: it counts as
   * written when anything of the object was.
   */
  blocksSince(oid: bigint, epoch: number): readonly BlockRange[] {
    if (!this.#isThere(oid)) return []
    const object = this.#lines.has(oid) ? null : this.#store.loadedNow(oid)
    if (!object) return ALL_BLOCKS
    const isTouched = (this.#copies.imageOf(oid)?.epochs.at(-1) ?? 0) >= epoch
    return rangesWhere((block) => {
      const written = object.writtenEpoch(block)
      return written === null ? isTouched : written >= epoch
    })
  }

  markStale(oid: bigint, done: CopyDone): void {
    const { version, epochs } = this.#copies.imageOf(oid) ?? { version: CLEAN_VERSION, epochs: NO_EPOCHS }
    const records: CopyRecord[] = [{ kind: 'copy', oid, image: { version, epochs, stale: true, valid: null } }]
    this.#commit({ oid, epoch: 0, durable: true, leaves: null, records, changes: () => [] }, done)
  }

  reserve(oid: bigint, ranges: readonly BlockRange[]): boolean {
    const bytes = this.#bytesFor(oid, ranges)
    if (bytes > 0 && !this.#hasRoom(oid, this.#reservedBytes + bytes)) return false
    this.#reserved.set(oid, (this.#reserved.get(oid) ?? 0) + bytes)
    this.#reservedBytes += bytes
    return true
  }

  release(oid: bigint): void {
    this.#reservedBytes -= this.#reserved.get(oid) ?? 0
    this.#reserved.delete(oid)
  }

  #hasRoomFor(oid: bigint, blocks: readonly BlockRun[]): boolean {
    const bytes = this.#bytesFor(oid, rangesOf(blocks, [])) - (this.#reserved.get(oid) ?? 0)
    return bytes <= 0 || this.#hasRoom(oid, this.#reservedBytes + bytes)
  }

  #hasRoom(oid: bigint, bytes: number): boolean {
    return this.#isThere(oid) ? this.#store.hasRoom({ oid }, bytes) : this.#store.hasRoomForNew(bytes, 0)
  }

  /** What these blocks take at most: nothing where they overwrite. */
  #bytesFor(oid: bigint, ranges: readonly BlockRange[]): number {
    const object = this.#isThere(oid) ? this.#store.loadedNow(oid) : null
    let bytes = this.#isThere(oid) ? 0 : OBJECT_TAIL_BYTES
    for (const { first, count } of ranges) if (!object?.hasData(first, count)) bytes += count * BLOCK_BYTES
    return bytes
  }

  read(oid: bigint, range: BlockRange, done: (error: StoreError | null, bytes: Buffer) => void): void {
    const { first, count } = range
    const bytes = Buffer.alloc(count * BLOCK_BYTES)
    const refuse = (error: StoreError) => done(error, Buffer.alloc(0))
    const valid = this.stateOf(oid)?.valid ?? []
    const isValid = valid.some((part) => part.first <= first && first + count <= part.first + part.count)
    if (!isValid) return refuse(new StoreError('NoObject', `blocks of ${oid.toString(16)} that this copy has not`))
    this.#inLine(oid, (failure) => {
      const object = this.#store.loadedNow(oid)
      if (failure || !object) return refuse(failure ?? new StoreError('NoObject', oid.toString(16)))
      this.#store.read(object, first, count, bytes, (error) => (error ? refuse(error) : done(null, bytes)))
    })
  }

  remove(oid: bigint, durable: boolean, done: CopyDone): void {
    const epoch = this.#copies.imageOf(oid)?.version.generation.epoch ?? 0
    const records: CopyRecord[] = [{ kind: 'copy', oid, image: null }]
    const changes = (): Change[] => [{ kind: 'remove', oid }]
    this.#adopted.delete(oid)
    this.#commit({ oid, epoch, durable, leaves: false, records, changes }, done)
  }

  sync(done: CopyDone): void {
    if (this.#loading.size === 0) return this.#store.sync(done)
    void Promise.all(this.#loading).then(() => this.#store.sync(done))
  }

  /** All that was written in epochs up to this one is on all copies: what is no longer than that is forgotten. */
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
    const all = [...records, ...(watermark ? [watermark] : []), ...more.records]
    if (change.leaves !== null) this.#there.set(oid, change.leaves)
    this.#inLine(
      oid,
      (failure) => {
        if (failure && change.writes) return this.#spoil(oid, failure, done)
        const noted = all.map((record): Change => ({ kind: 'copies', record }))
        const options = { durable: change.durable || more.durable, ...(epoch > 0 && { epoch }) }
        this.#store.commit([...change.changes(), ...noted], options, (error) => {
          if (!error && more.durable) this.#acceptedEpoch = Math.max(this.#acceptedEpoch, epoch)
          done(error)
        })
      },
      change.writes === true,
    )
  }

  /** What has to be durable before anything of this epoch is acknowledged that is not. */
  #announced(epoch: number, durable: boolean): { durable: boolean; records: CopyRecord[] } {
    if (durable || this.#store.durability === 'write' || epoch <= this.#acceptedEpoch) return { durable, records: [] }
    const { horizon } = this.#copies
    if (epoch <= horizon.accepted) return { durable: true, records: [] } // it is on its way
    const record: CopyRecord = { ...horizon, kind: 'horizon', accepted: epoch }
    this.#copies.apply(record)
    return { durable: true, records: [record] }
  }

  /** An object that cannot be read has not taken what was accepted for it. */
  #spoil(oid: bigint, failure: StoreError, done: CopyDone): void {
    const image = this.#copies.imageOf(oid)
    if (!image) return done(failure)
    const record: CopyRecord = { kind: 'copy', oid, image: { ...image, stale: true, valid: null } }
    this.#copies.apply(record)
    this.#store.commit([{ kind: 'copies', record }], { durable: true }, (error) => done(error ?? failure))
  }

  /** Runs `turn` when the object is loaded, or there is none, and all that came before for it has had its turn. */
  #inLine(oid: bigint, turn: Turn, needsObject = true): void {
    const line = this.#lines.get(oid)
    if (line) {
      line.push(turn)
      return
    }
    if (!needsObject || this.#store.loadedNow(oid) !== null) {
      turn(null)
      this.#there.delete(oid)
      return
    }
    const begun = [turn]
    this.#lines.set(oid, begun)
    const loading = this.#load(oid, begun).finally(() => this.#loading.delete(loading))
    this.#loading.add(loading)
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

function rangesOf(blocks: readonly BlockRun[], zeros: readonly BlockRange[]): BlockRange[] {
  const runs = blocks.map(({ first, bytes }) => ({ first, count: bytes.length / BLOCK_BYTES }))
  const bits = bitsOf([...runs, ...zeros])
  return rangesWhere((block) => hasBlock(bits, block))
}

/** Null when all are valid. */
function grown(valid: Uint32Array, ranges: readonly BlockRange[]): Uint32Array | null {
  const bits = withBlocks(valid, ranges)
  return hasAllBlocks(bits) ? null : bits
}

/** The parts of a run that `isWanted`. */
function partsOf({ first, bytes }: BlockRun, isWanted: (block: number) => boolean): BlockRun[] {
  const end = first + bytes.length / BLOCK_BYTES
  assert(end <= BLOCKS_PER_OBJECT)
  return rangesWhere(isWanted, first, end).map((part) => {
    const at = (part.first - first) * BLOCK_BYTES
    return { first: part.first, bytes: bytes.subarray(at, at + part.count * BLOCK_BYTES) }
  })
}
