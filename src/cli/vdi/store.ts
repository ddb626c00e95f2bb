import path from 'node:path'
import { StoreError, type StoreErrorCode, UsageError } from '../../errors.ts'
import { VDI_NAME_SIZE_BYTES, VDI_TAG_SIZE_BYTES } from '../../protocol/constants.ts'
import { VdiClient, type VdiInfo } from '../../vdi/client.ts'
import type { Device } from '../../vdi/device.ts'
import { createSocketTransport, SHEEP_SOCKET } from '../../vdi/socket-transport.ts'
import { type CommandCall, CommandFailure, type CommandPorts, EXIT, type Operand, type Option } from '../command.ts'
import { nearest } from '../near.ts'
import { configOf, noNode } from '../node-access.ts'
import { shellOperand } from '../shell-word.ts'
import { visible } from '../table.ts'

/** What the commands on VDIs have in common: the way to the store, and VDIs by their names. */

export const NAME: Operand = { name: 'NAME', meaning: 'Name of the VDI.' }

export const SNAPSHOT: Option = {
  flag: 'snapshot',
  short: 's',
  value: 'TAG|ID',
  meaning: 'This snapshot of it, by its tag or by its number in `vdi list`.',
}

/** Runs `work` with a client of the node's store. Rejects with a ControlError that says what to do when none runs. */
export async function withStore<T>(
  { network }: CommandPorts,
  call: CommandCall,
  work: (vdis: VdiClient) => Promise<T>,
): Promise<T> {
  const config = configOf(call)
  const address = path.resolve(config.data_dir, SHEEP_SOCKET)
  const probe = await network.connect(address).catch(() => {
    throw noNode(config)
  })
  probe.destroy()
  const vdis = new VdiClient(createSocketTransport({ network, address }))
  try {
    return await work(vdis)
  } finally {
    vdis.close()
  }
}

/** A name of a VDI as one may be given. Throws a UsageError that names `field`. */
export function checkedName(name: string, field: string): string {
  return checkedText(name, field, VDI_NAME_SIZE_BYTES)
}

/** A tag for a new snapshot. One of digits only could not be told from a snapshot's number. */
export function checkedTag(tag: string, field: string): string {
  if (/^\d+$/.test(tag))
    throw new UsageError(`${field}: "${tag}" could be the number of a snapshot; use a letter in it`)
  return checkedText(tag, field, VDI_TAG_SIZE_BYTES)
}

/** Text for a field of the wire, which ends it with a NUL. */
export function checkedText(text: string, field: string, fieldBytes: number): string {
  const bytes = Buffer.byteLength(text)
  if (bytes > 0 && bytes < fieldBytes && !text.includes('\0')) return text
  throw new UsageError(`${field}: has ${bytes} bytes; 1 to ${fieldBytes - 1} are possible`)
}

/** The working VDI of a name, or the snapshot that is wanted. Rejects with a CommandFailure that says what there is instead. */
export async function findVdi(vdis: VdiClient, name: string, snapshot?: string): Promise<VdiInfo> {
  const family = await vdis.listOf(checkedName(name, 'NAME'))
  if (family.length === 0) throw await noVdi(vdis, name)
  const snapshots = snapshotsIn(family)
  if (snapshot === undefined)
    return family.find(({ snapshotAt }) => snapshotAt === 0) ?? fail(noWorking(name, snapshots))
  return (
    snapshots.find(({ tag }) => tag === snapshot) ??
    snapshots.find(({ snapId }) => String(snapId) === snapshot) ??
    fail(noSnapshot(name, snapshot, snapshots))
  )
}

export function snapshotsIn(family: readonly VdiInfo[]): VdiInfo[] {
  return family.filter(({ snapshotAt }) => snapshotAt > 0).sort((a, b) => a.snapId - b.snapId)
}

function fail(problem: string): never {
  throw new CommandFailure(EXIT.NO_INPUT, problem)
}

export async function noVdi(vdis: VdiClient, name: string): Promise<CommandFailure> {
  return unknownVdi(name, new Set((await vdis.list()).map((vdi) => vdi.name)))
}

