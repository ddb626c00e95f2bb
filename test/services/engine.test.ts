import assert from 'node:assert/strict'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Db } from '../../src/db/database.ts'
import { ServiceError } from '../../src/errors.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { createStamp } from '../../src/services/stamp.ts'
import { createWorkEngine, type WorkOrder } from '../../src/services/work/engine.ts'
import type { WorkKind, WorkKindName, WorkUnit } from '../../src/services/work/kind.ts'
import { createMembership } from '../../src/services/work/membership.ts'
import { backoffMs, DEFAULT_WORK, isWorthRepeating, type WorkSettings } from '../../src/services/work/retry.ts'
import { DIALECTS, openTestDatabase, volumeRow } from '../db/harness.ts'
import { PausableClock } from '../tools/pausable-clock.ts'
import { outcome } from './harness.ts'

const failure = new ServiceError('BackendFailure', { reason: 'not now' })

it('waits twice as long after each attempt, up to a bound, and repeats only what may change', () => {
  const settings = { ...DEFAULT_WORK, backoffMs: 100, backoffMaxMs: 350, attemptsMax: 3 }
  expect([1, 2, 3, 40].map((attempt) => backoffMs(attempt, settings))).toEqual([100, 200, 350, 350])
  expect(isWorthRepeating(failure, 2, settings)).toBe(true)
  expect(isWorthRepeating(failure, 3, settings)).toBe(false)
  expect(isWorthRepeating(new ServiceError('SnapshotNotFound'), 1, settings)).toBe(false)
})

