import { StoreError, type StoreErrorCode, toStoreError } from '../../errors.ts'
import { BODY_SIZE_MAX_BYTES, RESULT } from '../../protocol/constants.ts'
import { dataOid, formatOid, oidKind, oidVid } from '../../protocol/oid.ts'
import { OP } from '../../protocol/opcodes.ts'
import type { Connection } from '../../runtime/network.ts'
import type { ClusterState } from '../cluster-state.ts'
import { CopyHolder } from '../copies/copy-holder.ts'
import { CopySequencer } from '../copies/copy-sequencer.ts'
import { EngineCopyStore } from '../copies/engine-copy-store.ts'
import { type Entry, type FamilyOwner, snapshotsIn } from '../entries.ts'
import type { AuditReport } from '../maintenance/audit.ts'
import type { Usage } from '../maintenance/usage.ts'
import type { Damage } from '../maintenance/verify.ts'
import type { Life, Member, View } from '../membership/view.ts'
import type { ListedObject } from '../object-listing.ts'
import type { OwnerMaker } from '../owner-contract.ts'
import type { CopiesWanted, ListRange, StoreSpace, VdiAuditOptions, VdiStore, VdiStoreParts } from '../vdi-store.ts'
import { ClusterAdmin } from './cluster-admin.ts'
import { auditCluster, type ClusterAuditOptions, mendObject } from './cluster-audit.ts'
import { ClusterMember, type ClusterMemberOptions } from './cluster-member.ts'
import { ClusterSpace } from './cluster-space.ts'
import { ClusterUsage, type NodeUsage, usageOf } from './cluster-usage.ts'
import { CopyCleaner } from './copy-cleaner.ts'
import { ExportAdmission } from './export-admission.ts'
import { FamilyObjects } from './family-objects.ts'
import { GroupSnapshot } from './group-snapshot.ts'
import { HeldVdis } from './held-vdis.ts'
import { LoggedAttributes } from './logged-attributes.ts'
import { answerWith, type NodeAnswers, type Params, type QuestionName, type Told, toldOf } from './node-questions.ts'
import { OwnedFamily } from './owned-family.ts'
import { Ownership } from './ownership.ts'
import { Places } from './places.ts'
import { Recovery, type RecoveryProgress, togetherOf } from './recovery.ts'
import { ReplicatedBytes } from './replicated-bytes.ts'
import { VdiCopies } from './vdi-copies.ts'

export interface ClusteredOptions
  extends Pick<
    ClusterMemberOptions,
    'disk' | 'self' | 'cluster' | 'rebalanceDelayMs' | 'join' | 'network' | 'handle' | 'clientClosed' | 'failed'
  > {
  /** So many copies at least have what is acknowledged, if a VDI has as many. */
  copiesMin: number
  /** Of VDIs that are about to be made. */
  copies: number
  /** How fast this node makes copies, when nobody says anything else. */
  recoveryBytesPerSecond: number
}

/** How long another node may take to say what its VDIs take. */
const PATIENCE_MS = 1000
/** An entry of the log has so much room. */
const KEPT_USAGES_MAX = 2000
/** Of one node there are told so many. */
const PROBLEMS_MAX = 100
/** From one attempt to join the group again to the next. */
const REJOIN_MS = 1000
/** How long a family that nobody uses is kept: its next user may be at another node. */
const IDLE_MS = 5000

/**
 * What VDIs hold, on all nodes of a cluster. A node does what has to do with a family of VDIs while it owns that family; whoever calls
 * has seen to that, and else meets OldEpoch.
 */
export class ClusteredVdiStore implements VdiStore {
  readonly owners: OwnerMaker
  readonly objects: ReplicatedBytes
  readonly attributes: LoggedAttributes
  readonly admission: ExportAdmission
  readonly ownership: Ownership
  readonly recovery: Recovery
  readonly admin: ClusterAdmin
  readonly #parts: VdiStoreParts
  readonly #options: ClusteredOptions
  readonly #copies: EngineCopyStore
  readonly #holder: CopyHolder
  readonly #cleaner: CopyCleaner
  readonly #vdiCopies: VdiCopies
  readonly #places = new Places()
  readonly #families = new Map<number, OwnedFamily>()
  /** Families of which something was deleted, and that nobody has come to own since: to give back what there is. */
  readonly #deletedFrom = new Set<number>()
  readonly #held: HeldVdis
  readonly #groupSnapshot: GroupSnapshot
  readonly #space: ClusterSpace
  readonly #usage: ClusterUsage
  readonly #answers: NodeAnswers
  #member: ClusterMember | null = null
  #isOver = false

