import { StoreError } from '../errors.ts'
import { VDI_COUNT, VDI_NAME_SIZE_BYTES, VDI_SIZE_MAX_BYTES, VDI_TAG_SIZE_BYTES } from '../protocol/constants.ts'
import { attrIdOf, vidOfName } from '../protocol/hash.ts'
import { attrOid } from '../protocol/oid.ts'
import { type Attribute, AttributeTable } from './attributes.ts'

/**
 * What every node of the cluster agrees on: views, VDIs and export rights. It changes only by entries of the ordered log,
 * and the same entries give the same state on every node: no clock, no random number and no I/O in here.
 */
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
  /** Milliseconds since 1970. */
  createdAt: number
  /** 0 for a working VDI; otherwise it is a snapshot, and frozen. */
  snapshotAt: number
  /** Deleted by its user, but objects of it may still be wanted by others of its family. */
  deleting: boolean
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
 * A lock that a client of the original protocol took on a name: on the working VDI, whatever its vid becomes. QEMU's is for one,
 * tgt's are shared.
 */
export interface Lock {
  name: string
  shared: boolean
  /** Host of each holder; one unless shared. */
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
}

export interface Member {
  address: string
  zone: number
  vnodes: number
  /** New with each start of the node. */
  incarnation: string
}

/** An epoch and who was in it from when on, milliseconds since 1970. */
export interface View {
  epoch: number
  members: Member[]
  at: number
}

/** How many epochs `dog cluster info` can show. */
const VIEWS_MAX = 32

export type Entry =
  | { type: 'view'; epoch: number; members: Member[]; at?: number }
  | { type: 'vdi'; vdi: Vdi }
  /** Freezes `vid` under `tag`; `newVid` goes on as the working VDI of that name. */
  | { type: 'snapshot'; vid: number; newVid: number; tag: string; at: number }
  | { type: 'resize'; vid: number; sizeBytes: number }
  | { type: 'delete'; vid: number }
  /** No object of a deleted VDI is left: its vid is free. */
  | { type: 'reclaimed'; vid: number }
  | { type: 'export'; right: ExportRight }
  | { type: 'unexport'; attachmentId: string }
  /** What the working VDI `vid` held is dropped; it goes on as `newVid` with what its snapshot `snapshotVid` holds. */
  | { type: 'rollback'; vid: number; newVid: number; snapshotVid: number; at: number }
  | { type: 'header'; vid: number; header: VdiHeader }
  | { type: 'vmstate'; vid: number; objects: number }
  | { type: 'attribute'; vid: number; attribute: Attribute }
  | { type: 'unattribute'; vid: number; key: string }
  | { type: 'lock'; lock: Lock }
  | { type: 'unlock'; name: string }
  /** The service's database `database` says what the store is to hold, in the place of `replaces`. */
  | { type: 'driven'; database: string; replaces: string | null }

/**
 * A vid that no VDI ever gets. Inodes that tgt reads name it where there is a hole, and every object of it reads as zeros: tgt
 * itself returns wrong bytes when a read goes from data into a hole.
 */
export const HOLE_VID = VDI_COUNT - 1

const ATTR_ID_COUNT = 2 ** 32

const nextVid = (vid: number): number => (vid + 1 === VDI_COUNT ? 1 : vid + 1)

export class ClusterState {
  /** Index of the last entry applied. */
  index = 0
  epoch = 0
  members: Member[] = []
  /** The last epochs, the newest at the end. */
  views: View[] = []
  readonly vdis = new Map<number, Vdi>()
  readonly exports = new Map<string, ExportRight>()
  readonly attributes = new AttributeTable()
  /** By name. */
  readonly locks = new Map<string, Lock>()
  /** Which database of the service drives this store; null until one did. */
  drivenBy: string | null = null
  readonly #names = new Map<string, Set<number>>()
  readonly #families = new Map<number, Set<number>>()
  readonly #exportsByHash = new Map<string, ExportRight>()

  /** The working VDI of a name; with a tag or a snapshot id, that snapshot. Throws NoVdi or NoTag. */
  find(name: string, which: { tag?: string; snapId?: number } = {}): Vdi {
    const vdis = this.vdisOf(name)
    if (vdis.length === 0) throw new StoreError('NoVdi', name)
    for (const vdi of vdis) {
      if (which.tag) {
        if (vdi.snapshotAt > 0 && vdi.tag === which.tag) return vdi
      } else if (which.snapId) {
        if (vdi.snapshotAt > 0 && vdi.snapId === which.snapId) return vdi
      } else if (vdi.snapshotAt === 0) return vdi
    }
    throw which.tag || which.snapId
      ? new StoreError('NoTag', `${name}@${which.tag || which.snapId}`)
      : new StoreError('NoVdi', name)
  }

