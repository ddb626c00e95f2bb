import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createHarness, type Harness, PROJECT } from './harness.ts'

/** Pools, capabilities, services, hosts, zones and clusters, as administrators see them. */

const sample = (path: string) => JSON.parse(readFileSync(new URL(`samples/${path}`, import.meta.url), 'utf8'))
const keys = (value: object) => Object.keys(value).sort()

let api: Harness
beforeAll(async () => {
  api = await createHarness()
})
afterAll(() => api.close())
/** Tests leave services and volumes as they want them; the next one finds all enabled and empty. */
beforeEach(async () => {
  await put('thaw', { host: HOST })
  await put('enable', { host: HOST, binary: 'cinder-volume' })
  await put('enable', { host: 'test', binary: 'cinder-scheduler' })
  await put('set-log', { level: 'INFO' })
  for (const { id } of (await api.ask('GET', '/v3/volumes')).body.volumes) {
    await api.ask('DELETE', `/v3/volumes/${id}?cascade=true&force=true`, { version: '3.23' })
  }
  await api.services.idle()
})

const HOST = 'test@memory'
const put = (path: string, body: unknown, version = '3.71') =>
  api.ask('PUT', `/v3/os-services/${path}`, { body, version })
const services = async (version = '3.71', query = '') =>
  (await api.ask('GET', `/v3/os-services${query}`, { version })).body.services
const newVolume = async () => {
  const { body } = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 3 } } })
  await api.services.idle()
  return (await api.ask('GET', `/v3/volumes/${body.volume.id}`)).body.volume
}
const messageOf = ({ body }: { body: Record<string, { message: string }> }) => Object.values(body)[0]!.message

describe('everything here', () => {
  it.each([
    ['GET', '/v3/os-services'],
    ['PUT', '/v3/os-services/enable'],
    ['PUT', '/v3/os-services/freeze'],
    ['PUT', '/v3/os-services/get-log'],
    ['GET', '/v3/os-hosts'],
    ['GET', '/v3/os-hosts/test'],
    ['GET', '/v3/scheduler-stats/get_pools'],
    ['GET', '/v3/capabilities/test'],
    ['GET', '/v3/clusters'],
    ['GET', '/v3/clusters/one'],
  ] as const)('is for administrators: %s %s', async (method, path) => {
    const body =
      method === 'PUT' ? { host: HOST, ...(path.endsWith('enable') ? { binary: 'cinder-volume' } : {}) } : undefined
    const valid = path.endsWith('get-log') ? {} : body
    const answer = await api.ask(method, path, { version: '3.71', roles: 'member+reader', body: valid })
    expect(answer.status).toBe(403)
  })
})

