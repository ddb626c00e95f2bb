import { StoreError } from '../../errors.ts'
import {
  BLOCK_SIZE_SHIFT_DEFAULT,
  LOCK_TYPE,
  PROTO_VER,
  RESULT,
  VDI_BITMAP_SIZE_BYTES,
  VDI_COUNT,
  VDI_NAME_SIZE_BYTES,
  VDI_TAG_SIZE_BYTES,
} from '../../protocol/constants.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import { encodeNodeAddress, type NodeId, PARTICIPANTS_MAX, vdiState } from '../../protocol/structs.ts'
import { resultOf } from '../../results.ts'
import type { Vdi } from '../entries.ts'
import { QEMU_PROTO_VER } from '../locks.ts'
import { bodyFromLength, bodyOfLength, cString, parseObject } from '../request-body.ts'
import type { Reply } from '../server.ts'
import type { Sheep } from '../sheep.ts'
import type { Sender } from './writers.ts'

/** Requests about whole VDIs, as QEMU, tgt and `dog` send them; Collie's own client uses some of them too. */

/** `dog`, and Collie's own client, name this version. */
const DOG_PROTO_VER = PROTO_VER

/**
 * NEW_VDI: a new VDI; with a base a clone of that snapshot; with `snapId` a snapshot of the base, which has got its tag by a
 * write to its inode before.
 */
export async function newVdi(sheep: Sheep, request: SheepRequest, sender: Sender): Promise<Reply> {
  const name = cString(bodyFromLength(request, VDI_NAME_SIZE_BYTES), 0, VDI_NAME_SIZE_BYTES)
  const baseVid = request.baseVdiId ?? 0
  if (request.snapId) return vdiReply(await newSnapshot(sheep, name, baseVid, sender))
  const { copies = 0, copyPolicy = 0, storePolicy = 0, blockSizeShift = 0 } = request
  if (blockSizeShift !== 0 && blockSizeShift !== BLOCK_SIZE_SHIFT_DEFAULT)
    throw new StoreError('Unsupported', `objects of 2^${blockSizeShift} bytes`)
  if (copyPolicy !== 0 || storePolicy !== 0) throw new StoreError('Unsupported', 'erasure coding and hyper volumes')
  const wanted = { ...(copies !== 0 && { copies }), ...copiesMinOf(request) }
  return vdiReply(await sheep.createVdi(name, request.vdiSize ?? 0, baseVid, wanted))
}

/** Behind the name, where no other client sends anything, our own says in JSON what the header has no field for. */
function copiesMinOf(request: SheepRequest): { copiesMin?: number } {
  const rest = request.body?.subarray(VDI_NAME_SIZE_BYTES) ?? Buffer.alloc(0)
  if (rest.length === 0) return {}
  const { copiesMin } = parseObject(rest) as { copiesMin?: unknown }
  if (typeof copiesMin !== 'number') throw new StoreError('InvalidParameters', 'not a number of copies')
  return { copiesMin }
}

async function newSnapshot(sheep: Sheep, name: string, baseVid: number, { client, protoVer }: Sender): Promise<Vdi> {
  const base = sheep.state.get(baseVid)
  if (base.name !== name) throw new StoreError('InvalidParameters', 'a snapshot keeps the name of its VDI')
  if (base.snapshotAt === 0) return sheep.snapshot(baseVid, base.header?.tag ?? '')
  // QEMU goes back to a snapshot and could not delete the working VDI: that is to become a snapshot as well.
  const working = sheep.state.find(name)
  const mayMove = protoVer === QEMU_PROTO_VER && sheep.locks.allowsGoingBack(name, client, protoVer)
  if (!mayMove || !isFree(sheep, working)) throw new StoreError('ReadOnly', name)
  const left = await sheep.snapshot(working.vid, '')
  return sheep.rollTo(left.vid, baseVid)
}

