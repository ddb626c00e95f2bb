import { constants } from 'node:fs'
import koffi from 'koffi'

/*
 * What Node's fs does not offer for files, called in libc directly:
 *  - preadv2 with RWF_NOWAIT: a read that is answered from the page cache or not at all;
 *  - openat2 with RESOLVE_CACHED, which libc has no function for: opens what is in the cache of names or nothing;
 *  - flock: the kernel drops the lock when the process ends, however it ends;
 *  - sync_file_range: begins to write dirty pages and does not wait for them;
 *  - syncfs: one call instead of an fdatasync for each of hundreds of files;
 *  - lseek: which parts of a sparse file hold anything, and how long a block device is.
 * Asynchronous calls are refused from 256 at a time on: whoever has many makes few of them at once.
 */
const libc = koffi.load('libc.so.6')
const preadv2 = libc.func('int64_t preadv2(int fd, void *iov, int count, int64_t offset, int flags)')
const syscall = libc.func('int64_t syscall(int64_t number, int fd, const char *path, void *how, int64_t size)')
const flock = libc.func('int flock(int fd, int operation)')
const syncFileRange = libc.func('int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)')
const syncfs = libc.func('int syncfs(int fd)')
const lseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)')

const RWF_NOWAIT = 8
/** The same on all architectures, as all system calls since Linux 5.1. */
const SYS_OPENAT2 = 437
const AT_FDCWD = -100
const O_CLOEXEC = 0o2000000
const RESOLVE_CACHED = 0x20
/** struct open_how: flags, mode, resolve. */
const openHow = new BigUint64Array([BigInt(constants.O_RDWR | O_CLOEXEC), 0n, BigInt(RESOLVE_CACHED)])
const SYNC_FILE_RANGE_WRITE = 2
const LOCK_EXCLUSIVE_NOW = 2 | 4
const WHENCE = { end: 2, data: 3, hole: 4 } as const

/** One at a time: a call is over before the next begins. */
const iovec = new BigUint64Array(2)

/** How many bytes the page cache had at once; -1 when it would have to wait for any. */
export function readCached(fd: number, target: Uint8Array, position: number): number {
  iovec[0] = BigInt(koffi.address(target))
  iovec[1] = BigInt(target.length)
  return preadv2(fd, iovec, 1, position, RWF_NOWAIT)
}

/** A descriptor for reading and writing; -1 when the name is not in the cache, or the kernel, before 5.12, cannot look there alone. */
export function openCached(path: string): number {
  return syscall(SYS_OPENAT2, AT_FDCWD, path, openHow, openHow.byteLength)
}

/** False when another process has it. */
export function lockNow(fd: number): boolean {
  return flock(fd, LOCK_EXCLUSIVE_NOW) === 0
}

/** Begins to write what is dirty. Resolves when the device has been told, whatever came of that. */
export function startWriteback(fd: number): Promise<void> {
  return new Promise((resolve) => {
    syncFileRange.async(fd, 0, 0, SYNC_FILE_RANGE_WRITE, () => resolve())
  })
}

/** Everything of the file system that the descriptor is on. */
export function syncFileSystem(fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    syncfs.async(fd, (error: unknown, result: number) => {
      if (error || result !== 0) reject(error ?? libcError('syncfs'))
      else resolve()
    })
  })
}

/** Where the next data, or the next hole, or the end is; null when there is no data from `position` to the end. Throws what the system says. */
export function seek(fd: number, position: number, to: keyof typeof WHENCE): number | null {
  const found = Number(lseek(fd, position, WHENCE[to]))
  if (found >= 0) return found
  const error = libcError('lseek')
  if (error.code === 'ENXIO') return null
  throw error
}

function libcError(call: string): NodeJS.ErrnoException {
  const errno = koffi.errno()
  const code = Object.entries(koffi.os.errno).find(([, value]) => value === errno)?.[0] ?? `E${errno}`
  return Object.assign(new Error(`${call} failed: ${code}`), { code })
}
