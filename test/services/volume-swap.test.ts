import { beforeEach, describe, expect, it, vi } from 'vitest'
import { createMemoryBackend, createMemoryDriver, type MemoryBackend } from '../../src/drivers/memory.ts'
import { errorFilter, onMethod, wrapDriver } from '../../src/drivers/wrappers.ts'
import { createKeystoneAccount } from '../../src/keystone/account.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { systemHttp } from '../../src/runtime/http-client.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { computeRefusal, createNova } from '../../src/services/compute/nova.ts'
import { type FakeNova, NOVA_ACCOUNT, startFakeNova } from '../tools/fake-nova.ts'
import { type BlockStorage, ComputeHostLost, type SwapStage } from '../tools/nova-swap.ts'
import { checkAtRest, checkBackends } from './at-rest.ts'
import {
  admin,
  availableVolume,
  createHarness,
  everything,
  type Harness,
  type HarnessOptions,
  member,
  newAttachment,
  newBackup,
  newSnapshot,
  newVolume,
  outcome,
  stranger,
  TEST_SETTINGS,
} from './harness.ts'

/** Volumes in use that go to another backend: through the services, and a Nova over HTTP that attaches, copies and completes. */

const SERVER = '22222222-2222-4222-8222-222222222222'
const HOME = 'test-host@memory#memory'
const OTHER = 'test-host@other#memory'
const BLOCK = Buffer.alloc(4096, 7)

let nova: FakeNova
let other: MemoryBackend

const driverOf = (backend: MemoryBackend) => createMemoryDriver(backend, systemRandom)

beforeEach(async () => {
  nova = await startFakeNova()
  other = createMemoryBackend(100)
})

function withNova(options: HarnessOptions = {}): HarnessOptions {
  const account = createKeystoneAccount({
    http: systemHttp,
    clock: systemClock,
    authUrl: nova.authUrl,
    ...NOVA_ACCOUNT,
    interface: 'public',
    regionName: null,
    timeoutMs: 20_000,
    refusal: computeRefusal,
  })
  const compute = createNova({ http: systemHttp, account, url: null, timeoutMs: 20_000, log: createLog('silent') })
  return { compute, others: [{ name: 'other', availabilityZone: 'nova', driver: driverOf(other) }], ...options }
}

/** What Nova asks for, of the process that lives. */
function storageOf(current: () => Harness): BlockStorage {
  return {
    beginDetaching: (id) => current().services.volumes.beginDetaching(admin, id),
    rollDetaching: (id) => current().services.volumes.rollDetaching(admin, id),
    createAttachment: async (volumeId, instanceId) =>
      (await current().services.attachments.create(admin, newAttachment(volumeId, { instanceId }))).id,
    updateAttachment: async (id) =>
      (await current().services.attachments.update(admin, id, { host: 'compute-1' })).connectionInfo!,
    completeAttachment: (id) => current().services.attachments.complete(admin, id),
    deleteAttachment: async (id) => {
      await current().services.attachments.delete(admin, id)
    },
    completeMigration: (oldId, newVolumeId, failed) =>
      current().services.volumes.completeMigration(admin, oldId, { newVolumeId, failed }),
  }
}

/** Volumes of both backends by the names that these have for them. */
function stored(harness: Harness) {
  return { memory: [...harness.backend.volumes.keys()].sort(), other: [...other.volumes.keys()].sort() }
}

/** Nova copies what the server writes to, wherever that is, and the server goes on writing until it has gone over. */
function serve(harness: Harness, enter: (stage: SwapStage) => Promise<void> = async () => {}) {
  nova.world = {
    storage: storageOf(() => harness),
    enter,
    copy: async (_before, _after, { oldId, newId }) => {
      const rows = await harness.db('volumes').whereIn('id', [oldId, newId])
      const contentOf = (id: string) => {
        const row = rows.find((one) => one.id === id)!
        const backend = row.host === OTHER ? other : harness.backend
        return backend.volumes.get(row.name_id ?? row.id)!
      }
      contentOf(oldId).blocks.set(0, BLOCK)
      for (const [block, bytes] of contentOf(oldId).blocks) contentOf(newId).blocks.set(block, bytes)
    },
  }
}

