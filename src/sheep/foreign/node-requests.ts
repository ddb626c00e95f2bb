import { createHash } from 'node:crypto'
import { StoreError } from '../../errors.ts'
import {
  BLOCK_SIZE_SHIFT_DEFAULT,
  CLUSTER_FLAG,
  CLUSTER_STATUS,
  RESULT,
  SHEEP_PROTO_VER,
} from '../../protocol/constants.ts'
import { encodeTime } from '../../protocol/inode.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import {
  encodeClusterInfo,
  encodeEpochLog,
  encodeNodeAddress,
  epochLogHead,
  mdInfo,
  recoveryState,
  recoveryThrottling,
  type SdNode,
  sdNode,
} from '../../protocol/structs.ts'
import { parseAddress } from '../../runtime/network.ts'
import type { Member, View } from '../membership/view.ts'
import { bodyOf } from '../request-body.ts'
import type { Reply } from '../server.ts'
import type { Sheep } from '../sheep.ts'
import { objectExists, wholeObject } from './object-requests.ts'

/** What `dog` asks nodes and the cluster. What makes no sense on a node that is alone is refused with NO_SUPPORT. */

const STORE_NAME = 'collie'
/** Of STAT_RECOVERY. */
const COPIES_OBJECTS = 1
const DRIVER_NAME = 'single'
const CLUSTER_FLAGS = CLUSTER_FLAG.USE_LOCK | CLUSTER_FLAG.RECYCLE_VID | CLUSTER_FLAG.AUTO_VNODES

export async function getNodeList(sheep: Sheep): Promise<Reply> {
  const nodes = nodesOf(sheep, sheep.state.members, await spacesOf(sheep))
  const body = Buffer.concat(nodes.map((node) => sdNode.encode(node)))
  return { result: RESULT.SUCCESS, nrNodes: nodes.length, body }
}

/** Epochs, newest first, as many as the client has room for. Each has `nodesNr` slots for nodes. */
export async function statCluster(sheep: Sheep, { dataLength = 0, nodesNr = 0 }: SheepRequest): Promise<Reply> {
  const entryBytes = epochLogHead.sizeBytes + nodesNr * sdNode.sizeBytes
  const spaces = await spacesOf(sheep)
  const entries: Buffer[] = []
  for (const { view } of [...sheep.state.views].reverse().slice(0, Math.floor(dataLength / entryBytes))) {
    if (nodesNr > 0 && view.members.length > nodesNr) return { result: RESULT.BUFFER_SMALL }
    const isNewest = entries.length === 0
    const nodes = nodesNr === 0 ? [] : nodesOf(sheep, view.members, spaces)
    entries.push(encodeEpochLog(epochHead(sheep, view, isNewest), nodes, nodesNr))
  }
  return { result: RESULT.SUCCESS, body: Buffer.concat(entries) }
}

function epochHead(sheep: Sheep, { epoch, at }: View, isNewest: boolean) {
  const time = BigInt(Math.floor(at / 1000))
  if (!isNewest) return { epoch, time }
  const { copies } = sheep
  return { epoch, time, ctime: ctimeOf(sheep), copies, flags: CLUSTER_FLAGS, driverName: STORE_NAME }
}

export async function clusterInfo(sheep: Sheep): Promise<Reply> {
  const info = {
    protoVer: SHEEP_PROTO_VER,
    epoch: sheep.state.epoch,
    ctime: ctimeOf(sheep),
    flags: CLUSTER_FLAGS,
    copies: sheep.copies,
    status: CLUSTER_STATUS.OK,
    blockSizeShift: BLOCK_SIZE_SHIFT_DEFAULT,
    defaultStore: STORE_NAME,
  }
  const nodes = nodesOf(sheep, sheep.state.members, await spacesOf(sheep))
  return { result: RESULT.SUCCESS, body: encodeClusterInfo(info, nodes) }
}

/** GET_CLUSTER_DEFAULT: what a VDI has whose maker names nothing else. */
export function getClusterDefault({ copies }: Sheep): Reply {
  return { result: RESULT.SUCCESS, copies, copyPolicy: 0, blockSizeShift: BLOCK_SIZE_SHIFT_DEFAULT }
}

export function getStoreList(): Reply {
  return { result: RESULT.SUCCESS, body: Buffer.from(`${STORE_NAME} (${DRIVER_NAME})\0`) }
}

/**
 * MAKE_FS wipes the whole cluster at upstream. A Collie node formats its store at its first start, so that this does
 * nothing where nothing would be lost, and is refused where there are VDIs.
 */
export function makeFs(sheep: Sheep, request: SheepRequest): Reply {
  const { copies = 0, copyPolicy = 0, blockSizeShift = 0 } = request
  const fits =
    (copies === 0 || copies === sheep.copies) &&
    copyPolicy === 0 &&
    (blockSizeShift === 0 || blockSizeShift === BLOCK_SIZE_SHIFT_DEFAULT)
  if (!fits) return { result: RESULT.NO_SUPPORT }
  return { result: sheep.state.vdis.size > 0 ? RESULT.VDI_NOT_EMPTY : RESULT.SUCCESS }
}

export async function statSheep(sheep: Sheep): Promise<Reply> {
  const { totalBytes, freeBytes } = await sheep.stats()
  return { result: RESULT.SUCCESS, nrNodes: sheep.state.members.length, storeSize: totalBytes, storeFree: freeBytes }
}

/** STAT_RECOVERY counts families of VDIs, of which each brings home what it lacks as a whole. */
export function statRecovery({ state }: Sheep): Reply {
  const left = state.families.uncleanBefore(state.epoch).length
  if (left === 0) return { result: RESULT.SUCCESS, body: recoveryState.encode({}) }
  const total = [...state.vdis.families()].length
  const progress = {
    inRecovery: 1,
    state: COPIES_OBJECTS,
    finished: Math.max(0, total - left),
    total,
  }
  return { result: RESULT.SUCCESS, body: recoveryState.encode(progress) }
}

