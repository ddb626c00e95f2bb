import { beforeEach, describe, expect, it, vi } from 'vitest'
import { errorFilter, onMethod, wrapDriver } from '../../src/drivers/wrappers.ts'
import { ComputeHostLost } from '../tools/nova-swap.ts'
import {
  admin,
  availableVolume,
  createHarness,
  everything,
  type Harness,
  member,
  newBackup,
  newSnapshot,
  newVolume,
  outcome,
  stranger,
  TEST_SETTINGS,
} from './harness.ts'
import {
  attachedVolume,
  BLOCK,
  createSwapWorld,
  driverOf,
  HOME,
  migrate,
  OTHER,
  SERVER,
  type SwapWorld,
  storageOf,
} from './swap-world.ts'

/** Volumes in use that go to another backend: through the services, and a Nova over HTTP that attaches, copies and completes. */

let world: SwapWorld

beforeEach(async () => {
  world = await createSwapWorld()
})

const attached = (harness: Harness, instanceId?: string | null) => attachedVolume(harness, world.nova, instanceId)
const show = ({ services }: Harness, id: string) => services.volumes.get(admin, id)
const list = async ({ services }: Harness, context = member) => {
  const query = { ...everything, allProjects: context.isAdmin }
  return (await services.volumes.list(context, query, { count: true })).items
}
const messagesOf = async ({ services }: Harness, id: string) =>
  (await services.messages.list(member, { ...everything, filters: { resource_uuid: id } })).items.map(
    ({ text }) => text,
  )

/** It is where it was, in use, and says so; nothing is left of the target. */
async function expectStayed(harness: Harness, id: string): Promise<void> {
  expect(await show(harness, id)).toMatchObject({
    status: 'in-use',
    migrationStatus: 'error',
    host: HOME,
    nameId: null,
    attachments: [{ instanceId: SERVER, status: 'attached' }],
  })
  expect(world.stored(harness)).toEqual({ memory: [id], other: [] })
  expect(await list(harness, admin)).toHaveLength(1)
  expect(await messagesOf(harness, id)).toContain('migrate volume:The volume could not be moved; it is where it was.')
  await world.expectAtRest(harness)
}

