import { crc32 } from '@node-rs/crc32'
import { StoreError } from '../../errors.ts'
import type { Disk, OpenDisk, OpenedDisk } from '../../runtime/disk.ts'
import { type DiskIdentity, readIdentity, writeIdentity } from './identity.ts'

/** A directory that is a disk of this store, and that no other process has. */
export interface Joined {
  disk: OpenedDisk
  identity: DiskIdentity
  lock: { release(): Promise<void> }
  /** CRC-32 of the identity of the page cache that it is seen through. */
  cache: number
}

/** What a directory may hold that becomes a disk: nothing, or what an attempt that was cut short has left. */
const HARMLESS = new Set(['lock', 'disk', 'disk.new', 'obj', 'lost+found'])

/**
 * Makes a disk of the store out of an empty directory; durable when it resolves. Null when it is one of `known`, the disks that
 * there are. Throws InvalidParameters when it cannot become one: it is not there, not empty, another store's, in use, or lies
 * in another disk.
 */
export async function joinDisk(
  open: OpenDisk,
  path: string,
  { identity, known }: { identity: DiskIdentity; known: readonly string[] },
): Promise<Joined | null> {
  const disk = await openOrRefuse(open, path, 'InvalidParameters')
  try {
    if (known.includes(disk.path)) {
      await disk.close()
      return null
    }
    for (const other of known) {
      if (other.startsWith(`${disk.path}/`)) throw refusal(path, `${other}, a disk of this store, lies in it`)
      if (disk.path.startsWith(`${other}/`)) throw refusal(path, `it lies in ${other}, which is a disk of this store`)
    }
    await checkUnused(disk, path, identity.store)
    const cache = crc32(await disk.cacheIdentity())
    const lock = await disk.lock('lock')
    if (!lock) throw refusal(path, 'another process uses it')
    try {
      await writeIdentity(disk, identity)
    } catch (error) {
      await lock.release()
      throw refusal(path, error instanceof Error ? error.message : String(error))
    }
    return { disk, identity, lock, cache }
  } catch (error) {
    await disk.close()
    throw error instanceof StoreError ? error : refusal(path, error instanceof Error ? error.message : String(error))
  }
}

/** Opens a disk that the store knows. Throws DiskFailed when it is not at that path, or another process uses it. */
export async function rejoinDisk(open: OpenDisk, path: string, identity: DiskIdentity): Promise<Joined> {
  const disk = await openOrRefuse(open, path, 'DiskFailed')
  try {
    const found = await readIdentity(disk)
    if (found === null) throw new StoreError('DiskFailed', 'it is not there (nothing is mounted, or it was emptied)')
    if (found.store !== identity.store || found.disk !== identity.disk) {
      throw new StoreError('DiskFailed', 'another disk is there')
    }
    const cache = crc32(await disk.cacheIdentity())
    const lock = await disk.lock('lock')
    if (!lock) throw new StoreError('DiskFailed', 'another process uses it')
    return { disk, identity, lock, cache }
  } catch (error) {
    await disk.close()
    if (error instanceof StoreError) throw error
    throw new StoreError('DiskFailed', error instanceof Error ? error.message : String(error), { cause: error })
  }
}

async function openOrRefuse(open: OpenDisk, path: string, code: 'InvalidParameters' | 'DiskFailed') {
  try {
    return await open(path)
  } catch (error) {
    const { code: errno, message } = error as NodeJS.ErrnoException
    const reason =
      errno === 'ENOENT' ? 'there is no such directory' : errno === 'ENOTDIR' ? 'it is not a directory' : message
    throw code === 'InvalidParameters' ? refusal(path, reason) : new StoreError(code, reason, { cause: error })
  }
}

async function checkUnused(disk: Disk, path: string, store: string): Promise<void> {
  const found = await readIdentity(disk)
  if (found && found.store !== store) throw refusal(path, 'it is a disk of another store')
  const names = await disk.list('.')
  const foreign = names.find((name) => !HARMLESS.has(name))
  if (foreign !== undefined) throw refusal(path, `it is not empty (${foreign}); an empty directory becomes a disk`)
  for (const directory of await disk.list('obj')) {
    const [object] = await disk.list(`obj/${directory}`)
    if (object === undefined) continue
    const advice = found ? 'it was a disk of this store before, and was taken out; empty it first' : 'it is not empty'
    throw refusal(path, `${advice} (obj/${directory}/${object})`)
  }
}

const refusal = (path: string, reason: string) =>
  new StoreError('InvalidParameters', `${path} cannot become a disk of the store: ${reason}`)
