import { afterEach, expect, it } from 'vitest'
import { FAMILIES, type Family } from '../../src/metrics/catalogue.ts'
import { CinderApi } from '../tools/cinder-api.ts'
import { Collie } from '../tools/collie.ts'
import { parseScrape, type Scrape } from '../tools/exposition.ts'
import { NbdClient } from '../tools/nbd-client.ts'

const BLOCK = 4096
const started: Collie[] = []

afterEach(async () => {
  for (const collie of started.splice(0).reverse()) await collie.dispose()
})

async function start(...flags: string[]): Promise<Collie> {
  const collie = await Collie.create(...flags)
  started.push(collie)
  await collie.start()
  return collie
}

async function fetchPage(collie: Collie): Promise<string> {
  const answer = await fetch(new URL('/metrics', collie.info.addresses.api)) // without a token
  expect(answer.status).toBe(200)
  expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  return answer.text()
}

/** A page that was made after this was called: one is shown again for a second. */
async function scrape(collie: Collie): Promise<Scrape> {
  const busySeconds = (page: Scrape) => page.value('collie_event_loop_busy_seconds_total', { thread: 'api' })
  const before = busySeconds(parseScrape(await fetchPage(collie)))
  for (;;) {
    const page = parseScrape(await fetchPage(collie))
    if (busySeconds(page) > before) return page
  }
}

const isUp = async (collie: Collie) => (await scrape(collie)).value('collie_store_up')

/** What every family on a page must be: in the catalogue, with its type, help and labels. */
function expectCatalogued(page: Scrape): void {
  for (const { name, type, help, series } of page.families.values()) {
    const row: Family | undefined = FAMILIES[name as keyof typeof FAMILIES]
    expect({ name, type: row?.type, help: row?.help }).toEqual({ name, type, help })
    for (const { labels } of series)
      expect(
        Object.keys(labels)
          .filter((label) => label !== 'le')
          .sort(),
      ).toEqual([...row.labels].sort())
  }
}

it('shows all that the catalogue names, and what clients did', async () => {
  const collie = await start()
  const cinder = new CinderApi(`${collie.dataDir}/openrc`)
  const volumeId = await cinder.createVolume({ name: 'top-secret' })
  await cinder.until('volume', volumeId, 'available')
  const attachment = await cinder.attach(volumeId)
  const before = await scrape(collie)
  expect(before.value('collie_store_up')).toBe(1)
  expect(before.series('collie_nbd_requests_total')).toEqual([])

  const disk = await NbdClient.connect(attachment.address, attachment.name)
  const bytes = Buffer.alloc(BLOCK, 0x5a)
  for (let block = 0; block < 30; block++) await disk.write(block * BLOCK, bytes)
  await disk.flush()
  for (let block = 0; block < 20; block++) await disk.read(block * BLOCK, BLOCK)
  await expect(disk.read(disk.sizeBytes, BLOCK)).rejects.toThrow()
  await expect(cinder.request('GET', '/volumes/none')).rejects.toThrow()
  // An error of the store, so that its family is there too.
  await expect(NbdClient.connect(attachment.address, 'no-such-export')).rejects.toThrow()

  const page = await scrape(collie)
  expectCatalogued(page)
  // What has no series: nothing failed here that would have made one.
  const quiet = [
    'collie_work_repeated_total',
    'collie_work_given_up_total',
    'collie_volume_snapshots',
    'collie_work_units',
  ]
  expect(Object.keys(FAMILIES).filter((name) => !page.families.has(name) && !quiet.includes(name))).toEqual([])

  const nbd = (name: string, command: string) => page.value(`collie_nbd_${name}`, { command })
  expect(nbd('requests_total', 'write')).toBe(30)
  expect(nbd('request_duration_seconds_count', 'write')).toBe(30)
  expect(nbd('request_bytes_total', 'write')).toBe(30 * BLOCK)
  expect(nbd('requests_total', 'read')).toBe(21)
  expect(nbd('request_duration_seconds_count', 'read')).toBe(21)
  expect(nbd('request_bytes_total', 'read')).toBe(20 * BLOCK)
  expect(page.value('collie_nbd_request_errors_total', { command: 'read', error: 'EINVAL' })).toBe(1)
  expect(nbd('request_duration_seconds_count', 'flush')).toBe(1)
  expect(page.value('collie_nbd_connections')).toBe(1)
  expect(page.value('collie_nbd_common_bytes')).toBe(0)
  expect(page.value('collie_nbd_waiting_connections')).toBe(0)
  expect(page.value('collie_nbd_stuck_connections_total')).toBe(0)
  for (const name of ['common_bytes', 'waiting_connections', 'stuck_connections_total', 'refused_connections_total']) {
    expect(page.value(`collie_sheep_${name}`)).toBe(0)
  }
  expect(page.value('collie_nbd_requests_in_flight')).toBe(0)
  expect(page.value('collie_nbd_in_flight_bytes')).toBe(0)

  const operation = (name: string, each: string) => page.value(`collie_operation_${name}`, { operation: each })
  expect(operation('duration_seconds_count', 'WRITE_VDI')).toBe(30)
  expect(operation('bytes_total', 'WRITE_VDI')).toBe(30 * BLOCK)
  expect(operation('duration_seconds_count', 'READ_VDI')).toBe(20)
  expect(operation('duration_seconds_count', 'NEW_VDI')).toBe(1)
  expect(page.value('collie_operation_errors_total', { operation: 'GET_EXPORT', result: 'NOT_FOUND' })).toBe(1)
  expect(page.value('collie_vdis')).toBe(1)
  expect(page.value('collie_exports')).toBe(1)
  expect(page.value('collie_sessions')).toBe(1)
  expect(page.value('collie_objects')).toBe(2) // the data, and the block map
  expect(page.value('collie_provisioned_bytes')).toBe(2 ** 30)
  expect(page.value('collie_space_free_bytes')).toBeGreaterThan(0)
  const moved = (name: string) => page.value(name) - before.value(name)
  expect(moved('collie_journal_frames_total')).toBeGreaterThan(0)
  expect(moved('collie_journal_written_bytes_total')).toBeGreaterThan(30 * BLOCK)
  expect(moved('collie_journal_sync_duration_seconds_count')).toBeGreaterThan(0)
  expect(page.value('collie_journal_active_bytes')).toBeGreaterThan(30 * BLOCK)

  expect(page.value('collie_volumes')).toBe(1)
  expect(page.value('collie_work_done_total', { kind: 'volume-create' })).toBe(1)
  const created = { method: 'POST', route: '/v3/volumes', status: '2xx' }
  expect(page.value('collie_http_request_duration_seconds_count', created)).toBe(1)
  expect(page.series('collie_http_request_duration_seconds_count', { status: '4xx' })).not.toEqual([])
  expect(page.value('process_resident_memory_bytes')).toBeGreaterThan(2 ** 20)
  expect(page.value('process_open_fds')).toBeGreaterThan(10)

  const secrets = [volumeId, attachment.id, attachment.name, 'top-secret']
  const text = await fetchPage(collie)
  expect(secrets.filter((secret) => text.includes(secret))).toEqual([])
  await disk.disconnect()
})

