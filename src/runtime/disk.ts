/**
 * The disk as the store sees it. What a caller may rely on after a crash, and nothing more:
 *
 * 1. Bytes written are durable once a later `sync()` of that file has resolved. Until then any part of them, cut at
 *    512-byte sectors, may or may not be there.
 * 2. A file that was created, renamed or unlinked is so durably once `syncDirectory` of its directory has resolved.
 * 3. When `sync()` or a write fails, nothing is known about what it covered. The caller must not try again: the
 *    kernel may have dropped the pages and would answer the second sync with success.
 *
 * Paths are relative to the root that the disk was opened on.
 */
export interface Disk {
  /** Opens a file for reading and writing. ENOENT is an error unless `create`; with `empty` what it held is gone. */
  open(path: string, options?: { create?: boolean; empty?: boolean }): Promise<DiskFile>
  /**
   * Opens a file that is there, synchronously and only if its name is in memory: null when that would wait for the device, or
   * fails. The caller uses `open` instead, which says why.
   */
  openNow(path: string): DiskFile | null
  /** Makes an empty file, or empties the one there is, at once: as durable as with `open`. ENOENT without its directory. */
  createNow(path: string): DiskFile
  /** As `open` with `create` and `empty` for each, off the caller's thread where that is possible; when it fails, none is open. */
  createMany(paths: readonly string[]): Promise<DiskFile[]>
  makeDirectory(path: string): Promise<void>
  /** Names in a directory, in no order; an absent directory has none. */
  list(path: string): Promise<string[]>
  /** The files in the directories of a directory, as `directory/name`, in no order. */
  listBelow(path: string): Promise<string[]>
  rename(from: string, to: string): Promise<void>
  /** Removes a file; an absent one is not an error, so that a removal can be repeated after a crash. */
  unlink(path: string): Promise<void>
  syncDirectory(path: string): Promise<void>
  /** Bytes in all and bytes free of the file system below the root. */
  space(): Promise<{ totalBytes: number; freeBytes: number }>
  /** Copies ranges between open files, in order, off the caller's thread where that is possible. Not durable by itself. */
  copyMany(copies: readonly Copy[]): Promise<void>
  /** As `write` for each, off the caller's thread where that is possible. */
  writeMany(writes: readonly Write[]): Promise<void>
  /**
   * Gives the space of ranges back, which read as zeros from then on; best effort. Off the caller's thread where that is possible: a
   * file system may wait for the device with it. Until it resolves nothing may be written there.
   */
  punchMany(ranges: readonly FileRange[]): Promise<void>
  /** Makes everything written to these files, and the names in these directories, durable, by whatever costs least. */
  syncMany(files: readonly DiskFile[], directories?: readonly string[]): Promise<void>
  /** Lets what was written to these files be on its way to the device, so that a later sync has less to wait for. */
  startWriteback(files: readonly DiskFile[]): void
  /**
   * Names the page cache that the files are seen through. As long as it is the same, what a process that has ended wrote and
   * did not sync is there as well.
   */
  cacheIdentity(): Promise<string>
  /** Takes a lock that ends with `release` or with the process, however it ends. Null when another process has it. */
  lock(path: string): Promise<{ release(): Promise<void> } | null>
}

/** A directory that was opened as a disk of its own. */
export interface OpenedDisk extends Disk {
  /** Absolute, without symbolic links. */
  path: string
  /** The same for two disks that share one file system, and so its space. */
  device: string
  close(): Promise<void>
}

/** Opens a directory as a disk. Rejects with ENOENT or ENOTDIR when there is none; it is never made. */
export type OpenDisk = (path: string) => Promise<OpenedDisk>

export interface Copy {
  from: DiskFile
  fromPosition: number
  to: DiskFile
  toPosition: number
  length: number
}

export interface Write {
  to: DiskFile
  position: number
  bytes: Uint8Array
}

export interface FileRange {
  file: DiskFile
  position: number
  length: number
}

/** Answer of `readNow` when the bytes are not in memory: the caller reads with `read` instead. */
export const WOULD_BLOCK = -1

export interface DiskFile {
  /** Reads up to `target.length` bytes at `position`; resolves with the count, short only at the end of the file. */
  read(target: Uint8Array, position: number): Promise<number>
  /** As `read`, but synchronous and only from memory: a byte count, or WOULD_BLOCK. Never waits for the device. */
  readNow(target: Uint8Array, position: number): number
  write(source: Uint8Array, position: number): Promise<void>
  /** Writes the buffers one after the other at `position`, synchronously, into the page cache. */
  writeNow(sources: readonly Uint8Array[], position: number): void
  /** Makes everything written so far durable (fdatasync). */
  sync(): Promise<void>
  /** Sets the size; bytes beyond the old end read as zeros. */
  truncate(length: number): Promise<void>
  size(): Promise<number>
  /** Where the file holds something, in order; everything else is holes and reads as zeros. */
  dataRanges(): Promise<{ position: number; length: number }[]>
  close(): Promise<void>
}

/** Runs `use` with something that was opened for it; when that fails, it is closed again. */
export async function orClose<T>(opened: { close(): Promise<void> }, use: () => T | Promise<T>): Promise<T> {
  try {
    return await use()
  } catch (error) {
    await opened.close()
    throw error
  }
}
