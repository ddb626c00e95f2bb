import { VDI_NAME_SIZE_BYTES } from '../../protocol/constants.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import { oidKind, oidVid } from '../../protocol/oid.ts'
import { OP } from '../../protocol/opcodes.ts'
import type { ClusterState } from '../cluster-state.ts'
import { cString } from '../request-body.ts'

/**
 * Where a request is run, on a store of several nodes:
 *
 *   session   where its session is
 *   family    by the owner of that family of VDIs
 *   new       anywhere: it makes a VDI that is nobody's child
 *   all       on every node: it ends something, and nobody knows any more who had it
 *   here      on the node that was asked: it is about the node itself, or about what all nodes know alike
 *
 * A request for what does not exist is run here, which says so.
 */
export type RequestPlace = { kind: 'session' | 'new' | 'all' | 'here' } | { kind: 'family'; family: number }

const HERE: RequestPlace = { kind: 'here' }
const SESSION: RequestPlace = { kind: 'session' }

export function placeOf(request: SheepRequest, state: ClusterState): RequestPlace {
  if (IS_OF_SESSION[request.opcode]) return SESSION
  const find = FAMILY_OF[request.opcode]
  if (!find) return HERE
  if (request.opcode === OP.NEW_VDI && !request.baseVdiId) return { kind: 'new' }
  const vid = find(request, state)
  const vdi = vid === undefined ? undefined : state.vdis.get(vid)
  if (vdi) return { kind: 'family', family: vdi.family }
  return request.opcode === OP.REMOVE_EXPORT ? { kind: 'all' } : HERE
}

/** Whether it is about a VDI that this node does not know. */
export function isOfUnknown(request: SheepRequest, state: ClusterState): boolean {
  if (request.opcode === OP.LIST_VDIS && request.body?.length) return byName(request, state) === undefined
  const find = request.opcode === OP.NEW_VDI && !request.baseVdiId ? undefined : FAMILY_OF[request.opcode]
  if (!find) return false
  const vid = find(request, state)
  return vid === undefined || !state.vdis.has(vid)
}

type FindVid = (request: SheepRequest, state: ClusterState) => number | undefined

const OF_SESSIONS: readonly number[] = [
  OP.READ_VDI,
  OP.WRITE_VDI,
  OP.DISCARD_VDI,
  OP.ZERO_VDI,
  OP.FLUSH_VDI_SESSION,
  OP.STAT_VDI_SESSION,
  OP.EXTENTS_VDI,
  OP.MARKS_VDI,
  OP.CLOSE_VDI,
]
/** By opcode, a byte: all that machines read and write passes here, and twice. */
const IS_OF_SESSION = Array.from({ length: 256 }, (_, opcode) => OF_SESSIONS.includes(opcode))

const byVid: FindVid = ({ vid }) => vid
const byBaseVid: FindVid = ({ baseVdiId }) => baseVdiId

const byOid: FindVid = ({ oid = 0n }, state) => {
  const kind = oidKind(oid)
  if (kind === 'attr') return state.attributes.byOid(oid)?.vid
  return kind === null ? undefined : oidVid(oid)
}

/** All of one name are of one family, or were when they were made: a clone of a snapshot has a name of its own. */
const byName: FindVid = ({ body = Buffer.alloc(0) }, state) => {
  const name = cString(body, 0, Math.min(body.length, VDI_NAME_SIZE_BYTES))
  return state.vdis.of(name)[0]?.vid
}

const byExport: FindVid = ({ body, vid }, state) => (body?.length ? state.exports.byHash(body.toString())?.vid : vid)

const byAttachment: FindVid = ({ body = Buffer.alloc(0) }, state) => state.exports.get(body.toString())?.vid

const byRight: FindVid = ({ body = Buffer.alloc(0) }) => {
  try {
    const { vid } = JSON.parse(body.toString()) as { vid?: unknown }
    return typeof vid === 'number' ? vid : undefined
  } catch {
    return undefined // whoever runs it says what is wrong with it
  }
}

const FAMILY_OF: Readonly<Record<number, FindVid>> = {
  [OP.OPEN_VDI]: byExport,
  [OP.READ_OBJ]: byOid,
  [OP.WRITE_OBJ]: byOid,
  [OP.CREATE_AND_WRITE_OBJ]: byOid,
  [OP.DISCARD_OBJ]: byOid,
  [OP.FLUSH_VDI]: byOid,
  [OP.EXIST]: byOid,
  [OP.GET_HASH]: byOid,
  [OP.NEW_VDI]: byBaseVid,
  [OP.RELEASE_VDI]: byBaseVid,
  [OP.LOCK_VDI]: byName,
  [OP.DEL_VDI]: byName,
  [OP.GET_VDI_ATTR]: byName,
  [OP.ROLLBACK_VDI]: byName,
  [OP.UNLOCK_VDI]: byName,
  [OP.SNAPSHOT_VDI]: byVid,
  [OP.RESIZE_VDI]: byVid,
  [OP.ALTER_VDI]: byVid,
  [OP.PUT_EXPORT]: byRight,
  [OP.REMOVE_EXPORT]: byAttachment,
}
