import { randomBytes } from 'node:crypto'
import { rmSync } from 'node:fs'
import { afterAll, expect, it } from 'vitest'
import { scratchDirectory } from '../tools/scratch.ts'
import { BUCKET, openS3Target, S3_REGION, SWIFT_PASSWORD, SWIFT_USER, sharedSwift, withSwift } from '../tools/swift.ts'
import { Cloud, loseAndRestore } from './restore-from-nothing.ts'

const MIB = 1024 ** 2

const directory = scratchDirectory('collie-target-')
afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** The settings of each kind of target. */
const TARGETS = {
  directory: async () => [`--backup-directory=${directory}`],
  S3: async () => {
    const { url } = await sharedSwift()
    await (await openS3Target()).close() // makes the bucket
    return [
      '--backup-target=s3',
      `--backup-s3-endpoint=${url}`,
      `--backup-s3-region=${S3_REGION}`,
      `--backup-s3-bucket=${BUCKET}`,
      `--backup-s3-access-key=${SWIFT_USER}`,
      `--backup-s3-secret-key=${SWIFT_PASSWORD}`,
    ]
  },
  Swift: async () => {
    const { url } = await sharedSwift()
    return [
      '--backup-target=swift',
      '--backup-swift-auth=v1',
      `--backup-swift-auth-url=${url}/auth/v1.0`,
      `--backup-swift-username=${SWIFT_USER}`,
      `--backup-swift-password=${SWIFT_PASSWORD}`,
    ]
  },
}

for (const kind of ['S3', 'Swift'] as const) {
  withSwift(`brings volumes back from ${kind}`, async () => {
    await loseAndRestore(await TARGETS[kind]())
  })
}

for (const [kind, flagsOf] of Object.entries(TARGETS)) {
  const run = kind === 'directory' ? it : withSwift
  run(`goes on after kill -9 in the middle, with ${kind}`, async () => {
    const cloud = await Cloud.start(await flagsOf())
    const volume = await cloud.api.createVolume({ size: 1 })
    await cloud.api.until('volume', volume, 'available')
    const pieces = Array.from({ length: 5 }, (_, page) => ({
      offset: page * 128 * MIB + 7 * MIB,
      bytes: randomBytes(10 * MIB),
    }))
    for (const { offset, bytes } of pieces) await cloud.write(volume, offset, bytes)

    const backup = await cloud.beginBackup(volume)
    await cloud.untilCopied(backup, 1)
    await cloud.collie.kill('SIGKILL')
    await cloud.collie.start()
    await cloud.api.until('backup', backup, 'available')
    expect((await cloud.show(backup)).object_count).toBe(pieces.length * 4)

    const restored = await cloud.beginRestore(backup)
    await cloud.collie.kill('SIGKILL')
    await cloud.collie.start()
    await cloud.api.until('backup', backup, 'available')
    for (const { offset, bytes } of pieces) {
      expect((await cloud.read(restored, offset, bytes.length)).equals(bytes)).toBe(true)
    }
    expect((await cloud.collie.command('db', 'check', ...(await flagsOf()))).out).not.toContain(volume)
  })
}
