import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'

/**
 * Small files that are read and written whole: settings, credentials; and directories of sockets. Synchronous, for use at start
 * only; what the store keeps goes through the Disk port.
 */

/** A file of ours that cannot be read as what it is; the message names it and says what to do. */
export class DamagedFile extends Error {
  override readonly name = 'DamagedFile'

  constructor(path: string, cause: Error) {
    super(`${path} is damaged (${cause.message}); bring it back from a backup`, { cause })
  }
}

export function fileExists(path: string): boolean {
  return existsSync(path)
}

/** The names in a directory, in no order; an absent one has none. */
export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/** Makes a directory that is its owner's only, unless it is there. */
export function makeDirectory(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 })
}

/** Removes a file; an absent one is not an error. */
export function removeFile(path: string): void {
  rmSync(path, { force: true })
}

/** The text of a file, or null when there is none. */
export function readTextFile(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}

/**
 * Replaces a file in one step: after a crash either the old text is there or the new one, with the permissions `mode` from
 * the first byte on. Durable on return.
 */
export function writeTextFile(path: string, text: string | Buffer, mode: number): void {
  const temporary = `${path}.${process.pid}.tmp`
  rmSync(temporary, { force: true }) // of a process that was killed here; in a container the next one has the same id
  const file = openSync(temporary, 'wx', mode)
  try {
    writeFileSync(file, text)
    fsyncSync(file)
  } catch (error) {
    unlinkSync(temporary)
    throw error
  } finally {
    closeSync(file)
  }
  renameSync(temporary, path)
  const directory = openSync(dirname(path), 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}
