import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { createMemoryDriver } from '../../src/drivers/memory.ts'
import { errorFilter, onMethod } from '../../src/drivers/wrappers.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { type FakeGlance, startFakeGlance } from '../tools/fake-glance.ts'
import { imageOptions } from '../tools/image-options.ts'
import { requireCommand } from '../tools/require-command.ts'
import {
  admin,
  availableVolume,
  contextOf,
  createGate,
  createHarness,
  everything,
  type Harness,
  type HarnessOptions,
  keptUsage,
  member,
  newAttachment,
  newSnapshot,
  newVolume,
  outcome,
  recount,
} from './harness.ts'

/**
 * What images do when the image service does not do what it should: here it is one of ours. test/services/glance.test.ts is
 * with Glance.
 */

const MIB = 1024 * 1024

/** Data, a long hole, data that does not end with a block. */
const CONTENT = Buffer.concat([randomBytes(MIB + 5000), Buffer.alloc(3 * MIB), randomBytes(2 * MIB + 777)])

const withQemu = requireCommand('qemu-img', 'qemu-utils')

let glance: FakeGlance
let harness: Harness
let options: ReturnType<typeof imageOptions>

beforeEach(async () => {
  glance = await startFakeGlance()
  options = imageOptions(glance.url)
  harness = await createHarness({ images: options })
})

/** In the place of the process that there is, which would take part in its work. */
async function restart(changed: HarnessOptions): Promise<void> {
  await harness.services.stop()
  harness = await harness.reopen(changed)
}

const fromImage = (imageRef: string, overrides = {}) =>
  harness.services.volumes.create(member, newVolume({ imageRef, ...overrides }))

async function held(id: string, lengthBytes: number, from = harness): Promise<Buffer> {
  const data = await createMemoryDriver(from.backend, systemRandom).openVolume({ id, sizeGib: 1 })
  const bytes = Buffer.alloc(lengthBytes)
  await data.read(0, bytes)
  await data.close()
  return bytes
}

/** Of the first MiBs, without bytes in the message. */
const expectContent = async (id: string, content: Buffer, from = harness) =>
  expect((await held(id, content.length, from)).equals(content)).toBe(true)

/** On a busy machine too. */
const eventually = (holds: () => Promise<void> | void) => vi.waitFor(holds, { timeout: 20_000 })

/** Something that goes on when it is let go. */
function createHold(): { until: Promise<void>; letGo: () => void } {
  let letGo = () => {}
  const until = new Promise<void>((resolve) => {
    letGo = resolve
  })
  return { until, letGo }
}

const show = (id: string) => harness.services.volumes.get(member, id)
const messagesOf = async (id: string) =>
  (await harness.services.messages.list(member, everything)).items.filter(({ resourceId }) => resourceId === id)

