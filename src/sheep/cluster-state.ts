import { StoreError } from '../errors.ts'
import { VDI_NAME_SIZE_BYTES, VDI_SIZE_MAX_BYTES, VDI_TAG_SIZE_BYTES } from '../protocol/constants.ts'
import { attrIdOf, vidOfName } from '../protocol/hash.ts'
import { attrOid } from '../protocol/oid.ts'
import { AttributeTable } from './attributes.ts'
import {
  type Entry,
  type Founded,
  type Freezing,
  type Lock,
  type Making,
  type RecoverySettings,
  snapshotsIn,
  type Vdi,
} from './entries.ts'
import { ExportTable } from './export-table.ts'
import { FamilyTable } from './family-table.ts'
import { type CopiesChange, checkViewFollows, type LoggedView, type Member, type View } from './membership/view.ts'
import { VdiTable } from './vdi-table.ts'

/** How many epochs `dog cluster info` can show. */
const VIEWS_MAX = 32

const RECOVERY_DEFAULT: RecoverySettings = { isPaused: false, bytesPerSecond: null }

const ATTR_ID_COUNT = 2 ** 32

/**
 * What every node of the cluster agrees on: views, VDIs and export rights. It changes only by entries of the ordered log,
 * and the same entries give the same state on every node: no clock, no random number and no I/O in here.
 */
export class ClusterState {
  /** Index of the last entry applied. */
  index = 0
  /** The last views and where they stand in the log, the newest at the end; at least one. */
  views: readonly LoggedView[] = NO_VIEWS
  vdis = new VdiTable()
  exports = new ExportTable()
  attributes = new AttributeTable()
  /** By name. */
  readonly locks = new Map<string, Lock>()
  /** By vid. Left behind by who ended in the middle, they are the business of who owns the family then. */
  readonly makings = new Map<number, Making>()
  /** The cluster that this is the state of; null on a node that belongs to none, or that is alone for good. */
  founded: Founded | null = null
  /** Which database of the service drives this store; null until one did. */
  drivenBy: string | null = null
  families = new FamilyTable()
  /** Several nodes only. */
  recovery: RecoverySettings = RECOVERY_DEFAULT

  /** As viewsOf said last: it is asked for each object, and most families have the same. */
  #viewsSince = { logged: NO_VIEWS, since: 0, views: [] as readonly View[] }

  /** The view in effect. */
  get view(): View {
    return this.views.at(-1)!.view
  }

  get epoch(): number {
    return this.view.epoch
  }

  get members(): readonly Member[] {
    return this.view.members
  }

