import { randomBytes } from 'node:crypto'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { scratchDirectory } from '../tools/scratch.ts'
import { Cloud } from './restore-from-nothing.ts'

it('what keeps a backup from being copied is told in its own words, and the next one goes on once it is mended', async () => {
  const directory = scratchDirectory('collie-target-')
  try {
    const cloud = await Cloud.start([`--backup-directory=${directory}`])
    const volume = await cloud.api.createVolume({ size: 1 })
    await cloud.api.until('volume', volume, 'available')
    const bytes = randomBytes(5 * 1024 ** 2)
    await cloud.write(volume, 0, bytes)
    await cloud.createBackup(volume)

    rmSync(directory, { recursive: true })
    writeFileSync(directory, 'a file in its place')
    const failed = await cloud.beginBackup(volume)
    await cloud.api.until('backup', failed, 'error')
    const reason = /^The storage backend failed: the backup target, at volumebackups\/\S+: ENOTDIR/
    expect((await cloud.show(failed)).fail_reason).toMatch(reason)
    rmSync(directory)
    mkdirSync(directory)
    const backup = await cloud.createBackup(volume)
    expect((await cloud.read(await cloud.restore(backup), 0, bytes.length)).equals(bytes)).toBe(true)
  } finally {
    rmSync(directory, { recursive: true })
  }
})
