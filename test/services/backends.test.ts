import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type Db, openDatabase } from '../../src/db/database.ts'
import type { PoolStats, VolumeDriver } from '../../src/drivers/driver.ts'
import { createMemoryBackend, createMemoryDriver, type MemoryBackend } from '../../src/drivers/memory.ts'
import {
  type DriverFilter,
  errorFilter,
  firstCalls,
  hangFilter,
  onMethod,
  wrapDriver,
} from '../../src/drivers/wrappers.ts'
import { ServiceError } from '../../src/errors.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { createServices, type RunningServices } from '../../src/services/create-services.ts'
import type { VolumeCreate } from '../../src/services/model.ts'
import type { ServiceSettings } from '../../src/services/settings.ts'
import { openBackupTarget } from '../tools/backup-target.ts'
import { admin, createGate, member, newSnapshot, newVolume, outcome, TEST_SETTINGS } from './harness.ts'

/** Several memory backends behind one service, in one process or, one after the other, in several. */
interface Cloud {
  services: RunningServices
  db: Db
  stores: Record<string, MemoryBackend>
  logged: string[]
  /** Ends the services and starts others on the same database and stores. */
  restart(settings?: Partial<ServiceSettings>): Promise<Cloud>
}

interface BackendPlan {
  capacityGib?: number
  zone?: string
  volumeBackendName?: string
  /** What is different about its reports. */
  stats?: Partial<PoolStats>
  filters?: readonly DriverFilter[]
}

async function openCloud(
  plans: Record<string, BackendPlan>,
  options: { settings?: Partial<ServiceSettings>; start?: boolean } = {},
): Promise<Cloud> {
  const directory = mkdtempSync(join(tmpdir(), 'collie-backends-'))
  const stores = Object.fromEntries(
    Object.entries(plans).map(([name, { capacityGib = 1000 }]) => [name, createMemoryBackend(capacityGib)]),
  )
  let close = async () => {}
  onTestFinished(async () => {
    await close()
    rmSync(directory, { recursive: true, force: true })
  })
  const open = async (settings: Partial<ServiceSettings>): Promise<Cloud> => {
    const db = await openDatabase({ file: join(directory, 'collie.db') })
    const logged: string[] = []
    const services = createServices({
      db,
      backupTarget: await openBackupTarget(),
      backends: Object.entries(plans).map(([name, plan]) => ({
        name,
        availabilityZone: plan.zone ?? 'nova',
        ...(plan.volumeBackendName === undefined ? {} : { volumeBackendName: plan.volumeBackendName }),
        driver: wrapDriver(
          reporting(createMemoryDriver(stores[name]!, systemRandom), plan.stats),
          ...(plan.filters ?? []),
        ),
      })),
      clock: systemClock,
      random: systemRandom,
      log: createLog('info', { write: (line) => logged.push(line) }),
      settings: { ...TEST_SETTINGS, ...settings },
    })
    close = async () => {
      await services.stop()
      await db.destroy()
    }
    if (options.start !== false) await services.start()
    return {
      services,
      db,
      stores,
      logged,
      restart: async (again = settings) => {
        await close()
        return open(again)
      },
    }
  }
  return open(options.settings ?? {})
}

function reporting(driver: VolumeDriver, stats: Partial<PoolStats> = {}): VolumeDriver {
  return { ...driver, stats: async () => (await driver.stats()).map((pool) => ({ ...pool, ...stats })) }
}

const away = () => new ServiceError('ServiceUnavailable', { reason: 'it is away' })

/** A backend that can be taken away and brought back. */
function outage(): { filter: DriverFilter; isAway: boolean } {
  const state = { isAway: true, filter: undefined as unknown as DriverFilter }
  state.filter = errorFilter({ matches: () => state.isAway, toString: () => 'any call while away' }, 'before', away)
  return state
}

async function create(cloud: Cloud, overrides: Partial<VolumeCreate> = {}) {
  const { id } = await cloud.services.volumes.create(member, newVolume(overrides))
  await cloud.services.idle()
  return cloud.services.volumes.get(member, id)
}

