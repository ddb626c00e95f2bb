import { UsageError } from '../../errors.ts'
import { openSource, type SourceFile, type TargetFile } from '../../runtime/image-file.ts'
import { nonZeroRuns } from '../../runtime/zeros.ts'
import type { VdiClient, VdiInfo } from '../../vdi/client.ts'
import type { Device } from '../../vdi/device.ts'
import { EXPORT_MARK } from '../../vdi/export-mark.ts'
import { IMPORT_MARK } from '../../vdi/import-mark.ts'
import { type Command, type CommandCall, CommandFailure, type CommandPorts, EXIT } from '../command.ts'
import { Progress } from '../progress.ts'
import { shellOperand, shellWord } from '../shell-word.ts'
import { formatBytes } from '../table.ts'
import { inputChunks, intoFile } from './files.ts'
import { createVdi, jsonOf, orDelete, parseSize, takeSnapshot, toSectors } from './manage.ts'
import { checkedFormat, convertIn, convertOut, imageInfo } from './qemu-img.ts'
import { about, checkedName, findVdi, isCode, labelOf, SNAPSHOT, snapshotsIn, withDevice, withStore } from './store.ts'
import { dataRanges, flush, PIECE_BYTES, PieceWriter, readPieces } from './streams.ts'

/** A VDI whose size is not known beforehand grows by this much at a time; it is held in memory until then. */
const GROWTH_BYTES = 16 * PIECE_BYTES

/** Images of disks into VDIs, and out of them. */
export function imageCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'vdi import',
      summary: 'Create a VDI from an image: raw, qcow2, or whatever qemu-img can read.',
      description:
        'Raw images are read as they are; others with qemu-img, which Debian has in qemu-utils. Holes stay holes. When it\n' +
        'does not end well, or is interrupted, no VDI is left.',
      operands: [
        { name: 'FILE', meaning: 'The image; `-` is a raw one on standard input.' },
        { name: 'NAME', meaning: 'Name of the new VDI.' },
      ],
      options: [
        {
          flag: 'format',
          short: 'f',
          value: 'FORMAT',
          meaning: 'What it is: raw, qcow2 …; `auto`, the default, finds out.',
        },
        { flag: 'size', value: 'SIZE', meaning: 'Make the VDI larger than the image.' },
        { flag: 'with-backing', meaning: 'Take an image that rests on another file, and what it needs of that.' },
      ],
      run: async (call) => {
        const [, nameOperand] = call.operands as [string, string]
        const name = checkedName(nameOperand, 'NAME')
        const sizeOption = call.options.size === undefined ? 0 : parseSize(call.options.size, '--size')
        const vdi = await withStore(ports, call, (vdis) =>
          call.io.interruptible(async (signal) => {
            await importImage({ ports, call, vdis, name, sizeOption, signal })
            return findVdi(vdis, name)
          }),
        )
        call.print(jsonOf(vdi), () => `Imported "${name}", ${formatBytes(vdi.sizeBytes)}.`)
        return EXIT.OK
      },
    },
    {
      name: 'vdi export',
      summary: 'Make an image of a VDI: raw, qcow2, or whatever qemu-img can write.',
      description:
        'Of a VDI itself a snapshot is taken first, called export-…, and deleted at the end: so the image shows one moment, whoever\n' +
        'writes meanwhile. With --snapshot it is that snapshot. Raw images have holes where the VDI holds no data; other formats need\n' +
        'qemu-img, which Debian has in qemu-utils. The file is there when it is whole, and not before.',
      operands: [
        { name: 'NAME', meaning: 'Name of the VDI.' },
        { name: 'FILE', meaning: 'The image; `-` is standard output, for raw only.' },
      ],
      options: [
        SNAPSHOT,
        { flag: 'format', short: 'f', value: 'FORMAT', meaning: 'What it is to be: raw, the default, qcow2 ….' },
        { flag: 'force', meaning: 'Replace the file if it is there.' },
      ],
      run: async (call) => {
        const [name, file] = call.operands as [string, string]
        const format = checkedFormat(call.options.format ?? 'raw')
        if (file === '-' && format !== 'raw') throw new UsageError('--format: only raw images go to standard output')
        if (file === '-' && call.json) throw new UsageError('--json: the image goes to standard output; name a file')
        const exported = await withStore(ports, call, (vdis) =>
          call.io.interruptible((signal) => exportImage({ ports, call, vdis, name, file, format, signal })),
        )
        if (file !== '-') {
          const result = { name, snapshot: call.options.snapshot ?? null, file, format, size_bytes: exported.sizeBytes }
          call.print(result, () => `Exported "${name}" to ${file}, ${format}, ${formatBytes(exported.sizeBytes)}.`)
        }
        return EXIT.OK
      },
    },
  ]
}

interface Import {
  ports: CommandPorts
  call: CommandCall
  vdis: VdiClient
  name: string
  /** The least size of the VDI, from `--size`. */
  sizeOption: number
  signal: AbortSignal
}

