import type { ClusterState } from '../cluster-state.ts'
import type { Entry } from '../entries.ts'

/** The family that an entry is about, when it is about one. */
export function familyOfEntry(entry: Entry, state: ClusterState): number | null {
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
