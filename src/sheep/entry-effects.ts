import { StoreError } from '../errors.ts'
import { inodeOid } from '../protocol/oid.ts'
import { ownOf } from './accounts.ts'
import { type Attribute, attributeOid } from './attributes.ts'
import type { ClusterState } from './cluster-state.ts'
import { type Entry, snapshotsIn } from './entries.ts'
import type { Change, ObjectStore } from './object-store.ts'

/**
 * What an entry changes in the objects of this node, in the transaction that it is written with. To be asked before the entry
 * is applied to `state`. An inode that something inherits from must be held.
 */
export function effectsOf(entry: Entry, state: ClusterState, store: ObjectStore): Change[] {
  switch (entry.type) {
    case 'snapshot':
      return inherit(store, entry.vid, entry.newVid)
    case 'snapshots':
      return snapshotsIn(entry).flatMap((snapshot) => effectsOf(snapshot, state, store))
    case 'rollback':
      return [...inherit(store, entry.snapshotVid, entry.newVid), keepOwn(store, entry.vid)]
    case 'vdi':
      return entry.vdi.parentVid === 0 ? [] : inherit(store, entry.vdi.parentVid, entry.vdi.vid)
    case 'delete':
      return [...state.attributes.of(entry.vid).map(removal), keepOwn(store, entry.vid)]
    case 'unattribute': {
      const attribute = state.attributes.get(entry.vid, entry.key)
      return attribute ? [removal(attribute)] : []
    }
    case 'reclaimed':
      return [{ kind: 'accountSet', vid: entry.vid, account: new Map() }]
    default:
      return []
  }
}

/** A VDI that is deleted shares nothing any more with those that it was made from. */
function keepOwn(store: ObjectStore, vid: number): Change {
  return { kind: 'accountSet', vid, account: ownOf(vid, store.accounts.of(vid)) }
}

/** The new VDI starts with all pages of the old one's map, and with its account; nothing is copied. */
function inherit(store: ObjectStore, fromVid: number, toVid: number): Change[] {
  const inode = store.loadedNow(inodeOid(fromVid))
  if (inode === undefined) return []
  if (inode === null) throw new StoreError('NoObject', 'the inode to inherit from is not loaded')
  return [
    { kind: 'create', oid: inodeOid(toVid), runs: store.inheritRuns(inode) },
    { kind: 'accountSet', vid: toVid, account: store.accounts.of(fromVid) },
  ]
}

const removal = (attribute: Attribute): Change => ({ kind: 'remove', oid: attributeOid(attribute) })
