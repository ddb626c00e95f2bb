import { UsageError } from '../../errors.ts'
import { VDI_SIZE_MAX_BYTES } from '../../protocol/constants.ts'
import { formatTime } from '../../runtime/clock.ts'
import type { VdiClient, VdiInfo } from '../../vdi/client.ts'
import { type Command, type CommandCall, CommandFailure, type CommandPorts, EXIT, type Option } from '../command.ts'
import { Progress } from '../progress.ts'
import { shellOperand } from '../shell-word.ts'
import { parseBytes } from '../size.ts'
import { formatBytes } from '../table.ts'
import {
  about,
  checkedName,
  checkedTag,
  findVdi,
  isCode,
  labelOf,
  NAME,
  noVdi,
  onWorkingVdi,
  SNAPSHOT,
  snapshotsIn,
  unlessInUse,
  withDevice,
  withStore,
} from './store.ts'
import { flush, promised } from './streams.ts'

/** Sizes of disks are counted in sectors. */
const SECTOR_BYTES = 512
/** Zeros of so many bytes at a time show progress, and stop soon when they should. */
const PREALLOCATE_BYTES = 32 * 1024 * 1024

const SIZE_MEANING = `With K, M, G, T or P, in 1024s; rounded up to sectors of ${SECTOR_BYTES} bytes.`

