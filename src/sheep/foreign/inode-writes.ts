import { StoreError, toStoreError } from '../../errors.ts'
import {
  INODE_CLIENT_SIZE_BYTES,
  INODE_HEADER_SIZE_BYTES,
  INODE_MAP_ENTRY_SIZE_BYTES,
  INODE_MAP_OFFSET_BYTES,
  inodeHeader,
} from '../../protocol/inode.ts'
import { dataOid } from '../../protocol/oid.ts'
import { decodeText } from '../../protocol/struct.ts'
import { QEMU_PROTO_VER } from '../locks.ts'
import type { StoreDone } from '../object-store.ts'
import type { Session } from '../session.ts'
import type { Sheep } from '../sheep.ts'
import { HOLE_VID } from '../vdi-table.ts'
import { discardIndex } from './data-writes.ts'
import { encodeHeader } from './inode-view.ts'
import type { Sender } from './writers.ts'

export interface InodeWrite {
  vid: number
  offset: number
  bytes: Buffer
  durable: boolean
  /** The number that the client gave the request. */
  id: number
}

/**
 * What clients write into the inode of a VDI.
 *
 * Header: the tag of the next snapshot, size and clock of the machine state, and a larger size of the VDI. Anything else
 * must be what it was, or the write is refused as a whole.
 *
 * Map: only the owner maps. So a write to the map never makes an entry:
 *
 * 1. A single entry of 0 may be QEMU's discard, by which the object goes; held-discards.ts says when it is not.
 * 2. Anything else is a client's picture of the map, and is accepted when it fits: an entry of the VDI itself needs its object.
 *    Other entries of a longer range may be out of date and change nothing; nor do zeros, which `dog` and QEMU write
 *    over a whole map before DEL_VDI. DEL_VDI needs no such help, and QEMU does it to the working VDI when it was asked to
 *    delete a snapshot.
 * 3. A single other entry must be what the map says: QEMU's confirmation of an object that the snapshot kept.
 */
export function writeInode(sheep: Sheep, write: InodeWrite, sender: Sender, done: StoreDone): void {
  const { offset, bytes } = write
  const end = offset + bytes.length
  const mapStart = Math.max(offset, INODE_MAP_OFFSET_BYTES)
  const isWhole = (at: number) => (at - INODE_MAP_OFFSET_BYTES) % INODE_MAP_ENTRY_SIZE_BYTES === 0
  if (end > INODE_CLIENT_SIZE_BYTES || (end > mapStart && !(isWhole(mapStart) && isWhole(end)))) {
    done(new StoreError('InvalidParameters', 'no range of an inode that clients write'))
    return
  }
  const map = { ...write, offset: mapStart, bytes: bytes.subarray(mapStart - offset) }
  if (offset >= INODE_MAP_OFFSET_BYTES) return writeMap(sheep, map, sender, done)
  const header = bytes.subarray(0, INODE_HEADER_SIZE_BYTES - offset)
  writeHeader(sheep, write.vid, offset, header).then(
    () => (map.bytes.length > 0 ? writeMap(sheep, map, sender, done) : done(null)),
    (error) => done(toStoreError(error)),
  )
}

async function writeHeader(sheep: Sheep, vid: number, offset: number, bytes: Buffer): Promise<void> {
  const vdi = sheep.state.vdis.get(vid)
  if (!vdi || vdi.deleting) throw new StoreError('NoObject')
  if (vdi.snapshotAt > 0) throw new StoreError('ReadOnly', vdi.name)
  const before = encodeHeader(sheep, vdi)
  const after = Buffer.from(before)
  bytes.copy(after, offset)
  for (const { offset: at, sizeBytes } of [inodeHeader.fields.name, inodeHeader.fields.tag]) {
    if (decodeText(after.subarray(at, at + sizeBytes)) === null)
      throw new StoreError('InvalidParameters', 'a name or a tag that is not UTF-8')
  }
  if (!withoutClientFields(before).equals(withoutClientFields(after)))
    throw new StoreError('InvalidParameters', 'a field of the inode that clients do not change')
  const { tag, vdiSize, vmStateSize, vmClockNsec } = inodeHeader.decode(after)
  if (!Number.isSafeInteger(vdiSize) || !Number.isSafeInteger(vmStateSize))
    throw new StoreError('InvalidParameters', 'a size that nothing has')
  if (vdiSize < vdi.sizeBytes) throw new StoreError('InvalidParameters', 'a VDI cannot shrink')
  if (vdiSize > vdi.sizeBytes) await growVdi(sheep, vid, vdiSize)
  await sheep.setHeader(vid, { tag, vmStateBytes: vmStateSize, vmClockNsec: vmClockNsec.toString() })
}

