import { randomBytes } from 'node:crypto'
import { expect, it } from 'vitest'
import type { VolumeData } from '../../../src/drivers/driver.ts'
import { createMemoryBackend, createMemoryDriver } from '../../../src/drivers/memory.ts'
import { systemHttp } from '../../../src/runtime/http-client.ts'
import { systemRandom } from '../../../src/runtime/random.ts'
import { createGlance } from '../../../src/services/images/glance.ts'
import { beginSend } from '../../../src/services/images/send.ts'
import { startFakeGlance } from '../../tools/fake-glance.ts'
import { imageOptions } from '../../tools/image-options.ts'

const MIB = 1024 * 1024

/** The first bytes of a volume, as if it had no more. */
async function smallDisk(content: Buffer, sizeBytes: number): Promise<VolumeData> {
  const volume = { id: 'disk', sizeGib: 1 }
  const driver = createMemoryDriver(createMemoryBackend(), systemRandom)
  await driver.createVolume(volume)
  const data = await driver.openVolume(volume)
  await data.write(3 * MIB + 100, content)
  return { ...data, sizeBytes }
}

it('a raw image is every byte of the disk, whoever goes on with it', async () => {
  const fake = await startFakeGlance()
  const service = createGlance({ http: systemHttp, url: fake.url, timeoutMs: 20_000 })
  const draft = { name: 'made', diskFormat: 'raw', containerFormat: 'bare', visibility: null, isProtected: null }
  const { id: imageId } = await service.create('token', { ...draft, properties: {} })
  const content = randomBytes(2 * MIB + 777)
  const sizeBytes = 9 * MIB + 4096
  const disk = await smallDisk(content, sizeBytes)
  const { spool } = imageOptions(fake.url)
  const send = (await beginSend({ service, spool }, { token: 'token', imageId, format: 'raw' }, disk))!
  const told: number[] = []
  while (!(await send.advance({ ...disk }, () => true))) told.push(send.progress().doneBytes)
  expect(told.at(-1)).toBe(sizeBytes)
  expect(told).toEqual([...told].sort((a, b) => a - b))
  const expected = Buffer.alloc(sizeBytes)
  content.copy(expected, 3 * MIB + 100)
  expect(fake.images.get(imageId)!.content.equals(expected)).toBe(true)
  await send.dispose()
})