  /** A VDI that has not been deleted. Throws NoVdi. */
  get(vid: number): Vdi {
    const vdi = this.vdis.get(vid)
    if (!vdi || vdi.deleting) throw new StoreError('NoVdi', vid.toString(16))
    return vdi
  }

  /** The working VDI of a name and its snapshots. */
  vdisOf(name: string): Vdi[] {
    return [...(this.#names.get(name) ?? [])].map((vid) => this.vdis.get(vid)!).filter((vdi) => !vdi.deleting)
  }

  snapshotsOf(name: string): Vdi[] {
    return this.vdisOf(name).filter((vdi) => vdi.snapshotAt > 0)
  }

  /** Bytes that the working VDIs promise. */
  get provisionedBytes(): number {
    let sum = 0
    for (const vdi of this.vdis.values()) if (vdi.snapshotAt === 0 && !vdi.deleting) sum += vdi.sizeBytes
    return sum
  }

  /** All of a family, the deleted ones too. */
  familyOf(family: number): Vdi[] {
    return [...(this.#families.get(family) ?? [])].map((vid) => this.vdis.get(vid)!)
  }

  families(): IterableIterator<number> {
    return this.#families.keys()
  }

  exportByHash(nameHash: string): ExportRight | undefined {
    return this.#exportsByHash.get(nameHash)
  }

  /** How many rights there are to each vid that has any. */
  exportCounts(): Map<number, number> {
    const counts = new Map<number, number>()
    for (const { vid } of this.exports.values()) counts.set(vid, (counts.get(vid) ?? 0) + 1)
    return counts
  }

  exportsOf(vid: number): ExportRight[] {
    return [...this.exports.values()].filter((right) => right.vid === vid)
  }

  /** The vid that a new VDI of this name gets: the first free one from the name's hash on. Throws FullVdi. */
  freeVid(name: string): number {
    let vid = vidOfName(name)
    for (let probes = 1; probes < VDI_COUNT; probes++) {
      if (vid !== HOLE_VID && !this.vdis.has(vid)) return vid
      vid = nextVid(vid)
    }
    throw new StoreError('FullVdi')
  }

  /**
   * Whether a free vid lies between the hash of some name and a VDI of that name. Clients look for VDIs from the hash on and
   * stop at the first vid that was never used, so that such a gap must look used to them.
   */
  isGap(vid: number): boolean {
    if (this.vdis.has(vid)) return false
    for (const { first, count } of this.probeRuns()) {
      if ((vid - first + VDI_COUNT) % VDI_COUNT < count) return true
    }
    return false
  }

  /** For each name the vids from its hash to its last VDI. One may go beyond the end of all vids, and on at 0. */
  *probeRuns(): Generator<{ first: number; count: number }> {
    for (const [name, vids] of this.#names) {
      const first = vidOfName(name)
      let count = 1
      for (const vid of vids) count = Math.max(count, ((vid - first + VDI_COUNT) % VDI_COUNT) + 1)
      yield { first, count }
    }
  }

  /** The snapshot id of a new working VDI of this name. */
  nextSnapId(name: string): number {
    return 1 + Math.max(0, ...this.vdisOf(name).map((vdi) => vdi.snapId))
  }

  /** Throws the StoreError with which the entry must be refused. Nothing that passes may fail in `apply`. */
  check(entry: Entry): void {
    switch (entry.type) {
      case 'vdi':
        checkName(entry.vdi.name, entry.vdi.sizeBytes)
        if (this.#hasWorking(entry.vdi.name)) throw new StoreError('VdiExists', entry.vdi.name)
        if (this.vdis.has(entry.vdi.vid)) throw new StoreError('VdiExists', `vid ${entry.vdi.vid.toString(16)}`)
        return
      case 'snapshot': {
        const vdi = this.get(entry.vid)
        if (vdi.snapshotAt > 0) throw new StoreError('ReadOnly', vdi.name)
        if (Buffer.byteLength(entry.tag) >= VDI_TAG_SIZE_BYTES)
          throw new StoreError('InvalidParameters', 'the tag is too long')
        if (entry.tag !== '' && this.snapshotsOf(vdi.name).some((other) => other.tag === entry.tag)) {
          throw new StoreError('VdiExists', `${vdi.name}@${entry.tag}`)
        }
        return
      }
      case 'resize': {
        const vdi = this.get(entry.vid)
        if (vdi.snapshotAt > 0) throw new StoreError('ReadOnly', vdi.name)
        checkName(vdi.name, entry.sizeBytes)
        if (entry.sizeBytes < vdi.sizeBytes) throw new StoreError('InvalidParameters', 'a VDI cannot shrink')
        return
      }
      case 'rollback':
        this.#checkRollback(entry.vid, entry.snapshotVid)
        return
      case 'header':
        if (this.get(entry.vid).snapshotAt > 0) throw new StoreError('ReadOnly')
        if (Buffer.byteLength(entry.header.tag) >= VDI_TAG_SIZE_BYTES)
          throw new StoreError('InvalidParameters', 'the tag is too long')
        return
      case 'vmstate':
        if (this.get(entry.vid).snapshotAt > 0) throw new StoreError('ReadOnly')
        return
      case 'attribute':
        this.get(entry.vid)
        this.attributes.check(entry.vid, entry.attribute)
        return
      case 'lock':
        if (!entry.lock.shared && this.locks.has(entry.lock.name)) throw new StoreError('VdiLocked', entry.lock.name)
        return
      case 'driven':
        if (this.drivenBy !== entry.replaces) throw new StoreError('VdiInUse', 'another database drives the store')
        return
      case 'delete': {
        const vdi = this.get(entry.vid)
        if (this.exportsOf(vdi.vid).length > 0) throw new StoreError('VdiInUse', `${vdi.name} is exported`)
        return
      }
      case 'export': {
        const vdi = this.get(entry.right.vid)
        if (vdi.snapshotAt > 0) throw new StoreError('ReadOnly', vdi.name)
        if (this.locks.has(vdi.name)) throw new StoreError('VdiLocked', vdi.name)
        const taken = this.#exportsByHash.get(entry.right.nameHash)
        if (taken && taken.attachmentId !== entry.right.attachmentId)
          throw new StoreError('InvalidParameters', 'another attachment has this export name')
        return
      }
    }
  }

  #checkRollback(vid: number, snapshotVid: number): void {
    const vdi = this.get(vid)
    const snapshot = this.get(snapshotVid)
    if (vdi.snapshotAt > 0) throw new StoreError('ReadOnly', vdi.name)
    if (snapshot.name !== vdi.name || snapshot.snapshotAt === 0)
      throw new StoreError('NoTag', `${snapshotVid.toString(16)} is no snapshot of ${vdi.name}`)
  }

  apply(index: number, entry: Entry): void {
    this.index = index
    switch (entry.type) {
      case 'view':
        this.epoch = entry.epoch
        this.members = entry.members
        if (entry.epoch > 0) this.views = [...this.views, viewOf(entry)].slice(-VIEWS_MAX)
        return
      case 'vdi':
        this.#add(entry.vdi)
        return
      case 'snapshot': {
        const old = this.vdis.get(entry.vid)!
        const { header: _header, vmstateObjects: _objects, ...goesOn } = old
        const snapId = this.nextSnapId(old.name)
        this.#add({ ...goesOn, vid: entry.newVid, snapId, parentVid: old.vid, createdAt: entry.at })
        this.vdis.set(old.vid, { ...old, tag: entry.tag, snapshotAt: entry.at })
        this.#goOnAs(old.vid, entry.newVid)
        return
      }
      case 'rollback': {
        const old = this.vdis.get(entry.vid)!
        const snapshot = this.vdis.get(entry.snapshotVid)!
        const { header: _header, vmstateObjects: _objects, ...goesOn } = old
        this.#add({
          ...goesOn,
          vid: entry.newVid,
          parentVid: snapshot.vid,
          family: snapshot.family,
          createdAt: entry.at,
        })
        this.vdis.set(old.vid, { ...old, deleting: true })
        this.#goOnAs(old.vid, entry.newVid)
        return
      }
      case 'header':
        this.vdis.set(entry.vid, { ...this.vdis.get(entry.vid)!, header: entry.header })
        return
      case 'vmstate':
        this.vdis.set(entry.vid, { ...this.vdis.get(entry.vid)!, vmstateObjects: entry.objects })
        return
      case 'attribute':
        this.attributes.set(entry.vid, entry.attribute)
        return
      case 'unattribute':
        this.attributes.remove(entry.vid, entry.key)
        return
      case 'lock':
        this.locks.set(entry.lock.name, entry.lock)
        return
      case 'unlock':
        this.locks.delete(entry.name)
        return
      case 'driven':
        this.drivenBy = entry.database
        return
      case 'resize':
        this.vdis.set(entry.vid, { ...this.vdis.get(entry.vid)!, sizeBytes: entry.sizeBytes })
        return
      case 'delete':
        this.vdis.set(entry.vid, { ...this.vdis.get(entry.vid)!, deleting: true })
        this.attributes.removeAll(entry.vid)
        return
      case 'reclaimed':
        this.#drop(entry.vid)
        return
      case 'export':
        this.#dropExport(entry.right.attachmentId)
        this.#putExport(entry.right)
        return
      case 'unexport':
        this.#dropExport(entry.attachmentId)
        return
    }
  }

  /** Entries that lead to this state from nothing. */
  snapshotEntries(): Entry[] {
    return [
      // Never nothing at all, so that whoever applies them gets to know the index.
      ...(this.views.length > 0 ? this.views : [NO_VIEW]).map((view): Entry => ({ type: 'view', ...view })),
      ...[...this.vdis.values()].map((vdi): Entry => ({ type: 'vdi', vdi })),
      ...[...this.exports.values()].map((right): Entry => ({ type: 'export', right })),
      ...[...this.attributes.all()].map(({ vid, attribute }): Entry => ({ type: 'attribute', vid, attribute })),
      ...[...this.locks.values()].map((lock): Entry => ({ type: 'lock', lock })),
      ...(this.drivenBy === null ? [] : [{ type: 'driven', database: this.drivenBy, replaces: null } as const]),
    ]
  }

  get liveEntries(): number {
    const { views, vdis, exports, attributes, locks, drivenBy } = this
    const few = Math.max(1, views.length) + (drivenBy === null ? 0 : 1)
    return few + vdis.size + exports.size + attributes.size + locks.size
  }

  /** An id for a new attribute's object: the first free one from the hash of its name on. */
  freeAttributeOid(name: string, which: { tag: string; snapId: number }, key: string): bigint {
    const vid = vidOfName(name)
    for (let id = attrIdOf({ name, ...which, key }); ; id = (id + 1) % ATTR_ID_COUNT) {
      const oid = attrOid(vid, id)
      if (!this.attributes.byOid(oid)) return oid
    }
  }

  /** A working VDI goes on under another vid, with the rights to it and its attributes. */
  #goOnAs(oldVid: number, newVid: number): void {
    for (const right of this.exportsOf(oldVid)) this.#putExport({ ...right, vid: newVid })
    this.attributes.move(oldVid, newVid)
  }

  #hasWorking(name: string): boolean {
    for (const vid of this.#names.get(name) ?? []) {
      const vdi = this.vdis.get(vid)!
      if (vdi.snapshotAt === 0 && !vdi.deleting) return true
    }
    return false
  }