/** Making VDIs, snapshots and clones, and changing and deleting them. */
export function manageCommands(ports: CommandPorts): Command[] {
  const withVdis = <T>(call: CommandCall, work: (vdis: VdiClient) => Promise<T>) => withStore(ports, call, work)

  return [
    {
      name: 'vdi create',
      summary: 'Create a VDI. It takes no space until somebody writes, unless it is preallocated.',
      operands: [NAME, { name: 'SIZE', meaning: `How large. ${SIZE_MEANING}`, optional: true }],
      options: [
        { flag: 'size', value: 'SIZE', meaning: 'The same, as an option.' },
        { flag: 'with-copies', value: 'NUMBER', meaning: 'Copies of each object; by default the setting `copies`.' },
        {
          flag: 'at-least',
          value: 'NUMBER',
          meaning: 'So many of them have what is acknowledged; by default the setting `copies_min`.',
        },
        {
          flag: 'preallocate',
          short: 'P',
          meaning: 'Write zeros all over it, so that it has its space from the start.',
        },
      ],
      run: async (call) => {
        const name = checkedName(call.operands[0]!, 'NAME')
        const sizeBytes = givenSize(call)
        const vdi = await withVdis(call, async (vdis) => {
          const wanted = { copies: numberIn(call, 'with-copies'), copiesMin: numberIn(call, 'at-least') }
          const vid = await createVdi(vdis, name, sizeBytes, 0, wanted)
          if (call.options.preallocate !== undefined) await preallocate(ports, call, vdis, { name, vid, sizeBytes })
          return findVdi(vdis, name)
        })
        call.print(jsonOf(vdi), () => `Created "${name}", ${formatBytes(vdi.sizeBytes)}.`)
        return EXIT.OK
      },
    },
    {
      name: 'vdi alter-copies',
      summary: 'Give a VDI and its snapshots another number of copies, while it is used.',
      description:
        'Answers when it holds for what is written from then on; what there is is copied, or goes, in the background. What a clone shares\nwith a snapshot has as many copies as that.',
      operands: [NAME, { name: 'COPIES', meaning: 'Copies of each object, on nodes of different zones.' }],
      options: [
        {
          flag: 'at-least',
          value: 'NUMBER',
          meaning:
            'So many of them have what is acknowledged. By default as before; at first the setting `copies_min`.',
        },
      ],
      run: async (call) => {
        const name = call.operands[0]!
        const copies = wholeNumber(call.operands[1]!, 'COPIES')
        const copiesMin = numberIn(call, 'at-least')
        await withVdis(call, async (vdis) => {
          const { vid } = await findVdi(vdis, name)
          await about(name, vdis.alter(vid, { copies, ...(copiesMin !== undefined && { copiesMin }) }))
        })
        call.print({ name, copies }, () => `"${name}" has ${copies} ${copies === 1 ? 'copy' : 'copies'} from now on.`)
        return EXIT.OK
      },
    },
    {
      name: 'vdi delete',
      summary: 'Delete a VDI, or a snapshot of it. It asks nothing.',
      description:
        'Snapshots of a deleted VDI stay, and clones of a deleted snapshot keep what they need. What is attached or open\n' +
        `is not deleted: exit code ${EXIT.TRY_LATER}.`,
      operands: [NAME],
      options: [SNAPSHOT, { flag: 'with-snapshots', meaning: 'Delete the VDI and then all its snapshots.' }],
      run: async (call) => {
        const deleted = await withVdis(call, (vdis) => deleteVdis(vdis, call))
        call.print(deleted.map(jsonOf), () => `Deleted ${quoted(deleted)}.`)
        return EXIT.OK
      },
    },
    {
      name: 'vdi snapshot',
      summary: 'Take a snapshot of a VDI at one moment, also while it is written to.',
      operands: [NAME],
      options: [{ flag: 'tag', short: 't', value: 'TAG', meaning: 'What to call it.', required: true }],
      run: async (call) => {
        const name = call.operands[0]!
        const tag = checkedTag(call.options.tag!, '--tag')
        const taken = await withVdis(call, async (vdis) => {
          await takeSnapshot(vdis, name, tag)
          return findVdi(vdis, name, tag)
        })
        call.print(jsonOf(taken), () => `Took "${labelOf(taken)}", snapshot ${taken.snapId} of "${name}".`)
        return EXIT.OK
      },
    },
    {
      name: 'vdi clone',
      summary: 'Create a VDI that begins with what a snapshot holds. Nothing is copied.',
      operands: [NAME],
      options: [
        { ...SNAPSHOT, required: true },
        { flag: 'to', value: 'NAME', meaning: 'Name of the new VDI.', required: true },
        { flag: 'size', value: 'SIZE', meaning: `If it is to be larger than the snapshot. ${SIZE_MEANING}` },
      ],
      run: async (call) => {
        const to = checkedName(call.options.to!, '--to')
        const clone = await withVdis(call, async (vdis) => {
          const base = await findVdi(vdis, call.operands[0]!, call.options.snapshot)
          const sizeBytes = call.options.size === undefined ? base.sizeBytes : parseSize(call.options.size, '--size')
          if (sizeBytes < base.sizeBytes) {
            const problem = `is less than the ${formatBytes(base.sizeBytes)} of "${labelOf(base)}"`
            throw new UsageError(`--size: ${formatBytes(sizeBytes)} ${problem}; a clone cannot be smaller`)
          }
          await createVdi(vdis, to, sizeBytes, base.vid)
          return findVdi(vdis, to)
        })
        call.print(jsonOf(clone), () => `Created "${to}", ${formatBytes(clone.sizeBytes)}.`)
        return EXIT.OK
      },
    },
    {
      name: 'vdi rollback',
      summary: 'Make a VDI hold again what a snapshot of it holds. What was written since is lost.',
      description:
        'Because that cannot be taken back it needs --force; a snapshot taken before keeps it. The size stays as it is. Also\n' +
        'while it is attached; but not while QEMU or tgt have it locked.',
      operands: [NAME],
      options: [{ ...SNAPSHOT, required: true }, FORCE],
      run: async (call) => {
        const name = call.operands[0]!
        const { vdi, snapshot } = await withVdis(call, async (vdis) => {
          const snapshot = await findVdi(vdis, name, call.options.snapshot)
          const working = await findVdi(vdis, name)
          if (call.options.force === undefined) throw wouldLose(snapshot)
          await unlessInUse(vdis, working, vdis.rollback(name, { tag: snapshot.tag, snapId: snapshot.snapId }))
          return { vdi: await findVdi(vdis, name), snapshot }
        })
        call.print(jsonOf(vdi), () => `"${name}" holds what "${labelOf(snapshot)}" does.`)
        return EXIT.OK
      },
    },
    {
      name: 'vdi resize',
      summary: 'Make a VDI larger, also while it is in use. The new part reads as zeros.',
      operands: [NAME, { name: 'SIZE', meaning: `How large it is to be. ${SIZE_MEANING}` }],
      run: async (call) => {
        const [name, size] = call.operands as [string, string]
        const sizeBytes = parseSize(size, 'SIZE')
        const vdi = await withVdis(call, async (vdis) => {
          await onWorkingVdi(vdis, name, async (current) => {
            if (sizeBytes < current.sizeBytes) {
              const problem = `is less than the ${formatBytes(current.sizeBytes)} that it has`
              throw new UsageError(`SIZE: ${formatBytes(sizeBytes)} ${problem}; a VDI cannot shrink`)
            }
            await about(name, vdis.resize(current.vid, sizeBytes))
          })
          return findVdi(vdis, name)
        })
        call.print(jsonOf(vdi), () => `"${name}" has ${formatBytes(vdi.sizeBytes)} now.`)
        return EXIT.OK
      },
    },
  ]
}

