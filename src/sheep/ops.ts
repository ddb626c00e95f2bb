import { RESULT } from '../protocol/constants.ts'
import type { SheepRequest } from '../protocol/message.ts'
import { OP, protoVerOf } from '../protocol/opcodes.ts'
import { resultOf } from '../results.ts'
import { attributeRequest } from './foreign/attribute-requests.ts'
import { discardObject } from './foreign/data-writes.ts'
import {
  clusterInfo,
  exist,
  getClusterDefault,
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
  deleteVdi,
  flushVdi,
  getVdiCopies,
  getVdiInfo,
  lockVdi,
  newVdi,
  readDeletedVdis,
  readVdis,
  releaseVdi,
} from './foreign/vdi-requests.ts'
import type { Sender } from './foreign/writers.ts'
import * as sessionRequests from './own/session-requests.ts'
import * as storeRequests from './own/store-requests.ts'
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
  [OP.READ_VDI]: { kind: 'gateway', run: sessionRequests.read },
  [OP.WRITE_VDI]: { kind: 'gateway', run: sessionRequests.write },
  [OP.DISCARD_VDI]: { kind: 'gateway', run: sessionRequests.discard },
  [OP.ZERO_VDI]: { kind: 'gateway', run: sessionRequests.discard },
  [OP.FLUSH_VDI_SESSION]: { kind: 'gateway', run: sessionRequests.flush },
  [OP.STAT_VDI_SESSION]: { kind: 'gateway', run: sessionRequests.statSession },
  [OP.OPEN_VDI]: {
    kind: 'local',
    run: (sheep, request, _sender, holder) => sessionRequests.openVdi(sheep, request, holder),
  },
  [OP.CLOSE_VDI]: {
    kind: 'local',
    run: (sheep, request, _sender, holder) => sessionRequests.closeVdi(sheep, request, holder),
  },
  [OP.EXTENTS_VDI]: {
    kind: 'local',
    run: (sheep, request, _sender, holder) => sessionRequests.extents(sheep, request, holder),
  },
  [OP.MARKS_VDI]: {
    kind: 'local',
    run: (sheep, request, _sender, holder) => sessionRequests.marks(sheep, request, holder),
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
  [OP.GET_CLUSTER_DEFAULT]: { kind: 'local', run: getClusterDefault },

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
  [OP.CLEANUP]: { kind: 'cluster', run: unsupported },
  [OP.FORCE_RECOVER]: { kind: 'cluster', run: unsupported },
  [OP.ENABLE_RECOVER]: { kind: 'cluster', run: unsupported },
  [OP.DISABLE_RECOVER]: { kind: 'cluster', run: unsupported },
  [OP.REWEIGHT]: { kind: 'cluster', run: unsupported },
  [OP.ALTER_CLUSTER_COPY]: { kind: 'cluster', run: unsupported },
  [OP.ALTER_VDI_COPY]: { kind: 'cluster', run: unsupported },

  [OP.SNAPSHOT_VDI]: { kind: 'cluster', run: storeRequests.snapshotVdi },
  [OP.SNAPSHOT_VDIS]: { kind: 'cluster', run: storeRequests.snapshotVdis },
  [OP.RENAME_VDI]: { kind: 'cluster', run: storeRequests.renameVdi },
  [OP.ALTER_VDI]: { kind: 'cluster', run: storeRequests.alterVdi },
  [OP.RESIZE_VDI]: { kind: 'cluster', run: storeRequests.resizeVdi },
  [OP.ROLLBACK_VDI]: { kind: 'cluster', run: storeRequests.rollbackVdi },
  [OP.LIST_VDIS]: { kind: 'local', run: storeRequests.listVdis },
  [OP.LIST_ATTRIBUTES]: { kind: 'local', run: storeRequests.listAttributes },
  [OP.LIST_LOCKS]: { kind: 'local', run: storeRequests.listLocks },
  [OP.UNLOCK_VDI]: { kind: 'cluster', run: storeRequests.unlockVdi },
  [OP.PUT_EXPORT]: { kind: 'cluster', run: storeRequests.putExport },
  [OP.LIMIT_EXPORT]: { kind: 'cluster', run: storeRequests.limitExport },
  [OP.REMOVE_EXPORT]: { kind: 'cluster', run: storeRequests.removeExport },
  [OP.LIST_EXPORTS]: { kind: 'local', run: storeRequests.listExports },
  [OP.GET_EXPORT]: { kind: 'local', run: storeRequests.getExport },
  [OP.USAGE_VDIS]: { kind: 'local', run: storeRequests.usageOfVdis },
  [OP.RECOVERY_PROGRESS]: { kind: 'local', run: storeRequests.recoveryProgress },
  [OP.STAT_STORE]: { kind: 'local', run: storeRequests.statStore },
  [OP.DRIVE_STORE]: { kind: 'cluster', run: storeRequests.driveStore },
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
    return sheep.heldDiscards.settle(client, request.id ?? 0, {
      run: () => runForeign(sheep, operation, request, holder, reply),
      drop: () => reply({ result: RESULT.NETWORK_ERROR }),
    })
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
