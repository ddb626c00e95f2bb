import { StoreError, type StoreErrorCode, toStoreError } from '../../errors.ts'
import { BODY_SIZE_MAX_BYTES, RESULT } from '../../protocol/constants.ts'
import { dataOid, formatOid, oidKind, oidVid } from '../../protocol/oid.ts'
import { OP } from '../../protocol/opcodes.ts'
import type { Connection } from '../../runtime/network.ts'
import { within } from '../../runtime/within.ts'
import { CopyHolder } from '../copies/copy-holder.ts'
import { EngineCopyStore } from '../copies/engine-copy-store.ts'
import type { Entry } from '../entries.ts'
import type { AuditReport } from '../maintenance/audit.ts'
import type { Usage } from '../maintenance/usage.ts'
import type { Damage } from '../maintenance/verify.ts'
import type { Life, Member } from '../membership/view.ts'
import type { ListedObject } from '../object-listing.ts'
import type { OwnerMaker } from '../owner-contract.ts'
import type { CopiesWanted, ListRange, StoreSpace, VdiAuditOptions, VdiStore, VdiStoreParts } from '../vdi-store.ts'
import { CatchUp } from './catch-up.ts'
import { ClusterAdmin } from './cluster-admin.ts'
import { auditCluster, type ClusterAuditOptions, mendObject } from './cluster-audit.ts'
import { ClusterMember, type ClusterMemberOptions } from './cluster-member.ts'
import { refuseOwnVdis } from './cluster-of-store.ts'
import { ClusterSpace } from './cluster-space.ts'
import { ClusterUsage, type NodeUsage, usageOf } from './cluster-usage.ts'
import { CopyCleaner } from './copy-cleaner.ts'
import { ExportAdmission } from './export-admission.ts'
import { familyOfEntry } from './family-of-entry.ts'
import { GroupSnapshot } from './group-snapshot.ts'
import { HeldVdis } from './held-vdis.ts'
import { LockHolders } from './lock-holders.ts'
import { LoggedAttributes } from './logged-attributes.ts'
import { answerWith, type NodeAnswers, type Params, type QuestionName, type Told, toldOf } from './node-questions.ts'
import { OwnedFamilies } from './owned-families.ts'
import type { OwnedFamily } from './owned-family.ts'
import { Ownership } from './ownership.ts'
import { Places } from './places.ts'
import { Recovery } from './recovery.ts'
import { type RecoveryProgress, togetherOf } from './recovery-progress.ts'
import { ReplicatedBytes } from './replicated-bytes.ts'
import { RETRY_MS, SURE_WITHIN_MS, trySurely } from './try-surely.ts'
import { changesTo, VdiCopies } from './vdi-copies.ts'

export interface ClusteredOptions
  extends Pick<
    ClusterMemberOptions,
    | 'disk'
    | 'self'
    | 'cluster'
    | 'rebalanceDelayMs'
    | 'join'
    | 'network'
    | 'handle'
    | 'isRepeatable'
    | 'clientClosed'
    | 'failed'
  > {
  /** So many copies at least have what is acknowledged, if a VDI has as many. */
  copiesMin: number
  /** Of VDIs that are about to be made. */
  copies: number
  /** The whole cluster is to stop. */
  stopAsked(): void
  /** How fast this node makes copies, when nobody says anything else. */
  recoveryBytesPerSecond: number
}

/** How long another node may take to say what its VDIs take. */
const PATIENCE_MS = 1000
/** Of one node there are told so many. */
const PROBLEMS_MAX = 100
/** An answer has left by then. */
const STOP_AFTER_MS = 100
/** From one attempt to join the group again to the next. */
const REJOIN_MS = 1000

/**
 * What VDIs hold, on all nodes of a cluster. A node does what has to do with a family of VDIs while it owns that family; whoever calls
 * has seen to that, and else meets OldEpoch.
 */
