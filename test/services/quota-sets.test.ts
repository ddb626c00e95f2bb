import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/database.ts'
import * as volumes from '../../src/db/volumes.ts'
import { endRetype, reserveRetype } from '../../src/services/accounting.ts'
import {
  admin,
  availableVolume,
  createHarness,
  type Harness,
  keptTypes,
  keptUsage,
  member,
  newSnapshot,
  newVolume,
  outcome,
  recount,
  recountTypes,
  stranger,
  TEST_SETTINGS,
} from './harness.ts'

const PROJECT = member.projectId

async function withType(options: Parameters<typeof createHarness>[0] = {}): Promise<Harness & { typeId: string }> {
  const harness = await createHarness(options)
  const fast = { name: 'fast', description: null, isPublic: true, extraSpecs: {} }
  return { ...harness, typeId: (await harness.services.types.create(admin, fast)).id }
}

/** Nothing when the volume is gone. */
async function retype(db: Db, volumeId: string, typeId: string): Promise<void> {
  await db.transaction(async (trx) => {
    const row = await volumes.lock(trx, volumeId)
    if (row === undefined || row.volume_type_id === typeId) return
    const at = '2026-01-01T00:00:00.000000'
    await reserveRetype(trx, row, typeId, TEST_SETTINGS.quota, at)
    const reserved = { ...row, pending_volume_type_id: typeId }
    await endRetype(trx, reserved, at, { isDone: true })
  })
}

describe('limits', () => {
  it('are those of the project, else of the class default, else of the settings; a type has none', async () => {
    const { services } = await withType()
    const { quotas } = services
    const ofSettings = {
      volumes: 1000,
      snapshots: 1000,
      gigabytes: 100_000,
      per_volume_gigabytes: -1,
      backups: 10,
      backup_gigabytes: 1000,
      groups: 10,
      ...{ volumes___DEFAULT__: -1, snapshots___DEFAULT__: -1, gigabytes___DEFAULT__: -1 },
      ...{ volumes_fast: -1, snapshots_fast: -1, gigabytes_fast: -1 },
    }
    expect(await quotas.get(member, PROJECT)).toEqual(ofSettings)
    expect(await quotas.defaults(member, PROJECT)).toEqual(ofSettings)
    expect(await quotas.getClass(admin, 'default')).toEqual(ofSettings)

    const ofClass = { ...ofSettings, volumes: 20, groups: 5, volumes_fast: 3 }
    expect(await quotas.updateClass(admin, 'default', { volumes: 20, groups: 5, volumes_fast: 3 })).toEqual(ofClass)
    const own = { ...ofClass, volumes: 7, gigabytes_fast: 30 }
    expect(await quotas.update(admin, PROJECT, { volumes: 6, gigabytes_fast: 30 })).toMatchObject({ volumes: 6 })
    expect(await quotas.update(admin, PROJECT, { volumes: 7 })).toEqual(own)
    expect(await quotas.get(member, PROJECT)).toEqual(own)
    expect(await quotas.defaults(member, PROJECT)).toEqual(ofClass)
    expect(await quotas.get(stranger, stranger.projectId)).toEqual(ofClass)

    await quotas.updateClass(admin, 'other', { volumes: 1 })
    expect(await quotas.getClass(admin, 'other')).toEqual({ ...ofClass, volumes: 1 })
    expect(await quotas.get(stranger, stranger.projectId)).toEqual(ofClass)

    await quotas.reset(admin, PROJECT)
    expect(await quotas.get(member, PROJECT)).toEqual(ofClass)
  })

  it('follow their type to another name, and go with it', async () => {
    const { services, typeId } = await withType()
    await services.quotas.update(admin, PROJECT, { volumes_fast: 4 })
    await services.types.update(admin, typeId, { name: 'swift' })
    const renamed = await services.quotas.get(member, PROJECT)
    expect([renamed.volumes_swift, renamed.volumes_fast]).toEqual([4, undefined])
    await services.types.delete(admin, typeId)
    await services.types.create(admin, { name: 'swift', description: null, isPublic: true, extraSpecs: {} })
    expect((await services.quotas.get(member, PROJECT)).volumes_swift).toBe(-1)
  })

  it('are refused all together when one of them is of nothing', async () => {
    const { quotas } = (await withType()).services
    const changes = { volumes: 1, cores: 2, volumes_slow: 3 }
    await expect(quotas.update(admin, PROJECT, changes)).rejects.toThrow(
      'Invalid input received: Bad key(s) in quota set: cores, volumes_slow',
    )
    await expect(quotas.updateClass(admin, 'default', changes)).rejects.toThrow(
      'Invalid input received: Bad key(s) in quota class set: cores, volumes_slow',
    )
    expect((await quotas.get(member, PROJECT)).volumes).toBe(1000)
  })

  it('of a project do not go below what it uses once it has its own', async () => {
    const harness = await withType()
    const { quotas } = harness.services
    await availableVolume(harness, { volumeType: 'fast', sizeGib: 5 })
    expect((await quotas.update(admin, PROJECT, { gigabytes: 4, gigabytes_fast: 4 })).gigabytes).toBe(4)
    await expect(quotas.update(admin, PROJECT, { gigabytes_fast: 3 })).rejects.toThrow(
      'Quota gigabytes_fast limit must be equal or greater than existing resources. ' +
        'Current usage is 5 and the requested limit is 3.',
    )
    expect(await quotas.update(admin, PROJECT, { gigabytes: -1, gigabytes_fast: 5 })).toMatchObject({ gigabytes: -1 })
  })
})