describe.each(DIALECTS)('an engine on %s', (dialect) => {
  /** An engine whose every kind is the one under test. */
  async function createEngine(kind: WorkKind, settings: Partial<WorkSettings> = {}, database?: Db) {
    const db = database ?? (await openTestDatabase(dialect)).db
    const clock = new PausableClock()
    const kinds = new Proxy({} as Record<WorkKindName, WorkKind>, { get: () => kind })
    const allSettings = {
      ...DEFAULT_WORK,
      attemptsMax: 3,
      backoffMs: 1,
      backoffMaxMs: 2,
      heartbeatMs: 100, // what nobody runs at two beats is given up: longer than a commit takes on a busy machine
      deadAfterMs: 5000,
      ...settings,
    }
    const lines: { level: number; msg: string }[] = []
    const log = createLog('warn', { write: (line) => lines.push(JSON.parse(line)) })
    const logged = (level: 'fatal') => lines.filter((line) => line.level === log.levels.values[level])
    const parts = { db, random: systemRandom, log, stamp: createStamp(systemClock) }
    const engine = createWorkEngine({
      ...parts,
      clock,
      membership: createMembership({ ...parts, host: 'a host', pid: 1, settings: allSettings }),
      settings: allSettings,
      kinds,
      recordFailure: async () => {},
    })
    onTestFinished(() => engine.stop(1000))
    const order = (resourceId: string, changes: Partial<WorkOrder> = {}): Promise<WorkUnit> =>
      db.transaction((trx) =>
        engine.enqueue(trx, {
          kind: 'volume-create',
          resourceId,
          lane: resourceId,
          step: 'only',
          requestId: 'req-1',
          ...changes,
        }),
      )
    return { db, engine, order, clock, logged }
  }

  const done = { commit: async () => {} }

  it('repeats a failing step until it works', async () => {
    const seen: string[] = []
    const { db, engine, order } = await createEngine({
      attempt: async ({ attempt, lastError }) => {
        seen.push(`${attempt} after ${lastError}`)
        if (attempt < 3) throw failure
        return done
      },
      giveUp: () => expect.unreachable(),
    })
    await engine.start()
    await engine.finish(await order('r'))
    const message = 'The storage backend failed: not now'
    expect(seen).toEqual(['1 after null', `2 after ${message}`, `3 after ${message}`])
    expect(await db('work')).toEqual([])
    const kind = 'volume-create'
    expect(engine.counts()).toEqual({
      running: 0,
      done: new Map([[kind, 1]]),
      repeated: new Map([[kind, 2]]),
      givenUp: new Map(),
    })
  })

  it('lets others in between the steps of work that takes all slots', async () => {
    const ended: string[] = []
    let steps = 0
    const { engine, order } = await createEngine(
      {
        attempt: async ({ resourceId }) => {
          const isLong = resourceId.startsWith('long')
          if (isLong && !ended.includes('short')) {
            steps++
            return { ...done, next: 'more' } // without end, unless the short one has its turn
          }
          ended.push(resourceId)
          return done
        },
        giveUp: () => expect.unreachable(),
      },
      { concurrency: 2 },
    )
    await engine.start()
    const long = [await order('long 1'), await order('long 2')].map((unit) => engine.finish(unit))
    await engine.finish(await order('short'))
    await Promise.all(long)
    expect(ended.toSorted()).toEqual(['long 1', 'long 2', 'short'])
    expect(steps).toBeGreaterThan(0)
  })

  it('gives up after the last attempt, goes through the undoing step, and tells the first reason', async () => {
    const steps: string[] = []
    const { engine, order } = await createEngine({
      attempt: async ({ step, attempt }) => {
        steps.push(`${step} ${attempt}`)
        if (step === 'only') throw failure
        return done
      },
      giveUp: ({ step }) => ({ ...done, next: `undo ${step}` }),
    })
    await engine.start()
    await expect(engine.finish(await order('r'))).rejects.toThrow(failure)
    expect(steps).toEqual(['only 1', 'only 2', 'only 3', 'undo only 1'])
    const { done: succeeded, repeated, givenUp } = engine.counts()
    expect([succeeded.size, repeated.get('volume-create'), givenUp.get('volume-create')]).toEqual([0, 2, 1])
  })

  it('gives up at once on an error that stays, and takes any error for one of the backend', async () => {
    let attempts = 0
    const errors: Error[] = [new ServiceError('SnapshotNotFound', { snapshot_id: 's' }), new TypeError('a bug')]
    const { engine, order } = await createEngine(
      {
        attempt: async () => {
          throw errors[Math.min(attempts++, 1)]
        },
        giveUp: () => done,
      },
      { attemptsMax: 1 },
    )
    await engine.start()
    expect(await outcome(engine.finish(await order('r1')))).toBe('SnapshotNotFound')
    await expect(engine.finish(await order('r2'))).rejects.toThrow('The storage backend failed: a bug')
    expect(attempts).toBe(2)
  })

  it('takes an attempt for failed that does not answer in time', async () => {
    const { engine, order } = await createEngine(
      { attempt: () => new Promise(() => {}), giveUp: () => done },
      { attemptsMax: 1, attemptTimeoutMs: 5 },
    )
    await engine.start()
    await expect(engine.finish(await order('r'))).rejects.toThrow('no answer within 5 ms')
  })

  it('runs one unit of a lane at a time, and no more in all than there are slots', async () => {
    const running = new Set<string>()
    const finished: string[] = []
    let mostAtOnce = 0
    let release = () => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    const { db, engine, order } = await createEngine(
      {
        attempt: async ({ lane, resourceId }) => {
          expect(running.has(lane)).toBe(false)
          running.add(lane)
          mostAtOnce = Math.max(mostAtOnce, running.size)
          await held
          running.delete(lane)
          finished.push(resourceId)
          return done
        },
        giveUp: () => expect.unreachable(),
      },
      { concurrency: 3 },
    )
    await engine.start()
    const resources = Array.from({ length: 40 }, (_, index) => String(index).padStart(2, '0'))
    for (const resourceId of resources) {
      engine.launch(await order(resourceId, { lane: `lane ${Number(resourceId) % 7}` }))
    }
    release()
    await engine.idle()
    expect(finished.toSorted()).toEqual(resources)
    expect(mostAtOnce).toBe(3)
    expect(await db('work')).toEqual([])
  })

  it('drops the result of a unit that another one replaced', async () => {
    const written = (name: string) => ({ project_id: name, volumes: 1, snapshots: 0, gigabytes: 0 })
    let release = () => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    const { db, engine, order } = await createEngine({
      attempt: async ({ params }) => {
        if (params.name === 'first') await held
        return { commit: (trx) => trx('usages').insert(written(String(params.name))) }
      },
      giveUp: () => expect.unreachable(),
    })
    await engine.start()
    const first = outcome(engine.finish(await order('r', { params: { name: 'first' } })))
    const second = outcome(engine.finish(await order('r', { params: { name: 'second' } })))
    release()
    expect(await first).toBe('ResourceConflict')
    expect(await second).toBe('done')
    expect(await db('usages').pluck('project_id')).toEqual(['second'])
  })

  it('writes a result and the end of its unit together, or neither', async () => {
    let commits = 0
    const { db, engine, order } = await createEngine({
      attempt: async () => ({
        commit: async (trx) => {
          await trx('usages').insert({ project_id: 'p', volumes: 1, snapshots: 0, gigabytes: 0 })
          if (commits++ === 0) throw new Error('the disk is full')
        },
      }),
      giveUp: () => expect.unreachable(),
    })
    await engine.start()
    expect(await outcome(engine.finish(await order('r')))).toBe('done')
    expect(await db('usages')).toHaveLength(1)
    expect(commits).toBe(2)
    expect(engine.counts().repeated.get('volume-create')).toBe(1)
    expect(await db('work')).toEqual([])
  })

  it('gives up a step whose result cannot be written, and says so loudly where the program is wrong', async () => {
    const reasons: string[] = []
    let attempts = 0
    const { db, engine, order, logged } = await createEngine({
      attempt: async () => {
        attempts += 1
        return { commit: async () => assert(false, 'one and one is\0 three') }
      },
      giveUp: (_unit, error) => ({
        commit: async () => {
          reasons.push(error.message)
        },
      }),
    })
    await engine.start()
    expect(await outcome(engine.finish(await order('r')))).toBe('ResultNotRecorded')
    expect(attempts).toBe(3)
    expect(reasons).toEqual(['What was done could not be recorded: one and one is three'])
    expect(logged('fatal').map(({ msg }) => msg)).toEqual([
      'work failed and will be repeated',
      'work failed and will be repeated',
      'work failed and was given up',
    ])
    expect(await db('work')).toEqual([])
  })

  it('abandons a unit that can neither be done nor given up, and leaves a status with the reason', async () => {
    let attempts = 0
    let givenUp = 0
    const broken = { commit: async () => assert.fail('one and one is three') }
    const { db, engine, order, logged } = await createEngine({
      attempt: async () => {
        attempts += 1
        return broken
      },
      giveUp: () => {
        givenUp += 1
        return { commit: async () => assert.fail('two and two is five') }
      },
    })
    await db('volumes').insert(volumeRow({ id: 'r', status: 'creating' }))
    await engine.start()
    expect(await outcome(engine.finish(await order('r')))).toBe('ResultNotRecorded')
    expect([attempts, givenUp]).toEqual([6, 4])
    expect(await db('volumes').first()).toMatchObject({
      status: 'error',
      status_reason:
        'What was done could not be recorded: one and one is three What was done could not be recorded: two and two is five',
    })
    expect(logged('fatal').at(-1)).toMatchObject({ resourceId: 'r', msg: expect.stringContaining('abandoned') })
    expect(await db('work')).toEqual([])
    expect(await db('lanes')).toEqual([])
  })

  it('waits for a database that is away for as long as that takes', async () => {
    let commits = 0
    const { db, engine, order } = await createEngine({
      attempt: async () => ({
        commit: async () => {
          if (commits++ < 20) throw new ServiceError('ServiceUnavailable', { reason: 'The database is not available.' })
        },
      }),
      giveUp: () => expect.unreachable(),
    })
    await engine.start()
    expect(await outcome(engine.finish(await order('r')))).toBe('ServiceUnavailable')
    await engine.idle()
    expect(commits).toBe(21)
    expect(await db('work')).toEqual([])
  })

  it('goes on at the step that a kind names after a crash', async () => {
    const steps: string[] = []
    const kind: WorkKind = {
      resumeAt: (step) => `after ${step}`,
      attempt: async ({ step }) => {
        steps.push(step)
        return done
      },
      giveUp: () => expect.unreachable(),
    }
    const { db, engine, order } = await createEngine(kind)
    engine.launch(await order('r')) // not started: only the row is there
    expect(steps).toEqual([])
    const next = await createEngine(kind, {}, db)
    await next.engine.start()
    await next.engine.idle()
    expect(steps).toEqual(['after only'])
  })
})
