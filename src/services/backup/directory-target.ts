import { ServiceError } from '../../errors.ts'
import type { Disk } from '../../runtime/disk.ts'
import type { BackupTarget } from './target.ts'

/**
 * Backups in a directory, which may be a mounted file system of another host. An object is a file; it is written under another
 * name, synced, and renamed, so that a file under its own name is always whole.
 *
 * Parts of names come from users: each is encoded, so that none leads out of the directory.
 */
export function createDirectoryTarget(disk: Disk): BackupTarget {
  async function put(name: string, bytes: Buffer): Promise<void> {
    const [directory, path] = [directoryOf(name), encodeName(name)]
    await makeDirectories(disk, directory)
    const partial = `${path}${PARTIAL}`
    const file = await disk.open(partial, { create: true, empty: true })
    try {
      await file.write(bytes, 0)
      await file.sync()
    } finally {
      await file.close()
    }
    await disk.rename(partial, path)
    await disk.syncDirectory(directory)
  }

  async function get(name: string): Promise<Buffer> {
    const file = await disk.open(encodeName(name))
    try {
      const bytes = Buffer.allocUnsafe(await file.size())
      const count = await file.read(bytes, 0)
      return bytes.subarray(0, count)
    } finally {
      await file.close()
    }
  }

  return {
    service: 'collie.backup.directory',
    put: (name, bytes) => translate(name, put(name, bytes)),
    get: (name) => translate(name, get(name)),
    list: async (prefix) => {
      const names = await translate(prefix, disk.list(encodeName(prefix)))
      return names.filter((name) => encodePart(decodeOr(name)) === name).map(decodeOr)
    },
    remove: (name) => translate(name, disk.unlink(encodeName(name))),
  }
}

/** Of files that are being written, or were when the process ended. No encoded name ends so. */
const PARTIAL = '~'

/** Each directory is made durable in the one above it. */
async function makeDirectories(disk: Disk, directory: string): Promise<void> {
  const parts = directory.split('/')
  for (let depth = 1; depth <= parts.length; depth++) {
    const above = parts.slice(0, depth - 1).join('/') || '.'
    if ((await disk.list(above)).includes(parts[depth - 1]!)) continue
    await disk.makeDirectory(parts.slice(0, depth).join('/'))
    await disk.syncDirectory(above)
  }
}

function directoryOf(name: string): string {
  return encodeName(name).split('/').slice(0, -1).join('/')
}

function encodeName(name: string): string {
  return name.split('/').map(encodePart).join('/')
}

/** No path separator, no hidden name, no `.` or `..`, and no tilde is left. */
function encodePart(part: string): string {
  return encodeURIComponent(part).replace(/^\./, '%2E').replaceAll('~', '%7E')
}

/** What somebody else put into the directory is none of ours, and may not even decode. */
function decodeOr(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return ''
  }
}

async function translate<T>(name: string, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    const reason = `the backup target, at ${name}: ${(error as Error).message}`
    throw new ServiceError('BackendFailure', { reason }, { cause: error })
  }
}
