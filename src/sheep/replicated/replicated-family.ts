import { type StoreErrorCode, toStoreError } from '../../errors.ts'
import { dataOid, inodeOid, oidIndex, oidKind, oidVid } from '../../protocol/oid.ts'
import type { Account } from '../accounts.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Entry, Vdi } from '../entries.ts'
import type { Usage } from '../maintenance/usage.ts'
import { BLOCKS_PER_OBJECT, OBJECT_BYTES } from '../object-format.ts'
import type { OwnerMaker } from '../owner-contract.ts'
import { AccountAudit, type WrongAccount } from './account-audit.ts'
import { FamilyAccounts } from './family-accounts.ts'
import { FamilyReclaim } from './family-reclaim.ts'
import { familyUsage } from './family-usage.ts'
import { Grace } from './grace.ts'
import { MachineState } from './machine-state.ts'
import { countView, ObjectViews } from './object-view.ts'
import { ReplicatedMap } from './replicated-map.ts'
import type { ReplicatedObjects } from './replicated-objects.ts'
import { type OwnerContext, ReplicatedOwner } from './replicated-owner.ts'
import { Tenure } from './tenure.ts'

export interface ReplicatedFamilyOptions {
  /** The vid at its root. */
  family: number
  objects: ReplicatedObjects
  state: ClusterState
  propose(entry: Entry): Promise<void>
  /** A VDI has let go of something that a deleted one holds: `reclaim` would find more than before. Called often. */
  onLoss?(): void
  /** Objects of which the owner knows which blocks lie where; 1 KiB each. */
  viewsMax?: number
  /** Pages of the map of each open VDI; 4 KiB each, for 4 GiB. */
  pagesMax?: number
}

const VIEWS_DEFAULT = 32 * 1024
const PAGES_DEFAULT = 256
/** After these, an entry may still take effect. */
const UNCERTAIN: ReadonlySet<StoreErrorCode> = new Set([
  'Unsure',
  'OldEpoch',
  'NoQuorum',
  'Disconnected',
  'Stopping',
  'DiskFailed',
])
/** Indexes that are counted in one go. */
const COUNT_AT_ONCE = 32

/**
 * The VDIs of one family, on the node that owns them: what the owner of each does, and what is done to them as a whole. All of it is
 * in the objects and in the state of the cluster, so that another node can go on at any moment; `recover` is what it begins with.
 *
 * 1. A new VDI starts with a map of its own, written before the entry that makes the VDI is proposed, under a vid that an entry has set
 *    aside for it. When it does not come to the VDI, that is removed again; by who recovers the family, if need be.
 * 2. Whoever applies entries to the state tells `applied`, in the same turn.
 */
export class ReplicatedFamily implements OwnerMaker {
  readonly machineState: MachineState
  readonly #options: ReplicatedFamilyOptions
  readonly #objects: Tenure
  readonly #views: ObjectViews
  readonly #accounts: FamilyAccounts
  readonly #grace = new Grace()
  readonly #context: OwnerContext
  readonly #reclaim: FamilyReclaim
  /** Also those that are closed: they may still have something to do. */
  readonly #owners = new Set<ReplicatedOwner>()
  readonly #garbage = new Set<number>()
  #isMiscounted = false
  /** Counts the entries that were applied. */
  #entries = 0

