import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, expect } from 'vitest'
import { createMemoryDriver } from '../../src/drivers/memory.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import type { Image, ImageDraft } from '../../src/services/images/image-service.ts'
import { sharedGlance, withGlance } from '../tools/glance.ts'
import { imageOptions } from '../tools/image-options.ts'
import { createHarness, type Harness, member, newVolume } from './harness.ts'

/** Volumes from images and images of volumes, with Debian's Glance and QEMU's own tool on the other side. */

const MIB = 1024 * 1024
const TOKEN = 'user:project'

let directory: string
let raw: string
let content: Buffer

beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'collie-images-'))
  raw = path.join(directory, 'disk.raw')
  // Data at both ends and in between, with a length that no block divides.
  content = Buffer.alloc(30 * MIB + 512)
  for (const [at, length] of [
    [0, 70_000],
    [12 * MIB - 100, 3 * MIB],
    [30 * MIB - 512, 1024],
  ] as const) {
    randomBytes(length).copy(content, at)
  }
  writeFileSync(raw, content)
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** Makes a file with QEMU's tool. */
function qemuImg(name: string, ...words: string[]): string {
  const file = path.join(directory, name)
  execFileSync('qemu-img', [...words, file], { stdio: 'pipe' })
  return file
}

async function addImage(file: string, draft: Partial<ImageDraft> = {}): Promise<Image> {
  const { images } = await sharedGlance()
  const image = await images.create(TOKEN, {
    name: path.basename(file),
    diskFormat: file.endsWith('.raw') ? 'raw' : 'qcow2',
    containerFormat: 'bare',
    visibility: null,
    isProtected: null,
    properties: {},
    ...draft,
  })
  const upload = images.upload(TOKEN, image.id, statSync(file).size)
  const handle = openSync(file, 'r')
  const piece = Buffer.alloc(MIB)
  for (let count = readSync(handle, piece); count > 0; count = readSync(handle, piece)) {
    await upload.write(Buffer.from(piece.subarray(0, count)))
  }
  await upload.finish()
  return images.show(TOKEN, image.id)
}

/** Its content, in a file of that name. */
async function fetchImage(id: string, name: string): Promise<string> {
  const { images } = await sharedGlance()
  const body = await images.download(TOKEN, id)
  const file = path.join(directory, name)
  const handle = openSync(file, 'w')
  for (let chunk = await body.read(); chunk !== null; chunk = await body.read()) writeSync(handle, chunk)
  closeSync(handle)
  return file
}

async function open(): Promise<{ harness: Harness; spooled: () => string[] }> {
  const options = imageOptions((await sharedGlance()).url, { sliceMs: 500 })
  return { harness: await createHarness({ images: options }), spooled: () => readdirSync(options.directory) }
}

async function expectHolds({ backend }: Harness, id: string, expected: Buffer): Promise<void> {
  const data = await createMemoryDriver(backend, systemRandom).openVolume({ id, sizeGib: 1 })
  const piece = Buffer.alloc(4 * MIB)
  for (let at = 0; at < expected.length; at += piece.length) {
    const part = piece.subarray(0, Math.min(piece.length, expected.length - at))
    await data.read(at, part)
    if (!part.equals(expected.subarray(at, at + part.length))) throw new Error(`other bytes at ${at}`)
  }
}

withGlance('a raw image, by a name that has all that filters do not like', async () => {
  const { harness } = await open()
  const name = 'a, b: "c" \\ d'
  const image = await addImage(raw, { name, properties: { hw_disk_bus: 'virtio' } })
  const { id } = await harness.services.volumes.create(member, newVolume({ imageRef: name }))
  await harness.settled()
  const volume = await harness.services.volumes.get(member, id)
  expect(volume).toMatchObject({ status: 'available', bootable: true })
  expect(volume.imageMetadata).toEqual({
    image_id: image.id,
    image_name: name,
    hw_disk_bus: 'virtio',
    checksum: image.checksum,
    container_format: 'bare',
    disk_format: 'raw',
    min_disk: '0',
    min_ram: '0',
    size: String(content.length),
  })
  await expectHolds(harness, id, content)
  const blocks = harness.backend.volumes.get(id)!.blocks.size
  expect(blocks).toBeLessThan((4 * MIB) / 4096)
})

withGlance('qcow2 of both versions, compressed in both ways', async () => {
  const { harness, spooled } = await open()
  const files = [
    qemuImg('old.qcow2', 'convert', '-f', 'raw', '-O', 'qcow2', '-o', 'compat=0.10', raw),
    qemuImg('deflate.qcow2', 'convert', '-f', 'raw', '-O', 'qcow2', '-c', raw),
    qemuImg('zstd.qcow2', 'convert', '-f', 'raw', '-O', 'qcow2', '-c', '-o', 'compression_type=zstd', raw),
  ]
  for (const file of files) {
    const { id: imageRef } = await addImage(file)
    const { id } = await harness.services.volumes.create(member, newVolume({ imageRef }))
    await harness.settled()
    expect((await harness.services.volumes.get(member, id)).status).toBe('available')
    await expectHolds(harness, id, content)
    expect(harness.backend.volumes.get(id)!.blocks.size).toBeLessThan((4 * MIB) / 4096)
  }
  expect(spooled()).toEqual([])
})