async function importImage(work: Import): Promise<void> {
  const [file] = work.call.operands as [string]
  const format = checkedFormat(work.call.options.format ?? 'auto')
  if (file === '-') {
    if (format !== 'raw' && format !== 'auto')
      throw new UsageError('--format: only raw images come from standard input')
    return importStream(work, work.call.io.input())
  }
  const source = await openSource(file)
  try {
    if (source.sizeBytes === null) {
      if (format !== 'raw')
        throw new UsageError(`FILE: ${file} is a pipe, which only a raw image comes from: --format raw`)
      return await importStream(work, pieces(source))
    }
    if (format === 'raw') return await importRaw(work, source, source.sizeBytes)
    const info = await imageInfo(file, format === 'auto' ? null : format, work.signal)
    if (info.format === 'raw') return await importRaw(work, source, source.sizeBytes)
    if (info.restsOn !== null && work.call.options['with-backing'] === undefined) {
      const problem = `${file} takes part of its content from ${info.restsOn}`
      throw new CommandFailure(EXIT.DATA_UNSOUND, `${problem}; if you trust it, repeat with --with-backing`)
    }
    await importOther(work, { file, format: info.format }, info.virtualSizeBytes)
  } finally {
    await source.close()
  }
}

async function* pieces(source: SourceFile): AsyncGenerator<Buffer> {
  for (;;) {
    const bytes = Buffer.allocUnsafe(PIECE_BYTES)
    const count = await source.read(0, bytes)
    if (count > 0) yield bytes.subarray(0, count)
    if (count < bytes.length) return
  }
}

/** Creates the VDI and fills it; deletes it when that fails. */
async function intoNew<T>(
  { vdis, call, name, sizeOption, ports }: Import,
  { imageBytes, totalBytes }: { imageBytes: number; totalBytes: number | null },
  fill: (vid: number, progress: Progress) => Promise<T>,
): Promise<T> {
  const sizeBytes = sizeOption || toSectors(imageBytes)
  if (sizeBytes < imageBytes) {
    const problem = `${formatBytes(sizeBytes)} is less than the ${formatBytes(imageBytes)} of the image`
    throw new UsageError(`--size: ${problem}; an image is not cut off`)
  }
  const vid = await createVdi(vdis, name, sizeBytes).catch(async (error: unknown) => {
    throw (await isMarked(vdis, name, IMPORT_MARK)) ? incomplete(name) : error
  })
  return orDelete(vdis, name, call, async () => {
    const progress = new Progress(call, ports.clock, `importing ${name}`, totalBytes)
    try {
      await vdis.setAttribute(name, IMPORT_MARK, Buffer.from('incomplete'))
      const result = await fill(vid, progress)
      await vdis.removeAttribute(name, IMPORT_MARK)
      return result
    } finally {
      progress.end()
    }
  })
}

const isMarked = (vdis: VdiClient, name: string, mark: string, snapshot = {}): Promise<boolean> =>
  vdis.getAttribute(name, mark, snapshot).then(
    () => true,
    () => false,
  )

function incomplete(name: string): CommandFailure {
  const problem = `there is a VDI "${name}" that is not complete: its import still runs, or was killed`
  return new CommandFailure(
    EXIT.CANNOT_CREATE,
    `${problem}; if so, delete it first: collie vdi delete ${shellOperand(name)}`,
  )
}

async function importRaw(work: Import, source: SourceFile, imageBytes: number): Promise<void> {
  await intoNew(work, { imageBytes, totalBytes: imageBytes }, (vid, progress) =>
    withDevice(work.vdis.open(vid, { readOnly: false }), async (device) => {
      const writer = new PieceWriter(device)
      try {
        for (let at = source.nextData(0); at !== null && at < imageBytes; at = source.nextData(at)) {
          work.signal.throwIfAborted()
          const bytes = Buffer.allocUnsafe(Math.min(PIECE_BYTES, imageBytes - at))
          const count = await source.read(at, bytes)
          if (count < bytes.length) throw new CommandFailure(EXIT.DATA_UNSOUND, 'the image became shorter meanwhile')
          await writer.writeData(at, bytes)
          at += count
          progress.update(at)
        }
        await writer.finish()
      } finally {
        await writer.settled()
      }
    }),
  )
}

async function importStream(work: Import, input: AsyncIterable<Buffer>): Promise<void> {
  const { vdis, signal, name, sizeOption } = work
  await intoNew(work, { imageBytes: 0, totalBytes: sizeOption || null }, (vid, progress) =>
    withDevice(vdis.open(vid, { readOnly: false }), async (device) => {
      const writer = new PieceWriter(device)
      let sizeBytes = sizeOption
      let at = 0
      try {
        for await (const chunk of inputChunks(input, GROWTH_BYTES, signal)) {
          if (at + chunk.length > sizeBytes) {
            if (sizeOption > 0) {
              const problem = `standard input has more than the ${sizeOption} bytes of --size`
              throw new CommandFailure(EXIT.DATA_UNSOUND, problem)
            }
            sizeBytes = toSectors(at + chunk.length)
            await about(name, vdis.resize(vid, sizeBytes))
          }
          for (let part = 0; part < chunk.length; part += PIECE_BYTES) {
            await writer.writeData(at + part, chunk.subarray(part, part + PIECE_BYTES))
          }
          at += chunk.length
          progress.update(at)
        }
        await writer.finish()
      } finally {
        await writer.settled()
      }
    }),
  )
}