const FORCE: Option = { flag: 'force', short: 'f', meaning: 'Do it.' }

function wouldLose(snapshot: VdiInfo): UsageError {
  const problem = `what was written to "${snapshot.name}" since "${labelOf(snapshot)}" would be lost`
  const advice = `repeat with --force, or keep it first: collie vdi snapshot --tag TAG ${shellOperand(snapshot.name)}`
  return new UsageError(`--force: ${problem}; ${advice}`)
}

/** A size of a VDI, in whole sectors. Throws a UsageError that names `field`. */
export function parseSize(text: string, field: string): number {
  const sizeBytes = toSectors(parseBytes(text, field))
  if (sizeBytes <= VDI_SIZE_MAX_BYTES) return sizeBytes
  throw new UsageError(`${field}: a VDI has at most ${formatBytes(VDI_SIZE_MAX_BYTES)}`)
}

export const toSectors = (bytes: number): number => Math.ceil(bytes / SECTOR_BYTES) * SECTOR_BYTES

function givenSize({ operands, options }: CommandCall): number {
  const given = [operands[1], options.size].filter((size) => size !== undefined)
  const [size] = given
  if (size === undefined || given.length > 1) throw new UsageError('SIZE: say it once, such as `vdi create disk 10G`')
  return parseSize(size, 'SIZE')
}

/** A VDI in the JSON of all commands that make or change one. */
export function jsonOf(vdi: VdiInfo) {
  return {
    name: vdi.name,
    tag: vdi.tag,
    vid: vdi.vid,
    snap_id: vdi.snapId,
    is_snapshot: vdi.snapshotAt > 0,
    size_bytes: vdi.sizeBytes,
    parent_vid: vdi.parentVid,
    created_at: formatTime(vdi.createdAt),
  }
}

function wholeNumber(text: string, field: string): number {
  if (!/^[1-9]\d?$/.test(text)) throw new UsageError(`${field}: "${text}" is no number of copies`)
  return Number(text)
}

function numberIn({ options }: CommandCall, flag: string): number | undefined {
  const text = options[flag]
  return text === undefined ? undefined : wholeNumber(text, `--${flag}`)
}

/** Rejects with a CommandFailure that says what to do when the name is taken. */
export async function createVdi(
  vdis: VdiClient,
  name: string,
  sizeBytes: number,
  baseVid = 0,
  wanted: { copies?: number | undefined; copiesMin?: number | undefined } = {},
): Promise<number> {
  try {
    return await about(name, vdis.create(name, sizeBytes, baseVid, wanted))
  } catch (error) {
    if (!isCode(error, 'VdiExists')) throw error
    const problem = `there is a VDI "${name}" already; choose another name, or delete it first: collie vdi delete ${shellOperand(name)}`
    throw new CommandFailure(EXIT.CANNOT_CREATE, problem, { cause: error })
  }
}

