import { type StoreError, UsageError } from '../../errors.ts'
import type { TargetFile } from '../../runtime/image-file.ts'
import { openSource } from '../../runtime/image-file.ts'
import type { VdiInfo } from '../../vdi/client.ts'
import type { Device } from '../../vdi/device.ts'
import { type Command, type CommandCall, CommandFailure, type CommandPorts, EXIT } from '../command.ts'
import { Progress } from '../progress.ts'
import { parseBytes } from '../size.ts'
import { formatBytes, table } from '../table.ts'
import { chunksOf, inputChunks, intoFile } from './files.ts'
import { about, findVdi, isCode, labelOf, NAME, SNAPSHOT, unlessInUse, withDevice, withStore } from './store.ts'
import { dataRanges, PIECE_BYTES, PieceWriter, type Range, readAt, readPieces } from './streams.ts'

/** The unit of checksums: damage is told in these. */
const BLOCK_BYTES = 4096

const OFFSET = {
  name: 'OFFSET',
  meaning: 'Where to begin, such as 4096 or 1G; 0 if left out.',
  optional: true,
} as const

/** Reading and writing what VDIs hold, byte by byte. */
export function dataCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'vdi read',
      summary: 'Read bytes of a VDI to standard output or into a file.',
      operands: [NAME, OFFSET, { name: 'LENGTH', meaning: 'How much; to the end if left out.', optional: true }],
      options: [
        SNAPSHOT,
        { flag: 'output', short: 'o', value: 'FILE', meaning: 'Where to; `-`, the default, is standard output.' },
        { flag: 'force', short: 'f', meaning: 'Replace the file if it is there.' },
      ],
      run: async (call) => {
        const { options, operands } = call
        if (call.json && toStandardOutput(options.output)) {
          throw new UsageError('--json: the bytes go to standard output; name a file with --output')
        }
        const read = await withStore(ports, call, async (vdis) => {
          const vdi = await findVdi(vdis, operands[0]!, options.snapshot)
          const range = rangeIn(vdi, operands[1], operands[2])
          const opening = about(labelOf(vdi), vdis.open(vdi.vid, { readOnly: true }))
          await call.io.interruptible((signal) =>
            withDevice(opening, (device) => copyOut(ports, call, device, vdi, range, signal)),
          )
          return { name: vdi.name, tag: vdi.tag, offset_bytes: range.offset, length_bytes: range.lengthBytes }
        })
        if (!toStandardOutput(options.output)) {
          call.print(read, () => `Read ${formatBytes(read.length_bytes)} into ${options.output}.`)
        }
        return EXIT.OK
      },
    },
    {
      name: 'vdi write',
      summary: 'Write bytes from standard input or a file into a VDI.',
      description: 'What is longer than the VDI is refused before anything is written, if its length can be known.',
      operands: [NAME, OFFSET, { name: 'LENGTH', meaning: 'How much; all there is if left out.', optional: true }],
      options: [
        { flag: 'input', short: 'i', value: 'FILE', meaning: 'Where from; `-`, the default, is standard input.' },
      ],
      run: async (call) => {
        const written = await withStore(ports, call, async (vdis) => {
          const vdi = await findVdi(vdis, call.operands[0]!)
          const opening = unlessInUse(vdis, vdi, vdis.open(vdi.vid, { readOnly: false }))
          const lengthBytes = await call.io.interruptible((signal) =>
            withDevice(opening, (device) => copyIn(ports, call, device, vdi, signal)),
          )
          return { name: vdi.name, offset_bytes: parseOffset(call.operands[1]), length_bytes: lengthBytes }
        })
        call.print(written, () => `Wrote ${formatBytes(written.length_bytes)} to "${written.name}".`)
        return EXIT.OK
      },
    },
    {
      name: 'vdi check',
      summary: 'Read all that a VDI or a snapshot holds, and say which blocks do not match their checksums.',
      description: `Exits with ${EXIT.FOUND} when there are any.`,
      operands: [NAME],
      options: [SNAPSHOT],
      run: async (call) => {
        const report = await withStore(ports, call, async (vdis) => {
          const vdi = await findVdi(vdis, call.operands[0]!, call.options.snapshot)
          const opening = about(labelOf(vdi), vdis.open(vdi.vid, { readOnly: true }))
          return call.io.interruptible((signal) =>
            withDevice(opening, (device) => check(ports, call, device, vdi, signal)),
          )
        })
        call.print(report, () => describeCheck(report))
        return report.damaged.length === 0 ? EXIT.OK : EXIT.FOUND
      },
    },
  ]
}

