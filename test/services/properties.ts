import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createMemoryBackend, createMemoryDriver, type MemoryBackend } from '../../src/drivers/memory.ts'
import { type DriverCall, type DriverFilter, errorFilter, onMethod } from '../../src/drivers/wrappers.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { DIALECTS, type Dialect } from '../db/harness.ts'
import { checkAtRest, checkBackends } from './at-rest.ts'
import {
  admin,
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
import { anyGentleStep, anyStep, OTHER_TYPE, perform, populate, type Step } from './random-requests.ts'

/** Requests that change the status of a volume at once, in the words of the table. */
const ACTIONS: Record<string, (harness: Harness, id: string) => Promise<unknown>> = {
  delete: ({ services }, id) => services.volumes.delete(member, id, { cascade: false, force: false }),
  cascade: ({ services }, id) => services.volumes.delete(member, id, { cascade: true, force: false }),
  unmanage: ({ services }, id) => services.volumes.unmanage(admin, id),
  extend: ({ services }, id) => services.volumes.extend(member, id, 2),
  retype: ({ services }, id) => services.volumes.retype(member, id, { newType: 'other', migrationPolicy: 'never' }),
  migrate: ({ services }, id) => services.volumes.migrate(admin, id, { host: 'test-host@memory#other', cluster: null }),
  reserve: ({ services }, id) => services.attachments.create(member, newAttachment(id)),
  attach: ({ services }, id) => services.attachments.create(member, newAttachment(id, { connector: { host: 'h' } })),
  claim: ({ services }, id) => services.connections.reserve(member, id),
  connect: ({ services }, id) => services.connections.initialize(member, id, { host: 'h' }),
  'take in use': ({ services }, id) => services.connections.attach(member, id, oldAttach),
  'begin to detach': ({ services }, id) => services.volumes.beginDetaching(member, id),
  'set read-only': ({ services }, id) => services.volumes.setReadonly(member, id, true),
  snapshot: ({ services }, id) => services.snapshots.create(member, newSnapshot(id)),
  clone: ({ services }, id) => services.volumes.create(member, newVolume({ sourceVolid: id })),
  rename: ({ services }, id) => services.volumes.update(member, id, { name: 'new' }),
}

const oldAttach = { instanceId: null, hostName: 'h', mountpoint: '/dev/vdb', mode: 'rw' as const }

/** Those of which each takes a volume that is available, so that whoever comes second is refused. */
const EXCLUSIVE = [
  'delete',
  'cascade',
  'unmanage',
  'extend',
  'retype',
  'migrate',
  'reserve',
  'attach',
  'claim',
] as const satisfies readonly (keyof typeof ACTIONS)[]

/** An attachment with a connector waits for work that does not come here; by then it is accepted. */
const accepted = (answer: string) => answer === 'done' || answer === 'ServiceUnavailable'

/** Services that answer requests and work on none, or an extension could end between two of them. */
async function answering(dialect: Dialect): Promise<Harness> {
  const harness = await createHarness({ dialect })
  await harness.services.types.create(admin, { name: 'other', description: null, isPublic: true, extraSpecs: {} })
  await harness.services.stop()
  return harness.reopen({ start: false })
}

async function placedVolume(harness: Harness): Promise<string> {
  const { id } = await harness.services.volumes.create(member, newVolume())
  await harness.db('volumes').where({ id }).update({ status: 'available', host: 'test-host@memory#memory' })
  await harness.db('work').where({ resource_id: id }).delete()
  return id
}

/** What is left of a volume, for comparing: its status, what hangs on it, and whether work goes on. */
async function traceOf({ db }: Harness, id: string): Promise<string> {
  const volume = await db('volumes').where({ id }).first('status', 'name', 'admin_metadata', 'migration_status')
  const attached = await db('attachments').where({ volume_id: id }).select('status').orderBy('status')
  const children = await db('snapshots').where({ volume_id: id }).select('status')
  const work = await db('work').where({ lane: id }).select('kind').orderBy('kind')
  const clones = await db('volumes').where({ source_volid: id }).select('status')
  return JSON.stringify([volume, attached, children, work, clones])
}

/** A backend some of whose calls fail, before or after they took effect. */
function unreliable(coin: Iterator<boolean>): DriverFilter[] {
  const calls = onMethod(
    'createVolume',
    'createClonedVolume',
    'createVolumeFromSnapshot',
    'deleteVolume',
    'extendVolume',
    'createSnapshot',
    'deleteSnapshot',
    'revertToSnapshot',
    'createExport',
    'removeExport',
    'openVolume',
    'openSnapshot',
  )
  const toss = {
    matches: (call: DriverCall) => calls.matches(call) && coin.next().value === true,
    toString: () => 'a coin',
  }
  return (['before', 'after'] as const).map((point) => errorFilter(toss, point))
}

interface SmallCloud extends Harness {
  /** By name: `memory` and one to migrate to. */
  backends: Record<string, MemoryBackend>
}

/** `filters` begin when there is something of everything. */
async function smallCloud(dialect: Dialect, filters: DriverFilter[]): Promise<SmallCloud> {
  let isPopulated = false
  const quota = { ...TEST_SETTINGS.quota, volumes: 7, snapshots: 4, gigabytes: 30, backups: 4 }
  const other = createMemoryBackend(1000)
  const harness = await createHarness({
    dialect,
    filters: filters.map((filter) => ({
      ...filter,
      around: (call, next) => (isPopulated ? filter.around(call, next) : next()),
    })),
    settings: { quota, work: { ...TEST_SETTINGS.work, attemptsMax: 2 } },
    others: [{ name: 'other', availabilityZone: 'east', driver: createMemoryDriver(other, systemRandom) }],
  })
  await harness.services.types.create(admin, OTHER_TYPE)
  await populate(harness)
  isPopulated = true
  return { ...harness, backends: { memory: harness.backend, other } }
}

async function close({ services, db }: Harness): Promise<void> {
  await services.stop()
  await db.destroy()
}

/** What must hold whatever is asked; each is tried with so many inputs on each database. */
export function describeProperties(runs: Readonly<Record<Dialect, number>>): void {
  describe.each(DIALECTS)('requests at the same time on %s', (dialect) => {
    it('that exclude each other: exactly one is done', async () => {
      const harness = await answering(dialect)
      await fc.assert(
        fc.asyncProperty(fc.array(fc.constantFrom(...EXCLUSIVE), { minLength: 2, maxLength: 6 }), async (names) => {
          const id = await placedVolume(harness)
          const answers = await Promise.all(names.map((name) => outcome(ACTIONS[name]!(harness, id))))
          expect(answers.filter(accepted), `${names}: ${answers}`).toHaveLength(1)
          expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
        }),
        { numRuns: runs[dialect] },
      )
    })

    const pairs = Object.keys(ACTIONS).flatMap((one, at, all) => all.slice(at).map((other) => [one, other] as const))
    it.each(Object.keys(ACTIONS))('%s and any other: as if one had come after the other', async (one) => {
      const harness = await answering(dialect)
      for (const [, other] of pairs.filter(([first]) => first === one)) {
        const oneAfterTheOther: string[] = []
        for (const order of [
          [one, other],
          [other, one],
        ]) {
          const id = await placedVolume(harness)
          const answers: Record<string, boolean[]> = {}
          for (const name of order)
            answers[name] = [...(answers[name] ?? []), accepted(await outcome(ACTIONS[name]!(harness, id)))]
          oneAfterTheOther.push(
            JSON.stringify([answers[one]!.sort(), answers[other]!.sort()]) + (await traceOf(harness, id)),
          )
        }
        const id = await placedVolume(harness)
        const [first, second] = await Promise.all(
          [one, other].map(async (name) => accepted(await outcome(ACTIONS[name]!(harness, id)))),
        )
        const answers = one === other ? [[first, second].sort(), [first, second].sort()] : [[first], [second]]
        expect(oneAfterTheOther, `${one} and ${other}`).toContain(
          JSON.stringify(answers) + (await traceOf(harness, id)),
        )
      }
    })

    it('cannot share the last unit of a quota', async () => {
      const quota = { ...TEST_SETTINGS.quota, volumes: 3, gigabytes: 10 }
      const harness = await createHarness({ dialect, settings: { quota } })
      const answers = await Promise.all(
        Array.from({ length: 10 }, () => outcome(harness.services.volumes.create(member, newVolume({ sizeGib: 3 })))),
      )
      expect(answers.filter((answer) => answer === 'done')).toHaveLength(3)
      expect(answers.filter((answer) => answer === 'QuotaExceeded')).toHaveLength(7)
      await harness.services.idle()
    })
  })

  describe.each(DIALECTS)('the count of what a project uses on %s', (dialect) => {
    it('equals a recount of the rows after any requests, failures of the backend included', async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(anyStep, { minLength: 5, maxLength: 40 }),
          fc.infiniteStream(fc.boolean()),
          async (steps, coin) => {
            const harness = await smallCloud(dialect, unreliable(coin))
            for (const step of steps) {
              await outcome(perform(harness, step))
              const [kept, counted] = await harness.db.transaction(async (trx) => {
                if (dialect === 'PostgreSQL') await trx.raw('set transaction isolation level repeatable read')
                return [await keptUsage(trx), await recount(trx)]
              })
              expect(kept).toEqual(counted)
            }
            await harness.services.idle()
            await checkAtRest(harness)
            await close(harness)
          },
        ),
        { numRuns: runs[dialect] },
      )
    })
  })

  describe.each(DIALECTS)('any requests at the same time on %s', (dialect) => {
    const batchesOf = (steps: fc.Arbitrary<Step>) =>
      fc.array(fc.array(steps, { minLength: 4, maxLength: 10 }), { minLength: 3, maxLength: 8 })

    async function inBatches(batches: Step[][], filters: DriverFilter[]): Promise<SmallCloud> {
      const harness = await smallCloud(dialect, filters)
      for (const batch of batches) await Promise.all(batch.map((step) => outcome(perform(harness, step))))
      await harness.settled()
      await checkAtRest(harness)
      return harness
    }

    it('leave nothing that waits, nothing counted wrong, and what the backends have', async () => {
      await fc.assert(
        fc.asyncProperty(batchesOf(anyGentleStep), async (batches) => {
          const harness = await inBatches(batches, [])
          await checkBackends(harness.db, harness.backends)
          await close(harness)
        }),
        { numRuns: runs[dialect] },
      )
    }, 240_000)

    it('leave nothing that waits, and nothing counted wrong, whatever fails or is broken off', async () => {
      await fc.assert(
        fc.asyncProperty(batchesOf(anyStep), fc.infiniteStream(fc.boolean()), async (batches, coin) => {
          await close(await inBatches(batches, unreliable(coin)))
        }),
        { numRuns: runs[dialect] },
      )
    }, 240_000)
  })
}