  /** The working VDI of a name; with a tag or a snapshot id, that snapshot. Throws NoVdi or NoTag. */
  find(name: string, which: { tag?: string; snapId?: number } = {}): Vdi {
    const vdis = this.vdis.of(name)
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

  /** The vid that a new VDI of this name gets, which is none of `without`. Throws FullVdi. */
  freeVid(name: string, without: ReadonlySet<number> = new Set()): number {
    return this.vdis.freeVid(name, { has: (vid) => this.makings.has(vid) || without.has(vid) })
  }

  /** Throws the StoreError with which the entry must be refused. Nothing that passes may fail in `apply`. */
  check(entry: Entry): void {
    if (entry.by !== undefined && !this.families.isCurrent(entry.by))
      throw new StoreError('OldEpoch', 'the VDI has another owner')
    switch (entry.type) {
      case 'view':
        checkViewFollows(entry, this.view)
        return
      case 'founded':
        if (this.founded !== null) throw new StoreError('InvalidParameters', 'the cluster has been founded')
        return
      case 'vdi':
        checkName(entry.vdi.name, entry.vdi.sizeBytes)
        if (this.vdis.hasWorking(entry.vdi.name)) throw new StoreError('VdiExists', entry.vdi.name)
        if (this.vdis.has(entry.vdi.vid)) throw new StoreError('VdiExists', `vid ${entry.vdi.vid.toString(16)}`)
        return
      case 'making': {
        const { vid } = entry.making
        if (this.vdis.has(vid) || this.makings.has(vid)) throw new StoreError('VdiExists', `vid ${vid.toString(16)}`)
        return
      }
      case 'snapshot': {
        const vdi = this.get(entry.vid)
        if (vdi.snapshotAt > 0) throw new StoreError('ReadOnly', vdi.name)
        this.#checkTag(vdi.name, entry.tag)
        return
      }
      case 'snapshots': {
        for (const snapshot of snapshotsIn(entry)) this.check(snapshot)
        const vids = entry.of.flatMap(({ vid, newVid }) => [vid, newVid])
        if (new Set(vids).size < vids.length)
          throw new StoreError('InvalidParameters', 'a VDI has one snapshot at a moment')
        if (entry.owners) this.#checkHeld(entry.owners, entry.of)
        return
      }
      case 'void':
        this.#checkOwners(entry.owners)
        for (const vid of entry.vids) if (!this.makings.has(vid)) throw new StoreError('NoVdi', vid.toString(16))
        return
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
      case 'rename': {
        const vdi = this.find(entry.name)
        checkName(entry.to, vdi.sizeBytes)
        if (this.vdis.of(entry.to).length > 0) throw new StoreError('VdiExists', entry.to)
        if (this.locks.has(entry.name)) throw new StoreError('VdiLocked', entry.name)
        return
      }
      case 'retag': {
        const vdi = this.get(entry.vid)
        if (vdi.snapshotAt === 0) throw new StoreError('NoTag', `${vdi.name} is not a snapshot`)
        this.#checkTag(vdi.name, entry.tag)
        return
      }
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
        if (this.exports.countOf(vdi.vid) > 0) throw new StoreError('VdiInUse', `${vdi.name} is exported`)
        return
      }
      case 'reclaimed':
        if (entry.epoch !== undefined && entry.epoch !== this.epoch)
          throw new StoreError('OldEpoch', 'who has come since may have something of the VDI')
        return
      case 'owner':
      case 'disown':
      case 'clean':
        this.families.check(entry, this.view)
        return
      case 'state':
        throw new StoreError('InvalidParameters', 'a whole state is not proposed')
      case 'gateway':
        if (!this.exports.has(entry.attachmentId)) throw new StoreError('NoExport')
        return
      case 'export': {
        const vdi = this.get(entry.right.vid)
        if (vdi.snapshotAt > 0) throw new StoreError('ReadOnly', vdi.name)
        if (this.locks.has(vdi.name)) throw new StoreError('VdiLocked', vdi.name)
        const taken = this.exports.byHash(entry.right.nameHash)
        if (taken && taken.attachmentId !== entry.right.attachmentId)
          throw new StoreError('InvalidParameters', 'another attachment has this export name')
        return
      }
      case 'limits':
        if (!this.exports.has(entry.attachmentId)) throw new StoreError('NoExport', entry.attachmentId)
        return
    }
  }