export class ClusteredVdiStore implements VdiStore {
  readonly owners: OwnerMaker
  readonly objects: ReplicatedBytes
  readonly attributes: LoggedAttributes
  readonly admission: ExportAdmission
  readonly lockHolders: LockHolders
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
  readonly #families: OwnedFamilies
  readonly #held: HeldVdis
  readonly #groupSnapshot: GroupSnapshot
  readonly #space: ClusterSpace
  readonly #usage: ClusterUsage
  readonly #answers: NodeAnswers
  readonly #catchUp: CatchUp
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
      catchUp: () => this.catchUp(),
      failed: options.failed,
    })
    this.recovery = new Recovery({
      clock,
      settings: () => state.recovery,
      bytesPerSecond: options.recoveryBytesPerSecond,
    })
    this.admin = new ClusterAdmin({ state, copies: this.#vdiCopies, member: () => this.member })
    this.ownership = new Ownership({ self: () => this.#member?.life ?? NOBODY, state, propose, clock })
    this.#families = new OwnedFamilies({
      ...parts,
      ownership: this.ownership,
      recovery: this.recovery,
      places: this.#places,
      copies: this.#vdiCopies,
      member: () => this.#member,
      propose,
      lost: (owned) => {
        parts.lost(owned.owner.family)
        this.#held.lost(owned)
      },
    })
    this.owners = {
      ownerOf: (vid, sizeBytes) => this.#families.of(vid).vdis.ownerOf(vid, sizeBytes),
      mapOf: (vid) => this.#families.of(vid).vdis.mapOf(vid),
    }
    this.objects = new ReplicatedBytes({
      state,
      ownerOf: (vid) => this.owners.ownerOf(vid, state.get(vid).sizeBytes),
      mapOf: (vid) => this.#families.of(vid).vdis.mapOf(vid),
      machineStateOf: (vid) => this.#families.of(vid).vdis.machineState,
      turns,
    })
    this.#held = new HeldVdis({
      ...parts,
      familyOf: (family) => this.#families.find(family),
      resign: (owned) => this.#families.resign(owned),
      setAside: async (name, fromVid) => {
        const { vid, owned } = await this.#setAside(name, fromVid)
        owned.release()
        return vid
      },
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
      away: () => state.view.away ?? [],
      promised: () => state.vdis.provisionedByCopies,
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
      log_index: async () => ({ index: state.index }),
      stop: async () => {
        clock.timer(STOP_AFTER_MS, options.stopAsked)
        return {}
      },
      audit_family: ({ family, repair }) =>
        this.#families.get(family).audit({ repair, addressOf: (node) => this.#addressOf(node) }),
      mend_object: ({ family, oid, blocks }) =>
        this.#families.get(family).mend(BigInt(`0x${oid}`), blocks, (node) => this.#addressOf(node)),
      audit_node: ({ repair }) => this.#auditOwn(repair),
      has_holder: async ({ name }) => ({ isThere: this.lockHolders.hasHolderOf(name) }),
      list_objects: async (params) => this.#families.of(params.vid).listObjects(params),
    }
    this.#catchUp = new CatchUp({
      state,
      clock,
      isSelf: (life) => this.ownership.isSelf(life),
      indexOf: async (life) => (await this.ask(life, 'log_index', {})).index,
    })
    this.attributes = new LoggedAttributes({ state, clock, turns, propose })
    this.lockHolders = new LockHolders({
      state,
      address: options.self.address,
      gatewayOf: (client) => this.#member?.gatewayOf(client) ?? null,
      ask: async (to, name) => (await this.ask(to, 'has_holder', { name })).isThere,
    })
    this.admission = new ExportAdmission({
      state,
      sessions,
      propose,
      gatewayOf: (holder) => this.member.gatewayOf(holder) ?? this.member.life,
      mayAct: () => this.member.mayAct(),
      ownedBy: (vid) => this.#families.find(state.get(vid).family)?.owner.index ?? null,
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
    return this.#families.find(family) !== undefined
  }

  /** Resolves when this node has joined the group; it may take part later. */
  async start(): Promise<void> {
    await refuseOwnVdis(this.#options.disk, this.#parts.state)
    await this.#join()
    this.#families.start()
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
      whenKnown: (index) => this.#catchUp.until(index),
      answer: (name, params) => answerWith(this.#answers, name, params),
      replacing: () => this.#cleaner.replacing(),
      applied: (entry) => this.#applied(entry),
      viewChanged: () => this.#families.viewChanged(),
      lost: (reason) => void this.#rejoin(reason),
    })
  }

  /** The engine that tells who is there has come to its end: this node comes back as another member, when it can. */
  async #rejoin(reason: Error): Promise<void> {
    const { clock, log } = this.#parts
    log.warn({ err: reason }, 'the group of the cluster is lost; joining again')
    const member = this.#member
    this.#member = null
    this.#families.endLost()
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
    this.#families.stop()
    this.#cleaner.stop()
    await this.#member?.close()
  }

  /** What only the owner of a family may say is void once there is another one, and refused by who is none: with OldEpoch. */
  async propose(entry: Entry): Promise<void> {
    const family = familyOfEntry(entry, this.#parts.state)
    if (family === null || entry.by !== undefined) return this.member.propose(entry)
    return this.member.propose({ ...entry, by: this.#families.get(family).owner.index })
  }

  /**
   * Sets a vid aside, writes what the VDI holds, and proposes the entry that makes it: so a VDI that there is can be read. What it does not
   * come to is removed, here or by the next owner.
   */
  async make(name: string, fromVid: number | null, entryOf: (vid: number) => Entry): Promise<number> {
    const { vid, owned } = await this.#setAside(name, fromVid, entryOf)
    try {
      const entry = entryOf(vid)
      await this.#surely(() => owned.vdis.prepare(vid, fromVid))
      await this.#surely(
        () => this.propose(entry),
        () => this.#isMade(vid, entry, owned),
      )
      return vid
    } catch (error) {
      // Nobody knows whether it has been made, or is still going to be: who can tell abandons it.
      if (!(error instanceof StoreError) || UNSURE.has(error.code)) this.#families.resign(owned)
      else await owned.vdis.abandon(vid).catch(() => this.#families.resign(owned))
      throw error
    } finally {
      owned.release()
    }
  }

  /** Also when it was deleted since: what a vid was set aside for is over once it is so no more, unless another owner has ended it. */
  #isMade(vid: number, entry: Entry, owned: OwnedFamily): boolean {
    const { vdis, makings } = this.#parts.state
    if (entry.type === 'vdi' && vdis.get(vid)?.createdAt === entry.vdi.createdAt) return true
    return !makings.has(vid) && this.#families.find(owned.owner.family) === owned
  }

  #surely(work: () => Promise<void>, isDone = () => false): Promise<void> {
    return trySurely(work, { clock: this.#parts.clock, isDone, changed: () => this.ownership.changed })
  }

  /** Resolves when this node knows what any other one has answered by now; see CatchUp. */
  catchUp(): Promise<boolean> {
    return this.#catchUp.now()
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

  /** The family is held when it resolves. */
  async #setAside(
    name: string,
    fromVid: number | null,
    entryOf?: (vid: number) => Entry,
  ): Promise<{ vid: number; owned: OwnedFamily }> {
    const { state, clock } = this.#parts
    const untilMs = clock.monotonicMs() + SURE_WITHIN_MS
    for (;;) {
      const vid = state.freeVid(name)
      const family = fromVid === null ? vid : state.get(fromVid).family
      if (fromVid === null) await this.ownership.claim(family)
      const owned = this.#families.find(family)
      if (!owned && fromVid !== null) throw new StoreError('OldEpoch')
      if (!owned) {
        await this.ownership.changed // another node makes a VDI under this vid
        continue
      }
      owned.hold()
      try {
        await owned.takenOver
        const entry = entryOf?.(vid)
        const { copies, copiesMin } = entry?.type === 'vdi' ? entry.vdi : state.get(fromVid ?? vid)
        const making = { vid, family, copies, ...(copiesMin !== undefined && { copiesMin }) }
        await this.propose({ type: 'making', making })
        return { vid, owned }
      } catch (error) {
        owned.release()
        if (error instanceof StoreError && UNSURE.has(error.code)) this.#families.resign(owned)
        const isTaken = error instanceof StoreError && error.code === 'VdiExists'
        const isUnsure = error instanceof StoreError && error.code === 'Unsure'
        if (isUnsure && clock.monotonicMs() < untilMs) {
          // It may be set aside for nothing: then whoever comes to own the family frees it.
          await Promise.race([this.ownership.changed, clock.sleep(RETRY_MS)])
        } else if (!isTaken) throw error
      }
    }
  }

  async alterCopies(vid: number, wanted: CopiesWanted): Promise<void> {
    const { orders } = this.member
    await Promise.all(changesTo(this.#parts.state, vid, wanted).map((change) => orders.alterCopies(change)))
  }

  async growVmstate(vid: number, objects: number): Promise<void> {
    const owned = this.#families.of(vid)
    await owned.takenOver
    const isGrown = () => (this.#parts.state.vdis.get(vid)?.vmstateObjects ?? 0) >= objects
    const propose = () => this.#surely(() => this.propose({ type: 'vmstate', vid, objects }), isGrown)
    try {
      await owned.vdis.machineState.grow(vid, objects, propose)
    } catch (error) {
      // The log may come to have these yet: the next owner can tell, and removes them or not.
      if (!(error instanceof StoreError) || UNSURE.has(error.code)) this.#families.resign(owned)
      throw error
    }
  }

  reclaim(family: number): void {
    this.#families.find(family)?.reclaim()
  }

  async reclaimed(): Promise<void> {
    await Promise.all([...this.#families].map((owned) => owned.reclaimed()))
  }

  async flush(): Promise<void> {
    await Promise.all([...this.#families].map((owned) => owned.flush()))
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
    for (const { owner, isComplete } of this.#families) if (!isComplete) unclean.add(owner.family)
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
    return within(this.#parts.clock, PATIENCE_MS, asked, () => absent)
  }

  /** The whole cluster is to stop, and this node last. Resolves with the addresses of those that did not answer. */
  async stopOthers(): Promise<readonly string[]> {
    const told = await Promise.all(
      this.#others().map(async (member) => {
        const asked = this.ask(member, 'stop', {}).then(() => null)
        const silent = () => member.address
        return within(this.#parts.clock, PATIENCE_MS, asked, silent).catch(silent)
      }),
    )
    return told.filter((address) => address !== null)
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
      const owned = this.#families.find(family)
      if (!owned && (this.ownership.ownerOf(family) || !this.#families.fallsHere(family))) continue
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

  /**
   * False for a client of a node that is out of the view, or was: nobody can tell whether a lock is its host's, and over the links of its
   * next life may have come what was asked later.
   */
  knowsGatewayOf(client: object | null): boolean {
    const gateway = this.#member?.gatewayOf(client) ?? null
    return gateway === null || this.ownership.isIn(gateway)
  }

  #addressOf(node: string): string {
    return this.#parts.state.members.find((member) => member.node === node)?.address ?? node
  }

  /** Copies that this node has of VDIs that there are not, nor are about to be. */
  async #auditOwn(repair: boolean): Promise<Told<'audit_node'>> {
    const { state } = this.#parts
    const isOrphan = (oid: bigint) =>
      oidKind(oid) !== 'attr' && !state.vdis.has(oidVid(oid)) && !state.makings.has(oidVid(oid))
    const catchUp = () => this.catchUp()
    const seemOrphans = this.objectsHere().filter(isOrphan)
    if (seemOrphans.length > 0 && !(await catchUp()))
      throw new StoreError('Unsure', 'this node does not know what the others know')
    const orphans = seemOrphans.filter(isOrphan)
    const isRepaired = repair && orphans.length > 0 && (await this.#holder.drop((oid) => !isOrphan(oid), { catchUp }))
    const problems = orphans.slice(0, PROBLEMS_MAX).map((oid) => {
      const detail = `${formatOid(oid)} on ${this.#addressOf(this.member.life.node)} belongs to no VDI`
      return { kind: 'orphan_object' as const, detail, where: null, isRepaired }
    })
    return { objects: 0, blocks: 0, accounts: 0, busy: 0, problems, problemsTotal: orphans.length }
  }

  #applied(entry: Entry): void {
    const { applied } = this.#parts
    if (entry.type === 'state' || entry.type === 'view' || entry.type === 'disown') this.#families.endLost()
    applied(entry)
    this.lockHolders.applied(entry)
    this.#held.applied(entry)
    this.#families.applied(entry)
    if (entry.type === 'recovery' || entry.type === 'state') this.recovery.changed()
    this.#cleaner.applied(entry)
    this.ownership.tell(entry)
    this.#catchUp.applied()
  }
}

/** What a node is that has not joined the group. */
const NOBODY: Life = { node: '', incarnation: '' }

const UNSURE: ReadonlySet<StoreErrorCode> = new Set<StoreErrorCode>(['Unsure', 'OldEpoch', 'NoQuorum', 'Stopping'])
