import { StoreError } from '../errors.ts'
import { BLOCK_SIZE_SHIFT_DEFAULT, FLAG, RESULT } from '../protocol/constants.ts'
import type { SheepRequest } from '../protocol/message.ts'
import { OP, protoVerOf } from '../protocol/opcodes.ts'
import { encodeExtents } from '../protocol/structs.ts'
import { resultOf } from '../results.ts'
import type { ExportRight, Vdi } from './cluster-state.ts'
import { attributeRequest } from './foreign/attribute-requests.ts'
import { discardObject } from './foreign/data-writes.ts'
import {
  clusterInfo,
  exist,
  getEpoch,
  getHash,
  getLogLevel,
  getNodeList,
  getRecovery,
  getStoreList,
  getVnodes,
  makeFs,
  mdInfoOf,
  oidsExist,
  setLogLevel,
  stat,
  statCluster,
  statRecovery,
  statSheep,
  unsupported,
} from './foreign/node-requests.ts'
import { readObject, writeObject } from './foreign/object-requests.ts'
import {
  bodyOf,
  cString,
  deleteVdi,
  findVdi,
  flushVdi,
  getVdiCopies,
  getVdiInfo,
  lockVdi,
  newVdi,
  readDeletedVdis,
  readVdis,
  releaseVdi,
  vdiReply,
} from './foreign/vdi-requests.ts'
import type { Sender } from './foreign/writers.ts'
import type { StoreDone } from './object-store.ts'
import type { Reply, SheepClient } from './server.ts'
import type { Session } from './session.ts'
import type { Sheep } from './sheep.ts'

/**
 * The operation table: what each opcode does. Gateway operations move bytes and answer through a callback, because they
 * are the hot path, and all act on a session of their holder; object operations are the same for foreign clients, which name
 * objects; the others answer with a promise. Upstream's kinds: G gateway, C cluster-wide, L local.
 */
type Operation =
  | {
      kind: 'gateway'
      run: (session: Session, request: SheepRequest, reply: (response: Reply) => void) => void
    }
  | {
      kind: 'object'
      run: (sheep: Sheep, request: SheepRequest, sender: Sender, reply: (response: Reply) => void) => void
    }
  | {
      kind: 'cluster' | 'local'
      run: (sheep: Sheep, request: SheepRequest, sender: Sender, holder: Holder) => Promise<Reply> | Reply
    }

/** Who sent a request: a connection, whose sessions end with it, or null for a caller in this process. */
export type Holder = SheepClient | null

/** The caller in this process, for what foreign clients do: it never goes away. */
const IN_PROCESS: SheepClient = { id: 0, peer: 'process', cut: () => {} }

