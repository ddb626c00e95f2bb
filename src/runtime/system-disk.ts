import {
  close,
  constants,
  fdatasync,
  fstat,
  ftruncate,
  openSync,
  open as openWithCallback,
  read,
  write,
  writeSync,
  writevSync,
} from 'node:fs'
import {
  type FileHandle,
  mkdir,
  open,
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
import { Worker } from 'node:worker_threads'
import koffi from 'koffi'
import {
  type Copy,
  type Disk,
  type DiskFile,
  type FileRange,
  type OpenedDisk,
  WOULD_BLOCK,
  type Write,
} from './disk.ts'

/*
 * What Node's fs does not offer, called in libc directly:
 *  - preadv2 with RWF_NOWAIT: a read that is answered from the page cache or not at all;
 *  - openat2 with RESOLVE_CACHED, which libc has no function for: opens what is in the cache of names or nothing;
 *  - flock: the kernel drops the lock when the process ends, however it ends;
 *  - fallocate with PUNCH_HOLE: gives space back;
 *  - sync_file_range: begins to write dirty pages and does not wait for them;
 *  - syncfs: one call instead of an fdatasync for each of hundreds of files;
 *  - lseek with SEEK_DATA and SEEK_HOLE: which parts of a sparse file hold anything.
 */
const libc = koffi.load('libc.so.6')
const preadv2 = libc.func('int64_t preadv2(int fd, void *iov, int count, int64_t offset, int flags)')
const syscall = libc.func('int64_t syscall(int64_t number, int fd, const char *path, void *how, int64_t size)')
const flock = libc.func('int flock(int fd, int operation)')
const fallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)')
const syncFileRange = libc.func('int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)')
const syncfs = libc.func('int syncfs(int fd)')
const lseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)')

/** Files are plain descriptors, since some are opened, read and written on the spot. */
const file = {
  open: promisify(openWithCallback),
  read: promisify(read),
  write: promisify(write),
  datasync: promisify(fdatasync),
  truncate: promisify(ftruncate),
  stat: promisify(fstat),
  close: promisify(close),
}

const COPY_THREAD = new URL('./copy-worker.mjs', import.meta.url)
const RWF_NOWAIT = 8
/** The same on all architectures, as all system calls since Linux 5.1. */
const SYS_OPENAT2 = 437
const AT_FDCWD = -100
const O_CLOEXEC = 0o2000000
const RESOLVE_CACHED = 0x20
/** struct open_how: flags, mode, resolve. */
const openCached = new BigUint64Array([BigInt(constants.O_RDWR | O_CLOEXEC), 0n, BigInt(RESOLVE_CACHED)])
const SYNC_FILE_RANGE_WRITE = 2
const FILE_MODE = 0o600
const LOCK_EXCLUSIVE_NOW = 2 | 4
const PUNCH_HOLE_KEEP_SIZE = 2 | 1
const SEEK_DATA = 3
const SEEK_HOLE = 4
const IOVECS_MAX = 1024
/** From this many files on, one syncfs costs less than an fdatasync each. */
const SYNCFS_FILES_MIN = 8

/** The files below `root`, through the page cache of this host. `copyThread` is for tests: what runs beside this thread. */
export function openSystemDisk(root: string, copyThread = COPY_THREAD): Disk & { close(): Promise<void> } {
  const at = (relative: string) => path.join(root, relative)
  const copier = new Copier(copyThread)

  return {
    open: async (relative, options) => {
      const { create = false, empty = false } = options ?? {}
      const flags = constants.O_RDWR | (create ? constants.O_CREAT : 0) | (empty ? constants.O_TRUNC : 0)
      return new SystemFile(await file.open(at(relative), flags, FILE_MODE))
    },
    openNow: (relative) => {
      const fd: number = syscall(SYS_OPENAT2, AT_FDCWD, at(relative), openCached, openCached.byteLength)
      return fd < 0 ? null : new SystemFile(fd) // a kernel before 5.12 knows no such flag: it fails
    },
    createNow: (relative) => {
      return new SystemFile(openSync(at(relative), constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, FILE_MODE))
    },
    createMany: async (paths) => {
      const descriptors = await copier.create(paths.map(at))
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
      if (files.length + directories.length < SYNCFS_FILES_MIN) {
        await Promise.all(files.map((file) => file.sync()))
        await Promise.all(directories.map((directory) => syncDirectory(at(directory))))
        return
      }
      if (files[0]) await syncFileSystem((files[0] as SystemFile).fd)
      else await withDirectory(at(directories[0]!), ({ fd }) => syncFileSystem(fd))
    },
    startWriteback: (files) => {
      for (const each of files) {
        const { fd } = each as SystemFile
        if (fd >= 0) syncFileRange.async(fd, 0, 0, SYNC_FILE_RANGE_WRITE, () => {})
      }
    },
    cacheIdentity: async () => {
      const bootId = await readFile('/proc/sys/kernel/random/boot_id', 'latin1')
      const { dev, ino } = await stat(root, { bigint: true })
      return `${bootId.trim()} ${dev} ${ino}`
    },
    lock: async (relative) => {
      const file = await open(at(relative), constants.O_RDWR | constants.O_CREAT, 0o600)
      if (flock(file.fd, LOCK_EXCLUSIVE_NOW) !== 0) {
        await file.close()
        return null
      }
      return { release: () => file.close() }
    },
    close: () => copier.close(),
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
  const directory = await open(absolute, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await use(directory)
  } finally {
    await directory.close()
  }
}

const syncDirectory = (absolute: string) => withDirectory(absolute, (directory) => directory.sync())

function syncFileSystem(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    syncfs.async(fd, (error: unknown, result: number) => {
      if (error || result !== 0) reject(error ?? libcError('syncfs'))
      else resolve()
    })
  })
}

