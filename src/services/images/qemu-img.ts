import { ServiceError } from '../../errors.ts'
import { type ProgramEnd, runProgram } from '../../runtime/programs.ts'
import { qemuNameOf, type StructuredFormat } from './formats.ts'
import { unacceptable } from './rules.ts'

/**
 * QEMU's own tool, for images of others. What it reads may be made to keep it busy or to fill its memory, so that it gets so
 * much of both and no more.
 */
const CPU_SECONDS_MAX = 60
const ADDRESS_SPACE_BYTES_MAX = 1024 ** 3
/** Less than an attempt of work may take. */
const WALL_MS_MAX = 45_000

/** What it says of an image. Throws ImageUnacceptable for one that takes part of its content from elsewhere. */
export async function virtualSizeOf(imageId: string, format: StructuredFormat, path: string): Promise<number> {
  const end = await qemuImg(['info', '--output=json', '-f', qemuNameOf(format), path])
  if (end.code !== 0) throw unacceptable(imageId, `qemu-img cannot read it: ${lastLine(end.err)}`)
  const info = JSON.parse(end.out) as {
    'virtual-size': number
    encrypted?: boolean
    'backing-filename'?: string
    'format-specific'?: { data?: { 'data-file'?: string } }
  }
  const backing = info['backing-filename']
  if (backing !== undefined) throw unacceptable(imageId, `fmt=${format} backed by: ${backing}`)
  if (info['format-specific']?.data?.['data-file'] !== undefined) {
    throw unacceptable(imageId, `A ${format} format image is not allowed to have a data file`)
  }
  if (info.encrypted) throw unacceptable(imageId, `A ${format} format image is not allowed to be encrypted`)
  return info['virtual-size']
}

/** Writes a range of the disk that an image describes to a new raw file, with holes where the disk has zeros. */
export async function convertRange(
  { id: imageId, format }: { id: string; format: StructuredFormat },
  { from, to, offset, lengthBytes }: { from: string; to: string; offset: number; lengthBytes: number },
): Promise<void> {
  const disk = { driver: qemuNameOf(format), backing: null, file: { driver: 'file', filename: from } }
  const range = `json:${JSON.stringify({ driver: 'raw', offset, size: lengthBytes, file: disk })}`
  const end = await qemuImg(['convert', '-O', 'raw', range, to], lengthBytes)
  if (end.code !== 0) throw unacceptable(imageId, `qemu-img cannot convert it: ${lastLine(end.err)}`)
}

/** Formats that it writes for us. */
export type WrittenFormat = Exclude<StructuredFormat, 'qcow2'>

const MIB = 1024 ** 2

/** The piece that a format allocates at a time, and options without which it would depend on the size of the disk. */
const WRITING: Readonly<Record<WrittenFormat, { blockBytes: number; options?: string }>> = {
  vmdk: { blockBytes: 64 * 1024 },
  vdi: { blockBytes: MIB },
  // Else it rounds the disk up to whole cylinders, and no volume of its size could be made of the image.
  vhd: { blockBytes: 2 * MIB, options: 'force_size=on' },
  vhdx: { blockBytes: 8 * MIB, options: `block_size=${8 * MIB}` },
}

export const blockBytesOf = (format: WrittenFormat): number => WRITING[format].blockBytes

/** What an image takes at most that holds data in so many of its blocks: those with what is noted of each, and its tables. */
export function imageBytesMax(format: WrittenFormat, diskBytes: number, blocks: number): number {
  return 16 * MIB + Math.ceil(diskBytes / 4096) + blocks * (blockBytesOf(format) + 4096)
}

/** What is written to an image of the service's: a failure says which image that is. */
export interface Writing {
  imageId: string
  format: WrittenFormat
  path: string
  /** The longest that the file may become. */
  fileBytesMax: number
}

/** Makes the image of a disk of zeros. Throws ImageUploadFailed, for a disk that the format has no room for too. */
export async function createImage(writing: Writing, diskBytes: number): Promise<void> {
  const { format, path, fileBytesMax } = writing
  const { options } = WRITING[format]
  const how = ['-f', qemuNameOf(format), ...(options === undefined ? [] : ['-o', options])]
  checkWritten(writing, await qemuImg(['create', '-q', ...how, path, String(diskBytes)], fileBytesMax))
}

/** Writes a raw file, but for its zeros, to a range of the disk of such an image, where nothing was written before. */
export async function writeRange(
  writing: Writing,
  { from, offset, lengthBytes }: { from: string; offset: number; lengthBytes: number },
): Promise<void> {
  const { format, path, fileBytesMax } = writing
  const file = { driver: 'file', filename: path }
  const range = { driver: 'raw', offset, size: lengthBytes, file: { driver: qemuNameOf(format), file } }
  const target = ['-n', '--target-is-zero', '-f', 'raw', '--target-image-opts']
  const end = await qemuImg(['convert', ...target, from, optionsOf(range)], fileBytesMax)
  checkWritten(writing, end)
}

/** `a.b=c,a.d=e`: in this place it does not take JSON. */
function optionsOf(node: object, prefix = ''): string {
  return Object.entries(node)
    .map(([key, value]) =>
      typeof value === 'object'
        ? optionsOf(value, `${prefix}${key}.`)
        : `${prefix}${key}=${String(value).replaceAll(',', ',,')}`,
    )
    .join(',')
}

function checkWritten({ imageId: image_id, format }: Writing, end: ProgramEnd): void {
  if (end.code === 0) return
  const reason = `qemu-img cannot write it as ${format}: ${lastLine(end.err)}`
  throw new ServiceError('ImageUploadFailed', { image_id, reason })
}

async function qemuImg(args: readonly string[], fileBytesMax = 0): Promise<ProgramEnd> {
  const limits = [`--cpu=${CPU_SECONDS_MAX}`, `--as=${ADDRESS_SPACE_BYTES_MAX}`, `--fsize=${fileBytesMax}`, '--core=0']
  // glibc gives each thread an arena of its own, which the address space would not hold.
  const env = { PATH: '/usr/bin:/bin', LC_ALL: 'C', MALLOC_ARENA_MAX: '1' }
  const end = await runProgram('prlimit', [...limits, 'qemu-img', ...args], {
    env,
    signal: AbortSignal.timeout(WALL_MS_MAX),
  }).catch((error: Error) => {
    throw missing(error)
  })
  // As a shell, and so prlimit, says that there is no such program.
  if (end.code === 127 || /failed to execute/.test(end.err)) throw missing()
  return end
}

function missing(cause?: Error): ServiceError {
  const reason = 'qemu-img is not installed, and only raw images can be used without it'
  return new ServiceError('ImageRefused', { reason }, { cause })
}

function lastLine(text: string): string {
  return text.slice(text.lastIndexOf('\n') + 1).slice(0, 300)
}
