import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, vi } from 'vitest'
import { CinderApi, readOpenrc } from '../tools/cinder-api.ts'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { type Glance, sharedGlance } from '../tools/glance.ts'
import { PythonCommands } from '../tools/python-commands.ts'
import { commandExists, testUnless } from '../tools/require-command.ts'

/** The program with Debian's Glance beside it, driven by openstackclient, and killed. */

vi.setConfig({ testTimeout: 240_000, hookTimeout: 120_000 }) // openstackclient and Glance are large

const MIB = 1024 * 1024

const missing = !['glance-api', 'openstack', 'qemu-img'].every(commandExists)
const withAll = testUnless(missing && 'apt-get install glance-api python3-openstackclient qemu-utils')

const clients = new PythonCommands()
let glance: Glance
let collie: Collie
let api: CinderApi
let raw: string
let content: Buffer

printLogOfFailures(() => collie)

beforeAll(async () => {
  if (missing) return
  glance = await sharedGlance()
  collie = await Collie.create(`--image-service-url=${glance.url}`)
  await collie.start()
  api = new CinderApi(path.join(collie.dataDir, 'openrc'))
  raw = collie.file('disk.raw')
  content = Buffer.alloc(80 * MIB)
  randomBytes(9 * MIB).copy(content, 1000)
  randomBytes(30 * MIB).copy(content, 40 * MIB)
  writeFileSync(raw, content)
})
afterAll(async () => {
  await clients.close()
  await collie?.dispose()
})

const openstack = (...words: string[]): Promise<string> =>
  clients.run(['openstack', ...words], readOpenrc(path.join(collie.dataDir, 'openrc')))

/** The volume starts with the content, and holds nothing behind it. */
async function expectHolds(volumeId: string): Promise<void> {
  const file = collie.file(`${volumeId}.raw`)
  await collie.ask('vdi', 'export', `volume-${volumeId}`, file)
  execFileSync('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', file, raw], { stdio: 'pipe' })
}

describe('openstackclient', () => {
  withAll('finds the image service, makes a volume of an image, and an image of the volume', async () => {
    const qcow2 = collie.file('disk.qcow2')
    execFileSync('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, qcow2], { stdio: 'pipe' })
    const file = ['--disk-format', 'qcow2', '--file', qcow2, '--property', 'os_distro=debian']
    await openstack('image', 'create', ...file, 'debian')
    const made = await openstack('volume', 'create', '--image', 'debian', '--size', '1', 'v', '-f', 'value', '-c', 'id')
    await api.until('volume', made, 'available')
    const shown = JSON.parse(await openstack('volume', 'show', 'v', '-f', 'json'))
    expect(shown).toMatchObject({
      bootable: 'true',
      volume_image_metadata: { image_name: 'debian', os_distro: 'debian' },
    })
    await expectHolds(made)
    expect(readdirSync(path.join(collie.dataDir, 'conversion'))).toEqual([])

    const upload = ['--volume', 'v', '--disk-format', 'qcow2', 'made', '-f', 'json']
    const started = JSON.parse(await openstack('image', 'create', ...upload))
    expect(started).toMatchObject({
      status: 'uploading',
      image_name: 'made',
      disk_format: 'qcow2',
      volume_type: '__DEFAULT__',
    })
    await api.until('volume', made, 'available')
    const saved = collie.file('made.qcow2')
    await openstack('image', 'save', '--file', saved, 'made')
    execFileSync('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', saved, raw], { stdio: 'pipe' })
    expect(JSON.parse(await openstack('image', 'show', 'made', '-f', 'json'))).toMatchObject({
      status: 'active',
      visibility: 'private',
      properties: { os_distro: 'debian' },
    })
  })
})

describe('kill -9', () => {
  withAll('of the program, in the middle of a download and of an upload, loses nothing but time', async () => {
    const { images } = glance
    const draft = { name: 'raw', diskFormat: 'raw', containerFormat: 'bare', visibility: null, isProtected: null }
    const { id: imageId } = await images.create('token', { ...draft, properties: {} })
    const sending = images.upload('token', imageId, content.length)
    await sending.write(content)
    await sending.finish()

    const body = { volume: { size: 1, imageRef: imageId } }
    const { volume } = await api.request<{ volume: { id: string } }>('POST', '/volumes', body)
    await untilStatus(volume.id, 'downloading')
    await collie.kill('SIGKILL')
    await collie.start()
    await api.until('volume', volume.id, 'available')
    await expectHolds(volume.id)

    const action = { 'os-volume_upload_image': { image_name: 'again', disk_format: 'qcow2' } }
    const answer = await api.request<{ 'os-volume_upload_image': { image_id: string } }>(
      'POST',
      `/volumes/${volume.id}/action`,
      action,
    )
    await collie.kill('SIGKILL')
    await collie.start()
    await api.until('volume', volume.id, 'available')
    const made = collie.file('again.qcow2')
    await openstack('image', 'save', '--file', made, answer['os-volume_upload_image'].image_id)
    execFileSync('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', made, raw], { stdio: 'pipe' })

    await api.delete('volume', volume.id)
    await api.untilGone('volume', volume.id)
    expect((await collie.command('db', 'check')).code).toBe(0)
    expect(readdirSync(path.join(collie.dataDir, 'conversion'))).toEqual([])
  })
})

/** As soon as it is in that status, or past it. */
async function untilStatus(volumeId: string, status: string): Promise<void> {
  await vi.waitFor(
    async () => {
      const { volume } = await api.request<{ volume: { status: string } }>('GET', `/volumes/${volumeId}`)
      expect([status, 'available']).toContain(volume.status)
    },
    { timeout: 60_000, interval: 5 },
  )
}