describe('a volume from an image', () => {
  it('passes through downloading, holds its bytes and holes, and tells what it is made from', async () => {
    const imageId = glance.add(CONTENT, { name: 'debian', os_distro: 'debian', min_ram: 64, os_hidden: false })
    const { until, letGo } = createHold()
    glance.misbehave('download', { holdAt: 2 * MIB, until })
    const { id, status, bootable } = await fromImage(imageId)
    expect({ status, bootable }).toEqual({ status: 'creating', bootable: false })
    await glance.held()
    await eventually(async () => expect((await harness.services.explain(id))?.work?.step).toMatch(/^download@[12].7$/))
    expect((await show(id)).status).toBe('downloading')
    expect(await outcome(harness.services.volumes.delete(member, id, { cascade: false, force: false }))).toBe(
      'InvalidVolume',
    )
    letGo()
    await harness.settled()
    expect(await show(id)).toMatchObject({ status: 'available', bootable: true })
    expect((await show(id)).imageMetadata).toMatchObject({
      image_id: imageId,
      image_name: 'debian',
      os_distro: 'debian',
      disk_format: 'raw',
      container_format: 'bare',
      min_disk: '0',
      min_ram: '64',
      size: String(CONTENT.length),
    })
    expect(Object.keys((await show(id)).imageMetadata)).not.toContain('os_hash_value')
    await expectContent(id, CONTENT)
    const blocks = [...harness.backend.volumes.get(id)!.blocks.keys()]
    expect(blocks.length).toBeLessThan((3 * MIB) / 4096 + 8) // the hole is one
    expect(await harness.db('work')).toEqual([])
    expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
  })

  it('its snapshots, what is made of them and its clones know the image; those of one that does not boot do not', async () => {
    const { id } = await fromImage(glance.add(CONTENT, { name: 'debian' }))
    await harness.settled()
    const snapshot = await harness.services.snapshots.create(member, newSnapshot(id))
    await harness.settled()
    await harness.services.volumes.setImageMetadata(member, id, { later: 'than the snapshot' })
    const restored = await availableVolume(harness, { snapshotId: snapshot.id })
    const clone = await availableVolume(harness, { sourceVolid: id })
    expect(await show(restored)).toMatchObject({ bootable: true, imageMetadata: { image_name: 'debian' } })
    expect((await show(restored)).imageMetadata).not.toHaveProperty('later')
    expect((await show(clone)).imageMetadata).toMatchObject({ image_name: 'debian', later: 'than the snapshot' })
    await expectContent(restored, CONTENT)
    await harness.services.volumes.setBootable(member, id, false)
    expect((await show(await availableVolume(harness, { sourceVolid: id }))).imageMetadata).toEqual({})
  })

  it.each([
    ['not active', { status: 'queued' }, 'InvalidInput', 'is not active'],
    [
      'larger than the volume',
      { size: 2 ** 30 + 1 },
      'InvalidInput',
      'Size of specified image 2GB is larger than volume size 1GB.',
    ],
    ['for larger disks', { min_disk: 2 }, 'InvalidInput', 'cannot be smaller than the image minDisk size 2GB.'],
    [
      'of a larger disk',
      { disk_format: 'qcow2', virtual_size: 2 ** 30 + 1 },
      'ImageUnacceptable',
      "Image virtual size is 2GB and doesn't fit in a volume of size 1GB.",
    ],
    ['of a format that is not taken', { disk_format: 'aki' }, 'ImageUnacceptable', 'its disk format is aki'],
    ['compressed', { container_format: 'compressed' }, 'ImageUnacceptable', 'Image compression disallowed'],
    ['empty', { size: 0 }, 'ImageUnacceptable', 'it has no content'],
  ])('is refused of an image that is %s', async (_, fields, code, text) => {
    const asked = fromImage(glance.add(CONTENT, fields))
    await expect(asked).rejects.toThrow(text)
    expect(await outcome(asked)).toBe(code)
    expect(await harness.db('volumes')).toEqual([])
  })

  it('names its image by id, by the end of a URL, or by a name that only one has', async () => {
    const imageId = glance.add(CONTENT, { name: 'only one, "so far"' })
    for (const name of [imageId, `http://glance/v2/images/${imageId}`, 'only one, "so far"']) {
      expect(await outcome(fromImage(name))).toBe('done')
    }
    glance.add(CONTENT, { name: 'twice' })
    glance.add(CONTENT, { name: 'twice' })
    await expect(fromImage('twice')).rejects.toThrow(
      "Multiple matches found for 'twice', use an ID to be more specific.",
    )
    await expect(fromImage('none')).rejects.toThrow('Invalid image identifier or unable to access requested image.')
    expect(await outcome(fromImage(imageId, { sourceVolid: await availableVolume(harness) }))).toBe('InvalidInput')
    expect(await outcome(fromImage(imageId, { sizeGib: null }))).toBe('InvalidInput')
  })

  it("an image of Nova's that stands for a snapshot is that snapshot, from 3.46 on", async () => {
    const id = await availableVolume(harness, { sizeGib: 3 })
    const snapshot = await harness.services.snapshots.create(member, newSnapshot(id))
    await harness.settled()
    const devices = [{ source_type: 'snapshot', boot_index: 0, snapshot_id: snapshot.id, volume_size: 3 }]
    const imageRef = glance.add(Buffer.alloc(0), { block_device_mapping: JSON.stringify(devices) })
    const made = await fromImage(imageRef, { sizeGib: null, takesBootSnapshots: true })
    expect(made).toMatchObject({ snapshotId: snapshot.id, sizeGib: 3 })
    expect(await outcome(fromImage(imageRef))).toBe('ImageUnacceptable')
  })

  it('uses the type that the image asks for', async () => {
    const type = await harness.services.types.create(admin, {
      name: 'gold',
      description: null,
      isPublic: true,
      extraSpecs: {},
    })
    const made = await fromImage(glance.add(CONTENT, { cinder_img_volume_type: 'gold' }))
    expect(made.volumeTypeId).toBe(type.id)
  })
})

