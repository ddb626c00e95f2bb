import { randomBytes } from 'node:crypto'
import { expect, it } from 'vitest'
import { createMemoryDriver } from '../../src/drivers/memory.ts'
import { openPlain } from '../../src/luks/plain-data.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import type { Volume, VolumeCreate } from '../../src/services/model.ts'
import { type FakeGlance, startFakeGlance } from '../tools/fake-glance.ts'
import { imageOptions } from '../tools/image-options.ts'
import { admin, createHarness, type Harness, member, newVolume } from './harness.ts'

const MIB = 1024 * 1024
const GIB = 1024 * MIB
/** Data, a hole, data that does not end with a sector: none of it may read as noise. */
const CONTENT = Buffer.concat([
  randomBytes(MIB + 5000),
  Buffer.alloc(3 * MIB),
  randomBytes(MIB + 777),
  Buffer.alloc(MIB),
])
const UPLOAD = {
  imageName: 'made',
  diskFormat: 'raw',
  containerFormat: 'bare',
  visibility: null,
  isProtected: null,
  force: false,
}

async function open(): Promise<{ harness: Harness; glance: FakeGlance }> {
  const glance = await startFakeGlance()
  const harness = await createHarness({ images: imageOptions(glance.url) })
  const { services } = harness
  const type = { name: 'LUKS', description: null, isPublic: true, extraSpecs: {} }
  const { id } = await services.types.create(admin, type)
  const encryption = {
    provider: 'luks',
    controlLocation: 'front-end',
    cipher: 'aes-xts-plain64',
    keySize: 256,
  } as const
  await services.typeEncryption.create(admin, id, encryption)
  return { harness, glance }
}

async function made(harness: Harness, request: Partial<VolumeCreate>): Promise<Volume> {
  const { id } = await harness.services.volumes.create(member, newVolume({ volumeType: 'LUKS', ...request }))
  await harness.settled()
  return harness.services.volumes.get(member, id)
}

/** As a guest of Nova's sees it. */
async function plainOf({ services, backend }: Harness, { id }: Volume, lengthBytes: number): Promise<Buffer> {
  const { encryptionKeyId, sizeGib } = await services.volumes.get(member, id)
  const { secret } = await services.keys.payload(member, encryptionKeyId!)
  const data = await createMemoryDriver(backend, systemRandom).openVolume({ id, sizeGib })
  const bytes = Buffer.alloc(lengthBytes)
  const plain = await openPlain(data, secret.toString('hex'))
  await plain.read(0, bytes)
  await plain.close()
  return bytes
}

it('an image is encrypted on its way into a volume of an encrypted type', async () => {
  const { harness, glance } = await open()
  const volume = await made(harness, { imageRef: glance.add(CONTENT) })
  expect(volume).toMatchObject({ status: 'available', bootable: true })
  expect((await plainOf(harness, volume, CONTENT.length)).equals(CONTENT)).toBe(true)
})

it('an image that leaves no room for the header is refused', async () => {
  const { harness, glance } = await open()
  const imageRef = glance.add(CONTENT)
  Object.assign(glance.images.get(imageRef)!.document, { size: GIB })
  const { id, status } = await made(harness, { imageRef })
  expect(status).toBe('error')
  const { status_reason } = await harness.db('volumes').where({ id }).first()
  expect(status_reason).toContain('the volume has room for')
})

it('a volume comes out of an image that one was uploaded to with a copy of the key of that', async () => {
  const { harness, glance } = await open()
  const { services, db } = harness
  const volume = await made(harness, { imageRef: glance.add(CONTENT) })
  const data = await createMemoryDriver(harness.backend, systemRandom).openVolume(volume)
  const bytes = Buffer.alloc(12 * MIB)
  await data.read(0, bytes)
  await data.close()
  const imageRef = glance.add(bytes, { cinder_encryption_key_id: volume.encryptionKeyId })
  const again = await made(harness, { imageRef })
  expect(again).toMatchObject({ status: 'available', imageMetadata: { cinder_encryption_key_id: expect.any(String) } })
  expect((await plainOf(harness, again, CONTENT.length)).equals(CONTENT)).toBe(true)
  expect(again.encryptionKeyId).not.toBe(volume.encryptionKeyId)
  expect(await db('encryption_keys')).toHaveLength(2)
  // Without the key the same bytes are no raw image.
  expect((await made(harness, { imageRef: glance.add(bytes) })).status).toBe('error')

  glance.misbehave('upload', { holdAt: 0, until: Promise.resolve() })
  const { image } = await services.volumes.uploadImage(member, again.id, UPLOAD)
  const { cinder_encryption_key_id: keyId, ...document } = glance.images.get(image.id)!.document
  expect(document).toMatchObject({ cinder_encryption_key_deletion_policy: 'on_image_deletion' })
  expect([volume.encryptionKeyId, again.encryptionKeyId]).not.toContain(keyId)
  await expect(services.keys.delete(member, again.encryptionKeyId!)).rejects.toThrow('opens with this key')
  await services.volumes.resetStatus(admin, again.id, 'available') // breaks the upload off, which takes long
  await harness.settled()
  expect(glance.images.has(image.id)).toBe(false)
  await expect(services.keys.get(member, String(keyId))).rejects.toThrow('could not be found')
})

it('a volume is uploaded as it lies, and in no other format', async () => {
  const { harness } = await open()
  const { volumes } = harness.services
  const { id } = await made(harness, {})
  for (const other of [{ diskFormat: 'qcow2' }, { containerFormat: 'ova' }]) {
    await expect(volumes.uploadImage(member, id, { ...UPLOAD, ...other })).rejects.toThrow(
      "An encrypted volume uploaded as an image must use 'raw' disk_format and 'bare' container_format",
    )
  }
})

it('an upload that comes to nothing leaves no key', async () => {
  const { harness, glance } = await open()
  const volume = await made(harness, {})
  glance.misbehave('upload', { status: 503 }, 1000)
  await harness.services.volumes.uploadImage(member, volume.id, UPLOAD)
  await harness.settled()
  expect(await harness.db('encryption_keys').pluck('id')).toEqual([volume.encryptionKeyId])
})

it('a volume that is written over with an image keeps its key', async () => {
  const { harness, glance } = await open()
  const { volumes } = harness.services
  const volume = await made(harness, {})
  await volumes.reimage(member, volume.id, { imageId: glance.add(CONTENT), reserved: false })
  await harness.settled()
  expect(await volumes.get(member, volume.id)).toMatchObject({
    status: 'available',
    encryptionKeyId: volume.encryptionKeyId,
  })
  expect((await plainOf(harness, volume, CONTENT.length)).equals(CONTENT)).toBe(true)
  const locked = glance.add(CONTENT, { cinder_encryption_key_id: volume.encryptionKeyId })
  await expect(volumes.reimage(member, volume.id, { imageId: locked, reserved: false })).rejects.toThrow(
    'opens with another encryption key',
  )
})
