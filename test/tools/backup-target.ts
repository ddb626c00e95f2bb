import { rmSync } from 'node:fs'
import { afterAll } from 'vitest'
import { openSystemDisk } from '../../src/runtime/system-disk.ts'
import { createDirectoryTarget } from '../../src/services/backup/directory-target.ts'
import type { BackupTarget } from '../../src/services/backup/target.ts'
import { scratchDirectory } from './scratch.ts'

const directories: string[] = []
afterAll(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true })
})

/** A directory of its own below the temporary one, which goes with the test file. */
export async function openBackupTarget(): Promise<BackupTarget> {
  const directory = scratchDirectory('collie-backups-')
  directories.push(directory)
  return createDirectoryTarget(openSystemDisk(directory))
}