describe('services', () => {
  it('are a scheduler and one for each backend, in the shape of the sample of each version', async () => {
    const [scheduler, volume] = await services()
    expect(scheduler).toMatchObject({ binary: 'cinder-scheduler', host: 'test', status: 'enabled', state: 'up' })
    expect(volume).toMatchObject({
      binary: 'cinder-volume',
      host: HOST,
      zone: 'nova',
      status: 'enabled',
      state: 'up',
      disabled_reason: null,
      frozen: false,
      backend_state: 'up',
      replication_status: 'disabled',
      cluster: null,
    })
    const latest = sample('os-services/v3.49/services-list-response.json').services
    expect(keys(scheduler)).toEqual(keys(latest[0]))
    expect(keys(volume)).toEqual(keys(latest[1]))
    const [early, earlyVolume] = await services('3.6')
    expect(keys(early)).toEqual(keys(sample('services-list-response.json').services[0]))
    expect(keys(earlyVolume)).toEqual(
      keys(sample('services-list-response.json').services[2]).filter((key) => key !== 'cluster'),
    )
  })

  it('can be filtered by host, of which a plain name means all its backends, and by binary', async () => {
    const hosts = async (query: string) => (await services('3.0', query)).map(({ host }: { host: string }) => host)
    expect(await hosts('?host=test')).toEqual(['test', HOST, 'test'])
    expect(await hosts(`?host=${HOST}`)).toEqual([HOST])
    expect(await hosts('?binary=cinder-volume')).toEqual([HOST])
    expect(await hosts('?host=other')).toEqual([])
  })

  it('that are disabled take no new volumes, with the reason in the volume, until they are enabled', async () => {
    const request = { ...sample('os-services/service-disable-log-reason-request.json'), host: HOST }
    const answer = await put('disable-log-reason', request)
    expect(answer.body).toEqual({ ...sample('os-services/service-disable-log-reason-response.json'), host: HOST })
    const [, volume] = await services()
    expect(volume).toMatchObject({ status: 'disabled', disabled_reason: 'test2', state: 'up', backend_state: null })
    const refused = await newVolume()
    expect(refused.status).toBe('error')
    expect((await api.services.explain(refused.id))?.reason).toBe(
      'No valid backend was found. test@memory#memory: its service is disabled: test2 (service).',
    )
    const zones = await api.ask('GET', '/v3/os-availability-zone')
    expect(zones.body.availabilityZoneInfo).toEqual([{ zoneName: 'nova', zoneState: { available: false } }])
    expect((await api.ask('GET', '/v3/scheduler-stats/get_pools')).body).toEqual({ pools: [] })
    expect(
      (await api.ask('GET', '/v3/os-hosts')).body.hosts.map((one: { host_name: string }) => one.host_name),
    ).toEqual(['test', 'test'])

    const enabled = await put('enable', { ...sample('services-enable-request.json'), host: HOST })
    expect(enabled.body).toEqual({ ...sample('services-enable-response.json'), host: HOST })
    expect((await newVolume()).status).toBe('available')
    const disabled = await put('disable', { host: HOST, service: 'cinder-volume' })
    expect(disabled.body).toEqual({
      host: HOST,
      service: 'cinder-volume',
      binary: '',
      status: 'disabled',
      disabled: true,
    })
  })

  it('stay disabled over a restart', async () => {
    await put('disable', { host: HOST, binary: 'cinder-volume' })
    await put('disable', { host: 'test', binary: 'cinder-scheduler' })
    await api.services.start()
    expect((await services()).map(({ status }: { status: string }) => status)).toEqual([
      'disabled',
      'disabled',
      'enabled',
    ])
  })

  it.each([
    ['enable', { binary: 'cinder-volume' }, 400, 'Invalid input received: Host field is missing.'],
    ['enable', { host: HOST }, 400, "{'host': 'test@memory'} is not valid under any of the given schemas"],
    [
      'enable',
      { host: 'other', binary: 'cinder-volume' },
      404,
      'Service cinder-volume could not be found on host other.',
    ],
    [
      'disable',
      { host: HOST, binary: 'cinder-magic' },
      404,
      `Service cinder-magic could not be found on host ${HOST}.`,
    ],
    [
      'disable',
      { host: HOST, binary: 'x', more: 1 },
      400,
      "Additional properties are not allowed ('more' was unexpected)",
    ],
    ['disable', { host: 'a b', binary: 'x' }, 400, expect.stringContaining("'a b' does not match")],
    [
      'disable-log-reason',
      { host: HOST, binary: 'x', disabled_reason: ' ' },
      400,
      expect.stringContaining('disabled_reason'),
    ],
    ['freeze', {}, 400, 'Invalid input received: One and only one of cluster and host must be set.'],
    [
      'freeze',
      { host: HOST, cluster: 'c' },
      400,
      'Invalid input received: One and only one of cluster and host must be set.',
    ],
    ['thaw', { cluster: 'c' }, 400, 'No service found with cluster=c'],
    ['freeze', { host: 'other' }, 400, 'No service found with host=other'],
    [
      'thaw',
      { host: HOST },
      400,
      "Invalid input received: No service could be changed: frozen in ['test@memory'] must be True to failover.",
    ],
    ['failover_host', { host: 'other' }, 400, 'No service found with host=other'],
    [
      'failover_host',
      { host: HOST, backend_id: 'second' },
      400,
      "Invalid input received: No service could be changed: replication_status in ['test@memory'] must be " +
        "['enabled', 'failed-over'] and must be up to failover.",
    ],
    ['failover_host', { cluster: 'c' }, 400, 'Invalid input received: Host field is missing.'],
    ['failover', { cluster: 'c' }, 400, 'No service found with cluster=c'],
    ['failover', { host: 'other' }, 400, 'No service found with host=other'],
    ['set-log', { level: 'loud' }, 400, 'Invalid input received: loud is not a valid log level.'],
    [
      'set-log',
      { binary: 'nova-api', level: 'INFO' },
      400,
      expect.stringContaining("'nova-api' is not one of ['cinder-"),
    ],
  ])('%s %j: %i %s', async (action, body, status, message) => {
    const answer = await put(action, body)
    expect(answer.status).toBe(status)
    expect(messageOf(answer as never)).toEqual(message)
  })
})

