import { dirname } from 'node:path/posix'
import { ServiceError } from '../../errors.ts'
import type { Disk, DiskFile } from '../../runtime/disk.ts'
import { inParallel } from './in-parallel.ts'
import { decodePart, encodeName } from './names.ts'
import type { BackupTarget, Batch } from './target.ts'

/** Of files that are being written, or were when the process ended. No encoded name ends so. */
const PARTIAL = '~'

const REMOVALS_AT_ONCE = 8

/**
 * Backups in a directory, which may be a mounted file system of another host. An object is a file; it is written under another
 * name, synced, and renamed, so that a file under its own name is always whole. The files of a batch are synced together, and their
 * directory once.
 */
export function createDirectoryTarget(disk: Disk, close: () => Promise<void> = async () => {}): BackupTarget {
  function batch(): Batch {
    const written: { file: DiskFile; path: string }[] = []
    const discard = async () => {
      for (const { file } of written.splice(0)) await file.close()
    }
    return {
      put: (name, bytes) =>
        translate(name, async () => {
          const path = encodeName(name)
          const file = await openNew(disk, path + PARTIAL)
          written.push({ file, path })
          await file.write(bytes, 0)
          disk.startWriteback([file])
        }),
      commit: async () => {
        const name = written[0]?.path
        if (name === undefined) return
        await translate(name, async () => {
          try {
            await disk.syncMany(written.map(({ file }) => file))
            for (const { path } of written) await disk.rename(path + PARTIAL, path)
            await disk.syncMany([], [...new Set(written.map(({ path }) => dirname(path)))])
          } finally {
            await discard()
          }
        })
      },
      discard,
    }
  }

  return {
    service: 'cinder.backup.drivers.collie.directory',
    batch,
    put: async (name, bytes) => {
      const one = batch()
      try {
        await one.put(name, bytes)
        await one.commit()
      } finally {
        await one.discard()
      }
    },
    get: (name, memory) => translate(name, () => read(disk, encodeName(name), memory)),
    list: async (directory, beginning = '') => {
      const names = await translate(directory, () => disk.list(encodeName(directory)))
      return names.flatMap((name) => decodePart(name) ?? []).filter((name) => name.startsWith(beginning))
    },
    remove: (name) => translate(name, () => disk.unlink(encodeName(name))),
    removeBelow: (directory) =>
      translate(directory, async () => {
        const path = encodeName(directory)
        const names = (await disk.list(path)).filter((name) => isOwn(name))
        await inParallel(names, REMOVALS_AT_ONCE, (name) => disk.unlink(`${path}/${name}`))
      }),
    close,
  }
}

/** What somebody else put into the directory is none of ours. */
function isOwn(name: string): boolean {
  return decodePart(name.endsWith(PARTIAL) ? name.slice(0, -PARTIAL.length) : name) !== null
}

async function read(disk: Disk, path: string, memory?: Buffer): Promise<Buffer | null> {
  const file = await disk.open(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
  if (file === null) return null
  try {
    const size = await file.size()
    const bytes = memory !== undefined && size <= memory.length ? memory.subarray(0, size) : Buffer.allocUnsafe(size)
    const count = await file.read(bytes, 0)
    return bytes.subarray(0, count)
  } finally {
    await file.close()
  }
}

/** The directories above are there but for the first file in them. */
async function openNew(disk: Disk, path: string): Promise<DiskFile> {
  try {
    return await disk.open(path, { create: true, empty: true })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    await makeDirectories(disk, dirname(path))
    return disk.open(path, { create: true, empty: true })
  }
}

/** Each directory is made durable in the one above it, also when another call has just made it. */
async function makeDirectories(disk: Disk, directory: string): Promise<void> {
  const parts = directory.split('/')
  for (let depth = 1; depth <= parts.length; depth++) {
    await disk.makeDirectory(parts.slice(0, depth).join('/'))
    await disk.syncDirectory(parts.slice(0, depth - 1).join('/') || '.')
  }
}

async function translate<T>(name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const reason = `the backup target, at ${name}: ${(error as Error).message}`
    throw new ServiceError('BackendFailure', { reason }, { cause: error })
  }
}