function withoutClientFields(header: Buffer): Buffer {
  const { tag, vdiSize, vmStateSize, vmClockNsec } = inodeHeader.fields
  const rest = Buffer.from(header)
  for (const { offset, sizeBytes } of [tag, vdiSize, vmStateSize, vmClockNsec]) rest.fill(0, offset, offset + sizeBytes)
  return rest
}

/** Who has made an attachment tells the size of its volume. */
async function growVdi(sheep: Sheep, vid: number, sizeBytes: number): Promise<void> {
  if (sheep.state.exports.countOf(vid) > 0) throw new StoreError('VdiLocked', 'it is under an attachment')
  await sheep.resizeVdi(vid, sizeBytes)
}

function writeMap(sheep: Sheep, write: InodeWrite, sender: Sender, done: StoreDone): void {
  const { vid, offset, bytes, durable, id } = write
  const first = (offset - INODE_MAP_OFFSET_BYTES) / INODE_MAP_ENTRY_SIZE_BYTES
  const count = bytes.length / INODE_MAP_ENTRY_SIZE_BYTES
  const vdi = sheep.state.vdis.get(vid)
  if (!vdi || vdi.deleting) return done(new StoreError('NoObject'))
  if (count !== 1 && isZero(bytes)) return done(null)
  if (vdi.snapshotAt > 0) {
    // A discard of the writer, who has to learn of the snapshot; not one of those who clear the map of what they delete.
    const isDiscard = sheep.writers.writes(vdi.name, sender.client)
    return done(isZero(bytes) && !isDiscard ? null : new StoreError('ReadOnly', vdi.name))
  }
  if (count === 1 && isZero(bytes)) {
    const isLocked = () => sheep.state.locks.has(vdi.name)
    const isOfQemu = sender.protoVer === QEMU_PROTO_VER && isLocked()
    const isClear = id !== 0 || !isOfQemu || sheep.writers.hasWritten(vdi.name, sender.client)
    if (isClear) return discardIndex(sheep, vid, first, durable, sender, done)
    const isOneAtEnd = () => !isLocked()
    sheep.heldDiscards.hold(sender, isOneAtEnd, (by, then) => discardIndex(sheep, vid, first, durable, by, then))
    return done(null)
  }
  sheep.writers.withSession(vid, sender, done, (session) => {
    session.whenCurrent(vid, { first, count }, done, () => done(misfit(sheep, session, first, bytes)))
  })
}

/** What is wrong with a picture of the map; null when it fits. */
function misfit(sheep: Sheep, session: Session, first: number, bytes: Buffer): StoreError | null {
  const count = bytes.length / INODE_MAP_ENTRY_SIZE_BYTES
  for (let i = 0; i < count; i++) {
    const value = bytes.readUInt32LE(i * INODE_MAP_ENTRY_SIZE_BYTES)
    const entry = session.ownerOf(first + i)
    if (value === entry || value === HOLE_VID || (value === 0 && count > 1)) continue
    if (value === session.vid) return new StoreError('InvalidParameters', `there is no object ${first + i}`)
    const isKnown = sheep.state.vdis.has(value) && sheep.objects.exists(dataOid(value, first + i))
    if (count === 1 || !isKnown) return new StoreError('InvalidParameters', `not the map's entry ${first + i}`)
  }
  return null
}

const isZero = (bytes: Buffer): boolean => bytes.every((byte) => byte === 0)
