import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { errorFilter, onMethod } from '../../src/drivers/wrappers.ts'
import { DIALECTS } from '../db/harness.ts'
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
  stranger,
  TEST_SETTINGS,
} from './harness.ts'

/** Requests that each want a volume for themselves: whoever comes second is refused. */
const EXCLUSIVE = {
  delete: ({ services }: Harness, id: string) => services.volumes.delete(member, id, { cascade: false, force: false }),
  cascade: ({ services }: Harness, id: string) => services.volumes.delete(member, id, { cascade: true, force: false }),
  extend: ({ services }: Harness, id: string) => services.volumes.extend(member, id, 2),
  reserve: ({ services }: Harness, id: string) => services.attachments.create(member, newAttachment(id)),
  attach: ({ services }: Harness, id: string) =>
    services.attachments.create(member, newAttachment(id, { connector: { host: 'h' } })),
} as const

const exclusiveNames = Object.keys(EXCLUSIVE) as (keyof typeof EXCLUSIVE)[]

describe.each(DIALECTS)('requests at the same time on %s', (dialect) => {
  it('that exclude each other: exactly one is done', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.constantFrom(...exclusiveNames), { minLength: 2, maxLength: 6 }), async (names) => {
        // Nothing is worked on before all requests are answered, or an extension could end between two of them.
        const harness = await createHarness({ dialect })
        const id = await availableVolume(harness)
        await harness.services.stop()
        const stopped = await harness.reopen({ start: false })
        const requests = names.map((name) => ({ name, answer: outcome(EXCLUSIVE[name](stopped, id)) }))
        const answers = await Promise.all(requests.map(({ answer }) => answer))
        const refused = answers.filter((answer) => answer === 'InvalidVolume')
        expect(refused).toHaveLength(names.length - 1)
        expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
        await stopped.services.stop()
        await stopped.db.destroy()
      }),
      { numRuns: dialect === 'SQLite' ? 25 : 10 },
    )
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

/** One random request; indices choose among what there is. */
type Step =
  | { do: 'create'; sizeGib: number; project: number }
  | { do: 'clone' | 'snapshot' | 'delete' | 'cascade' | 'force' | 'reset' | 'attach'; volume: number }
  | { do: 'extend'; volume: number; sizeGib: number }
  | { do: 'delete-snapshot' | 'restore' | 'detach'; of: number }
  | { do: 'settle' }

const index = fc.nat({ max: 5 })
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('create'), sizeGib: fc.integer({ min: 1, max: 4 }), project: fc.nat(1) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom('clone', 'snapshot', 'delete', 'cascade', 'force', 'reset', 'attach'),
      volume: index,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('extend'), volume: index, sizeGib: fc.integer({ min: 1, max: 9 }) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('delete-snapshot', 'restore', 'detach'), of: index }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('settle') }) },
) as fc.Arbitrary<Step>

async function perform(harness: Harness, step: Step): Promise<unknown> {
  const { volumes, snapshots, attachments, idle } = harness.services
  const pick = async (table: string, at: number): Promise<string> => {
    const rows = await harness.db(table).orderBy('created_at').select('id')
    return rows[at % Math.max(rows.length, 1)]?.id ?? 'none'
  }
  switch (step.do) {
    case 'create':
      return volumes.create(step.project === 0 ? member : stranger, newVolume({ sizeGib: step.sizeGib }))
    case 'clone':
      return volumes.create(admin, newVolume({ sizeGib: null, sourceVolid: await pick('volumes', step.volume) }))
    case 'snapshot':
      return snapshots.create(admin, newSnapshot(await pick('volumes', step.volume)))
    case 'delete':
    case 'cascade':
    case 'force': {
      const options = { cascade: step.do === 'cascade', force: step.do === 'force' }
      return volumes.delete(admin, await pick('volumes', step.volume), options)
    }
    case 'reset':
      return volumes.resetStatus(admin, await pick('volumes', step.volume), 'available')
    case 'attach': {
      const volumeId = await pick('volumes', step.volume)
      return attachments.create(admin, newAttachment(volumeId, { connector: { host: 'h' } }))
    }
    case 'extend':
      return volumes.extend(admin, await pick('volumes', step.volume), step.sizeGib)
    case 'delete-snapshot':
      return snapshots.delete(admin, await pick('snapshots', step.of))
    case 'restore':
      return volumes.create(admin, newVolume({ sizeGib: null, snapshotId: await pick('snapshots', step.of) }))
    case 'detach':
      return attachments.delete(admin, await pick('attachments', step.of))
    case 'settle':
      return idle()
  }
}

describe.each(DIALECTS)('the count of what a project uses on %s', (dialect) => {
  it('equals a recount of the rows after any requests, failures of the backend included', async () => {
    const quota = { ...TEST_SETTINGS.quota, volumes: 5, snapshots: 3, gigabytes: 20 }
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyStep, { minLength: 5, maxLength: 40 }),
        fc.infiniteStream(fc.boolean()),
        async (steps, coin) => {
          const faults = { matches: () => coin.next().value === true, toString: () => 'a coin' }
          const backendCalls = onMethod(
            'createVolume',
            'createClonedVolume',
            'createVolumeFromSnapshot',
            'deleteVolume',
            'extendVolume',
            'createSnapshot',
            'deleteSnapshot',
            'createExport',
            'removeExport',
          )
          const filters = (['before', 'after'] as const).map((point) =>
            errorFilter({ ...faults, matches: (call) => backendCalls.matches(call) && faults.matches() }, point),
          )
          const harness = await createHarness({
            dialect,
            filters,
            settings: { quota, work: { ...TEST_SETTINGS.work, attemptsMax: 2 } },
          })
          for (const step of steps) {
            await outcome(perform(harness, step))
            const [kept, counted] = await harness.db.transaction(async (trx) => {
              if (dialect === 'PostgreSQL') await trx.raw('set transaction isolation level repeatable read')
              return [await keptUsage(trx), await recount(trx)]
            })
            expect(kept).toEqual(counted)
          }
          await harness.services.idle()
          expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
          expect(await harness.db('work')).toEqual([])
          expect(await harness.db('volumes').whereIn('status', ['creating', 'deleting', 'extending'])).toEqual([])
          await harness.services.stop()
          await harness.db.destroy()
        },
      ),
      { numRuns: dialect === 'SQLite' ? 30 : 8 },
    )
  })
})
