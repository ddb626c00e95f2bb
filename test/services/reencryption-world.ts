import { expect } from 'vitest'
import type { Volume } from '../../src/services/model.ts'
import { smallVolumes } from './encrypted-world.ts'
import { admin, createHarness, type Harness, type HarnessOptions, keptUsage, member, recount } from './harness.ts'

/** What tests ask, and say, of retypes between types that are encrypted in different ways. */

export const open = (options: HarnessOptions = {}) => createHarness({ filters: [smallVolumes], ...options })
export const show = ({ services }: Harness, { id }: Volume) => services.volumes.get(admin, id)
export const keyIds = async ({ db }: Harness): Promise<string[]> => db('encryption_keys').pluck('id')

export const order = (harness: Harness, { id }: Volume, newType: string, context = member) =>
  harness.services.volumes.retype(context, id, { newType, migrationPolicy: 'on-demand' })

export async function retyped(harness: Harness, volume: Volume, newType: string): Promise<Volume> {
  await order(harness, volume, newType)
  await harness.settled()
  return show(harness, volume)
}

export async function expectNothingLeft(harness: Harness, volume: Volume): Promise<void> {
  const { db, backend } = harness
  expect([...backend.volumes.keys()]).toEqual([volume.nameId ?? volume.id])
  expect(await keyIds(harness)).toEqual(volume.encryptionKeyId === null ? [] : [volume.encryptionKeyId])
  expect(await db('volumes').pluck('id')).toEqual([volume.id])
  expect(await keptUsage(db)).toEqual(await recount(db))
  expect(await keptUsage(db)).toEqual({ project: { volumes: 1, snapshots: 0, gigabytes: volume.sizeGib } })
}

/** It is what it was, and says why. */
export async function expectAsBefore(harness: Harness, before: Volume, reason: string): Promise<void> {
  const { status, migrationStatus, ...now } = await show(harness, before)
  expect(now).toMatchObject({
    volumeTypeId: before.volumeTypeId,
    encryptionKeyId: before.encryptionKeyId,
    nameId: before.nameId,
    host: before.host,
  })
  expect([status, migrationStatus]).toEqual(['available', 'error'])
  expect((await harness.services.explain(before.id))?.reason).toContain(reason)
  await expectNothingLeft(harness, before)
}
