import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { expect, it, vi } from 'vitest'
import { Collie } from '../tools/collie.ts'
import { encryptedCloud } from '../tools/encrypted-cloud.ts'
import { commandExists, testUnless } from '../tools/require-command.ts'
import { scratchDirectory } from '../tools/scratch.ts'
import { Cloud } from './restore-from-nothing.ts'

const mortal = new URL('../tools/mortal-copy-thread.mjs', import.meta.url)

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

it('a thread that ends in the middle is followed by another one, which goes on; the API answers meanwhile', async () => {
  const directory = scratchDirectory('collie-target-')
  try {
    const cloud = await Cloud.start([`--backup-directory=${directory}`], mortal)
    const volume = await cloud.api.createVolume({ size: 1 })
    await cloud.api.until('volume', volume, 'available')
    const bytes = randomBytes(9 * 1024 ** 2)
    await cloud.write(volume, 0, bytes)

    const order = `${cloud.collie.dataDir}/end-copy-thread`
    writeFileSync(order, '')
    const backup = await cloud.beginBackup(volume)
    await vi.waitFor(() => expect(existsSync(order)).toBe(false), { timeout: 20_000, interval: 5 })
    expect((await cloud.show(backup)).status).toBe('creating')
    await cloud.api.until('backup', backup, 'available')
    expect(cloud.collie.tailOfLog()).toContain('the thread that copies volumes has ended: a test has ended it')

    // The one that followed may end too, and in the middle of something else.
    writeFileSync(order, '')
    await cloud.createBackup(volume, true)
    expect(existsSync(order)).toBe(true) // nothing has changed: there was nothing to write for it
    bytes.fill(1, 0, 4096)
    await cloud.write(volume, 0, bytes.subarray(0, 4096))
    const third = await cloud.createBackup(volume, true)
    expect(existsSync(order)).toBe(false)
    expect((await cloud.read(await cloud.restore(third), 0, bytes.length)).equals(bytes)).toBe(true)
  } finally {
    rmSync(directory, { recursive: true })
  }
})

const withQemu = testUnless(!commandExists('qemu-io') && 'qemu-io is missing: apt-get install qemu-utils')

withQemu('so it is with a volume that gets another encryption, whatever becomes of the target of backups', async () => {
  const directory = scratchDirectory('collie-target-')
  const collie = await Collie.create(`--backup-directory=${directory}`)
  try {
    collie.preload(mortal)
    await collie.start()
    const { cinder, byHand, run, retype } = await encryptedCloud(collie)
    const volume = await cinder.createVolume({ volume_type: 'LUKS' })
    await run(volume, 'write -P 0x5a 1M 64k', byHand)

    rmSync(directory, { recursive: true })
    writeFileSync(directory, 'a file in its place')
    const order = `${collie.dataDir}/end-copy-thread`
    writeFileSync(order, '')
    await retype(volume, 'longer')
    expect(existsSync(order)).toBe(false)
    expect(collie.tailOfLog()).toContain('the thread that copies volumes has ended: a test has ended it')
    expect(await run(volume, 'read -P 0x5a 1M 64k', byHand)).toMatch(/^read 65536\/65536/)
  } finally {
    await collie.dispose()
    rmSync(directory, { recursive: true })
  }
})
