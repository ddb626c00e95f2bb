import type { StructuredFormat } from './formats.ts'
import { unacceptable } from './rules.ts'

/**
 * What the bytes of an image say. They are looked at before any program opens it: an image may name other files, and a
 * program that reads those for a user hands him what is not his.
 */

/** A range of an image, cut off at its end. */
export type ReadImage = (offset: number, lengthBytes: number) => Promise<Buffer>

/** Formats that are known by their first bytes, with where those are. */
const SIGNATURES: readonly { format: string; offset: number; bytes: Buffer }[] = [
  { format: 'qcow', offset: 0, bytes: Buffer.from('QFI\xfb', 'latin1') },
  { format: 'vmdk', offset: 0, bytes: Buffer.from('KDMV') },
  { format: 'vmdk', offset: 0, bytes: Buffer.from('COWD') },
  { format: 'vmdk', offset: 0, bytes: Buffer.from('# Disk DescriptorFile') },
  { format: 'vhdx', offset: 0, bytes: Buffer.from('vhdxfile') },
  { format: 'vhd', offset: 0, bytes: Buffer.from('conectix') },
  { format: 'vdi', offset: 64, bytes: Buffer.from([0x7f, 0x10, 0xda, 0xbe]) },
  { format: 'qed', offset: 0, bytes: Buffer.from('QED\0', 'latin1') },
  { format: 'luks', offset: 0, bytes: Buffer.from('LUKS\xba\xbe', 'latin1') },
  { format: 'ploop', offset: 0, bytes: Buffer.from('WithoutFreeSpace') },
  { format: 'ploop', offset: 0, bytes: Buffer.from('WithouFreSpacExt') },
]

const formatOf = (head: Buffer): string | null =>
  SIGNATURES.find(({ offset, bytes }) => head.subarray(offset, offset + bytes.length).equals(bytes))?.format ?? null

/** Throws ImageUnacceptable for an image that claims to be raw and looks like something else. */
export function checkRawHead(imageId: string, head: Buffer, { isEncrypted = false } = {}): void {
  const format = formatOf(head)
  if (format !== null && !(isEncrypted && format === 'luks')) throw otherwise(imageId, 'raw')
}

/** Throws ImageUnacceptable unless it is of that format, and its whole content is in it, in the clear. */
export async function checkStructured(imageId: string, format: StructuredFormat, read: ReadImage): Promise<void> {
  await CHECKS[format](imageId, read)
}

const CHECKS: Readonly<Record<StructuredFormat, (imageId: string, read: ReadImage) => Promise<void>>> = {
  qcow2: checkQcow2,
  vmdk: checkVmdk,
  vdi: checkVdi,
  vhd: checkVhd,
  vhdx: checkVhdx,
}

async function headOf(imageId: string, format: string, read: ReadImage, lengthBytes: number): Promise<Buffer> {
  const head = await read(0, lengthBytes)
  if (head.length < lengthBytes || formatOf(head) !== format) throw otherwise(imageId, format)
  return head
}

const QCOW2_VERSIONS = [2, 3]
/** Bit 2 of the incompatible features: the content is in another file. */
const EXTERNAL_DATA_BIT = 4n

async function checkQcow2(imageId: string, read: ReadImage): Promise<void> {
  const head = await read(0, 104)
  const isQcow2 =
    head.length >= 72 && head.readUInt32BE(0) === 0x514649fb && QCOW2_VERSIONS.includes(head.readUInt32BE(4))
  if (!isQcow2) throw otherwise(imageId, 'qcow2')
  if (head.readBigUInt64BE(8) !== 0n || head.readUInt32BE(16) !== 0) {
    throw unacceptable(imageId, 'fmt=qcow2 backed by another file')
  }
  if (head.readUInt32BE(32) !== 0) throw unacceptable(imageId, 'A qcow2 format image is not allowed to be encrypted')
  const isVersion3 = head.readUInt32BE(4) === 3 && head.length >= 104
  if (isVersion3 && (head.readBigUInt64BE(72) & EXTERNAL_DATA_BIT) !== 0n) {
    throw unacceptable(imageId, 'A qcow2 format image is not allowed to have a data file')
  }
}

const SECTOR_BYTES = 512
/** Where QEMU looks for the description, whatever the header says. */
const VMDK_DESCRIPTION_SECTOR = 1n
const VMDK_DESCRIPTION_BYTES_MAX = 1024 * 1024
/** So much QEMU reads of it, also when the header says that it is shorter. */
const VMDK_DESCRIPTION_BYTES_MIN = 20 * SECTOR_BYTES
/** The subformats that are one file, as in upstream's `vmdk_allowed_types`. */
const VMDK_TYPES = ['streamOptimized', 'monolithicSparse']
const NO_PARENT = /^ffffffff$/i

