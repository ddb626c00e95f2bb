import { StoreError } from '../../errors.ts'
import { FLAG, RESULT } from '../../protocol/constants.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import { inodeOid, oidIndex, oidKind, oidVid, vmstateOid } from '../../protocol/oid.ts'
import { resultOf } from '../../results.ts'
import { OBJECT_BYTES } from '../object-format.ts'
import type { StoreDone } from '../object-store.ts'
import type { Reply } from '../server.ts'
import type { Sheep } from '../sheep.ts'
import { HOLE_VID } from '../vdi-table.ts'
import { attributeObject } from './attribute-requests.ts'
import { creates, isDurable, writeData } from './data-writes.ts'
import { isInInode, readInode } from './inode-view.ts'
import { writeInode } from './inode-writes.ts'
import type { Sender } from './writers.ts'

/**
 * Requests that name an object, as clients send them that keep a VDI's inode themselves:
 *
 *   data     the VDI's own objects, through its owner; what a client says about copy on write is not needed
 *   inode    synthesized; see inode-view.ts and inode-writes.ts
 *   vmstate  machine state, plain bytes that go with the vid that was written
 *   attr     read only; written by GET_VDI_ATTR
 *
 * 1. A write to a VDI that has become a snapshot is answered with READONLY: the client looks for the working VDI and sends it
 *    again. What was answered with SUCCESS before is in the snapshot.
 * 2. CREATE_AND_WRITE commits the object and its entry in the map before it is acknowledged. The client's own write to the
 *    map, which follows, changes nothing.
 * 3. Without the flag CACHE a write is durable when it is answered: such a client sends no flush.
 */
type Answer = (response: Reply) => void

export function readObject(sheep: Sheep, request: SheepRequest, sender: Sender, reply: Answer): void {
  const { oid = 0n, offset = 0, dataLength = 0 } = request
  const kind = oidKind(oid)
  if (kind === 'data' || kind === 'vmstate') readPlain(sheep, { oid, offset, dataLength }, sender, reply)
  else if (kind === 'inode') settle(inodeAnswer(sheep, request), reply)
  else if (kind === 'attr') settle(attributeAnswer(sheep, oid, offset, dataLength), reply)
  else reply({ result: RESULT.INVALID_PARMS })
}

export function writeObject(sheep: Sheep, request: SheepRequest, sender: Sender, reply: Answer): void {
  const { oid = 0n, offset = 0, body = Buffer.alloc(0), id = 0 } = request
  const done: StoreDone = (error) => reply({ result: error ? resultOf(error) : RESULT.SUCCESS, copies: sheep.copies })
  const kind = oidKind(oid)
  const durable = isDurable(request)
  if (!request.body && request.dataLength) {
    done(new StoreError('InvalidParameters', 'a write without the flag WRITE has no body'))
  } else if ((kind === 'data' || kind === 'vmstate') && offset + body.length > OBJECT_BYTES) {
    done(new StoreError('InvalidParameters', 'beyond the object'))
  } else if (kind === 'data') writeData(sheep, request, sender, done)
  else if (kind === 'vmstate') settle(writeVmstate(sheep, request, sender), reply)
  else if (kind === 'inode' && !creates(request)) {
    writeInode(sheep, { vid: oidVid(oid), offset, bytes: body, durable, id }, sender, done)
  } else done(new StoreError('InvalidParameters', 'no object of a kind that clients write'))
}

/** Bytes of any object as clients see it; null when there is none. */
export async function wholeObject(sheep: Sheep, oid: bigint): Promise<Buffer | null> {
  const kind = oidKind(oid)
  if (kind === 'attr') return attributeObject(sheep, oid)
  if (kind === 'inode') return readInode(sheep, oidVid(oid), 0, INODE_HASHED_BYTES)
  if (!objectExists(sheep, oid)) return null
  const bytes = Buffer.alloc(OBJECT_BYTES)
  await sheep.objects.readAll(oid, 0, bytes)
  return bytes
}

