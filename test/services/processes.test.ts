import { describe, expect, onTestFinished, vi } from 'vitest'
import { onMethod } from '../../src/drivers/wrappers.ts'
import { missingPostgres, PostgresServer } from '../tools/postgres.ts'
import { testUnless } from '../tools/require-command.ts'
import {
  admin,
  availableVolume,
  createGate,
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

/** Several API processes on one PostgreSQL. */

const it = testUnless(missingPostgres)
const connector = { host: 'compute-1' }

const twoProcesses = async (options: Parameters<typeof createHarness>[0] = {}) => {
  const a = await createHarness({ dialect: 'PostgreSQL', ...options })
  const b = await a.reopen()
  return { a, b }
}

const statusOf = async ({ db }: Harness, id: string) => (await db('volumes').where({ id }).first())?.status

describe('processes on one database', () => {
  it('share the work, and lose and double none of it', async () => {
    const { a, b } = await twoProcesses()
    const calls: string[] = []
    const c = await a.reopen({
      filters: [
        {
          around: (call, next) => {
            calls.push(call.method)
            return next()
          },
          toString: () => 'count',
        },
      ],
    })
    const all = [a, b, c]
    const ids = await Promise.all(
      Array.from({ length: 60 }, async (_, turn) => {
        const { id } = await all[turn % 3]!.services.volumes.create(member, newVolume({ sizeGib: 2 }))
        return id
      }),
    )
    await a.settled()
    for (const id of ids) expect(await statusOf(b, id)).toBe('available')
    expect(a.backend.volumes.size).toBe(60)
    expect(calls.filter((method) => method === 'createVolume').length).toBeGreaterThan(0)
    expect(await keptUsage(a.db)).toEqual(await recount(a.db))
    expect(await a.db('lanes')).toEqual([])
  })

  it('run one unit of a lane at a time, whichever has it', async () => {
    const volumes = new Set<string>()
    const overlaps: string[] = []
    const exclusive = {
      around: async (call: { resourceId: string; method: string }, next: () => Promise<unknown>) => {
        if (!['createSnapshot', 'deleteSnapshot'].includes(call.method)) return next()
        if (volumes.has('v')) overlaps.push(call.method)
        volumes.add('v')
        await new Promise((resolve) => setImmediate(resolve))
        const result = await next()
        volumes.delete('v')
        return result
      },
      toString: () => 'exclusive',
    }
    const { a } = await twoProcesses({ filters: [exclusive] })
    const b = await a.reopen({ filters: [exclusive] })
    const id = await availableVolume(a)
    const made = await Promise.all(
      Array.from({ length: 12 }, (_, turn) => (turn % 2 ? a : b).services.snapshots.create(member, newSnapshot(id))),
    )
    await a.settled()
    await Promise.all(made.map((snapshot, turn) => (turn % 2 ? b : a).services.snapshots.delete(member, snapshot.id)))
    await a.settled()
    expect(overlaps).toEqual([])
    expect(a.backend.snapshots.size).toBe(0)
  })

  it('take over what one leaves that stood still, and refuse what it writes when it comes back', async () => {
    const gate = createGate(onMethod('createVolume'))
    const a = await createHarness({ dialect: 'PostgreSQL', filters: [gate.filter] })
    const b = await a.reopen()
    const { id } = await a.services.volumes.create(member, newVolume())
    await gate.reached
    expect(await statusOf(a, id)).toBe('creating')
    await a.die()
    await b.settled()
    expect(await statusOf(b, id)).toBe('available')
    // The late end of the creation must not be taken for that of what comes after.
    await b.services.volumes.resetStatus(member, id, 'creating')
    gate.open()
    a.clock.goOn()
    await a.services.idle()
    await vi.waitFor(async () => expect(await a.db('processes')).toHaveLength(2), { timeout: 20_000 })
    expect(await statusOf(b, id)).toBe('creating')
    // It goes on as another process, and works again.
    const again = await availableVolume(a)
    expect(await statusOf(b, again)).toBe('available')
  })

  it('end a request whose process stood still: a detachment is done, a connection is undone', async () => {
    const gate = createGate(onMethod('createExport', 'removeExport'))
    const a = await createHarness({ dialect: 'PostgreSQL', filters: [gate.filter] })
    const b = await a.reopen()
    const [first, second] = [await availableVolume(b), await availableVolume(b)]
    const attached = await b.services.attachments.create(member, newAttachment(first, { connector }))
    const reserved = await b.services.attachments.create(member, newAttachment(second))
    const detaching = outcome(a.services.attachments.delete(member, attached.id))
    const connecting = outcome(a.services.attachments.update(member, reserved.id, connector))
    await vi.waitFor(async () => expect(await a.db('lanes')).toHaveLength(2))
    await a.die()
    await b.settled()
    a.clock.goOn()
    expect(await detaching).toBe('done')
    expect(await connecting).toBe('ServiceUnavailable')
    expect(await statusOf(b, first)).toBe('available')
    expect(await statusOf(b, second)).toBe('reserved')
    gate.open()
    await a.services.idle()
  })

  it('look for what one leaves whenever an administrator asks them to', async () => {
    const gate = createGate(onMethod('createVolume'))
    const a = await createHarness({ dialect: 'PostgreSQL', filters: [gate.filter] })
    const b = await a.reopen({ settings: { work: { ...TEST_SETTINGS.work, heartbeatMs: 3_600_000 } } })
    const { id } = await a.services.volumes.create(member, newVolume())
    await gate.reached
    await a.die()
    const everyService = { serviceId: null, cluster: null, host: null, binary: null, isUp: null, disabled: null }
    const ask = (resourceId: string | null) => b.services.backends.cleanUp(admin, { ...everyService, resourceId })
    const { cleaning } = await ask(id)
    expect(cleaning).toMatchObject([{ binary: 'cinder-volume', host: 'test-host@memory' }])
    // Silence has to last for a while, and to be seen at several looks: nobody looks but for this.
    await vi.waitFor(async () => {
      expect((await ask(null)).cleaning).toHaveLength(3)
      expect(await statusOf(b, id)).toBe('available')
    }, 20_000)
    await expect(ask(id)).rejects.toThrow('no resource with UUID')
  })

  it('hand over at once what one leaves that stops in order', async () => {
    const { a, b } = await twoProcesses({ settings: { stopGraceMs: 0 } })
    await a.services.stop()
    const { id } = await a.services.volumes.create(member, newVolume()) // an answer that was on its way
    await b.settled()
    expect(await statusOf(b, id)).toBe('available')
  })

  it('find a unit whose transaction ended unheard of', async () => {
    const { a, b } = await twoProcesses()
    let lose = false
    // The commit arrives, its answer does not: nobody launches the unit.
    const unheard = await a.reopen({
      wrapDatabase: (db) =>
        new Proxy(db, {
          get: (target, key) =>
            key === 'transaction' && lose
              ? async (work: never) => {
                  await target.transaction(work)
                  throw new Error('the connection was lost')
                }
              : Reflect.get(target, key),
        }),
    })
    lose = true
    await expect(unheard.services.volumes.create(member, newVolume())).rejects.toThrow('lost')
    lose = false
    await b.settled()
    const [row] = await a.db('volumes')
    expect(row.status).toBe('available')
  })
})

describe('a database that goes away', () => {
  it('is a reason to try again later, and its coming back needs no restart', async () => {
    const server = await PostgresServer.create()
    onTestFinished(() => server.dispose())
    const { services, db } = await createHarness({ location: { url: server.url('postgres') } })
    const { id } = await services.volumes.create(member, newVolume())
    await services.idle()
    await server.stop()
    await expect(services.volumes.get(member, id)).rejects.toMatchObject({
      code: 'ServiceUnavailable',
      message: expect.stringMatching(/^The database is not available: /),
    })
    expect(await outcome(services.volumes.create(member, newVolume()))).toBe('ServiceUnavailable')
    await server.start()
    expect((await services.volumes.get(member, id)).status).toBe('available')
    const after = await services.volumes.create(member, newVolume())
    await vi.waitFor(async () => expect((await services.volumes.get(member, after.id)).status).toBe('available'))
    expect(await db('processes')).toHaveLength(1)
  })
})
