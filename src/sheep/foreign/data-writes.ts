import { StoreError } from '../../errors.ts'
import { FLAG, OBJECTS_PER_VDI_MAX, RESULT } from '../../protocol/constants.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import { oidIndex, oidKind, oidVid } from '../../protocol/oid.ts'
import { OP } from '../../protocol/opcodes.ts'
import { resultOf } from '../../results.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../object-format.ts'
import type { StoreDone } from '../object-store.ts'
import type { Reply } from '../server.ts'
import type { Session } from '../session.ts'
import type { Sheep } from '../sheep.ts'
import type { Sender } from './writers.ts'

export const creates = (request: SheepRequest): boolean => request.opcode === OP.CREATE_AND_WRITE_OBJ

/** Clients that leave out the flag CACHE send no flush. */
export const isDurable = ({ flags = 0 }: SheepRequest): boolean => (flags & FLAG.CACHE) === 0

/** CREATE_AND_WRITE_OBJ and WRITE_OBJ of a data object, through the owner of its VDI. */
export function writeData(sheep: Sheep, request: SheepRequest, sender: Sender, done: StoreDone): void {
  const { oid = 0n } = request
  withCurrent(sheep, oidVid(oid), oidIndex(oid), sender, done, (session) => {
    writeCurrent(session, oidIndex(oid), request, done)
  })
}

/** DISCARD_OBJ of older QEMUs: the object reads as zeros from now on, and the map forgets it. */
export function discardObject(
  sheep: Sheep,
  request: SheepRequest,
  sender: Sender,
  reply: (response: Reply) => void,
): void {
  const { oid = 0n } = request
  const done: StoreDone = (error) => reply({ result: error ? resultOf(error) : RESULT.SUCCESS })
  if (oidKind(oid) === 'data') discardIndex(sheep, oidVid(oid), oidIndex(oid), isDurable(request), sender, done)
  else done(new StoreError('InvalidParameters', 'not a data object'))
}

export function discardIndex(
  sheep: Sheep,
  vid: number,
  index: number,
  durable: boolean,
  sender: Sender,
  done: StoreDone,
): void {
  withCurrent(sheep, vid, index, sender, done, (session) => {
    const offset = index * OBJECT_BYTES
    const length = Math.min(OBJECT_BYTES, session.sizeBytes - offset)
    if (length <= 0) done(new StoreError('InvalidParameters', 'beyond the end of the VDI'))
    else session.discard(offset, length, durable, done)
  })
}

/** Calls `use` when the VDI is the one that the client means, it may write to it, and its map is loaded at the index. */
function withCurrent(
  sheep: Sheep,
  vid: number,
  index: number,
  sender: Sender,
  done: StoreDone,
  use: (session: Session) => void,
): void {
  if (index >= OBJECTS_PER_VDI_MAX) return done(new StoreError('InvalidParameters', 'no VDI is so large'))
  sheep.writers.withSession(vid, sender, done, (session) => {
    session.whenCurrent(vid, { first: index, count: 1 }, lateFor(sheep, vid, done), () => use(session))
  })
}

/** Refused late, because the VDI goes on under another vid. READONLY is for a snapshot; rolled back, it is gone. */
function lateFor(sheep: Sheep, vid: number, done: StoreDone): StoreDone {
  return (error) => {
    const isGone = error?.code === 'ReadOnly' && (sheep.state.vdis.get(vid)?.deleting ?? true)
    done(isGone ? new StoreError('NoObject') : error)
  }
}

function writeCurrent(session: Session, index: number, request: SheepRequest, done: StoreDone): void {
  const { offset: at = 0, body = Buffer.alloc(0) } = request
  const offset = index * OBJECT_BYTES + at
  const room = session.sizeBytes - offset
  const owner = session.ownerOf(index)
  if (room <= 0 && body.length > 0) done(new StoreError('InvalidParameters', 'beyond the end of the VDI'))
  else if (owner !== session.vid && !creates(request)) done(new StoreError('NoObject'))
  else if (body.length === 0) allocate(session, index, owner, done)
  // Whole objects are sent for the last one too; what is behind the end of the VDI is nobody's.
  else session.write(offset, body.subarray(0, Math.min(body.length, room)), isDurable(request), done)
}

/** CREATE_AND_WRITE without bytes, by which `dog` allocates an object. */
function allocate(session: Session, index: number, owner: number, done: StoreDone): void {
  const offset = index * OBJECT_BYTES
  if (owner === session.vid) done(null)
  else if (owner !== 0 || offset >= session.sizeBytes) done(new StoreError('InvalidParameters', 'nothing to create'))
  else session.write(offset, Buffer.alloc(Math.min(BLOCK_BYTES, session.sizeBytes - offset)), false, done)
}
