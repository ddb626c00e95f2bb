import { describe, expect, it } from 'vitest'
import { type DriverMethod, errorFilter, type FaultPoint, hangFilter, onMethod } from '../../src/drivers/wrappers.ts'
import { DIALECTS } from '../db/harness.ts'
import { Cutter } from './cutter.ts'
import {
  admin,
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
  TEST_SETTINGS,
} from './harness.ts'

/**
 * Each kind of work, cut off in two ways: the process dies, at every moment at which that makes a difference, and other services
 * go on with the same database; and the backend fails for good, before or after it did its part.
 */
interface Scenario {
  name: string
  /** The call in which it is cut off. */
  method: DriverMethod
  /** Makes what the request needs; the driver is whole. */
  prepare(harness: Harness): Promise<string>
  /** The request. It may never be answered. */
  act(harness: Harness, id: string): Promise<unknown>
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
    givenUp: async (harness, id) => {
      expect((await harness.services.attachments.get(member, id)).status).toBe('error_detaching')
      await expectNewest(harness, 'in-use')
      await expectReason(harness, id)
    },
  },
]

/** Others that are cut off, whose backend calls the ones above have. */
const FURTHER_SCENARIOS: readonly Pick<Scenario, 'name' | 'prepare' | 'act'>[] = [
  {
    name: 'completing an attachment',
    prepare: async (harness) => {
      const volumeId = await availableVolume(harness)
      return (await harness.services.attachments.create(member, newAttachment(volumeId, { connector }))).id
    },
    act: (harness, id) => harness.services.attachments.complete(member, id),
  },
  {
    name: 'extending a volume in use',
    prepare: async (harness) => {
      const volumeId = await availableVolume(harness)
      const { id } = await harness.services.attachments.create(member, newAttachment(volumeId, { connector }))
      await harness.services.attachments.complete(member, id)
      return volumeId
    },
    act: (harness, id) => harness.services.volumes.extend(member, id, 3),
  },
  {
    name: 'deleting a volume by force, with its attachment and snapshot',
    prepare: async (harness) => {
      const volumeId = await availableVolume(harness)
      await snapshotOf(harness, volumeId)
      await harness.services.attachments.create(member, newAttachment(volumeId, { connector }))
      return volumeId
    },
    act: (harness, id) => harness.services.volumes.delete(admin, id, { cascade: true, force: true }),
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
  expect(await harness.db('lanes')).toEqual([])
  const rows = await harness.db('volumes').select('status').union(harness.db('snapshots').select('status'))
  for (const { status } of rows) expect(['creating', 'deleting', 'extending']).not.toContain(status)
  for (const { id, status } of await harness.db('volumes').where({ status: 'available' })) {
    expect([status, harness.backend.volumes.has(id)]).toEqual(['available', true])
  }
}

/** What there is, without the ids and times that differ from run to run. */
async function worldOf({ db, backend }: Harness): Promise<object> {
  const sorted = (rows: object[]) => rows.map((row) => JSON.stringify(row)).sort()
  const volumes = await db('volumes').select('status', 'size_gib', 'pending_size_gib', 'status_reason')
  const snapshots = await db('snapshots').select('status', 'previous_status', 'progress', 'size_gib', 'status_reason')
  const attachments = await db('attachments').select('status', 'connector', 'attached_host', 'attach_mode')
  return {
    volumes: sorted(volumes),
    snapshots: sorted(snapshots),
    attachments: sorted(attachments),
    connections: (await db('attachments').whereNotNull('connection_info')).length,
    usage: await keptUsage(db),
    stored: sorted([...backend.volumes.values()].map(({ sizeGib, rights }) => ({ sizeGib, rights: rights.size }))),
    storedSnapshots: backend.snapshots.size,
  }
}

/** Requests that answer once they are done: what nobody waits for any more may be undone. */
const ANSWERED_WHEN_DONE = ['attaching a volume', 'connecting a reserved attachment']

describe.each(DIALECTS)('a process that dies on %s', (dialect) => {
  it.each([...SCENARIOS, ...FURTHER_SCENARIOS])(
    'at any moment of $name leaves nothing stuck, lost or counted twice',
    async ({ name, prepare, act }) => {
      const cut = async (at: number | null) => {
        const cutter = new Cutter(at)
        const harness = await createHarness({ dialect, settings: { stopGraceMs: 0 } })
        const id = await prepare(harness)
        const before = await worldOf(harness)
        const { filter, wrapDatabase } = cutter
        const work = { ...TEST_SETTINGS.work, heartbeatMs: 60_000 } // no beats between the moments
        const doomed = await harness.reopen({ filters: [filter], wrapDatabase, settings: { stopGraceMs: 0, work } })
        await harness.services.stop() // or it would take part
        await doomed.services.idle()
        cutter.begin()
        const request = outcome(act(doomed, id))
        return { cutter, harness, doomed, before, request }
      }
      const whole = await cut(null)
      expect(await whole.request).toBe('done')
      await whole.doomed.settled()
      const { moments } = whole.cutter
      const after = await worldOf(whole.doomed)
      expect(moments.filter((moment) => moment === 'before a commit').length).toBeGreaterThan(0)
      for (const [at, moment] of moments.entries()) {
        const about = `cut at ${at} of ${moments.length}: ${moment}, ${name}`
        const { cutter, doomed, before } = await cut(at)
        await cutter.reached
        await doomed.die()
        const survivor = await doomed.reopen()
        await survivor.settled()
        await expectSound(survivor)
        const world = await worldOf(survivor)
        const isUndone = at === 0 || (ANSWERED_WHEN_DONE.includes(name) && at < moments.length - 1)
        expect(world, about).toEqual(isUndone ? before : after)
        await survivor.services.stop()
      }
    },
    300_000,
  )
})

describe.each(SCENARIOS)('$name', ({ method, prepare, act, givenUp }) => {
  const points: readonly FaultPoint[] = ['before', 'after']

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