describe('a download that goes wrong', () => {
  it.each([
    ['breaks off', { cutAt: 2 * MIB }],
    ['brings other bytes', 'wrong bytes'],
    ['is refused for a while', { status: 503 }],
  ] as const)('is begun anew when it %s', async (_, how) => {
    const imageId = glance.add(CONTENT)
    glance.misbehave('download', how, 2)
    const { id } = await fromImage(imageId)
    await harness.settled()
    expect((await show(id)).status).toBe('available')
    expect(glance.counts.download).toBe(3)
    await expectContent(id, CONTENT)
  })

  it.each([
    ['breaks off', { cutAt: 2 * MIB }, 'Image download failed.'],
    ['brings other bytes', 'wrong bytes', 'does not match its checksum'],
    ['is refused', { status: 500 }, 'it answers with status 500'],
    ['is not allowed', { status: 401 }, 'Not authorized for image'],
  ] as const)('is given up when it %s each time, and says why', async (_, how, reason) => {
    const imageId = glance.add(CONTENT)
    glance.misbehave('download', how, 1000)
    const { id } = await fromImage(imageId)
    await harness.settled()
    const story = await harness.services.explain(id)
    expect(story?.status).toBe('error')
    const [message] = await messagesOf(id)
    expect(message?.text).toBe('copy image to volume:Image download failed.')
    expect(`${story?.reason} ${message?.text}`).toContain(reason)
    expect(glance.counts.download).toBeLessThan(10)
    await harness.services.volumes.delete(member, id, { cascade: false, force: false })
    await harness.settled()
    expect(await keptUsage(harness.db)).toEqual({})
  })

  it('of a raw image that is something else ends in error', async () => {
    const { id } = await fromImage(glance.add(Buffer.concat([Buffer.from('QFI\xfb', 'latin1'), CONTENT])))
    await harness.settled()
    expect((await harness.services.explain(id))?.reason).toContain("claimed to be 'raw'")
    expect((await messagesOf(id))[0]?.text).toMatch(/^copy image to volume:The image cannot be written/)
  })

  it('goes on from zero in the next process', async () => {
    const imageId = glance.add(CONTENT)
    const { until, letGo } = createHold()
    glance.misbehave('download', { holdAt: 3 * MIB, until })
    const { id } = await fromImage(imageId)
    await eventually(async () => expect((await harness.services.explain(id))?.work?.step).toMatch(/^download@[123].7$/))
    await harness.die()
    const next = await harness.reopen({ images: imageOptions(glance.url, { seal: options.seal }) })
    await next.settled()
    expect((await next.services.volumes.get(member, id)).status).toBe('available')
    await expectContent(id, CONTENT, next)
    expect(glance.counts.download).toBe(2)
    letGo()
  })

  it('is broken off by a deletion by force', async () => {
    const imageId = glance.add(CONTENT)
    const { until, letGo } = createHold()
    glance.misbehave('download', { holdAt: 2 * MIB, until })
    const { id } = await fromImage(imageId)
    await glance.held()
    await harness.services.volumes.delete(admin, id, { cascade: false, force: true })
    letGo()
    await harness.settled()
    expect(harness.backend.volumes.has(id)).toBe(false)
    expect(await keptUsage(harness.db)).toEqual({})
  })

  it('lets the volume be promised meanwhile, but not connected', async () => {
    const imageId = glance.add(CONTENT)
    const { until, letGo } = createHold()
    glance.misbehave('download', { holdAt: 2 * MIB, until })
    const { id } = await fromImage(imageId)
    await glance.held()
    await eventually(async () => expect((await show(id)).status).toBe('downloading'))
    const { attachments } = harness.services
    const reserved = await attachments.create(member, newAttachment(id))
    expect(await outcome(attachments.create(member, newAttachment(id)))).toBe('InvalidVolume')
    const connector = { host: 'compute-1' }
    expect(await outcome(attachments.update(member, reserved.id, connector))).toBe('ResourceConflict')
    expect((await show(id)).status).toBe('downloading')
    letGo()
    await harness.settled()
    expect((await show(id)).status).toBe('reserved')
    expect(await outcome(attachments.update(member, reserved.id, connector))).toBe('done')
  })

  it('waits for its turn without keeping others from theirs', async () => {
    const narrow = await harness.reopen({ images: imageOptions(glance.url, { transfersMax: 1 }) })
    harness.clock.pause()
    const { until, letGo } = createHold()
    glance.misbehave('download', { holdAt: 2 * MIB, until })
    const [first, second] = [glance.add(CONTENT), glance.add(CONTENT)]
    const made = await Promise.all(
      [first, second].map((imageRef) => narrow.services.volumes.create(member, newVolume({ imageRef }))),
    )
    await glance.held()
    await availableVolume({ ...narrow, services: { ...narrow.services, idle: async () => {} } })
    letGo()
    await narrow.settled()
    for (const { id } of made) expect((await narrow.services.volumes.get(member, id)).status).toBe('available')
    expect(glance.counts.download).toBe(2)
    harness.clock.goOn()
  })
})

