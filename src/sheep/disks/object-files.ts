import type { Disk } from '../../runtime/disk.ts'
import { BLOCK_BYTES, decodeHeader, HEADER_OFFSET, objectDirectory } from '../object-format.ts'
import type { Member } from './member.ts'

/** What is done with the directories and files of objects on one disk. */

const DIRECTORY_COUNT = 256
/** The name of a copy that is not finished yet; see Evacuation. */
export const MOVING_SUFFIX = '.moving'

/** Learns which directories a disk has. */
export async function findDirectories(member: Member): Promise<void> {
  for (const name of await member.disk.list('obj')) member.directories.add(`obj/${name}`)
}

/** So that a new object's file can be made without waiting. Durable when it resolves. */
export async function makeAllDirectories({ disk, directories }: Member): Promise<void> {
  const all = Array.from({ length: DIRECTORY_COUNT }, (_, i) => objectDirectory(BigInt(i)))
  const missing = all.filter((path) => !directories.has(path))
  if (missing.length === 0) return
  await disk.makeDirectory('obj')
  await Promise.all(missing.map((path) => disk.makeDirectory(path)))
  await disk.syncDirectory('obj')
  await disk.syncDirectory('.')
  for (const path of missing) directories.add(path)
}

/** Durable when it resolves. */
export function removeFile(member: Member, path: string): Promise<void> {
  return member.guard('removing a file', async () => {
    await member.disk.unlink(path)
    await member.disk.syncDirectory(directoryOf(path))
  })
}

/** Of the header of an object file; -1 when it has none that is whole. */
export function versionOf(member: Member, path: string): Promise<number> {
  return member.guard('reading', async () => {
    const file = await member.disk.open(path)
    try {
      const page = Buffer.alloc(BLOCK_BYTES)
      await file.read(page, HEADER_OFFSET)
      const header = decodeHeader(page)
      return 'problem' in header ? -1 : header.version
    } finally {
      await file.close()
    }
  })
}

export const directoryOf = (path: string) => path.slice(0, Math.max(0, path.lastIndexOf('/')))

/** Makes durable what was created and removed among the object files. */
export async function syncNames(disk: Disk): Promise<void> {
  const directories = await disk.list('obj')
  const paths = directories.map((directory) => `obj/${directory}`)
  await disk.syncMany([], paths)
}