export function objectExists(sheep: Sheep, oid: bigint): boolean {
  const kind = oidKind(oid)
  if (kind === 'inode') {
    const vdi = sheep.state.vdis.get(oidVid(oid))
    return vdi !== undefined && !vdi.deleting && oid === inodeOid(vdi.vid)
  }
  return (kind === 'data' || kind === 'vmstate' || kind === 'attr') && sheep.objects.exists(oid)
}

/** The header and the map: what follows is no client's business. */
const INODE_HASHED_BYTES = 4198968
const VMSTATE_OBJECTS_MAX = 1 << 20

function settle(answer: Promise<Reply>, reply: Answer): void {
  answer.then(reply, (error) => reply({ result: resultOf(error) }))
}

function readPlain(
  sheep: Sheep,
  { oid, offset, dataLength }: { oid: bigint; offset: number; dataLength: number },
  { client, protoVer }: Sender,
  reply: Answer,
): void {
  const vid = oidVid(oid)
  if (offset + dataLength > OBJECT_BYTES) return reply({ result: RESULT.INVALID_PARMS })
  if (vid === HOLE_VID) return reply({ result: RESULT.SUCCESS, body: Buffer.alloc(dataLength) })
  const vdi = sheep.state.vdis.get(vid)
  if (!vdi) return reply({ result: RESULT.NO_OBJ })
  if (sheep.state.locks.size > 0) sheep.locks.noteUser(vdi.name, client, protoVer)
  const body = Buffer.allocUnsafe(dataLength)
  sheep.objects.read(oid, offset, body, (error) => {
    reply(error ? { result: resultOf(error) } : { result: RESULT.SUCCESS, copies: sheep.copies, body })
  })
}

async function inodeAnswer(sheep: Sheep, request: SheepRequest): Promise<Reply> {
  const { oid = 0n, offset = 0, dataLength = 0, flags = 0 } = request
  if (!isInInode(offset, dataLength)) return { result: RESULT.INVALID_PARMS }
  const fromTgt = (flags & FLAG.TGT) !== 0
  const body = await readInode(sheep, oidVid(oid), offset, dataLength, { fillHoles: fromTgt })
  // tgt asks again for ever when there is no object.
  if (!body) return { result: fromTgt ? RESULT.NO_VDI : RESULT.NO_OBJ }
  return { result: RESULT.SUCCESS, copies: sheep.copies, body }
}

async function attributeAnswer(sheep: Sheep, oid: bigint, offset: number, dataLength: number): Promise<Reply> {
  const bytes = await attributeObject(sheep, oid)
  if (!bytes) return { result: RESULT.NO_OBJ }
  if (offset + dataLength > bytes.length) return { result: RESULT.INVALID_PARMS }
  return { result: RESULT.SUCCESS, copies: sheep.copies, body: bytes.subarray(offset, offset + dataLength) }
}

async function writeVmstate(sheep: Sheep, request: SheepRequest, { client, protoVer }: Sender): Promise<Reply> {
  const { oid = 0n, offset = 0, body = Buffer.alloc(0) } = request
  const [vid, index] = [oidVid(oid), oidIndex(oid)]
  const check = () => {
    const vdi = sheep.state.vdis.get(vid)
    if (!vdi || vdi.deleting) throw new StoreError('NoObject')
    if (vdi.snapshotAt > 0) throw new StoreError('ReadOnly', vdi.name)
    if (!sheep.locks.allows(vdi.name, client, protoVer) || sheep.state.exports.countOf(vid) > 0)
      throw new StoreError('VdiLocked', vdi.name)
  }
  check()
  if (index >= VMSTATE_OBJECTS_MAX || oid !== vmstateOid(vid, index)) throw new StoreError('InvalidParameters')
  await sheep.growVmstate(vid, index + 1)
  await sheep.objects.write(oid, offset, body, { create: creates(request), durable: isDurable(request), check })
  return { result: RESULT.SUCCESS, copies: sheep.copies }
}