describe('a frozen backend', () => {
  it('keeps what it has, takes nothing new, and thaws', async () => {
    const volume = await newVolume()
    const { body } = await api.ask('POST', '/v3/snapshots', { body: { snapshot: { volume_id: volume.id } } })
    await api.services.idle()
    expect((await put('freeze', { ...sample('services-freeze-request.json'), host: HOST })).status).toBe(200)
    expect((await services())[1]).toMatchObject({ frozen: true, status: 'disabled', disabled_reason: 'frozen' })
    const refusals = [
      await api.ask('DELETE', `/v3/volumes/${volume.id}`),
      await api.ask('DELETE', `/v3/snapshots/${body.snapshot.id}`),
      await api.ask('POST', '/v3/snapshots', { body: { snapshot: { volume_id: volume.id } } }),
    ]
    for (const refusal of refusals) {
      expect(refusal.status).toBe(400)
      expect(messageOf(refusal)).toBe(
        'Invalid input received: Modification operations are not allowed on frozen storage backends.',
      )
    }
    expect((await newVolume()).status).toBe('error')
    expect((await put('freeze', { host: HOST })).status).toBe(400)
    expect((await put('thaw', { ...sample('services-thaw-request.json'), host: HOST })).status).toBe(200)
    expect((await services())[1]).toMatchObject({ frozen: false, status: 'enabled', disabled_reason: '' })
    expect((await api.ask('DELETE', `/v3/snapshots/${body.snapshot.id}`)).status).toBe(202)
    expect((await newVolume()).status).toBe('available')
  })
})

describe('the log', () => {
  it('can be asked for and set from 3.32 on', async () => {
    expect((await put('get-log', {}, '3.31')).status).toBe(404)
    const answer = await put('get-log', { binary: '*' })
    expect(keys(answer.body.log_levels[0])).toEqual(keys(sample('services-get-log-response.json').log_levels[0]))
    expect(answer.body.log_levels).toEqual(
      [
        ['cinder-api', 'test'],
        ['cinder-scheduler', 'test'],
        ['cinder-volume', HOST],
        ['cinder-backup', 'test'],
      ].map(([binary, host]) => ({ binary, host, levels: { collie: 'INFO' } })),
    )
    expect(
      (await put('set-log', { binary: 'cinder-volume', server: HOST, prefix: 'col', level: 'debug' })).status,
    ).toBe(202)
    const volume = await put('get-log', { binary: 'cinder-volume', server: HOST, prefix: '' })
    expect(volume.body.log_levels).toEqual([{ binary: 'cinder-volume', host: HOST, levels: { collie: 'DEBUG' } }])
    await put('set-log', { prefix: 'cinder.volume', level: 'ERROR' })
    const other = await put('get-log', { binary: 'cinder-api', prefix: 'cinder.volume' })
    expect(other.body.log_levels).toEqual([{ binary: 'cinder-api', host: 'test', levels: {} }])
    expect((await put('get-log', { binary: 'cinder-backup', server: 'other' })).body.log_levels).toEqual([])
  })
})