async function makeType(cloud: Cloud, extraSpecs: Record<string, string>): Promise<string> {
  const name = systemRandom.uuid()
  await cloud.services.types.create(admin, { name, description: null, isPublic: true, extraSpecs })
  return name
}

const waiting = { ...TEST_SETTINGS.work, outageAttemptsMax: 1000, backoffMs: 1, backoffMaxMs: 2 }

describe('placing volumes', () => {
  it('goes by type, zone and room, and a copy goes to its source', async () => {
    const cloud = await openCloud({
      small: { capacityGib: 10, volumeBackendName: 'ssd' },
      large: { capacityGib: 100, volumeBackendName: 'hdd' },
      remote: { capacityGib: 1000, zone: 'az2' },
    })
    const { host } = await create(cloud)
    expect(host).toBe('test-host@large#memory')
    const ssd = await makeType(cloud, { volume_backend_name: 'ssd' })
    const fast = await create(cloud, { volumeType: ssd })
    expect([fast.host, fast.status]).toEqual(['test-host@small#memory', 'available'])
    const other = await makeType(cloud, { volume_backend_name: 'ssd', multiattach: '<is> True' })
    expect((await create(cloud, { sourceVolid: fast.id, volumeType: other })).host).toBe('test-host@small#memory')
    const snapshot = await cloud.services.snapshots.create(member, newSnapshot(fast.id))
    await cloud.services.idle()
    expect((await create(cloud, { snapshotId: snapshot.id, volumeType: other })).host).toBe('test-host@small#memory')
    const far = await create(cloud, { availabilityZone: 'az2' })
    expect([far.host, far.availabilityZone]).toEqual(['test-host@remote#memory', 'az2'])
  })

  it('takes the zones that a type allows, and keeps copies in the zone of their source', async () => {
    const cloud = await openCloud({ one: {}, two: { zone: 'az2' }, three: { zone: 'az3', capacityGib: 5000 } })
    const zoned = await makeType(cloud, { 'RESKEY:availability_zones': 'az3, az2,elsewhere' })
    const any = await create(cloud, { volumeType: zoned })
    expect([any.host, any.availabilityZone]).toEqual(['test-host@three#memory', 'az3'])
    expect((await create(cloud, { volumeType: zoned, availabilityZone: 'az2' })).host).toBe('test-host@two#memory')
    const refuse = (overrides: Partial<VolumeCreate>) =>
      expect(cloud.services.volumes.create(member, newVolume(overrides))).rejects
    await refuse({ volumeType: zoned, availabilityZone: 'nova' }).toThrow("Availability zone 'nova' is invalid.")
    await refuse({ availabilityZone: 'mars' }).toThrow("Availability zone 'mars' is invalid.")
    await refuse({ sourceVolid: any.id, volumeType: zoned, availabilityZone: 'az2' }).toThrow(
      'Volume must be in the same availability zone as the source volume',
    )
    const nowhere = await makeType(cloud, { 'RESKEY:availability_zones': 'mars' })
    await refuse({ volumeType: nowhere }).toThrow("Volume type is only supported in these availability zones: ['mars']")
  })

  it('follows hints of a user, who can only name volumes of the own project', async () => {
    const cloud = await openCloud({ one: { capacityGib: 100 }, two: { capacityGib: 1000 } })
    const hints = (wanted: object) => ({
      hints: { sameHost: [], differentHost: [], localToInstance: null, query: null, ...wanted },
    })
    const inTwo = await create(cloud)
    expect(inTwo.host).toBe('test-host@two#memory')
    const inOne = await create(cloud, hints({ differentHost: [inTwo.id] }))
    expect(inOne.host).toBe('test-host@one#memory')
    expect((await create(cloud, hints({ sameHost: [inOne.id] }))).host).toBe('test-host@one#memory')
    const query = '["=", "$volume_backend_name", "one"]'
    expect((await create(cloud, hints({ query }))).host).toBe('test-host@one#memory')

    const impossible = await create(cloud, hints({ sameHost: [inOne.id], differentHost: [inOne.id] }))
    expect(impossible.status).toBe('error')
    expect((await cloud.services.explain(impossible.id))?.reason).toBe(
      'No valid backend was found. ' +
        'test-host@one#memory: it has a volume that the hint `different_host` names (differentBackend). ' +
        'test-host@two#memory: it has none of the volumes that the hint `same_host` names (sameBackend).',
    )
    const stranger = { ...member, projectId: 'other' }
    const { id } = await cloud.services.volumes.create(stranger, newVolume(hints({ sameHost: [inOne.id] })))
    await cloud.services.idle()
    expect((await cloud.services.volumes.get(stranger, id)).status).toBe('error')
  })

  it('logs which pools were left out, and why', async () => {
    const cloud = await openCloud({ small: { capacityGib: 1, stats: { maxOverSubscriptionRatio: 1 } }, large: {} })
    await create(cloud, { sizeGib: 2 })
    const lines = cloud.logged.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'pools were left out')
    expect(lines).toMatchObject([
      {
        pool: 'test-host@large#memory',
        dropped: ['test-host@small#memory: 2 GiB do not fit into the 1 GiB that it may still promise (capacity)'],
      },
    ])
  })
})