/** Whether no attachment and no tool of ours has it. */
function isFree(sheep: Sheep, vdi: Vdi): boolean {
  return sheep.state.exports.countOf(vdi.vid) === 0 && !sheep.sessions.hasAnonymousWriter(vdi.vid)
}

export function getVdiInfo(sheep: Sheep, request: SheepRequest): Reply {
  return vdiReply(findVdi(sheep, request))
}

/** LOCK_VDI: as GET_VDI_INFO, and takes the lock. Refused, the answer names the VDI all the same. */
export async function lockVdi(sheep: Sheep, request: SheepRequest, { client, protoVer }: Sender): Promise<Reply> {
  const { type = LOCK_TYPE.NORMAL } = request
  if (type !== LOCK_TYPE.NORMAL && type !== LOCK_TYPE.SHARED)
    throw new StoreError('InvalidParameters', `no type of lock: ${type}`)
  const vdi = findVdi(sheep, request)
  if (vdi.snapshotAt > 0) {
    sheep.locks.snapshotOpened(vdi, client)
    return vdiReply(vdi)
  }
  try {
    if (!isFree(sheep, vdi)) throw new StoreError('VdiLocked', vdi.name)
    await sheep.locks.take(vdi.name, type === LOCK_TYPE.SHARED, client, protoVer)
  } catch (error) {
    return { ...vdiReply(vdi), result: resultOf(error) }
  }
  // Whoever wrote without a lock until now does no more.
  const holders = new Set<object | null>([client, ...sheep.locks.writersOf(vdi.name)])
  await sheep.sessions.endForeign(vdi.vid, (holder) => !holders.has(holder))
  return vdiReply(vdi)
}

/**
 * RELEASE_VDI, with the vid that the client knows: it may be the one that a snapshot has frozen meanwhile. `dog vdi lock unlock`
 * sends it too, for whatever lock there is.
 */
export async function releaseVdi(sheep: Sheep, request: SheepRequest, { client, protoVer }: Sender): Promise<Reply> {
  const vdi = sheep.state.vdis.get(request.baseVdiId ?? 0)
  const lock = vdi && sheep.state.locks.get(vdi.name)
  const success = { result: RESULT.SUCCESS }
  if (!vdi) return { result: RESULT.VDI_NOT_LOCKED }
  if (vdi.snapshotAt > 0 && protoVer !== DOG_PROTO_VER && sheep.locks.snapshotReleased(vdi.vid)) return success
  if (!lock) return vdi.deleting ? { result: RESULT.VDI_NOT_LOCKED } : success
  if (protoVer === DOG_PROTO_VER && !sheep.locks.isHeldBy(vdi.name, client)) {
    await sheep.unlock(vdi.name)
    return success
  }
  const isShared = request.type === LOCK_TYPE.SHARED
  if (lock.shared === isShared && lock.hosts.includes(sheep.locks.places.hostOf(client)))
    await sheep.releaseLock(vdi.name)
  return success
}

export async function deleteVdi(sheep: Sheep, request: SheepRequest, sender: Sender): Promise<Reply> {
  const vdi = findVdi(sheep, request)
  await sheep.deleteVdi(vdi.vid, sender)
  return vdiReply(vdi)
}

/** FLUSH_VDI names the inode, but what was acknowledged becomes durable in one order for all VDIs. */
export async function flushVdi(sheep: Sheep): Promise<Reply> {
  await sheep.flush()
  return { result: RESULT.SUCCESS }
}

/** READ_VDIS: vids that are used, and those that must look so; see ClusterState.isGap. */
export function readVdis(sheep: Sheep, request: SheepRequest): Reply {
  const bits = bitmap(request)
  for (const vid of runVids(sheep)) setBit(bits, vid)
  for (const vid of sheep.state.vdis.keys()) setBit(bits, vid)
  return { result: RESULT.SUCCESS, body: bits }
}