const OPERATIONS: Readonly<Record<number, Operation>> = {
  [OP.READ_VDI]: {
    kind: 'gateway',
    run: (session, request, reply) => {
      const target = request.target ?? answerBuffer(request)
      session.read(request.offset ?? 0, target, (error) => {
        reply(error ? { result: resultOf(error) } : { result: RESULT.SUCCESS, body: target })
      })
    },
  },
  [OP.WRITE_VDI]: {
    kind: 'gateway',
    run: (session, request, reply) => {
      const durable = ((request.flags ?? 0) & FLAG.FUA) !== 0
      session.write(request.offset ?? 0, bodyOf(request), durable, answer(reply), request.crcs)
    },
  },
  [OP.DISCARD_VDI]: { kind: 'gateway', run: discard },
  [OP.ZERO_VDI]: { kind: 'gateway', run: discard },
  [OP.FLUSH_VDI_SESSION]: {
    kind: 'gateway',
    run: (session, _request, reply) => session.flush(answer(reply)),
  },
  [OP.EXTENTS_VDI]: {
    kind: 'local',
    run: async (sheep, request, _sender, holder) => {
      const session = sheep.sessions.get(request.session ?? 0, holder)
      const extents = await session.extents(request.offset ?? 0, request.length ?? 0)
      return { result: RESULT.SUCCESS, body: encodeExtents(extents, request.dataLength ?? 0) }
    },
  },
  [OP.OPEN_VDI]: {
    kind: 'local',
    run: (sheep, request, _sender, holder) => {
      const readOnly = ((request.flags ?? 0) & FLAG.READ_ONLY) !== 0
      const session = request.body?.length
        ? sheep.sessions.openExport(request.body.toString(), holder)
        : sheep.sessions.openAnonymous(request.vid ?? 0, readOnly, holder)
      return { result: RESULT.SUCCESS, session: session.id, vdiSize: session.sizeBytes }
    },
  },
  [OP.STAT_VDI_SESSION]: {
    kind: 'gateway',
    run: (session, _request, reply) => reply({ result: RESULT.SUCCESS, vdiSize: session.sizeBytes }),
  },
  [OP.CLOSE_VDI]: {
    kind: 'local',
    run: async (sheep, request, _sender, holder) => {
      await sheep.sessions.close(sheep.sessions.get(request.session ?? 0, holder).id)
      return { result: RESULT.SUCCESS }
    },
  },

  [OP.READ_OBJ]: { kind: 'object', run: readObject },
  [OP.WRITE_OBJ]: { kind: 'object', run: writeObject },
  [OP.CREATE_AND_WRITE_OBJ]: { kind: 'object', run: writeObject },
  [OP.DISCARD_OBJ]: { kind: 'object', run: discardObject },
  [OP.FLUSH_VDI]: {
    kind: 'object',
    run: (sheep, _request, _sender, reply) => {
      flushVdi(sheep).then(reply, (error) => reply({ result: resultOf(error) }))
    },
  },

  [OP.NEW_VDI]: { kind: 'cluster', run: newVdi },
  [OP.LOCK_VDI]: { kind: 'cluster', run: lockVdi },
  [OP.RELEASE_VDI]: { kind: 'cluster', run: releaseVdi },
  [OP.GET_VDI_INFO]: { kind: 'cluster', run: getVdiInfo },
  [OP.DEL_VDI]: { kind: 'cluster', run: deleteVdi },
  [OP.READ_VDIS]: { kind: 'local', run: readVdis },
  [OP.READ_DEL_VDIS]: { kind: 'local', run: readDeletedVdis },
  [OP.GET_VDI_COPIES]: { kind: 'local', run: getVdiCopies },
  [OP.GET_VDI_ATTR]: { kind: 'cluster', run: attributeRequest },
  [OP.GET_CLUSTER_DEFAULT]: {
    kind: 'local',
    run: (sheep) => ({
      result: RESULT.SUCCESS,
      copies: sheep.copies,
      copyPolicy: 0,
      blockSizeShift: BLOCK_SIZE_SHIFT_DEFAULT,
    }),
  },

  [OP.GET_NODE_LIST]: { kind: 'local', run: getNodeList },
  [OP.STAT_CLUSTER]: { kind: 'local', run: statCluster },
  [OP.CLUSTER_INFO]: { kind: 'local', run: clusterInfo },
  [OP.GET_STORE_LIST]: { kind: 'local', run: getStoreList },
  [OP.MAKE_FS]: { kind: 'cluster', run: makeFs },
  [OP.STAT_SHEEP]: { kind: 'local', run: statSheep },
  [OP.STAT_RECOVERY]: { kind: 'local', run: statRecovery },
  [OP.GET_RECOVERY]: { kind: 'local', run: getRecovery },
  [OP.GET_VNODES]: { kind: 'local', run: getVnodes },
  [OP.GET_EPOCH]: { kind: 'local', run: getEpoch },
  [OP.MD_INFO]: { kind: 'local', run: mdInfoOf },
  [OP.STAT]: { kind: 'local', run: stat },
  [OP.GET_LOGLEVEL]: { kind: 'local', run: getLogLevel },
  [OP.SET_LOGLEVEL]: { kind: 'local', run: setLogLevel },
  [OP.EXIST]: { kind: 'local', run: exist },
  [OP.OIDS_EXIST]: { kind: 'local', run: oidsExist },
  [OP.GET_HASH]: { kind: 'local', run: getHash },
  [OP.SHUTDOWN]: { kind: 'cluster', run: unsupported },
  [OP.KILL_NODE]: { kind: 'local', run: unsupported },
  [OP.MD_PLUG]: { kind: 'local', run: unsupported },
  [OP.MD_UNPLUG]: { kind: 'local', run: unsupported },
  [OP.REPAIR_REPLICA]: { kind: 'local', run: unsupported },
  [OP.SET_RECOVERY]: { kind: 'local', run: unsupported },
  [OP.SET_VNODES]: { kind: 'local', run: unsupported },
  [OP.DECREF_OBJ]: { kind: 'local', run: unsupported },

  [OP.SNAPSHOT_VDI]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      const tag = cString(bodyOf(request), 0, bodyOf(request).length)
      return ioReply(await sheep.snapshot(request.vid ?? 0, tag))
    },
  },
  [OP.RESIZE_VDI]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      await sheep.resizeVdi(request.vid ?? 0, request.vdiSize ?? 0)
      return { result: RESULT.SUCCESS }
    },
  },
  [OP.ROLLBACK_VDI]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      const snapshot = findVdi(sheep, request)
      return vdiReply(await sheep.rollbackVdi(sheep.state.find(snapshot.name).vid, snapshot.vid))
    },
  },
  [OP.LIST_ATTRIBUTES]: {
    kind: 'local',
    run: (sheep, request) => {
      const attributes = sheep.state.attributes.of(findVdi(sheep, { ...request, snapId: request.vid ?? 0 }).vid)
      return jsonReply(attributes.map(({ key, valueBytes, createdAt }) => ({ key, valueBytes, createdAt })))
    },
  },
  [OP.LIST_LOCKS]: { kind: 'local', run: (sheep) => jsonReply([...sheep.state.locks.values()]) },
  [OP.UNLOCK_VDI]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      await sheep.unlock(bodyOf(request).toString())
      return { result: RESULT.SUCCESS }
    },
  },
  [OP.LIST_VDIS]: {
    kind: 'local',
    run: (sheep, request) => {
      const vdis = request.body ? sheep.state.vdisOf(request.body.toString()) : vdisAfter(sheep, request.vid ?? 0)
      return { result: RESULT.SUCCESS, body: Buffer.from(JSON.stringify(vdis)) }
    },
  },
  [OP.STAT_STORE]: {
    kind: 'local',
    run: async (sheep) => {
      const { totalBytes, freeBytes } = await sheep.stats()
      const provisionedBytes = sheep.state.provisionedBytes
      return { result: RESULT.SUCCESS, body: Buffer.from(JSON.stringify({ totalBytes, freeBytes, provisionedBytes })) }
    },
  },
  [OP.DRIVE_STORE]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      const { database, replace } = parseDrive(bodyOf(request))
      return jsonReply(await sheep.drive(database, { replace }))
    },
  },
  [OP.PUT_EXPORT]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      await sheep.putExport(parseRight(bodyOf(request)))
      return { result: RESULT.SUCCESS }
    },
  },
  [OP.REMOVE_EXPORT]: {
    kind: 'cluster',
    run: async (sheep, request) => {
      await sheep.removeExport(bodyOf(request).toString())
      return { result: RESULT.SUCCESS }
    },
  },
  [OP.LIST_EXPORTS]: {
    kind: 'local',
    run: (sheep, request) => {
      const rights = sheep.state.exportsOf(sheep.state.find(bodyOf(request).toString()).vid)
      return { result: RESULT.SUCCESS, body: Buffer.from(JSON.stringify(rights)) }
    },
  },
  [OP.GET_EXPORT]: {
    kind: 'local',
    run: (sheep, request) => {
      const right = sheep.state.exportByHash(bodyOf(request).toString())
      if (!right) throw new StoreError('NoExport')
      return { result: RESULT.SUCCESS, body: Buffer.from(JSON.stringify(right)) }
    },
  },
}