/** Returns the vid of what was frozen. Rejects with a CommandFailure when the tag is taken. */
export async function takeSnapshot(vdis: VdiClient, name: string, tag: string): Promise<number> {
  try {
    return await onWorkingVdi(vdis, name, async ({ vid }) => {
      await about(name, vdis.snapshot(vid, tag))
      return vid
    })
  } catch (error) {
    if (!isCode(error, 'VdiExists')) throw error
    throw new CommandFailure(EXIT.CANNOT_CREATE, `"${name}" has a snapshot "${tag}" already; choose another tag`, {
      cause: error,
    })
  }
}

async function preallocate(
  { clock }: CommandPorts,
  call: CommandCall,
  vdis: VdiClient,
  { name, vid, sizeBytes }: { name: string; vid: number; sizeBytes: number },
): Promise<void> {
  await orDelete(vdis, name, call, async () => {
    const { freeBytes } = await vdis.space()
    if (freeBytes < sizeBytes) {
      const problem = `${formatBytes(sizeBytes)} do not fit: the store has ${formatBytes(freeBytes)} free`
      throw new CommandFailure(EXIT.CANNOT_CREATE, `${problem}; leave --preallocate out, or delete something`)
    }
    await call.io.interruptible((signal) =>
      withDevice(vdis.open(vid, { readOnly: false }), async (device) => {
        const progress = new Progress(call, clock, `preallocating ${name}`, sizeBytes)
        try {
          for (let at = 0; at < sizeBytes; at += PREALLOCATE_BYTES) {
            signal.throwIfAborted()
            const length = Math.min(PREALLOCATE_BYTES, sizeBytes - at)
            await promised((done) => device.zero(at, length, { fua: false, mayDiscard: false }, done))
            progress.update(at + length)
          }
          await flush(device)
        } finally {
          progress.end()
        }
      }),
    )
  })
}

/** Runs what fills a new VDI; when that does not end well, the VDI goes again. */
export async function orDelete<T>(
  vdis: VdiClient,
  name: string,
  call: CommandCall,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work()
  } catch (error) {
    await vdis.remove(name).then(
      () => call.io.err(`collie: "${name}" is not complete, and was deleted`),
      () =>
        call.io.err(
          `collie: "${name}" is not complete, and is still there; delete it: collie vdi delete ${shellOperand(name)}`,
        ),
    )
    throw error
  }
}

async function deleteVdis(vdis: VdiClient, { operands, options, io }: CommandCall): Promise<VdiInfo[]> {
  const name = checkedName(operands[0]!, 'NAME')
  if (options['with-snapshots'] === undefined) {
    const vdi = await findVdi(vdis, name, options.snapshot)
    await unlessInUse(vdis, vdi, removeVdi(vdis, vdi))
    return [vdi]
  }
  if (options.snapshot !== undefined) throw new UsageError('--snapshot, --with-snapshots: only one of them')
  const family = await vdis.listOf(name)
  if (family.length === 0) throw await noVdi(vdis, name)
  const working = family.filter(({ snapshotAt }) => snapshotAt === 0)
  const deleted: VdiInfo[] = []
  for (const vdi of [...working, ...snapshotsIn(family).reverse()]) {
    await unlessInUse(vdis, vdi, removeVdi(vdis, vdi)).catch((error: unknown) => {
      if (deleted.length > 0)
        io.err(`collie: stopped half-way; deleted are ${quoted(deleted)}, the rest is still there`)
      throw error
    })
    deleted.push(vdi)
  }
  return deleted
}

const quoted = (vdis: readonly VdiInfo[]): string => vdis.map((vdi) => `"${labelOf(vdi)}"`).join(', ')

const removeVdi = (vdis: VdiClient, { name, tag, snapId, snapshotAt }: VdiInfo): Promise<void> =>
  vdis.remove(name, tag, snapshotAt > 0 ? snapId : 0)