/** A directory that is there already, as a disk of the store. */
export async function openDiskDirectory(directory: string): Promise<OpenedDisk> {
  const root = await realpath(directory)
  const found = await stat(root)
  if (!found.isDirectory()) throw Object.assign(new Error(`ENOTDIR: not a directory, '${root}'`), { code: 'ENOTDIR' })
  return { ...openSystemDisk(root), path: root, device: String(found.dev) }
}

class SystemFile implements DiskFile {
  /** -1 once it is closed: the number may be another file's by then. */
  fd: number

  constructor(fd: number) {
    this.fd = fd
  }

  get #open(): number {
    if (this.fd < 0) throw Object.assign(new Error('EBADF: the file is closed'), { code: 'EBADF' })
    return this.fd
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    let done = 0
    while (done < target.length) {
      const { bytesRead } = await file.read(this.#open, target, done, target.length - done, position + done)
      if (bytesRead === 0) break
      done += bytesRead
    }
    return done
  }

  readNow(target: Uint8Array, position: number): number {
    iovec[0] = BigInt(koffi.address(target))
    iovec[1] = BigInt(target.length)
    const count: number = preadv2(this.fd, iovec, 1, position, RWF_NOWAIT)
    return count === target.length ? count : WOULD_BLOCK
  }

  async write(source: Uint8Array, position: number): Promise<void> {
    let done = 0
    while (done < source.length) {
      const { bytesWritten } = await file.write(this.#open, source, done, source.length - done, position + done)
      done += bytesWritten
    }
  }

  writeNow(sources: readonly Uint8Array[], position: number): void {
    for (let first = 0; first < sources.length; first += IOVECS_MAX) {
      const batch = sources.slice(first, first + IOVECS_MAX)
      const length = batch.reduce((sum, source) => sum + source.length, 0)
      let written = writevSync(this.fd, batch, position)
      // A short write is rare (a signal, a full disk); the rest goes out in single writes, which say why.
      for (let skip = written, i = 0; written < length; i++) {
        const source = batch[i]!
        if (skip >= source.length) skip -= source.length
        else {
          for (let at = skip; at < source.length; ) {
            const count = writeSync(this.fd, source, at, source.length - at, position + written)
            at += count
            written += count
          }
          skip = 0
        }
      }
      position += length
    }
  }

  async sync(): Promise<void> {
    await file.datasync(this.#open)
  }

  punch(position: number, length: number): void {
    fallocate(this.fd, PUNCH_HOLE_KEEP_SIZE, position, length)
  }

  async truncate(length: number): Promise<void> {
    await file.truncate(this.#open, length)
  }

  async size(): Promise<number> {
    return (await file.stat(this.#open)).size
  }

  async dataRanges(): Promise<{ position: number; length: number }[]> {
    const ranges: { position: number; length: number }[] = []
    for (let end = 0; ; ) {
      const start = this.#seek(end, SEEK_DATA)
      if (start === null) return ranges
      end = this.#seek(start, SEEK_HOLE) ?? start
      ranges.push({ position: start, length: end - start })
    }
  }

  /** Null when there is no data from `position` to the end of the file. */
  #seek(position: number, whence: number): number | null {
    const found: number = lseek(this.fd, position, whence)
    if (found >= 0) return found
    const error = libcError('lseek')
    if (error.code === 'ENXIO') return null
    throw error
  }

  async close(): Promise<void> {
    const { fd } = this
    this.fd = -1
    if (fd >= 0) await file.close(fd)
  }
}

const iovec = new BigUint64Array(2)

function libcError(call: string): NodeJS.ErrnoException {
  const errno = koffi.errno()
  const code = Object.entries(koffi.os.errno).find(([, value]) => value === errno)?.[0] ?? `E${errno}`
  return Object.assign(new Error(`${call} failed: ${code}`), { code })
}

/** `syscall` says whether reading or writing failed. */
interface CopyError {
  message: string
  code?: string
  syscall?: string
}

/** What the thread answers: the descriptors of files that it was to make. */
interface CopyAnswer {
  id: number
  error: CopyError | null
  descriptors: number[]
  /** What came with the question and can be used again. */
  bytes?: ArrayBuffer
}

/**
 * Hands copies, writes, punches and the making of files to a thread; started at the first use. When the thread ends, nobody knows
 * what of its work was done: that fails, and so does all that comes after it. The errors bear no code, as no disk is to blame.
 */
class Copier {
  readonly #script: URL
  #worker: Worker | null = null
  #ended: Error | null = null
  /** Memory that has been to the thread and back: new memory costs more than what is written from it. */
  #spare: ArrayBuffer | null = null
  #nextId = 1
  readonly #waiting = new Map<number, { resolve: (descriptors: number[]) => void; reject: (error: Error) => void }>()

  constructor(script: URL) {
    this.#script = script
  }

  async create(paths: readonly string[]): Promise<number[]> {
    return paths.length === 0 ? [] : this.#ask({ paths, mode: FILE_MODE })
  }

  async write(writes: readonly Write[]): Promise<void> {
    if (writes.length === 0) return
    const length = writes.reduce((sum, { bytes }) => sum + bytes.length, 0)
    const spare = this.#spare !== null && this.#spare.byteLength >= length ? this.#spare : new ArrayBuffer(length)
    this.#spare = null
    const bytes = new Uint8Array(spare)
    const jobs = new Float64Array(writes.length * 3)
    let end = 0
    writes.forEach((write, i) => {
      jobs.set([(write.to as SystemFile).fd, write.position, write.bytes.length], i * 3)
      bytes.set(write.bytes, end)
      end += write.bytes.length
    })
    await this.#ask({ writes: jobs, bytes: spare }, [jobs.buffer, spare])
  }

  async copy(copies: readonly Copy[]): Promise<void> {
    if (copies.length === 0) return
    const jobs = new Float64Array(copies.length * 5)
    copies.forEach(({ from, fromPosition, to, toPosition, length }, i) => {
      jobs.set([(from as SystemFile).fd, fromPosition, (to as SystemFile).fd, toPosition, length], i * 5)
    })
    await this.#ask({ copies: jobs }, [jobs.buffer])
  }

  async punch(ranges: readonly FileRange[]): Promise<void> {
    if (ranges.length === 0) return
    const jobs = new Float64Array(ranges.length * 3)
    ranges.forEach(({ file, position, length }, i) => {
      jobs.set([(file as SystemFile).fd, position, length], i * 3)
    })
    await this.#ask({ punches: jobs }, [jobs.buffer])
  }

  #ask(work: object, moved: ArrayBuffer[] = []): Promise<number[]> {
    if (this.#ended) return Promise.reject(this.#ended)
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      const thread = this.#thread()
      thread.ref() // what waits for it keeps the process; an idle thread does not
      thread.postMessage({ id, ...work }, moved)
    })
  }

  #thread(): Worker {
    if (this.#worker) return this.#worker
    const worker = new Worker(this.#script, {
      stdout: false,
      stderr: false,
      trackUnmanagedFds: false, // the files that it makes are not its own
    })
    worker.on('message', ({ id, error, descriptors, bytes }: CopyAnswer) => {
      this.#spare = bytes ?? this.#spare
      const waiter = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (this.#waiting.size === 0) worker.unref()
      if (error) waiter?.reject(Object.assign(new Error(error.message), { code: error.code, syscall: error.syscall }))
      else waiter?.resolve(descriptors)
    })
    worker.on('error', (error) => this.#end(`the copying thread has failed: ${error.message}`))
    worker.on('exit', (code) => this.#end(`the copying thread has ended with code ${code}`))
    this.#worker = worker
    return worker
  }

  #end(why: string): void {
    this.#ended ??= new Error(why)
    for (const waiter of this.#waiting.values()) waiter.reject(this.#ended)
    this.#waiting.clear()
  }

  async close(): Promise<void> {
    await this.#worker?.terminate()
  }
}
