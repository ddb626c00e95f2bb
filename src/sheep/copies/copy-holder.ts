import { StoreError } from '../../errors.ts'
import { oidVid } from '../../protocol/oid.ts'
import { subtract } from './block-ranges.ts'
import type { BlockContents, BlockRange, CopyDone, CopyState, CopyStore } from './copy-store.ts'
import type { CopyAnswer, CopyRequest, CopyResults, Refusal, RequestOf } from './messages.ts'
import { compareGenerations, type Generation, isClean, isSameVersion, type Version } from './version.ts'
import { VersionArray } from './version-array.ts'

/** Of blocks that lie with whoever asks. */
export interface LocalRead {
  vid: number
  generation: Generation
  oid: bigint
  first: number
  /** Whole blocks. */
  target: Buffer
}

/** A look takes some microseconds: it asks the ring. */
const LOOKS_PER_TURN = 128
/** Each is a transaction: more would keep the writes of clients waiting behind them. */
const DROPS_AT_ONCE = 64

export interface DropOptions {
  catchUp?: () => Promise<boolean>
  pause?: () => Promise<void>
}

/**
 * The copies that one node has, towards the owners of VDIs.
 *
 * 1. Who opens an object of a VDI, or looks at it, seals the VDI: requests of older generations are refused from then on, reads too. The seal is in memory
 *    only: a process that starts is in a later view than all that its predecessor was asked under.
 * 2. Nothing is done for a view that is older than the newest one known here.
 * 3. A write is applied on the version that it names, or not at all: then the copy is stale, on the disk, before the owner hears of
 *    it. So it never counts as one that has all that was acknowledged.
 * 4. What the answer to an open or a look says is on the disk.
 *
 * A rejected answer means that the disk failed: the node must leave.
 */
export class CopyHolder {
  readonly #store: CopyStore
  readonly #seals = new Map<number, Generation>()
  #epoch = 0

  constructor(store: CopyStore) {
    this.#store = store
  }

  /** A view has taken effect here. */
  viewChanged(epoch: number): void {
    this.#epoch = Math.max(this.#epoch, epoch)
  }