describe('reimage', () => {
  it('replaces what the volume held, also where the image has nothing', async () => {
    const id = (await fromImage(glance.add(randomBytes(4 * MIB), { old: 'yes' }))).id
    await harness.settled()
    const small = Buffer.concat([Buffer.alloc(MIB), randomBytes(100)])
    await harness.services.volumes.reimage(member, id, { imageId: glance.add(small, { name: 'new' }), reserved: false })
    await harness.settled()
    expect(await show(id)).toMatchObject({ status: 'available', bootable: true })
    expect((await show(id)).imageMetadata).not.toHaveProperty('old')
    expect((await show(id)).imageMetadata).toMatchObject({ image_name: 'new' })
    await expectContent(id, Buffer.concat([small, Buffer.alloc(3 * MIB)]))
  })

  it('gives a reserved volume back to its attachment, and only when asked to', async () => {
    const id = await availableVolume(harness)
    await harness.services.attachments.create(member, newAttachment(id))
    const imageId = glance.add(CONTENT)
    const { volumes } = harness.services
    expect(await outcome(volumes.reimage(member, id, { imageId, reserved: false }))).toBe('InvalidVolume')
    await volumes.reimage(member, id, { imageId, reserved: true })
    expect((await show(id)).status).toBe('downloading')
    await harness.settled()
    expect((await show(id)).status).toBe('reserved')
    await expectContent(id, CONTENT)
  })

  it('leaves the volume as it was when the image is refused, and in error when it fails', async () => {
    const id = await availableVolume(harness)
    const { volumes } = harness.services
    const missing = '00000000-0000-4000-8000-000000000000'
    expect(await outcome(volumes.reimage(member, id, { imageId: missing, reserved: false }))).toBe('ImageNotFound')
    const large = glance.add(CONTENT, { min_disk: 5 })
    expect(await outcome(volumes.reimage(member, id, { imageId: large, reserved: false }))).toBe('InvalidInput')
    expect((await show(id)).status).toBe('available')
    glance.misbehave('download', 'wrong bytes', 1000)
    await volumes.reimage(member, id, { imageId: glance.add(CONTENT), reserved: false })
    await harness.settled()
    expect((await show(id)).status).toBe('error')
    expect((await messagesOf(id))[0]?.text).toBe('reimage volume:Image download failed.')
  })
})

const UPLOAD = {
  imageName: 'made',
  diskFormat: 'raw',
  containerFormat: 'bare',
  visibility: null,
  isProtected: null,
  force: false,
}