export function getRecovery(): Reply {
  return { result: RESULT.SUCCESS, body: recoveryThrottling.encode({}) }
}

/** GET_VNODES: how many places on the ring this node has. */
export function getVnodes(sheep: Sheep): Reply {
  const self = sheep.state.members.find(({ node }) => node === sheep.node)
  return { result: RESULT.SUCCESS, nrNodes: self?.vnodes ?? 0 }
}

export async function mdInfoOf(sheep: Sheep): Promise<Reply> {
  const disks = await sheep.disks.list()
  const entries = disks.map(({ path, freeBytes, totalBytes }, index) => {
    return { index, freeBytes, usedBytes: totalBytes - freeBytes, path }
  })
  return { result: RESULT.SUCCESS, body: mdInfo.encode({ disks: entries, diskCount: entries.length }) }
}

export function stat(sheep: Sheep): Reply {
  return { result: RESULT.SUCCESS, body: sheep.traffic.encode() }
}

/** Syslog's numbers of the levels of our log. */
const LOG_LEVELS = { silent: 0, fatal: 2, error: 3, warn: 4, info: 6, debug: 7, trace: 7 } as const
const LEVEL_BY_NUMBER = ['fatal', 'fatal', 'fatal', 'error', 'warn', 'info', 'info', 'debug'] as const

export function getLogLevel(sheep: Sheep): Reply {
  const body = Buffer.alloc(4)
  body.writeInt32LE(LOG_LEVELS[sheep.log.level as keyof typeof LOG_LEVELS] ?? LOG_LEVELS.info)
  return { result: RESULT.SUCCESS, body }
}

export function setLogLevel(sheep: Sheep, request: SheepRequest): Reply {
  const body = bodyOf(request)
  const level = body.length === 4 ? LEVEL_BY_NUMBER[body.readInt32LE()] : undefined
  if (!level) throw new StoreError('InvalidParameters', 'not a level of the log')
  sheep.log.level = level
  return { result: RESULT.SUCCESS }
}

export function exist(sheep: Sheep, { oid = 0n }: SheepRequest): Reply {
  return { result: objectExists(sheep, oid) ? RESULT.SUCCESS : RESULT.NO_OBJ }
}

/** OIDS_EXIST: of the objects asked for those that are missing. */
export function oidsExist(sheep: Sheep, request: SheepRequest): Reply {
  const asked = bodyOf(request)
  const missing = Buffer.alloc(asked.length)
  let length = 0
  for (let at = 0; at + 8 <= asked.length; at += 8) {
    const oid = asked.readBigUInt64LE(at)
    if (!objectExists(sheep, oid)) length = missing.writeBigUInt64LE(oid, length)
  }
  return { result: RESULT.SUCCESS, body: missing.subarray(0, length) }
}

/** GET_HASH: SHA-1 of an object, by which `dog vdi check` compares copies. */
export async function getHash(sheep: Sheep, { oid = 0n }: SheepRequest): Promise<Reply> {
  const bytes = await wholeObject(sheep, oid)
  if (!bytes) return { result: RESULT.NO_OBJ }
  return { result: RESULT.SUCCESS, digest: createHash('sha1').update(bytes).digest() }
}

/** GET_EPOCH: the nodes of an epoch, then when it began. */
export async function getEpoch(sheep: Sheep, { tgtEpoch = 0 }: SheepRequest): Promise<Reply> {
  const view = sheep.state.views.find(({ view: { epoch } }) => epoch === tgtEpoch)?.view
  if (!view) return { result: RESULT.NO_TAG }
  const nodes = nodesOf(sheep, view.members, await spacesOf(sheep)).map((node) => sdNode.encode(node))
  const time = Buffer.alloc(8)
  time.writeBigUInt64LE(BigInt(Math.floor(view.at / 1000)))
  return { result: RESULT.SUCCESS, body: Buffer.concat([...nodes, time]) }
}

/** Ending the process, and what needs other nodes, is not for everyone who reaches the port. */
export function unsupported(): Reply {
  return { result: RESULT.NO_SUPPORT }
}

/** When the cluster was made: its first epoch that is still known. */
const ctimeOf = (sheep: Sheep): bigint => encodeTime(sheep.state.views[0]!.view.at)

/** What each node has, by its name; nothing of nodes that are not in the view. */
async function spacesOf(sheep: Sheep): Promise<ReadonlyMap<string, number>> {
  const { nodes } = await sheep.space()
  return new Map(nodes.map(({ node, totalBytes }) => [node, totalBytes]))
}

/** A node that is alone is reached where the client has reached it; in a cluster each says where others reach it. */
function nodesOf(sheep: Sheep, members: readonly Member[], spaces: ReadonlyMap<string, number>): SdNode[] {
  return members.map(({ node, address, zone, vnodes }) => {
    const { addr, port } = endpointOf(sheep.state.founded === null ? sheep.contact : address)
    const spaceBytes = spaces.get(node) ?? 0
    return { nid: { addr, port, ioAddr: Buffer.alloc(16), ioPort: 0 }, vnodeCount: vnodes, zone, spaceBytes }
  })
}

/** A name or a socket path means nothing to `dog`, which is on this host then. */
function endpointOf(address: string): { addr: Buffer; port: number } {
  const target = parseAddress(address)
  const port = 'port' in target ? target.port : 0
  try {
    return { addr: encodeNodeAddress('host' in target ? target.host : '127.0.0.1'), port }
  } catch {
    return { addr: encodeNodeAddress('127.0.0.1'), port }
  }
}
