import { StoreError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Disk } from '../runtime/disk.ts'
import type { Log } from '../runtime/log.ts'
import type { Random } from '../runtime/random.ts'
import { ClusterState } from './cluster-state.ts'
import { refuseClustered } from './clustered/cluster-of-store.ts'
import type { DisksOptions } from './disks/membership.ts'
import type { StoreDisks } from './disks/store-disks.ts'
import { decodeEntry, type Entry, type ExportRight, encodeEntry, type Vdi, type VdiHeader } from './entries.ts'
import type { LoggedEntry } from './entry-log.ts'
import { HeldDiscards } from './foreign/held-discards.ts'
import { Traffic } from './foreign/traffic.ts'
import { ForeignWriters, type Sender } from './foreign/writers.ts'
import { LocalVdiStore } from './local-vdi-store.ts'
import { Locks } from './locks.ts'
import type { AuditProgress, AuditReport } from './maintenance/audit.ts'
import { GiveBack } from './maintenance/give-back.ts'
import { IdleCheckpoint } from './maintenance/idle-checkpoint.ts'
import { Scrubber } from './maintenance/scrub.ts'
import type { Usage } from './maintenance/usage.ts'
import { OBJECT_BYTES } from './object-format.ts'
import type { ListedObject } from './object-listing.ts'
import { ObjectStore, type StoreMeasures, type StoreStats } from './object-store.ts'
import { Owners } from './owners.ts'
import type { SheepClient } from './server.ts'
import { type Session, Sessions } from './session.ts'
import { Turns } from './turns.ts'
import type { AttributeValues, CopiesWanted, ObjectBytes, StoreSpace, VdiStore, VdiStoreParts } from './vdi-store.ts'

/** The protocol has no more. */
const COPIES_MAX = 31

export interface SheepOptions {
  disk: Disk
  /** Other disks of the node. */
  disks?: DisksOptions
  clock: Clock
  random: Random
  log: Log
  /** Address that other nodes would reach this one at. */
  address: string
  zone: number
  segmentBytes: number
  durability: 'flush' | 'write'
  reserveBytes: number
  copies: number
  /** Of several nodes: so many copies at least have what is acknowledged of a new VDI, if it has as many. */
  copiesMin?: number
  loadedObjectsMax?: number
  openFilesMax?: number
  placedMinBytes?: number
  keptBytesMax?: number
  /** How long a lock outlives the last connection of its holder. */
  lockGraceMs?: number
  /** How fast the scrub reads in the background; 0 or nothing turns it off. */
  scrubBytesPerSecond?: number
  scrubIntervalMs?: number
  /** Where what VDIs hold is kept, when that is not this node alone. */
  vdiStore?(parts: VdiStoreParts): VdiStore
  /** Told once when the disk has failed: the node serves nothing any more. */
  onFailed(error: StoreError): void
}

const LOCK_GRACE_DEFAULT_MS = 10_000

/**
 * One store node: the ordered log's state, the objects, and the owners of VDIs. Requests come in through the operation
 * table (ops.ts); this class is what the operations mean.
 */
export class Sheep {
  readonly state = new ClusterState()
  readonly sessions: Sessions
  readonly locks: Locks
  readonly writers: ForeignWriters
  readonly traffic = new Traffic()
  readonly heldDiscards = new HeldDiscards()
  /** The address that clients reach this node by, for lists of nodes. */
  contact: string
  readonly #options: SheepOptions
  readonly #store: ObjectStore
  readonly #vdis: VdiStore
  readonly #giveBack: GiveBack
  readonly #idleCheckpoint: IdleCheckpoint
  readonly scrubber: Scrubber
  readonly #owners: Owners
  /** Creations, snapshots, deletions and attributes of one family take turns; families do not wait for others. */
  readonly #turns = new Turns<number>()
  /** Connections that have ended: what they were about to open is not for them any more. */
  readonly #gone = new WeakSet<object>()
  #failure: StoreError | null = null
  #audits: Promise<unknown> = Promise.resolve()
  /** How far the audit that runs has come; null when none does. */
  auditProgress: AuditProgress | null = null

