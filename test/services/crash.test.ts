import { describe, expect, it } from 'vitest'
import { type DriverMethod, errorFilter, type FaultPoint, hangFilter, onMethod } from '../../src/drivers/wrappers.ts'
import {
  availableVolume,
  createHarness,
  type Harness,
  keptUsage,
  member,
  newAttachment,
  newSnapshot,
  newVolume,
  outcome,
  recount,
} from './harness.ts'

/**
 * Each kind of work, cut off before and after the driver did its part, in two ways: the process dies (the driver
 * never answers, and other services open the same file), and the backend fails for good.
 */
interface Scenario {
  name: string
  /** The call in which it is cut off. */
  method: DriverMethod
  /** Makes what the request needs; the driver is whole. */
  prepare(harness: Harness): Promise<string>
  /** The request. It may never be answered. */
  act(harness: Harness, id: string): Promise<unknown>
  /** What a restart ends with. */
  resumed(harness: Harness, id: string): Promise<void>
  /** What the last attempt leaves behind. */
  givenUp(harness: Harness, id: string): Promise<void>
}

const connector = { host: 'compute-1' }

const onlyVolume = async (harness: Harness) => {
  const { items } = await harness.services.volumes.list(
    member,
    {
      limit: 10,
      offset: 0,
      marker: null,
      sort: [{ key: 'created_at', direction: 'desc' }],
      filters: {},
      allProjects: false,
    },
    { count: false },
  )
  return items[0]!
}

const snapshotOf = async (harness: Harness, volumeId: string): Promise<string> => {
  const { id } = await harness.services.snapshots.create(member, newSnapshot(volumeId))
  await harness.services.idle()
  return id
}

const expectNewest = async (harness: Harness, status: string) => expect((await onlyVolume(harness)).status).toBe(status)

const expectStatus = async (harness: Harness, id: string, status: string, sizeGib: number) =>
  expect(await harness.services.volumes.get(member, id)).toMatchObject({ status, sizeGib })

const expectReason = async (harness: Harness, id: string) =>
  expect((await harness.services.explain(id))?.reason).toContain('injected fault')

const createScenario = (name: string, method: DriverMethod, request: (id: string) => object): Scenario => ({
  name,
  method,
  prepare: async (harness) => {
    const id = await availableVolume(harness)
    return method === 'createVolumeFromSnapshot' ? snapshotOf(harness, id) : id
  },
  act: (harness, id) => harness.services.volumes.create(member, newVolume(request(id))),
  resumed: (harness) => expectNewest(harness, 'available'),
  givenUp: async (harness) => {
    await expectNewest(harness, 'error')
    await expectReason(harness, (await onlyVolume(harness)).id)
  },
})

const SCENARIOS: readonly Scenario[] = [
  createScenario('creating a volume', 'createVolume', () => ({})),
  createScenario('creating a volume from a snapshot', 'createVolumeFromSnapshot', (id) => ({ snapshotId: id })),
  createScenario('cloning a volume', 'createClonedVolume', (id) => ({ sourceVolid: id })),
  {
    name: 'deleting a volume',
    method: 'deleteVolume',
    prepare: (harness) => availableVolume(harness),
    act: (harness, id) => harness.services.volumes.delete(member, id, { cascade: false, force: false }),
    resumed: async (harness, id) => {
      expect(await outcome(harness.services.volumes.get(member, id))).toBe('VolumeNotFound')
      expect(harness.backend.volumes.size).toBe(0)
    },
    givenUp: async (harness, id) => {
      await expectStatus(harness, id, 'error_deleting', 1)
      await expectReason(harness, id)
    },
  },
  {
    name: 'deleting a volume with its snapshots',
    method: 'deleteSnapshot',
    prepare: async (harness) => {
      const id = await availableVolume(harness)
      await snapshotOf(harness, id)
      await snapshotOf(harness, id)
      return id
    },
    act: (harness, id) => harness.services.volumes.delete(member, id, { cascade: true, force: false }),
    resumed: async (harness, id) => {
      expect(await outcome(harness.services.volumes.get(member, id))).toBe('VolumeNotFound')
      expect(harness.backend.snapshots.size).toBe(0)
    },
    givenUp: async (harness, id) => {
      await expectStatus(harness, id, 'error_deleting', 1)
      await expectReason(harness, id)
    },
  },
  {
    name: 'extending a volume',
    method: 'extendVolume',
    prepare: (harness) => availableVolume(harness),
    act: (harness, id) => harness.services.volumes.extend(member, id, 5),
    resumed: (harness, id) => expectStatus(harness, id, 'available', 5),
    givenUp: async (harness, id) => {
      await expectStatus(harness, id, 'error_extending', 1)
      await expectReason(harness, id)
    },
  },
  {
    name: 'creating a snapshot',
    method: 'createSnapshot',
    prepare: (harness) => availableVolume(harness),
    act: (harness, id) => harness.services.snapshots.create(member, newSnapshot(id)),
    resumed: async (harness) => {
      const [row] = await harness.db('snapshots')
      expect(row).toMatchObject({ status: 'available', progress: '100%' })
      expect(harness.backend.snapshots.has(row.id)).toBe(true)
    },
    givenUp: async (harness) => {
      const [row] = await harness.db('snapshots')
      expect(row.status).toBe('error')
      await expectReason(harness, row.id)
    },
  },
  {
    name: 'deleting a snapshot',
    method: 'deleteSnapshot',
    prepare: async (harness) => snapshotOf(harness, await availableVolume(harness)),
    act: (harness, id) => harness.services.snapshots.delete(member, id),
    resumed: async (harness, id) => {
      expect(await outcome(harness.services.snapshots.get(member, id))).toBe('SnapshotNotFound')
      expect(harness.backend.snapshots.size).toBe(0)
    },
    givenUp: async (harness, id) => {
      expect((await harness.services.snapshots.get(member, id)).status).toBe('error_deleting')
      await expectReason(harness, id)
    },
  },
  {
    name: 'attaching a volume',
    method: 'createExport',
    prepare: (harness) => availableVolume(harness),
    act: (harness, id) => harness.services.attachments.create(member, newAttachment(id, { connector })),
    resumed: expectDetached,
    givenUp: expectDetached,
  },
  {
    name: 'connecting a reserved attachment',
    method: 'createExport',
    prepare: async (harness) => {
      const volumeId = await availableVolume(harness)
      return (await harness.services.attachments.create(member, newAttachment(volumeId))).id
    },
    act: (harness, id) => harness.services.attachments.update(member, id, connector),
    resumed: expectReserved,
    givenUp: expectReserved,
  },
  {
    name: 'detaching a volume',
    method: 'removeExport',
    prepare: async (harness) => {
      const volumeId = await availableVolume(harness)
      const { id } = await harness.services.attachments.create(member, newAttachment(volumeId, { connector }))
      await harness.services.attachments.complete(member, id)
      return id
    },
    act: (harness, id) => harness.services.attachments.delete(member, id),
    resumed: async (harness, id) => {
      expect(await outcome(harness.services.attachments.get(member, id))).toBe('AttachmentNotFound')
      await expectNewest(harness, 'available')
      expectNoRights(harness)
    },
    givenUp: async (harness, id) => {
      expect((await harness.services.attachments.get(member, id)).status).toBe('error_detaching')
      await expectNewest(harness, 'in-use')
      await expectReason(harness, id)
    },
  },
]