/** What to say of a name that is not among those that there are. */
export function unknownVdi(name: string, names: Iterable<string>): CommandFailure {
  const near = nearest(name, names)
  const advice = near === null ? '`collie vdi list` shows what there is' : `did you mean "${near}"?`
  return new CommandFailure(EXIT.NO_INPUT, `there is no VDI "${name}"; ${advice}`)
}

function noWorking(name: string, snapshots: readonly VdiInfo[]): string {
  return `"${name}" itself was deleted, and has only snapshots: ${labels(snapshots)}; name one with --snapshot`
}

function noSnapshot(name: string, wanted: string, snapshots: readonly VdiInfo[]): string {
  const problem = `"${name}" has no snapshot "${wanted}"`
  const near = nearest(
    wanted,
    snapshots.map(({ tag }) => tag),
  )
  if (near !== null) return `${problem}; did you mean "${near}"?`
  return snapshots.length === 0 ? `${problem}, nor any other` : `${problem}; it has: ${labels(snapshots)}`
}

const labels = (snapshots: readonly VdiInfo[]) => snapshots.map(({ tag, snapId }) => tag || `#${snapId}`).join(', ')

/** How a VDI is called in messages: `disk`, `disk@daily`, `disk@#2`. */
export function labelOf({ name, tag, snapId, snapshotAt }: VdiInfo): string {
  return visible(snapshotAt === 0 ? name : `${name}@${tag || `#${snapId}`}`)
}

/**
 * Runs something on the working VDI of a name. A snapshot that somebody takes meanwhile lets it go on under another vid; then
 * it is looked up again.
 */
export async function onWorkingVdi<T>(vdis: VdiClient, name: string, run: (vdi: VdiInfo) => Promise<T>): Promise<T> {
  for (let vdi = await findVdi(vdis, name); ; ) {
    try {
      return await run(vdi)
    } catch (error) {
      if (!isCode(error, 'ReadOnly')) throw error
      const before = vdi.vid
      vdi = await findVdi(vdis, name)
      if (vdi.vid === before) throw error
    }
  }
}

/** Says which VDI a failure of the store is about: answers on the wire do not. */
export async function about<T>(label: string, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
    throw new StoreError(error.code, label, { cause: error })
  }
}

/** The same for what is not possible while a VDI is in use: says who uses it. */
export async function unlessInUse<T>(vdis: VdiClient, vdi: VdiInfo, work: Promise<T>): Promise<T> {
  const label = labelOf(vdi)
  try {
    return await about(label, work)
  } catch (error) {
    if (!isCode(error, 'VdiInUse') && !isCode(error, 'VdiLocked')) throw error
    const reason = await userOf(vdis, vdi)
    throw new CommandFailure(EXIT.TRY_LATER, `"${label}" is in use: ${reason}`, { cause: error })
  }
}

async function userOf(vdis: VdiClient, { name, snapshotAt }: VdiInfo): Promise<string> {
  const lock = snapshotAt > 0 ? undefined : (await vdis.listLocks()).find((held) => held.name === name)
  if (lock) {
    const advice = `end that first, or, if it is gone: collie vdi lock unlock ${shellOperand(name)}`
    return `${lock.hosts.join(', ')} ${lock.hosts.length === 1 ? 'has' : 'have'} it locked; ${advice}`
  }
  const rights = snapshotAt > 0 ? [] : await vdis.exportsOf(name)
  if (rights.length === 0) return 'a client has it open; try again when that has closed it'
  return `it is attached as ${rights.map(({ attachmentId }) => attachmentId).join(', ')}; detach it first`
}

export function isCode(error: unknown, code: StoreErrorCode): error is StoreError {
  return error instanceof StoreError && error.code === code
}

/** Runs `work` on an opened VDI and closes it again. */
export async function withDevice<T>(opening: Promise<Device>, work: (device: Device) => Promise<T>): Promise<T> {
  const device = await opening
  try {
    return await work(device)
  } finally {
    await device.close()
  }
}
