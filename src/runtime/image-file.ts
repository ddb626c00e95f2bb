import { constants } from 'node:fs'
import { type FileHandle, lstat, mkdtemp, open, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { seek } from './libc.ts'

/** Files and devices of any size that a command reads or makes: disk images. */

export interface SourceFile {
  /** Of a file or a block device; null for a pipe, of which nobody knows. */
  readonly sizeBytes: number | null
  /** Fills `target` from `offset` on, or from where a pipe has come to; fewer bytes mean the end. */
  read(offset: number, target: Buffer): Promise<number>
  /** Where data comes next from `offset` on; null when only a hole follows. What cannot tell has data everywhere. */
  nextData(offset: number): number | null
  close(): Promise<void>
}

/** Rejects with what the system says. */
export async function openSource(file: string): Promise<SourceFile> {
  const handle = await open(file, constants.O_RDONLY)
  try {
    const status = await handle.stat()
    if (status.isDirectory())
      throw Object.assign(new Error(`${file} is a directory`), { code: 'EISDIR', syscall: 'open' })
    const isSeekable = status.isFile() || status.isBlockDevice()
    const sizeBytes = isSeekable ? seek(handle.fd, 0, 'end') : null
    return {
      sizeBytes,
      read: (offset, target) => readFully(handle, isSeekable ? offset : null, target),
      nextData: (offset) => {
        if (sizeBytes === null) return offset
        try {
          return seek(handle.fd, offset, 'data')
        } catch {
          return offset // it cannot tell
        }
      },
      close: () => handle.close(),
    }
  } catch (error) {
    await handle.close()
    throw error
  }
}

async function readFully(handle: FileHandle, offset: number | null, target: Buffer): Promise<number> {
  let filled = 0
  while (filled < target.length) {
    const position = offset === null ? null : offset + filled
    const { bytesRead } = await handle.read(target, filled, target.length - filled, position)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return filled
}

/**
 * A file that is made beside its place and put there when it is whole, so that a command that ends early leaves neither half a
 * file nor none where one was.
 */
export interface TargetFile {
  readonly temporaryPath: string
  setSize(sizeBytes: number): Promise<void>
  write(offset: number, bytes: Buffer): Promise<void>
  /** Makes it durable and puts it in its place. */
  commit(): Promise<void>
  /** Removes what there is of it; after `commit` it does nothing. */
  discard(): Promise<void>
}

/** There is a file already, which `replace` would replace. */
export class FileInTheWay extends Error {
  override readonly name = 'FileInTheWay'
  readonly code = 'EEXIST'
  readonly syscall = 'open'
}

/** Rejects with EEXIST when something is in the place, unless that is a file and may be replaced. */
export async function createTarget(file: string, { replace }: { replace: boolean }): Promise<TargetFile> {
  await checkPlace(file, replace)
  const temporaryPath = path.join(path.dirname(file), `.${path.basename(file)}.${process.pid}.part`)
  // Nobody else's: it holds what is on a disk.
  const handle = await open(temporaryPath, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
  let settled = false
  return {
    temporaryPath,
    setSize: (sizeBytes) => handle.truncate(sizeBytes),
    write: async (offset, bytes) => {
      for (let at = 0; at < bytes.length; ) {
        at += (await handle.write(bytes, at, bytes.length - at, offset + at)).bytesWritten
      }
    },
    commit: async () => {
      await handle.sync()
      await checkPlace(file, replace)
      await rename(temporaryPath, file)
      settled = true
      await handle.close()
      await syncDirectory(path.dirname(file))
    },
    discard: async () => {
      if (settled) return
      settled = true
      await handle.close()
      await rm(temporaryPath, { force: true })
    },
  }
}

async function checkPlace(file: string, replace: boolean): Promise<void> {
  const status = await lstat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
  if (status === null || (replace && status.isFile())) return
  if (status.isFile()) throw new FileInTheWay(`${file} exists`)
  throw Object.assign(new Error(`${file} exists and is not a regular file`), { code: 'EEXIST', syscall: 'open' })
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** A directory that only this user may enter, with a function that removes it. */
export async function makeTemporaryDirectory(): Promise<{ directory: string; remove(): Promise<void> }> {
  const directory = await mkdtemp(path.join(tmpdir(), 'collie-'))
  return { directory, remove: () => rm(directory, { recursive: true, force: true }) }
}
