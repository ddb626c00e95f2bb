import { OBJECTS_PER_VDI_MAX } from './constants.ts'
import { bits64, struct, text, u8, u32, u64, type ValueOf } from './struct.ts'

/**
 * The inode object of a VDI:
 *
 *   header[4664]  dataVdiId u32[2^20]@4664  gref {generation i32, count i32}[2^20]@4198968
 *
 * `dataVdiId[index]` is the vid that owns the data object of that index, 0 when nothing was written there. Clients know
 * the object only up to `gref`, which is the server's own.
 */
export const INODE_HEADER_SIZE_BYTES = 4664
export const INODE_MAP_OFFSET_BYTES = INODE_HEADER_SIZE_BYTES
export const INODE_MAP_ENTRY_SIZE_BYTES = 4
/** What QEMU and tgt read: the header and the block map. */
export const INODE_CLIENT_SIZE_BYTES = INODE_MAP_OFFSET_BYTES + OBJECTS_PER_VDI_MAX * INODE_MAP_ENTRY_SIZE_BYTES
/** The whole object; `dog` reads it all. */
export const INODE_SIZE_BYTES = INODE_CLIENT_SIZE_BYTES + OBJECTS_PER_VDI_MAX * 8

/** The header's used part. Bytes 572..4663 once listed children and stay zero. */
export const inodeHeader = struct(INODE_HEADER_SIZE_BYTES, {
  /** Empty once the VDI is deleted. */
  name: text(0, 256),
  tag: text(256, 256),
  /** Seconds since 1970 in the upper half, nanoseconds in the lower; so are all times here. */
  createTime: bits64(512),
  /** Not zero: a snapshot, which nobody writes to. */
  snapshotTime: bits64(520),
  vmClockNsec: bits64(528),
  vdiSize: u64(536),
  vmStateSize: u64(544),
  copyPolicy: u8(552),
  storePolicy: u8(553),
  copies: u8(554),
  blockSizeShift: u8(555),
  /** Counts the snapshots of a name, from 1. */
  snapId: u32(556),
  vdiId: u32(560),
  parentVdiId: u32(564),
})

export type InodeHeader = ValueOf<typeof inodeHeader>

/** A time in milliseconds since 1970 as inodes, MAKE_FS and cluster_info hold it. */
export function encodeTime(unixMs: number): bigint {
  const seconds = Math.floor(unixMs / 1000)
  return (BigInt(seconds) << 32n) | BigInt(Math.floor((unixMs - seconds * 1000) * 1e6))
}

export function decodeTime(time: bigint): number {
  return Number(time >> 32n) * 1000 + Number(time & 0xffff_ffffn) / 1e6
}
