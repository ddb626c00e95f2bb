/**
 * Object ids. Bits: 63 VDI (inode), 62 VMSTATE, 61 ATTR, 60 BTREE, 59 LEDGER; 32..55 the vid; 0..31 an index within it.
 * None of the upper bits set means data.
 */
export type OidKind = 'data' | 'inode' | 'vmstate' | 'attr' | 'btree' | 'ledger'

const KIND_BITS = {
  inode: 1n << 63n,
  vmstate: 1n << 62n,
  attr: 1n << 61n,
  btree: 1n << 60n,
  ledger: 1n << 59n,
} as const

const VID_SHIFT = 32n
const VID_MAX = 0xff_ffff
const VID_MASK = BigInt(VID_MAX)
const INDEX_MASK = 0xffff_ffffn

const oid = (vid: number, index: number) => firstOf(vid) | BigInt(index)

let last = { vid: 0, first: 0n }

/** Each operation on such a number makes another one; requests that follow each other are mostly about the same VDI. */
function firstOf(vid: number): bigint {
  if (vid !== last.vid) last = { vid, first: BigInt(vid) << VID_SHIFT }
  return last.first
}

export const dataOid = (vid: number, index: number): bigint => oid(vid, index)
export const inodeOid = (vid: number): bigint => KIND_BITS.inode | oid(vid, 0)
export const vmstateOid = (vid: number, index: number): bigint => KIND_BITS.vmstate | oid(vid, index)
export const attrOid = (vid: number, attrId: number): bigint => KIND_BITS.attr | oid(vid, attrId)

export const oidVid = (id: bigint): number => Number(id >> VID_SHIFT) & VID_MAX
export const oidIndex = (id: bigint): number => Number(id & INDEX_MASK)

/** The object of another vid with the same kind and index. */
export const withVid = (id: bigint, vid: number): bigint => (id & ~(VID_MASK << VID_SHIFT)) | (BigInt(vid) << VID_SHIFT)

/** What the object is; null for an id of no object: bits that no kind has (56..58), two kinds, an inode with an index. */
export function oidKind(id: bigint): OidKind | null {
  if (id >> 56n === 0n) return 'data'
  for (const [kind, bit] of Object.entries(KIND_BITS)) {
    if (id >> 56n !== bit >> 56n) continue
    return kind === 'inode' && (id & INDEX_MASK) !== 0n ? null : (kind as OidKind)
  }
  return null
}

/** 16 hexadecimal digits, as `dog` prints object ids. */
export const formatOid = (id: bigint): string => id.toString(16).padStart(16, '0')