async function importOther(work: Import, image: { file: string; format: string }, imageBytes: number): Promise<void> {
  const { ports, vdis, signal } = work
  await intoNew(work, { imageBytes, totalBytes: imageBytes }, async (vid, progress) => {
    const onProgress = (percent: number) => progress.update((imageBytes * percent) / 100)
    await convertIn(ports, image, () => vdis.open(vid, { readOnly: false }), { signal, onProgress })
    await withDevice(vdis.open(vid, { readOnly: true }), flush) // qemu-img need not have
  })
}

/** Runs `work` on the snapshot that is wanted, or on one of the VDI as it is now, which goes again. */
async function withFrozen<T>(
  { random, clock }: CommandPorts,
  call: CommandCall,
  vdis: VdiClient,
  name: string,
  work: (vdi: VdiInfo) => Promise<T>,
): Promise<T> {
  if (call.options.snapshot !== undefined) return work(await findVdi(vdis, name, call.options.snapshot))
  await findVdi(vdis, name)
  const tag = `export-${random.bytes(6).toString('hex')}`
  await removeLeftovers(vdis, name, clock.now() - LEFTOVER_AGE_MS)
  await takeSnapshot(vdis, name, tag)
  try {
    await vdis.setAttribute(name, EXPORT_MARK, Buffer.from('temporary'), { snapshot: { tag } })
    return await work(await findVdi(vdis, name, tag))
  } finally {
    await vdis.remove(name, tag).catch((error: Error) => {
      const command = `collie vdi delete --snapshot=${shellWord(tag)} ${shellOperand(name)}`
      call.io.err(`collie: the snapshot "${tag}" could not be deleted (${error.message}); do it later: ${command}`)
    })
  }
}

/** An export opens its snapshot well before it is so old; one that is open is not deleted. */
const LEFTOVER_AGE_MS = 60_000

/** Deletes what exports of the VDI took that were killed since. */
async function removeLeftovers(vdis: VdiClient, name: string, takenBefore: number): Promise<void> {
  const old = snapshotsIn(await vdis.listOf(name)).filter(({ snapshotAt }) => snapshotAt < takenBefore)
  for (const { tag, snapId } of old.filter((snapshot) => snapshot.tag.startsWith('export-'))) {
    if (!(await isMarked(vdis, name, EXPORT_MARK, { tag, snapId }))) continue
    await vdis.remove(name, tag, snapId).catch((error: unknown) => {
      if (!isCode(error, 'VdiInUse') && !isCode(error, 'NoTag')) throw error
    })
  }
}

interface Export {
  ports: CommandPorts
  call: CommandCall
  vdis: VdiClient
  name: string
  file: string
  format: string
  signal: AbortSignal
}

/** Resolves with what was exported. */
async function exportImage({ ports, call, vdis, name, file, format, signal }: Export): Promise<VdiInfo> {
  const exportTo = (target: TargetFile | null) =>
    withFrozen(ports, call, vdis, name, async (vdi) => {
      const open = () => about(labelOf(vdi), vdis.open(vdi.vid, { readOnly: true }))
      const progress = new Progress(call, ports.clock, `exporting ${name}`, vdi.sizeBytes)
      const onProgress = (percent: number) => progress.update((vdi.sizeBytes * percent) / 100)
      try {
        if (target === null) await withDevice(open(), (device) => streamOut(call, device, vdi, progress, signal))
        else if (format === 'raw') await withDevice(open(), (device) => rawInto(target, device, vdi, progress, signal))
        else await convertOut(ports, open, { file: target.temporaryPath, format }, { signal, onProgress })
        return vdi
      } finally {
        progress.end()
      }
    })
  if (file === '-') return exportTo(null)
  return intoFile(file, { replace: call.options.force !== undefined }, exportTo)
}

async function rawInto(
  target: TargetFile,
  device: Device,
  { sizeBytes }: VdiInfo,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  await target.setSize(sizeBytes)
  const ranges = dataRanges(device, { offset: 0, lengthBytes: sizeBytes }, signal)
  for await (const { offset, bytes } of readPieces(device, ranges, signal)) {
    for (const { offset: at, lengthBytes } of nonZeroRuns(bytes)) {
      await target.write(offset + at, bytes.subarray(at, at + lengthBytes))
    }
    progress.update(offset + bytes.length)
  }
}

async function streamOut(
  { io }: CommandCall,
  device: Device,
  { sizeBytes }: VdiInfo,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  for await (const { offset, bytes } of readPieces(device, [{ offset: 0, lengthBytes: sizeBytes }], signal)) {
    await io.output(bytes)
    progress.update(offset + bytes.length)
  }
}