describe('the name of the host', () => {
  it('may change: volumes of before stay usable, and count', async () => {
    const before = await openCloud({ one: { capacityGib: 10, stats: { maxOverSubscriptionRatio: 1 } } })
    const old = await create(before, { sizeGib: 6 })
    const cloud = await before.restart({ hostName: 'renamed' })
    expect((await create(cloud)).host).toBe('renamed@one#memory')
    const { volumes } = cloud.services
    expect((await create(cloud, { sourceVolid: old.id, sizeGib: 6 })).status).toBe('error') // no room left
    await volumes.extend(member, old.id, 8)
    await cloud.services.idle()
    expect(await volumes.get(member, old.id)).toMatchObject({ host: 'test-host@one#memory', sizeGib: 8 })
    await volumes.extend(member, old.id, 10)
    await cloud.services.idle()
    expect(await volumes.get(member, old.id)).toMatchObject({ status: 'available', sizeGib: 8 })
    expect((await cloud.services.explain(old.id))?.reason).toMatch(
      /^No valid backend was found\. renamed@one#memory: 2 GiB/,
    )
    await volumes.retype(member, old.id, { newType: await makeType(cloud, {}), migrationPolicy: 'never' })
    await cloud.services.idle()
    expect((await cloud.services.explain(old.id))?.reason).toBeNull()
    const nowhere = volumes.migrate(admin, old.id, { host: 'renamed@one#memory', cluster: null })
    await expect(nowhere).rejects.toThrow('must be different than the current one')
    await volumes.delete(member, old.id, { cascade: false, force: false })
    await cloud.services.idle()
    expect(await outcome(volumes.get(member, old.id))).toBe('VolumeNotFound')
  })
})