describe('what is used', () => {
  it('is told by quota, with and without the type', async () => {
    const harness = await withType()
    const { services } = harness
    const id = await availableVolume(harness, { volumeType: 'fast', sizeGib: 5 })
    await availableVolume(harness, { sizeGib: 2 })
    await services.snapshots.create(member, newSnapshot(id))
    await services.quotas.update(admin, PROJECT, { volumes_fast: 9 })
    expect(await services.quotas.usage(member, PROJECT)).toMatchObject({
      volumes: { limit: 1000, used: 2 },
      gigabytes: { limit: 100_000, used: 12 },
      snapshots: { limit: 1000, used: 1 },
      volumes_fast: { limit: 9, used: 1 },
      gigabytes_fast: { limit: -1, used: 10 },
      snapshots_fast: { limit: -1, used: 1 },
      volumes___DEFAULT__: { limit: -1, used: 1 },
      snapshots___DEFAULT__: { limit: -1, used: 0 },
      groups: { limit: 10, used: 0 },
      per_volume_gigabytes: { limit: -1, used: 0 },
    })
    expect((await services.quotas.usage(stranger, stranger.projectId)).volumes_fast).toEqual({ limit: -1, used: 0 })
  })

  it('stays within the limits of the type when volumes, snapshots and growth are asked for', async () => {
    const harness = await withType()
    const { services } = harness
    await services.quotas.update(admin, PROJECT, { volumes_fast: 1, snapshots_fast: 0, gigabytes_fast: 5 })
    const fast = (sizeGib: number) => services.volumes.create(member, newVolume({ volumeType: 'fast', sizeGib }))
    await expect(fast(6)).rejects.toThrow('exceeds allowed gigabytes_fast quota. Requested 6G, quota is 5G and 0G')
    const id = await availableVolume(harness, { volumeType: 'fast', sizeGib: 3 })
    await expect(fast(1)).rejects.toThrow("(1) exceeded for quota 'volumes_fast'.")
    await expect(services.volumes.extend(member, id, 6)).rejects.toThrow('exceeds allowed gigabytes_fast quota.')
    await expect(services.snapshots.create(member, newSnapshot(id))).rejects.toThrow('gigabytes_fast')
    await services.quotas.update(admin, PROJECT, { gigabytes_fast: -1 })
    await expect(services.snapshots.create(member, newSnapshot(id))).rejects.toThrow(
      'SnapshotLimitExceeded: Maximum number of snapshots allowed (0) exceeded',
    )
    await services.volumes.create(member, newVolume({ sizeGib: 7 }))
    expect(await keptTypes(harness.db)).toEqual(await recountTypes(harness.db))
  })

  it('stays within per_volume_gigabytes of the project', async () => {
    const harness = await withType()
    const { services } = harness
    await services.quotas.updateClass(admin, 'default', { per_volume_gigabytes: 4 })
    const create = (sizeGib: number) => services.volumes.create(member, newVolume({ sizeGib }))
    await expect(create(5)).rejects.toThrow('Requested volume size 5G is larger than maximum allowed limit 4G.')
    await services.quotas.update(admin, PROJECT, { per_volume_gigabytes: 5 })
    const id = await availableVolume(harness, { sizeGib: 5 })
    await expect(services.volumes.extend(member, id, 6)).rejects.toThrow('VolumeSizeExceedsLimit')
  })

  it('cannot share the last unit of a type', async () => {
    const harness = await withType()
    const { services } = harness
    await services.quotas.updateClass(admin, 'default', { volumes_fast: 3 })
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => outcome(services.volumes.create(member, newVolume({ volumeType: 'fast' })))),
    )
    expect(answers.filter((answer) => answer === 'done')).toHaveLength(3)
    expect(answers.filter((answer) => answer === 'QuotaExceeded')).toHaveLength(5)
  })

  it('never passes what the database can count', async () => {
    const quota = { ...TEST_SETTINGS.quota, gigabytes: -1 }
    const { services } = await withType({ settings: { quota } })
    const huge = () => services.volumes.create(member, newVolume({ sizeGib: 2_000_000_000 }))
    await huge()
    await expect(huge()).rejects.toThrow(
      "QuotaUsageOverflow: Quota usage would overflow for resources: ['gigabytes', 'gigabytes___DEFAULT__'].",
    )
  })
})

