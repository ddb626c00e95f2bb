import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { Random } from '../runtime/random.ts'
import type { Attribute } from './attributes.ts'
import type { StoreDone } from './change.ts'
import type { ClusterState } from './cluster-state.ts'
import type { FoundingSurvey } from './clustered/founding-survey.ts'
import type { Entry } from './entries.ts'
import type { ClientPlaces } from './locks.ts'
import type { AuditProgress, AuditReport } from './maintenance/audit.ts'
import type { Usage } from './maintenance/usage.ts'
import type { Damage } from './maintenance/verify.ts'
import type { ListedObject } from './object-listing.ts'
import type { ObjectStore } from './object-store.ts'
import type { Owner, OwnerMaker, VdiMap } from './owner-contract.ts'
import type { Session, Sessions } from './session.ts'
import type { Turns } from './turns.ts'

/**
 * Where what VDIs hold is kept, and how it is agreed on what there is: on this node alone, or on all nodes of a cluster. Operations on
 * VDIs are the same on top of either.
 */
export interface VdiStore {
  readonly owners: OwnerMaker
  readonly objects: ObjectBytes
  readonly attributes: AttributeValues
  /** Opens sessions under export rights, where that takes more than looking at the right. */
  readonly admission?: { open(nameHash: string, holder: object | null, resumed: number | null): Promise<Session> }
  /** Of several nodes: where their clients are. */
  readonly lockHolders?: ClientPlaces
  /** To be called once, when the state is what the disk has: resolves when this node can take part. */
  start(): Promise<void>
  /** Ends what goes on in the background, and proposals. */
  stop(): Promise<void>
  /** Resolves when the entry has taken effect here; rejects with why it was refused. */
  propose(entry: Entry): Promise<void>
  /**
   * As `propose`, for an entry that makes a VDI of that name, under a free vid which is returned: one that holds what the frozen
   * `fromVid` holds, or the first of a family when that is null.
   */
  make(name: string, fromVid: number | null, entryOf: (vid: number) => Entry): Promise<number>
  /** Snapshots of several VDIs at one moment: see Sheep. */
  snapshotTogether(of: readonly { name: string; tag: string }[]): Promise<void>
  /**
   * A VDI and its snapshots are to have another number of copies. Resolves when that holds for what is written from now on; copies of
   * what there is are made, or go, in the background. There on a store of several nodes only.
   */
  alterCopies?(vid: number, wanted: CopiesWanted): Promise<void>
  /** As the entry `vmstate`, where objects of machine state have to be there before the log says so. In its turn of the family. */
  growVmstate?(vid: number, objects: number): Promise<void>
  /** Gives back what the deleted VDIs of a family hold and nobody needs, in the background. */
  reclaim(family: number): void
  /** Resolves when no deleted VDI is being reclaimed. */
  reclaimed(): Promise<void>
  /** Durable: everything that was acknowledged. */
  flush(): Promise<void>
  /** What each VDI and snapshot takes, by vid; without a scan. */
  usage(): Promise<Map<number, Usage>>
  /** Of several nodes: what this one knows itself, for the others. */
  ownUsage?(): readonly (readonly [vid: number, usage: Usage])[]
  /** Of several nodes: what this one has to copy, as JSON has it. */
  ownRecovery?(): object
  /** Of the blocks that hold data, each counted once; of several nodes what falls to this one. */
  readonly allocatedBytes: number
  space(): Promise<StoreSpace>
  listObjects(vid: number, range: ListRange, mapOf: () => VdiMap): Promise<ListedObject[]>
  audit(options: VdiAuditOptions): Promise<AuditReport>
  /** Of one node: what would have to change, or is in the way, for it to become the first of several. */
  surveyForFounding?(): Promise<FoundingSurvey>
  /**
   * Of several nodes: some blocks of an object, or all of it, cannot be read on this one. They are put right from other copies. Resolves
   * with where users see what no copy has; rejects when it cannot be done now.
   */
  mend?(oid: bigint, blocks: readonly number[] | null): Promise<readonly Damage[]>
}

