import path from 'node:path'
import { UsageError } from '../../errors.ts'
import { createNbdServer } from '../../exports/nbd/server.ts'
import { makeTemporaryDirectory } from '../../runtime/image-file.ts'
import { createLog } from '../../runtime/log.ts'
import { type ProgramEnd, runProgram } from '../../runtime/programs.ts'
import type { Device } from '../../vdi/device.ts'
import { CommandFailure, type CommandPorts, EXIT } from '../command.ts'

/** Images of other formats, as QEMU's own tool reads and writes them. */

export interface ImageInfo {
  format: string
  virtualSizeBytes: number
  /** Another file that the image takes part of its content from. */
  restsOn: string | null
}

/** The names that qemu-img has for formats; anything else could be an option to it. */
export function checkedFormat(format: string): string {
  if (/^[a-z0-9][a-z0-9-]*$/i.test(format)) return format.toLowerCase()
  throw new UsageError(`--format: "${format}" is no format; use raw, qcow2, or another that \`qemu-img --help\` lists`)
}

/** What qemu-img says of a file; `format` null lets it find out by itself. */
export async function imageInfo(file: string, format: string | null, signal: AbortSignal): Promise<ImageInfo> {
  const known = format === null ? [] : ['-f', format]
  const end = await qemuImg(['info', '--output=json', ...known, path.resolve(file)], { signal })
  if (end.code !== 0) throw new CommandFailure(EXIT.DATA_UNSOUND, `${file} cannot be read as an image: ${end.err}`)
  const info = JSON.parse(end.out) as {
    format: string
    'virtual-size': number
    'backing-filename'?: string
    'format-specific'?: { data?: { 'data-file'?: string } }
  }
  return {
    format: info.format,
    virtualSizeBytes: info['virtual-size'],
    restsOn: info['backing-filename'] ?? info['format-specific']?.data?.['data-file'] ?? null,
  }
}

export interface Conversion {
  /** In percent, now and then. */
  onProgress(percent: number): void
  signal: AbortSignal
}

/** Copies an image into a device that reads as zeros so far and has at least its size. */
export async function convertIn(
  ports: CommandPorts,
  { file, format }: { file: string; format: string },
  open: () => Promise<Device>,
  conversion: Conversion,
): Promise<void> {
  await withNbd(ports, { open, readOnly: false }, (uri) =>
    convert(['-n', '--target-is-zero', '-f', format, '-O', 'raw', '-W', path.resolve(file), uri], conversion),
  )
}

/** Makes an image file of what a device holds. */
export async function convertOut(
  ports: CommandPorts,
  open: () => Promise<Device>,
  { file, format }: { file: string; format: string },
  conversion: Conversion,
): Promise<void> {
  await withNbd(ports, { open, readOnly: true }, (uri) =>
    convert(['-f', 'raw', '-O', format, uri, path.resolve(file)], conversion),
  )
}

async function convert(args: readonly string[], { signal, onProgress }: Conversion): Promise<void> {
  const onOutput = (text: string) => {
    const percent = [...text.matchAll(/\((\d+(?:\.\d+)?)\/100%\)/g)].at(-1)?.[1]
    if (percent !== undefined) onProgress(Number(percent))
  }
  const end = await qemuImg(['convert', '-p', ...args], { signal, onOutput })
  if (end.code !== 0) throw new CommandFailure(EXIT.DATA_UNSOUND, `qemu-img: ${end.err || `ended with ${end.code}`}`)
}

/** Runs qemu-img to its end, well or not. Rejects when the signal was aborted meanwhile. */
async function qemuImg(
  args: readonly string[],
  options: { signal: AbortSignal; onOutput?: (text: string) => void },
): Promise<ProgramEnd> {
  const end = await runProgram('qemu-img', args, options).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    const advice = 'apt-get install qemu-utils, or use raw images with --format raw'
    throw new CommandFailure(EXIT.UNAVAILABLE, `qemu-img is not installed; ${advice}`, { cause: error })
  })
  options.signal.throwIfAborted()
  return end
}

const EXPORT_NAME = 'vdi'
/** Only our own child is connected: no matter how long the two of us were stopped together, it may go on. */
const NEVER_STALLED_MS = 2 ** 31 - 1

/**
 * Serves a device over NBD to a program that `work` runs, from this process and on a socket that nobody else can reach. So there is
 * no right in the store that could be left behind, and snapshots are served as well as working VDIs.
 */
async function withNbd<T>(
  { network, clock }: CommandPorts,
  { open, readOnly }: { open: () => Promise<Device>; readOnly: boolean },
  work: (uri: string) => Promise<T>,
): Promise<T> {
  const { directory, remove } = await makeTemporaryDirectory()
  const right = { id: EXPORT_NAME, readOnly, open }
  const server = createNbdServer({
    network,
    clock,
    log: createLog('silent'),
    exports: { lookup: async (name) => (name === EXPORT_NAME ? right : undefined) },
    limits: { stallMs: NEVER_STALLED_MS },
  })
  try {
    const socket = await server.listen(path.join(directory, 'nbd.sock'))
    return await work(`nbd+unix:///${EXPORT_NAME}?socket=${encodeURIComponent(socket)}`)
  } finally {
    await server.close()
    await remove()
  }
}