async function expectDetached(harness: Harness): Promise<void> {
  expect(await onlyVolume(harness)).toMatchObject({ status: 'available', attachments: [] })
  expectNoRights(harness)
}

async function expectReserved(harness: Harness, id: string): Promise<void> {
  const attachment = await harness.services.attachments.get(member, id)
  expect(attachment).toMatchObject({ status: 'reserved', connector: null, connectionInfo: null })
  await expectNewest(harness, 'reserved')
  expectNoRights(harness)
}

function expectNoRights(harness: Harness): void {
  for (const volume of harness.backend.volumes.values()) expect(volume.rights.size).toBe(0)
}

async function expectSound(harness: Harness): Promise<void> {
  expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
  expect(await harness.db('work')).toEqual([])
  const rows = await harness.db('volumes').select('status').union(harness.db('snapshots').select('status'))
  for (const { status } of rows) expect(['creating', 'deleting', 'extending']).not.toContain(status)
  for (const { id, status } of await harness.db('volumes').where({ status: 'available' })) {
    expect([status, harness.backend.volumes.has(id)]).toEqual(['available', true])
  }
}

describe.each(SCENARIOS)('$name', ({ method, prepare, act, resumed, givenUp }) => {
  const points: readonly FaultPoint[] = ['before', 'after']

  it.each(points)(`goes on after the process died %s ${method}`, async (point) => {
    const harness = await createHarness({ settings: { stopGraceMs: 0 } })
    const id = await prepare(harness)
    let reached = () => {}
    const cutOff = new Promise<void>((resolve) => {
      reached = resolve
    })
    const doomed = await harness.reopen({ filters: [hangFilter(onMethod(method), point, reached)] })
    const request = outcome(act(doomed, id))
    await cutOff
    const survivor = await harness.reopen()
    await survivor.services.idle()
    await expectSound(survivor)
    await resumed(survivor, id)
    await doomed.services.stop()
    expect(['done', 'ServiceUnavailable']).toContain(await request)
    await expectSound(survivor)
  })

  it.each(points)(`ends when the backend fails for good %s ${method}`, async (point) => {
    const harness = await createHarness()
    const id = await prepare(harness)
    const unlucky = await harness.reopen({ filters: [errorFilter(onMethod(method), point)] })
    expect(['done', 'BackendFailure']).toContain(await outcome(act(unlucky, id)))
    await unlucky.services.idle()
    await expectSound(unlucky)
    await givenUp(unlucky, id)
  })
})

it('stops at once in the middle of work and goes on after the next start', async () => {
  const harness = await createHarness({ settings: { stopGraceMs: 0 } })
  let reached = () => {}
  const cutOff = new Promise<void>((resolve) => {
    reached = resolve
  })
  const slow = await harness.reopen({ filters: [hangFilter(onMethod('createVolume'), 'before', reached)] })
  const { id } = await slow.services.volumes.create(member, newVolume())
  await cutOff
  await slow.services.stop()
  expect((await slow.services.explain(id))?.work).toMatchObject({
    kind: 'volume-create',
    step: 'provision',
    attempt: 1,
  })
  const next = await harness.reopen()
  await next.services.idle()
  await expectNewest(next, 'available')
})

it('finishes what runs before it stops', async () => {
  const harness = await createHarness()
  const ids = await Promise.all(
    Array.from({ length: 5 }, async () => (await harness.services.volumes.create(member, newVolume())).id),
  )
  await harness.services.stop()
  for (const id of ids) expect((await harness.services.explain(id))?.status).toBe('available')
  expect(await outcome(harness.services.attachments.create(member, newAttachment(ids[0]!, { connector })))).toBe(
    'ServiceUnavailable',
  )
})
