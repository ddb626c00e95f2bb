import { closeSync, fdatasync, openSync } from 'node:fs'
import { promisify } from 'node:util'

/** Makes what others wrote to a file durable. */
export interface FileSync {
  /** Resolves when all that was written to the file before the call survives loss of power. */
  sync(): Promise<void>
  close(): void
}

const datasync = promisify(fdatasync)

/** The file may come to be later, but before the first sync. */
export function openFileSync(path: string): FileSync {
  let file: number | null = null
  return {
    sync: () => {
      file ??= openSync(path, 'r')
      return datasync(file)
    },
    close: () => {
      if (file !== null) closeSync(file)
      file = null
    },
  }
}