/** READ_DEL_VDIS: those of READ_VDIS that are no VDIs any more. */
export function readDeletedVdis(sheep: Sheep, request: SheepRequest): Reply {
  const bits = bitmap(request)
  for (const vid of runVids(sheep)) if (!sheep.state.vdis.has(vid)) setBit(bits, vid)
  for (const { vid, deleting } of sheep.state.vdis.values()) if (deleting) setBit(bits, vid)
  return { result: RESULT.SUCCESS, body: bits }
}

/** GET_VDI_COPIES: the state of each VDI, for `dog vdi lock list`. */
export function getVdiCopies(sheep: Sheep): Reply {
  const states = [...sheep.state.vdis.values()].map((vdi) => vdiState.encode(stateOf(sheep, vdi)))
  return { result: RESULT.SUCCESS, body: Buffer.concat(states) }
}

const UNLOCKED = 1
const LOCKED = 2
const SHARED = 3
const PARTICIPANT_SHARED = 2

function stateOf(sheep: Sheep, vdi: Vdi): Parameters<typeof vdiState.encode>[0] {
  const lock = vdi.snapshotAt === 0 && !vdi.deleting ? sheep.state.locks.get(vdi.name) : undefined
  const hosts = lock?.hosts.slice(0, PARTICIPANTS_MAX).map(hostId) ?? []
  return {
    vid: vdi.vid,
    copies: vdi.copies,
    snapshot: vdi.snapshotAt > 0 ? 1 : 0,
    deleted: vdi.deleting ? 1 : 0,
    blockSizeShift: BLOCK_SIZE_SHIFT_DEFAULT,
    parentVid: vdi.parentVid,
    lockState: lock ? (lock.shared ? SHARED : LOCKED) : UNLOCKED,
    ...(lock && !lock.shared ? { lockOwner: hosts[0]! } : {}),
    ...(lock?.shared
      ? {
          participantCount: hosts.length,
          participantStates: hosts.map(() => PARTICIPANT_SHARED),
          participants: hosts,
        }
      : {}),
  }
}

/** The host of a lock's holder in the place where upstream names a node; its own sockets are of this host. */
function hostId(host: string): NodeId {
  const ioAddr = Buffer.alloc(16)
  try {
    return { addr: encodeNodeAddress(host.replace(/^\[|\]$/g, '')), port: 0, ioAddr, ioPort: 0 }
  } catch {
    return { addr: encodeNodeAddress('127.0.0.1'), port: 0, ioAddr, ioPort: 0 }
  }
}

export function findVdi(sheep: Sheep, request: SheepRequest): Vdi {
  const names = bodyOfLength(request, VDI_NAME_SIZE_BYTES, VDI_NAME_SIZE_BYTES + VDI_TAG_SIZE_BYTES)
  const name = cString(names, 0, VDI_NAME_SIZE_BYTES)
  const tag = cString(names, VDI_NAME_SIZE_BYTES, names.length)
  return sheep.state.find(name, { tag, snapId: request.snapId ?? 0 })
}

export function vdiReply(vdi: Vdi): Reply {
  return { result: RESULT.SUCCESS, vdiId: vdi.vid, copies: vdi.copies, blockSizeShift: BLOCK_SIZE_SHIFT_DEFAULT }
}

function* runVids(sheep: Sheep): Generator<number> {
  for (const { first, count } of sheep.state.vdis.probeRuns()) {
    for (let i = 0; i < count; i++) yield (first + i) % VDI_COUNT
  }
}

function bitmap({ dataLength }: SheepRequest): Buffer {
  if (dataLength !== VDI_BITMAP_SIZE_BYTES) throw new StoreError('InvalidParameters', 'the bitmap has 2 MiB')
  return Buffer.alloc(VDI_BITMAP_SIZE_BYTES)
}

function setBit(bits: Buffer, vid: number): void {
  bits[vid >>> 3]! |= 1 << (vid & 7)
}
