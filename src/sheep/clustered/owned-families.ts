import { StoreError } from '../../errors.ts'
import { CopySequencer } from '../copies/copy-sequencer.ts'
import { type Entry, type FamilyOwner, snapshotsIn, type VdiUsage } from '../entries.ts'
import type { VdiStoreParts } from '../vdi-store.ts'
import type { ClusterMember } from './cluster-member.ts'
import { usageOf } from './cluster-usage.ts'
import { FamilyObjects } from './family-objects.ts'
import { familyOfEntry } from './family-of-entry.ts'
import { OwnedFamily } from './owned-family.ts'
import type { Ownership } from './ownership.ts'
import type { Places } from './places.ts'
import type { Recovery } from './recovery.ts'
import type { VdiCopies } from './vdi-copies.ts'

export interface OwnedFamiliesOptions extends Pick<VdiStoreParts, 'state' | 'sessions' | 'turns' | 'clock' | 'log'> {
  ownership: Ownership
  recovery: Recovery
  places: Places
  copies: VdiCopies
  /** Null while this node has not joined the group. */
  member(): ClusterMember | null
  propose(entry: Entry): Promise<void>
  gained(family: number): void
  lost(owned: OwnedFamily): void
}

/** An entry of the log has so much room. */
const KEPT_USAGES_MAX = 2000
/** How long a family that nobody uses is kept: its next user may be at another node. */
const IDLE_MS = 5000

/**
 * The families of VDIs that this node owns. They come and go with entries of the log; the node lets go of those that nobody uses, and takes
 * over those that nobody owns while something has to be done for them.
 */
export class OwnedFamilies {
  readonly #options: OwnedFamiliesOptions
  readonly #families = new Map<number, OwnedFamily>()
  /** Families of which something was deleted, and that nobody has come to own since: to give back what there is. */
  readonly #deletedFrom = new Set<number>()
  /** What VDIs took that were let go of, by the index of the ownership, until the log has it. */
  readonly #left = new Map<number, VdiUsage[]>()
  #isOver = false

  constructor(options: OwnedFamiliesOptions) {
    this.#options = options
  }

  [Symbol.iterator](): Iterator<OwnedFamily> {
    return this.#families.values()
  }

  find(family: number): OwnedFamily | undefined {
    return this.#families.get(family)
  }

  /** @throws StoreError OldEpoch. */
  get(family: number): OwnedFamily {
    const owned = this.#families.get(family)
    if (!owned) throw new StoreError('OldEpoch', 'another node owns the VDI')
    return owned
  }

  /** @throws StoreError OldEpoch, NoVdi. */
  of(vid: number): OwnedFamily {
    const vdi = this.#options.state.vdis.get(vid)
    if (!vdi) throw new StoreError('NoVdi', vid.toString(16))
    return this.get(vdi.family)
  }

  /** From now on looks after what nobody uses. */
  start(): void {
    this.#sweepLater()
  }

