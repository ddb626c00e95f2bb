import { StoreError } from '../../errors.ts'
import { dataOid, inodeOid, oidIndex, oidKind, oidVid } from '../../protocol/oid.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import type { ClusterState } from '../cluster-state.ts'
import { type Blocks, countBlocks } from '../copies/block-ranges.ts'
import { bringHome } from '../copies/copy-recovery.ts'
import type { CopySequencer } from '../copies/copy-sequencer.ts'
import { deferred } from '../copies/deferred.ts'
import type { Entry, FamilyOwner } from '../entries.ts'
import type { View } from '../membership/view.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../object-format.ts'
import { ReplicatedFamily } from '../replicated/replicated-family.ts'
import { FamilyAudit } from './family-audit.ts'
import type { FamilyObjects } from './family-objects.ts'
import type { Params, Told } from './node-questions.ts'
import type { Recovery } from './recovery.ts'
import { Signal } from './signal.ts'

export interface OwnedFamilyOptions {
  owner: FamilyOwner
  objects: FamilyObjects
  state: ClusterState
  clock: Clock
  log: Log
  propose(entry: Entry): Promise<void>
  recovery: Recovery
}

/** How it was with a VDI before its objects were looked up. */
interface Begun {
  sequencer: CopySequencer
  epoch: number
  setbacks: number
}

const isSameEpoch = ({ sequencer, epoch }: Begun) => epoch === sequencer.epoch

/** What was found to be named is all that is, and was not found to lack anything since. */
const isAsItWas = (begun: Begun) =>
  isSameEpoch(begun) && begun.setbacks === begun.sequencer.setbacks && !begun.sequencer.isMakingSinceBefore

const ENDS_MAKING: ReadonlySet<Entry['type']> = new Set(['vdi', 'snapshot', 'rollback', 'vmstate', 'unmade'])

const RETRY_MS = 1000
/** From one look at whether there is something to do to the next, should nobody say so. */
const LOOK_MS = 5000

/**
 * A family of VDIs for as long as this node owns it: the VDIs, and what goes on in the background.
 *
 * 1. What the owner before left in the middle is ended first, while clients are served already.
 * 2. Then, in each view: all that the maps name is brought to where it belongs, and an entry says that it is.
 * 3. What deleted VDIs leave is given back.
 */
export class OwnedFamily {
  readonly owner: FamilyOwner
  readonly vdis: ReplicatedFamily
  readonly #options: OwnedFamilyOptions
  readonly #work = new Signal()
  readonly #stepped = new Signal()
  #isOver = false
  #mustReclaim = true
  /** The view in which the objects of deleted VDIs were looked for last. */
  #reclaimEpoch = 0
  readonly #takenOver = deferred()
  #isTakenOver = false
  #isBusy = true
  #holders = 0
  /** When everything was found to be complete for the last time: the epoch, and the setbacks until then. */
  #complete = { epoch: 0, setbacks: 0 }

  constructor(options: OwnedFamilyOptions) {
    this.#options = options
    this.owner = options.owner
    const { objects, state } = options
    this.vdis = new ReplicatedFamily({
      family: options.owner.family,
      objects,
      state,
      propose: (entry) => this.#propose(entry.type === 'reclaimed' ? { ...entry, epoch: this.#reclaimEpoch } : entry),
    })
    void this.#run()
  }

  /** Resolves when what the owner before left in the middle is over; rejects when this one comes to its end first. */
  get takenOver(): Promise<void> {
    return this.#takenOver.promise
  }