/** A volume in use by the server, on the backend `memory`. */
async function attached(harness: Harness, instanceId: string | null = SERVER): Promise<string> {
  const { services } = harness
  await services.types
    .create(admin, {
      name: 'on-memory',
      description: null,
      isPublic: true,
      extraSpecs: { volume_backend_name: 'memory' },
    })
    .catch(() => {})
  const id = await availableVolume(harness, { volumeType: 'on-memory', sizeGib: 2 })
  await services.volumes.retype(member, id, { newType: '__DEFAULT__', migrationPolicy: 'never' })
  await services.idle()
  const connector = { host: 'compute-1' }
  const overrides = instanceId === null ? { connector } : { connector, instanceId }
  const made = await services.attachments.create(member, newAttachment(id, overrides))
  await services.attachments.complete(member, made.id)
  const held = new Map([[id, { attachmentId: made.id, connection: made.connectionInfo! }]])
  nova.servers.set(SERVER, held)
  return id
}

const migrate = ({ services }: Harness, id: string, host = OTHER) =>
  services.volumes.migrate(admin, id, { host, cluster: null })
const show = ({ services }: Harness, id: string) => services.volumes.get(admin, id)
const list = async ({ services }: Harness, context = member) => {
  const query = { ...everything, allProjects: context.isAdmin }
  return (await services.volumes.list(context, query, { count: true })).items
}
const messagesOf = async ({ services }: Harness, id: string) =>
  (await services.messages.list(member, { ...everything, filters: { resource_uuid: id } })).items.map(
    ({ text }) => text,
  )

/** Once the work is done, and Nova too. */
async function settled(harness: Harness): Promise<void> {
  await harness.settled()
  await nova.swapped()
  await harness.settled()
}

async function expectAtRest(harness: Harness): Promise<void> {
  await checkAtRest(harness)
  await checkBackends(harness.db, { memory: harness.backend, other })
}

/** It is where it was, in use, and says so; nothing is left of the target. */
async function expectStayed(harness: Harness, id: string): Promise<void> {
  expect(await show(harness, id)).toMatchObject({
    status: 'in-use',
    migrationStatus: 'error',
    host: HOME,
    nameId: null,
    attachments: [{ instanceId: SERVER, status: 'attached' }],
  })
  expect(stored(harness)).toEqual({ memory: [id], other: [] })
  expect(await list(harness, admin)).toHaveLength(1)
  expect(await messagesOf(harness, id)).toContain('migrate volume:The volume could not be moved; it is where it was.')
  await expectAtRest(harness)
}