describe('a volume that gets another type', () => {
  it('takes its count and that of its snapshots along, also those of other projects', async () => {
    const harness = await withType()
    const { services, db, typeId } = harness
    const id = await availableVolume(harness, { sizeGib: 2 })
    await services.snapshots.create(member, newSnapshot(id))
    await services.snapshots.create(admin, newSnapshot(id))
    await services.idle()
    const before = await keptUsage(db)
    await retype(db, id, typeId)
    await retype(db, id, typeId)
    expect(await keptUsage(db)).toEqual(before)
    expect(await keptTypes(db)).toEqual({
      [`${PROJECT}/${typeId}`]: { volumes: 1, snapshots: 1, gigabytes: 4 },
      [`${admin.projectId}/${typeId}`]: { volumes: 0, snapshots: 1, gigabytes: 2 },
    })
    await services.volumes.delete(admin, id, { cascade: true, force: false })
    await services.idle()
    expect(await keptTypes(db)).toEqual({})
  })

  it('stays what it is when a limit of the new type is in the way', async () => {
    const harness = await withType()
    const { services, db, typeId } = harness
    const id = await availableVolume(harness, { sizeGib: 2 })
    await services.quotas.update(admin, PROJECT, { volumes_fast: 0 })
    await expect(retype(db, id, typeId)).rejects.toThrow("(0) exceeded for quota 'volumes_fast'.")
    expect((await services.volumes.get(member, id)).volumeTypeName).toBe('__DEFAULT__')
    expect(await keptTypes(db)).toEqual(await recountTypes(db))
  })
})

it('counts volumes that get one type and the other, come and go, all at the same time', async () => {
  const { services, db, typeId } = await withType()
  const preset = await services.types.getDefault(member)
  const ids = await Promise.all(
    Array.from({ length: 6 }, async (_, index) => {
      const { id } = await services.volumes.create(member, newVolume({ volumeType: index % 2 ? typeId : null }))
      return id
    }),
  )
  await services.idle()
  for (const id of ids) await services.snapshots.create(member, newSnapshot(id))
  await services.idle()
  const requests = ids.flatMap((id, index) => [
    retype(db, id, index % 2 ? preset.id : typeId),
    retype(db, id, index % 2 ? typeId : preset.id),
    services.volumes.create(member, newVolume({ volumeType: index % 2 ? typeId : null })),
    index < 2 ? services.volumes.delete(member, id, { cascade: true, force: false }) : services.volumes.get(member, id),
  ])
  await Promise.all(requests)
  await services.idle()
  expect(await keptUsage(db)).toEqual(await recount(db))
  expect(await keptTypes(db)).toEqual(await recountTypes(db))
})

it('lets a type go or volumes get it, whichever comes first', async () => {
  const { services, db } = await createHarness()
  for (let round = 0; round < 4; round++) {
    const type = { name: `type ${round}`, description: null, isPublic: true, extraSpecs: {} }
    const { id } = await services.types.create(admin, type)
    const create = () => outcome(services.volumes.create(member, newVolume({ volumeType: id })))
    const [first, second, deletion, third] = await Promise.all([
      create(),
      create(),
      outcome(services.types.delete(admin, id)),
      create(),
    ])
    const created = [first, second, third]
    if (deletion === 'done') expect(new Set(created)).toEqual(new Set(['VolumeTypeNotFound']))
    else expect([deletion, ...new Set(created)]).toEqual(['InvalidInput', 'done'])
  }
  await services.idle()
  expect(await keptTypes(db)).toEqual(await recountTypes(db))
})

