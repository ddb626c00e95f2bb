import { afterEach, expect, it } from 'vitest'
import { CinderApi } from '../tools/cinder-api.ts'
import { Collie } from '../tools/collie.ts'
import { NbdClient } from '../tools/nbd-client.ts'

const started: Collie[] = []

afterEach(async () => {
  for (const collie of started.splice(0).reverse()) await collie.dispose()
})

async function startStoreAndApi(): Promise<{ store: Collie; api: Collie; cinder: CinderApi }> {
  const store = await Collie.create('--roles=store,gateway')
  started.push(store)
  await store.start()
  const api = await Collie.create('--roles=api', `--data-dir=${store.dataDir}`)
  started.push(api)
  await api.start()
  return { store, api, cinder: new CinderApi(`${store.dataDir}/openrc`) }
}

it('serves the API from a process of its own: disks go on without it, and it goes on when the store comes back', async () => {
  const { store, api, cinder } = await startStoreAndApi()
  expect(Object.keys(api.info.addresses)).toEqual(['api'])
  const volumeId = await cinder.createVolume({ name: 'data' })
  await cinder.until('volume', volumeId, 'available')
  const attachment = await cinder.attach(volumeId)

  await api.kill('SIGKILL')
  const disk = await NbdClient.connect(attachment.address, attachment.name)
  const written = Buffer.alloc(4096, 0xa5)
  await disk.write(0, written)
  await disk.flush()
  await disk.disconnect()
  await disk.closed

  await api.start()
  const health = () => fetch(new URL('/healthcheck', api.info.addresses.api))
  expect((await health()).status).toBe(200)
  await store.kill('SIGKILL')
  const unwell = await health()
  expect([unwell.status, await unwell.text()]).toEqual([503, expect.stringContaining('The store cannot be reached')])
  await store.start()
  expect((await health()).status).toBe(200)
  const again = await NbdClient.connect(attachment.address, attachment.name)
  expect((await again.read(0, 4096)).equals(written)).toBe(true)
  await cinder.detach(attachment.id)
  await again.closed
  await cinder.delete('volume', volumeId)
  await cinder.untilGone('volume', volumeId)
  expect(await store.ask('cluster', 'audit')).toMatchObject({ sound: true, checked: { objects: 0 } })
  expect(await api.kill('SIGTERM')).toBe(0)
  expect(await store.kill('SIGTERM')).toBe(0)
})

it('says what is missing when there is no store, and that a role is taken', async () => {
  const lonely = await Collie.create('--roles=api')
  started.push(lonely)
  await expect(lonely.start()).rejects.toThrow(/start the store first: collie serve --roles store,gateway/)
  const { store } = await startStoreAndApi()
  const second = await Collie.create('--roles=api', `--data-dir=${store.dataDir}`)
  started.push(second)
  await expect(second.start()).rejects.toThrow(/another process serves the role api/)
})
