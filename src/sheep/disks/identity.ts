import { crc32 } from 'node:zlib'
import { StoreError } from '../../errors.ts'
import type { Disk } from '../../runtime/disk.ts'

/**
 * The two small files by which a store and its disks know each other. Both are one line, `<crc> <JSON>`, and are replaced
 * as a whole:
 *
 *   <data disk>/disk        which store the disk belongs to, and which of its disks it is
 *   <first disk>/disks      which disks the store has, and in what state
 */

/** `leaving`: its objects are being moved away. `failed`: it is not used any more, for good. */
export type DiskState = (typeof DISK_STATES)[number]

export const DISK_STATES = ['ok', 'leaving', 'failed'] as const

/** A disk as the list on the first one names it. */
export interface ListedDisk {
  /** 32 hexadecimal digits. */
  id: string
  /** Where it was last found. */
  path: string
  state: DiskState
  /** Why it failed; empty for others. */
  reason: string
  /** CRC-32 of the page cache's identity (Disk.cacheIdentity) that the last process to start saw it through. */
  cache?: number
}

export interface DiskIdentity {
  /** 32 hexadecimal digits each. */
  store: string
  disk: string
}

/** What the journal calls a disk by: not 0, which is the first one, and another for each disk of a store; see joinDisk. */
export const shortIdOf = (id: string) => Number.parseInt(id.slice(0, 4), 16) || 1

const FORMAT = 1
const LIST_PATH = 'disks'
export const IDENTITY_PATH = 'disk'

/** The disks that the store has beside the first one; none when there is no list. Throws CorruptBlock when it is damaged. */
export async function readDiskList(home: Disk): Promise<ListedDisk[]> {
  const list = (await readLine(home, LIST_PATH)) as { disks: ListedDisk[] } | null
  return list?.disks ?? []
}

/** Durable when it resolves. */
export function writeDiskList(home: Disk, disks: readonly ListedDisk[]): Promise<void> {
  return writeLine(home, LIST_PATH, { format: FORMAT, disks })
}

/** Whose disk it is, or null when it says nothing of itself. Throws CorruptBlock when that is damaged. */
export async function readIdentity(disk: Disk): Promise<DiskIdentity | null> {
  return (await readLine(disk, IDENTITY_PATH)) as DiskIdentity | null
}

/** Durable when it resolves. */
export function writeIdentity(disk: Disk, { store, disk: id }: DiskIdentity): Promise<void> {
  return writeLine(disk, IDENTITY_PATH, { format: FORMAT, store, disk: id })
}

/** Durable when it resolves. */
export async function removeIdentity(disk: Disk): Promise<void> {
  await disk.unlink(IDENTITY_PATH)
  await disk.syncDirectory('.')
}

async function readLine(disk: Disk, path: string): Promise<unknown> {
  if (!(await disk.list('.')).includes(path)) return null
  const file = await disk.open(path)
  try {
    const bytes = Buffer.alloc(await file.size())
    await file.read(bytes, 0)
    const [, crc, json] = /^([0-9a-f]{8}) (.*)\n$/s.exec(bytes.toString()) ?? []
    if (json === undefined || Number.parseInt(crc!, 16) !== crc32(json)) {
      throw new StoreError('CorruptBlock', `the file \`${path}\` does not match its checksum`)
    }
    const value = JSON.parse(json) as { format: number }
    if (value.format !== FORMAT) {
      throw new StoreError('DiskFailed', `\`${path}\` has format ${value.format}; this version reads format ${FORMAT}`)
    }
    return value
  } finally {
    await file.close()
  }
}

async function writeLine(disk: Disk, path: string, value: object): Promise<void> {
  const json = JSON.stringify(value)
  const bytes = Buffer.from(`${crc32(json).toString(16).padStart(8, '0')} ${json}\n`)
  const file = await disk.open(`${path}.new`, { create: true })
  try {
    await file.truncate(0)
    await file.write(bytes, 0)
    await file.sync()
  } finally {
    await file.close()
  }
  await disk.rename(`${path}.new`, path)
  await disk.syncDirectory('.')
}