  /** Resolves when nothing of deleted VDIs is left that can go, or this node owns the family no more. */
  async reclaimed(): Promise<void> {
    while (this.#mustReclaim && !this.#isOver) await this.#stepped.next
  }

  /** It is not let go until as many have released it. */
  hold(): void {
    this.#holders++
  }

  release(): void {
    this.#holders--
  }

  /** Nothing is going on that this node would have to end first. */
  get isIdle(): boolean {
    return (
      this.#holders === 0 &&
      !this.#isBusy &&
      this.#isTakenOver &&
      !this.#mustReclaim &&
      !this.vdis.isInDoubt &&
      !this.#isUnclean &&
      this.isComplete
    )
  }

  /** Whether everything is where it belongs in the view in effect, and no copy was found to lack something since. */
  get isComplete(): boolean {
    const { state, objects } = this.#options
    return this.#complete.epoch === state.epoch && this.#complete.setbacks === objects.setbacks
  }

  viewsChanged(views: readonly View[]): void {
    this.#options.objects.viewsChanged(views)
    this.#work.tell()
  }

  applied(entry: Entry): void {
    this.vdis.applied(entry)
    if (entry.type === 'recovery' || (ENDS_MAKING.has(entry.type) && !this.isComplete)) this.#work.tell()
    if (entry.type === 'delete') this.reclaim()
    if (entry.type === 'clean') this.#options.objects.viewsChanged(this.#options.state.viewsOf(this.owner.family))
  }

  /** See FamilyAudit. */
  audit(options: { repair: boolean; addressOf(node: string): string }): Promise<Told<'audit_family'>> {
    const { objects, state, clock } = this.#options
    const { vdis } = this
    return new FamilyAudit({ ...options, family: this.owner.family, objects, vdis, state, clock }).run()
  }

  /** See FamilyAudit. */
  mend(oid: bigint, blocks: Blocks, addressOf: (node: string) => string): Promise<Told<'mend_object'>> {
    const { objects, state, clock } = this.#options
    const { vdis } = this
    const { family } = this.owner
    return new FamilyAudit({ family, objects, vdis, state, clock, addressOf, repair: true }).mend(oid, blocks)
  }

  /** As VdiStore.listObjects, with the nodes that should have copies. */
  async listObjects({ vid, from, limit, count }: Params<'list_objects'>): Promise<Told<'list_objects'>> {
    const { objects } = this.#options
    const listed: Told<'list_objects'> = []
    for await (const entry of this.vdis.mapOf(vid).entries(limit, from)) {
      if (listed.length === count) break
      const oid = dataOid(entry.vid, entry.index)
      const layout = await objects.layoutOf(oid).catch(ifThere)
      if (!layout) continue
      listed.push({
        index: entry.index,
        vid: entry.vid,
        allocatedBytes: countBlocks(layout.data) * BLOCK_BYTES,
        inheritedBytes: countBlocks(layout.inherited) * BLOCK_BYTES,
        nodes: [...objects.of(entry.vid).targetsOf(oid)],
      })
    }
    return listed
  }

  reclaim(): void {
    this.#mustReclaim = true
    this.#work.tell()
  }

  /** Makes durable all that was answered. */
  flush(): Promise<void> {
    return this.#options.objects.flush()
  }

  /** Another node may own it from now on. */
  end(): void {
    this.#isOver = true
    this.#options.recovery.end(this.owner.family)
    this.#options.objects.end()
    this.#takenOver.reject(new StoreError('OldEpoch'))
    this.#work.tell()
    this.#stepped.tell()
  }

  get #isUnclean(): boolean {
    const { state } = this.#options
    return (state.families.uncleanSince(this.owner.family) ?? state.epoch) < state.epoch
  }

  /** Whether what is on the targets of this view alone could stand for all that there was before. */
  get #mayBeClean(): boolean {
    if (!this.#isUnclean) return false
    const { state, objects } = this.#options
    return state.vdis.ofFamily(this.owner.family).every(({ vid, deleting }) => deleting || objects.of(vid).hasEnough)
  }

  async #run(): Promise<void> {
    const { clock, log, objects } = this.#options
    while (!this.#isOver) {
      const { next } = this.#work
      this.#isBusy = true
      try {
        await this.#step()
        this.#isBusy = false
        this.#stepped.tell()
        await Promise.race([next, clock.sleep(LOOK_MS)])
        objects.spreadWatermarks()
      } catch (err) {
        if (!(err instanceof StoreError)) throw err
        if (err.code === 'OldEpoch' && this.#isOver) return
        // Nothing is lost by trying again: there may be no lease, or no room.
        log.debug({ err, family: this.owner.family }, 'work in the background could not go on')
        await Promise.race([next, clock.sleep(RETRY_MS)])
      }
    }
  }