withGlance('qcow2 that would reach for other files, is encrypted or damaged, is refused', async () => {
  const { harness, spooled } = await open()
  const small = qemuImg('small.qcow2', 'convert', '-f', 'raw', '-O', 'qcow2', raw)
  const backed = qemuImg('backed.qcow2', 'create', '-f', 'qcow2', '-b', small, '-F', 'qcow2')
  const outside = path.join(directory, 'outside.raw')
  execFileSync('qemu-img', ['create', '-f', 'qcow2', '-o', `data_file=${outside}`, `${directory}/split.qcow2`, '1M'], {
    stdio: 'pipe',
  })
  const secret = ['--object', 'secret,id=s,data=x', '-o', 'encrypt.format=aes,encrypt.key-secret=s']
  execFileSync('qemu-img', ['create', '-f', 'qcow2', ...secret, `${directory}/locked.qcow2`, '1M'], { stdio: 'pipe' })
  const broken = readFileSync(small)
  broken.fill(0xff, 65_536 * 3) // its tables
  writeFileSync(path.join(directory, 'broken.qcow2'), broken)
  for (const [file, reason] of [
    [backed, 'backed by another file'],
    [`${directory}/split.qcow2`, 'is not allowed to have a data file'],
    [`${directory}/locked.qcow2`, 'is not allowed to be encrypted'],
    [`${directory}/broken.qcow2`, 'qemu-img cannot'],
  ] as const) {
    const { id: imageRef } = await addImage(file)
    const { id } = await harness.services.volumes.create(member, newVolume({ imageRef }))
    await harness.settled()
    expect(await harness.services.explain(id)).toMatchObject({
      status: 'error',
      reason: expect.stringContaining(reason),
    })
  }
  expect(spooled()).toEqual([])
})

withGlance('an image of a volume holds what the volume holds, and becomes a volume again', async () => {
  const { harness } = await open()
  const { images } = await sharedGlance()
  const { id: imageRef } = await addImage(raw)
  const { id } = await harness.services.volumes.create(member, newVolume({ imageRef }))
  await harness.settled()
  const request = { imageName: 'made', diskFormat: 'qcow2', containerFormat: 'bare', force: false }
  const asked = { ...request, visibility: 'community', isProtected: true }
  const started = await harness.services.volumes.uploadImage(member, id, asked)
  await harness.settled()
  expect(await images.show(TOKEN, started.image.id)).toMatchObject({
    name: 'made',
    status: 'active',
    diskFormat: 'qcow2',
    visibility: 'community',
    isProtected: true,
  })
  expect((await harness.services.volumes.get(member, id)).status).toBe('available')
  expect(harness.backend.snapshots.size).toBe(0)

  const file = await fetchImage(started.image.id, 'made.qcow2')
  execFileSync('qemu-img', ['check', '-f', 'qcow2', file], { stdio: 'pipe' })
  execFileSync('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', file, raw], { stdio: 'pipe' })

  const again = await harness.services.volumes.create(member, newVolume({ imageRef: started.image.id }))
  await harness.settled()
  await expectHolds(harness, again.id, content)
})

withGlance("images of other hypervisors' formats are what QEMU reads, and become volumes again", async () => {
  const { harness, spooled } = await open()
  const { id: imageRef } = await addImage(raw)
  const { id } = await harness.services.volumes.create(member, newVolume({ imageRef }))
  await harness.settled()
  for (const [diskFormat, qemuFormat] of [
    ['vmdk', 'vmdk'],
    ['vdi', 'vdi'],
    ['vhd', 'vpc'],
    ['vhdx', 'vhdx'],
  ] as const) {
    const { image } = await harness.services.volumes.uploadImage(member, id, {
      imageName: diskFormat,
      diskFormat,
      containerFormat: 'bare',
      visibility: 'private',
      isProtected: false,
      force: false,
    })
    await harness.settled()
    expect(await harness.services.explain(id)).toMatchObject({ status: 'available', reason: null })
    const file = await fetchImage(image.id, diskFormat)
    execFileSync('qemu-img', ['compare', '-f', qemuFormat, '-F', 'raw', file, raw], { stdio: 'pipe' })
    expect(statSync(file).size).toBeLessThan(64 * MIB)
    const again = await harness.services.volumes.create(member, newVolume({ imageRef: image.id }))
    await harness.settled()
    expect(await harness.services.volumes.get(member, again.id)).toMatchObject({ status: 'available', sizeGib: 1 })
    await expectHolds(harness, again.id, content)
    expect(harness.backend.volumes.get(again.id)!.blocks.size).toBeLessThan((4 * MIB) / 4096)
  }
  expect(spooled()).toEqual([])
})