describe('a backend that is away', () => {
  it('stops neither the start nor the others; its volumes wait for it, and it comes back by itself', async () => {
    const missing = outage()
    const cloud = await openCloud(
      { one: { filters: [missing.filter] }, two: {} },
      { settings: { work: waiting, poolsMaxAgeMs: 0 } },
    )
    expect((await create(cloud)).host).toBe('test-host@two#memory')
    const typeOfOne = await makeType(cloud, { volume_backend_name: 'one' })
    const { id } = await cloud.services.volumes.create(member, newVolume({ volumeType: typeOfOne }))
    await expect.poll(async () => (await cloud.services.explain(id))?.work?.lastError).toContain('it is away')
    expect((await cloud.services.volumes.get(member, id)).status).toBe('creating')
    missing.isAway = false
    await cloud.services.idle()
    expect(await cloud.services.volumes.get(member, id)).toMatchObject({
      status: 'available',
      host: 'test-host@one#memory',
    })
  })

  it('closes the pools that it had, with the reason', async () => {
    const leaving = outage()
    leaving.isAway = false
    const cloud = await openCloud({ one: { filters: [leaving.filter] }, two: {} }, { settings: { poolsMaxAgeMs: 0 } })
    const volumeType = await makeType(cloud, { volume_backend_name: 'one' })
    const volume = await create(cloud, { volumeType })
    leaving.isAway = true
    const reasonOf = async ({ id }: { id: string }) => (await cloud.services.explain(id))?.reason
    expect(await reasonOf(await create(cloud, { volumeType }))).toBe('it is away') // it was there when it was chosen
    expect(await reasonOf(await create(cloud, { volumeType }))).toBe(
      'test-host@one#memory: its backend does not answer: it is away (service). ' +
        'test-host@two#memory: its volume_backend_name is two, not one (capabilities).',
    )
    leaving.isAway = false
    await cloud.services.volumes.delete(member, volume.id, { cascade: false, force: false })
    await cloud.services.idle()
    expect(cloud.stores.one!.volumes.size).toBe(0)
  })

  it('keeps nobody waiting who only asks what is known', async () => {
    let hangs = () => {}
    const hung = new Promise<void>((resolve) => {
      hangs = resolve
    })
    const silent = hangFilter(onMethod('stats'), 'before', () => hangs())
    const cloud = await openCloud({ one: {}, two: { filters: [silent] } }, { start: false })
    const volumeType = await makeType(cloud, {})
    void cloud.services.start() // never ends: here no timeout is set up around the driver
    await hung
    expect((await cloud.services.volumes.create(member, newVolume({ volumeType }))).status).toBe('creating')
  })
})

describe('a backend that fails to make a volume', () => {
  it('is left for another after two attempts, and keeps nothing', async () => {
    const broken = errorFilter(onMethod('createVolume'), 'after')
    const cloud = await openCloud({ one: { capacityGib: 5000, filters: [broken] }, two: {} })
    const volume = await create(cloud)
    expect([volume.status, volume.host]).toEqual(['available', 'test-host@two#memory'])
    expect([cloud.stores.one!.volumes.size, cloud.stores.two!.volumes.size]).toEqual([0, 1])
    expect((await cloud.services.explain(volume.id))?.reason).toBeNull()
  })

  it('is repeated when a second attempt helps', async () => {
    const onceBroken = errorFilter(firstCalls(1, onMethod('createVolume')), 'before')
    const cloud = await openCloud({ one: { capacityGib: 5000, filters: [onceBroken] }, two: {} })
    expect((await create(cloud)).host).toBe('test-host@one#memory')
  })

  it('is followed by no more than two others, and the last error is told', async () => {
    const broken = () => errorFilter(onMethod('createVolume'), 'before')
    const plan = () => ({ filters: [broken()] })
    const cloud = await openCloud(
      { one: plan(), two: plan(), three: plan(), four: {} },
      {
        settings: { scheduler: { ...TEST_SETTINGS.scheduler, poolsMax: 3 } },
      },
    )
    const volume = await create(cloud, {
      hints: {
        sameHost: [],
        differentHost: [],
        localToInstance: null,
        query: '["not", ["=", "$volume_backend_name", "four"]]',
      },
    })
    expect(volume.status).toBe('error')
    expect((await cloud.services.explain(volume.id))?.reason).toBe(
      'The storage backend failed: injected fault in createVolume',
    )
    const moves = cloud.logged.filter((line) => line.includes('the volume is made in another pool'))
    expect(moves).toHaveLength(2)
  })

  it('is not left by a copy, whose source is there', async () => {
    const broken = errorFilter(onMethod('createClonedVolume'), 'before')
    const cloud = await openCloud({ one: { capacityGib: 5000, filters: [broken] }, two: {} })
    const source = await create(cloud)
    const copy = await create(cloud, { sourceVolid: source.id })
    expect([copy.status, copy.host]).toEqual(['error', 'test-host@one#memory'])
  })

  it('is left also when the process ends in the middle', async () => {
    const gate = createGate(onMethod('createVolume'))
    const broken = errorFilter(onMethod('createVolume'), 'after')
    const first = await openCloud(
      { one: { capacityGib: 5000, filters: [broken] }, two: { filters: [gate.filter] } },
      { settings: { stopGraceMs: 0 } },
    )
    const { id } = await first.services.volumes.create(member, newVolume())
    await gate.reached
    const second = await first.restart()
    gate.open()
    await second.services.idle()
    expect(await second.services.volumes.get(member, id)).toMatchObject({
      status: 'available',
      host: 'test-host@two#memory',
    })
    expect([second.stores.one!.volumes.size, second.stores.two!.volumes.size]).toEqual([0, 1])
  })
})