  async #step(): Promise<void> {
    if (!this.#isTakenOver) {
      await this.vdis.recover()
      this.#isTakenOver = true
      this.#takenOver.resolve()
    }
    if ((this.#mayBeClean || !this.isComplete) && !this.#options.recovery.isPaused) await this.#bringHome()
    if (this.#mustReclaim) await this.#reclaimDeleted()
    await this.vdis.settle()
  }

  async #reclaimDeleted(): Promise<void> {
    this.#mustReclaim = false
    this.#reclaimEpoch = this.#options.state.epoch
    try {
      this.#mustReclaim = !(await this.vdis.reclaim()) || this.#mustReclaim
    } catch (error) {
      this.#mustReclaim = true
      throw error
    }
    await this.vdis.removeGarbage()
  }

  /** Brings everything to where it belongs in the view in effect, and says so. */
  async #bringHome(): Promise<void> {
    const { state, owner, objects, recovery } = this.#options
    const { epoch } = state
    const { setbacks } = objects
    // What these start with may have been written in the view before, and nobody looks at it before they are made.
    const { isMaking } = this.vdis
    if (!(await this.#bringVdisHome(false))) return
    if (state.vdis.ofFamily(owner.family).some(({ deleting }) => deleting)) {
      // What was removed of these, and a node has brought back, must not be waited for.
      await this.#reclaimDeleted()
      if (state.epoch !== epoch || !(await this.#bringVdisHome(true))) return
    }
    if (state.epoch !== epoch) return
    // Before anybody forgets which versions these have: what is there of them then is as good as the rest.
    await this.vdis.removeAllGarbage()
    if (state.epoch !== epoch) return
    if (isMaking) return
    await this.flush()
    this.#complete = { epoch, setbacks }
    objects.wereComplete(epoch)
    if (this.#mayBeClean && this.isComplete)
      await this.#propose({ type: 'clean', epoch, families: [[owner.family, owner.index]] })
    recovery.end(owner.family)
  }

  /** In the name of this owner, also when the node has come to own the family anew. */
  #propose(entry: Entry): Promise<void> {
    return this.#options.propose({ ...entry, by: this.owner.index })
  }

  /** Whether nothing is missing of those that are deleted, or of those that are not. */
  async #bringVdisHome(isDeleted: boolean): Promise<boolean> {
    const { state, owner, objects, recovery } = this.#options
    const { family } = owner
    const begun = new Map<number, Begun>()
    const oids: bigint[] = []
    for (const { vid, deleting } of state.vdis.ofFamily(family)) {
      if (deleting !== isDeleted) continue
      const sequencer = objects.of(vid)
      begun.set(vid, { sequencer, epoch: sequencer.epoch, setbacks: sequencer.setbacks })
      const found = await this.#objectsOf(vid)
      if (found === null) return false
      for (const oid of found) oids.push(oid)
    }
    recovery.begin(family, oids.length)
    const isHome = await bringHome({
      oids,
      sequencerOf: (oid) => objects.of(oidVid(oid)),
      isNamed: (oid) => this.#isNamed(oid),
      goesOn: (oid) => !this.#isOver && !recovery.isPaused && isSameEpoch(begun.get(oidVid(oid))!),
      look: (look) => recovery.look(family, look),
      step: (copy) => recovery.step(family, copy),
      done: (objects) => recovery.done(family, objects),
    })
    return isHome && [...begun.values()].every(isAsItWas)
  }

  /** Clients go on to remove what a look at the map has found. Of a deleted VDI only this removes anything. */
  async #isNamed(oid: bigint): Promise<boolean> {
    const vid = oidVid(oid)
    const vdi = this.#options.state.vdis.get(vid)
    if (!vdi || vdi.deleting || oidKind(oid) !== 'data') return true
    return (await this.vdis.mapOf(vid).lookup(oidIndex(oid))) === vid
  }

  /**
   * What a living VDI's map names as its own, and its machine state; of a deleted one, what is there of it, or null when nodes that are away
   * may have more.
   */
  async #objectsOf(vid: number): Promise<readonly bigint[] | null> {
    const { state, objects } = this.#options
    const vdi = state.vdis.get(vid)
    if (!vdi || vdi.deleting) {
      const { oids, areAll } = await objects.objectsOf(vid)
      return areAll ? oids : null
    }
    const oids = [inodeOid(vid), ...this.vdis.machineState.objectsOf(vid)]
    for await (const entry of this.vdis.mapOf(vid).entries(Math.ceil(vdi.sizeBytes / OBJECT_BYTES))) {
      if (entry.vid === vid) oids.push(dataOid(vid, entry.index))
    }
    return oids
  }
}

/** Null for an object that was dropped since the map was read. */
function ifThere(error: unknown): null {
  if (error instanceof StoreError && error.code === 'NoObject') return null
  throw error
}
