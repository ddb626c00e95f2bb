import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type FakeGlance, startFakeGlance } from '../tools/fake-glance.ts'
import { imageOptions } from '../tools/image-options.ts'
import { createHarness, type Harness } from './harness.ts'
import { keys, sample } from './sample-files.ts'

/** What requests about images are answered; what becomes of them is in test/services/. */

let glance: FakeGlance
let api: Harness

beforeEach(async () => {
  glance = await startFakeGlance()
  api = await createHarness({ images: imageOptions(glance.url) })
})
afterEach(() => api.close())

async function aVolume(fields: object = {}): Promise<string> {
  const { body } = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, ...fields } } })
  await api.services.idle()
  return body.volume.id
}

const act = (id: string, body: unknown, options: { version?: string; roles?: string } = {}) =>
  api.ask('POST', `/v3/volumes/${id}/action`, { version: '3.71', ...options, body })
const create = (volume: object, options: { version?: string; roles?: string } = {}) =>
  api.ask('POST', '/v3/volumes', { version: '3.71', ...options, body: { volume: { size: 1, ...volume } } })
const show = async (id: string) => (await api.ask('GET', `/v3/volumes/${id}`)).body.volume

describe('a volume from an image', () => {
  test.each(['imageRef', 'image_id'])('is asked for as %s, and shows it once it is there', async (key) => {
    const imageId = glance.add(Buffer.alloc(5000, 'image'), { name: 'debian' })
    const { status, body } = await create({ [key]: imageId })
    expect(status).toBe(202)
    expect(body.volume).toMatchObject({ status: 'creating', bootable: 'false', snapshot_id: null })
    await api.services.idle()
    const shown = await show(body.volume.id)
    expect(shown).toMatchObject({ status: 'available', bootable: 'true' })
    expect(shown.volume_image_metadata).toMatchObject({ image_id: imageId, image_name: 'debian', size: '5000' })
    const filter = encodeURIComponent("{'image_name': 'debian'}")
    const { body: listed } = await api.ask('GET', `/v3/volumes?glance_metadata=${filter}`, { version: '3.71' })
    expect(listed.volumes.map(({ id }: { id: string }) => id)).toEqual([body.volume.id])
  })

  test('is refused with what is wrong', async () => {
    const imageRef = glance.add(Buffer.alloc(5000, 'image'), { min_disk: 3 })
    const message = 'Invalid input received: Volume size 1GB cannot be smaller than the image minDisk size 3GB.'
    expect((await create({ imageRef })).body.badRequest.message).toBe(message)
    const unknown = 'Invalid image identifier or unable to access requested image.'
    expect((await create({ imageRef: 'nobody knows it' })).body.badRequest.message).toBe(unknown)
    glance.add(Buffer.alloc(1), { name: 'twice' })
    glance.add(Buffer.alloc(1), { name: 'twice' })
    const several = "Multiple matches found for 'twice', use an ID to be more specific."
    expect((await create({ imageRef: 'twice' })).body.conflictingRequest.message).toBe(several)
    const exclusive = 'Invalid input received: May specify only one of backup, imageRef, snapshot, source volume'
    expect((await create({ imageRef, source_volid: await aVolume() })).body.badRequest.message).toBe(exclusive)
    expect((await create({ imageRef }, { roles: 'reader' })).status).toBe(403)
    glance.misbehave('show', { status: 500 }, 10)
    expect((await create({ imageRef })).body.badRequest.message).toBe(unknown)
  })

  test('an image of a snapshot counts from 3.46 on', async () => {
    const id = await aVolume()
    const { body } = await api.ask('POST', '/v3/snapshots', { body: { snapshot: { volume_id: id } } })
    await api.services.idle()
    const devices = [{ source_type: 'snapshot', boot_index: 0, snapshot_id: body.snapshot.id }]
    const imageRef = glance.add(Buffer.alloc(0), { block_device_mapping: JSON.stringify(devices) })
    expect((await create({ imageRef }, { version: '3.46' })).body.volume.snapshot_id).toBe(body.snapshot.id)
    expect((await create({ imageRef }, { version: '3.45' })).status).toBe(400)
  })
})

describe('os-volume_upload_image', () => {
  const upload = (fields: object = {}) => ({ 'os-volume_upload_image': { image_name: 'test', ...fields } })

  test("takes upstream's sample and answers as it does", async () => {
    const id = await aVolume()
    const { status, body } = await act(id, sample('volume_actions/volume-upload-to-image-request.json'))
    expect(status).toBe(202)
    const expected = sample('volume_actions/volume-upload-to-image-response.json')['os-volume_upload_image']
    const answer = body['os-volume_upload_image']
    expect(keys(answer)).toEqual(keys(expected))
    const { image_id, updated_at, volume_type, ...rest } = answer
    expect(rest).toEqual({
      id,
      status: 'uploading',
      display_description: null,
      size: 1,
      container_format: 'bare',
      disk_format: 'raw',
      image_name: 'test',
      protected: false,
      visibility: 'private',
    })
    expect(volume_type).toMatchObject({ name: '__DEFAULT__' })
    expect(glance.images.get(image_id)!.document).toMatchObject({ name: 'test', visibility: 'private' })
    expect(updated_at).toMatch(/^\d{4}-/)
    expect((await show(id)).status).toBe('uploading')
    expect((await act(id, upload())).body.badRequest.message).toBe(
      `Invalid volume: Volume ${id} status must be available`,
    )
    await act(id, { 'os-force_delete': null })
    await api.services.idle()
  })

  test('knows visibility since 3.1, and lets only administrators publish', async () => {
    const id = await aVolume()
    expect((await act(id, upload({ visibility: 'private' }), { version: '3.0' })).status).toBe(400)
    expect((await act(id, upload({ visibility: 'public' }), { roles: 'member' })).status).toBe(403)
    expect((await act(id, upload(), { roles: 'reader' })).status).toBe(403)
    const { body } = await act(id, upload({ visibility: 'public', protected: 'True', disk_format: 'qcow2' }))
    await api.services.idle()
    expect(glance.images.get(body['os-volume_upload_image'].image_id)!.document).toMatchObject({
      status: 'active',
      visibility: 'public',
      protected: true,
    })
  })

  test.each([
    ['without a name', { image_name: '' }],
    ['in a format that there is not', { disk_format: 'cloop' }],
    ['in one that is not made here', { disk_format: 'ploop' }],
    ['with what nobody knows', { compressed: true }],
  ])('%s is refused', async (_, fields) => {
    expect((await act(await aVolume(), upload(fields))).status).toBe(400)
    expect(glance.images.size).toBe(0)
  })

  test('with the image service away is refused, and the volume stays', async () => {
    const id = await aVolume()
    glance.close()
    expect((await act(id, upload())).body.badRequest.message).toMatch(
      /^Invalid input received: Connection to glance failed/,
    )
    const imageId = '00000000-0000-4000-8000-000000000000'
    expect((await act(id, { 'os-reimage': { image_id: imageId } })).status).toBe(503)
    expect((await show(id)).status).toBe('available')
  })
})

test("os-reimage takes upstream's sample", async () => {
  const id = await aVolume()
  const request = sample('volume-os-reimage-request.json')
  expect((await act(id, request)).body.itemNotFound.message).toMatch(/^Image .* could not be found\.$/)
  glance.add(Buffer.alloc(5000, 'image'), { id: request['os-reimage'].image_id })
  expect((await act(id, request, { version: '3.67' })).status).toBe(404)
  expect((await act(id, request)).status).toBe(202)
  await api.services.idle()
  expect(await show(id)).toMatchObject({ status: 'available', bootable: 'true' })
})
