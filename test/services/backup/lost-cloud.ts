import { randomBytes } from 'node:crypto'
import { expect } from 'vitest'
import { createMemoryDriver } from '../../../src/drivers/memory.ts'
import { systemRandom } from '../../../src/runtime/random.ts'
import type { BackupTarget } from '../../../src/services/backup/target.ts'
import { findBackups } from '../../../src/services/backup-comparison.ts'
import { importBackups } from '../../../src/services/backup-import.ts'
import type { QuotaSettings } from '../../../src/services/quota.ts'
import { createStamp } from '../../../src/services/stamp.ts'
import {
  availableVolume,
  createHarness,
  type Harness,
  member,
  newBackup,
  newVolume,
  outcome,
  stranger,
  TEST_SETTINGS,
} from '../harness.ts'

const MIB = 1024 ** 2

const open = ({ backend }: Harness, id: string) =>
  createMemoryDriver(backend, systemRandom).openVolume({ id, sizeGib: 1 })

export async function fill(harness: Harness, id: string, offset: number, bytes: Buffer): Promise<void> {
  await (await open(harness, id)).write(offset, bytes)
}

async function read(harness: Harness, id: string, offset: number, lengthBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(lengthBytes, 0xff)
  await (await open(harness, id)).read(offset, bytes)
  return bytes
}

export async function backUp(harness: Harness, volumeId: string, incremental = false, by = member): Promise<string> {
  const { id } = await harness.services.backups.create(
    by,
    newBackup(volumeId, { incremental, name: `of ${by.projectId}` }),
  )
  await harness.services.idle()
  expect((await harness.services.backups.get(by, id)).status).toBe('available')
  return id
}

export async function restore(harness: Harness, backupId: string, by = member): Promise<string> {
  const { volumeId } = await harness.services.backups.restore(by, backupId, { volumeId: null, name: null })
  await harness.services.idle()
  expect((await harness.services.volumes.get(by, volumeId)).status).toBe('available')
  return volumeId
}

interface Changes {
  projectId?: string | null
  quota?: Partial<QuotaSettings>
}

/** As the command does it, for another cloud that has nothing but the target. */
export async function takeOver(harness: Harness, wanted?: string[], { projectId = null, quota = {} }: Changes = {}) {
  const found = await findBackups(harness.backups)
  const settings = { ...TEST_SETTINGS, quota: { ...TEST_SETTINGS.quota, ...quota } }
  const stamp = createStamp(harness.clock)
  const results = await importBackups(
    { db: harness.db, stamp, settings, keepsKeys: true, projectId },
    found,
    wanted ?? found.keys(),
  )
  return new Map(results.map(({ id, outcome, reason }) => [id, reason ?? outcome]))
}

/** Another cloud with the same target, and nothing else. */
export const newCloud = (harness: Harness) => createHarness({ backupTarget: harness.backups })

/** A cloud that is lost with all but a target, which is empty at first, and another one that brings everything back. */
export async function loseAndRestore(backupTarget: BackupTarget): Promise<void> {
  const lost = await createHarness({ backupTarget })
  const id = await availableVolume(lost, { name: 'precious', metadata: { tier: 'gold' } })
  const [first, second, third] = [randomBytes(5 * MIB), randomBytes(8192), randomBytes(4096)]
  await fill(lost, id, 0, first)
  const full = await backUp(lost, id)
  await fill(lost, id, 4 * MIB, second)
  const next = await backUp(lost, id, true)
  await fill(lost, id, 600 * MIB, third)
  const last = await backUp(lost, id, true)
  const { id: othersVolume } = await lost.services.volumes.create(stranger, newVolume())
  await lost.services.idle()
  const others = await backUp(lost, othersVolume, false, stranger)
  await lost.end()

  const cloud = await newCloud(lost)
  const expected = new Map([full, next, last, others].map((backup) => [backup, 'imported']))
  expect(await takeOver(cloud)).toEqual(expected)
  expect(new Set((await takeOver(cloud)).values())).toEqual(new Set(['known']))

  const { backups, volumes } = cloud.services
  expect(await backups.get(member, last)).toMatchObject({
    status: 'available',
    name: 'of project',
    volumeId: id,
    isIncremental: true,
    hasDependentBackups: false,
  })
  expect(await backups.get(member, full)).toMatchObject({ isIncremental: false, hasDependentBackups: true })
  expect(await outcome(backups.get(member, others))).toBe('BackupNotFound')
  expect((await backups.get(stranger, others)).status).toBe('available')

  const restored = await restore(cloud, last)
  expect(await volumes.get(member, restored)).toMatchObject({ name: 'precious', metadata: { tier: 'gold' } })
  const expectedBytes = Buffer.concat([first.subarray(0, 4 * MIB), second, first.subarray(4 * MIB + 8192)])
  expect((await read(cloud, restored, 0, 5 * MIB)).equals(expectedBytes)).toBe(true)
  expect((await read(cloud, restored, 600 * MIB, 4096)).equals(third)).toBe(true)
  const older = await restore(cloud, full)
  expect((await read(cloud, older, 0, 5 * MIB)).equals(first)).toBe(true)

  expect(await outcome(backups.delete(member, full, { force: false }))).toBe('InvalidBackup')
  for (const backup of [last, next, full]) {
    await backups.delete(member, backup, { force: false })
    await cloud.services.idle()
    expect(await outcome(backups.get(member, backup))).toBe('BackupNotFound')
  }
  expect([...(await findBackups(cloud.backups)).keys()]).toEqual([others])
}
