import { unacceptable } from './rules.ts'

/**
 * What the first bytes of an image say. They are looked at before any program opens it: an image may name other files, and a
 * program that reads those for a user hands him what is not his.
 */

/** How many bytes these functions need, or all that there are. */
export const HEAD_BYTES = 65_536

/** Formats that are known by their first bytes, with where those are. */
const SIGNATURES: readonly { format: string; offset: number; bytes: Buffer }[] = [
  { format: 'qcow', offset: 0, bytes: Buffer.from('QFI\xfb', 'latin1') },
  { format: 'vmdk', offset: 0, bytes: Buffer.from('KDMV') },
  { format: 'vmdk', offset: 0, bytes: Buffer.from('COWD') },
  { format: 'vmdk', offset: 0, bytes: Buffer.from('# Disk DescriptorFile') },
  { format: 'vhdx', offset: 0, bytes: Buffer.from('vhdxfile') },
  { format: 'vpc', offset: 0, bytes: Buffer.from('conectix') },
  { format: 'vdi', offset: 64, bytes: Buffer.from([0x7f, 0x10, 0xda, 0xbe]) },
  { format: 'qed', offset: 0, bytes: Buffer.from('QED\0', 'latin1') },
  { format: 'luks', offset: 0, bytes: Buffer.from('LUKS\xba\xbe', 'latin1') },
  { format: 'parallels', offset: 0, bytes: Buffer.from('WithoutFreeSpace') },
  { format: 'parallels', offset: 0, bytes: Buffer.from('WithouFreSpacExt') },
]

/** Throws ImageUnacceptable for an image that claims to be raw and looks like something else. */
export function checkRawHead(imageId: string, head: Buffer): void {
  const looksLike = SIGNATURES.find(({ offset, bytes }) => head.subarray(offset, offset + bytes.length).equals(bytes))
  if (looksLike === undefined) return
  const reason = "The image format was claimed to be 'raw' but the image data appears to be in a different format."
  throw unacceptable(imageId, reason)
}

const QCOW2_HEADER_BYTES_MIN = 72
const QCOW2_VERSIONS = [2, 3]
/** Bit 2 of the incompatible features: the content is in another file. */
const EXTERNAL_DATA_BIT = 4n

/** Throws ImageUnacceptable unless it is qcow2 whose whole content is in it, in the clear. */
export function checkQcow2Head(imageId: string, head: Buffer): void {
  const isQcow2 =
    head.length >= QCOW2_HEADER_BYTES_MIN &&
    head.readUInt32BE(0) === 0x514649fb &&
    QCOW2_VERSIONS.includes(head.readUInt32BE(4))
  if (!isQcow2) {
    const reason = "The image format was claimed to be 'qcow2' but the image data appears to be in a different format."
    throw unacceptable(imageId, reason)
  }
  if (head.readBigUInt64BE(8) !== 0n || head.readUInt32BE(16) !== 0) {
    throw unacceptable(imageId, 'fmt=qcow2 backed by another file')
  }
  if (head.readUInt32BE(32) !== 0) throw unacceptable(imageId, 'A qcow2 format image is not allowed to be encrypted')
  const isVersion3 = head.readUInt32BE(4) === 3 && head.length >= 104
  if (isVersion3 && (head.readBigUInt64BE(72) & EXTERNAL_DATA_BIT) !== 0n) {
    throw unacceptable(imageId, 'A qcow2 format image is not allowed to have a data file')
  }
}
