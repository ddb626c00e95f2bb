import { StoreError } from '../../errors.ts'
import { dataOid, inodeOid, vmstateOid } from '../../protocol/oid.ts'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import { isBlocksLine, isNamedIn, objectsOf } from '../accounts.ts'
import { BlockMap } from '../block-map.ts'
import type { ClusterState } from '../cluster-state.ts'
import { MemberFailed } from '../disks/member.ts'
import type { Entry, Vdi } from '../entries.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../object-format.ts'
import type { AccountChange, Change, ObjectStore } from '../object-store.ts'
import { FamilyTree } from './heirs.ts'
import { blockRuns } from './verify.ts'

const REMOVES_PER_TURN = 64
/** Objects after which a checkpoint gives their space back although there are more to go. */
const REMOVES_PER_CHECKPOINT = 4096
const ENTRIES_PER_PAGE = BLOCK_BYTES / 4
/** How long overwritten blocks of deleted VDIs may wait for others, so that one look finds many. */
const LOSS_DELAY_MS = 2000
/** A family is looked at again after this many times what the last look took. */
const LOSS_DELAY_FACTOR = 10

/**
 * Gives back what deleted VDIs leave. A block of a deleted VDI's object is wanted as long as a VDI of the family that has not
 * been deleted sees it, and the object as long as the map of one names it or a block of it is wanted. Everything else goes.
 *
 * 1. The accounts say whether a deleted VDI can have anything to give, and who is to be asked: the topmost VDIs that see
 *    something of it (see FamilyTree). Without such heirs all of it goes, and nothing is read but its map.
 * 2. Only the pages of the map that the deleted VDI has changed are read, and of its heirs' the same ones; then the tables of
 *    its own objects and of what its heirs have in their place. Nobody else's are, however large the family is.
 * 3. A VDI never gains a reference to what a deleted one has left, so that a map that has grown stale meanwhile can only keep
 *    too much. The next look finds it: whatever changes an account of the family leads to one.
 * 4. A deleted VDI of which nothing is left is reported with `reclaimed`, and its vid is free again. The work may be repeated
 *    from the start, after a crash for instance; removing an object twice does nothing.
 */
export class Reclaimer {
  readonly #store: ObjectStore
  readonly #state: ClusterState
  readonly #clock: Clock
  readonly #log: Log
  readonly #propose: (entry: Entry) => Promise<void>
  readonly #queue = new Set<number>()
  /** Families in which a VDI has let go of something that a deleted one holds. */
  readonly #lossy = new Set<number>()
  #lossTimer: Timer | null = null
  #lastRunMs = 0
  /** What the heirs of a deleted VDI saw of it when everything else had gone. */
  readonly #clean = new Map<number, string>()
  #running: Promise<void> | null = null
  #stopped = false
  #removed = 0
  #freed = false