  constructor(parts: VdiStoreParts, options: ClusteredOptions) {
    this.#parts = parts
    this.#options = options
    const { state, store, sessions, clock, turns } = parts
    const propose = (entry: Entry) => this.propose(entry)
    const copies = new EngineCopyStore(store)
    this.#copies = copies
    this.#holder = new CopyHolder(copies)
    this.#vdiCopies = new VdiCopies(state)
    this.#cleaner = new CopyCleaner({
      state,
      store: copies,
      holder: this.#holder,
      places: this.#places,
      clock,
      node: options.self.node,
      copies: this.#vdiCopies,
      failed: options.failed,
    })
    this.recovery = new Recovery({
      clock,
      settings: () => state.recovery,
      bytesPerSecond: options.recoveryBytesPerSecond,
    })
    this.admin = new ClusterAdmin({ state, copies: this.#vdiCopies, member: () => this.member })
    this.ownership = new Ownership({ self: () => this.#member?.life ?? NOBODY, state, propose })
    this.owners = {
      ownerOf: (vid, sizeBytes) => this.#ownedOf(vid).vdis.ownerOf(vid, sizeBytes),
      mapOf: (vid) => this.#ownedOf(vid).vdis.mapOf(vid),
    }
    this.objects = new ReplicatedBytes({
      state,
      ownerOf: (vid) => this.owners.ownerOf(vid, state.get(vid).sizeBytes),
      mapOf: (vid) => this.#ownedOf(vid).vdis.mapOf(vid),
    })
    this.#held = new HeldVdis({
      ...parts,
      familyOf: (family) => this.#families.get(family),
      setAside: async (name, vid) => (await this.#setAside(name, vid)).vid,
      propose,
    })
    this.#groupSnapshot = new GroupSnapshot({
      ...parts,
      ownership: this.ownership,
      ask: (to, name, params) => this.ask(to, name, params),
      propose,
    })
    this.#space = new ClusterSpace({
      clock,
      copies: options.copies,
      members: () => state.members,
      ask: (to) => this.ask(to, 'node_space', {}),
    })
    this.#usage = new ClusterUsage({
      state,
      families: this.#families,
      others: () => this.#others(),
      ask: (to) => this.#ask<NodeUsage>(to, OP.USAGE_VDIS, []),
    })
    this.#answers = {
      ...this.#held.answers,
      node_space: () => this.#ownSpace(),
      audit_family: ({ family, repair }) =>
        this.#owned(family).audit({ repair, addressOf: (node) => this.#addressOf(node) }),
      mend_object: ({ family, oid, blocks }) =>
        this.#owned(family).mend(BigInt(`0x${oid}`), blocks, (node) => this.#addressOf(node)),
      audit_node: ({ repair }) => this.#auditOwn(repair),
      list_objects: async (params) => this.#ownedOf(params.vid).listObjects(params),
    }
    this.attributes = new LoggedAttributes({ state, clock, turns, propose })
    this.admission = new ExportAdmission({
      state,
      sessions,
      propose,
      gatewayOf: (holder) => this.member.gatewayOf(holder) ?? this.member.life,
      mayAct: () => this.member.mayAct(),
    })
  }

  get member(): ClusterMember {
    if (!this.#member) throw new StoreError('NoQuorum', 'the node is starting')
    return this.#member
  }

  /** False while this node starts, or has lost the group. */
  get hasJoined(): boolean {
    return this.#member !== null
  }

  /** A connection of another node, which has proved the key of the cluster. */
  linked(connection: Connection): void {
    if (this.#member) this.#member.linked(connection)
    else connection.destroy()
  }

  owns(family: number): boolean {
    return this.#families.has(family)
  }

  /** Resolves when this node has joined the group; it may take part later. */
  async start(): Promise<void> {
    await this.#join()
    this.#sweepLater()
  }

  async #join(): Promise<void> {
    const { store, state, clock, random, log } = this.#parts
    this.#member = await ClusterMember.open({
      ...this.#options,
      store,
      state,
      clock,
      random,
      log,
      holder: this.#holder,
      answer: (name, params) => answerWith(this.#answers, name, params),
      replacing: () => this.#cleaner.replacing(),
      applied: (entry) => this.#applied(entry),
      viewChanged: (view) => this.#viewChanged(view),
      lost: (reason) => void this.#rejoin(reason),
    })
  }

  /** The engine that tells who is there has come to its end: this node comes back as another member, when it can. */
  async #rejoin(reason: Error): Promise<void> {
    const { clock, log } = this.#parts
    log.warn({ err: reason }, 'the group of the cluster is lost; joining again')
    const member = this.#member
    this.#member = null
    this.#endLost()
    try {
      await member?.close()
    } catch (error) {
      return this.#options.failed(toStoreError(error))
    }
    while (!this.#isOver) {
      try {
        return await this.#join()
      } catch (err) {
        log.warn({ err }, 'the group of the cluster cannot be joined; trying again')
        await clock.sleep(REJOIN_MS)
      }
    }
  }

  async stop(): Promise<void> {
    this.#isOver = true
    this.ownership.stop()
    for (const owned of this.#families.values()) owned.end()
    this.#families.clear()
    await this.#member?.close()
  }

  /** What only the owner of a family may say is void once there is another one. */
  propose(entry: Entry): Promise<void> {
    const family = familyOfEntry(entry, this.#parts.state)
    const owned = family === null ? undefined : this.#families.get(family)
    return this.member.propose(owned ? { ...entry, by: owned.owner.index } : entry)
  }

  /**
   * Sets a vid aside, writes what the VDI holds, and proposes the entry that makes it: so a VDI that there is can be read. What it does not
   * come to is removed, here or by the next owner.
   */
  async make(name: string, fromVid: number | null, entryOf: (vid: number) => Entry): Promise<number> {
    const { vid, owned } = await this.#setAside(name, fromVid, entryOf)
    try {
      await owned.vdis.prepare(vid, fromVid)
      await this.propose(entryOf(vid))
      return vid
    } catch (error) {
      // Nobody knows whether it has been made, or is still going to be: who can tell abandons it.
      if (!(error instanceof StoreError) || UNSURE.has(error.code)) throw error
      await owned.vdis.abandon(vid)
      throw error
    }
  }

  snapshotTogether(of: readonly { name: string; tag: string }[]): Promise<void> {
    return this.#groupSnapshot.take(of)
  }

  /** Asks a node of the view, which may be this one. Rejects with what it refuses; with Disconnected when there is no answer. */
  async ask<N extends QuestionName>(to: Life, name: N, params: Params<N>): Promise<Told<N>> {
    const told = this.ownership.isSelf(to)
      ? await answerWith(this.#answers, name, params)
      : await this.member.ask(to, name, params)
    return toldOf(name, told)
  }

  async #setAside(
    name: string,
    fromVid: number | null,
    entryOf?: (vid: number) => Entry,
  ): Promise<{ vid: number; owned: OwnedFamily }> {
    const { state } = this.#parts
    for (;;) {
      const vid = state.freeVid(name)
      const family = fromVid === null ? vid : state.get(fromVid).family
      if (fromVid === null) await this.ownership.claim(family)
      const owned = this.#families.get(family)
      if (!owned && fromVid !== null) throw new StoreError('OldEpoch')
      if (!owned) {
        await this.ownership.changed // another node makes a VDI under this vid
        continue
      }
      await owned.takenOver
      try {
        const entry = entryOf?.(vid)
        const { copies, copiesMin } = entry?.type === 'vdi' ? entry.vdi : state.get(fromVid ?? vid)
        const making = { vid, family, copies, ...(copiesMin !== undefined && { copiesMin }) }
        await this.propose({ type: 'making', making })
        return { vid, owned }
      } catch (error) {
        const isTaken = error instanceof StoreError && error.code === 'VdiExists'
        if (!isTaken) throw error
      }
    }
  }

  async alterCopies(vid: number, wanted: CopiesWanted): Promise<void> {
    const { copies, copiesMin = copies } = this.#parts.state.get(vid)
    if (wanted.copies === copies && (wanted.copiesMin ?? copiesMin) === copiesMin) return
    await this.member.orders.alterCopies({ vid, ...wanted })
  }

  reclaim(family: number): void {
    this.#families.get(family)?.reclaim()
  }

  async reclaimed(): Promise<void> {
    await Promise.all([...this.#families.values()].map((owned) => owned.reclaimed()))
  }

  async flush(): Promise<void> {
    await Promise.all([...this.#families.values()].map((owned) => owned.flush()))
  }

  ownUsage(): NodeUsage {
    return this.#usage.own()
  }

  ownRecovery(): RecoveryProgress {
    return this.recovery.progress
  }

  usage(): Promise<Map<number, Usage>> {
    return this.#usage.get()
  }

  /** All objects that this node has copies of. */
  objectsHere(): readonly bigint[] {
    return [...this.#copies.objects()].filter((oid) => this.#copies.stateOf(oid)?.kind !== 'removed')
  }

  /** The families in which something may not be where it belongs, as far as this node knows: by the log, as owner, or as holder. */
  #uncleanFamilies(): ReadonlySet<number> {
    const { state } = this.#parts
    const unclean = new Set(state.families.uncleanBefore(state.epoch))
    for (const [family, owned] of this.#families) if (!owned.isComplete) unclean.add(family)
    for (const oid of this.#copies.lacking()) {
      const vdi = state.vdis.get(oidVid(oid))
      if (vdi) unclean.add(vdi.family)
    }
    return unclean
  }

  /** How this node stands in the cluster. */
  status(): { self: Life; isActing: boolean; unclean: number } {
    return {
      self: this.#member?.life ?? NOBODY,
      isActing: this.#member?.mayAct() ?? false,
      unclean: this.#uncleanFamilies().size,
    }
  }

  /** What all nodes that answer have to copy, and how far they are. */
  async recoveryProgress(): Promise<RecoveryProgress> {
    const others = this.#others().map((member) =>
      this.#ask<RecoveryProgress | null>(member, OP.RECOVERY_PROGRESS, null),
    )
    return togetherOf([this.recovery.progress, ...(await Promise.all(others)).filter((progress) => progress !== null)])
  }

  #others(): Member[] {
    return this.#member?.view.members.filter((member) => !this.ownership.isSelf(member)) ?? []
  }

  /** What another node answers in JSON; `absent` when it does not, or not in time. */
  async #ask<T>(member: Member, opcode: number, absent: T): Promise<T> {
    const asked = new Promise<T>((resolve) => {
      this.member
        .sheepOf(member, 0)
        .submit({ opcode, dataLength: BODY_SIZE_MAX_BYTES }, ({ result, body }) =>
          resolve(result === RESULT.SUCCESS && body ? (JSON.parse(body.toString()) as T) : absent),
        )
    })
    return Promise.race([asked, this.#parts.clock.sleep(PATIENCE_MS).then(() => absent)])
  }

  space(): Promise<StoreSpace> {
    return this.#space.get()
  }

  async #ownSpace(): Promise<Told<'node_space'>> {
    const { totalBytes, freeBytes, failedDisks } = await this.#parts.store.stats()
    return { totalBytes, freeBytes, failedDisks, allocatedBytes: this.allocatedBytes }
  }

  /** Of the families that this node owns, and of those that nobody does and that fall to it. */
  get allocatedBytes(): number {
    const { state } = this.#parts
    let bytes = 0
    for (const family of state.vdis.families()) {
      const owned = this.#families.get(family)
      if (!owned && (this.ownership.ownerOf(family) || !this.#fallsHere(family))) continue
      const of = owned ? usageOf(owned) : state.families.usageOf(family)
      // What is shared is counted with the one that shares most.
      bytes += of.reduce((sum, [, , unique]) => sum + unique, 0) + Math.max(0, ...of.map(([, , , shared]) => shared))
    }
    return bytes
  }

  async listObjects(vid: number, range: ListRange): Promise<ListedObject[]> {
    const owner = await this.ownership.claim(this.#parts.state.get(vid).family)
    const listed = await this.ask(owner, 'list_objects', { vid, ...range })
    return listed.map(({ nodes, ...object }) => {
      return { ...object, oid: dataOid(object.vid, object.index), nodes: nodes.map((node) => this.#addressOf(node)) }
    })
  }

  audit(options: VdiAuditOptions): Promise<AuditReport> {
    return auditCluster(this.#auditing, options)
  }

  mend(oid: bigint, blocks: readonly number[] | null): Promise<readonly Damage[]> {
    return mendObject(this.#auditing, oid, blocks)
  }

  get #auditing(): ClusterAuditOptions {
    const { state, clock } = this.#parts
    return { state, clock, ownership: this.ownership, ask: (to, name, params) => this.ask(to, name, params) }
  }

  #addressOf(node: string): string {
    return this.#parts.state.members.find((member) => member.node === node)?.address ?? node
  }

  /** Copies that this node has of VDIs that there are not, nor are about to be. */
  async #auditOwn(repair: boolean): Promise<Told<'audit_node'>> {
    const { state } = this.#parts
    const isOrphan = (oid: bigint) =>
      oidKind(oid) !== 'attr' && !state.vdis.has(oidVid(oid)) && !state.makings.has(oidVid(oid))
    const orphans = this.objectsHere().filter(isOrphan)
    const isRepaired = repair && orphans.length > 0 && (await this.#holder.drop((oid) => !isOrphan(oid)))
    const problems = orphans.slice(0, PROBLEMS_MAX).map((oid) => {
      const detail = `${formatOid(oid)} on ${this.#addressOf(this.member.life.node)} belongs to no VDI`
      return { kind: 'orphan_object' as const, detail, where: null, isRepaired }
    })
    return { objects: 0, blocks: 0, busy: 0, problems, problemsTotal: orphans.length }
  }

  #ownedOf(vid: number): OwnedFamily {
    const vdi = this.#parts.state.vdis.get(vid)
    if (!vdi) throw new StoreError('NoVdi', vid.toString(16))
    return this.#owned(vdi.family)
  }

  #owned(family: number): OwnedFamily {
    const owned = this.#families.get(family)
    if (!owned) throw new StoreError('OldEpoch', 'another node owns the VDI')
    return owned
  }

  #applied(entry: Entry): void {
    const { applied } = this.#parts
    if (entry.type === 'state' || entry.type === 'view' || entry.type === 'disown') this.#endLost()
    applied(entry)
    this.#held.applied(entry)
    this.#tellFamilies(entry)
    if (entry.type === 'delete') this.#deletedFrom.add(this.#parts.state.vdis.get(entry.vid)!.family)
    if (entry.type === 'owner') {
      this.#deletedFrom.delete(entry.family)
      const owner = this.ownership.ownOf(entry.family)
      if (owner) this.#begin(owner)
    }
    if (entry.type === 'recovery' || entry.type === 'state') this.recovery.changed()
    this.#cleaner.applied(entry)
    this.ownership.tell(entry)
  }

  #tellFamilies(entry: Entry): void {
    if (entry.type === 'snapshots') {
      for (const snapshot of snapshotsIn(entry)) this.#tellFamilies(snapshot)
      return
    }
    const family = familyOfEntry(entry, this.#parts.state)
    if (family !== null) this.#families.get(family)?.applied(entry)
    // The VDI is gone, and nothing says any more whose it was.
    else if (entry.type === 'reclaimed') for (const owned of this.#families.values()) owned.applied(entry)
    else if (entry.type === 'recovery') for (const owned of this.#families.values()) owned.applied(entry)
    else if (entry.type === 'clean') for (const [of] of entry.families) this.#families.get(of)?.applied(entry)
  }

  #viewChanged(_view: View): void {
    for (const owned of this.#families.values()) owned.viewsChanged(this.#parts.state.viewsOf(owned.owner.family))
  }

  #begin(owner: FamilyOwner): void {
    const { state, clock, log } = this.#parts
    const { recovery } = this
    const { family, index, incarnation } = owner
    const objects = new FamilyObjects({
      sequencerFor: (vid) =>
        new CopySequencer({
          vid,
          index,
          incarnation,
          clock,
          views: state.viewsOf(family),
          targetsOf: (oid, view) => this.#places.targetsOf(oid, this.#vdiCopies.in(vid, view), view),
          copiesMinIn: (view) => this.#vdiCopies.in(vid, view).copiesMin,
          ask: (to, request) => this.member.askCopy(to, request),
          mayAct: () => this.member.mayAct(),
          suspect: (member) => this.member.suspect(member),
        }),
      confirm: async () => {
        if (!this.member.mayAct()) throw new StoreError('Unsure')
      },
    })
    const propose = (entry: Entry) => this.propose(entry)
    this.#families.set(family, new OwnedFamily({ owner, objects, state, clock, log, propose, recovery }))
    this.#parts.gained(family)
  }

  #endLost(): void {
    for (const [family, owned] of this.#families) {
      if (this.#member && this.ownership.ownOf(family)?.index === owned.owner.index) continue
      this.#families.delete(family)
      owned.end()
      this.#parts.lost(family)
      this.#held.lost(owned)
    }
  }

  // What nobody uses here

  #sweepLater(): void {
    this.#parts.clock.timer(IDLE_MS, () => {
      if (this.#isOver) return
      for (const owned of this.#families.values()) this.#letGoIfIdle(owned)
      this.#letGoAgain()
      this.#adoptOrphans()
      this.#sweepLater()
    })
  }

  #letGoIfIdle(owned: OwnedFamily): void {
    const { state, sessions, turns, log } = this.#parts
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
        this.#parts.lost(family)
        await this.ownership.letGo(owned.owner, usage)
      })
      .catch((err) => log.debug({ err, family }, 'a family could not be let go'))
  }

  /** What the log was to be told, and perhaps was not. */
  #letGoAgain(): void {
    const { state, log, turns } = this.#parts
    for (const owner of state.families.owners()) {
      if (!this.ownership.ownOf(owner.family) || this.#families.has(owner.family) || turns.isTaken(owner.family))
        continue
      this.ownership.letGo(owner, []).catch((err) => log.debug({ err }, 'a family could not be let go'))
    }
  }

  /** Somebody has to bring home, or give back, what nobody owns; each node does so for those that fall to it. */
  #adoptOrphans(): void {
    const { state, log } = this.#parts
    if (!this.#member?.mayAct()) return
    for (const family of this.#deletedFrom)
      if (state.vdis.ofFamily(family).length === 0) this.#deletedFrom.delete(family)
    for (const family of new Set([...state.families.uncleanBefore(state.epoch), ...this.#deletedFrom])) {
      if (this.ownership.ownerOf(family) || !this.#fallsHere(family)) continue
      this.ownership.claim(family).catch((err) => log.debug({ err, family }, 'a family could not be taken over'))
    }
  }

  #fallsHere(family: number): boolean {
    const members = this.member.view.members.filter(({ vnodes }) => vnodes > 0)
    return members[family % Math.max(1, members.length)]?.node === this.member.life.node
  }
}

/** What a node is that has not joined the group. */
const NOBODY: Life = { node: '', incarnation: '' }

const UNSURE: ReadonlySet<StoreErrorCode> = new Set<StoreErrorCode>(['Unsure', 'OldEpoch', 'NoQuorum', 'Stopping'])

/** The family that an entry is about, when it is about one. */
function familyOfEntry(entry: Entry, state: ClusterState): number | null {
  switch (entry.type) {
    case 'vdi':
      return entry.vdi.family
    case 'making':
      return entry.making.family
    case 'unmade':
      return state.makings.get(entry.vid)?.family ?? null
    case 'snapshot':
    case 'resize':
    case 'delete':
    case 'reclaimed':
    case 'rollback':
    case 'header':
    case 'vmstate':
    case 'attribute':
    case 'unattribute':
    case 'retag':
      return state.vdis.get(entry.vid)?.family ?? null
    case 'export':
      return state.vdis.get(entry.right.vid)?.family ?? null
    case 'gateway':
    case 'limits':
    case 'unexport':
      return state.vdis.get(state.exports.get(entry.attachmentId)?.vid ?? 0)?.family ?? null
    case 'lock':
      return state.vdis.of(entry.lock.name)[0]?.family ?? null
    case 'unlock':
    case 'rename':
      return state.vdis.of(entry.name)[0]?.family ?? null
    default:
      return null
  }
}