describe('a volume in use that is migrated', () => {
  it('goes on at the other backend under its own id, with what the server wrote, and leaves nothing', async () => {
    const harness = await createHarness(world.options())
    const id = await attached(harness)
    world.serve(harness)
    const before = (await show(harness, id)).attachments[0]!
    await migrate(harness, id)
    await world.settled(harness)
    expect(world.nova.swapErrors).toEqual([])
    const moved = await show(harness, id)
    expect(moved).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: OTHER, consumesQuota: true })
    expect(moved.attachments).toMatchObject([{ instanceId: SERVER, status: 'attached', volumeId: id }])
    expect(moved.attachments[0]!.id).not.toBe(before.id)
    expect(world.nova.servers.get(SERVER)).toEqual(
      new Map([[id, { attachmentId: moved.attachments[0]!.id, connection: moved.attachments[0]!.connectionInfo }]]),
    )
    expect(moved.nameId).not.toBeNull()
    expect(world.stored(harness)).toEqual({ memory: [], other: [moved.nameId] })
    expect(world.other.volumes.get(moved.nameId!)!.blocks.get(0)).toEqual(BLOCK)
    expect(await list(harness, admin)).toHaveLength(1)
    expect(await messagesOf(harness, id)).toEqual([])
    await world.expectAtRest(harness)
  })

  it('can do afterwards what any other can, back to where it came from, too', async () => {
    const harness = await createHarness(world.options())
    const { volumes, snapshots, attachments, backups } = harness.services
    const id = await attached(harness)
    world.serve(harness)
    await migrate(harness, id)
    await world.settled(harness)
    const { id: snapshotId } = await snapshots.create(member, newSnapshot(id, true))
    await volumes.extend(member, id, 3)
    await harness.settled()
    const clone = await availableVolume(harness, { snapshotId, sizeGib: 2 })
    const copy = await availableVolume(harness, { sourceVolid: id, sizeGib: 3 })
    const { nameId } = await show(harness, id)
    expect(world.stored(harness).other).toEqual([clone, copy, nameId].sort())
    expect(world.other.volumes.get(clone)!.blocks.get(0)).toEqual(BLOCK)
    expect((await backups.create(member, newBackup(id, { force: true }))).status).toBe('creating')
    await harness.settled()
    await snapshots.delete(member, snapshotId)
    await harness.settled()
    await migrate(harness, id, HOME)
    await world.settled(harness)
    expect(world.nova.swapErrors).toEqual([])
    const back = await show(harness, id)
    expect(back).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: HOME, sizeGib: 3 })
    expect(world.stored(harness)).toEqual({ memory: [back.nameId], other: [clone, copy].sort() })
    await attachments.delete(member, back.attachments[0]!.id)
    await migrate(harness, id)
    await harness.settled()
    expect(await show(harness, id)).toMatchObject({ status: 'available', migrationStatus: 'success', host: OTHER })
    expect(world.stored(harness)).toEqual({ memory: [], other: [clone, copy, back.nameId].sort() })
    await world.expectAtRest(harness)
    for (const volumeId of [id, clone, copy]) await volumes.delete(member, volumeId, { cascade: false, force: false })
    await harness.settled()
    expect(world.stored(harness)).toEqual({ memory: [], other: [] })
    expect(harness.backend.snapshots.size + world.other.snapshots.size).toBe(0)
  })

  it('gets the type that it had to move for, and is charged for that alone', async () => {
    const harness = await createHarness(world.options())
    const { types, volumes } = harness.services
    const extraSpecs = { volume_backend_name: 'other' }
    await types.create(admin, { name: 'on-other', description: null, isPublic: true, extraSpecs })
    const id = await attached(harness)
    const stages: unknown[] = []
    world.serve(harness, async (stage) => {
      if (stage !== 'copy') return
      const [volume, ...targets] = (await list(harness, admin)).toReversed()
      stages.push([volume!.status, volume!.migrationStatus], ...targets.map((one) => one.migrationStatus))
    })
    await volumes.retype(member, id, { newType: 'on-other', migrationPolicy: 'on-demand' })
    await world.settled(harness)
    expect(world.nova.swapErrors).toEqual([])
    expect(stages).toEqual([['retyping', 'migrating'], `target:${id}`])
    expect(await show(harness, id)).toMatchObject({
      status: 'in-use',
      migrationStatus: 'success',
      host: OTHER,
      volumeTypeName: 'on-other',
    })
    await world.expectAtRest(harness)
  })

  it('has a target that only administrators see in lists, and that nobody is charged for', async () => {
    const harness = await createHarness(
      world.options({ settings: { quota: { ...TEST_SETTINGS.quota, volumes: 1, gigabytes: 2 } } }),
    )
    const id = await attached(harness)
    let seen = false
    world.serve(harness, async (stage) => {
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
    await world.settled(harness)
    expect([world.nova.swapErrors, seen]).toEqual([[], true])
    expect(await show(harness, id)).toMatchObject({ host: OTHER, migrationStatus: 'success' })
    await world.expectAtRest(harness)
  })
})

describe('a volume in use stays where it is, says why, and nothing is left of its target', () => {
  it('when there is no Nova in the settings', async () => {
    const { compute: _, ...options } = world.options()
    const harness = await createHarness(options)
    const id = await attached(harness)
    await migrate(harness, id)
    await world.settled(harness)
    expect((await harness.services.explain(id))?.reason).toContain('there is none in the settings')
    await expectStayed(harness, id)
  })

  it('when Nova refuses', async () => {
    const harness = await createHarness(world.options())
    const id = await attached(harness)
    await migrate(harness, id)
    await world.settled(harness)
    expect((await harness.services.explain(id))?.reason).toContain(`Cannot 'swap_volume' instance ${SERVER}`)
    await expectStayed(harness, id)
  })

  it('when Nova is down', async () => {
    const harness = await createHarness(world.options())
    const id = await attached(harness)
    await world.nova.close()
    await migrate(harness, id)
    await world.settled(harness)
    expect((await harness.services.explain(id))?.reason).toContain('not available')
    await expectStayed(harness, id)
  })

  it('when Nova has begun and is not heard of again', async () => {
    const harness = await createHarness(world.options({ settings: { swapTimeoutMs: 1 } }))
    const id = await attached(harness)
    world.serve(harness, async (stage) => {
      if (stage === 'copy') throw new ComputeHostLost()
    })
    await migrate(harness, id)
    await world.settled(harness)
    expect((await harness.services.explain(id))?.reason).toContain('has not moved the volume within 0.001 seconds')
    await expectStayed(harness, id)
  })

  it.each(['connect', 'copy', 'complete'] as const)('when Nova fails to %s, and says so', async (failing) => {
    const harness = await createHarness(world.options())
    const id = await attached(harness)
    world.serve(harness, async (stage) => {
      if (stage === failing) throw new Error('injected')
    })
    await migrate(harness, id)
    await world.settled(harness)
    expect((await harness.services.explain(id))?.reason).toContain('it could not move the volume')
    await expectStayed(harness, id)
  })

  it('when the other backend does not make the target', async () => {
    const driver = wrapDriver(driverOf(world.other), errorFilter(onMethod('createVolume'), 'after'))
    const harness = await createHarness(
      world.options({ others: [{ name: 'other', availabilityZone: 'nova', driver }] }),
    )
    const id = await attached(harness)
    await migrate(harness, id)
    await world.settled(harness)
    await expectStayed(harness, id)
    expect(world.nova.calls).toEqual([])
  })

  it('when no server has it: a host does', async () => {
    const harness = await createHarness(world.options())
    const id = await attached(harness, null)
    await migrate(harness, id)
    await world.settled(harness)
    expect(await show(harness, id)).toMatchObject({ status: 'in-use', migrationStatus: 'error', host: HOME })
    expect((await harness.services.explain(id))?.reason).toContain('is attached to no server')
    await world.expectAtRest(harness)
  })
})