describe('room', () => {
  const exact = { maxOverSubscriptionRatio: 1 }
  const takenGib = (store: MemoryBackend) => [...store.volumes.values()].reduce((sum, { sizeGib }) => sum + sizeGib, 0)

  it('is not promised twice, and all of it is, however many volumes are asked for at once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 3 }),
        fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 1, maxLength: 40 }),
        fc.constantFrom(0, 10_000),
        async (capacities, sizes, poolsMaxAgeMs) => {
          const plans = capacities.map((capacityGib, index) => [`b${index}`, { capacityGib, stats: exact }])
          const cloud = await openCloud(Object.fromEntries(plans), { settings: { work: waiting, poolsMaxAgeMs } })
          const made = await Promise.all(
            sizes.map((sizeGib) => cloud.services.volumes.create(member, newVolume({ sizeGib }))),
          )
          await cloud.services.idle()
          const rooms = Object.values(cloud.stores).map((store) => store.capacityGib - takenGib(store))
          for (const room of rooms) expect(room).toBeGreaterThanOrEqual(0)
          for (const { id, sizeGib } of made) {
            const { status } = await cloud.services.volumes.get(member, id)
            if (status === 'error') expect(Math.max(...rooms)).toBeLessThan(sizeGib)
            else expect(status).toBe('available')
          }
        },
      ),
      { numRuns: 25 },
    )
  })

  it('is not promised twice to volumes that grow', async () => {
    const cloud = await openCloud({ one: { capacityGib: 10, stats: exact } })
    const ids = await Promise.all([1, 1, 1, 1].map(async () => (await create(cloud)).id))
    await Promise.all(ids.map((id) => cloud.services.volumes.extend(member, id, 4)))
    await cloud.services.idle()
    expect(takenGib(cloud.stores.one!)).toBe(10)
    const volumes = await Promise.all(ids.map((id) => cloud.services.volumes.get(member, id)))
    expect(volumes.map(({ status }) => status)).toEqual(['available', 'available', 'available', 'available'])
    expect(volumes.map(({ sizeGib }) => sizeGib).sort()).toEqual([1, 1, 4, 4])
  })

  it('is real room for a volume that grows and whose type is thick', async () => {
    const cloud = await openCloud({ one: { stats: { totalCapacityGib: 10, freeCapacityGib: 5 } } })
    const thick = await create(cloud, { volumeType: await makeType(cloud, { 'provisioning:type': 'thick' }) })
    const thin = await create(cloud)
    for (const { id } of [thick, thin]) {
      await cloud.services.volumes.extend(member, id, 7)
      await cloud.services.idle()
    }
    expect(await cloud.services.volumes.get(member, thick.id)).toMatchObject({ status: 'available', sizeGib: 1 })
    expect((await cloud.services.explain(thick.id))?.reason).toContain('6 GiB do not fit into')
    expect(await cloud.services.volumes.get(member, thin.id)).toMatchObject({ status: 'available', sizeGib: 7 })
  })

  it('that a request was refused for is free again', async () => {
    const quota = { ...TEST_SETTINGS.quota, gigabytes: 5 }
    const cloud = await openCloud({ one: { capacityGib: 10, stats: exact } }, { settings: { quota } })
    for (let attempt = 0; attempt < 3; attempt++) {
      expect(await outcome(cloud.services.volumes.create(member, newVolume({ sizeGib: 6 })))).toBe('QuotaExceeded')
    }
    const other = { ...member, projectId: 'other' }
    const { id } = await cloud.services.volumes.create(other, newVolume({ sizeGib: 5 }))
    await cloud.services.idle()
    expect((await cloud.services.volumes.get(other, id)).status).toBe('available')
  })
})