  /**
   * What this node has and no target of a view since the clean one should have goes. An owner that knows a later view than this
   * node may count on such a copy: then it stays until that view is known here. For the same reason it is not to be called before a
   * view with this life of the node is known, as owners may have known later ones in the lives before. Returns whether nothing
   * is left that does not belong here.
   *
   * An owner may be ahead of this node by other entries of the log, too, and have made a VDI that is not known here, with the number of
   * one that was. So what seems not to belong here is judged once more after `catchUp`, which resolves when all is known here that any
   * node knew when it was called, or to false when that is not so; and goes if nobody has written to it since.
   *
   * With `pause` it lets others go on after every so many objects, and each is judged by what is known in its own turn: only for what
   * is still true of an object that comes meanwhile.
   */
  async drop(belongsHere: (oid: bigint) => boolean, { catchUp, pause }: DropOptions = {}): Promise<boolean> {
    const foreign = new Map<bigint, Version | undefined>()
    let looks = 0
    for (const oid of this.#store.objects()) {
      if (!belongsHere(oid)) foreign.set(oid, this.#store.stateOf(oid)?.version)
      if (pause && ++looks % LOOKS_PER_TURN === 0) await pause()
    }
    if (foreign.size === 0) return true
    if (catchUp && !(await catchUp())) return false
    let isWritten = false
    const isForeign = (oid: bigint) => {
      if (belongsHere(oid)) return false
      const isSame = this.#isSince(oid, foreign)
      isWritten ||= !isSame
      return isSame
    }
    return (await this.#drop(foreign.keys(), isForeign, pause)) && !isWritten
  }

  /**
   * As `drop`, of all that this node has of some VDIs at this moment, for the caller to run when its turn comes. A vid may be another VDI's by
   * then: what has another version is that one's, and stays. The caller sees to it that nothing of that one is forgotten as clean before.
   */
  dropOf(vids: readonly number[]): (pause: () => Promise<void>) => Promise<boolean> {
    const versions = new Map<bigint, Version | undefined>()
    for (const oid of vids.flatMap((vid) => this.#store.objectsOf(vid)))
      versions.set(oid, this.#store.stateOf(oid)?.version)
    return (pause) => this.#drop(versions.keys(), (oid) => this.#isSince(oid, versions), pause)
  }

  /** Whether the copy has its version since then. What is clean is one version under many names. */
  #isSince(oid: bigint, versions: ReadonlyMap<bigint, Version | undefined>): boolean {
    const version = this.#store.stateOf(oid)?.version
    return version !== undefined && (isClean(version) || isSameVersion(version, versions.get(oid) ?? null))
  }

  async #drop(
    oids: Iterable<bigint>,
    isForeign: (oid: bigint) => boolean,
    pause?: () => Promise<void>,
  ): Promise<boolean> {
    let dropped: Promise<void>[] = []
    let looks = 0
    let isLeft = false
    for (const oid of oids) {
      if (isForeign(oid)) {
        if (this.#isCounted(oid)) isLeft = true
        else {
          const drop = settled((done) => this.#store.drop(oid, done))
          drop.catch(() => {}) // told below
          dropped.push(drop)
        }
      }
      if (pause && dropped.length === DROPS_AT_ONCE) {
        await Promise.all(dropped)
        dropped = []
      }
      if (pause && ++looks % LOOKS_PER_TURN === 0) await pause()
    }
    await Promise.all(dropped)
    return !isLeft
  }

  /** An owner that knows a later view than this node may count on its copy. */
  #isCounted(oid: bigint): boolean {
    return (this.#seals.get(oidVid(oid))?.epoch ?? 0) > this.#epoch
  }

  /**
   * To be called in the order of arrival: what a request does is in order with others when the call returns. An error says that the
   * disk failed.
   */
  answer(request: CopyRequest, reply: (answer: CopyAnswer | Error) => void): void {
    if (request.type === 'write' && !this.#isOld(request)) this.#write(request, reply)
    else this.#answer(request).then(reply, reply)
  }

  /**
   * Reads blocks that all have bytes here. False, and nothing is begun, when it is not so, or somebody newer is known, or something
   * would have to be waited for. `done(false)`: they could not be read. May be called before this returns.
   */
  readNow(request: LocalRead, done: (isRead: boolean) => void): boolean {
    return !this.#isOld(request) && this.#store.readNow(request.oid, request.first, request.target, done)
  }

  #answer(request: CopyRequest): Promise<CopyAnswer> {
    if (this.#isOld(request) || request.type === 'write') return refuse('old generation')
    switch (request.type) {
      case 'open':
        return this.#open(request)
      case 'look':
        return this.#look(request)
      case 'blocks-since':
        return accept(this.#store.blocksSince(request.oid, request.since))
      case 'adopt':
        return this.#do((done) => this.#store.adopt(request.adoption, done))
      case 'fill':
        return this.#fill(request)
      case 'settle':
        this.#store.settle(request.oid)
        return accept(null)
      case 'reserve':
        return this.#store.reserve(request.oid, request.blocks) ? accept(null) : refuse('no space')
      case 'read':
        return this.#read(request)
      case 'layout':
        return this.#layout(request)
      case 'remains':
        return this.#remains(request)
      case 'mend':
        return this.#mend(request)
      case 'sync':
        return this.#do((done) => this.#store.sync(done))
      case 'watermark':
        this.#store.setWatermark(request.vid, request.watermark)
        return accept(null)
      case 'remove':
        return this.#do((done) => this.#store.remove(request.oid, request.version, done))
      case 'list':
        return accept(this.#store.objectsOf(request.vid).filter((oid) => this.#store.stateOf(oid)?.kind !== 'removed'))
    }
  }

  #isOld({ vid, generation }: { vid: number; generation: Generation }): boolean {
    const seal = this.#seals.get(vid)
    return generation.epoch < this.#epoch || (seal !== undefined && compareGenerations(generation, seal) < 0)
  }

  async #open({ vid, generation, oids }: RequestOf<'open'>): Promise<CopyAnswer<'open'>> {
    this.#seals.set(vid, generation)
    const copies = oids.map((oid) => {
      this.#store.release(oid)
      const state = this.#store.stateOf(oid)
      return { oid, state, allocated: this.#store.allocatedOf(oid), tail: this.#store.tailOf(oid) }
    })
    await settled((done) => this.#store.sync(done))
    return { refused: null, result: { copies, lostThroughEpoch: this.#store.lostThroughEpoch } }
  }

  async #look({ vid, generation, oids }: RequestOf<'look'>): Promise<CopyAnswer<'look'>> {
    this.#seals.set(vid, generation)
    const versions = new VersionArray(oids.length)
    for (let at = 0; at < oids.length; at++) versions.set(at, this.#store.plainVersionOf(oids[at]!))
    await settled((done) => this.#store.sync(done))
    return { refused: null, result: versions }
  }

  #write({ write, durable, watermark, vid }: RequestOf<'write'>, reply: (answer: CopyAnswer | Error) => void): void {
    const refuse = () => void this.#refuseStale(write.oid).then(reply, reply)
    if (write.previous !== null && !this.#store.isAt(write.oid, write.previous)) return refuse()
    this.#store.apply(write, durable, (error) => {
      if (error && error.code !== 'NoSpace') return reply(error)
      if (error) return refuse()
      if (watermark) this.#store.setWatermark(vid, watermark)
      reply(DONE)
    })
  }

  async #refuseStale(oid: bigint): Promise<CopyAnswer> {
    if (this.#store.stateOf(oid)) await settled((done) => this.#store.markStale(oid, done))
    return { refused: 'stale' }
  }

  #fill({ oid, contents }: RequestOf<'fill'>): Promise<CopyAnswer> {
    const state = this.#store.stateOf(oid)
    if (!isUsable(state)) return refuse('stale')
    return this.#do((done) => this.#store.fill(oid, contents, done))
  }

  async #read({ oid, range }: RequestOf<'read'>): Promise<CopyAnswer<'read'>> {
    const state = this.#store.stateOf(oid)
    if (!isUsable(state)) return { refused: 'stale' }
    const isKnownAsRotten = subtract([range], state.valid).length > 0
    const found = isKnownAsRotten ? 'rotten' : await this.#contentsOf(oid, range)
    if (found === 'rotten') await this.#findRot(oid, range)
    return typeof found === 'string' ? { refused: found } : { refused: null, result: found }
  }

  async #layout({ oid, range }: RequestOf<'layout'>): Promise<CopyAnswer<'layout'>> {
    const state = this.#store.stateOf(oid)
    if (!isUsable(state)) return { refused: 'stale' }
    if (subtract([range], state.valid).length > 0) return { refused: 'rotten' }
    return new Promise((resolve, reject) =>
      this.#store.layoutOf(oid, range, (error, result) => {
        if (!error) resolve({ refused: null, result })
        else if (error.code === 'NoObject') resolve({ refused: 'stale' })
        else reject(error)
      }),
    )
  }

  /** `rotten`: a block does not match its checksum; `stale`: the copy has changed meanwhile, and has them no more. */
  #contentsOf(oid: bigint, range: BlockRange): Promise<BlockContents | 'rotten' | 'stale'> {
    return new Promise((resolve, reject) =>
      this.#store.read(oid, range, (error, contents) => {
        if (!error) resolve(contents)
        else if (error.code === 'CorruptBlock') resolve('rotten')
        else if (error.code === 'NoObject') resolve('stale')
        else reject(error)
      }),
    )
  }

  #remains({ oid, range }: RequestOf<'remains'>): Promise<CopyAnswer<'remains'>> {
    return new Promise((resolve, reject) =>
      this.#store.remainsOf(oid, range, (error, result) =>
        error ? reject(error) : resolve({ refused: null, result }),
      ),
    )
  }

  #mend({ oid, contents }: RequestOf<'mend'>): Promise<CopyAnswer<'mend'>> {
    return new Promise((resolve, reject) =>
      this.#store.mend(oid, contents, (error, result) => (error ? reject(error) : resolve({ refused: null, result }))),
    )
  }

  /** Which blocks of the range are rotten is looked at one by one. One that is written meanwhile is good. */
  async #findRot(oid: bigint, { first, count }: BlockRange): Promise<void> {
    const marks: Promise<void>[] = []
    for (let block = first; block < first + count; block++) {
      const range = { first: block, count: 1 }
      const before = this.#store.stateOf(oid)
      if (!isUsable(before) || subtract([range], before.valid).length > 0) continue
      if ((await this.#contentsOf(oid, range)) !== 'rotten') continue
      const after = this.#store.stateOf(oid)
      if (!isUsable(after) || !isSameVersion(before.version, after.version)) continue
      marks.push(settled((done) => this.#store.markRotten(oid, [range], done)))
    }
    await Promise.all(marks)
  }

  async #do(start: (done: CopyDone) => void): Promise<CopyAnswer> {
    const error = await outcome(start)
    return error ? { refused: 'no space' } : { refused: null, result: null }
  }
}

const DONE: CopyAnswer = { refused: null, result: null }

const isUsable = (state: CopyState | null): state is CopyState =>
  state !== null && state.kind !== 'stale' && state.kind !== 'removed'

const refuse = async (refused: Refusal): Promise<CopyAnswer> => ({ refused })

const accept = async (result: CopyResults['blocks-since' | 'list'] | null): Promise<CopyAnswer> => ({
  refused: null,
  result,
})

/** Null, or the want of space. Rejects when the disk failed. */
function outcome(start: (done: CopyDone) => void): Promise<StoreError | null> {
  return new Promise((resolve, reject) =>
    start((error) => (error && error.code !== 'NoSpace' ? reject(error) : resolve(error))),
  )
}

async function settled(start: (done: CopyDone) => void): Promise<void> {
  const error = await outcome(start)
  if (error) throw new StoreError('DiskFailed', 'a note needed space', { cause: error })
}