describe('a move that does not end as it should', () => {
  it('is done when the server has gone over and nobody said so', async () => {
    const harness = await createHarness(world.options({ settings: { swapTimeoutMs: 200 } }))
    const id = await attached(harness)
    world.serve(harness, async (stage) => {
      if (stage === 'disconnect') throw new ComputeHostLost()
    })
    await migrate(harness, id)
    await world.settled(harness)
    const moved = await show(harness, id)
    expect(moved).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: OTHER })
    expect(moved.attachments).toHaveLength(1)
    expect(world.stored(harness)).toEqual({ memory: [], other: [moved.nameId] })
    await world.expectAtRest(harness)
  })

  it('leaves what could not be deleted to an administrator, who can delete it', async () => {
    const faults = [errorFilter(onMethod('deleteVolume'), 'before')]
    const harness = await createHarness(world.options({ filters: faults }))
    const id = await attached(harness)
    world.serve(harness)
    await migrate(harness, id)
    await world.settled(harness)
    expect(await show(harness, id)).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: OTHER })
    const [left] = (await list(harness, admin)).filter((volume) => volume.id !== id)
    expect(left).toMatchObject({ status: 'error', migrationStatus: 'deleting', host: HOME, nameId: id })
    const next = await harness.reopen({ ...world.options(), filters: [] })
    await harness.services.stop()
    await next.services.volumes.delete(admin, left!.id, { cascade: false, force: false })
    await next.settled()
    expect(world.stored(next).memory).toEqual([])
    await world.expectAtRest(next)
  })

  it.each([
    ['its status', { status: 'in-use', others: {} }],
    ['its migration status', { status: null, others: { migrationStatus: 'error' } }],
  ])('is over when an administrator writes %s; its target can be deleted', async (_, { status, others }) => {
    const harness = await createHarness(world.options())
    const { volumes, attachments } = harness.services
    const id = await attached(harness)
    let reset = false
    world.serve(harness, async (stage) => {
      if (stage !== 'copy') return
      await volumes.resetStatus(admin, id, status, others)
      reset = true
      throw new ComputeHostLost()
    })
    await migrate(harness, id)
    await vi.waitFor(() => expect(reset).toBe(true), { timeout: 30_000 })
    await world.nova.swapped()
    expect(await harness.db('work')).toEqual([])
    expect(await show(harness, id)).toMatchObject({ status: 'in-use', migrationStatus: 'error', host: HOME })
    const [left] = (await list(harness, admin)).filter((volume) => volume.id !== id)
    expect(left).toMatchObject({ status: 'error', migrationStatus: 'deleting' })
    const completion = { newVolumeId: left!.id, failed: false }
    await expect(volumes.completeMigration(admin, id, completion)).rejects.toThrow('Destination has migration_status')
    for (const { id: attachmentId } of left!.attachments) await attachments.delete(admin, attachmentId)
    await volumes.delete(admin, left!.id, { cascade: false, force: false })
    await world.settled(harness)
    expect(world.stored(harness)).toEqual({ memory: [id], other: [] })
    await world.expectAtRest(harness)
  })

  it('is nothing that Nova completes where none was begun', async () => {
    const harness = await createHarness(world.options())
    const { volumes } = harness.services
    const [id, newVolumeId] = [await attached(harness), await availableVolume(harness)]
    expect(await volumes.completeMigration(admin, id, { newVolumeId, failed: false })).toBe(newVolumeId)
    const failing = volumes.completeMigration(admin, newVolumeId, { newVolumeId: id, failed: true })
    expect(await failing).toBe(id)
    await world.expectAtRest(harness)
  })
})

