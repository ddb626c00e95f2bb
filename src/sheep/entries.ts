import type { Attribute } from './attributes.ts'
import type { Life, Member, View } from './membership/view.ts'

/** What the ordered log tells of: its entries, and what they are about. All of it is kept as JSON, so that names stay. */

export interface Vdi {
  vid: number
  name: string
  /** Empty for a working VDI and for a snapshot without a tag. */
  tag: string
  /** Counts the snapshots of a name, from 1. */
  snapId: number
  parentVid: number
  /** The vid at the root of its snapshots and clones: objects are shared within a family only. */
  family: number
  sizeBytes: number
  copies: number
  /** So many at least have what is acknowledged; two, or as many as there are, where it does not say. */
  copiesMin?: number
  /** Of each change of these since all was where it belongs: what they were, before which view. Oldest first. */
  formerCopies?: readonly { beforeEpoch: number; copies: number; copiesMin?: number }[]
  /** Milliseconds since 1970. */
  createdAt: number
  /** 0 for a working VDI; otherwise it is a snapshot, and frozen. */
  snapshotAt: number
  /** The entry that froze it, or one after that; absent for a working VDI. */
  frozenBy?: number
  /** Deleted by its user, but objects of it may still be wanted by others of its family. */
  deleting: boolean
  /** Its vid is of another name, so that who looks for it from the hash of its name on does not find it. */
  renamed?: true
  /** What a client wrote into the header of the inode; of a snapshot, what was there when it was taken. */
  header?: VdiHeader
  /** Machine state that was saved with it: the objects 0 to here may exist. */
  vmstateObjects?: number
}

/** The fields of an inode's header that are the client's own. */
export interface VdiHeader {
  /** The tag that the next snapshot gets, when it names none itself. */
  tag: string
  vmStateBytes: number
  /** Decimal: 64 bits. */
  vmClockNsec: string
}

/**
 * A lock that a client of the original protocol took on a name: on the working VDI, whatever its vid becomes. tgt's are
 * called shared; src/sheep/locks.ts says what that means.
 */
export interface Lock {
  name: string
  shared: boolean
  /** Host of its holder. */
  hosts: string[]
}

/** A right to reach a VDI through any gateway. The name is known only to who made it. */
export interface ExportRight {
  attachmentId: string
  /** SHA-256 of the export name, hexadecimal. */
  nameHash: string
  /** The working VDI; follows it when a snapshot gives it a new vid. */
  vid: number
  readOnly: boolean
  /**
   * The gateway that opened it last, where there are several nodes: what others have open under it is over. A gateway that another one has
   * followed, and that comes again, has another `opening`.
   */
  gateway?: Life & { opening: number }
  /** How fast it may go, for gateways: nothing here looks into it. */
  limits?: object
}

/** What a VDI takes: bytes that are allocated, that it alone has, and that others have as well. */
export type VdiUsage = readonly [vid: number, allocatedBytes: number, uniqueBytes: number, sharedBytes: number]

/** The node that alone reads and writes what a family of VDIs holds, and runs all that is done to them. */
export interface FamilyOwner extends Life {
  family: number
  /** Of the entry that named it. */
  index: number
}

/** A vid that no VDI has yet, of which objects may be written: those of a VDI that is about to be made. */
export interface Making {
  vid: number
  family: number
  /** An entry of several snapshots that goes on under it is void. */
  isVoid?: true
  /** As of the VDI; absent in entries of earlier versions. */
  copies?: number
  copiesMin?: number
}

/** How copies are made anew, on all nodes. */
export interface RecoverySettings {
  isPaused: boolean
  /** Of each node; null for as fast as the node says itself. */
  bytesPerSecond: number | null
}

/** The working VDI `vid` is frozen under `tag`; `newVid` goes on in its place. */
export interface Freezing {
  vid: number
  newVid: number
  tag: string
}

/** What is fixed for a cluster from the beginning. */
export interface Founded {
  cluster: string
  at: number
  vnodeBytes?: number
}

/**
 * `owners`, on several nodes: the entries that named the owners of the families. Void when one of them has been followed by another, or
 * has called it off.
 */
interface SnapshotsEntry {
  type: 'snapshots'
  at: number
  of: readonly Freezing[]
  owners?: readonly number[]
}

/** `by`: the entry that named the owner of the family which alone may say this; void once there is another one. */
export type Entry = EntryKind & { by?: number }

