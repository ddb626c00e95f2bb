import type { ClusterState } from './cluster-state.ts'
import { type Entry, snapshotsIn } from './entries.ts'
import type { Owner, OwnerMaker, VdiMap } from './owner-contract.ts'

/** The owners of VDIs that have one: while they are open, or something is done to them as a whole. */
export class Owners {
  readonly #byVid = new Map<number, Owner>()
  readonly #maker: OwnerMaker
  readonly #state: ClusterState
  readonly #isOpen: (vid: number) => boolean

  constructor(options: {
    maker: OwnerMaker
    state: ClusterState
    /** Whether a VDI has sessions. */
    isOpen(vid: number): boolean
  }) {
    this.#maker = options.maker
    this.#state = options.state
    this.#isOpen = options.isOpen
  }

  /** Throws NoVdi. */
  of(vid: number): Owner {
    const existing = this.#byVid.get(vid)
    if (existing) return existing
    const owner = this.#maker.ownerOf(vid, this.#state.get(vid).sizeBytes)
    this.#byVid.set(vid, owner)
    return owner
  }

  /** The block map of a VDI, without an owner if it has none. */
  mapOf(vid: number): VdiMap {
    return this.#byVid.get(vid)?.map ?? this.#maker.mapOf(vid)
  }

  /** An owner keeps nothing that the store does not have; without sessions it goes, unless a snapshot is at work on it. */
  forget(vid: number): void {
    if (!this.#isOpen(vid) && !this.#byVid.get(vid)?.frozen) this.#byVid.delete(vid)
  }

  forgetUnused(): void {
    for (const vid of [...this.#byVid.keys()]) this.forget(vid)
  }

  /** The VDI is gone. */
  drop(vid: number): void {
    this.#byVid.delete(vid)
  }

  /** An owner changes in the same turn as the state, so that whoever opens the VDI meanwhile finds the one that there is. */
  tell(entry: Entry): void {
    if (entry.type === 'snapshots') {
      for (const snapshot of snapshotsIn(entry)) this.tell(snapshot)
      return
    }
    if (entry.type !== 'snapshot' && entry.type !== 'rollback' && entry.type !== 'resize') return
    const owner = this.#byVid.get(entry.vid)
    if (!owner) return
    if (entry.type === 'resize') {
      owner.sizeBytes = entry.sizeBytes
      return
    }
    this.#byVid.delete(entry.vid)
    this.#byVid.set(entry.newVid, owner)
    if (entry.type === 'snapshot') owner.moveTo(entry.newVid)
    else owner.rollTo(entry.newVid)
  }
}