const toStandardOutput = (output: string | undefined): boolean => output === undefined || output === '-'

const parseOffset = (text: string | undefined): number => (text === undefined ? 0 : parseBytes(text, 'OFFSET'))

/** A range that lies in the VDI. Throws a UsageError that names what does not. */
function rangeIn(vdi: VdiInfo, offsetText: string | undefined, lengthText: string | undefined): Range {
  const offset = parseOffset(offsetText)
  if (offset > vdi.sizeBytes) throw beyond('OFFSET', offset, vdi)
  const lengthBytes = lengthText === undefined ? vdi.sizeBytes - offset : parseBytes(lengthText, 'LENGTH')
  if (offset + lengthBytes > vdi.sizeBytes) throw beyond('LENGTH', offset + lengthBytes, vdi)
  return { offset, lengthBytes }
}

function beyond(field: string, end: number, vdi: VdiInfo): UsageError {
  return new UsageError(
    `${field}: byte ${end} is beyond the end of "${labelOf(vdi)}", which has ${vdi.sizeBytes} bytes`,
  )
}

async function copyOut(
  { clock }: CommandPorts,
  call: CommandCall,
  device: Device,
  vdi: VdiInfo,
  range: Range,
  signal: AbortSignal,
): Promise<void> {
  const { output, force } = call.options
  const copyTo = async (target: TargetFile | null) => {
    const progress = new Progress(call, clock, `reading ${labelOf(vdi)}`, range.lengthBytes)
    try {
      for await (const { offset, bytes } of readPieces(device, [range], signal)) {
        if (target) await target.write(offset - range.offset, bytes)
        else await call.io.output(bytes)
        progress.update(offset - range.offset + bytes.length)
      }
    } finally {
      progress.end()
    }
  }
  if (toStandardOutput(output)) await copyTo(null)
  else await intoFile(output!, { replace: force !== undefined }, copyTo)
}

/** Resolves with how much was written. */
async function copyIn(
  { clock }: CommandPorts,
  call: CommandCall,
  device: Device,
  vdi: VdiInfo,
  signal: AbortSignal,
): Promise<number> {
  const { input = '-' } = call.options
  const wanted = call.operands[2] === undefined ? null : parseBytes(call.operands[2], 'LENGTH')
  const { offset } = rangeIn(vdi, call.operands[1], call.operands[2] ?? '0')
  const file = input === '-' ? null : await openSource(input)
  const known = wanted ?? file?.sizeBytes ?? null
  const progress = new Progress(call, clock, `writing ${vdi.name}`, known)
  const writer = new PieceWriter(device)
  let written = 0
  try {
    if (known !== null && offset + known > vdi.sizeBytes) throw beyond(file ? input : 'LENGTH', offset + known, vdi)
    const chunks = file ? chunksOf(file, signal) : inputChunks(call.io.input(), PIECE_BYTES, signal)
    for await (const chunk of chunks) {
      const bytes = wanted === null ? chunk : chunk.subarray(0, wanted - written)
      if (bytes.length === 0) break
      if (offset + written + bytes.length > vdi.sizeBytes) {
        await writer.finish()
        const problem = beyond('standard input', offset + written + bytes.length, vdi).message
        throw new CommandFailure(EXIT.DATA_UNSOUND, `${problem}; its first ${written} bytes are written`)
      }
      await writer.write(offset + written, bytes)
      written += bytes.length
      progress.update(written)
    }
    await writer.finish()
    if (wanted !== null && written < wanted) {
      const problem = `${input === '-' ? 'standard input' : input} ended after ${written} of ${wanted} bytes`
      throw new CommandFailure(EXIT.DATA_UNSOUND, `${problem}; they are written`)
    }
    return written
  } finally {
    progress.end()
    await writer.settled()
    await file?.close()
  }
}