/** Its description may name other files, as its parent or for its extents. */
async function checkVmdk(imageId: string, read: ReadImage): Promise<void> {
  const head = await headOf(imageId, 'vmdk', read, 64)
  // What is a text, or the old sort for hosts, is in several files.
  if (!head.subarray(0, 4).equals(Buffer.from('KDMV')))
    throw unacceptable(imageId, 'Invalid VMDK create-type specified')
  const [capacity, sector, count] = [12, 28, 36].map((at) => head.readBigUInt64LE(at)) as [bigint, bigint, bigint]
  const lengthBytes = Number(count) * SECTOR_BYTES
  // Without a capacity the description says where the content is.
  if (
    capacity === 0n ||
    sector !== VMDK_DESCRIPTION_SECTOR ||
    count === 0n ||
    lengthBytes > VMDK_DESCRIPTION_BYTES_MAX
  ) {
    throw unacceptable(imageId, 'its description is not where that of a VMDK in one file is')
  }
  const text = await read(SECTOR_BYTES, Math.max(lengthBytes, VMDK_DESCRIPTION_BYTES_MIN))
  const description = text.toString('latin1').split('\0')[0]!
  const lines = description.split('\n').map((line) => line.trim())
  const valuesOf = (key: string): string[] =>
    lines.flatMap((line) => {
      const [name = '', value = ''] = line.split(/=(.*)/s)
      return name.trim().toLowerCase() === key ? [value.trim().replace(/^"(.*)"$/, '$1')] : []
    })
  const types = valuesOf('createtype')
  if (types.length !== 1 || !VMDK_TYPES.includes(types[0]!)) {
    throw unacceptable(imageId, 'Invalid VMDK create-type specified')
  }
  const hasParent = valuesOf('parentcid').some((id) => !NO_PARENT.test(id))
  // QEMU finds it anywhere in the text.
  if (hasParent || description.includes('parentFileNameHint'))
    throw unacceptable(imageId, 'fmt=vmdk backed by another file')
  const extents = lines.filter((line) => /^(RW|RDONLY|NOACCESS)\b/i.test(line))
  if (extents.length !== 1 || !/^RW \d+ SPARSE "[^"/]+"$/.test(extents[0]!)) {
    throw unacceptable(imageId, 'Unsafe or unsupported extents in a VMDK')
  }
}

/** Types of a VDI: 1 grows, 2 is of fixed size, others are differences to another. */
const VDI_WHOLE = [1, 2]

async function checkVdi(imageId: string, read: ReadImage): Promise<void> {
  const head = await headOf(imageId, 'vdi', read, SECTOR_BYTES)
  const links = head.subarray(424, 456) // the ids of what it is linked to and of its parent
  if (!VDI_WHOLE.includes(head.readUInt32LE(76)) || links.some((byte) => byte !== 0)) {
    throw unacceptable(imageId, 'fmt=vdi backed by another file')
  }
}

/** Types of a VHD: 3 grows, 4 is a difference to another. One of fixed size is known by its end only: it passes for raw. */
async function checkVhd(imageId: string, read: ReadImage): Promise<void> {
  const head = await headOf(imageId, 'vhd', read, SECTOR_BYTES)
  const type = head.readUInt32BE(60)
  if (type === 4) throw unacceptable(imageId, 'fmt=vhd backed by another file')
  if (type !== 3) throw otherwise(imageId, 'vhd')
}

const KIB = 1024
const VHDX_REGION_TABLES = [192 * KIB, 256 * KIB]
const VHDX_METADATA_REGION = guid('8b7ca206-4790-4b9a-b8fe-575f050f886e')
const VHDX_FILE_PARAMETERS = guid('caa16737-fa36-4d43-b3b6-33f0aa44e76b')
/** In both tables: a head, then entries of this length that begin with what they are of. */
const VHDX_ENTRY_BYTES = 32
const VHDX_ENTRIES_MAX = 2047
const HAS_PARENT_BIT = 2

async function checkVhdx(imageId: string, read: ReadImage): Promise<void> {
  await headOf(imageId, 'vhdx', read, SECTOR_BYTES)
  for (const at of VHDX_REGION_TABLES) {
    const regions = await vhdxEntries(read, at, { signature: 'regi', countAt: 8, headBytes: 16 })
    for (const region of regions.filter((entry) => entry.subarray(0, 16).equals(VHDX_METADATA_REGION))) {
      const start = Number(region.readBigUInt64LE(16))
      const items = await vhdxEntries(read, start, { signature: 'metadata', countAt: 10, headBytes: 32 })
      const parameters = items.filter((entry) => entry.subarray(0, 16).equals(VHDX_FILE_PARAMETERS))
      if (parameters.length !== 1) throw otherwise(imageId, 'vhdx')
      const content = await read(start + parameters[0]!.readUInt32LE(16), 8)
      if (content.length < 8) throw otherwise(imageId, 'vhdx')
      if ((content.readUInt32LE(4) & HAS_PARENT_BIT) !== 0)
        throw unacceptable(imageId, 'fmt=vhdx backed by another file')
    }
  }
}

/** None when there is no such table. */
async function vhdxEntries(
  read: ReadImage,
  at: number,
  { signature, countAt, headBytes }: { signature: string; countAt: number; headBytes: number },
): Promise<Buffer[]> {
  const head = await read(at, headBytes)
  if (head.length < headBytes || !head.subarray(0, signature.length).equals(Buffer.from(signature))) return []
  const count = Math.min(head.readUInt16LE(countAt), VHDX_ENTRIES_MAX)
  const entries = await read(at + headBytes, count * VHDX_ENTRY_BYTES)
  const whole = Math.floor(entries.length / VHDX_ENTRY_BYTES)
  return Array.from({ length: whole }, (_, index) =>
    entries.subarray(index * VHDX_ENTRY_BYTES, (index + 1) * VHDX_ENTRY_BYTES),
  )
}

/** As Microsoft writes them: the first three parts with the low byte first. */
function guid(text: string): Buffer {
  const bytes = Buffer.from(text.replaceAll('-', ''), 'hex')
  bytes.subarray(0, 4).reverse()
  bytes.subarray(4, 6).reverse()
  bytes.subarray(6, 8).reverse()
  return bytes
}

function otherwise(imageId: string, format: string) {
  const claim = `The image format was claimed to be '${format}' but the image data appears to be in a different format.`
  return unacceptable(imageId, claim)
}