/**
 * Runs one request. `reply` is called exactly once, perhaps before this returns; nothing is thrown. Opcodes that this node
 * does not know are answered with INVALID_PARMS, as upstream does.
 */
export function runOperation(
  sheep: Sheep,
  request: SheepRequest,
  holder: Holder,
  reply: (response: Reply) => void,
): void {
  const operation = OPERATIONS[request.opcode]
  if (!operation) return reply({ result: RESULT.INVALID_PARMS })
  if (sheep.failure) return reply({ result: resultOf(sheep.failure) })
  if (holder) sheep.locks.spoke(holder)
  if (operation.kind !== 'gateway') {
    const client = holder ?? IN_PROCESS
    return sheep.heldDiscards.settle(client, request.id ?? 0, () =>
      runForeign(sheep, operation, request, holder, reply),
    )
  }
  try {
    operation.run(sheep.sessions.get(request.session ?? 0, holder), request, reply)
  } catch (error) {
    reply({ result: resultOf(error) })
  }
}

function runForeign(
  sheep: Sheep,
  operation: Exclude<Operation, { kind: 'gateway' }>,
  request: SheepRequest,
  holder: Holder,
  reply: (response: Reply) => void,
): void {
  try {
    const sender = { client: holder ?? IN_PROCESS, protoVer: request.protoVer ?? protoVerOf(request.opcode) }
    if (operation.kind === 'object') {
      sheep.traffic.begin(request)
      return operation.run(sheep, request, sender, (response) => {
        sheep.traffic.end()
        reply(response)
      })
    }
    Promise.resolve(operation.run(sheep, request, sender, holder)).then(reply, (error) =>
      reply({ result: resultOf(error) }),
    )
  } catch (error) {
    reply({ result: resultOf(error) })
  }
}