interface CheckReport {
  name: string
  tag: string
  vid: number
  sound: boolean
  checked_bytes: number
  damaged: { offset_bytes: number; length_bytes: number }[]
}

async function check(
  { clock }: CommandPorts,
  call: CommandCall,
  device: Device,
  vdi: VdiInfo,
  signal: AbortSignal,
): Promise<CheckReport> {
  const damaged: CheckReport['damaged'] = []
  const progress = new Progress(call, clock, `checking ${labelOf(vdi)}`, vdi.sizeBytes)
  let checkedBytes = 0
  const report = (offset: number, length: number) => {
    const last = damaged.at(-1)
    if (last && last.offset_bytes + last.length_bytes === offset) last.length_bytes += length
    else damaged.push({ offset_bytes: offset, length_bytes: length })
  }
  /** Halves what cannot be read until it is single blocks. */
  const checkRange = async (offset: number, target: Buffer): Promise<void> => {
    signal.throwIfAborted()
    if (await isSound(device, offset, target)) return
    if (target.length <= BLOCK_BYTES) return report(offset, target.length)
    const half = Math.ceil(target.length / 2 / BLOCK_BYTES) * BLOCK_BYTES
    await checkRange(offset, target.subarray(0, half))
    await checkRange(offset + half, target.subarray(half))
  }
  try {
    for await (const range of rangesToCheck(device, vdi.sizeBytes, signal)) {
      for (let at = 0; at < range.lengthBytes; at += PIECE_BYTES) {
        const length = Math.min(PIECE_BYTES, range.lengthBytes - at)
        await checkRange(range.offset + at, Buffer.allocUnsafe(length))
        checkedBytes += length
        progress.update(range.offset + at + length)
      }
    }
  } finally {
    progress.end()
  }
  const sound = damaged.length === 0
  return { name: vdi.name, tag: vdi.tag, vid: vdi.vid, sound, checked_bytes: checkedBytes, damaged }
}

/** What holds data, and what cannot even say whether it does. */
async function* rangesToCheck(device: Device, sizeBytes: number, signal: AbortSignal): AsyncGenerator<Range> {
  const step = 64 * PIECE_BYTES
  for (let offset = 0; offset < sizeBytes; offset += step) {
    const range = { offset, lengthBytes: Math.min(step, sizeBytes - offset) }
    const ranges: Range[] = []
    try {
      for await (const found of dataRanges(device, range, signal)) ranges.push(found)
    } catch (error) {
      if (!isDamage(error)) throw error
      ranges.splice(0, ranges.length, range)
    }
    yield* ranges
  }
}

async function isSound(device: Device, offset: number, target: Buffer): Promise<boolean> {
  try {
    await readAt(device, offset, target)
    return true
  } catch (error) {
    if (isDamage(error)) return false
    throw error
  }
}

const isDamage = (error: unknown): error is StoreError => isCode(error, 'CorruptBlock')

function describeCheck({ name, tag, sound, checked_bytes, damaged }: CheckReport): string {
  const label = tag === '' ? name : `${name}@${tag}`
  if (sound) return `"${label}" is sound: ${formatBytes(checked_bytes)} read.`
  const rows = damaged.map(({ offset_bytes, length_bytes }) => [String(offset_bytes), String(length_bytes)])
  return [`"${label}" is DAMAGED: what follows cannot be read.`, '', table([['OFFSET', 'LENGTH'], ...rows])].join('\n')
}
