import { StoreError } from '../../errors.ts'
import { dataOid, inodeOid, vmstateOid } from '../../protocol/oid.ts'
import type { Log } from '../../runtime/log.ts'
import { BlockMap } from '../block-map.ts'
import type { ClusterState, Entry, Vdi } from '../cluster-state.ts'
import { BLOCKS_PER_OBJECT, OBJECT_BYTES } from '../object-format.ts'
import type { ObjectStore } from '../object-store.ts'

const REMOVES_PER_TURN = 64

/**
 * Gives back the objects of deleted VDIs. An object of a deleted VDI is wanted as long as
 *
 * 1. the map of a living VDI of the family names it, or
 * 2. an object that such a map names inherits a block from it.
 *
 * Everything else goes. A deleted VDI of which nothing is left is reported with `reclaimed`, and its vid is free again. The work is
 * repeated from the start after a crash; removing an object twice does nothing.
 */
export class Reclaimer {
  readonly #store: ObjectStore
  readonly #state: ClusterState
  readonly #log: Log
  readonly #propose: (entry: Entry) => Promise<void>
  /**
   * Maps of living VDIs, kept for the length of a run. They are the reclaimer's own: an owner's goes on under another vid
   * with a snapshot. One may grow stale, but a VDI never gains a reference to an object of a deleted one, so that a stale
   * map can only keep too much. Kept by the VDI and not by its vid, which a new VDI may get meanwhile.
   */
  readonly #maps = new Map<Vdi, BlockMap>()
  readonly #queue = new Set<number>()
  #running: Promise<void> | null = null
  #stopped = false
  #removed = false

  constructor(options: {
    store: ObjectStore
    state: ClusterState
    log: Log
    propose: (entry: Entry) => Promise<void>
  }) {
    this.#store = options.store
    this.#state = options.state
    this.#log = options.log
    this.#propose = options.propose
  }

  /** Looks at the deleted VDIs of a family, soon. */
  schedule(family: number): void {
    if (this.#stopped || !this.#state.familyOf(family).some((vdi) => vdi.deleting)) return
    this.#queue.add(family)
    if (!this.#running) this.#start()
  }

  #start(): void {
    this.#running = this.#run().then(() => {
      this.#running = null
      this.#maps.clear()
      if (this.#queue.size > 0 && !this.#stopped) this.#start()
    })
  }

  scheduleAll(): void {
    for (const vdi of this.#state.vdis.values()) if (vdi.deleting) this.schedule(vdi.family)
  }

  /** Resolves when nothing is being reclaimed. */
  async idle(): Promise<void> {
    while (this.#running) await this.#running
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#running
  }

  async #run(): Promise<void> {
    for (const family of this.#queue) {
      this.#queue.delete(family)
      // What one VDI leaves behind may have been all that kept another: go round until nothing more comes free.
      while (await this.#reclaimFamily(family)) this.#maps.clear()
    }
    if (this.#removed) this.#store.startCheckpoint() // until then the files are still there
    this.#removed = false
  }

  /** Whether anything of the family was reclaimed completely. */
  async #reclaimFamily(family: number): Promise<boolean> {
    let progress = false
    for (const vdi of this.#state.familyOf(family)) {
      if (!vdi.deleting || this.#stopped) continue
      try {
        if (!(await this.#reclaim(vdi))) continue
        await this.#propose({ type: 'reclaimed', vid: vdi.vid })
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
    const map = new BlockMap(this.#store, vdi.vid)
    let kept = 0
    let removes: bigint[] = []
    for await (const { index, vid } of map.entries(Math.ceil(vdi.sizeBytes / OBJECT_BYTES))) {
      const oid = dataOid(vid, index)
      if (vid !== vdi.vid || !this.#store.exists(oid)) continue
      if (await this.#isWanted(vdi, index)) kept++
      else removes.push(oid)
      if (removes.length < REMOVES_PER_TURN) continue
      await this.#remove(removes)
      removes = []
      if (this.#stopped) return false
    }
    await this.#remove(removes)
    await this.#removeVmstate(vdi)
    if (kept > 0) return false
    const inode = inodeOid(vdi.vid)
    if (!this.#store.exists(inode)) return true
    if (await this.#isMapWanted(vdi)) return false
    await this.#remove([inode])
    return true
  }

  /** Machine state is shared with nobody. */
  async #removeVmstate(vdi: Vdi): Promise<void> {
    let removes: bigint[] = []
    for (let index = 0; index < (vdi.vmstateObjects ?? 0); index++) {
      const oid = vmstateOid(vdi.vid, index)
      if (this.#store.exists(oid)) removes.push(oid)
      if (removes.length < REMOVES_PER_TURN) continue
      await this.#remove(removes)
      removes = []
    }
    await this.#remove(removes)
  }

  async #isWanted(vdi: Vdi, index: number): Promise<boolean> {
    for (const other of this.#living(vdi)) {
      const map = this.#livingMap(other)
      await map.load(index)
      const vid = map.lookupNow(index)
      if (vid === vdi.vid) return true
      if (!vid || !this.#store.exists(dataOid(vid, index))) continue
      if (await this.#inherits(dataOid(vid, index), vdi.vid)) return true
    }
    return false
  }

  async #isMapWanted(vdi: Vdi): Promise<boolean> {
    for (const other of this.#living(vdi)) {
      const oid = inodeOid(other.vid)
      if (!this.#store.exists(oid)) continue
      if (await this.#inherits(oid, vdi.vid)) return true
    }
    // Maps of deleted VDIs are still read, to find what is left of them.
    for (const other of this.#state.familyOf(vdi.family)) {
      const oid = inodeOid(other.vid)
      if (other.vid === vdi.vid || !other.deleting || !this.#store.exists(oid)) continue
      if (await this.#inherits(oid, vdi.vid)) return true
    }
    return false
  }

  #livingMap(vdi: Vdi): BlockMap {
    let map = this.#maps.get(vdi)
    if (!map) {
      map = new BlockMap(this.#store, vdi.vid)
      this.#maps.set(vdi, map)
    }
    return map
  }

  /** Whether an object inherits a block from the same one of `vid`. */
  #inherits(oid: bigint, vid: number): Promise<boolean> {
    return this.#store.using(oid, (object) => {
      for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
        if (this.#store.blockState(object, block)?.holderVid === vid) return true
      }
      return false
    })
  }

  #living(vdi: Vdi): Vdi[] {
    return this.#state.familyOf(vdi.family).filter((other) => !other.deleting)
  }

  #remove(oids: readonly bigint[]): Promise<void> {
    if (oids.length === 0) return Promise.resolve()
    this.#removed = true
    return new Promise((resolve, reject) => {
      const changes = oids.map((oid) => ({ kind: 'remove', oid }) as const)
      this.#store.commit(changes, { durable: false }, (error) => (error ? reject(error) : resolve()))
    })
  }
}