describe('a volume in use that is migrated', () => {
  it('goes on at the other backend under its own id, with what the server wrote, and leaves nothing', async () => {
    const harness = await createHarness(withNova())
    const id = await attached(harness)
    serve(harness)
    const before = (await show(harness, id)).attachments[0]!
    await migrate(harness, id)
    await settled(harness)
    expect(nova.swapErrors).toEqual([])
    const moved = await show(harness, id)
    expect(moved).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: OTHER, consumesQuota: true })
    expect(moved.attachments).toMatchObject([{ instanceId: SERVER, status: 'attached', volumeId: id }])
    expect(moved.attachments[0]!.id).not.toBe(before.id)
    expect(nova.servers.get(SERVER)).toEqual(
      new Map([[id, { attachmentId: moved.attachments[0]!.id, connection: moved.attachments[0]!.connectionInfo }]]),
    )
    expect(moved.nameId).not.toBeNull()
    expect(stored(harness)).toEqual({ memory: [], other: [moved.nameId] })
    expect(other.volumes.get(moved.nameId!)!.blocks.get(0)).toEqual(BLOCK)
    expect(await list(harness, admin)).toHaveLength(1)
    expect(await messagesOf(harness, id)).toEqual([])
    await expectAtRest(harness)
  })

  it('can do afterwards what any other can, back to where it came from, too', async () => {
    const harness = await createHarness(withNova())
    const { volumes, snapshots, attachments, backups } = harness.services
    const id = await attached(harness)
    serve(harness)
    await migrate(harness, id)
    await settled(harness)
    const { id: snapshotId } = await snapshots.create(member, newSnapshot(id, true))
    await volumes.extend(member, id, 3)
    await harness.settled()
    const clone = await availableVolume(harness, { snapshotId, sizeGib: 2 })
    const copy = await availableVolume(harness, { sourceVolid: id, sizeGib: 3 })
    const { nameId } = await show(harness, id)
    expect(stored(harness).other).toEqual([clone, copy, nameId].sort())
    expect(other.volumes.get(clone)!.blocks.get(0)).toEqual(BLOCK)
    expect((await backups.create(member, newBackup(id, { force: true }))).status).toBe('creating')
    await harness.settled()
    await snapshots.delete(member, snapshotId)
    await harness.settled()
    await migrate(harness, id, HOME)
    await settled(harness)
    expect(nova.swapErrors).toEqual([])
    const back = await show(harness, id)
    expect(back).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: HOME, sizeGib: 3 })
    expect(stored(harness)).toEqual({ memory: [back.nameId], other: [clone, copy].sort() })
    await attachments.delete(member, back.attachments[0]!.id)
    await migrate(harness, id)
    await harness.settled()
    expect(await show(harness, id)).toMatchObject({ status: 'available', migrationStatus: 'success', host: OTHER })
    expect(stored(harness)).toEqual({ memory: [], other: [clone, copy, back.nameId].sort() })
    await expectAtRest(harness)
    for (const volumeId of [id, clone, copy]) await volumes.delete(member, volumeId, { cascade: false, force: false })
    await harness.settled()
    expect(stored(harness)).toEqual({ memory: [], other: [] })
    expect(harness.backend.snapshots.size + other.snapshots.size).toBe(0)
  })

  it('gets the type that it had to move for, and is charged for that alone', async () => {
    const harness = await createHarness(withNova())
    const { types, volumes } = harness.services
    const extraSpecs = { volume_backend_name: 'other' }
    await types.create(admin, { name: 'on-other', description: null, isPublic: true, extraSpecs })
    const id = await attached(harness)
    const stages: unknown[] = []
    serve(harness, async (stage) => {
      if (stage !== 'copy') return
      const [volume, ...targets] = (await list(harness, admin)).toReversed()
      stages.push([volume!.status, volume!.migrationStatus], ...targets.map((one) => one.migrationStatus))
    })
    await volumes.retype(member, id, { newType: 'on-other', migrationPolicy: 'on-demand' })
    await settled(harness)
    expect(nova.swapErrors).toEqual([])
    expect(stages).toEqual([['retyping', 'migrating'], `target:${id}`])
    expect(await show(harness, id)).toMatchObject({
      status: 'in-use',
      migrationStatus: 'success',
      host: OTHER,
      volumeTypeName: 'on-other',
    })
    await expectAtRest(harness)
  })

  it('has a target that only administrators see in lists, and that nobody is charged for', async () => {
    const harness = await createHarness(
      withNova({ settings: { quota: { ...TEST_SETTINGS.quota, volumes: 1, gigabytes: 2 } } }),
    )
    const id = await attached(harness)
    let seen = false
    serve(harness, async (stage) => {
      if (stage !== 'copy') return
      expect((await list(harness)).map((volume) => volume.id)).toEqual([id])
      const [target] = (await list(harness, admin)).filter((volume) => volume.id !== id)
      expect(target).toMatchObject({ migrationStatus: `target:${id}`, consumesQuota: false, host: OTHER, sizeGib: 2 })
      const { services } = harness
      const refused = [
        services.volumes.delete(admin, target!.id, { cascade: false, force: true }),
        services.volumes.extend(member, id, 3),
        services.volumes.migrate(admin, id, { host: HOME, cluster: null }),
        services.volumes.create(member, newVolume({ sourceVolid: id })),
        services.snapshots.create(member, newSnapshot(id, true)),
        services.backups.create(member, newBackup(id, { force: true })),
        services.volumes.completeMigration(admin, target!.id, { newVolumeId: id, failed: false }),
      ]
      expect(await Promise.all(refused.map(outcome))).toEqual(refused.map(() => 'InvalidVolume'))
      const completion = { newVolumeId: target!.id, failed: false }
      expect(await outcome(services.volumes.completeMigration(stranger, id, completion))).toBe('VolumeNotFound')
      seen = true
    })
    await migrate(harness, id)
    await settled(harness)
    expect([nova.swapErrors, seen]).toEqual([[], true])
    expect(await show(harness, id)).toMatchObject({ host: OTHER, migrationStatus: 'success' })
    await expectAtRest(harness)
  })
})

