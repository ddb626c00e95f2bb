import { mkdtempSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

const MEMORY = '/dev/shm'
const TMPFS_MAGIC = 0x0102_1994
/** Some containers have next to nothing there. */
const ROOM_MIN = 4 * 1024 ** 3

/**
 * A new directory, in memory where that has room: for databases and the like that are about something else than disks, and that
 * would otherwise wait for one at each commit. The caller removes it.
 */
export function scratchDirectory(prefix: string): string {
  return mkdtempSync(path.join(place(), prefix))
}

function place(): string {
  try {
    const { type, bavail, bsize } = statfsSync(MEMORY)
    return type === TMPFS_MAGIC && bavail * bsize >= ROOM_MIN ? MEMORY : tmpdir()
  } catch {
    return tmpdir()
  }
}