describe('an upload', () => {
  async function filled(): Promise<string> {
    const { id } = await fromImage(glance.add(CONTENT, { os_distro: 'debian', os_glance_x: 'reserved' }))
    await harness.settled()
    return id
  }
  const upload = (id: string, overrides = {}) =>
    harness.services.volumes.uploadImage(member, id, { ...UPLOAD, ...overrides })
  const imageOf = (id: string) => glance.images.get(id)!

  it('passes through uploading, and the image has the properties of the one before it', async () => {
    const id = await filled()
    const started = await upload(id, { diskFormat: 'qcow2' })
    expect(started).toMatchObject({ volume: { id, status: 'uploading' }, image: { name: 'made', diskFormat: 'qcow2' } })
    await harness.settled()
    expect((await show(id)).status).toBe('available')
    const { document } = imageOf(started.image.id)
    expect(document).toMatchObject({ status: 'active', os_distro: 'debian' })
    expect(document).not.toHaveProperty('os_glance_x')
    expect(document).not.toHaveProperty('image_id')
    expect(harness.backend.snapshots.size).toBe(0)
  })

  it('of a volume in use has to be forced, and takes what it held at one moment', async () => {
    const id = await filled()
    const { attachments } = harness.services
    const attached = await attachments.create(member, newAttachment(id, { connector: { host: 'compute-1' } }))
    await attachments.complete(member, attached.id)
    expect(await outcome(upload(id))).toBe('InvalidVolume')
    const started = await upload(id, { force: true, diskFormat: 'qcow2' })
    await harness.settled()
    expect((await show(id)).status).toBe('in-use')
    expect(imageOf(started.image.id).document.status).toBe('active')
  })

  it('does not keep a volume in use from being detached', async () => {
    const id = await filled()
    const { attachments } = harness.services
    const attached = await attachments.create(member, newAttachment(id, { connector: { host: 'compute-1' } }))
    await attachments.complete(member, attached.id)
    const { until, letGo } = createHold()
    glance.misbehave('upload', { holdAt: 0, until })
    const started = await upload(id, { force: true, diskFormat: 'qcow2' })
    await eventually(() => expect(imageOf(started.image.id).document.status).toBe('saving'))
    await attachments.delete(member, attached.id)
    expect(await show(id)).toMatchObject({ status: 'uploading', attachments: [] })
    expect((await harness.services.explain(id))?.workBeside).toMatchObject([
      { kind: 'volume-upload', resourceId: started.image.id },
    ])
    letGo()
    await harness.settled()
    expect((await show(id)).status).toBe('available')
    expect(imageOf(started.image.id).document.status).toBe('active')
  })

  it.each([
    ['breaks off', { cutAt: 0 }],
    ['is refused for a while', { status: 503 }],
  ] as const)('is begun anew when it %s', async (_, how) => {
    const id = await filled()
    glance.misbehave('upload', how, 2)
    const { image } = await upload(id, { diskFormat: 'qcow2' })
    await harness.settled()
    expect((await show(id)).status).toBe('available')
    expect(imageOf(image.id).document.status).toBe('active')
  })

  it.each([
    ['is refused each time', { status: 500 }],
    ['arrives as something else', 'wrong bytes'],
    ['is not allowed', { status: 403 }],
  ] as const)(
    'that %s is given up: no image is left, the volume is as before, and a message says so',
    async (_, how) => {
      const id = await filled()
      glance.misbehave('upload', how, 1000)
      const { image } = await upload(id, { diskFormat: 'qcow2' })
      await harness.settled()
      expect((await show(id)).status).toBe('available')
      expect(glance.images.has(image.id)).toBe(false)
      expect(harness.backend.snapshots.size).toBe(0)
      expect((await messagesOf(id))[0]?.text).toBe('copy volume to image:Failed to upload volume to image at backend.')
      expect((await harness.services.explain(id))?.reason).toBeTruthy()
    },
  )

  it('goes on in the next process, to the same image', async () => {
    const id = await filled()
    const { until, letGo } = createHold()
    glance.misbehave('upload', { holdAt: 0, until })
    const { image } = await upload(id, { diskFormat: 'qcow2' })
    await eventually(() => expect(imageOf(image.id).document.status).toBe('saving'))
    await harness.die()
    imageOf(image.id).document.status = 'queued' // as Glance does when its client is gone
    const next = await harness.reopen({ images: imageOptions(glance.url, { seal: options.seal }) })
    await next.settled()
    expect(imageOf(image.id).document.status).toBe('active')
    expect((await next.services.volumes.get(member, id)).status).toBe('available')
    expect(next.backend.snapshots.size).toBe(0)
    letGo()
  })

  it('is broken off when an administrator writes another status, or deletes the volume by force', async () => {
    const gate = createGate(onMethod('openSnapshot'))
    await restart({ images: imageOptions(glance.url), filters: [gate.filter] })
    const [kept, gone] = [await filled(), await filled()]
    const uploads = [await upload(kept), await upload(gone)]
    await gate.reached
    await harness.services.volumes.resetStatus(admin, kept, 'available')
    await harness.services.volumes.delete(admin, gone, { cascade: false, force: true })
    gate.open()
    await harness.settled()
    expect((await show(kept)).status).toBe('available')
    expect(harness.backend.volumes.has(gone)).toBe(false)
    expect(harness.backend.snapshots.size).toBe(0)
    expect(glance.images.has(uploads[0]!.image.id)).toBe(false)
  })

  it('is refused in other statuses and formats, with nothing left of it', async () => {
    const id = await filled()
    const before = glance.images.size
    await expect(upload(id, { diskFormat: 'ploop' })).rejects.toThrow('vhdx, and not as ploop')
    await expect(upload(id, { containerFormat: 'compressed' })).rejects.toThrow('compressed')
    await harness.services.volumes.resetStatus(admin, id, 'error')
    await expect(upload(id, { force: true })).rejects.toThrow('status must be available or in-use')
    expect(await outcome(harness.services.volumes.uploadImage(contextOf({ projectId: 'other' }), id, UPLOAD))).toBe(
      'VolumeNotFound',
    )
    expect(glance.images.size).toBe(before)
  })

  it('ends when the backend does not let it read', async () => {
    await restart({
      images: imageOptions(glance.url),
      filters: [errorFilter(onMethod('openSnapshot'), 'before')],
    })
    const id = await filled()
    const { image } = await upload(id, { diskFormat: 'qcow2' })
    await harness.settled()
    expect((await show(id)).status).toBe('available')
    expect(glance.images.has(image.id)).toBe(false)
  })
})