/** Up to `count` objects with an index from `from` on and below `limit`. */
export interface ListRange {
  from: number
  limit: number
  count: number
}

export interface CopiesWanted {
  copies: number
  /** So many at least have what is acknowledged; when absent, as many as before. */
  copiesMin?: number
}

export interface VdiAuditOptions {
  /** The map of a VDI as its owner has it, so that nothing changes it unseen. */
  ownedMapOf(vid: number): VdiMap
  repair: boolean
  progress(progress: AuditProgress): void
}

/** What a store for VDIs is made of. */
export interface VdiStoreParts {
  store: ObjectStore
  state: ClusterState
  sessions: Sessions
  /** What is done to one family as a whole takes turns. */
  turns: Turns<number>
  /** The owners of VDIs as sessions use them; and one is not needed any more, unless there are sessions. */
  owners: { of(vid: number): Owner; forget(vid: number): void }
  clock: Clock
  random: Random
  log: Log
  /** An entry has taken effect: to be told in the same turn. */
  applied(entry: Entry): void
  /** From now on, or no longer, everything that is done to a family is done here. Never told of a store with one node. */
  gained(family: number): void
  lost(family: number): void
}

/** Objects as bytes at any alignment. Writing is only for those that no owner and no map knows, such as machine state. */
export interface ObjectBytes {
  exists(oid: bigint): boolean
  /** NoObject when there is none. `done` may be called before this returns. */
  read(oid: bigint, offset: number, target: Buffer, done: StoreDone): void
  /** As `read`, for callers that may wait. */
  readAll(oid: bigint, offset: number, target: Buffer): Promise<void>
  /**
   * Writes bytes; with `create` the rest of the object reads as zeros from now on, else NoObject when there is none. `check` is
   * called in the moment of the change and throws to refuse it.
   */
  write(oid: bigint, offset: number, bytes: Buffer, options: ObjectWriteOptions): Promise<void>
}

export interface ObjectWriteOptions {
  create: boolean
  durable: boolean
  check: () => void
}

/** How much there is room for: on this node, or in a cluster. */
export interface StoreSpace {
  /** What VDIs may hold that have as many copies as they get by themselves, each byte with all of these: at all, and yet. */
  totalBytes: number
  freeBytes: number
  /** What the working VDIs promise, in such bytes: one of a VDI with more copies counts for more. */
  provisionedBytes: number
  /** In how many such bytes one counts of a VDI with 1, 2, … copies: so many may a VDI have as there are zones with data. */
  sizeFactors: readonly number[]
  /** Of the blocks that hold data, each counted once, however many VDIs see it and however many copies there are. */
  allocatedBytes: number
  nodes: readonly NodeSpace[]
}

/** The room of a node: bytes of its disks. */
export interface NodeSpace {
  node: string
  address: string
  zone: number
  vnodes: number
  /** False for one of which only is known what it said before, or nothing at all. */
  isAnswering: boolean
  totalBytes: number
  freeBytes: number
  failedDisks: number
}

/** A VDI as clients name it: the working one, or with a tag or an id a snapshot. */
export interface VdiName {
  name: string
  tag: string
  snapId: number
}

/** The attributes of VDIs: names in the ordered log, values elsewhere. Methods throw NoVdi and NoTag for no VDI. */
export interface AttributeValues {
  /** Durably. Throws VdiExists when `exclusive` and there is one of that name already. */
  set(which: VdiName, key: string, value: Buffer, exclusive: boolean): Promise<Attribute>
  /** Throws NoObject. */
  get(which: VdiName, key: string): Attribute
  /** Throws NoObject. */
  remove(which: VdiName, key: string): Promise<Attribute>
  read(attribute: Attribute): Promise<Buffer>
}