it('says how long requests were held while disks were busy, also when they were so before the API was there', async () => {
  const collie = await start('--api-share=0.01')
  const cinder = new CinderApi(`${collie.dataDir}/openrc`)
  const volumeId = await cinder.createVolume({})
  await cinder.until('volume', volumeId, 'available')
  const { address, name } = await cinder.attach(volumeId)
  await collie.kill('SIGKILL')

  let isOver = false
  const reading = async () => {
    while (!isOver) {
      const disk = await NbdClient.connect(address, name).catch(() => null) // not there yet
      for (let block = 0; disk !== null && !isOver; block = (block + 1) % 200) await disk.read(block * BLOCK, BLOCK)
      await disk?.disconnect()
    }
  }
  const read = reading()
  await collie.start()
  const held = async () => (await scrape(collie)).value('collie_http_held_seconds_count')
  while ((await held()) === 0) await Promise.all(Array.from({ length: 5 }, () => cinder.request('GET', '/volumes')))
  isOver = true
  await read
})

it('answers while the store is away or hangs, and says so', async () => {
  const store = await start('--roles=store,gateway')
  const api = await start('--roles=api', `--data-dir=${store.dataDir}`)
  const page = await scrape(api)
  expectCatalogued(page)
  expect(page.value('collie_store_up')).toBe(1)
  expect(
    page
      .series('process_resident_memory_bytes')
      .map(({ labels }) => labels.roles)
      .sort(),
  ).toEqual(['api', 'store,gateway'])

  process.kill(store.info.pid, 'SIGSTOP')
  expect(await isUp(api)).toBe(0)
  process.kill(store.info.pid, 'SIGCONT')
  await expect.poll(() => isUp(api), { timeout: 60_000 }).toBe(1)

  await store.kill('SIGKILL')
  const alone = await scrape(api)
  expectCatalogued(alone)
  expect(alone.value('collie_store_up')).toBe(0)
  expect(alone.families.has('collie_objects')).toBe(false)
  expect(alone.value('process_resident_memory_bytes', { roles: 'api' })).toBeGreaterThan(0)
  await store.start()
  expect(await isUp(api)).toBe(1)
})

it('of a store without the API are on a listener of their own, and so is its health', async () => {
  const store = await start('--roles=store,gateway', '--metrics-listen=127.0.0.1:0')
  const page = (path: string, options: RequestInit = {}) =>
    fetch(`http://${store.info.addresses.metrics}${path}`, options)
  const answer = await page('/metrics?now')
  expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  const scraped = parseScrape(await answer.text())
  expectCatalogued(scraped)
  expect(scraped.value('collie_store_up')).toBe(1)
  expect(scraped.value('collie_vdis')).toBe(0)
  expect(scraped.value('collie_nbd_connections')).toBe(0)
  expect(scraped.value('process_resident_memory_bytes', { roles: 'store,gateway' })).toBeGreaterThan(0)
  expect(scraped.families.has('collie_volumes')).toBe(false)

  const health = await page('/healthcheck')
  expect([health.status, await health.text()]).toEqual([200, 'OK'])
  expect((await page('/v3/volumes')).status).toBe(404)
  expect((await page('/metrics', { method: 'POST', body: 'x' })).status).toBe(405)

  await store.ask('vdi', 'create', 'one', '1G')
  await store.ask('vdi', 'create', 'two', '2G')
  await store.ask('vdi', 'snapshot', 'one', '--tag', 'daily')
  await store.ask('vdi', 'delete', 'two')
  await expect
    .poll(async () => parseScrape(await (await page('/metrics')).text()).value('collie_vdis'), { timeout: 60_000 })
    .toBe(1)
})

it('of a process with the API may be on a listener of their own too', async () => {
  const collie = await start('--metrics-listen=127.0.0.1:0')
  const answer = await fetch(`http://${collie.info.addresses.metrics}/metrics`)
  const scraped = parseScrape(await answer.text())
  expect(scraped.value('collie_vdis')).toBe(0)
  expect(scraped.value('collie_work_running')).toBe(0)

  const other = await Collie.create('--roles=store,gateway', `--metrics-listen=${collie.info.addresses.metrics}`)
  started.push(other)
  await expect(other.start()).rejects.toThrow('EADDRINUSE')
})