describe('pools', () => {
  const pools = async (query = '', version = '3.71') =>
    (await api.ask('GET', `/v3/scheduler-stats/get_pools${query}`, { version })).body.pools

  it('are named, and described when details are asked for', async () => {
    expect(await pools()).toEqual([{ name: 'test@memory#memory' }])
    const provisioned = async () => (await pools('?detail=True'))[0].capabilities.provisioned_capacity_gb
    const before = await provisioned()
    await newVolume()
    expect((await provisioned()) - before).toBe(3) // at once, whenever the backend reported
    const [pool] = await pools('?detail=True')
    const [expected] = sample('pools-list-detailed-response.json').pools
    const { updated: _, ...capabilities } = expected.capabilities
    expect(keys(pool.capabilities)).toEqual(expect.arrayContaining(keys(capabilities)))
    expect(pool.capabilities).toMatchObject({
      volume_backend_name: 'memory',
      total_capacity_gb: 1024,
      thin_provisioning_support: true,
      backend_state: 'up',
    })
  })

  it('can be filtered by name and what they say from 3.28 on, and by type from 3.35 on', async () => {
    await api.ask('POST', '/v3/types', {
      body: { volume_type: { name: 'elsewhere', extra_specs: { volume_backend_name: 'other' } } },
    })
    const count = async (query: string, version?: string) => (await pools(query, version)).length
    expect(await count('?name=test@memory%23memory')).toBe(1)
    expect(await count('?name=other')).toBe(0)
    expect(await count('?name=other', '3.27')).toBe(1)
    expect(await count('?storage_protocol=memory&multiattach=True', '3.30')).toBe(1)
    expect(await count('?storage_protocol=iscsi', '3.30')).toBe(0)
    // Of this list even an administrator can ask no more than upstream's file of filters names.
    expect(
      (await api.ask('GET', '/v3/scheduler-stats/get_pools?storage_protocol=x', { version: '3.31' })).body,
    ).toEqual({
      badRequest: { code: 400, message: 'Invalid filters storage_protocol are found in query options.' },
    })
    expect(await count('?volume_type=__DEFAULT__')).toBe(1)
    expect(await count('?volume_type=elsewhere')).toBe(0)
    expect(await count('?volume_type=elsewhere', '3.34')).toBe(1)
    expect((await api.ask('GET', '/v3/scheduler-stats/get_pools?volume_type=absent', { version: '3.35' })).status).toBe(
      404,
    )
  })

  it('tell what their backend can do', async () => {
    const { body } = await api.ask('GET', `/v3/capabilities/${HOST}`)
    expect(keys(body)).toEqual(keys(sample('backend-capabilities-response.json')))
    expect(body).toMatchObject({
      namespace: `OS::Storage::Capabilities::${HOST}`,
      vendor_name: 'Collie',
      volume_backend_name: 'memory',
      pool_name: 'memory',
      storage_protocol: 'memory',
    })
    const absent = await api.ask('GET', '/v3/capabilities/test@other')
    expect([absent.status, messageOf(absent)]).toEqual([404, "Can't find service: test@other"])
  })

  it('are told for a host too, of the first of its backends', async () => {
    const { body } = await api.ask('GET', '/v3/capabilities/test')
    expect(body).toMatchObject({ namespace: 'OS::Storage::Capabilities::test', volume_backend_name: 'memory' })
    expect((await api.ask('GET', '/v3/capabilities/tes')).status).toBe(404)
  })
})

