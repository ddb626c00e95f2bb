import { expect, it, onTestFinished, vi } from 'vitest'
import { createSheepdogDriver, sheepdogPool } from '../../src/drivers/sheepdog/driver.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import { ClusterBench } from '../sheep/clustered/cluster-bench.ts'
import { copied, copiesOf } from '../sheep/clustered/placement-bench.ts'
import { admin, availableVolume, createHarness, everything, member, newSnapshot } from './harness.ts'

const OBJECTS = 8
const WAITING = { timeout: 60_000 }
const HOST = 'test-host@cluster#pool'

/** Three whole nodes, of which the services here know the first. Their time passes as fast as this process lets it. */
async function openCloud() {
  const bench = await ClusterBench.open(21, 3)
  let isRunning = true
  const pump = () => {
    if (!isRunning) return
    bench.clock.step()
    setImmediate(pump)
  }
  pump()
  onTestFinished(() => {
    isRunning = false
  })
  const driver = createSheepdogDriver({
    vdis: bench.vdis(0),
    random: systemRandom,
    pool: sheepdogPool('pool'),
    gateway: async () => ({ scheme: 'nbd', host: '127.0.0.1', port: 10809 }),
    drained: async () => {},
  })
  const others = [{ name: 'cluster', availabilityZone: 'nova', driver }]
  const harness = await createHarness({ others, settings: { poolsMaxAgeMs: 0 } })
  for (const copies of ['1', '2', '3', '4']) {
    const extraSpecs = { volume_backend_name: 'cluster', 'sheepdog:copies': copies }
    await harness.services.types.create(admin, {
      name: `copies-${copies}`,
      description: null,
      isPublic: true,
      extraSpecs,
    })
  }
  const promises = (gib: number) =>
    vi.waitFor(async () => {
      const pools = await harness.services.backends.pools(admin, { volumeType: null, matching: () => true })
      const { capabilities } = pools.find(({ name }) => name === HOST)!
      expect(capabilities.allocated_capacity_gb).toBe(gib)
      expect(capabilities.provisioned_capacity_gb).toBeCloseTo(gib, 3)
    }, WAITING)
  const retype = async (id: string, newType: string) => {
    await harness.services.volumes.retype(member, id, { newType, migrationPolicy: 'never' })
    await harness.services.idle()
    return (await harness.services.volumes.get(member, id)).volumeTypeName
  }
  return { bench, harness, promises, retype }
}

it('volumes on three nodes have the copies of their type, and recovery brings what another type asks for', async () => {
  const { bench, harness, promises, retype } = await openCloud()
  const id = await availableVolume(harness, { volumeType: 'copies-2', sizeGib: 3 })
  const [vdi] = await bench.vdis(0).listOf(`volume-${id}`)
  expect(vdi).toMatchObject({ copies: 2 })
  await promises(2) // as what has three copies, which the cluster makes by itself

  const device = await bench.vdis(1).open(vdi!.vid, { readOnly: false })
  for (let index = 0; index < OBJECTS; index++)
    await bench.write(device, index * OBJECT_BYTES, Buffer.alloc(BLOCK_BYTES, index + 1))
  await device.close()
  expect(copiesOf(bench)).toEqual(Array(OBJECTS + 1).fill(2)) // the map is one of them
  await harness.services.snapshots.create(member, newSnapshot(id))
  await harness.services.idle()
  expect(copied(bench)).toBe(0)

  expect(await retype(id, 'copies-3')).toBe('copies-3')
  await vi.waitFor(() => expect(copiesOf(bench).every((count) => count === 3)).toBe(true), WAITING)
  await vi.waitFor(() => expect(bench.isClean()).toBe(true), WAITING)
  expect(copied(bench)).toBeGreaterThan(0)
  await promises(3)
  const { vid } = (await bench.vdis(0).listOf(`volume-${id}`)).find(({ snapshotAt }) => snapshotAt === 0)!
  const again = await bench.vdis(2).open(vid, { readOnly: true })
  for (let index = 0; index < OBJECTS; index++)
    expect(await bench.read(again, index * OBJECT_BYTES, BLOCK_BYTES)).toEqual(Buffer.alloc(BLOCK_BYTES, index + 1))

  expect(await retype(id, 'copies-4')).toBe('copies-3')
  expect((await harness.services.explain(id))?.reason).toContain('it has room for 3 copies of a volume, not 4')
  expect((await harness.services.volumes.list(member, everything, { count: false })).items).toHaveLength(1)
}, 300_000)