  stop(): void {
    this.#isOver = true
    for (const owned of this.#families.values()) owned.end()
    this.#families.clear()
  }

  /** An entry has taken effect. */
  applied(entry: Entry): void {
    const { state, ownership } = this.#options
    this.#tell(entry)
    if (entry.type === 'delete') this.#deletedFrom.add(state.vdis.get(entry.vid)!.family)
    if (entry.type !== 'owner') return
    this.#deletedFrom.delete(entry.family)
    const owner = ownership.ownOf(entry.family)
    if (owner) this.#begin(owner)
  }

  #tell(entry: Entry): void {
    if (entry.type === 'snapshots') {
      for (const snapshot of snapshotsIn(entry)) this.#tell(snapshot)
      return
    }
    const family = familyOfEntry(entry, this.#options.state)
    if (family !== null) this.#families.get(family)?.applied(entry)
    // The VDI is gone, and nothing says any more whose it was.
    else if (entry.type === 'reclaimed') for (const owned of this.#families.values()) owned.applied(entry)
    else if (entry.type === 'recovery') for (const owned of this.#families.values()) owned.applied(entry)
    else if (entry.type === 'clean') for (const [of] of entry.families) this.#families.get(of)?.applied(entry)
  }

  viewChanged(): void {
    for (const owned of this.#families.values()) owned.viewsChanged(this.#options.state.viewsOf(owned.owner.family))
  }

  #begin(owner: FamilyOwner): void {
    const { state, clock, log, recovery, places, copies, propose } = this.#options
    const { family, index, incarnation } = owner
    const objects = new FamilyObjects({
      sequencerFor: (vid) =>
        new CopySequencer({
          vid,
          index,
          incarnation,
          clock,
          views: state.viewsOf(family),
          targetsOf: (oid, view) => places.targetsOf(oid, copies.in(vid, view), view),
          copiesMinIn: (view) => copies.in(vid, view).copiesMin,
          send: (to, request, done) => this.#member.askCopy(to, request, done),
          readNow: (request, done) => this.#options.member()?.readNow(request, done) ?? false,
          mayAct: () => this.#options.member()?.mayAct() ?? false,
          suspect: (member) => this.#member.suspect(member),
        }),
      confirm: async () => {
        if (!this.#member.mayAct()) throw new StoreError('Unsure')
      },
    })
    this.#families.set(family, new OwnedFamily({ owner, objects, state, clock, log, propose, recovery }))
    this.#options.gained(family)
  }

  /** What other nodes own, as the log says. */
  endLost(): void {
    const { ownership, member, lost } = this.#options
    for (const [family, owned] of this.#families) {
      if (member() && ownership.ownOf(family)?.index === owned.owner.index) continue
      this.#families.delete(family)
      owned.end()
      lost(owned)
    }
  }

  /**
   * Whether something that this owner has proposed takes effect nobody can tell while it is the owner. The next one can, be it this
   * node again: by then it has, or is void.
   */
  resign(owned: OwnedFamily): void {
    const { log, ownership, lost } = this.#options
    const { owner } = owned
    if (this.#families.get(owner.family) !== owned) return
    this.#families.delete(owner.family)
    owned.end()
    lost(owned)
    ownership.letGo(owner, []).catch((err) => log.debug({ err, family: owner.family }, 'a family could not be let go'))
  }

  #sweepLater(): void {
    this.#options.clock.timer(IDLE_MS, () => {
      if (this.#isOver) return
      for (const owned of this.#families.values()) this.#letGoIfIdle(owned)
      this.#letGoAgain()
      this.#adoptOrphans()
      this.#sweepLater()
    })
  }

  #letGoIfIdle(owned: OwnedFamily): void {
    const { state, sessions, turns, log, ownership, lost } = this.#options
    const { family } = owned.owner
    const isUsed = () =>
      !owned.isIdle ||
      state.vdis.ofFamily(family).some(({ vid, name }) => sessions.isOpen(vid) || state.locks.has(name))
    if (isUsed() || turns.isTaken(family)) return
    void turns
      .take(family, async () => {
        if (isUsed() || this.#families.get(family) !== owned) return
        await owned.flush()
        if (isUsed()) return
        const usage = usageOf(owned).slice(0, KEPT_USAGES_MAX)
        this.#families.delete(family)
        owned.end()
        lost(owned)
        this.#left.set(owned.owner.index, usage)
        await ownership.letGo(owned.owner, usage)
        this.#left.delete(owned.owner.index)
      })
      .catch((err) => log.debug({ err, family }, 'a family could not be let go'))
  }

  /** What the log was to be told, and perhaps was not. */
  #letGoAgain(): void {
    const { state, log, turns, ownership } = this.#options
    for (const index of this.#left.keys()) if (!state.families.isCurrent(index)) this.#left.delete(index)
    for (const owner of state.families.owners()) {
      if (!ownership.ownOf(owner.family) || this.#families.has(owner.family) || turns.isTaken(owner.family)) continue
      const usage = this.#left.get(owner.index) ?? []
      ownership.letGo(owner, usage).catch((err) => log.debug({ err }, 'a family could not be let go'))
    }
  }

  /** Somebody has to bring home, or give back, what nobody owns; each node does so for those that fall to it. */
  #adoptOrphans(): void {
    const { state, log, ownership, member } = this.#options
    if (!member()?.mayAct()) return
    for (const family of this.#deletedFrom)
      if (state.vdis.ofFamily(family).length === 0) this.#deletedFrom.delete(family)
    const made = [...state.makings.values()].map((making) => making.family)
    for (const family of new Set([...state.families.uncleanBefore(state.epoch), ...this.#deletedFrom, ...made])) {
      if (ownership.ownerOf(family) || !this.fallsHere(family)) continue
      ownership.claim(family).catch((err) => log.debug({ err, family }, 'a family could not be taken over'))
    }
  }

  /** Of those that nobody owns each node looks after some. */
  fallsHere(family: number): boolean {
    const members = this.#member.view.members.filter(({ vnodes }) => vnodes > 0)
    return members[family % Math.max(1, members.length)]?.node === this.#member.life.node
  }

  get #member(): ClusterMember {
    const member = this.#options.member()
    if (!member) throw new StoreError('NoQuorum', 'the node is starting')
    return member
  }
}
