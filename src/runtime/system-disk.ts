import { constants, openSync, open as openWithCallback } from 'node:fs'
import {
  type FileHandle,
  mkdir,
  open as openHandle,
  readdir,
  readFile,
  realpath,
  rename,
  stat,
  statfs,
  unlink,
} from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { COPY_THREAD, Copier } from './copier.ts'
import type { Disk, OpenedDisk } from './disk.ts'
import { lockNow, openCached, startWriteback, syncFileSystem } from './libc.ts'
import { SystemFile } from './system-file.ts'

const open = promisify(openWithCallback)

const FILE_MODE = 0o600
/**
 * From so many on, one syncfs costs less than a sync each, above all where they are new. For fewer it may cost far more: it waits for
 * all that others have written to the same file system.
 */
const SYNCFS_FILES_MIN = 512
/** A directory is opened and closed, too. */
const SYNCFS_DIRECTORIES_MIN = 64
/** Leaves one thread of libuv's pool, which has four, to those who wait for a read. */
const SYNCS_AT_A_TIME = 3

/** The files below `root`, through the page cache of this host. `copyThread` is for tests: what runs beside this thread. */
export function openSystemDisk(root: string, copyThread = COPY_THREAD): Disk & { close(): Promise<void> } {
  const at = (relative: string) => path.join(root, relative)
  const copier = new Copier(copyThread)
  const writeback = new Writeback()

  return {
    open: async (relative, options) => {
      const { create = false, empty = false } = options ?? {}
      const flags = constants.O_RDWR | (create ? constants.O_CREAT : 0) | (empty ? constants.O_TRUNC : 0)
      return new SystemFile(await open(at(relative), flags, FILE_MODE))
    },
    openNow: (relative) => {
      const fd = openCached(at(relative))
      return fd < 0 ? null : new SystemFile(fd)
    },
    createNow: (relative) => {
      return new SystemFile(openSync(at(relative), constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, FILE_MODE))
    },
    createMany: async (paths) => {
      const descriptors = await copier.create(paths.map(at), FILE_MODE)
      return descriptors.map((fd) => new SystemFile(fd))
    },
    makeDirectory: async (relative) => {
      await mkdir(at(relative), { recursive: true, mode: 0o700 })
    },
    list: (relative) => list(at(relative)),
    listBelow: async (relative) => {
      const directories = await list(at(relative))
      const names = await Promise.all(directories.map((directory) => list(path.join(at(relative), directory))))
      return directories.flatMap((directory, i) => names[i]!.map((name) => `${directory}/${name}`))
    },
    rename: (from, to) => rename(at(from), at(to)),
    unlink: async (relative) => {
      try {
        await unlink(at(relative))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      }
    },
    syncDirectory: (relative) => syncDirectory(at(relative)),
    space: async () => {
      const stats = await statfs(root)
      return { totalBytes: stats.blocks * stats.bsize, freeBytes: stats.bavail * stats.bsize }
    },
    copyMany: (copies) => copier.copy(copies),
    writeMany: (writes) => copier.write(writes),
    punchMany: (ranges) => copier.punch(ranges),
    syncMany: async (files, directories = []) => {
      if (files.length >= SYNCFS_FILES_MIN) return syncFileSystem((files[0] as SystemFile).fd)
      if (directories.length >= SYNCFS_DIRECTORIES_MIN) {
        return withDirectory(at(directories[0]!), ({ fd }) => syncFileSystem(fd))
      }
      await inTurns(files, (file) => file.sync())
      await inTurns(directories, (directory) => syncDirectory(at(directory)))
    },
    startWriteback: (files) => writeback.start(files as readonly SystemFile[]),
    cacheIdentity: async () => {
      const bootId = await readFile('/proc/sys/kernel/random/boot_id', 'latin1')
      const { dev, ino } = await stat(root, { bigint: true })
      return `${bootId.trim()} ${dev} ${ino}`
    },
    lock: async (relative) => {
      const file = await openHandle(at(relative), constants.O_RDWR | constants.O_CREAT, FILE_MODE)
      if (!lockNow(file.fd)) {
        await file.close()
        return null
      }
      return { release: () => file.close() }
    },
    close: () => copier.close(),
  }
}

/** Tells the device of one file after another: it is a hint, and hints must not fill the queue that syncs wait in. */
class Writeback {
  readonly #waiting = new Set<SystemFile>()
  #isRunning = false

  start(files: readonly SystemFile[]): void {
    for (const file of files) this.#waiting.add(file)
    if (!this.#isRunning) void this.#run()
  }

  async #run(): Promise<void> {
    this.#isRunning = true
    for (const file of this.#waiting) {
      this.#waiting.delete(file)
      if (file.fd >= 0) await startWriteback(file.fd)
    }
    this.#isRunning = false
  }
}

async function list(absolute: string): Promise<string[]> {
  try {
    return await readdir(absolute)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

async function withDirectory(absolute: string, use: (directory: FileHandle) => Promise<void>): Promise<void> {
  const directory = await openHandle(absolute, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await use(directory)
  } finally {
    await directory.close()
  }
}

const syncDirectory = (absolute: string) => withDirectory(absolute, (directory) => directory.sync())

/** Syncs all of them, a few at a time; rejects with the first failure. */
async function inTurns<T>(items: readonly T[], sync: (item: T) => Promise<void>): Promise<void> {
  const rest = items.values()
  const lane = async () => {
    for (const item of rest) await sync(item)
  }
  await Promise.all(Array.from({ length: Math.min(SYNCS_AT_A_TIME, items.length) }, lane))
}

/** A directory that is there already, as a disk of the store. */
export async function openDiskDirectory(directory: string): Promise<OpenedDisk> {
  const root = await realpath(directory)
  const found = await stat(root)
  if (!found.isDirectory()) throw Object.assign(new Error(`ENOTDIR: not a directory, '${root}'`), { code: 'ENOTDIR' })
  return { ...openSystemDisk(root), path: root, device: String(found.dev) }
}
