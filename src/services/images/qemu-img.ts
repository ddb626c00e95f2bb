import { ServiceError } from '../../errors.ts'
import { type ProgramEnd, runProgram } from '../../runtime/programs.ts'
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
export async function virtualSizeOf(imageId: string, path: string): Promise<number> {
  const end = await qemuImg(['info', '--output=json', '-f', 'qcow2', path])
  if (end.code !== 0) throw unacceptable(imageId, `qemu-img cannot read it: ${lastLine(end.err)}`)
  const info = JSON.parse(end.out) as {
    'virtual-size': number
    encrypted?: boolean
    'backing-filename'?: string
    'format-specific'?: { data?: { 'data-file'?: string } }
  }
  const backing = info['backing-filename']
  if (backing !== undefined) throw unacceptable(imageId, `fmt=qcow2 backed by: ${backing}`)
  if (info['format-specific']?.data?.['data-file'] !== undefined) {
    throw unacceptable(imageId, 'A qcow2 format image is not allowed to have a data file')
  }
  if (info.encrypted) throw unacceptable(imageId, 'A qcow2 format image is not allowed to be encrypted')
  return info['virtual-size']
}

/** Writes a range of the disk that an image describes to a new raw file, with holes where the disk has zeros. */
export async function convertRange(
  imageId: string,
  { from, to, offset, lengthBytes }: { from: string; to: string; offset: number; lengthBytes: number },
): Promise<void> {
  const disk = { driver: 'qcow2', backing: null, file: { driver: 'file', filename: from } }
  const range = `json:${JSON.stringify({ driver: 'raw', offset, size: lengthBytes, file: disk })}`
  const end = await qemuImg(['convert', '-O', 'raw', range, to], lengthBytes)
  if (end.code !== 0) throw unacceptable(imageId, `qemu-img cannot convert it: ${lastLine(end.err)}`)
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