describe('a volume in use stays where it is, says why, and nothing is left of its target', () => {
  it('when there is no Nova in the settings', async () => {
    const { compute: _, ...options } = withNova()
    const harness = await createHarness(options)
    const id = await attached(harness)
    await migrate(harness, id)
    await settled(harness)
    expect((await harness.services.explain(id))?.reason).toContain('there is none in the settings')
    await expectStayed(harness, id)
  })

  it('when Nova refuses', async () => {
    const harness = await createHarness(withNova())
    const id = await attached(harness)
    await migrate(harness, id)
    await settled(harness)
    expect((await harness.services.explain(id))?.reason).toContain(`Cannot 'swap_volume' instance ${SERVER}`)
    await expectStayed(harness, id)
  })

  it('when Nova is down', async () => {
    const harness = await createHarness(withNova())
    const id = await attached(harness)
    await nova.close()
    await migrate(harness, id)
    await settled(harness)
    expect((await harness.services.explain(id))?.reason).toContain('not available')
    await expectStayed(harness, id)
  })

  it('when Nova has begun and is not heard of again', async () => {
    const harness = await createHarness(withNova({ settings: { swapTimeoutMs: 1 } }))
    const id = await attached(harness)
    serve(harness, async (stage) => {
      if (stage === 'copy') throw new ComputeHostLost()
    })
    await migrate(harness, id)
    await settled(harness)
    expect((await harness.services.explain(id))?.reason).toContain('has not moved the volume within 0.001 seconds')
    await expectStayed(harness, id)
  })

  it.each(['connect', 'copy', 'complete'] as const)('when Nova fails to %s, and says so', async (failing) => {
    const harness = await createHarness(withNova())
    const id = await attached(harness)
    serve(harness, async (stage) => {
      if (stage === failing) throw new Error('injected')
    })
    await migrate(harness, id)
    await settled(harness)
    expect((await harness.services.explain(id))?.reason).toContain('it could not move the volume')
    await expectStayed(harness, id)
  })

  it('when the other backend does not make the target', async () => {
    const driver = wrapDriver(driverOf(other), errorFilter(onMethod('createVolume'), 'after'))
    const harness = await createHarness(withNova({ others: [{ name: 'other', availabilityZone: 'nova', driver }] }))
    const id = await attached(harness)
    await migrate(harness, id)
    await settled(harness)
    await expectStayed(harness, id)
    expect(nova.calls).toEqual([])
  })

  it('when no server has it: a host does', async () => {
    const harness = await createHarness(withNova())
    const id = await attached(harness, null)
    await migrate(harness, id)
    await settled(harness)
    expect(await show(harness, id)).toMatchObject({ status: 'in-use', migrationStatus: 'error', host: HOME })
    expect((await harness.services.explain(id))?.reason).toContain('is attached to no server')
    await expectAtRest(harness)
  })
})

describe('a move that does not end as it should', () => {
  it('is done when the server has gone over and nobody said so', async () => {
    const harness = await createHarness(withNova({ settings: { swapTimeoutMs: 200 } }))
    const id = await attached(harness)
    serve(harness, async (stage) => {
      if (stage === 'disconnect') throw new ComputeHostLost()
    })
    await migrate(harness, id)
    await settled(harness)
    const moved = await show(harness, id)
    expect(moved).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: OTHER })
    expect(moved.attachments).toHaveLength(1)
    expect(stored(harness)).toEqual({ memory: [], other: [moved.nameId] })
    await expectAtRest(harness)
  })

  it('leaves what could not be deleted to an administrator, who can delete it', async () => {
    const faults = [errorFilter(onMethod('deleteVolume'), 'before')]
    const harness = await createHarness(withNova({ filters: faults }))
    const id = await attached(harness)
    serve(harness)
    await migrate(harness, id)
    await settled(harness)
    expect(await show(harness, id)).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: OTHER })
    const [left] = (await list(harness, admin)).filter((volume) => volume.id !== id)
    expect(left).toMatchObject({ status: 'error', migrationStatus: 'deleting', host: HOME, nameId: id })
    const next = await harness.reopen({ ...withNova(), filters: [] })
    await harness.services.stop()
    await next.services.volumes.delete(admin, left!.id, { cascade: false, force: false })
    await next.settled()
    expect(stored(next).memory).toEqual([])
    await expectAtRest(next)
  })

  it.each([
    ['its status', { status: 'in-use', others: {} }],
    ['its migration status', { status: null, others: { migrationStatus: 'error' } }],
  ])('is over when an administrator writes %s; its target can be deleted', async (_, { status, others }) => {
    const harness = await createHarness(withNova())
    const { volumes, attachments } = harness.services
    const id = await attached(harness)
    let reset = false
    serve(harness, async (stage) => {
      if (stage !== 'copy') return
      await volumes.resetStatus(admin, id, status, others)
      reset = true
      throw new ComputeHostLost()
    })
    await migrate(harness, id)
    await vi.waitFor(() => expect(reset).toBe(true), { timeout: 30_000 })
    await settled(harness)
    expect(await show(harness, id)).toMatchObject({ status: 'in-use', migrationStatus: 'error', host: HOME })
    const [left] = (await list(harness, admin)).filter((volume) => volume.id !== id)
    expect(left).toMatchObject({ status: 'error', migrationStatus: 'deleting' })
    const completion = { newVolumeId: left!.id, failed: false }
    await expect(volumes.completeMigration(admin, id, completion)).rejects.toThrow('Destination has migration_status')
    for (const { id: attachmentId } of left!.attachments) await attachments.delete(admin, attachmentId)
    await volumes.delete(admin, left!.id, { cascade: false, force: false })
    await settled(harness)
    expect(stored(harness)).toEqual({ memory: [id], other: [] })
    await expectAtRest(harness)
  })

  it('is nothing that Nova completes where none was begun', async () => {
    const harness = await createHarness(withNova())
    const { volumes } = harness.services
    const [id, newVolumeId] = [await attached(harness), await availableVolume(harness)]
    expect(await volumes.completeMigration(admin, id, { newVolumeId, failed: false })).toBe(newVolumeId)
    const failing = volumes.completeMigration(admin, newVolumeId, { newVolumeId: id, failed: true })
    expect(await failing).toBe(id)
    await expectAtRest(harness)
  })
})