/** A buffer for what a client wants to read, if that is no more than it offered to take. */
function answerBuffer({ length = 0, dataLength = 0 }: SheepRequest): Buffer {
  if (length > dataLength) throw new StoreError('InvalidParameters', 'more is wanted than was offered room for')
  return Buffer.allocUnsafe(length)
}

function discard(session: Session, request: SheepRequest, reply: (response: Reply) => void): void {
  const durable = ((request.flags ?? 0) & FLAG.FUA) !== 0
  session.discard(request.offset ?? 0, request.length ?? 0, durable, answer(reply))
}

/** Keeps an answer of LIST_VDIS well below the limit of a frame. */
const VDIS_PER_ANSWER = 4096

const answer =
  (reply: (response: Reply) => void): StoreDone =>
  (error) =>
    reply({ result: error ? resultOf(error) : RESULT.SUCCESS })

function jsonReply(value: unknown): Reply {
  return { result: RESULT.SUCCESS, body: Buffer.from(JSON.stringify(value)) }
}

function ioReply(vdi: Vdi): Reply {
  return { result: RESULT.SUCCESS, vdiId: vdi.vid, vdiSize: vdi.sizeBytes }
}

/** The next of all VDIs in the order of their vids. */
function vdisAfter(sheep: Sheep, vid: number): Vdi[] {
  return [...sheep.state.vdis.values()]
    .filter((vdi) => vdi.vid > vid && !vdi.deleting)
    .sort((a, b) => a.vid - b.vid)
    .slice(0, VDIS_PER_ANSWER)
}

function parseRight(json: Buffer): ExportRight {
  const { attachmentId, nameHash, vid, readOnly } = parseObject(json) as Partial<ExportRight>
  const valid =
    typeof attachmentId === 'string' &&
    attachmentId !== '' &&
    typeof nameHash === 'string' &&
    /^[0-9a-f]{64}$/.test(nameHash) &&
    typeof vid === 'number' &&
    Number.isInteger(vid) &&
    typeof readOnly === 'boolean'
  if (!valid) throw new StoreError('InvalidParameters', 'not an export right')
  return { attachmentId, nameHash, vid, readOnly }
}

/** Whether a database of the service may drive the store, and whether in the place of another one. */
interface DriveRequest {
  database: string
  replace: boolean
}

function parseDrive(json: Buffer): DriveRequest {
  const { database, replace } = parseObject(json) as Partial<DriveRequest>
  if (typeof database !== 'string' || !/^[0-9a-f-]{32,36}$/.test(database) || typeof replace !== 'boolean') {
    throw new StoreError('InvalidParameters', 'not the id of a database')
  }
  return { database, replace }
}

function parseObject(json: Buffer): object {
  try {
    const value: unknown = JSON.parse(json.toString())
    return typeof value === 'object' && value !== null ? value : {}
  } catch {
    throw new StoreError('InvalidParameters', 'not JSON')
  }
}
