import { afterAll, beforeAll, expect, test } from 'vitest'
import { createHarness, type Harness } from './harness.ts'
import { keys, sample } from './sample-files.ts'

/** Samples of upstream's that stand for themselves, beside those that come in folders by microversion. */

let api: Harness
beforeAll(async () => {
  api = await createHarness()
})
afterAll(() => api.close())

test('backups are listed with the keys of the sample, counted, and deleted by force with its body', async () => {
  const { body: volume } = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } } })
  await api.services.idle()
  const made = await api.ask('POST', '/v3/backups', { body: { backup: { volume_id: volume.volume.id } } })
  await api.services.idle()
  const list = () => api.ask('GET', '/v3/backups?with_count=True', { version: '3.45' })
  const { body } = await list()
  const expected = sample('backups-list-response.json')
  expect(keys(body)).toEqual(keys(expected))
  expect(keys(body.backups[0])).toEqual(keys(expected.backups[0]))
  const url = `/v3/backups/${made.body.backup.id}/action`
  expect((await api.ask('POST', url, { body: sample('backup-force-delete-request.json') })).status).toBe(202)
  await api.services.idle()
  expect((await list()).body).toMatchObject({ backups: [], count: 0 })
})

test('a service is disabled with the body of the sample, and answers with its keys and words', async () => {
  const { body: listed } = await api.ask('GET', '/v3/os-services?binary=cinder-volume')
  const { host } = listed.services[0]
  const request = { ...sample('services-disable-request.json'), host }
  const { status, body } = await api.ask('PUT', '/v3/os-services/disable', { body: request })
  expect([status, body]).toEqual([200, { ...sample('services-disable-response.json'), host }])
  await api.ask('PUT', '/v3/os-services/enable', { body: request })
})

test('work of dead processes is looked for with the body of the sample; a cluster that is not there has none', async () => {
  const { status, body } = await api.ask('POST', '/v3/workers/cleanup', {
    version: '3.24',
    body: sample('worker-cleanup-request.json'),
  })
  expect(status).toBe(202)
  expect(keys(body)).toEqual(keys(sample('worker-cleanup-response.json')))
})