  constructor(options: {
    store: ObjectStore
    state: ClusterState
    clock: Clock
    log: Log
    propose: (entry: Entry) => Promise<void>
  }) {
    this.#store = options.store
    this.#state = options.state
    this.#clock = options.clock
    this.#log = options.log
    this.#propose = options.propose
    options.store.accountListeners.add((change) => this.#noteLoss(change))
  }

  /** Looks at the deleted VDIs of a family, soon. */
  schedule(family: number): void {
    if (this.#stopped || !this.#state.vdis.ofFamily(family).some((vdi) => vdi.deleting)) return
    this.#queue.add(family)
    if (!this.#running) this.#start()
  }

  scheduleAll(): void {
    for (const vdi of this.#state.vdis.values()) if (vdi.deleting) this.schedule(vdi.family)
  }

  /** Resolves when nothing is left to be reclaimed. */
  async idle(): Promise<void> {
    this.#scheduleLossy()
    while (this.#running) await this.#running
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#lossTimer?.cancel()
    await this.#running
  }

  #start(): void {
    this.#running = this.#run().then(() => {
      this.#running = null
      if (this.#queue.size > 0 && !this.#stopped) this.#start()
    })
  }

  /** A write or discard has let go of what a deleted VDI holds: that comes back too, many at a time. */
  #noteLoss(change: AccountChange): void {
    if (change.kind !== 'account' || this.#stopped) return
    for (const [line, delta] of change.deltas) {
      if (delta >= 0 || !isBlocksLine(line) || line === change.vid) continue
      const holder = this.#state.vdis.get(line)
      if (!holder?.deleting) continue
      this.#lossy.add(holder.family)
      const delayMs = Math.max(LOSS_DELAY_MS, this.#lastRunMs * LOSS_DELAY_FACTOR)
      this.#lossTimer ??= this.#clock.timer(delayMs, () => this.#scheduleLossy())
    }
  }

  #scheduleLossy(): void {
    this.#lossTimer?.cancel()
    this.#lossTimer = null
    const families = [...this.#lossy]
    this.#lossy.clear()
    for (const family of families) this.schedule(family)
  }

  async #run(): Promise<void> {
    const startedMs = this.#clock.monotonicMs()
    for (const family of this.#queue) {
      this.#queue.delete(family)
      // What one VDI leaves behind may have been all that kept another: go round until nothing more comes free.
      while (await this.#reclaimFamily(family));
    }
    if (this.#freed) this.#store.startCheckpoint() // until then the files are still as they were
    this.#freed = false
    this.#lastRunMs = this.#clock.monotonicMs() - startedMs
  }

  /** Whether anything of the family was reclaimed completely. */
  async #reclaimFamily(family: number): Promise<boolean> {
    let progress = false
    for (const vdi of this.#state.vdis.ofFamily(family)) {
      if (!vdi.deleting || this.#stopped) continue
      try {
        if (!(await this.#reclaim(vdi))) continue
        await this.#propose({ type: 'reclaimed', vid: vdi.vid })
        this.#clean.delete(vdi.vid)
        progress = true
      } catch (error) {
        this.#log.error({ err: error, vid: vdi.vid.toString(16), name: vdi.name }, 'reclaiming a deleted VDI failed')
        if (error instanceof StoreError && error.code === 'DiskFailed') return false
      }
    }
    return progress
  }

  /** Removes what nobody wants of a deleted VDI; true when nothing is left of it. */
  async #reclaim(vdi: Vdi): Promise<boolean> {
    await this.#removeVmstate(vdi)
    const heirs = this.#heirsOf(vdi)
    if (heirs.length > 0) {
      const seen = this.#seenBy(vdi, heirs)
      if (this.#clean.get(vdi.vid) === seen) return false
      if (!this.#isAllSeen(vdi, heirs)) await this.#trim(vdi, heirs)
      if (!this.#stopped) this.#clean.set(vdi.vid, seen)
      return false
    }
    await this.#removeAll(vdi)
    if (this.#stopped) return false
    const inode = inodeOid(vdi.vid)
    if (!this.#store.exists(inode)) return true
    if (await this.#isMapWanted(vdi)) return false
    await this.#commit([{ kind: 'remove', oid: inode }], 1)
    return true
  }

  /** The topmost of those that see anything of a deleted VDI. */
  #heirsOf(vdi: Vdi): Vdi[] {
    const sees = (vid: number) => isNamedIn(this.#store.accounts.of(vid), vdi.vid)
    const seers = this.#state.vdis.ofFamily(vdi.family).filter((other) => !other.deleting && sees(other.vid))
    return new FamilyTree(this.#state).topmost(seers, sees)
  }

  #seenBy(vdi: Vdi, heirs: readonly Vdi[]): string {
    const lines = [vdi, ...heirs].map(({ vid }) => {
      const account = this.#store.accounts.of(vid)
      return `${vid}:${account.get(vdi.vid) ?? 0}:${account.get(objectsOf(vdi.vid)) ?? 0}`
    })
    return lines.join()
  }

  /** Whether the accounts prove that there is nothing to give: one heir sees as much as there is. */
  #isAllSeen(vdi: Vdi, heirs: readonly Vdi[]): boolean {
    const own = this.#store.accounts.of(vdi.vid)
    return heirs.some((heir) => {
      const account = this.#store.accounts.of(heir.vid)
      return [vdi.vid, objectsOf(vdi.vid)].every((line) => (account.get(line) ?? 0) >= (own.get(line) ?? 0))
    })
  }

  /** Machine state is shared with nobody. */
  async #removeVmstate(vdi: Vdi): Promise<void> {
    const oids = Array.from({ length: vdi.vmstateObjects ?? 0 }, (_, index) => vmstateOid(vdi.vid, index))
    const removes = oids.filter((oid) => this.#store.exists(oid)).map((oid) => ({ kind: 'remove', oid }) as const)
    for (let first = 0; first < removes.length; first += REMOVES_PER_TURN) {
      const some = removes.slice(first, first + REMOVES_PER_TURN)
      await this.#commit(some, some.length)
    }
  }

  async #removeAll(vdi: Vdi): Promise<void> {
    let removes: Change[] = []
    for await (const index of this.#ownIndexes(vdi)) {
      removes.push({ kind: 'remove', oid: dataOid(vdi.vid, index) })
      if (removes.length < REMOVES_PER_TURN) continue
      await this.#commit(removes, removes.length)
      removes = []
    }
    if (removes.length > 0) await this.#commit(removes, removes.length)
  }

  /** Removes the objects, and zeroes the blocks, that no heir sees. */
  async #trim(vdi: Vdi, heirs: readonly Vdi[]): Promise<void> {
    const maps = heirs.map((heir) => new BlockMap(this.#store, heir.vid))
    for await (const index of this.#ownIndexes(vdi)) {
      try {
        await this.#trimObject(vdi, index, maps)
      } catch (error) {
        if (!(error instanceof MemberFailed)) throw error // what is lost with its disk goes with the rest of the VDI
      }
    }
  }

  async #trimObject(vdi: Vdi, index: number, maps: readonly BlockMap[]): Promise<void> {
    const wanted = await this.#wantedBlocks(vdi, index, maps)
    if (wanted === 'all') return
    await this.#store.using(dataOid(vdi.vid, index), (object) => {
      const unwanted: number[] = []
      let left = 0
      for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
        if (this.#store.holderOf(object, block) !== vdi.vid) continue
        if (wanted.has(block)) left++
        else unwanted.push(block)
      }
      const deltas = new Map([[vdi.vid, -unwanted.length]])
      if (left === 0) deltas.set(objectsOf(vdi.vid), -1)
      else if (unwanted.length === 0) return
      const zeroes = blockRuns(unwanted).map((run) => ({ kind: 'zero', object, ...run }) as const)
      const gone = left === 0 ? [{ kind: 'remove', oid: object.oid } as const] : zeroes
      return this.#commit([...gone, { kind: 'account', vid: vdi.vid, index, deltas }], left === 0 ? 1 : 0)
    })
  }

  /** The blocks of one object of a deleted VDI that its heirs see; all of them when a map names the object itself. */
  async #wantedBlocks(vdi: Vdi, index: number, maps: readonly BlockMap[]): Promise<Set<number> | 'all'> {
    const wanted = new Set<number>()
    for (const map of maps) {
      await map.load(index)
      const vid = map.lookupNow(index)
      if (vid === vdi.vid) return 'all'
      if (!vid || !this.#store.exists(dataOid(vid, index))) continue
      await this.#store.using(dataOid(vid, index), (object) => {
        for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
          if (this.#store.blockState(object, block)?.holderVid === vdi.vid) wanted.add(block)
        }
      })
    }
    return wanted
  }

  /** The indexes of the objects that a deleted VDI still has, from the pages of the map that it has changed itself. */
  async *#ownIndexes(vdi: Vdi): AsyncGenerator<number> {
    const inode = inodeOid(vdi.vid)
    for (let number = 0; number < BLOCKS_PER_OBJECT && this.#store.exists(inode); number++) {
      const page = Buffer.alloc(BLOCK_BYTES)
      const isOwn = await this.#store.using(inode, async (object) => {
        while (number < BLOCKS_PER_OBJECT - 1 && this.#isInherited(object, number)) number++
        if (this.#isInherited(object, number)) return false
        await this.#store.readBlocks(object, number, page)
        return true
      })
      for (let i = 0; isOwn && i < ENTRIES_PER_PAGE; i++) {
        const index = number * ENTRIES_PER_PAGE + i
        if (page.readUInt32LE(i * 4) !== vdi.vid || !this.#store.exists(dataOid(vdi.vid, index))) continue
        if (this.#stopped) return
        yield index
      }
    }
  }

  #isInherited(inode: Parameters<ObjectStore['blockState']>[0], page: number): boolean {
    const state = this.#store.blockState(inode, page)?.state
    return state === 'zero' || state === 'inherit'
  }

  /** Whether what was made from a deleted VDI still inherits pages of its map; deleted ones need theirs to find what is left. */
  async #isMapWanted(vdi: Vdi): Promise<boolean> {
    for (const child of this.#state.vdis.ofFamily(vdi.family)) {
      if (child.parentVid === vdi.vid && (await this.#inherits(inodeOid(child.vid), vdi.vid))) return true
    }
    return false
  }

  /** Whether an object inherits a block from the same one of `vid`. */
  async #inherits(oid: bigint, vid: number): Promise<boolean> {
    if (!this.#store.exists(oid)) return false
    return this.#store.using(oid, (object) => {
      for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
        if (this.#store.blockState(object, block)?.holderVid === vid) return true
      }
      return false
    })
  }

  async #commit(changes: readonly Change[], removes: number): Promise<void> {
    this.#freed = true
    this.#removed += removes
    await new Promise<void>((resolve, reject) => {
      this.#store.commit(changes, { durable: false }, (error) => (error ? reject(error) : resolve()))
    })
    if (this.#removed < REMOVES_PER_CHECKPOINT) return
    this.#removed = 0
    this.#store.startCheckpoint()
  }
}
