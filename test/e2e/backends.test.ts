import { writeFileSync } from 'node:fs'
import { afterEach, expect, it } from 'vitest'
import { CinderApi } from '../tools/cinder-api.ts'
import { Collie } from '../tools/collie.ts'
import { NbdClient } from '../tools/nbd-client.ts'

const started: Collie[] = []

afterEach(async () => {
  for (const collie of started.splice(0).reverse()) await collie.dispose()
})

async function node(...flags: string[]): Promise<Collie> {
  const collie = await Collie.create(...flags)
  started.push(collie)
  return collie
}

interface Service {
  host: string
  state: string
}

it('serves two stores: each volume is reached at its own, and one that is away keeps the other at work', async () => {
  const other = await node('--roles=store,gateway')
  await other.start()
  const backends = [{ name: 'own' }, { name: 'other', data_dir: other.dataDir, availability_zone: 'az2' }]
  const file = other.file('collie.yaml')
  writeFileSync(file, JSON.stringify({ host: 'cloud', backends })) // JSON is YAML, too
  const main = await node(`--config=${file}`)
  await main.start()
  const cinder = new CinderApi(`${main.dataDir}/openrc`)
  const states = async () => {
    const { services } = await cinder.request<{ services: Service[] }>('GET', '/os-services?binary=cinder-volume')
    return Object.fromEntries(services.map(({ host, state }) => [host, state]))
  }
  const create = async (zone: string) => {
    const body = { volume: { size: 1, availability_zone: zone } }
    const { volume } = await cinder.request<{ volume: { id: string } }>('POST', '/volumes', body)
    return volume.id
  }
  expect(await states()).toEqual({ 'cloud@own': 'up', 'cloud@other': 'up' })
  const here = await create('nova')
  const there = await create('az2')
  await cinder.until('volume', here, 'available')
  await cinder.until('volume', there, 'available')
  const attachments = [await cinder.attach(here), await cinder.attach(there)]
  expect(attachments.map(({ address }) => address)).toEqual([main.info.addresses.nbd, other.info.addresses.nbd])
  for (const [index, { address, name }] of attachments.entries()) {
    const disk = await NbdClient.connect(address, name)
    await disk.write(0, Buffer.alloc(4096, index + 1))
    await disk.flush()
    await disk.disconnect()
  }
  expect(await other.ask('cluster', 'audit')).toMatchObject({ sound: true, checked: { blocks: 2 } }) // one of data, one of the map

  await other.kill('SIGKILL')
  await main.kill('SIGTERM')
  await main.start() // a backend that is away does not stop it
  expect(await states()).toEqual({ 'cloud@own': 'up', 'cloud@other': 'down' })
  const meanwhile = await create('nova')
  await cinder.until('volume', meanwhile, 'available')
  await cinder.delete('volume', meanwhile)
  await cinder.untilGone('volume', meanwhile)
  const detached = cinder.detach(attachments[1]!.id) // waits for its store
  await cinder.detach(attachments[0]!.id)

  await other.start()
  await detached
  await cinder.delete('volume', there)
  await cinder.untilGone('volume', there)
  await expect.poll(states, { timeout: 30_000 }).toEqual({ 'cloud@own': 'up', 'cloud@other': 'up' })
  expect(await other.ask('cluster', 'audit')).toMatchObject({ sound: true, checked: { objects: 0 } })
})

it('goes on while one store hangs, and with that one when it wakes up', async () => {
  const other = await node('--roles=store,gateway')
  await other.start()
  const far = { name: 'other', data_dir: other.dataDir, availability_zone: 'az2', timeout_seconds: 1 }
  const main = await node(`--backends=${JSON.stringify([{ name: 'own' }, far])}`)
  await main.start()
  const cinder = new CinderApi(`${main.dataDir}/openrc`)
  const create = async (zone: string) => {
    const body = { volume: { size: 1, availability_zone: zone } }
    return (await cinder.request<{ volume: { id: string } }>('POST', '/volumes', body)).volume.id
  }
  process.kill(other.info.pid, 'SIGSTOP')
  try {
    const stuck = await Promise.all(Array.from({ length: 40 }, () => create('az2'))) // more than there are workers
    const here = await create('nova')
    await cinder.until('volume', here, 'available')
    process.kill(other.info.pid, 'SIGCONT')
    for (const id of stuck) await cinder.until('volume', id, 'available')
  } finally {
    process.kill(other.info.pid, 'SIGCONT')
  }
})

it('needs no store of its own', async () => {
  const store = await node('--roles=store,gateway')
  await store.start()
  const api = await node('--roles=api', `--backends=${JSON.stringify([{ name: 'far', data_dir: store.dataDir }])}`)
  await api.start()
  const health = () => fetch(new URL('/healthcheck', api.info.addresses.api))
  expect((await health()).status).toBe(200)
  const cinder = new CinderApi(`${api.dataDir}/openrc`)
  const id = await cinder.createVolume()
  await cinder.until('volume', id, 'available')
  await cinder.delete('volume', id)
  await cinder.untilGone('volume', id)
  expect(await api.kill('SIGTERM')).toBe(0)
})

it('rehearses faults', async () => {
  const backends = [{ name: 'shaky', faults: ['error(before first 1 of createVolume)', 'delay(5 ms, deleteVolume)'] }]
  const collie = await node(`--backends=${JSON.stringify(backends)}`, '--log-level=warn')
  await collie.start()
  const cinder = new CinderApi(`${collie.dataDir}/openrc`)
  await cinder.until('volume', await cinder.createVolume(), 'available')
  expect(collie.tailOfLog()).toContain('injected fault in createVolume')
  await collie.kill('SIGTERM')

  const broken = await node(`--backends=${JSON.stringify([{ name: 'x', faults: ['error(now)'] }])}`)
  await expect(broken.start()).rejects.toThrow(/"error\(now\)" does not say whether before or after the call/)
})
