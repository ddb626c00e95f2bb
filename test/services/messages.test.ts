import { describe, expect, it } from 'vitest'
import * as messages from '../../src/db/messages.ts'
import { type DriverMethod, errorFilter, onMethod } from '../../src/drivers/wrappers.ts'
import { ServiceError } from '../../src/errors.ts'
import type { Clock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { MESSAGE_ACTIONS, MESSAGE_DETAILS, userMessage } from '../../src/services/message-texts.ts'
import { createMessageSweep } from '../../src/services/messages.ts'
import { insertMany, openTestDatabase } from '../db/harness.ts'
import {
  admin,
  availableVolume,
  contextOf,
  createHarness,
  everything,
  type Harness,
  member,
  newAttachment,
  newSnapshot,
  newVolume,
  outcome,
  stranger,
  TEST_SETTINGS,
} from './harness.ts'

const connector = { host: 'compute-1' }
const asker = contextOf({ requestId: 'req-that-asked' })

const snapshotOf = async (harness: Harness, volumeId: string) => {
  const { id } = await harness.services.snapshots.create(member, newSnapshot(volumeId))
  await harness.services.idle()
  return id
}

/** Each kind of work whose driver fails for good, and what its owner is told. */
const FAILURES: {
  name: string
  method: DriverMethod
  error?: () => Error
  prepare?: (harness: Harness) => Promise<string>
  act: (harness: Harness, id: string) => Promise<unknown>
  told: { resourceType: string; eventId: string; text: string }[]
}[] = [
  {
    name: 'create',
    method: 'createVolume',
    act: ({ services }) => services.volumes.create(asker, newVolume()),
    told: [volume('008_012', 'create volume from backend storage:Driver failed to create the volume.')],
  },
  {
    name: 'create from a snapshot',
    method: 'createVolumeFromSnapshot',
    prepare: async (harness) => snapshotOf(harness, await availableVolume(harness)),
    act: ({ services }, snapshotId) => services.volumes.create(asker, newVolume({ snapshotId })),
    told: [volume('008_012', 'create volume from backend storage:Driver failed to create the volume.')],
  },
  {
    name: 'clone',
    method: 'createClonedVolume',
    prepare: availableVolume,
    act: ({ services }, sourceVolid) => services.volumes.create(asker, newVolume({ sourceVolid })),
    told: [volume('008_012', 'create volume from backend storage:Driver failed to create the volume.')],
  },
  {
    name: 'extend',
    method: 'extendVolume',
    prepare: availableVolume,
    act: ({ services }, id) => services.volumes.extend(asker, id, 2),
    told: [volume('007_010', 'extend volume:Volume Driver failed to extend volume.')],
  },
  {
    name: 'delete',
    method: 'deleteVolume',
    prepare: availableVolume,
    act: ({ services }, id) => services.volumes.delete(asker, id, { cascade: false, force: false }),
    told: [volume('901_901', 'delete volume:Driver failed to delete the volume.')],
  },
  {
    name: 'delete of a volume that the backend holds on to',
    method: 'deleteVolume',
    error: () => new ServiceError('InvalidVolume', { reason: 'it is busy' }),
    prepare: availableVolume,
    act: ({ services }, id) => services.volumes.delete(asker, id, { cascade: false, force: false }),
    told: [volume('901_027', 'delete volume:Volume status is invalid.')],
  },
  {
    name: 'snapshot',
    method: 'createSnapshot',
    prepare: availableVolume,
    act: ({ services }, id) => services.snapshots.create(asker, newSnapshot(id)),
    told: [snapshot('009_013', 'create snapshot:Snapshot failed to create.')],
  },
  {
    name: 'delete of a snapshot',
    method: 'deleteSnapshot',
    prepare: async (harness) => snapshotOf(harness, await availableVolume(harness)),
    act: ({ services }, id) => services.snapshots.delete(asker, id),
    told: [snapshot('010_016', 'delete snapshot:Snapshot failed to delete.')],
  },
  {
    name: 'delete of a snapshot that the backend holds on to',
    method: 'deleteSnapshot',
    error: () => new ServiceError('InvalidSnapshot', { reason: 'it is busy' }),
    prepare: async (harness) => snapshotOf(harness, await availableVolume(harness)),
    act: ({ services }, id) => services.snapshots.delete(asker, id),
    told: [snapshot('010_015', 'delete snapshot:Snapshot is busy.')],
  },
  {
    name: 'attach',
    method: 'createExport',
    prepare: availableVolume,
    act: ({ services }, id) => outcome(services.attachments.create(asker, newAttachment(id, { connector }))),
    told: [volume('002_021', 'attach volume:Failed to attach volume.')],
  },
  {
    name: 'connect',
    method: 'createExport',
    prepare: async (harness) => {
      const reserved = await harness.services.attachments.create(member, newAttachment(await availableVolume(harness)))
      return reserved.id
    },
    act: ({ services }, id) => outcome(services.attachments.update(asker, id, connector)),
    told: [volume('004_021', 'update attachment:Failed to attach volume.')],
  },
  {
    name: 'detach',
    method: 'removeExport',
    prepare: async (harness) => {
      const request = newAttachment(await availableVolume(harness), { connector })
      return (await harness.services.attachments.create(member, request)).id
    },
    act: ({ services }, id) => outcome(services.attachments.delete(asker, id)),
    told: [volume('004_022', 'update attachment:Failed to detach volume.')],
  },
]

function volume(ids: string, text: string) {
  return { resourceType: 'VOLUME', eventId: `VOLUME_VOLUME_${ids}`, text }
}

function snapshot(ids: string, text: string) {
  return { resourceType: 'VOLUME_SNAPSHOT', eventId: `VOLUME_VOLUME_SNAPSHOT_${ids}`, text }
}

describe('work that was given up', () => {
  it.each(FAILURES)('tells the owner: $name', async ({ method, error, prepare, act, told }) => {
    let broken = false
    const matcher = onMethod(method)
    const faulty = { matches: (call: Parameters<typeof matcher.matches>[0]) => broken && matcher.matches(call) }
    const harness = await createHarness({ filters: [errorFilter(faulty, 'before', error)] })
    const id = (await prepare?.(harness)) ?? ''
    broken = true
    await act(harness, id)
    await harness.services.idle()
    const { items } = await harness.services.messages.list(member, everything)
    expect(items).toMatchObject(told.map((message) => ({ ...message, level: 'ERROR', requestId: 'req-that-asked' })))
  })

  it('tells that no storage was found, about the volume that has none', async () => {
    const harness = await createHarness()
    const extraSpecs = { volume_backend_name: 'other' }
    await harness.services.types.create(admin, { name: 'elsewhere', description: null, isPublic: true, extraSpecs })
    const { id } = await harness.services.volumes.create(asker, newVolume({ volumeType: 'elsewhere' }))
    await harness.services.idle()
    const { items } = await harness.services.messages.list(member, everything)
    const text = 'schedule allocate volume:Could not find any available weighted backend.'
    expect(items).toMatchObject([{ resourceId: id, eventId: 'VOLUME_VOLUME_001_003', text }])
  })

  it('tells it in the transaction of the status: without the message the status stays, and the work comes again', async () => {
    const refused = () => new ServiceError('InvalidInput', { reason: 'never' })
    const harness = await createHarness({
      filters: [errorFilter(onMethod('createVolume'), 'before', refused)],
      settings: { work: { ...TEST_SETTINGS.work, attemptsMax: 100_000 } },
    })
    await harness.db.schema.renameTable('messages', 'hidden')
    const { id } = await harness.services.volumes.create(asker, newVolume())
    const repeated = async () => (await harness.services.counts()).work.repeated.get('volume-create')
    await expect.poll(repeated).toBeGreaterThan(1)
    expect((await harness.services.volumes.get(member, id)).status).toBe('creating')
    await harness.db.schema.renameTable('hidden', 'messages')
    await harness.services.idle()
    expect((await harness.services.volumes.get(member, id)).status).toBe('error')
    expect((await harness.services.messages.list(member, everything)).items).toHaveLength(1)
  })

  it('ends the work where no message can be written at all', async () => {
    const harness = await createHarness({ filters: [errorFilter(onMethod('createVolume'), 'before')] })
    await harness.db.schema.renameTable('messages', 'hidden')
    const { id } = await harness.services.volumes.create(asker, newVolume())
    await harness.services.idle()
    expect((await harness.services.volumes.get(member, id)).status).toBe('error')
    await harness.db.schema.renameTable('hidden', 'messages')
    expect((await harness.services.explain(id))?.reason).toMatch(
      /injected fault in createVolume.*could not be recorded/,
    )
    expect((await harness.services.messages.list(member, everything)).items).toEqual([])
  })

  it('tells nothing of attempts that are repeated and succeed', async () => {
    let failures = 2
    const faulty = { matches: () => failures > 0 && failures-- > 0 }
    const first = onMethod('createVolume')
    const matcher = { matches: (call: Parameters<typeof first.matches>[0]) => first.matches(call) && faulty.matches() }
    const harness = await createHarness({ filters: [errorFilter(matcher, 'before')] })
    await availableVolume(harness)
    expect((await harness.services.messages.list(member, everything)).items).toEqual([])
  })
})

describe('messages', () => {
  const failed = async () => {
    const harness = await createHarness({ filters: [errorFilter(onMethod('createVolume'), 'before')] })
    await harness.services.volumes.create(asker, newVolume())
    await harness.services.idle()
    const { items } = await harness.services.messages.list(member, everything)
    return { harness, id: items[0]!.id }
  }

  it("are the owner's and the administrator's, and nobody else's", async () => {
    const { harness, id } = await failed()
    const { messages: service } = harness.services
    expect((await service.get(admin, id)).id).toBe(id)
    expect((await service.list(admin, everything)).items).toHaveLength(1)
    expect((await service.list(stranger, everything)).items).toEqual([])
    expect(await outcome(service.get(stranger, id))).toBe('MessageNotFound')
    expect(await outcome(service.delete(stranger, id))).toBe('MessageNotFound')
    await service.delete(member, id)
    expect(await outcome(service.get(member, id))).toBe('MessageNotFound')
  })

  it('are kept for 30 days', async () => {
    const { harness, id } = await failed()
    const { createdAt, expiresAt } = await harness.services.messages.get(member, id)
    const days = (Date.parse(`${expiresAt}Z`) - Date.parse(`${createdAt}Z`)) / 86_400_000
    expect(days).toBeCloseTo(30, 3)
  })
})

it('no two texts share a number', () => {
  for (const table of [MESSAGE_ACTIONS, MESSAGE_DETAILS]) {
    const ids = Object.values(table).map(({ id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
  }
  expect(userMessage('777', '777')).toBe('unknown action:An unknown error occurred.')
})

describe('the sweep', () => {
  /** A clock whose timers fire when the test says so. */
  function handClock(nowMs: number) {
    const waiting: { delayMs: number; fire: () => void }[] = []
    const clock = {
      now: () => nowMs,
      timer: (delayMs: number, fire: () => void) => {
        const entry = { delayMs, fire }
        waiting.push(entry)
        return { cancel: () => void waiting.splice(waiting.indexOf(entry), 1) }
      },
    } as Pick<Clock, 'now' | 'timer'>
    return { clock, waiting }
  }

  const row = (index: number, expires_at: string): messages.MessageRow => ({
    id: `message-${index}`,
    project_id: 'project',
    request_id: null,
    resource_type: 'VOLUME',
    resource_uuid: 'volume',
    event_id: 'VOLUME_VOLUME_001_001',
    message_level: 'ERROR',
    action_id: '001',
    detail_id: '001',
    created_at: '2026-01-01T00:00:00.000000',
    expires_at,
  })

  it('removes what has expired, some at a time, and comes again after an hour', async () => {
    const { db } = await openTestDatabase()
    const expiry = (index: number) => (index < 1100 ? '2026-01-31T00:00:00.000000' : '2026-02-02T00:00:00.000000')
    const rows = Array.from({ length: 1200 }, (_, index) => row(index, expiry(index)))
    await insertMany(db, 'messages', rows)
    const left = async () => Number((await db('messages').count({ count: '*' }))[0]?.count)
    const { clock, waiting } = handClock(Date.parse('2026-02-01T00:00:00Z'))
    const sweep = createMessageSweep({ db, clock, log: createLog('silent') })
    sweep.start()
    const seen: [left: number, delayMs: number][] = []
    for (let round = 0; round < 3; round++) {
      await expect.poll(() => waiting.length).toBe(1)
      const { delayMs, fire } = waiting.pop()!
      seen.push([await left(), delayMs])
      if (round < 2) fire()
    }
    expect(seen).toEqual([
      [700, 50],
      [200, 50],
      [100, 3_600_000],
    ])
    await sweep.stop()
  })

  it('outlives a database that fails, and does nothing once stopped', async () => {
    const { db } = await openTestDatabase()
    await messages.insert(db, row(1, '2026-01-31T00:00:00.000000'))
    await db.schema.renameTable('messages', 'hidden')
    const { clock, waiting } = handClock(Date.parse('2026-02-01T00:00:00Z'))
    const sweep = createMessageSweep({ db, clock, log: createLog('silent') })
    sweep.start()
    await expect.poll(() => waiting.length).toBe(1)
    await db.schema.renameTable('hidden', 'messages')
    await sweep.stop()
    expect(waiting).toEqual([])
    expect(await db('messages')).toHaveLength(1)
  })
})
