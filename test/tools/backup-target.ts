import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openSystemDisk } from '../../src/runtime/system-disk.ts'
import { createDirectoryTarget } from '../../src/services/backup/directory-target.ts'
import type { BackupTarget } from '../../src/services/backup/target.ts'

const directories: string[] = []
process.once('exit', () => {
  for (const directory of directories) rmSync(directory, { recursive: true, force: true })
})

/** A directory of its own below the temporary one, which goes with the process. */
export async function openBackupTarget(): Promise<BackupTarget> {
  const directory = mkdtempSync(join(tmpdir(), 'collie-backups-'))
  directories.push(directory)
  return createDirectoryTarget(openSystemDisk(directory))
}