describe('a process that dies', () => {
  it('while Nova is at work is followed by one that waits no shorter', async () => {
    const harness = await createHarness(withNova())
    const id = await attached(harness)
    serve(harness)
    const dead = harness
    let current = harness
    nova.world = {
      ...nova.world!,
      storage: storageOf(() => current),
      enter: async (stage) => {
        if (stage !== 'copy' || current !== dead) return
        await vi.waitFor(async () => expect(await dead.db('work').pluck('next_step')).toEqual(['await']), {
          timeout: 30_000,
        })
        await dead.die()
        current = await dead.reopen(withNova())
        const [unit] = await current.db('work')
        expect(Number(unit.due_at_ms)).toBeGreaterThan(Date.now() + 3_600_000)
      },
    }
    await migrate(harness, id)
    await vi.waitFor(() => expect(current).not.toBe(dead), { timeout: 30_000 })
    await nova.swapped()
    await current.settled()
    expect(nova.swapErrors).toEqual([])
    expect(await show(current, id)).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: OTHER })
    await expectAtRest(current)
  })

  it('between asking Nova and writing that down is followed by one that does not ask again', async () => {
    const harness = await createHarness(withNova())
    const id = await attached(harness)
    let release = () => {}
    const released = new Promise<void>((resolve) => {
      release = resolve
    })
    let current = harness
    serve(harness)
    nova.world = {
      ...nova.world!,
      storage: storageOf(() => current),
      enter: (stage) => (stage === 'copy' ? released : Promise.resolve()),
    }
    await migrate(harness, id)
    await vi.waitFor(async () => expect(await harness.db('work').pluck('next_step')).toEqual(['await']), {
      timeout: 30_000,
    })
    await harness.die()
    await harness.db('work').update({ next_step: 'ask' }) // as if the answer had not been written
    current = await harness.reopen(withNova())
    await vi.waitFor(async () => expect(await harness.db('work').pluck('next_step')).toEqual(['await']), {
      timeout: 30_000,
    })
    release()
    await nova.swapped()
    await current.settled()
    expect(nova.calls).toHaveLength(1)
    expect(await show(current, id)).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: OTHER })
    await expectAtRest(current)
  })
})

it('asks Nova once more when a token was revoked, and repeats nothing else', async () => {
  const harness = await createHarness(withNova())
  const id = await attached(harness)
  serve(harness)
  nova.answerNext({ status: 401 })
  await migrate(harness, id)
  await settled(harness)
  expect(nova.calls.map(({ path }) => path.replace(/.*servers/, 'servers'))).toEqual([
    `servers/${SERVER}/os-volume_attachments/${id}`,
    `servers/${SERVER}/os-volume_attachments/${id}`,
  ])
  expect(await show(harness, id)).toMatchObject({ migrationStatus: 'success' })
})