  #add(vdi: Vdi): void {
    this.vdis.set(vdi.vid, vdi)
    addTo(this.#names, vdi.name, vdi.vid)
    addTo(this.#families, vdi.family, vdi.vid)
  }

  #drop(vid: number): void {
    const vdi = this.vdis.get(vid)
    if (!vdi) return
    // What was made from it hangs on what it was made from itself: a vid that is free again is nobody's parent.
    for (const child of this.familyOf(vdi.family)) {
      if (child.parentVid === vid) this.vdis.set(child.vid, { ...child, parentVid: vdi.parentVid })
    }
    this.vdis.delete(vid)
    removeFrom(this.#names, vdi.name, vid)
    removeFrom(this.#families, vdi.family, vid)
  }

  #putExport(right: ExportRight): void {
    this.exports.set(right.attachmentId, right)
    this.#exportsByHash.set(right.nameHash, right)
  }

  #dropExport(attachmentId: string): void {
    const right = this.exports.get(attachmentId)
    if (!right) return
    this.exports.delete(attachmentId)
    this.#exportsByHash.delete(right.nameHash)
  }
}

const NO_VIEW: View = { epoch: 0, members: [], at: 0 }

const viewOf = ({ epoch, members, at = 0 }: Entry & { type: 'view' }): View => ({ epoch, members, at })

function checkName(name: string, sizeBytes: number): void {
  if (name === '' || name.includes('\0') || Buffer.byteLength(name) >= VDI_NAME_SIZE_BYTES) {
    throw new StoreError('InvalidParameters', 'a VDI name has 1 to 255 bytes')
  }
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes > VDI_SIZE_MAX_BYTES) {
    throw new StoreError('InvalidParameters', `a VDI has at most ${VDI_SIZE_MAX_BYTES} bytes`)
  }
}

function addTo<K>(index: Map<K, Set<number>>, key: K, vid: number): void {
  const vids = index.get(key)
  if (vids) vids.add(vid)
  else index.set(key, new Set([vid]))
}

function removeFrom<K>(index: Map<K, Set<number>>, key: K, vid: number): void {
  const vids = index.get(key)
  vids?.delete(vid)
  if (vids?.size === 0) index.delete(key)
}
