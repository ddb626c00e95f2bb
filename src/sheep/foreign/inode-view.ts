import { BLOCK_SIZE_SHIFT_DEFAULT, OBJECT_SIZE_BYTES } from '../../protocol/constants.ts'
import {
  encodeTime,
  INODE_CLIENT_SIZE_BYTES,
  INODE_HEADER_SIZE_BYTES,
  INODE_MAP_ENTRY_SIZE_BYTES,
  INODE_MAP_OFFSET_BYTES,
  INODE_SIZE_BYTES,
  inodeHeader,
} from '../../protocol/inode.ts'
import { inodeOid } from '../../protocol/oid.ts'
import type { Vdi } from '../entries.ts'
import type { Sheep } from '../sheep.ts'
import { HOLE_VID } from '../vdi-table.ts'

/**
 * A range of a VDI's inode object, as clients know it. No such object is stored: the header comes from the VDI's record, the block
 * map from its pages, and the server's own part reads as zeros. With `fillHoles` each hole names an object of HOLE_VID.
 * Of a deleted VDI nothing is left but zeros, which is how clients know it. Null when no VDI has or had the vid.
 */
export async function readInode(
  sheep: Sheep,
  vid: number,
  offset: number,
  length: number,
  { fillHoles = false }: { fillHoles?: boolean } = {},
): Promise<Buffer | null> {
  const vdi = sheep.state.vdis.get(vid)
  if (!vdi || vdi.deleting) return vdi || sheep.state.vdis.isGap(vid) ? Buffer.alloc(length) : null
  const target = Buffer.alloc(length)
  encodeHeader(sheep, vdi).copy(target, 0, Math.min(offset, INODE_HEADER_SIZE_BYTES))
  const start = Math.max(offset, INODE_MAP_OFFSET_BYTES)
  const end = Math.min(offset + length, INODE_CLIENT_SIZE_BYTES, mapEnd(vdi))
  if (start >= end) return target
  const map = target.subarray(start - offset, end - offset)
  if (sheep.objects.exists(inodeOid(vid))) {
    await sheep.objects.readAll(inodeOid(vid), start - INODE_MAP_OFFSET_BYTES, map)
  }
  if (fillHoles) nameHoles(map, (start - INODE_MAP_OFFSET_BYTES) % INODE_MAP_ENTRY_SIZE_BYTES)
  return target
}

/** Whether a range lies within an inode object. */
export const isInInode = (offset: number, length: number): boolean => offset + length <= INODE_SIZE_BYTES

export function encodeHeader(sheep: Sheep, vdi: Vdi): Buffer {
  return inodeHeader.encode({
    name: vdi.name,
    tag: vdi.snapshotAt > 0 ? vdi.tag : (vdi.header?.tag ?? ''),
    createTime: encodeTime(vdi.createdAt),
    snapshotTime: vdi.snapshotAt > 0 ? encodeTime(vdi.snapshotAt) : 0n,
    vmClockNsec: BigInt(vdi.header?.vmClockNsec ?? 0),
    vdiSize: vdi.sizeBytes,
    vmStateSize: vdi.header?.vmStateBytes ?? 0,
    copies: vdi.copies,
    blockSizeShift: BLOCK_SIZE_SHIFT_DEFAULT,
    snapId: vdi.snapId,
    vdiId: vdi.vid,
    parentVdiId: parentOf(sheep, vdi),
  })
}

/** A parent that is gone may have left its vid to a stranger. */
function parentOf(sheep: Sheep, vdi: Vdi): number {
  return sheep.state.vdis.get(vdi.parentVid)?.family === vdi.family ? vdi.parentVid : 0
}

/** Where the entries of a VDI's map end: those after it are never used. */
function mapEnd(vdi: Vdi): number {
  return INODE_MAP_OFFSET_BYTES + Math.ceil(vdi.sizeBytes / OBJECT_SIZE_BYTES) * INODE_MAP_ENTRY_SIZE_BYTES
}

/** `skew`: how far into an entry the range begins; a client asks for whole entries, or for a single byte of the header. */
function nameHoles(map: Buffer, skew: number): void {
  for (let at = skew === 0 ? 0 : INODE_MAP_ENTRY_SIZE_BYTES - skew; at + INODE_MAP_ENTRY_SIZE_BYTES <= map.length; ) {
    if (map.readUInt32LE(at) === 0) map.writeUInt32LE(HOLE_VID, at)
    at += INODE_MAP_ENTRY_SIZE_BYTES
  }
}