  private constructor(options: SheepOptions, store: ObjectStore) {
    this.#options = options
    this.contact = options.address
    this.#store = store
    this.sessions = new Sessions({
      ownerOf: (vid) => this.#owners.of(vid),
      state: this.state,
      onUnused: (vid) => this.#owners.forget(vid),
    })
    const { clock, random, log, address, zone } = options
    const openVdiStore = options.vdiStore ?? ((parts: VdiStoreParts) => new LocalVdiStore(parts, { address, zone }))
    this.#vdis = openVdiStore({
      store,
      state: this.state,
      sessions: this.sessions,
      turns: this.#turns,
      clock,
      random,
      log,
      owners: { of: (vid) => this.#owners.of(vid), forget: (vid) => this.#owners.forget(vid) },
      applied: (entry) => this.#owners.tell(entry),
      gained: (family) => this.locks.resume(this.#namesOf(family)),
      lost: (family) => this.#lost(family),
    })
    this.#owners = new Owners({
      maker: this.#vdis.owners,
      state: this.state,
      isOpen: (vid) => this.sessions.isOpen(vid),
    })
    this.writers = new ForeignWriters(this)
    this.locks = new Locks({
      state: this.state,
      propose: (entry) => this.#propose(entry),
      clock: options.clock,
      graceMs: options.lockGraceMs ?? LOCK_GRACE_DEFAULT_MS,
      log: options.log,
      places: this.#vdis.lockHolders,
    })
    this.#giveBack = new GiveBack({ store, clock: options.clock })
    this.#idleCheckpoint = new IdleCheckpoint({ store, clock: options.clock })
    this.scrubber = new Scrubber({
      mend: this.#vdis.mend?.bind(this.#vdis),
      store,
      state: this.state,
      disk: options.disk,
      clock: options.clock,
      log: options.log,
      bytesPerSecond: options.scrubBytesPerSecond ?? 0,
      ...(options.scrubIntervalMs && { roundIntervalMs: options.scrubIntervalMs }),
    })
  }

  /** Opens the store, brings the state up to date and joins. Throws what ObjectStore.open throws. */
  static async open(options: SheepOptions): Promise<Sheep> {
    let failed: (error: StoreError) => void = () => {}
    const { store, entries } = await ObjectStore.open({ ...options, onFailed: (error) => failed(error) })
    const sheep = new Sheep(options, store)
    failed = (error) => {
      sheep.#failure = error
      options.onFailed(error)
    }
    try {
      await sheep.#start(entries)
    } catch (error) {
      // The store may be at work already: on a disk that it goes on to unplug.
      await sheep.close().catch((err) => options.log.error({ err }, 'closing the store after a failed start'))
      throw error
    }
    return sheep
  }

  async #start(entries: readonly LoggedEntry[]): Promise<void> {
    for (const { index, bytes } of entries) this.state.apply(index, decodeEntry(bytes))
    if (!this.#options.vdiStore) await refuseClustered(this.#options.disk, this.state)
    this.#store.logSnapshot = () => ({
      index: this.state.index,
      liveEntries: this.state.liveEntries,
      entries: () => this.state.snapshotEntries().map(encodeEntry),
    })
    await this.#vdis.start()
    if (!this.#options.vdiStore) this.locks.resume(this.state.locks.keys())
    await this.scrubber.open()
  }

  get objects(): ObjectBytes {
    return this.#vdis.objects
  }

  get attributes(): AttributeValues {
    return this.#vdis.attributes
  }

  get failure(): StoreError | null {
    return this.#failure
  }

  /** Its name in views. */
  get node(): string {
    return this.#store.storeId.toString('hex')
  }

  get copies(): number {
    return this.#options.copies
  }

  /** Of a VDI that is made without saying so. */
  get copiesMin(): number {
    return this.#options.copiesMin ?? 1
  }

  get log(): Log {
    return this.#options.log
  }

  /** The disks of this node, and how they come and go. */
  get disks(): StoreDisks {
    return this.#store.disks
  }

  stats(): Promise<StoreStats> {
    return this.#store.stats()
  }

  measures(): StoreMeasures {
    return this.#store.measures()
  }

  /** What each VDI and snapshot takes, by vid; without a scan. */
  usage(): Promise<Map<number, Usage>> {
    return this.#vdis.usage()
  }

  /** Of several nodes: what this one knows itself of what VDIs take. */
  ownUsage(): readonly (readonly [vid: number, usage: Usage])[] {
    return this.#vdis.ownUsage?.() ?? []
  }

  /** Of several nodes: what this one has to copy. */
  ownRecovery(): object | null {
    return this.#vdis.ownRecovery?.() ?? null
  }

  /** Bytes of the blocks that hold data, each counted once; of several nodes what falls to this one. */
  get allocatedBytes(): number {
    return this.#vdis.allocatedBytes
  }

  /** Of the whole store; `stats` is of this node. */
  space(): Promise<StoreSpace> {
    return this.#vdis.space()
  }

  /** Proves that the store is sound, one audit after the other; with `repair` it also mends what can be. */
  audit({ repair = false } = {}): Promise<AuditReport> {
    const audit = this.#audits.then(() =>
      this.#vdis
        .audit({
          ownedMapOf: (vid) => this.#owners.of(vid).map,
          repair,
          progress: (progress) => {
            this.auditProgress = progress
          },
        })
        .finally(() => {
          this.auditProgress = null
          this.#owners.forgetUnused()
        }),
    )
    this.#audits = audit.catch(() => {})
    return audit
  }

  /**
   * What is in the way of this store, of one node, to become the first of several, and how many bytes that would write. While it is
   * used this may say more or less than what the founding finds. Throws Unsupported on a store of several nodes.
   */
  async surveyForFounding(): Promise<{ obstacles: readonly string[]; bytes: number }> {
    const survey = await this.#vdis.surveyForFounding?.()
    if (!survey) throw new StoreError('Unsupported', 'this is a store of several nodes')
    return { obstacles: survey.obstacles, bytes: survey.dataBytes + survey.mapBytes }
  }

  /** Up to `count` objects of a VDI, from index `from` on. Throws NoVdi. */
  listObjects(vid: number, from: number, count: number): Promise<ListedObject[]> {
    const vdi = this.state.get(vid)
    const limit = Math.ceil(vdi.sizeBytes / OBJECT_BYTES)
    return this.#vdis.listObjects(vid, { from, limit, count }, () => this.#owners.mapOf(vid))
  }

  /** Resolves when no deleted VDI is being reclaimed. */
  reclaimed(): Promise<void> {
    return this.#vdis.reclaimed()
  }

  /**
   * A new, thin VDI; with `baseVid` a clone of that snapshot. Throws VdiExists, NoBaseVdi, FullVdi or InvalidParameters.
   */
  async createVdi(name: string, sizeBytes: number, baseVid: number, wanted: Partial<CopiesWanted> = {}): Promise<Vdi> {
    this.#checkCopies({ copies: this.copies, ...wanted })
    if (baseVid === 0) return this.#newVdi(name, sizeBytes, null, wanted)
    const base = this.state.vdis.get(baseVid)
    if (!base || base.deleting) throw new StoreError('NoBaseVdi', baseVid.toString(16))
    if (base.snapshotAt === 0) throw new StoreError('NoBaseVdi', `${base.name} is not a snapshot`)
    return this.#turns.take(base.family, () =>
      this.#newVdi(name, Math.max(sizeBytes, base.sizeBytes), base.vid, wanted),
    )
  }

  async #newVdi(name: string, sizeBytes: number, baseVid: number | null, wanted: Partial<CopiesWanted>): Promise<Vdi> {
    const copiesMin = wanted.copiesMin ?? this.#options.copiesMin
    const base = baseVid === null ? null : this.state.get(baseVid)
    const vid = await this.#vdis.make(name, baseVid, (vid) => {
      const vdi: Vdi = {
        vid,
        name,
        tag: '',
        snapId: this.state.vdis.nextSnapId(name),
        parentVid: base?.vid ?? 0,
        family: base?.family ?? vid,
        sizeBytes,
        copies: wanted.copies ?? this.copies,
        ...(copiesMin !== undefined && { copiesMin }),
        createdAt: this.#options.clock.now(),
        snapshotAt: 0,
        deleting: false,
      }
      return { type: 'vdi', vdi }
    })
    return this.state.get(vid)
  }

  /**
   * Freezes the working VDI under `tag` at one moment between requests; it goes on under a new vid, which is returned. Every
   * request that was answered before is in the snapshot.
   */
  async snapshot(vid: number, tag: string): Promise<Vdi> {
    const { family } = this.state.get(vid)
    return this.#turns.take(family, async () => {
      const vdi = this.state.get(vid)
      const owner = this.#owners.of(vid)
      await owner.freeze()
      try {
        const at = this.#options.clock.now()
        const entryOf = (newVid: number): Entry => ({ type: 'snapshot', vid, newVid, tag, at })
        return this.state.get(await this.#vdis.make(vdi.name, vid, entryOf))
      } finally {
        owner.thaw()
        this.#owners.forget(owner.vid)
      }
    })
  }

  /**
   * As `snapshot`, for several VDIs at one moment: their gates close in the same turn, what has passed is answered, one entry takes all
   * the snapshots, and all go on. So of two requests of which one was answered before the other was sent, to whichever of the
   * VDIs, no snapshot has the later where one lacks the earlier; and there are all snapshots or none. Throws NoVdi, VdiExists
   * when a tag is taken, Busy when the requests under way take so long that all others would stall.
   */
  async snapshotTogether(of: readonly { name: string; tag: string }[]): Promise<void> {
    if (new Set(of.map(({ name }) => name)).size < of.length)
      throw new StoreError('InvalidParameters', 'a VDI has one snapshot at a moment')
    await this.#vdis.snapshotTogether(of)
  }

  /** Throws NoVdi, VdiExists, or VdiLocked while a foreign client has it locked; what others of them have open ends. */
  async renameVdi(name: string, to: string): Promise<void> {
    const { vid, family } = this.state.find(name)
    await this.#turns.take(family, async () => {
      await this.sessions.endForeign(vid)
      await this.#vdis.propose({ type: 'rename', name, to })
    })
  }

  /**
   * Gives a working VDI and its snapshots another number of copies, while it is used. What a clone shares with them has as many as
   * they. Throws NoVdi, Unsupported on a store with one node, InvalidParameters.
   */
  async alterCopies(vid: number, wanted: CopiesWanted): Promise<void> {
    const { family } = this.state.get(vid)
    this.#checkCopies(wanted)
    await this.#turns.take(family, async () => {
      if (this.state.get(vid).snapshotAt > 0)
        throw new StoreError('ReadOnly', 'a snapshot has as many copies as its VDI')
      await this.#vdis.alterCopies?.(vid, wanted)
    })
  }

  #checkCopies({ copies, copiesMin = 1 }: CopiesWanted): void {
    const isNumber = (value: number) => Number.isInteger(value) && value >= 1 && value <= COPIES_MAX
    if (!isNumber(copies) || !isNumber(copiesMin))
      throw new StoreError('InvalidParameters', `a VDI has 1 to ${COPIES_MAX} copies`)
    if (copies !== this.copies && !this.#vdis.alterCopies)
      throw new StoreError('Unsupported', `${copies} copies, on a store of one node`)
  }

  /** Throws NoTag for what is no snapshot, VdiExists when another snapshot of the VDI has the tag. */
  async retag(vid: number, tag: string): Promise<void> {
    const { family } = this.state.get(vid)
    await this.#turns.take(family, () => this.#vdis.propose({ type: 'retag', vid, tag }))
  }

  /**
   * The working VDI holds again what its snapshot holds, at one moment between requests; its size stays. It goes on under a
   * new vid, which is returned, and sessions and export rights follow. Throws NoTag when that is no snapshot of it, and
   * VdiLocked when a foreign client has it, whose own picture of the map would be wrong.
   */
  async rollbackVdi(vid: number, snapshotVid: number): Promise<Vdi> {
    const vdi = this.state.get(vid)
    if (this.state.locks.has(vdi.name)) throw new StoreError('VdiLocked', vdi.name)
    await this.sessions.endForeign(vid)
    return this.rollTo(vid, snapshotVid)
  }

  /** As `rollbackVdi`, for the foreign client that has it locked. */
  rollTo(vid: number, snapshotVid: number): Promise<Vdi> {
    const { family } = this.state.get(vid)
    return this.#turns.take(family, async () => {
      const { name } = this.state.get(vid)
      const owner = this.#owners.of(vid)
      await owner.freeze()
      try {
        const at = this.#options.clock.now()
        const entryOf = (newVid: number): Entry => ({ type: 'rollback', vid, newVid, snapshotVid, at })
        return this.state.get(await this.#vdis.make(name, snapshotVid, entryOf))
      } finally {
        owner.thaw()
        this.#owners.forget(owner.vid)
        this.#vdis.reclaim(family)
      }
    })
  }

  /** A holder gives its lock back: it has nothing under way any more. */
  async releaseLock(name: string): Promise<void> {
    const writers = new Set<object | null>(this.locks.writersOf(name))
    await this.locks.drop(name)
    for (const { vid, snapshotAt } of this.state.vdis.of(name)) {
      if (snapshotAt === 0) await this.sessions.endForeign(vid, (holder) => writers.has(holder))
    }
  }

  /** Ends a lock, whoever has it. When it resolves, what its holder had under way is over, and what it sends is refused. */
  async unlock(name: string): Promise<void> {
    const writers = await this.locks.break(name)
    await Promise.all(writers.map((writer) => this.sessions.closeOf(writer)))
  }

  /**
   * Throws VdiInUse while it is exported or open, and VdiLocked while a foreign client other than the sender has it locked;
   * what the sender and foreign clients without a lock have open ends. Its space comes back in the background.
   */
  async deleteVdi(vid: number, sender: Sender | null = null): Promise<void> {
    const { family } = this.state.get(vid)
    await this.#turns.take(family, async () => {
      const vdi = this.state.get(vid)
      if (vdi.snapshotAt === 0) await this.#endOf(vdi, sender)
      if (this.sessions.isOpen(vid)) throw new StoreError('VdiInUse', `${vdi.name} is open`)
      await this.#propose({ type: 'delete', vid })
      await this.sessions.closeOn(vid) // of who has opened it since it was found to be free
      this.#owners.drop(vid)
    })
    this.#vdis.reclaim(family)
  }

  /** QEMU deletes the VDI that it has locked and writes to over another connection, when it goes back to a snapshot. */
  async #endOf(vdi: Vdi, sender: Sender | null): Promise<void> {
    const locked = this.state.locks.has(vdi.name)
    if (locked && !(sender && this.locks.allowsGoingBack(vdi.name, sender.client, sender.protoVer)))
      throw new StoreError('VdiLocked', vdi.name)
    await this.sessions.endForeign(vdi.vid)
  }

  /** A session under an export right, for who opens it, or goes on with what he had open at another owner since opening `resumed`. */
  async openExport(nameHash: string, holder: object | null, resumed: number | null): Promise<Session> {
    const right = this.state.exports.byHash(nameHash)
    if (right) await this.sessions.settleUnder(right.attachmentId)
    if (!this.#vdis.admission) return this.sessions.openExport(nameHash, holder)
    const session = await this.#vdis.admission.open(nameHash, holder, resumed)
    if (holder && this.#gone.has(holder)) await this.sessions.close(session.id)
    return session
  }

  /** Another node does from now on what is done to a family. */
  #lost(family: number): void {
    const vids = new Set(this.state.vdis.ofFamily(family).map(({ vid }) => vid))
    this.sessions.lose((vid) => vids.has(vid))
    for (const vid of vids) this.#owners.drop(vid)
    this.locks.forget(this.#namesOf(family))
  }

  #namesOf(family: number): Set<string> {
    return new Set(this.state.vdis.ofFamily(family).map(({ name }) => name))
  }

  /** What a client wrote into the header of the inode. Throws ReadOnly for a snapshot. */
  async setHeader(vid: number, header: VdiHeader): Promise<void> {
    const { tag, vmStateBytes, vmClockNsec } = this.state.get(vid).header ?? NO_HEADER
    const isSame = header.tag === tag && header.vmStateBytes === vmStateBytes && header.vmClockNsec === vmClockNsec
    if (!isSame) await this.#propose({ type: 'header', vid, header })
  }

  /** Machine state of at least so many objects will be written. Recorded first, so that it is found when the VDI goes. */
  async growVmstate(vid: number, objects: number): Promise<void> {
    const isGrown = () => (this.state.get(vid).vmstateObjects ?? 0) >= objects
    if (isGrown()) return
    await this.#turns.take(this.state.get(vid).family, async () => {
      if (isGrown()) return
      if (this.#vdis.growVmstate) await this.#vdis.growVmstate(vid, objects)
      else await this.#propose({ type: 'vmstate', vid, objects })
    })
  }

  /** Makes everything that was acknowledged durable. */
  flush(): Promise<void> {
    return this.#vdis.flush()
  }

  async resizeVdi(vid: number, sizeBytes: number): Promise<void> {
    await this.#propose({ type: 'resize', vid, sizeBytes })
  }

  /** Replaces what the attachment had before; sessions under the old right are over when it resolves. */
  async putExport(right: ExportRight): Promise<void> {
    const replaced = this.state.exports.has(right.attachmentId)
    await this.#propose({ type: 'export', right })
    if (replaced) await this.sessions.fence(right.attachmentId, right.nameHash)
    const current = this.state.exports.get(right.attachmentId)
    if (current) await this.sessions.fenceAnonymous(current.vid)
  }

  /** Gives a right other limits, or none, while it is used. Throws NoExport. */
  async limitExport(attachmentId: string, limits: object | null): Promise<void> {
    await this.#propose({ type: 'limits', attachmentId, limits })
  }

  /** When it resolves, nothing sent under the right changes a byte any more. Removing what is not there succeeds. */
  async removeExport(attachmentId: string): Promise<void> {
    if (this.state.exports.has(attachmentId)) await this.#propose({ type: 'unexport', attachmentId })
    await this.sessions.fence(attachmentId, null)
  }

  /**
   * Remembers which database of the service drives this store, unless another one does that is not to be replaced. Answers the
   * one that does from now on.
   */
  async drive(database: string, { replace }: { replace: boolean }): Promise<string> {
    const current = this.state.drivenBy
    if (current === database || (current !== null && !replace)) return current
    await this.#propose({ type: 'driven', database, replaces: current })
    return database
  }

  clientOpened(client: SheepClient): void {
    this.locks.opened(client)
  }

  /** Whether the connection has ended. */
  hasGone(client: SheepClient): boolean {
    return this.#gone.has(client)
  }

  /** Resolves when nothing is under way any more in its sessions. */
  clientClosed(client: SheepClient): Promise<void> {
    this.#gone.add(client)
    this.heldDiscards.ended(client, (heir) => void this.sessions.closeOf(heir))
    this.locks.closed(client)
    return this.sessions.closeOf(client)
  }

  async close(): Promise<void> {
    this.locks.stop()
    await this.scrubber.stop()
    this.#giveBack.stop()
    this.#idleCheckpoint.stop()
    await this.sessions.closeAll()
    await this.#vdis.stop()
    await this.#store.close()
  }

  #propose(entry: Entry): Promise<void> {
    return this.#vdis.propose(entry)
  }
}

const NO_HEADER: VdiHeader = { tag: '', vmStateBytes: 0, vmClockNsec: '0' }