describe('a process that dies', () => {
  const isWaiting = (harness: Harness) =>
    vi.waitFor(async () => expect(await harness.db('work').pluck('next_step')).toEqual(['await']), { timeout: 30_000 })

  it('while Nova is at work is followed by one that waits no shorter', async () => {
    const harness = await createHarness(world.options())
    const id = await attached(harness)
    let next: Harness | null = null
    world.serve(harness, async (stage) => {
      if (stage !== 'copy') return
      await isWaiting(harness)
      await harness.die()
      next = await harness.reopen()
      world.nova.world!.storage = storageOf(next)
      const [unit] = await harness.db('work')
      expect(Number(unit.due_at_ms)).toBeGreaterThan(Date.now() + 3_600_000)
    })
    await migrate(harness, id)
    await vi.waitFor(() => expect(next).not.toBeNull(), { timeout: 30_000 })
    await world.settled(next!)
    expect(world.nova.swapErrors).toEqual([])
    expect(await show(next!, id)).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: OTHER })
    await world.expectAtRest(next!)
  })

  it('between asking Nova and writing that down is followed by one that does not ask again', async () => {
    const harness = await createHarness(world.options())
    const id = await attached(harness)
    let open = () => {}
    const opened = new Promise<void>((resolve) => {
      open = resolve
    })
    world.serve(harness, (stage) => (stage === 'copy' ? opened : Promise.resolve()))
    await migrate(harness, id)
    await isWaiting(harness)
    await harness.die()
    await harness.db('work').update({ next_step: 'ask' }) // as if that had not been written
    const next = await harness.reopen()
    await isWaiting(next)
    world.nova.world!.storage = storageOf(next)
    open()
    await world.settled(next)
    expect(world.nova.calls).toHaveLength(1)
    expect(await show(next, id)).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: OTHER })
    await world.expectAtRest(next)
  })
})

it('moves attachments of before there were attachments: the new connection takes the server of the old one', async () => {
  const harness = await createHarness(world.options())
  const { connections, volumes } = harness.services
  const [id, connector] = [await attached(harness), { host: 'compute-1' }]
  world.nova.answerNext({ status: 202 })
  await migrate(harness, id)
  const target = () =>
    harness
      .db('volumes')
      .where({ migration_status: `target:${id}` })
      .first()
  await vi.waitFor(async () => expect((await target())?.status).toBe('available'), { timeout: 30_000 })
  await vi.waitFor(() => expect(world.nova.calls).toHaveLength(1), { timeout: 30_000 })
  const { id: newVolumeId } = await target()
  await connections.reserve(admin, newVolumeId)
  await connections.initialize(admin, newVolumeId, connector)
  await connections.terminate(admin, id, connector)
  expect(await show(harness, id)).toMatchObject({ status: 'in-use', migrationStatus: 'migrating' })
  expect(await volumes.completeMigration(admin, id, { newVolumeId, failed: false })).toBe(id)
  await world.settled(harness)
  const moved = await show(harness, id)
  expect(moved).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: OTHER, nameId: newVolumeId })
  expect(moved.attachments).toMatchObject([{ instanceId: SERVER, status: 'attached', connector }])
  await world.expectAtRest(harness)
})

it('asks Nova once more when a token was revoked, and repeats nothing else', async () => {
  const harness = await createHarness(world.options())
  const id = await attached(harness)
  world.serve(harness)
  world.nova.answerNext({ status: 401 })
  await migrate(harness, id)
  await world.settled(harness)
  expect(world.nova.calls.map(({ path }) => path.replace(/.*servers/, 'servers'))).toEqual([
    `servers/${SERVER}/os-volume_attachments/${id}`,
    `servers/${SERVER}/os-volume_attachments/${id}`,
  ])
  expect(await show(harness, id)).toMatchObject({ migrationStatus: 'success' })
})
