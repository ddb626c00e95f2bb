import { expect, it } from 'vitest'
import type { VolumeCreate } from '../../../src/services/model.ts'
import { admin, availableVolume, createHarness, type Harness, member, newBackup, newVolume } from '../harness.ts'

/** What of a volume comes back with its bytes. */

const IMAGE = { image_name: 'debian', os_distro: 'debian' }
const bootable = ({ services }: Harness, id: string) => services.volumes.setBootable(member, id, true)
const fromImage = ({ services }: Harness, id: string) => services.volumes.setImageMetadata(member, id, IMAGE)

async function backedUp(
  harness: Harness,
  request: Partial<VolumeCreate>,
  ...changes: ((harness: Harness, id: string) => Promise<unknown>)[]
): Promise<string> {
  const id = await availableVolume(harness, request)
  for (const change of changes) await change(harness, id)
  const backup = await harness.services.backups.create(member, newBackup(id))
  await harness.services.idle()
  return backup.id
}

async function restore(harness: Harness, id: string, to: { volumeId?: string; name?: string } = {}, by = member) {
  const { volumeId } = await harness.services.backups.restore(by, id, { volumeId: null, name: null, ...to })
  await harness.services.idle()
  const volume = await harness.services.volumes.get(by, volumeId)
  expect(volume.status).toBe('available')
  const { name, description, metadata, imageMetadata, bootable: boots } = volume
  return { name, description, metadata, imageMetadata, boots }
}

const ORIGINAL = { name: 'root', description: 'of a server', metadata: { tier: 'gold' } }

it('a new volume is what the old one was, but for a name that it was given', async () => {
  const harness = await createHarness()
  const backup = await backedUp(harness, ORIGINAL, fromImage, bootable)
  const all = { ...ORIGINAL, imageMetadata: IMAGE, boots: true }
  expect(await restore(harness, backup)).toEqual(all)
  expect(await restore(harness, backup, { name: 'mine' })).toEqual({ ...all, name: 'mine', description: null })
})

it('an existing volume keeps its name, and loses its metadata only to others', async () => {
  const harness = await createHarness()
  const backup = await backedUp(harness, ORIGINAL, fromImage)
  const bare = await backedUp(harness, { name: null }, bootable)
  const volumeId = await availableVolume(harness, { name: 'kept', description: 'too', metadata: { old: 'yes' } })
  await harness.services.volumes.setImageMetadata(member, volumeId, { old_image: 'yes' })
  const kept = { name: 'kept', description: 'too' }
  const ofItself = { metadata: { old: 'yes' }, imageMetadata: { old_image: 'yes' } }
  expect(await restore(harness, bare, { volumeId })).toEqual({ ...kept, ...ofItself, boots: true })
  await harness.services.volumes.setBootable(member, volumeId, false)
  // What has an image boots, as upstream: a restore is no place to look at flags.
  const restored = { metadata: ORIGINAL.metadata, imageMetadata: IMAGE, boots: true }
  expect(await restore(harness, backup, { volumeId })).toEqual({ ...kept, ...restored })
})

it('a volume that is made of a backup has the image too', async () => {
  const harness = await createHarness()
  const backup = await backedUp(harness, ORIGINAL, fromImage)
  const { id } = await harness.services.backups.createVolume(member, backup, newVolume({ name: 'copy' }))
  await harness.services.idle()
  expect(await harness.services.volumes.get(member, id)).toMatchObject({
    name: 'copy',
    imageMetadata: IMAGE,
    bootable: true,
  })
})

it('one that fails takes nothing over', async () => {
  const harness = await createHarness()
  const backup = await backedUp(harness, ORIGINAL, fromImage)
  const { container } = await harness.services.backups.get(member, backup)
  await harness.backups.put(`${container}/${backup}/page-0`, Buffer.from('damaged'))
  const volumeId = await availableVolume(harness, { name: null })
  const manifest = `${container}/${backup}/manifest`
  const written = await manifestBefore(harness, manifest)
  await harness.backups.put(manifest, Buffer.from(JSON.stringify({ ...written, pages: [0], format: 2 })))
  await harness.services.backups.restore(member, backup, { volumeId, name: null })
  await harness.services.idle()
  const volume = await harness.services.volumes.get(member, volumeId)
  expect(volume).toMatchObject({ status: 'error_restoring', name: null, imageMetadata: {}, bootable: false })
})

it('a backup of before, and one from elsewhere, can be restored', async () => {
  const harness = await createHarness()
  const backup = await backedUp(harness, ORIGINAL, fromImage)
  const record = await harness.services.backups.exportRecord(admin, backup)
  const other = await createHarness({ backupTarget: harness.backups })
  await other.services.backups.importRecord(admin, record)
  expect(await restore(other, backup, {}, admin)).toEqual({ ...ORIGINAL, imageMetadata: IMAGE, boots: true })

  const { container } = await harness.services.backups.get(member, backup)
  const manifest = `${container}/${backup}/manifest`
  const { volume: _, ...before } = await manifestBefore(harness, manifest)
  await harness.backups.put(manifest, Buffer.from(JSON.stringify({ ...before, format: 1 })))
  expect(await restore(harness, backup)).toMatchObject({
    name: `restore_backup_${backup}`,
    imageMetadata: {},
    boots: false,
  })
})

/** What a manifest told when it had neither an owner, nor a checksum, nor pages of other backups. */
async function manifestBefore(harness: Harness, name: string): Promise<Record<string, unknown>> {
  const { sha256, project_id, user_id, encryption_key_id, page_backups, ...told } = JSON.parse(
    (await harness.backups.get(name))!.toString(),
  )
  const before = { ...told, pages: told.pages.map(([page]: [number]) => page) }
  expect([sha256, project_id, user_id, encryption_key_id]).toEqual([expect.any(String), 'project', 'user', null])
  return before
}
