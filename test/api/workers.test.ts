import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ROUTES } from '../../src/api/v3/index.ts'
import { createHarness, type Harness, PROJECT } from './harness.ts'

let api: Harness
beforeAll(async () => {
  api = await createHarness()
})
afterAll(() => api.close())

const cleanUp = (body: unknown, options: { version?: string; roles?: string } = {}) =>
  api.ask('POST', `/v3/${PROJECT}/workers/cleanup`, { version: '3.24', ...options, body })

const SCHEDULER = { id: 1, host: 'test', binary: 'cinder-scheduler', cluster_name: null }
const VOLUME = { id: 2, host: 'test@memory', binary: 'cinder-volume', cluster_name: null }

describe('workers/cleanup', () => {
  test.each([
    [{}, []], // those that are down, unless something else is said
    [{ is_up: true, binary: 'cinder-scheduler' }, [SCHEDULER]],
    [{ is_up: 'yes', binary: 'cinder-volume' }, [VOLUME]],
    [{ is_up: 'TRUE', service_id: '2' }, [VOLUME]],
    [{ is_up: true, service_id: 2, host: null }, [VOLUME]],
    [{ is_up: null, host: 'test@memory' }, [VOLUME]],
    [{ is_up: true, host: 'elsewhere' }, []],
    [{ is_up: true, cluster_name: 'a-cluster' }, []],
    [{ is_up: true, disabled: 'true' }, []],
    [{ is_up: true, disabled: false, resource_type: 'volume', binary: 'cinder-volume' }, [VOLUME]],
    [{ is_up: true, resource_id: null, resource_type: '', binary: 'cinder-volume' }, [VOLUME]],
  ])('%j', async (body, cleaning) => {
    const { status, body: answer } = await cleanUp(body)
    expect([status, answer]).toEqual([202, { cleaning, unavailable: [] }])
  })

  test.each([
    [{ binary: 'nova-scheduler' }, 'binary'],
    [{ disabled: 'sure' }, 'disabled'],
    [{ is_up: 11 }, 'is_up'],
    [{ is_up: '   true  ' }, 'is_up'],
    [{ resource_id: 'non UUID' }, 'resource_id'],
    [{ resource_type: 'service' }, 'Resource type Service not valid, must be Snapshot or Volume'],
    [{ service_id: 'x' }, 'service_id'],
    [{ host: 'no host' }, 'host'],
    [{ fake_key: 'value' }, "Additional properties are not allowed ('fake_key' was unexpected)"],
    [
      { resource_id: '9b2b1e1c-1d7b-4a76-8d2f-5d3f7b1d8f0a' },
      'There is no resource with UUID 9b2b1e1c-1d7b-4a76-8d2f-5d3f7b1d8f0a pending cleanup.',
    ],
  ])('%j is refused', async (body, reason) => {
    const { status, body: answer } = await cleanUp(body)
    expect([status, answer.badRequest.message]).toEqual([400, expect.stringContaining(reason)])
  })

  test('came with 3.24, and is for administrators', async () => {
    expect((await cleanUp({}, { version: '3.23' })).status).toBe(404)
    expect((await cleanUp({}, { roles: 'member' })).status).toBe(403)
  })
})

describe('the backup service', () => {
  const put = async (action: string) =>
    (await api.ask('PUT', `/v3/os-services/${action}`, { body: { host: 'test', binary: 'cinder-backup' } })).status
  const backupOf = async (volumeId: string) => {
    const { body } = await api.ask('POST', '/v3/backups', { body: { backup: { volume_id: volumeId } } })
    await api.services.idle()
    return (await api.ask('GET', `/v3/backups/${body.backup.id}`)).body.backup
  }

  test('is listed, and takes nothing new while it is disabled', async () => {
    const { body: listed } = await api.ask('GET', '/v3/os-services?binary=cinder-backup')
    expect(listed.services).toMatchObject([{ host: 'test', zone: 'nova', status: 'enabled', state: 'up' }])
    expect(listed.services[0]).not.toHaveProperty('frozen')
    const { body: created } = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 } } })
    const volumeId: string = created.volume.id
    await api.services.idle()
    const kept = await backupOf(volumeId)
    expect(kept.status).toBe('available')

    expect(await put('disable')).toBe(200)
    expect((await api.ask('GET', '/v3/os-services?binary=cinder-backup')).body.services[0].status).toBe('disabled')
    const refused = await backupOf(volumeId)
    expect(refused).toMatchObject({ status: 'error', fail_reason: 'Service not found for creating backup.' })
    expect((await api.ask('GET', `/v3/volumes/${volumeId}`)).body.volume.status).toBe('available')
    const { body } = await api.ask('GET', `/v3/messages?resource_uuid=${refused.id}`, { version: '3.5' })
    expect(body.messages[0].event_id).toBe('VOLUME_VOLUME_BACKUP_013_024')
    const asked = [
      await api.ask('DELETE', `/v3/backups/${kept.id}`),
      await api.ask('POST', `/v3/backups/${kept.id}/restore`, { body: { restore: { volume_id: volumeId } } }),
      await api.ask('POST', `/v3/backups/${kept.id}/action`, { body: { 'os-reset_status': { status: 'error' } } }),
      await api.ask('GET', `/v3/backups/${kept.id}/export_record`),
    ]
    for (const { status, body: answer } of asked) {
      expect([status, answer.itemNotFound?.message]).toEqual([404, 'Service cinder-backup could not be found.'])
    }
    const record = { backup_service: 'a.service', backup_url: 'x' }
    const imported = await api.ask('POST', '/v3/backups/import_record', { body: { 'backup-record': record } })
    expect([imported.status, imported.body.serviceUnavailable?.message]).toEqual([
      503,
      'Service a.service could not be found.',
    ])
    expect((await api.ask('GET', `/v3/backups/${kept.id}`)).body.backup.status).toBe('available')

    expect(await put('enable')).toBe(200)
    expect((await api.ask('DELETE', `/v3/backups/${kept.id}`)).status).toBe(202)
    await api.services.idle()
    expect((await api.ask('GET', `/v3/backups/${kept.id}`)).status).toBe(404)
  })
})

test('HEAD is served where upstream serves it: at the lists of versions, and at no resource', async () => {
  for (const path of ['/', '/v3', '/v3/']) {
    const [head, get] = [await api.ask('HEAD', path), await api.ask('GET', path)]
    expect([path, head.status, head.text]).toEqual([path, get.status, ''])
  }
  for (const { url } of ROUTES.filter(({ method }) => method === 'GET')) {
    const path = url.replace(/:\w+/g, '9b2b1e1c-1d7b-4a76-8d2f-5d3f7b1d8f0a')
    for (const prefix of ['/v3', `/v3/${PROJECT}`]) {
      expect([url, (await api.ask('HEAD', prefix + path)).status]).toEqual([url, 404])
    }
  }
})