describe('conversion', () => {
  withQemu('refuses a disk that is larger than the volume, also when Glance did not look', async () => {
    const file = path.join(options.directory, 'large')
    execFileSync('qemu-img', ['create', '-f', 'qcow2', file, '2G'], { stdio: 'pipe' })
    const { id } = await fromImage(glance.add(readFileSync(file), { disk_format: 'qcow2' }))
    await harness.settled()
    const reason = "Image virtual size is 2GB and doesn't fit in a volume of size 1GB."
    expect((await harness.services.explain(id))?.reason).toContain(reason)
    expect(readdirSync(options.directory)).toEqual(['large'])
  })

  withQemu('begins anew in the next process, whose start removes what the last one left', async () => {
    const file = path.join(options.directory, 'half')
    execFileSync('qemu-img', ['create', '-f', 'qcow2', file, '1G'], { stdio: 'pipe' })
    const { until, letGo } = createHold()
    glance.misbehave('download', { holdAt: 1000, until })
    const { id } = await fromImage(glance.add(readFileSync(file), { disk_format: 'qcow2' }))
    await glance.held()
    expect(readdirSync(options.directory).length).toBe(2)
    await harness.die()
    const next = await harness.reopen({ images: options })
    await next.settled()
    expect((await next.services.volumes.get(member, id)).status).toBe('available')
    expect(readdirSync(options.directory)).toEqual(['half']) // not one of its own
    letGo()
  })

  it('refuses what there is no room for, and leaves no file', async () => {
    const narrow = imageOptions(glance.url, { bytesMax: 1024 })
    await restart({ images: narrow })
    const { id } = await fromImage(glance.add(CONTENT, { disk_format: 'qcow2' }))
    await harness.settled()
    expect((await messagesOf(id))[0]?.text).toBe(
      'copy image to volume:Image used for creating volume exceeds available space.',
    )
    expect(readdirSync(narrow.directory)).toEqual([])
  })

  withQemu(
    'of what is uploaded begins anew in the next process, whose start removes what the last one left',
    async () => {
      const id = await availableVolume(harness)
      const { until, letGo } = createHold()
      glance.misbehave('upload', { holdAt: 0, until })
      const { image } = await harness.services.volumes.uploadImage(member, id, { ...UPLOAD, diskFormat: 'vmdk' })
      await eventually(() => expect(glance.images.get(image.id)!.document.status).toBe('saving'))
      expect(readdirSync(options.directory).length).toBe(1)
      await harness.die()
      glance.images.get(image.id)!.document.status = 'queued'
      const next = await harness.reopen({ images: options })
      await next.settled()
      expect(glance.images.get(image.id)!.document.status).toBe('active')
      expect(readdirSync(options.directory)).toEqual([])
      letGo()
    },
  )

  withQemu('of what is uploaded that fails leaves no file, no image and the volume as it was', async () => {
    const id = await availableVolume(harness, { sizeGib: 4096 }) // more than a VHD can hold
    const narrow = imageOptions(glance.url, { bytesMax: 1024 })
    for (const [images, reason] of [
      [options, 'qemu-img cannot write it as vhd'],
      [narrow, 'it needs '],
    ] as const) {
      await restart({ images })
      await harness.services.volumes.uploadImage(member, id, { ...UPLOAD, diskFormat: 'vhd' })
      await harness.settled()
      expect(await harness.services.explain(id)).toMatchObject({
        status: 'available',
        reason: expect.stringContaining(reason),
      })
      expect(glance.images.size).toBe(0)
      expect(harness.backend.snapshots.size).toBe(0)
      expect(readdirSync(images.directory)).toEqual([])
    }
  })
})