const anyStep = fc.oneof(
  fc.record({ do: fc.constant('create' as const), fast: fc.boolean(), sizeGib: fc.integer({ min: 1, max: 6 }) }),
  fc.record({ do: fc.constant('snapshot' as const), of: fc.nat() }),
  fc.record({ do: fc.constant('extend' as const), of: fc.nat(), sizeGib: fc.integer({ min: 2, max: 8 }) }),
  fc.record({ do: fc.constant('retype' as const), of: fc.nat(), fast: fc.boolean() }),
  fc.record({ do: fc.constant('delete' as const), of: fc.nat() }),
  fc.record({
    do: fc.constant('limit' as const),
    owner: fc.constantFrom('project' as const, 'class' as const),
    name: fc.constantFrom('volumes', 'snapshots', 'gigabytes', 'volumes_fast', 'snapshots_fast', 'gigabytes_fast'),
    limit: fc.integer({ min: -1, max: 12 }),
  }),
)

/** What a request adds, by the names of quotas, worked out from the rows alone. */
type Growth = Record<string, number>

function growth(fast: boolean, amounts: Record<'volumes' | 'snapshots' | 'gigabytes', number>): Growth {
  const suffix = fast ? '_fast' : '___DEFAULT__'
  return Object.fromEntries(
    Object.entries(amounts).flatMap(([name, n]) => [
      [name, n],
      [name + suffix, n],
    ]),
  )
}

it('lets through exactly what fits into the limits, and counts what is there, after any requests', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyStep, { minLength: 5, maxLength: 40 }), async (steps) => {
      const { services, db, typeId } = await withType()
      const preset = await services.types.getDefault(member)
      const pick = async (index: number) => {
        const rows = await db('volumes').orderBy('created_at')
        return rows.length === 0 ? null : rows[index % rows.length]
      }
      /** Null when the request makes no sense yet. */
      const prepare = async (step: typeof anyStep extends fc.Arbitrary<infer Step> ? Step : never) => {
        if (step.do === 'limit') {
          const limits = { [step.name]: step.limit }
          const set =
            step.owner === 'class'
              ? () => services.quotas.updateClass(admin, 'default', limits)
              : () => services.quotas.reset(admin, PROJECT).then(() => services.quotas.update(admin, PROJECT, limits))
          return { adds: {}, run: set }
        }
        if (step.do === 'create') {
          const adds = growth(step.fast, { volumes: 1, snapshots: 0, gigabytes: step.sizeGib })
          const wanted = newVolume({ sizeGib: step.sizeGib, volumeType: step.fast ? 'fast' : null })
          return { adds, run: () => services.volumes.create(member, wanted) }
        }
        const row = await pick(step.of)
        if (row === null) return null
        const isFast = row.volume_type_id === typeId
        const children = await db('snapshots').where({ volume_id: row.id })
        switch (step.do) {
          case 'snapshot': {
            const adds = growth(isFast, { volumes: 0, snapshots: 1, gigabytes: row.size_gib })
            return { adds, run: () => services.snapshots.create(member, newSnapshot(row.id)) }
          }
          case 'extend': {
            if (step.sizeGib <= row.size_gib) return null
            const adds = growth(isFast, { volumes: 0, snapshots: 0, gigabytes: step.sizeGib - row.size_gib })
            return { adds, run: () => services.volumes.extend(member, row.id, step.sizeGib) }
          }
          case 'retype': {
            if (step.fast === isFast) return null
            const gigabytes = row.size_gib * (1 + children.length)
            const all = growth(step.fast, { volumes: 1, snapshots: children.length, gigabytes })
            const adds = Object.fromEntries(Object.entries(all).filter(([name]) => name.includes('_')))
            return { adds, run: () => retype(db, row.id, step.fast ? typeId : preset.id) }
          }
          case 'delete':
            return {
              adds: {},
              run: () => services.volumes.delete(member, row.id, { cascade: true, force: false }),
            }
        }
      }
      for (const step of steps) {
        const prepared = await prepare(step)
        if (prepared === null) continue
        const usage = await services.quotas.usage(member, PROJECT)
        const over = Object.entries(prepared.adds).some(
          ([name, n]) => n > 0 && usage[name]!.limit >= 0 && usage[name]!.used + n > usage[name]!.limit,
        )
        expect(await outcome(prepared.run())).toBe(over ? 'QuotaExceeded' : 'done')
        await services.idle()
        expect(await keptUsage(db)).toEqual(await recount(db))
        expect(await keptTypes(db)).toEqual(await recountTypes(db))
      }
      await services.stop()
      await db.destroy()
    }),
    { numRuns: 20 },
  )
}, 240_000)