  #checkOwners(owners: readonly number[]): void {
    if (owners.every((index) => this.families.isCurrent(index))) return
    throw new StoreError('OldEpoch', 'one of the VDIs has another owner')
  }

  /** Those who own the VDIs hold them still. */
  #checkHeld(owners: readonly number[], of: readonly Freezing[]): void {
    this.#checkOwners(owners)
    for (const { newVid } of of) {
      const making = this.makings.get(newVid)
      if (!making || making.isVoid) throw new StoreError('Busy', 'an owner could not wait any longer')
    }
  }

  #checkTag(name: string, tag: string): void {
    if (Buffer.byteLength(tag) >= VDI_TAG_SIZE_BYTES) throw new StoreError('InvalidParameters', 'the tag is too long')
    if (tag !== '' && this.vdis.snapshotsOf(name).some((other) => other.tag === tag)) {
      throw new StoreError('VdiExists', `${name}@${tag}`)
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
        this.#follow(loggedView(index, entry))
        for (const change of entry.copies ?? []) this.#alterCopies(change, entry.epoch)
        return
      case 'making':
        this.makings.set(entry.making.vid, entry.making)
        return
      case 'unmade':
        this.makings.delete(entry.vid)
        return
      case 'void':
        for (const vid of entry.vids) this.makings.set(vid, { ...this.makings.get(vid)!, isVoid: true })
        return
      case 'founded':
        this.founded = foundedBy(entry)
        return
      case 'vdi':
        this.makings.delete(entry.vdi.vid)
        this.vdis.put(isFrozen(entry.vdi) ? { frozenBy: index, ...entry.vdi } : entry.vdi)
        return
      case 'snapshot': {
        const old = this.vdis.get(entry.vid)!
        const { header: _header, vmstateObjects: _objects, renamed: _renamed, ...goesOn } = old
        const snapId = this.vdis.nextSnapId(old.name)
        this.vdis.put({ ...goesOn, vid: entry.newVid, snapId, parentVid: old.vid, createdAt: entry.at })
        this.vdis.put({ ...old, tag: entry.tag, snapshotAt: entry.at, frozenBy: index })
        this.#goOnAs(old.vid, entry.newVid)
        return
      }
      case 'snapshots':
        for (const snapshot of snapshotsIn(entry)) this.apply(index, snapshot)
        return
      case 'rollback': {
        const old = this.vdis.get(entry.vid)!
        const snapshot = this.vdis.get(entry.snapshotVid)!
        const { header: _header, vmstateObjects: _objects, renamed: _renamed, ...goesOn } = old
        this.vdis.put({
          ...goesOn,
          vid: entry.newVid,
          parentVid: snapshot.vid,
          family: snapshot.family,
          createdAt: entry.at,
        })
        this.vdis.put({ ...old, deleting: true })
        this.#goOnAs(old.vid, entry.newVid)
        return
      }
      case 'rename':
        for (const vdi of this.vdis.of(entry.name)) {
          this.vdis.drop(vdi.vid) // a record is put in the place of one of the same name only
          this.vdis.put({ ...vdi, name: entry.to, renamed: true })
        }
        return
      case 'retag':
        this.vdis.put({ ...this.vdis.get(entry.vid)!, tag: entry.tag })
        return
      case 'header':
        this.vdis.put({ ...this.vdis.get(entry.vid)!, header: entry.header })
        return
      case 'vmstate':
        this.vdis.put({ ...this.vdis.get(entry.vid)!, vmstateObjects: entry.objects })
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
        this.vdis.put({ ...this.vdis.get(entry.vid)!, sizeBytes: entry.sizeBytes })
        return
      case 'delete':
        this.vdis.put({ ...this.vdis.get(entry.vid)!, deleting: true })
        this.attributes.removeAll(entry.vid)
        return
      case 'reclaimed':
        this.#drop(entry.vid)
        return
      case 'export':
        this.exports.give(entry.right)
        return
      case 'unexport':
        this.exports.drop(entry.attachmentId)
        return
      case 'limits':
        this.exports.limit(entry.attachmentId, entry.limits)
        return
      case 'gateway': {
        const { node, incarnation } = entry
        const gateway = { node, incarnation, opening: index % 2 ** 32 }
        this.exports.put({ ...this.exports.get(entry.attachmentId)!, gateway })
        return
      }
      case 'recovery': {
        const { isPaused, bytesPerSecond } = entry
        this.recovery = { isPaused, bytesPerSecond }
        return
      }
      case 'owner':
      case 'disown':
      case 'clean':
        this.families.apply(index, entry, this.epoch)
        return
      case 'state':
        this.#reset()
        for (const part of entry.entries) this.apply(index, part)
        return
    }
  }

  #reset(): void {
    this.views = NO_VIEWS
    this.vdis = new VdiTable()
    this.exports = new ExportTable()
    this.attributes = new AttributeTable()
    this.families = new FamilyTable()
    this.locks.clear()
    this.makings.clear()
    this.drivenBy = null
    this.recovery = RECOVERY_DEFAULT
  }

  /** Entries that lead to this state from nothing. */
  snapshotEntries(): Entry[] {
    return [
      // Before the views, since how many of those are kept depends on it.
      ...this.families.snapshotEntries(),
      // Never nothing at all, so that whoever applies them gets to know the index.
      ...this.views.map(({ index, view }): Entry => ({ type: 'view', index, ...view })),
      ...(this.founded === null ? [] : [{ type: 'founded', ...this.founded } as const]),
      ...[...this.vdis.values()].map((vdi): Entry => ({ type: 'vdi', vdi })),
      ...[...this.exports.values()].map((right): Entry => ({ type: 'export', right })),
      ...[...this.attributes.all()].map(({ vid, attribute }): Entry => ({ type: 'attribute', vid, attribute })),
      ...[...this.locks.values()].map((lock): Entry => ({ type: 'lock', lock })),
      ...[...this.makings.values()].map((making): Entry => ({ type: 'making', making })),
      ...(this.#isRecoveryDefault ? [] : [{ type: 'recovery', ...this.recovery } as const]),
      ...(this.drivenBy === null ? [] : [{ type: 'driven', database: this.drivenBy, replaces: null } as const]),
    ]
  }

  get liveEntries(): number {
    const { views, vdis, exports, attributes, locks, makings, founded, drivenBy } = this
    const few =
      views.length + (founded === null ? 0 : 1) + (drivenBy === null ? 0 : 1) + (this.#isRecoveryDefault ? 0 : 1)
    return few + vdis.size + exports.size + attributes.size + locks.size + makings.size + this.families.size
  }

  get #isRecoveryDefault(): boolean {
    return !this.recovery.isPaused && this.recovery.bytesPerSecond === null
  }

  /** The views in which copies of the family's objects were made that may still count, up to the one in effect. */
  viewsOf(family: number): readonly View[] {
    const since = this.families.uncleanSince(family) ?? this.epoch
    const { logged, views } = this.#viewsSince
    if (logged === this.views && since === this.#viewsSince.since) return views
    const found = this.views.flatMap(({ view }) => (view.epoch >= since ? view : []))
    this.#viewsSince = { logged: this.views, since, views: found }
    return found
  }

  /** An id for a new attribute's object: the first free one from the hash of its name on. */
  freeAttributeOid(name: string, which: { tag: string; snapId: number }, key: string): bigint {
    const vid = vidOfName(name)
    for (let id = attrIdOf({ name, ...which, key }); ; id = (id + 1) % ATTR_ID_COUNT) {
      const oid = attrOid(vid, id)
      if (!this.attributes.byOid(oid)) return oid
    }
  }

  #follow(logged: LoggedView): void {
    if (logged.view.epoch === 0) return // there was none yet
    const before = this.views.filter(({ view }) => view.epoch > 0)
    const views = [...before, logged]
    const oldest = this.families.oldestUnclean(logged.view.epoch)
    this.views = views.filter(({ view }, at) => at >= views.length - VIEWS_MAX || view.epoch >= oldest)
  }

  #alterCopies({ vid, ...wanted }: CopiesChange, epoch: number): void {
    const working = this.vdis.get(vid)
    if (!working) return // it went before, or has gone on under another vid
    const since = this.families.uncleanSince(working.family) ?? epoch
    for (const vdi of this.vdis.ofFamily(working.family)) {
      if (vdi.name !== working.name) continue
      const { copies, copiesMin } = vdi
      const former = (vdi.formerCopies ?? []).filter(({ beforeEpoch }) => beforeEpoch > since)
      const before = { beforeEpoch: epoch, copies, ...(copiesMin !== undefined && { copiesMin }) }
      this.vdis.put({ ...vdi, ...wanted, formerCopies: [...former, before] })
    }
  }

  /** A working VDI goes on under another vid, with the rights to it and its attributes. */
  #goOnAs(oldVid: number, newVid: number): void {
    this.makings.delete(newVid)
    for (const right of this.exports.of(oldVid)) this.exports.put({ ...right, vid: newVid })
    this.attributes.move(oldVid, newVid)
  }

  #drop(vid: number): void {
    const vdi = this.vdis.get(vid)
    if (!vdi) return
    // What was made from it hangs on what it was made from itself: a vid that is free again is nobody's parent.
    for (const child of this.vdis.ofFamily(vdi.family)) {
      if (child.parentVid === vid) this.vdis.put({ ...child, parentVid: vdi.parentVid })
    }
    this.vdis.drop(vid)
    if (this.vdis.ofFamily(vdi.family).length === 0) this.families.drop(vdi.family)
  }
}

/** One of an earlier version does not say by which entry: any one will do that came since, and before the vid is free again. */
const isFrozen = ({ snapshotAt }: Vdi): boolean => snapshotAt > 0

const NO_VIEWS: readonly LoggedView[] = [{ index: 0, view: { epoch: 0, members: [], voters: [], at: 0 } }]

function foundedBy({ cluster, at, vnodeBytes }: Founded): Founded {
  return { cluster, at, ...(vnodeBytes !== undefined && { vnodeBytes }) }
}

function loggedView(at: number, { type: _type, index = at, ...view }: Entry & { type: 'view' }): LoggedView {
  return { index, view }
}

function checkName(name: string, sizeBytes: number): void {
  if (name === '' || name.includes('\0') || Buffer.byteLength(name) >= VDI_NAME_SIZE_BYTES) {
    throw new StoreError('InvalidParameters', 'a VDI name has 1 to 255 bytes')
  }
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes > VDI_SIZE_MAX_BYTES) {
    throw new StoreError('InvalidParameters', `a VDI has at most ${VDI_SIZE_MAX_BYTES} bytes`)
  }
}