  constructor(options: ReplicatedFamilyOptions) {
    this.#options = options
    this.#accounts = new FamilyAccounts((holder) => {
      if (options.state.vdis.get(holder)?.deleting) options.onLoss?.()
    })
    const objects = new Tenure(options.objects)
    const views = new ObjectViews(objects, options.viewsMax ?? VIEWS_DEFAULT)
    this.#objects = objects
    this.#views = views
    this.machineState = new MachineState({ objects, state: options.state })
    this.#context = {
      objects,
      views,
      accounts: this.#accounts,
      grace: this.#grace,
      pagesMax: options.pagesMax ?? PAGES_DEFAULT,
      onGarbage: (vid) => this.#garbage.add(vid),
      onMiscount: () => {
        this.#isMiscounted = true
      },
    }
    const { state, family } = options
    this.#reclaim = new FamilyReclaim({
      objects,
      views,
      accounts: this.#accounts,
      grace: this.#grace,
      state,
      family,
      mapOf: (vid) => this.mapOf(vid),
    })
  }

  ownerOf(vid: number, sizeBytes: number): ReplicatedOwner {
    for (const owner of this.#owners) {
      if (owner.vid !== vid) continue
      owner.sizeBytes = sizeBytes
      return owner
    }
    const owner = new ReplicatedOwner(this.#context, vid, sizeBytes)
    this.#owners.add(owner)
    return owner
  }

  mapOf(vid: number): ReplicatedMap {
    for (const owner of this.#owners) if (owner.vid === vid) return owner.map
    const vdi = this.#options.state.vdis.get(vid)
    if (vdi && vdi.snapshotAt === 0 && !vdi.deleting) return this.ownerOf(vid, vdi.sizeBytes).map
    return new ReplicatedMap(this.#objects, vid, this.#context.pagesMax)
  }

  /** What a VDI holds, as far as it is counted. */
  accountOf(vid: number): Account {
    return this.#accounts.of(vid)
  }

  /** What each VDI takes, by vid; without looking into objects. */
  usage(): Map<number, Usage> {
    const { state, family } = this.#options
    return familyUsage(state, family, (vid) => this.#accounts.of(vid), this.isCounted && !this.isInDoubt)
  }

  /** Whether a change has failed, and nobody has looked since whether it took effect: then the accounts may be those before it. */
  get isInDoubt(): boolean {
    for (const owner of this.#owners) if (owner.isInDoubt) return true
    return false
  }

  /** Whether objects may have been written that the log says nothing of yet. */
  get isMaking(): boolean {
    const { state, family } = this.#options
    return this.machineState.isGrowing || [...state.makings.values()].some((making) => making.family === family)
  }

  /** Finds out what there is wherever something failed. Throws what the objects do. */
  async settle(): Promise<void> {
    await Promise.all([...this.#owners].map((owner) => owner.settle()))
  }

  /** Whether the accounts are exact, but for what is in doubt. */
  get isCounted(): boolean {
    return this.#accounts.isExact && !this.#isMiscounted
  }

  /**
   * Makes a VDI by an entry that is proposed when all that it starts with is written: nothing, or what `fromVid` holds, which must be
   * frozen. Throws VdiExists when the vid is taken, what the entry is refused with, and what the objects do.
   */
  async make(vid: number, fromVid: number | null, entry: Entry): Promise<void> {
    const { family, propose } = this.#options
    await propose({ type: 'making', making: { vid, family } })
    let isProposed = false
    try {
      await this.prepare(vid, fromVid)
      isProposed = true
      await propose(entry)
    } catch (error) {
      // When it is not certain what became of the entry, or of this, the next owner finds out.
      const mayTakeEffect = isProposed && UNCERTAIN.has(toStoreError(error).code)
      if (!mayTakeEffect) await this.abandon(vid).catch(() => {})
      throw error
    }
  }

  /** Writes what a new VDI holds, durably: nothing, or all that was answered of `fromVid`, which must be frozen. */
  async prepare(newVid: number, fromVid: number | null): Promise<void> {
    const options = { exists: false, durable: true }
    if (fromVid === null) return this.#objects.write(inodeOid(newVid), { blocks: [], zeros: [] }, options)
    const copyMap = async () => {
      const { blocks } = await this.#objects.read(inodeOid(fromVid), { first: 0, count: BLOCKS_PER_OBJECT })
      await this.#objects.write(inodeOid(newVid), { blocks, zeros: [] }, options)
    }
    // Both have ended before it is answered: what comes late would be left behind by `abandon`.
    const ended = await Promise.allSettled([copyMap(), this.#objects.flush()])
    for (const result of ended) if (result.status === 'rejected') throw result.reason
  }

  /** The VDI that a vid was set aside for is not made: removes what was prepared, and frees the vid. */
  async abandon(vid: number): Promise<void> {
    await this.#objects.remove(inodeOid(vid))
    await this.#options.propose({ type: 'unmade', vid })
  }

  /** An entry was applied to the state: to be told in the same turn. */
  applied(entry: Entry): void {
    this.#entries++
    this.#accounts.applied(entry)
    if (entry.type !== 'reclaimed') return
    for (const owner of this.#owners) if (owner.vid === entry.vid) this.#owners.delete(owner)
    this.#garbage.delete(entry.vid)
  }

  /**
   * Removes what another owner has left behind and no map names, and counts what all VDIs hold, while they are used. No VDI must be about to
   * be made here. Throws what the objects do.
   */
  async recover(): Promise<void> {
    const { state, family } = this.#options
    for (const making of [...state.makings.values()]) if (making.family === family) await this.abandon(making.vid)
    await this.removeAllGarbage()
    await this.recount()
  }

  /** As removeGarbage, of all VDIs: a node that was away, or lost power, may have brought back what was removed. */
  async removeAllGarbage(): Promise<void> {
    for (const vdi of this.#vdis()) this.#garbage.add(vdi.vid)
    await this.removeGarbage()
  }

  /** Removes the objects that no map names, of the VDIs that may have any. */
  async removeGarbage(): Promise<void> {
    for (const vid of [...this.#garbage]) {
      this.#garbage.delete(vid)
      const vdi = this.#options.state.vdis.get(vid)
      if (!vdi || vdi.deleting) continue // reclaimed as a whole
      try {
        await this.#removeGarbageOf(vdi)
      } catch (error) {
        this.#garbage.add(vid)
        throw error
      }
    }
  }

  async #removeGarbageOf({ vid, sizeBytes }: Vdi): Promise<void> {
    const { oids } = await this.#objects.objectsOf(vid)
    const map = this.mapOf(vid)
    for (const oid of oids) {
      if (oidKind(oid) === 'vmstate' && this.machineState.isGarbage(oid)) await this.#objects.remove(oid)
      if (oidKind(oid) !== 'data' || (await map.lookup(oidIndex(oid))) === vid) continue
      await this.ownerOf(vid, sizeBytes).removeGarbage(oidIndex(oid))
    }
  }

  /** Whether neither the map of a living VDI names an object of it, nor the log, while nothing is done to that. */
  async isOrphan(oid: bigint): Promise<boolean> {
    const vdi = this.#options.state.vdis.get(oidVid(oid))
    if (!vdi || vdi.deleting) return false
    if (oidKind(oid) === 'vmstate') return this.machineState.isGarbage(oid)
    return !(await this.ownerOf(vdi.vid, vdi.sizeBytes).isNamed(oidIndex(oid)))
  }

  async removeOrphan(oid: bigint): Promise<void> {
    const vdi = this.#options.state.vdis.get(oidVid(oid))
    if (oidKind(oid) === 'vmstate') {
      if (this.machineState.isGarbage(oid)) await this.#objects.remove(oid)
    } else if (vdi && !vdi.deleting) await this.ownerOf(vdi.vid, vdi.sizeBytes).removeGarbage(oidIndex(oid))
  }

  /** Counts what all VDIs hold. */
  async recount(): Promise<void> {
    this.#isMiscounted = false
    this.#accounts.restart()
    const frozen = new Map<number, ReplicatedMap>()
    const end = () => Math.max(0, ...this.#vdis().map(({ sizeBytes }) => Math.ceil(sizeBytes / OBJECT_BYTES)))
    for (let first = 0; first < end(); ) {
      const before = this.#stamp(first)
      await this.settle()
      const counts = await this.#grace.during(() => this.#count(first, frozen))
      if (this.#stamp(first) !== before) continue // something has changed there meanwhile
      first += COUNT_AT_ONCE
      this.#accounts.countedTo(first, counts)
    }
    this.#accounts.countedTo(Number.POSITIVE_INFINITY, new Map())
  }

  /**
   * Whether the accounts say what maps and objects say; with `repair` those that do not are set right. Of a family whose accounts are known not
   * to be exact nothing is compared. Throws what the objects do.
   */
  async auditAccounts(repair: boolean): Promise<{ compared: number; wrong: readonly WrongAccount[] }> {
    if (!this.isCounted) return { compared: 0, wrong: [] }
    const { state, family } = this.#options
    const audit = new AccountAudit({
      objects: this.#objects,
      accounts: this.#accounts,
      grace: this.#grace,
      state,
      family,
      entries: () => this.#entries,
      mapOf: (vid) => this.mapOf(vid),
      ownerOf: (vid, sizeBytes) => this.ownerOf(vid, sizeBytes),
    })
    const found = await audit.run(repair)
    return this.isCounted ? found : { compared: 0, wrong: [] }
  }

  #stamp(first: number): string {
    const changes = Array.from({ length: COUNT_AT_ONCE }, (_, i) => this.#accounts.changesAt(first + i))
    return [this.#entries, ...changes].join()
  }

  /** What each VDI holds at some indexes. Objects that several see are looked at once. */
  async #count(first: number, frozen: Map<number, ReplicatedMap>): Promise<Map<number, Account>> {
    const vdis = this.#vdis()
    const counts = new Map(vdis.map(({ vid }) => [vid, new Map<number, number>()]))
    const maps = new Map<number, ReplicatedMap>()
    for (const vdi of vdis) {
      // The map of a VDI that is written to is the one of its owner; that of a frozen one stays as it is.
      const map = vdi.snapshotAt === 0 ? this.mapOf(vdi.vid) : (frozen.get(vdi.vid) ?? this.mapOf(vdi.vid))
      if (vdi.snapshotAt > 0) frozen.set(vdi.vid, map)
      maps.set(vdi.vid, map)
    }
    const countIndex = async (index: number) => {
      const seers = new Map<number, number[]>()
      for (const [vid, map] of maps) {
        const head = await map.lookup(index)
        if (head !== 0) seers.set(head, [...(seers.get(head) ?? []), vid])
      }
      for (const [head, vids] of seers) {
        const held = await this.#views.hold(dataOid(head, index))
        for (const [line, count] of countView(held.view)) {
          for (const vid of vids) {
            const account = counts.get(vid)!
            account.set(line, (account.get(line) ?? 0) + count)
          }
        }
        held.release()
      }
    }
    await Promise.all(Array.from({ length: COUNT_AT_ONCE }, (_, i) => countIndex(first + i)))
    return counts
  }

  /** Gives back what deleted VDIs leave. False when nodes that are away may have more of them. */
  async reclaim(): Promise<boolean> {
    for (;;) {
      const { gone, isAll } = await this.#reclaim.round()
      for (const vid of gone) await this.#options.propose({ type: 'reclaimed', vid })
      if (gone.length === 0) return isAll
    }
  }

  #vdis(): Vdi[] {
    const { state, family } = this.#options
    return state.vdis.ofFamily(family).filter(({ deleting }) => !deleting)
  }
}