type EntryKind =
  /** `index`: where it stands in the log, when that is not where this entry is, which stands for the state up to there. */
  | ({ type: 'view'; index?: number } & View)
  /**
   * The first entry of a cluster of several nodes: its id, when it was made, milliseconds since 1970, and how many bytes of room a place
   * on its ring stands for; absent in clusters of earlier versions.
   */
  | ({ type: 'founded' } & Founded)
  | { type: 'vdi'; vdi: Vdi }
  /** Nobody else takes this vid from now on, until a VDI has it, or `unmade` says that no object of it is left. */
  | { type: 'making'; making: Making }
  | { type: 'unmade'; vid: number }
  | ({ type: 'snapshot'; at: number } & Freezing)
  /** The same of several VDIs at one moment: all of them or none. */
  | SnapshotsEntry
  /** Vids that were set aside by these owners: no entry of several snapshots makes VDIs of them any more. */
  | { type: 'void'; vids: readonly number[]; owners: readonly number[] }
  | { type: 'resize'; vid: number; sizeBytes: number }
  | { type: 'delete'; vid: number }
  /** No object of a deleted VDI is left: its vid is free. On several nodes that was found in view `epoch`, and is void in another one. */
  | { type: 'reclaimed'; vid: number; epoch?: number }
  | { type: 'export'; right: ExportRight }
  | { type: 'unexport'; attachmentId: string }
  /** Other limits, or none, for a right that is there; the sessions under it go on. */
  | { type: 'limits'; attachmentId: string; limits: object | null }
  /** What the working VDI `vid` held is dropped; it goes on as `newVid` with what its snapshot `snapshotVid` holds. */
  | { type: 'rollback'; vid: number; newVid: number; snapshotVid: number; at: number }
  /** The working VDI `name` and its snapshots are called `to` from now on; their vids stay. */
  | { type: 'rename'; name: string; to: string }
  /** A snapshot has another tag from now on. */
  | { type: 'retag'; vid: number; tag: string }
  | { type: 'header'; vid: number; header: VdiHeader }
  | { type: 'vmstate'; vid: number; objects: number }
  | { type: 'attribute'; vid: number; attribute: Attribute }
  | { type: 'unattribute'; vid: number; key: string }
  | { type: 'lock'; lock: Lock }
  | { type: 'unlock'; name: string }
  /** The service's database `database` says what the store is to hold, in the place of `replaces`. */
  | { type: 'driven'; database: string; replaces: string | null }
  /**
   * Several nodes only. Takes effect when nobody in the view owns the family, and `replaces` is the entry that named the last one
   * who did. `index` is there in what stands for a whole state: the entry that it was.
   */
  | ({ type: 'owner'; family: number; replaces: number | null; index?: number } & Life)
  /** The owner that entry `index` named has let go of the family; what its VDIs took then stays known. */
  | { type: 'disown'; family: number; index: number; usage?: readonly VdiUsage[] }
  /** What was written to these families before `epoch` is on all copies; each with the entry that names the owner who found it so. */
  | { type: 'clean'; epoch: number; families: readonly (readonly [family: number, ownerIndex: number])[] }
  | ({ type: 'gateway'; attachmentId: string } & Life)
  | ({ type: 'recovery' } & RecoverySettings)
  /** A whole state, in the place of whatever there was. No node proposes it: it comes from another one to who was away for long. */
  | { type: 'state'; entries: readonly Entry[] }

export const encodeEntry = (entry: Entry): Buffer => Buffer.from(JSON.stringify(entry))

/** An entry as this or an earlier version wrote it. */
export function decodeEntry(bytes: Buffer): Entry {
  const entry = JSON.parse(bytes.toString()) as Entry | EarlierView
  return isEarlier(entry) ? completeView(entry) : entry
}

/** A view of the versions that knew one node only: its members had no name but their address, and nobody voted. */
interface EarlierView {
  type: 'view'
  epoch: number
  members: Omit<Member, 'node'>[]
  at?: number
}

const isEarlier = (entry: Entry | EarlierView): entry is EarlierView => entry.type === 'view' && !('voters' in entry)

function completeView({ members, ...view }: EarlierView): Entry {
  const named = members.map((member) => ({ node: member.address, ...member }))
  return { at: 0, voters: [], ...view, members: named }
}

/** The snapshots that an entry takes, each as an entry of its own. */
export function snapshotsIn(entry: Entry & { type: 'snapshots' }): (Entry & { type: 'snapshot' })[] {
  return entry.of.map((freezing) => ({ type: 'snapshot', at: entry.at, ...freezing }))
}
