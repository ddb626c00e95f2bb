import { describe, expect, it } from 'vitest'
import type { VolumeDriver } from '../../src/drivers/driver.ts'
import { createMemoryBackend, createMemoryDriver } from '../../src/drivers/memory.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { runsPostgres } from '../tools/postgres.ts'
import { admin, availableVolume, createHarness, type Harness, member, newVolume, TEST_SETTINGS } from './harness.ts'

/**
 * Room of one pool that two processes promise, on the database that they share. Neither looks at the backend again unless it has
 * to, so that all that each knows of the other is in the database.
 */

const CAPACITY_GIB = 20

/** Promises no more than there is. */
function exact(driver: VolumeDriver): VolumeDriver {
  const stats = async () => (await driver.stats()).map((pool) => ({ ...pool, maxOverSubscriptionRatio: 1 }))
  return { ...driver, stats }
}

async function openTwo() {
  const store = createMemoryBackend(CAPACITY_GIB)
  const others = () => [
    { name: 'tight', availabilityZone: 'nova', driver: exact(createMemoryDriver(store, systemRandom)) },
  ]
  const settings = {
    poolsMaxAgeMs: 3_600_000,
    work: { ...TEST_SETTINGS.work, outageAttemptsMax: 30, backoffMaxMs: 100 },
  }
  const one = await createHarness({ dialect: 'PostgreSQL', others: others(), settings })
  const { id: volumeType } = await one.services.types.create(admin, {
    name: 'tight',
    description: null,
    isPublic: true,
    extraSpecs: { volume_backend_name: 'tight' },
  })
  const other = await one.reopen({ dialect: 'PostgreSQL', others: others(), settings })
  const takenGib = () => [...store.volumes.values()].reduce((sum, { sizeGib }) => sum + sizeGib, 0)
  const create = (harness: Harness, sizeGib: number) =>
    harness.services.volumes.create(member, newVolume({ sizeGib, volumeType }))
  const settled = () => Promise.all([one.settled(), other.settled()])
  return { one, other, volumeType, takenGib, create, settled }
}

describe.runIf(runsPostgres)('two processes', () => {
  it('never promise the same room to new volumes, and promise all of it', async () => {
    const { one, other, takenGib, create, settled } = await openTwo()
    const made = await Promise.all(Array.from({ length: 30 }, (_, index) => create(index % 2 === 0 ? one : other, 2)))
    await settled()
    expect(takenGib()).toBe(CAPACITY_GIB)
    const statuses = await Promise.all(made.map(async ({ id }) => (await one.services.volumes.get(member, id)).status))
    expect(statuses.toSorted()).toEqual([...Array(10).fill('available'), ...Array(20).fill('error')])
  })

  it('know at the request what the other promised before', async () => {
    const { one, other, create } = await openTwo()
    await one.services.stop() // nothing is made: what it promises is in its rows alone
    for (let promised = 0; promised < CAPACITY_GIB; promised += 5) await create(one, 5)
    const hosts = () => one.db('volumes').orderBy('created_at').pluck('host')
    expect(await hosts()).toEqual(Array(4).fill('test-host@tight#memory'))
    await other.services.stop()
    await create(other, 1)
    expect(await hosts()).toEqual([...Array(4).fill('test-host@tight#memory'), null])
  })

  it('never promise the same room to volumes that grow', async () => {
    const { one, other, volumeType, takenGib, settled } = await openTwo()
    const ids = []
    for (let count = 0; count < 8; count++) ids.push(await availableVolume(one, { sizeGib: 1, volumeType }))
    const grow = (id: string, index: number) =>
      (index % 2 === 0 ? one : other).services.volumes.extend(member, id, 5, { inUse: false })
    await Promise.all(ids.map(grow))
    await settled()
    expect(takenGib()).toBe(CAPACITY_GIB)
    const volumes = await Promise.all(ids.map((id) => one.services.volumes.get(member, id)))
    expect(volumes.map(({ sizeGib, status }) => `${sizeGib} ${status}`).toSorted()).toEqual([
      ...Array(5).fill('1 available'),
      ...Array(3).fill('5 available'),
    ])
  })
})