describe('hosts', () => {
  it('list the enabled services', async () => {
    const { body } = await api.ask('GET', '/v3/os-hosts?zone=nova')
    expect(keys(body.hosts[0])).toEqual(keys(sample('hosts-list-response.json').hosts[0]))
    expect(body.hosts).toMatchObject([
      { host_name: 'test', service: 'cinder-scheduler', 'service-status': 'available' },
      { host_name: HOST, service: 'cinder-volume', 'service-state': 'enabled' },
      { host_name: 'test', service: 'cinder-backup' },
    ])
    expect((await api.ask('GET', '/v3/os-hosts?zone=mars')).body).toEqual({ hosts: [] })
  })

  it('tell how much is on them', async () => {
    const volume = await newVolume()
    await api.ask('POST', '/v3/snapshots', { body: { snapshot: { volume_id: volume.id } } })
    await api.services.idle()
    const { body } = await api.ask('GET', `/v3/os-hosts/${HOST}`)
    expect(keys(body.host[0].resource)).toEqual(keys(sample('hosts-get-response.json').host[0].resource))
    const counts = { volume_count: '1', total_volume_gb: '3', snapshot_count: '1', total_snapshot_gb: '3', host: HOST }
    expect(body.host).toEqual([
      { resource: { ...counts, project: '(total)' } },
      { resource: { ...counts, project: PROJECT } },
    ])
    const ofHost = (await api.ask('GET', '/v3/os-hosts/test')).body.host
    expect(ofHost[0]).toEqual({ resource: { ...counts, host: 'test', project: '(total)' } })
    expect((await api.ask('GET', '/v3/os-hosts/other')).status).toBe(404)
  })

  it('can be enabled and disabled, in either case of letters', async () => {
    const update = (body: unknown, host = HOST) => api.ask('PUT', `/v3/os-hosts/${host}`, { body })
    expect((await update({ STATUS: 'Disable' })).body).toEqual({ host: HOST, status: 'disabled' })
    expect((await services())[1].status).toBe('disabled')
    expect((await update({ status: 'enable' })).body).toEqual({ host: HOST, status: 'enabled' })
    expect(messageOf(await update({ status: 'maybe' }))).toBe("Invalid status: 'maybe'")
    expect(messageOf(await update({ power: 'off' }))).toBe("Invalid update setting: 'power'")
    const absent = await update({ status: 'enable' }, 'other')
    expect([absent.status, messageOf(absent)]).toEqual([404, 'Host other could not be found.'])
  })
})

it('has no clusters, and says so in the way of upstream', async () => {
  const ask = (method: 'GET' | 'PUT', path: string, body?: unknown, version = '3.7') =>
    api.ask(method, `/v3/clusters${path}`, { version, body })
  expect((await ask('GET', '', undefined, '3.6')).status).toBe(404)
  expect((await ask('GET', '?is_up=true')).body).toEqual({ clusters: [] })
  expect((await ask('GET', '/detail')).body).toEqual({ clusters: [] })
  for (const key of ['is_up', 'disabled']) {
    const { status, body } = await ask('GET', `?${key}=x`)
    expect([status, body.badRequest.message]).toEqual([400, `Value 'x' for '${key}' is not a boolean.`])
  }
  expect((await ask('GET', '?frozen=true')).status).toBe(400)
  expect((await ask('GET', '?frozen=true', undefined, '3.26')).status).toBe(200)
  const absent = await ask('GET', '/one')
  expect([absent.status, messageOf(absent)]).toEqual([404, 'Cluster one could not be found.'])
  for (const action of ['enable', 'disable']) {
    const request = sample(`clusters/v3.7/cluster-${action}-request.json`)
    expect((await ask('PUT', `/${action}`, request)).status).toBe(404)
    expect((await ask('PUT', `/${action}`, {})).status).toBe(400)
  }
})

describe('hints of a new volume', () => {
  const create = (hints: unknown) =>
    api.ask('POST', '/v3/volumes', { body: { volume: { size: 1 }, 'OS-SCH-HNT:scheduler_hints': hints } })

  it('are heard', async () => {
    const volume = await newVolume()
    const statusWith = async (hints: unknown) => {
      const { body } = await create(hints)
      await api.services.idle()
      return (await api.ask('GET', `/v3/volumes/${body.volume.id}`)).body.volume.status
    }
    expect(await statusWith({ same_host: volume.id })).toBe('available')
    expect(await statusWith({ different_host: [volume.id] })).toBe('error')
    expect(await statusWith({ query: '["=", "$volume_backend_name", "memory"]' })).toBe('available')
    expect(await statusWith({ query: 'nonsense' })).toBe('error')
    expect(await statusWith({ local_to_instance: volume.id })).toBe('available') // nobody knows where that runs
    expect(await statusWith({ of_another_scheduler: { any: 'thing' } })).toBe('available')
    expect(await statusWith(null)).toBe('available')
  })

  it('have to name volumes by their ids', async () => {
    for (const hints of [{ same_host: 'x' }, { different_host: [1] }, { local_to_instance: 'x' }, { query: 5 }]) {
      expect((await create(hints)).status).toBe(400)
    }
  })
})
